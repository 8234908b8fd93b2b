"""`Subject`: the config of a training that is examined, and its images."""

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

MAX_IMAGES = 2000  # of a split, for what compares each image with each
SMALL = 8  # pixels on a side of what is compared
OF_IMAGES = ("data.change", "data.root", "data.name")  # keys of which the images depend


class Subject:
    """The config of a training, and its images.

    - `composed`: the config as plain values.
    """

    def __init__(self, composed: Mapping[str, Any]) -> None:
        self.composed = composed
        self.config = check(dict(composed))
        self.run = ResolvedRun(self.config)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """The same with other values at some keys, such as optimizer.lr; nothing else changes.

        Raises:
            ConfigError: if that is no config.
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
        """How many there are to tell apart."""
        return len(self.run.classes)

    @cached_property
    def _drawn(self) -> dict[str, Tensor]:
        """Positions of at most `MAX_IMAGES` images of each split."""
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
        """The same images as floats (N, C * h * w), means of pixels, at most `SMALL` on a side."""
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
        """Small train images (N, ...) and labels to learn from, and others to be asked about.

        All are of the train split: whatever is wrong with other splits does not show in it.
        """
        small, labels = self.small("train"), self.sample("train")[1]
        num = len(labels) * 3 // 4
        return small[:num], labels[:num], small[num:], labels[num:]

    @property
    def held_out(self) -> str:
        """The split that trials are measured on; without validation it is the train images."""
        return "val" if len(self.data.indices["val"]) else "train"

    # --- keys ---------------------------------------------------------------------------------

    @property
    def can_train(self) -> bool:
        """Whether the doctor can train it: a LightningModule with steps of its own it cannot."""
        return not has_own_training(self.config)

    @property
    def guessing_loss(self) -> float | None:
        """Mean loss of even guesses; None of a loss that is no cross-entropy."""
        return guessing_loss(self.config, self.num_classes)

    @property
    def is_planned(self) -> bool:
        """Whether the config has keys for the layers of the network."""
        return self.run.plan is not None

    def model_keys(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """`values` as a mend, if the network has all those keys, and they change anything."""
        known = self.composed["model"]
        names = {key: key.removeprefix("model.") for key in values if key.startswith("model.")}
        if not self.is_planned or not all(name in known for name in names.values()):
            return ()
        return (dict(values),) if any(known[n] != values[k] for k, n in names.items()) else ()
