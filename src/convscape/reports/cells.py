"""What stands in a cell of a report's tables and heat maps."""

from __future__ import annotations

import html
import textwrap
from typing import Any

from convscape.geometry.window import format_size


def cell_text(value: float, reason: str | None) -> str:
    """A cell's mean, and why runs are missing from it."""
    words = [] if value != value else [f"{value:.4g}"]
    if reason is not None:
        words += textwrap.wrap(f"{'not all runs: ' if words else ''}{reason}", 60)
    return escaped("<br>".join(words or ["no run"]))


def escaped(text: str) -> str:
    """For Plotly, which takes some HTML and TeX in its labels; line breaks are ours."""
    return "<br>".join(html.escape(line).replace("$", "&#36;") for line in text.split("<br>"))


def text_of(value: Any) -> str:
    return "" if value is None or value != value else str(value)


def place_of_level(key: Any, value: Any) -> Any:
    """Where a level stands among its key's, so that 10 sorts after 9."""
    return key.levels.index(value) if value in key.levels else -1


def size_text(height: float, width: float) -> str:
    """A mean receptive field; a network of the user's own has none."""
    return "" if height != height else format_size((round(height), round(width)))


def count_text(value: Any) -> str:
    return "" if value != value else f"{value:,.0f}"
