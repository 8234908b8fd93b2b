"""Letters of any script, as far as the system has a font for them; none comes along.

DejaVu Sans, which Matplotlib brings along, has Latin, Greek, Cyrillic, Arabic and Hebrew. For what
it lacks the fonts are taken that systems usually have. Where none has it, there is only a note.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

from convscape.base.values import on_one_line

DEJAVU = "DejaVu Sans"
# Files without their ending, the best first: of Linux (Noto, WenQuanYi, Droid, FreeFont, Unifont),
# Windows and macOS. The first ones have the most letters.
USUAL = (
    *("NotoSansCJK-Regular", "NotoSansCJKsc-Regular", "NotoSansCJKjp-Regular", "SourceHanSans"),
    *("wqy-microhei", "wqy-zenhei", "DroidSansFallbackFull", "DroidSansFallback"),
    *("msyh", "YuGothM", "malgun", "msjh", "simsun", "msgothic", "Nirmala", "LeelawUI", "ebrima"),
    *("Arial Unicode", "Hiragino Sans GB", "STHeiti Light", "AppleSDGothicNeo", "Kohinoor"),
    *("NotoSansDevanagari-Regular", "NotoSansBengali-Regular", "NotoSansTamil-Regular"),
    *("NotoSansThai-Regular", "NotoSansEthiopic-Regular", "FreeSans", "unifont"),
)


@cache
def others() -> tuple[Path, ...]:
    """Files of the system's fonts for other scripts, the best first."""
    from matplotlib import font_manager

    known = [Path(entry.fname) for entry in font_manager.fontManager.ttflist]
    if not any(file.stem in USUAL for file in known):  # Matplotlib remembers what there once was
        known = [Path(file) for file in font_manager.findSystemFonts()]
    by_stem = {file.stem: file for file in known if file.stem in USUAL and file.is_file()}
    return tuple(by_stem[stem] for stem in USUAL if stem in by_stem)


@cache
def families() -> list[str]:
    """For Matplotlib, which looks for a letter in one after the other."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    names = [DEJAVU]
    for file in others():
        known = [entry.name for entry in manager.ttflist if Path(entry.fname) == file]
        if not known:
            manager.addfont(file)
            known = [manager.ttflist[-1].name]
        names.append(known[0])
    return names


def font_for(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The first font that has every letter of `text`; DejaVu Sans where none has."""
    if all(map(_is_in_dejavu, text)):
        return _opened(None, size)
    return _opened(next((file for file in others() if _has(file, text)), None), size)


def readable(names: Sequence[str]) -> list[str]:
    """Names of classes; "class 3" for one with a letter that would be a box."""
    return [name if _can_be_drawn(name) else f"class {n}" for n, name in enumerate(names)]


def note(names: Sequence[str]) -> str | None:
    """A sentence about names that no font here has the letters of; None if all can be drawn."""
    unread = [name for name in names if not _can_be_drawn(name)]
    if not unread:
        return None
    few = ", ".join(map(on_one_line, unread[:3])) + ", ..." * (len(unread) > 3)
    return (
        f"no font of this system has the letters of {few}: pictures number these classes; a font "
        "such as Noto Sans CJK, installed, shows their names"
    )


def _can_be_drawn(text: str) -> bool:
    return all(map(_is_in_dejavu, text)) or any(_has(file, text) for file in others())


def _has(file: Path, text: str) -> bool:
    return all(_is_in(file, letter) for letter in text if not letter.isspace())


def _is_in_dejavu(letter: str) -> bool:
    return letter < "\u0250" or letter.isspace() or _is_in(None, letter)


@lru_cache(10_000)
def _is_in(file: Path | None, letter: str) -> bool:
    """Whether a font has a letter: all that it lacks look like what is no letter at all."""
    font = _opened(file, 16)
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010fffe"))


@cache
def _opened(file: Path | None, size: int) -> ImageFont.FreeTypeFont:
    if file is None:
        spec = importlib.util.find_spec("matplotlib")  # not imported: that takes half a second
        assert spec is not None
        assert spec.origin is not None
        file = Path(spec.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(file, size)
