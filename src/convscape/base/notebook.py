"""What a notebook shows instead of a terminal: tables, and displays that update themselves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from typing import Any


def is_here() -> bool:
    """Whether the code runs in a notebook: Jupyter's, Colab's or an editor's."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return hasattr(get_ipython(), "kernel")


class Shown:
    """HTML below a cell that can be replaced."""

    def __init__(self, html: str = "") -> None:
        from IPython.display import HTML, display

        self._html: Any = HTML
        self._place: Any = display(HTML(html), display_id=True)

    def replace(self, html: str) -> None:
        """Show this instead."""
        self._place.update(self._html(html))


def table(rows: Sequence[Sequence[str]], right_aligned: Sequence[int] = ()) -> str:
    """The HTML of a table; the first row is the header, as for `terminal.format_table`."""
    head, *body = rows
    lines = "".join(f"<tr>{_cells('td', row, right_aligned)}</tr>" for row in body)
    names = _cells("th", head, right_aligned)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table>"


def _cells(tag: str, row: Sequence[str], right_aligned: Sequence[int]) -> str:
    """Align text on the left and keep its indent; notebooks align everything on the right."""
    sides = ["right" if index in right_aligned else "left" for index in range(len(row))]
    style = "white-space:pre;text-align:"
    pairs = zip(row, sides, strict=True)
    return "".join(f'<{tag} style="{style}{side}">{escape(cell)}</{tag}>' for cell, side in pairs)


def bar(done: float, words: str) -> str:
    """The HTML of a progress bar, `done` from 0 to 1, followed by words."""
    return f'<progress max="1" value="{done:.3f}"></progress> {escape(words)}'
