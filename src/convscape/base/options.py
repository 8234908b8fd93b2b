"""Options of commands whose other words are overrides, which argparse would not take."""

from __future__ import annotations

import sys

from convscape.base.errors import ConfigError


def take_flag(flag: str) -> bool:
    """Whether `flag` is on the command line; it is then removed from it."""
    is_there = flag in sys.argv[1:]
    sys.argv[1:] = [word for word in sys.argv[1:] if word != flag]
    return is_there


def take_option(option: str) -> str | None:
    """What follows `option` on the command line; both are then removed from it.

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
            raise ConfigError(f"{option}: it needs a file behind it")
        sys.argv[1:] = [*words[:place], *rest]
        return value
    return None


def take_count(given: dict[str, str], key: str) -> int | None:
    """What `given` says of `key`, which is then taken out of it; None if nothing.

    Raises:
        ConfigError: if it is not an integer of 1 or more.
    """
    text = given.pop(key, None)
    if text is None:
        return None
    if not text.isdecimal() or not int(text):
        raise ConfigError(f"{key}={text}: allowed: an integer of 1 or more")
    return int(text)
