"""Checks of single values of the config, each with the sentence that refuses a wrong one.

A check returns the value, so that it serves wherever a value is read.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

LARGEST = 2**31 - 1  # of every integer in a config: more than any tensor's axis can have


def hint(word: Any, choices: Iterable[str]) -> str:
    """`; did you mean 'same'?`, or nothing where nothing is close."""
    names = {choice.lower(): choice for choice in choices}
    matches = get_close_matches(str(word)[:100].lower(), list(names), n=1)
    return f"; did you mean {names[matches[0]]!r}?" if matches else ""


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
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise ValueError(f"{value!r} is not allowed; allowed: an integer from 1 to {LARGEST}")
    return value


def boolean(value: Any) -> bool:
    """True or false."""
    if type(value) is not bool:
        raise ValueError(f"{value!r} is not allowed; allowed: true or false")
    return value


def probability(value: Any) -> float:
    """From 0 to below 1."""
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ValueError(f"{value!r} is not a probability; allowed: 0 or more, below 1")
    return value


def device(value: str) -> str:
    """A kind of device, or one GPU of several."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", value):
        matched = hint("cuda" if value == "gpu" else value, ("auto", "cpu", "cuda", "mps"))
        raise ValueError(f"allowed: auto, cpu, cuda, cuda:<number>, mps{matched}")
    return value


def mistake(key: str, error: Mapping[str, Any]) -> str:
    """One of pydantic's errors in a sentence: the key, its value, and what is allowed."""
    is_about_the_key = error["type"] in ("extra_forbidden", "missing")
    given = key if is_about_the_key else f"{key}={_shown(error['input'])}"
    return f"{given}: {refusal(error)}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# a stranger's config may hold a million values: no more are written out than are shown
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def shortened(text: str, most: int = 1000) -> str:
    """`text`, or as much of its beginning as a sentence has room for."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def refusal(error: Mapping[str, Any]) -> str:
    """What one of pydantic's errors says is allowed, as a person would put it."""
    context, message = error.get("ctx", {}), str(error["msg"])
    match error["type"]:
        case "literal_error":
            allowed = str(context["expected"]).replace(" or ", ", ").replace("'", "")
            return f"allowed: {allowed}{hint(error['input'], allowed.split(', '))}"
        case "value_error":
            return str(context["error"])
        case "extra_forbidden":
            return "there is no such key"
        case "missing":
            return "the key is missing"
        case kind if kind in _BOUNDS:
            return f"allowed: {_BOUNDS[kind].format(**context)}"
        case "int_type" | "float_type" if _is_number_in_quotes(error["input"]):
            return f"{error['input']!r} is text; allowed: a number without quotes"
        case kind if kind.endswith("_type"):
            return f"allowed: {_TYPES.get(kind, kind.removesuffix('_type'))}"
        case _:
            return message[0].lower() + message[1:]


def _is_number_in_quotes(value: Any) -> bool:
    """Whether it is text that would be a number without its quotes."""
    return isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d*)?(e[-+]?\d+)?", value) is not None


_BOUNDS = {
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:.15g}",
    "less_than_equal": "up to {le:.15g}",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of up to {max_length}",
    "finite_number": "a finite number",
}

_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a word",
    "list_type": "a list, such as [32,64]",
    "model_type": "a section with keys of its own",
}
