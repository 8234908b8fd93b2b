"""A CSV with the label of each picture, or with the label and pixels of each image. No torch."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from convscape.base.values import counted, on_one_line, shortened
from convscape.data.cache import DataError
from convscape.data.folders import Tree
from convscape.data.items import Given
from convscape.data.pictures import Picture
from convscape.data.tables import Columns, Row, Table, find, is_number, is_picture, open_table, rows

MAX_NAMED = 3  # examples in a sentence


def class_order(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """The classes among `labels`, sorted: as numbers if all are whole numbers.

    Raises:
        DataError: if there are fewer than two, or they are measurements.
    """
    found = set(labels)
    _refuse_several(path, found)
    if all(map(is_number, found)):
        values = {label: float(label) for label in found}
        broken = next((label for label, value in values.items() if value % 1), None)
        if broken is not None:
            raise DataError(
                f"{str(path)!r} has labels such as {broken}, which are measurements, not classes; "
                "allowed: whole numbers or words"
            )
        classes = tuple(str(number) for number in sorted({int(v) for v in values.values()}))
    else:
        classes = tuple(sorted(found))
    if len(classes) < 2:
        held = f"one class, {shortened(classes[0], 100)!r}" if classes else "no image"
        raise DataError(f"{str(path)!r} holds {held}; two classes or more are needed")
    return classes


def _refuse_several(path: Path, labels: set[str]) -> None:
    """Refuse labels that combine other labels, which means that an image has several classes.

    A name may contain a blank: "white wine" beside "white" and "wine" is one class. In combinations
    a class is first in one label and last in another, or in between.
    """
    for mark in ("|", ";", ",", " "):
        made = {}
        for label in sorted(labels):
            parts = [part.strip() for part in label.split(mark)]
            if 1 < len(parts) == len({*parts}) and labels.issuperset(parts):
                made[label] = parts
        first, last = ({parts[end] for parts in made.values()} for end in (0, -1))
        is_between = any(len(parts) > 2 for parts in made.values())
        if made and (mark != " " or is_between or first & last):
            example = next(iter(made))
            raise DataError(
                f"{str(path)!r} has labels of several classes, such as {on_one_line(example)!r}, "
                "but an image has one class here; remove such lines, or write what is one class "
                f"with another mark: {on_one_line('_'.join(example.replace(mark, ' ').split()))}"
            )


def as_class(label: str, classes: Sequence[str]) -> str:
    """1.0 and 01 as 1, if the classes are numbers."""
    if label not in classes and is_number(label):
        return str(int(float(label)))
    return label


def all_rows(root: Path, columns: Columns) -> list[tuple[Table, Row]]:
    """The tables `labels` and, with split test, `test_labels`.

    Raises:
        DataError: if one of them is not such a table, or they are of different kinds.
    """
    first = open_table(find(root, columns.labels), columns)
    found = [(first, row) for row in rows(first)]
    if columns.test_labels is not None:
        second = open_table(find(root, columns.test_labels), columns)
        if (second.image is None) != (first.image is None):
            raise DataError(
                "data.labels and data.test_labels do not fit together: one names pictures, the "
                "other holds pixels"
            )
        if any(row.split == "test" for _, row in found):
            raise DataError(
                f"data.test_labels={columns.test_labels}: {str(first.path)!r} also "
                "says which images are for testing; allowed: one of the two"
            )
        found = [(table, row._replace(split=row.split or "train")) for table, row in found]
        found += [(second, row._replace(split="test")) for row in rows(second)]
    return found


def find_pictures(root: Path, columns: Columns, use_val: bool) -> Tree | None:
    """The pictures that a table names, below `root`; None if it holds pixels.

    Raises:
        DataError: if it makes no sense, or a picture is missing.
    """
    first = open_table(find(root, columns.labels), columns)
    if first.image is None:
        return None
    found = all_rows(root, columns)
    in_train = [row.label for _, row in found if row.split in (None, "train")]
    classes = class_order(first.path, in_train)
    pictures = _Places(root, first.path.parent)
    splits: dict[str, list[Picture]] = {"train": [], "test": [], "val": []}
    seen: dict[str, Row] = {}  # the same file can be written in several ways
    for table, row in found:
        name = as_class(row.label, classes)
        if name not in classes:
            raise DataError(
                f"line {row.line} of {str(table.path)!r}: no train picture has the label {name!r}"
            )
        picture = pictures.find(row.image, classes.index(name))
        if picture is not None and not _is_repeat(seen, os.path.abspath(picture.path), table, row):
            splits[row.split or "train"].append(picture)
    pictures.refuse_missing(first.path)
    for part in splits.values():
        part.sort(key=lambda picture: (picture.label, picture.path))
    val = splits["val"] or None
    unused = None if use_val or val is None else f"the split val of {counted(len(val), 'picture')}"
    return Tree(
        classes, splits["train"], splits["test"] or None, val if use_val else None, unused, {}
    )


def _is_repeat(seen: dict[str, Row], file: str, table: Table, row: Row) -> bool:
    """Whether a picture was named before; it counts once.

    Raises:
        DataError: if it has two labels, or is in two splits.
    """
    before = seen.setdefault(file, row)
    for what, one, other in (
        ("labels", before.label, row.label),
        ("splits", before.split, row.split),
    ):
        if one != other:
            raise DataError(
                f"line {row.line} of {str(table.path)!r}: {row.image!r} has two {what}, "
                f"{one!r} (line {before.line}) and {other!r}; keep one of the lines"
            )
    return before is not row


class _Places:
    """Finds the named files: below the folder of the pictures, or beside the table.

    Raises:
        DataError: from `find`, if several files have this name.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.missing: dict[str, None] = {}  # each name once, in the order of the table
        self._by_stem: dict[
            str, dict[str, list[str]]
        ] = {}  # names from Kaggle often have no suffix

    def find(self, name: str, label: int) -> Picture | None:
        """The file, or None if it is missing, which is counted."""
        name = name.replace("\\", "/") if os.sep == "/" else name
        for path in self._paths(name):
            try:
                status = os.stat(path)
            except (OSError, ValueError):
                continue
            if stat.S_ISREG(status.st_mode):
                return Picture(path, label, status.st_size, status.st_mtime_ns)
        self.missing[name] = None
        return None

    def _paths(self, name: str) -> Iterator[str]:
        """Where the file may be, from the likeliest place on."""
        for folder in self.folders:
            path = os.path.join(folder, name)
            yield path
            if not is_picture(name):
                place, stem = os.path.split(path)
                yield from _only(name, self._pictures_in(place).get(stem, []))
        yield from _only(name, self._deeper.get(name, []))

    def _pictures_in(self, folder: str) -> dict[str, list[str]]:
        """The pictures of a folder by name without suffix; none where there is no such folder."""
        if folder not in self._by_stem:
            found = self._by_stem[folder] = {}
            try:
                names = sorted(os.listdir(folder))
            except (OSError, ValueError):
                names = []
            for name in filter(is_picture, names):
                found.setdefault(os.path.splitext(name)[0], []).append(os.path.join(folder, name))
        return self._by_stem[folder]

    @cached_property
    def _deeper(self) -> dict[str, list[str]]:
        """The pictures in subfolders, by name with and without suffix."""
        found: dict[str, list[str]] = {}
        for folder, _, names in os.walk(self.folders[0]):
            for name in filter(is_picture, sorted(names)):
                for known in (name, os.path.splitext(name)[0]):
                    found.setdefault(known, []).append(os.path.join(folder, name))
        return found

    def refuse_missing(self, table: Path) -> None:
        """Raise DataError if any file was missing."""
        if not self.missing:
            return
        shown = ", ".join(map(on_one_line, [*self.missing][:MAX_NAMED]))
        more = ", ..." * (len(self.missing) > MAX_NAMED)
        raise DataError(
            f"{str(table)!r} names {counted(len(self.missing), 'picture')} that "
            f"{'is' if len(self.missing) == 1 else 'are'} not in {str(self.folders[0])!r} "
            f"({shown}{more}); set data.root to the folder they are in"
        )


def _only(name: str, paths: Sequence[str]) -> Sequence[str]:
    """The one file that has that name, if there is one.

    Raises:
        DataError: if there are several.
    """
    if len(paths) < 2:
        return paths
    are_apart = len({os.path.dirname(path) for path in paths}) > 1
    where, way_out = ("in several folders", "folder") if are_apart else ("several files", "suffix")
    shown = " and ".join(map(repr, paths[:2]))
    raise DataError(
        f"{on_one_line(name)!r} is {where}, as {shown}; write the {way_out} with the name"
    )


def read_pixels(
    root: Path, columns: Columns, size: tuple[int, int] | None = None
) -> dict[str, Given]:
    """Images (N, C, H, W) and labels of a table of pixels, by split; "test" only if it says so.

    In a line of the table, channels come last.

    - `size`: (H, W) of the images, if it fits the number of pixels; otherwise they are square.

    Raises:
        DataError: if it makes no sense.
    """
    found = all_rows(root, columns)
    path = found[0][0].path if found else find(root, columns.labels)
    classes = class_order(path, [row.label for _, row in found if row.split in (None, "train")])
    _check_number_of_pixels(found)
    given = {}
    for split in ("train", "test", "val"):
        chosen = [row for _, row in found if (row.split or "train") == split]
        if not chosen:
            continue
        pixels = [row.pixels for row in chosen if row.pixels is not None]
        channels, height, width = _shape(path, len(pixels[0]), size)
        images = np.stack(pixels).reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        labels = np.array([as_class(row.label, classes) for row in chosen])
        given[split] = Given(images, labels)
    as_bytes = all(
        (each.images == each.images.round()).all()
        and each.images.min() >= 0
        and each.images.max() <= 255
        for each in given.values()
    )
    if as_bytes:
        given = {s: Given(g.images.astype(np.uint8), g.labels) for s, g in given.items()}
    if all(map(is_number, classes)):
        given = {s: Given(g.images, g.labels.astype(np.int64)) for s, g in given.items()}
    return given


def _check_number_of_pixels(found: Sequence[tuple[Table, Row]]) -> None:
    """Refuse images of different sizes.

    Raises:
        DataError: naming the first that differs from the one before.
    """
    numbers = [0 if row.pixels is None else len(row.pixels) for _, row in found]
    for (table, row), number in zip(found, numbers, strict=True):
        if number != numbers[0]:
            raise DataError(
                f"line {row.line} of {str(table.path)!r} has {counted(number, 'pixel')}, and line "
                f"{found[0][1].line} of {str(found[0][0].path)!r} {numbers[0]:,}; all images "
                "must have one size"
            )


def _shape(path: Path, count: int, size: tuple[int, int] | None) -> tuple[int, int, int]:
    for channels in (1, 3):
        if size is not None and math.prod(size) * channels == count:
            return channels, *size
        side = math.isqrt(count // channels)
        if side * side * channels == count:
            return channels, side, side
    raise DataError(
        f"{str(path)!r} has {counted(count, 'pixel')} in a line, which is not a square; give the "
        "image size with data.image_size=<H>x<W>"
    )
