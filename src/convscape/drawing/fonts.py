"""Letters of any script for which the system has a font; we ship none.

DejaVu Sans, which comes with Matplotlib, has Latin, Greek, Cyrillic, Arabic and Hebrew. For other
scripts we use the fonts that systems usually have. If no single font has the letters of all names,
pictures show a number for each of the others, and a note says so.
"""

from __future__ import annotations

import importlib.util
import string
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

from convscape.base.values import on_one_line

DEJAVU = "DejaVu Sans"
# File names without suffix, the best first: Linux (Noto, WenQuanYi, Droid, FreeFont, Unifont),
# Windows and macOS. The first ones have the most letters.
USUAL = (
    *("NotoSansCJK-Regular", "NotoSansCJKsc-Regular", "NotoSansCJKjp-Regular", "SourceHanSans"),
    *("wqy-microhei", "wqy-zenhei", "DroidSansFallbackFull", "DroidSansFallback"),
    *("msyh", "YuGothM", "malgun", "msjh", "simsun", "msgothic", "Nirmala", "LeelawUI", "ebrima"),
    *("Arial Unicode", "Hiragino Sans GB", "STHeiti Light", "AppleSDGothicNeo", "Kohinoor"),
    *("NotoSansDevanagari-Regular", "NotoSansBengali-Regular", "NotoSansTamil-Regular"),
    *("NotoSansThai-Regular", "NotoSansEthiopic-Regular", "FreeSans", "unifont"),
)


# Pictures put names between English words and numbers, shorten them with "…", and draw each line in
# one font: a font without these characters is of no use.
AROUND_NAMES = string.ascii_letters + string.digits + string.punctuation + "…"


@cache
def others() -> tuple[Path, ...]:
    """The system's font files for other scripts: those of USUAL, then all of Noto Sans."""
    from matplotlib import font_manager

    # searched again: Matplotlib's list may be older than a font installed to see the names
    by_stem = {file.stem: file for file in map(Path, font_manager.findSystemFonts())}
    noto = sorted(s for s in by_stem if s.startswith("NotoSans") and s.endswith("-Regular"))
    return tuple(by_stem[stem] for stem in dict.fromkeys((*USUAL, *noto)) if stem in by_stem)


@cache
def families() -> list[str]:
    """The families for Matplotlib, which opens all of them and tries them in order for each letter.

    Only fonts of USUAL: Noto Sans may have two hundred.
    """
    from matplotlib import font_manager

    listed = font_manager.fontManager.ttflist
    if not any(Path(entry.fname).stem in USUAL for entry in listed):  # the list may be outdated
        for file in others():
            if file.stem in USUAL:
                font_manager.fontManager.addfont(file)
    by_stem = {
        Path(entry.fname).stem: entry.name for entry in listed if Path(entry.fname).is_file()
    }
    return [DEJAVU, *(by_stem[stem] for stem in USUAL if stem in by_stem)]


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has every letter of `text`; DejaVu Sans if none has."""
    if _has(None, text):
        return _opened(None, size)
    return _opened(next((file for file in _for_lines() if _has(file, text)), None), size)


def readable(names: Sequence[str]) -> list[str]:
    """The names of classes; "class 3" for a name with a letter that would show as a box."""
    drawn = _drawn(tuple(names))
    return [name if name in drawn else f"class {n}" for n, name in enumerate(names)]


def note(names: Sequence[str]) -> str | None:
    """A sentence about the names that pictures show as numbers; None if all can be drawn."""
    drawn = _drawn(tuple(names))
    unread = [name for name in names if name not in drawn]
    if not unread:
        return None
    few = ", ".join(map(on_one_line, unread[:3])) + ", ..." * (len(unread) > 3)
    return (
        f"no font of this system has the letters of all class names: pictures number {few}; "
        "install a font that has these letters to see the names"
    )


@lru_cache(16)
def _drawn(names: tuple[str, ...]) -> frozenset[str]:
    """The names that the best single font can draw: a line may hold any two of them."""
    if all(_has(None, name) for name in names):
        return frozenset(names)
    found = (frozenset(n for n in names if _has(file, n)) for file in (None, *_for_lines()))
    return max(found, key=len)  # the first one of equally good fonts


@cache
def _for_lines() -> tuple[Path, ...]:
    return tuple(file for file in others() if _has(file, AROUND_NAMES))


def _has(file: Path | None, text: str) -> bool:
    return all(letter.isspace() or _is_in(file, letter) for letter in text)


@lru_cache(10_000)
def _is_in(file: Path | None, letter: str) -> bool:
    """Whether a font has a letter: those that it lacks are drawn like a code that is no letter.

    - `file`: None for DejaVu Sans, which has all Latin letters.
    """
    if file is None and letter < "\u0250":
        return True
    font = _opened(file, 16)
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010fffe"))


@cache
def _opened(file: Path | None, size: int) -> ImageFont.FreeTypeFont:
    if file is None:
        spec = importlib.util.find_spec("matplotlib")  # importing it takes half a second
        assert spec is not None
        assert spec.origin is not None
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size)
