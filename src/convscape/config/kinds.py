"""Kinds of values that several keys share, with their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator

from convscape import geometry
from convscape.base.values import boolean, device, integer, probability


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
PoolKinds = Annotated[Any, _each(geometry.pooling_kind)]
