"""What every section of the config is made of. Does not import torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from convscape.base.values import MAX_INTEGER

Positive = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0)]


class Part(BaseModel):
    """A class or function that a config names by `_target_`, with its keyword arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    target: str = Field(alias="_target_")

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for it."""
        return dict(self.model_extra or {})


class Section(BaseModel):
    """A part of the config: unknown keys are refused, and nothing is converted silently."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, populate_by_name=True
    )
