"""Keys of the learning-rate schedules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from convscape.base.sections import Fraction, NotNegative, Part, Positive, Section


class ConstantConfig(Section):
    """The same learning rate throughout."""

    name: Literal["constant"]
    warmup_epochs: NotNegative


class StepConfig(Section):
    """Multiply by `gamma` every `step_epochs` epochs."""

    name: Literal["step"]
    warmup_epochs: NotNegative
    step_epochs: Positive
    gamma: Annotated[float, Field(gt=0)]


class MultiStepConfig(Section):
    """Multiply by `gamma` at each of `milestones` (epochs)."""

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


class OwnSchedulerConfig(Part):
    """A schedule of torch.optim.lr_scheduler, or the user's own, with its own arguments.

    `interval`: what it counts, "epoch" or "step" as in Lightning.
    """

    interval: Literal["epoch", "step"] = "epoch"


def _kind(value: Any) -> Any:
    if isinstance(value, dict):
        return "own" if "_target_" in value else value.get("name")
    return "own" if isinstance(value, OwnSchedulerConfig) else getattr(value, "name", None)


SchedulerConfig = Annotated[
    Annotated[ConstantConfig, Tag("constant")]
    | Annotated[StepConfig, Tag("step")]
    | Annotated[MultiStepConfig, Tag("multistep")]
    | Annotated[CosineConfig, Tag("cosine")]
    | Annotated[OneCycleConfig, Tag("one_cycle")]
    | Annotated[OwnSchedulerConfig, Tag("own")],
    Discriminator(_kind),
]
