"""Checks of single values of the config, each with the sentence that refuses a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from convscape import geometry

ACTIVATIONS = (
    "none", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"
)  # fmt: skip


def hint(word: Any, choices: Iterable[str]) -> str:
    """`; did you mean 'same'?`, or nothing where nothing is close."""
    matches = get_close_matches(str(word), list(choices), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def one_of(*choices: str) -> Callable[[Any], None]:
    """A check for a word among `choices`."""

    def check(value: Any) -> None:
        if value not in choices:
            raise ValueError(
                f"{value!r} is unknown; allowed: {', '.join(choices)}{hint(value, choices)}"
            )

    return check


def integer(value: Any) -> None:
    """A count: 1 or more."""
    if type(value) is not int or not 1 <= value <= geometry.LARGEST:
        raise ValueError(f"{value!r} is not allowed; allowed: an integer of 1 or more")


def boolean(value: Any) -> None:
    """True or false."""
    if type(value) is not bool:
        raise ValueError(f"{value!r} is not allowed; allowed: true or false")


def probability(value: Any) -> None:
    """From 0 to below 1."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ValueError(f"{value!r} is not a probability; allowed: 0 or more, below 1")


def optional_size(value: Any) -> None:
    """A size, or None for what the key says of it."""
    if value is not None:
        geometry.parse_size(value)
