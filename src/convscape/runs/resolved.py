"""`ResolvedRun`: a config and everything that follows from it, each fact derived once. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from convscape.base import machine
from convscape.base.machine import Device
from convscape.base.throughput import gains_from_bf16, steps_per_execution
from convscape.config.metrics import Metric
from convscape.config.schema import Config
from convscape.data.cache import ImageSet
from convscape.data.splits import split, split_sizes, steps_per_epoch, taken_for_validation
from convscape.geometry.plan import Plan
from convscape.runs.fingerprint import fingerprint
from convscape.runs.init_from import with_checksum
from convscape.runs.names import run_name


class ResolvedRun:
    """One run: its `config`, the `overrides` that were typed, and what follows from both.

    A fact is computed on first use and kept. Name, fingerprint, plan, device and precision follow
    from the config alone; `image_set` loads the images, which the numbers of steps need. If the run
    starts with given weights, their checksum is known, or `ConfigError` says why not.
    """

    def __init__(self, config: Config, overrides: Sequence[str] = ()) -> None:
        self.config, self.overrides = with_checksum(config), list(overrides)

    @cached_property
    def fingerprint(self) -> str:
        """Eight hex digits of all that matters to the result."""
        return fingerprint(self.config)

    @cached_property
    def name(self) -> str:
        """Its folder's name: cnn_k5_s2_same-3f9a1c2b."""
        return run_name(self.config, self.overrides, self.fingerprint)

    @cached_property
    def plan(self) -> Plan | None:
        """Shapes, parameters and MACs; None for a user's own model.

        Raises:
            InfeasibleGeometry: if the network cannot exist.
        """
        return self.config.plan()

    @cached_property
    def device(self) -> Device:
        """What `trainer.device` means on this machine."""
        return machine.named_device(self.config.trainer.device)

    @cached_property
    def uses_bf16(self) -> bool:
        """Whether it computes in bfloat16.

        `trainer.precision=auto` does so if the hardware supports it natively and the network is
        large enough to benefit.
        """
        asked = self.config.trainer.precision
        if asked != "auto":
            return asked == "bf16"
        is_large = self.plan is None or gains_from_bf16(self.plan.macs, self.device.kind)
        return is_large and machine.has_native_bf16(self.device)

    @cached_property
    def steps_per_execution(self) -> int:
        """Optimiser steps per call of training_step; 1 if there is no plan to tell their cost."""
        asked = self.config.trainer.steps_per_execution
        if asked != "auto":
            return asked
        if self.plan is None:
            return 1
        return steps_per_execution(self.plan.macs, self.config.data.batch_size, self.device.kind)

    @cached_property
    def image_set(self) -> ImageSet:
        """The data set, from its cache or its source.

        Raises:
            DataError: if it is missing or damaged.
        """
        return self.config.load_images()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.image_set.image_shape

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return list(self.image_set.classes)

    @cached_property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and deviation per channel, of pixels scaled to 0..1.

        Raises:
            ConfigError: if the config does not give one per channel.
        """
        return self.image_set.normalization(self.config.data.mean, self.config.data.std)

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the training images."""
        return steps_per_epoch(self._split_sizes[0], self.config.data.batch_size)

    @cached_property
    def max_epochs(self) -> int:
        """Epochs to train: as asked for, or as many as `trainer.max_steps` takes."""
        trainer = self.config.trainer
        for_steps = -(-trainer.max_steps // self.steps_per_epoch) if trainer.max_steps else None
        return min(limit for limit in (trainer.max_epochs, for_steps) if limit is not None)

    @cached_property
    def total_steps(self) -> int:
        """Optimiser steps of the whole training."""
        steps = self.max_epochs * self.steps_per_epoch
        return min(steps, self.config.trainer.max_steps or steps)

    @cached_property
    def monitor(self) -> Metric | None:
        """What chooses the best epoch; None means the last one, if there are no validation images.

        Raises:
            ConfigError: if the metric cannot choose one.
        """
        asked = self.config.monitor
        is_there = self._split_sizes[1] > 0 or self.image_set.val_labels is not None
        return asked if asked is None or asked.split != "val" or is_there else None

    @property
    def train_indices(self) -> np.ndarray:
        """Indices of the train split's images that are trained on."""
        data = self.config.data
        labels = self.image_set.train_labels
        return split(labels, self._taken, data.train_size, data.split_seed, data.fold)[0]

    @property
    def num_val_images(self) -> int:
        """Number of validation images, whether taken out of the train split or a separate split."""
        own = self.image_set.val_labels
        return self._split_sizes[1] or (0 if own is None else len(own))

    @cached_property
    def _split_sizes(self) -> tuple[int, int]:
        data, num_images = self.config.data, len(self.image_set.train_labels)
        return split_sizes(num_images, self._taken, data.train_size, data.fold)

    @property
    def _taken(self) -> int | float:
        data, has_own = self.config.data, self.image_set.val_labels is not None
        return taken_for_validation(has_own, data.val_size, data.fold)
