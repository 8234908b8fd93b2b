"""The text in a cell of a report's table."""

from __future__ import annotations

from typing import Any

from convscape.geometry.window import format_size


def text_of(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def level_text(value: Any) -> str:
    """A key's value; for a number drawn by a search, just enough digits to tell it apart."""
    text = text_of(value)
    try:
        return f"{float(text):.4g}" if len(text) > 7 and "." in text else text
    except ValueError:
        return text


def place_of_level(key: Any, value: Any) -> Any:
    """The sort position of a key's level, so that 10 comes after 9."""
    return key.levels.index(value) if value in key.levels else -1


def size_text(height: float, width: float) -> str:
    """A mean receptive field; a user's own network has none."""
    return "" if height != height else format_size((round(height), round(width)))


def count_text(value: Any) -> str:
    return "" if value != value else f"{value:,.0f}"
