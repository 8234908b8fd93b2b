"""A pydantic error as one sentence: the key, its value, what is allowed."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

from convscape.base.values import hint


def error_message(key: str, error: Mapping[str, Any]) -> str:
    """A pydantic error in one sentence: the key, its value, and what is allowed."""
    is_about_the_key = error["type"] in ("extra_forbidden", "missing")
    key, in_brackets, _ = key.partition(".[key]")  # a name that the user chooses
    given = key if is_about_the_key or in_brackets else f"{key}={_shown(error['input'])}"
    return f"{given}: {allowed_values(error)}"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# a stranger's config may hold a million values: only those that are shown are written out
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = 20
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlevel = 3


def allowed_values(error: Mapping[str, Any]) -> str:
    """What is allowed according to a pydantic error, in plain words."""
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
    """Whether it is text that would be a number without quotes."""
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
    "dict_type": "names that you choose, each with its class (<name>._target_=...)",
    "model_type": "a section with keys of its own",
}
