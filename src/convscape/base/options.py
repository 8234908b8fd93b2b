"""Options of commands whose other arguments are overrides, which argparse would refuse."""

from __future__ import annotations

import sys

from convscape.base.errors import ConfigError


def take_flag(flag: str) -> bool:
    """Whether `flag` is on the command line; it is then removed."""
    is_there = flag in sys.argv[1:]
    sys.argv[1:] = [word for word in sys.argv[1:] if word != flag]
    return is_there


def take_option(option: str) -> str | None:
    """The value after `option` on the command line; both are then removed.

    Raises:
        ConfigError: if nothing follows it.
    """
    words = sys.argv[1:]
    for place, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name != option:
            continue
        rest = words[place + 1 :]
        if not equals:
            value, *rest = rest or [""]
        if not value or value.startswith("-"):
            raise ConfigError(f"{option} needs a file: {option} <file>")
        sys.argv[1:] = [*words[:place], *rest]
        return value
    return None


def take_count(given: dict[str, str], key: str) -> int | None:
    """The value of `key` in `given`, from which it is removed; None if it is not there.

    Raises:
        ConfigError: if it is not an integer of 1 or more.
    """
    text = given.pop(key, None)
    if text is None:
        return None
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"{key}={text}: allowed: an integer of 1 or more")
    return int(text)
