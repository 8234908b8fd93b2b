"""Keys of the learning-rate schedules."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field

from convscape.base.sections import Fraction, NotNegative, Positive, Section


class ConstantConfig(Section):
    """The same learning rate throughout."""

    name: Literal["constant"]
    warmup_epochs: NotNegative


class StepConfig(Section):
    """Times `gamma` every `step_epochs` epochs."""

    name: Literal["step"]
    warmup_epochs: NotNegative
    step_epochs: Positive
    gamma: Annotated[float, Field(gt=0)]


class MultiStepConfig(Section):
    """Times `gamma` at each of `milestones` (epochs)."""

    name: Literal["multistep"]
    warmup_epochs: NotNegative
    milestones: list[Positive]
    gamma: Annotated[float, Field(gt=0)]


class CosineConfig(Section):
    """Half a cosine from lr down to lr * `final_fraction`."""

    name: Literal["cosine"]
    warmup_epochs: NotNegative
    final_fraction: Fraction


class OneCycleConfig(Section):
    """Cosine up from lr / `div_factor` to lr, and down to lr / `final_div_factor`."""

    name: Literal["one_cycle"]
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)]
    div_factor: Annotated[float, Field(ge=1)]
    final_div_factor: Annotated[float, Field(ge=1)]


SchedulerConfig = Annotated[
    ConstantConfig | StepConfig | MultiStepConfig | CosineConfig | OneCycleConfig,
    Discriminator("name"),
]
