"""`Case`: a training that is examined, with what several rules ask about it, measured once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from torch import Tensor

from convscape.doctor.inside import Inside, look_inside
from convscape.doctor.subject import Subject
from convscape.doctor.trials import RangeTest, Trial, new_model, patient_trial, range_test
from convscape.models import ImageClassifier

LOOKED_AT = 128  # images of the batch that shows the inside of a network


class Case(Subject):
    """A training, its images, and short trainings of it.

    - `trained`: the network of a run as it came out of its training, if there is one.

    Nothing here changes anything outside: every network that is trained is a new one.
    """

    def __init__(self, composed: Mapping[str, Any], trained: ImageClassifier | None = None) -> None:
        super().__init__(composed)
        self.trained = trained

    @cached_property
    def at_start(self) -> Inside:
        """Inside of the new network, on training images."""
        return look_inside(new_model(self), *self._looked_at())

    @cached_property
    def inside_trained(self) -> Inside | None:
        """Inside of the network as its training left it; None if there is none."""
        return None if self.trained is None else look_inside(self.trained, *self._looked_at())

    @cached_property
    def after_trial(self) -> Inside:
        """Inside of the network after its trial."""
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
        """A short training just as the config says it, but for its length."""
        return patient_trial(self)

    @property
    def learns(self) -> bool:
        """Whether the trial has learned something that holds for other images."""
        return self.trial.learns

    @property
    def expected_fall(self) -> float:
        """Of the loss in the whole training, if it went on falling as in the trial."""
        return self.trial.fall / self.trial.steps * self.run.total_steps

    @cached_property
    def range_test(self) -> RangeTest:
        """Which learning rates learn at all."""
        return range_test(self)
