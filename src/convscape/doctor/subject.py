"""`Subject`: the config of a training under examination, and its images."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from convscape.config.check import check
from convscape.runs.resolved import ResolvedRun
from convscape.training.build import data_module, has_own_training
from convscape.training.watch import guessing_loss

MAX_IMAGES = 2000  # per split, for comparisons of all pairs of images
SMALL = 8  # side in pixels of images that are compared
OF_IMAGES = ("data.change", "data.root", "data.name")  # keys that the images depend on


class Subject:
    """The config of a training, and its images.

    - `composed`: the config as plain values.
    """

    def __init__(self, composed: Mapping[str, Any]) -> None:
        self.composed = composed
        self.config = check(dict(composed))
        self.run = ResolvedRun(self.config)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same subject with other values for some keys, such as optimizer.lr.

        Raises:
            ConfigError: if that is not a valid config.
        """
        changed: dict[str, Any] = copy.deepcopy(dict(self.composed))
        for key, value in values.items():
            *path, leaf = key.split(".")
            section = changed
            for part in path:
                section = section[part]
            section[leaf] = value
        other = type(self)(changed)
        if not any(key.startswith(OF_IMAGES) for key in values):
            other.run.image_set = self.run.image_set
        return other

    # --- images -------------------------------------------------------------------------------

    @cached_property
    def data(self) -> Any:
        """Its splits and batches."""
        return data_module(self.run)

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.run.classes)

    @cached_property
    def _drawn(self) -> dict[str, Tensor]:
        """Indices of at most `MAX_IMAGES` images of each split."""
        found = {}
        for split, indices in self.data.indices.items():
            order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))
            found[split] = order[:MAX_IMAGES]
        return found

    def labels(self, split: str) -> np.ndarray:
        """All labels (N,) of a split."""
        found: np.ndarray = self.data.labels(split).numpy()
        return found

    def sample(self, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) and labels (N,), at most `MAX_IMAGES` of a split, in random order."""
        found: tuple[Tensor, Tensor] = self.data.tensors(split, self._drawn[split])
        return found

    def small(self, split: str) -> Tensor:
        """The same images as floats (N, C * h * w), averaged to at most `SMALL` pixels a side."""
        if split not in self._small:
            images = self.sample(split)[0].float()
            size = (min(SMALL, images.shape[2]), min(SMALL, images.shape[3]))
            self._small[split] = F.adaptive_avg_pool2d(images, size).flatten(1)
        return self._small[split]

    @cached_property
    def _small(self) -> dict[str, Tensor]:
        return {}

    @cached_property
    def apart(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Small train images (N, ...) and labels to learn from, and others to test on.

        All are from the train split, so problems with other splits do not matter.
        """
        small, labels = self.small("train"), self.sample("train")[1]
        num = len(labels) * 3 // 4
        return small[:num], labels[:num], small[num:], labels[num:]

    @property
    def held_out(self) -> str:
        """The split that trials are measured on; without validation, the train images."""
        return "val" if len(self.data.indices["val"]) else "train"

    # --- keys ---------------------------------------------------------------------------------

    @property
    def can_train(self) -> bool:
        """Whether the doctor can train it, which a LightningModule with its own steps prevents."""
        return not has_own_training(self.config)

    @property
    def guessing_loss(self) -> float | None:
        """Mean loss of uniform guesses; None if the loss is not cross-entropy."""
        return guessing_loss(self.config, self.num_classes)

    @property
    def is_planned(self) -> bool:
        """Whether the config has keys for the network's layers."""
        return self.run.plan is not None

    def model_keys(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """`values` as a remedy, if the network has all those keys and they change anything."""
        known = self.composed["model"]
        names = {key: key.removeprefix("model.") for key in values if key.startswith("model.")}
        if not self.is_planned or not all(name in known for name in names.values()):
            return ()
        return (dict(values),) if any(known[n] != values[k] for k, n in names.items()) else ()
