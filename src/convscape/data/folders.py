"""A folder of pictures: its splits and classes, and what is left out. Reads no pictures."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convscape.base.values import hint, on_one_line
from convscape.data.cache import DataError
from convscape.data.pictures import SUFFIXES, Picture

EXPECTED = "train/<class>/* and test/<class>/*, or one tree <class>/* that is split"
SPLIT_NAMES = {  # in any case
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
MAX_NAMED = 10  # classes in a line
# Left among folders by archives from a Mac, network drives and Windows.
LITTER = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")


class Tree(NamedTuple):
    """The pictures of each split, sorted by class and name.

    - `test`: None if one tree is to be split.
    - `val`: None if validation comes out of train.
    - `unused`: validation pictures that are not used, in words.
    - `left_out`: how many files of each kind, in words, are left out.
    """

    classes: tuple[str, ...]
    train: list[Picture]
    test: list[Picture] | None
    val: list[Picture] | None
    unused: str | None
    left_out: dict[str, int]

    @property
    def pictures(self) -> list[Picture]:
        """All pictures."""
        return [*self.train, *(self.test or ()), *(self.val or ())]

    def describe(self) -> list[str]:
        """Classes and counts, and what was left out and why, in a few lines."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        counts = [f"{name} {len(part):,}" for name, part in parts.items() if part is not None]
        numbers = np.bincount([p.label for p in self.train], minlength=len(self.classes)).tolist()
        total = ", ".join(counts) if self.test is not None else f"{len(self.train):,}"
        lines = [f"pictures: {total}; {describe_classes(self.classes, numbers)}"]
        if self.unused:
            lines.append(f"left out: {self.unused}; data.val_size=null would validate on it")
        if self.left_out:
            kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.left_out.items())
            read = ", ".join(SUFFIXES)
            lines.append(f"left out: {kinds}; what is read: {read} in class folders")
        return lines


def describe_classes(classes: Sequence[str], counts: Sequence[int]) -> str:
    """How many classes, and how many of each: 3 classes (cat 20, dog 18, owl 20)."""
    pairs = list(zip(classes, counts, strict=True))[:MAX_NAMED]
    shown = ", ".join(f"{on_one_line(name)} {count:,}" for name, count in pairs)
    more = ", ..." * (len(classes) > MAX_NAMED)
    return f"{len(classes):,} classes ({shown}{more})"


def class_names(root: Path) -> tuple[str, ...]:
    """Sorted names of the class folders directly in `root`, or in its training folder.

    Raises:
        DataError: if there are fewer than two.
    """
    folder = root / splits(root).get("train", "")
    names = tuple(sorted(_folders(folder)))
    for name in names:
        if not name.isascii() and name != os.fsencode(name).decode(errors="replace"):
            raise DataError(f"the name of class folder {name!r} is not UTF-8; rename it")
    if len(names) < 2:
        found = f"only {names[0]!r}" if names else "none"
        raise DataError(
            f"two class folders or more expected in {str(folder)!r}, {found} found; "
            f"data.root should hold {EXPECTED}"
        )
    return names


def splits(root: Path) -> dict[str, str]:
    """The folders in `root` for "train", "test" and perhaps "val"; none if it has classes.

    Raises:
        DataError: if train or test is missing, or there are two of a kind.
    """
    names = _folders(root)
    found: dict[str, str] = {}
    for name in names:
        split = SPLIT_NAMES.get(name.casefold())
        if split in found:
            raise DataError(f"{str(root)!r} holds {found[split]!r} and {name!r}; keep one of them")
        if split is not None:
            found[split] = name
    # a train may be a class like others, if it holds pictures
    are_classes = len(found) < len(names) and not any(_folders(root / n) for n in found.values())
    if not found or are_classes:
        return {}
    for split, other in (("test", "train"), ("train", "test")):
        if split not in found:
            there = found.get(other) or found["val"]
            raise DataError(
                f"{str(root)!r} holds {there}/ but no {split}/; add it (a val/ may be renamed), "
                f"or set data.root to {str(root / there)!r} to have that split"
            )
    return found


def find_pictures(root: Path, use_val: bool = False) -> Tree:
    """All pictures below `root`; its folder for validation is used if `use_val`.

    Raises:
        DataError: if the folders make no sense: missing, empty, one class, folders in a class, or
            classes that are only in test.
    """
    classes = class_names(root)
    labels = {name: label for label, name in enumerate(classes)}
    left_out: Counter[str] = Counter()
    found = splits(root)
    if not found:
        train = _pictures(root, labels, left_out)
        return Tree(classes, train, None, None, None, _counted(left_out))
    for name in sorted(set(_folders(root)) - set(found.values())):
        left_out[f"folder {name!r} beside {found['train']!r}"] += 1
    _count_loose(root, left_out)
    train = _pictures(root / found["train"], labels, left_out)
    others = {}
    for split in ("test", "val"):
        if split in found and (use_val or split == "test"):
            here = _known_classes(root / found[split], root / found["train"], labels, split)
            others[split] = _pictures(root / found[split], here, left_out)
    val = others.get("val")
    unused = f"the folder {found['val']!r}" if "val" in found and val is None else None
    return Tree(classes, train, others["test"], val, unused, _counted(left_out))


def _known_classes(
    folder: Path, train: Path, labels: Mapping[str, int], split: str
) -> dict[str, int]:
    """The labels of the class folders in a split other than train."""
    names = _folders(folder)
    for name in sorted(set(names) - set(labels)):
        raise DataError(
            f"{str(folder / name)!r} is a class without a folder in {str(train)!r}; "
            f"train has {', '.join([*labels][:MAX_NAMED])}{', ...' * (len(labels) > MAX_NAMED)}"
            f"{hint(name, list(labels))}"
        )
    if not names:
        ways = {
            "test": f"expected {EXPECTED}",
            "val": "fill it with <class>/*, remove it, or take validation images from train: "
            "data.val_size=0.1",
        }
        raise DataError(f"no class folder in {str(folder)!r}; {ways[split]}")
    return {name: label for name, label in labels.items() if name in names}


def _pictures(folder: Path, labels: Mapping[str, int], left_out: Counter[str]) -> list[Picture]:
    _count_loose(folder, left_out)
    pictures = []
    for name, label in labels.items():
        others: Counter[str] = Counter()
        found = sorted(_of_class(folder / name, label, others))
        if not found:
            holds = ", ".join(f"{count:,} {kind}" for kind, count in others.items())
            raise DataError(
                f"class folder {str(folder / name)!r} holds no picture ({', '.join(SUFFIXES)})"
                f"{f', only {holds}' if holds else ''}; "
                f"fill or remove it; data.root should hold {EXPECTED}"
            )
        pictures += found
        left_out += others
    return pictures


def _of_class(folder: Path, label: int, left_out: Counter[str]) -> Iterator[Picture]:
    """The pictures of a class folder."""
    entries = []
    for entry in _entries(folder):
        if not _is_hidden(entry.name):
            entries.append(entry)
        elif _is_directory(entry):
            left_out[f"folder {entry.name!r}"] += 1
    inner = sorted(entry.name for entry in entries if _is_folder(entry))
    if inner:
        raise DataError(
            f"class folder {str(folder)!r} holds folders "
            f"({', '.join(inner[:3])}{', ...' * (len(inner) > 3)}), and pictures are only looked "
            "for directly in it; set data.root to the folder whose folders are the classes, or "
            "move the pictures up"
        )
    for entry in entries:
        if _suffix(entry.name) not in SUFFIXES:
            left_out[_suffix(entry.name) or "without a suffix"] += 1
            continue
        try:
            status = entry.stat()
        except OSError:  # a link to nothing or to itself: an unreadable picture
            yield Picture(entry.path, label, -1, -1)
            continue
        if stat.S_ISREG(status.st_mode):
            yield Picture(entry.path, label, status.st_size, status.st_mtime_ns)
        else:  # a pipe would block forever
            left_out[f"{_suffix(entry.name)} that is not a file"] += 1


def _count_loose(folder: Path, left_out: Counter[str]) -> None:
    """Files beside the class folders, and folders that are not classes."""
    for entry in _entries(folder):
        if _is_hidden(entry.name):
            if _is_directory(entry):
                left_out[f"folder {entry.name!r}"] += 1
        elif not _is_folder(entry):
            left_out[f"{_suffix(entry.name) or 'without a suffix'} beside the folders"] += 1


def _counted(left_out: Counter[str]) -> dict[str, int]:
    return dict(left_out.most_common())


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _entries(folder) if _is_folder(entry)]


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError as error:
        raise DataError(
            f"there is no folder {str(folder)!r}; set data.root to one that holds {EXPECTED}"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read the folder {str(folder)!r}: {error.strerror}") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in LITTER


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is the user's, and not left there by a system."""
    return not _is_hidden(entry.name) and _is_directory(entry)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
