"""Checks of single values of the config, each with the message for a wrong one.

A check returns the value, so it can be used wherever a value is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

MAX_INTEGER = 2**31 - 1  # for every integer in a config: no axis of a tensor can be longer


def value_at(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, such as optimizer.lr, in nested sections."""
    found: Any = values
    for part in key.split("."):
        found = found[part]
    return found


def hint(word: Any, choices: Iterable[str]) -> str:
    """`; did you mean 'same'?`, or nothing if nothing is close."""
    names = {choice.lower(): choice for choice in choices}
    typed = str(word)[:100].lower()
    begun = [name for name in names if len(typed) > 2 and name.startswith(typed)]
    matches = get_close_matches(typed, list(names), n=1) or begun
    return f"; did you mean {names[matches[0]]!r}?" if matches else ""


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def on_one_line(text: str) -> str:
    r"""A name from outside, for use in a sentence: line breaks and the like are written as \n."""
    return text if text.isprintable() else repr(text)[1:-1]


def one_of(*choices: str) -> Callable[[Any], str]:
    """A check for a word among `choices`."""

    def check(value: Any) -> str:
        if value not in choices:
            raise ValueError(
                f"{value!r} is unknown; allowed: {', '.join(choices)}{hint(value, choices)}"
            )
        return str(value)

    return check


def integer(value: Any) -> int:
    """A count: 1 or more."""
    if type(value) is not int or not 1 <= value <= MAX_INTEGER:
        raise ValueError(f"{value!r} is not allowed; allowed: an integer from 1 to {MAX_INTEGER}")
    return value


def boolean(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError(f"{value!r} is not allowed; allowed: true or false")
    return value


def probability(value: Any) -> float:
    """From 0 up to, but not including, 1."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ValueError(f"{value!r} is not a probability; allowed: 0 or more, below 1")
    return value


def device(value: str) -> str:
    """A kind of device, or one GPU of several."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
        matched = hint("cuda" if value == "gpu" else value, ("auto", "cpu", "cuda", "mps"))
        raise ValueError(f"allowed: auto, cpu, cuda, cuda:<number>, mps{matched}")
    return value


def shortened(text: str, most: int = 1000) -> str:
    """`text`, or as much of its beginning as fits into a sentence."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def typed_value(value: Any) -> str:
    """A value of the config as you would type it on the command line: [32,64], true, 0.01."""
    if isinstance(value, list):
        return f"[{','.join(map(typed_value, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{typed_value(entry)}' for key, entry in value.items())}}}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
