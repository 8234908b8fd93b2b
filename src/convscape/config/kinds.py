"""Kinds of values that several keys share, with their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator

from convscape import geometry
from convscape.base.values import boolean, device, integer, probability

LEAST_SEEDS = 3


def seed_range(value: Any) -> tuple[int, int]:
    """The least and the most seeds: 3..30, or 30 for the most alone.

    Raises:
        ValueError: if it is neither.
    """
    least, dots, most = str(value).partition("..")
    allowed = "allowed: 2 to 1,000 seeds, as a range (3..30) or only the most (30)"
    if not (least.isdecimal() and (most.isdecimal() or not dots)) or isinstance(value, bool):
        raise ValueError(allowed)
    first, last = (int(least), int(most)) if dots else (min(LEAST_SEEDS, int(least)), int(least))
    if not 2 <= first <= last <= 1000:
        raise ValueError(allowed)
    return first, last


def _each(check: Callable[[Any], Any]) -> AfterValidator:
    """Apply `check` to a value, or to each entry of a list with one per block; keep the value."""

    def apply(value: Any) -> Any:
        if value == []:
            raise ValueError("the list is empty; allowed: one value, or one per block")
        for entry in value if isinstance(value, list) else [value]:
            check(entry)
        return value

    return AfterValidator(apply)


Sizes = Annotated[Any, _each(geometry.parse_size)]
OptionalSizes = Annotated[Any, _each(geometry.parse_optional_size)]
Paddings = Annotated[Any, _each(geometry.parse_padding)]
Groups = Annotated[Any, _each(integer)]
Flags = Annotated[Any, _each(boolean)]
Probabilities = Annotated[Any, _each(probability)]
Activations = Annotated[Any, _each(geometry.activation)]
Device = Annotated[str, AfterValidator(device)]
SeedRange = Annotated[Any, AfterValidator(lambda value: (seed_range(value), value)[1])]
PoolKinds = Annotated[Any, _each(geometry.pooling_kind)]
