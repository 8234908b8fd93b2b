"""Safe printing to the terminal, and tables."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print to the terminal; by default to stdout.

    Names of files and classes may be a stranger's: characters that control the terminal are not
    printed, nor are secrets in addresses.
    """
    if lines:
        text = without_secrets("\n".join(lines))
        text = _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)
        print(_encodable(text, file or sys.stdout), flush=True, file=file)


def _encodable(text: str, stream: TextIO) -> str:
    """`text` with plain characters for those that an old terminal or a pipe cannot show."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate({ord("─"): "-", ord("±"): "+-", ord("…"): "~"})
        return plain.encode(encoding, "replace").decode(encoding)
    return text


# control characters except tab and newline, changes of writing direction, bytes that are not text
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SECRET = re.compile(
    r"(\w://[^\s/:@]*:)\S+(@)|(https?://)[^\s/:@]+(@)|(?i:(?<=[?&]password=)[^\s&'\"]+)"
)


def without_secrets(text: str) -> str:
    """`text` with passwords and tokens in addresses replaced by three stars."""
    return _SECRET.sub(r"\1\3***\2\4", text)


def columns() -> int | None:
    """The width of the terminal, or $COLUMNS; None for a file, where lines may have any length."""
    return shutil.get_terminal_size(fallback=(0, 0)).columns or None


def wrapped(sentence: str, head: str = "", indent: str = "  ") -> list[str]:
    """A sentence split into lines that fit the terminal; no word is broken.

    - `head`, `indent`: the beginning of the first line, and of the others.
    """
    width = columns()
    if width is None or len(head) + len(sentence) <= width:
        return [f"{head}{sentence}"]
    options = {"break_long_words": False, "break_on_hyphens": False}
    around = {"initial_indent": head, "subsequent_indent": indent}
    return textwrap.wrap(sentence, width, **around, **options)  # type: ignore[arg-type]


def shortened(text: str, width: int) -> str:
    """`text` with an ellipsis for its middle if it is longer: names differ at the end."""
    if len(text) <= width:
        return text
    end = min(9, max(0, width - 2) // 2)  # a fingerprint and its hyphen
    return f"{text[: max(0, width - end - 1)]}…{text[len(text) - end :]}"


def format_table(
    rows: Sequence[Sequence[str]],
    right_aligned: Sequence[int] = (),
    droppable: Sequence[int] = (),
) -> str:
    """Columns of text, the first row underlined; a line break in a cell becomes a space.

    If the terminal is too narrow, headers take two lines, then columns are left out, then long
    cells are shortened, but never numbers.

    - `droppable`: columns to leave out for lack of room, the least important first.
    """
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    kept, limit = list(range(len(rows[0]))), columns()
    table = _Table(rows, kept, right_aligned)
    if limit is None or table.width <= limit:
        return str(table)
    tops = [cell.rpartition(" ")[0] for cell in rows[0]]
    bottoms = [cell.rpartition(" ")[2] for cell in rows[0]]
    rows = [tops, bottoms, *rows[1:]]
    for column in (None, *droppable):
        kept = [each for each in kept if each != column]
        table = _Table(rows, kept, right_aligned, num_headers=2)
        if table.width <= limit:
            break
    table.shorten(limit)
    dropped = [f"{tops[c]} {bottoms[c]}".strip() for c in droppable if c not in kept]
    more = wrapped(f"not shown for lack of room: {', '.join(dropped)}") if dropped else []
    return "\n".join([str(table), *more])


class _Table:
    """The given columns of the rows, with their widths."""

    def __init__(
        self,
        rows: Sequence[Sequence[str]],
        kept: Sequence[int],
        right_aligned: Sequence[int],
        num_headers: int = 1,
    ) -> None:
        self._rows = [[row[column] for column in kept] for row in rows]
        self._is_right = [column in right_aligned for column in kept]
        self._num_headers = num_headers
        if num_headers > 1 and not any(self._rows[0]):
            del self._rows[0]
            self._num_headers = 1

    @property
    def _widths(self) -> list[int]:
        return [max(map(len, column)) for column in zip(*self._rows, strict=True)]

    @property
    def width(self) -> int:
        """The width of the longest line, at most."""
        return sum(self._widths) + 2 * (len(self._is_right) - 1)

    def shorten(self, limit: int) -> None:
        """Shorten the longest cells, if they are text, until the table fits."""
        while self.width > limit:
            widths = self._widths
            texts = [
                max((len(cell) for row in self._shortenable(c) for cell in [row[c]]), default=0)
                for c in range(len(widths))
            ]
            can = [c for c, width in enumerate(widths) if width == texts[c] and width > 5]
            if not can:
                return
            widest = max(can, key=lambda c: widths[c])
            for row in self._shortenable(widest):
                row[widest] = shortened(row[widest], widths[widest] - 1)

    def _shortenable(self, column: int) -> list[list[str]]:
        """The rows whose cell in this column is text: in a column of numbers, the header."""
        return self._rows[: self._num_headers] if self._is_right[column] else self._rows

    def __str__(self) -> str:
        widths = self._widths
        lines = [
            "  ".join(
                cell.rjust(width) if is_right else cell.ljust(width)
                for cell, width, is_right in zip(row, widths, self._is_right, strict=True)
            ).rstrip()
            for row in self._rows
        ]
        rule = "─" * max(map(len, lines))
        return "\n".join([*lines[: self._num_headers], rule, *lines[self._num_headers :]])
