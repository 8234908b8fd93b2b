"""What the terminal needs: safe printing and tables."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import TextIO


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print to the terminal; by default to stdout.

    Names of files and classes may be a stranger's: what would steer the terminal is not printed,
    and no secret of an address.
    """
    if lines:
        text = without_secrets("\n".join(lines))
        text = _CONTROL_CHARACTERS.sub("\N{REPLACEMENT CHARACTER}", text)
        print(_encodable(text, file or sys.stdout), flush=True, file=file)


def _encodable(text: str, stream: TextIO) -> str:
    """`text` with plain signs for those that an old terminal or a pipe cannot take."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.translate({ord("─"): "-", ord("±"): "+-"})
        return plain.encode(encoding, "replace").decode(encoding)
    return text


# control characters but for tab and newline, turns of the writing direction, bytes that are no text
_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_SECRET = re.compile(
    r"(\w://[^\s/:@]*:)\S+(@)|(https?://)[^\s/:@]+(@)|(?i:(?<=[?&]password=)[^\s&'\"]+)"
)


def without_secrets(text: str) -> str:
    """`text` with three stars for the passwords and tokens of addresses."""
    return _SECRET.sub(r"\1\3***\2\4", text)


def format_table(rows: Sequence[Sequence[str]], right_aligned: Sequence[int] = ()) -> str:
    """Columns of text, the first row underlined; a line break in a cell is a space."""
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index in right_aligned else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])
