"""`Case`: a training under examination; what several rules need is measured once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor

from convscape.doctor.inside import Inside, look_inside
from convscape.doctor.subject import Subject
from convscape.doctor.trials import RangeTest, Trial, new_model, patient_trial, range_test
from convscape.models import ImageClassifier

LOOKED_AT = 128  # images in the batch used to look inside a network


class Case(Subject):
    """A training, its images, and short trainings of it.

    - `trained`: the network of a run after its training, if there is one.

    Nothing outside is changed: every network that is trained here is a new one.
    """

    def __init__(self, composed: Mapping[str, Any], trained: ImageClassifier | None = None) -> None:
        super().__init__(composed)
        self.trained = trained

    @cached_property
    def at_start(self) -> Inside:
        """Inside the new network, on training images."""
        return look_inside(new_model(self), *self._looked_at())

    @cached_property
    def inside_trained(self) -> Inside | None:
        """Inside the network after its training; None if there is none."""
        return None if self.trained is None else look_inside(self.trained, *self._looked_at())

    @cached_property
    def after_trial(self) -> Inside:
        """Inside the network after its trial."""
        return look_inside(self.trial.model, *self._looked_at())

    @property
    def num_parameters(self) -> int:
        """Trainable numbers."""
        return sum(p.numel() for p in self.trial.model.parameters() if p.requires_grad)

    def _looked_at(self) -> tuple[Tensor, Tensor]:
        images, labels = self.sample("train")
        return images[:LOOKED_AT], labels[:LOOKED_AT]

    @cached_property
    def trial(self) -> Trial:
        """A short training exactly as configured, except for its length."""
        return patient_trial(self)

    @property
    def learns(self) -> bool:
        """Whether the trial has learned something that generalises to other images."""
        return self.trial.learns

    @property
    def expected_fall(self) -> float:
        """How far the loss would fall in the whole training, at the trial's rate."""
        return self.trial.fall / self.trial.steps * self.run.total_steps

    @cached_property
    def range_test(self) -> RangeTest:
        """Which learning rates work at all."""
        return range_test(self)
