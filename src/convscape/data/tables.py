"""The lines of a CSV, and which columns are the image, the label and the split. No torch.

The separator, the encoding and the columns are recognised unless they are given.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from convscape.base.values import counted, hint, on_one_line
from convscape.data.cache import DataError
from convscape.data.folders import SPLIT_NAMES
from convscape.data.pictures import SUFFIXES

IMAGE_COLUMNS = (
    *("image", "filename", "file_name", "filepath", "file_path", "image_path", "imagepath"),
    *("image_name", "image_id", "imageid", "img", "file", "path", "name", "id", "id_code"),
)
LABEL_COLUMNS = (
    *("label", "labels", "class", "target", "category", "class_name", "class_id", "label_name"),
    *("y", "breed", "species", "diagnosis", "level", "emotion"),
)
SPLIT_COLUMNS = ("split", "subset", "set", "usage", "partition", "data set")
PIXEL = re.compile(r"(pixel|px|p|x)?[ _-]?\d+([x_]\d+)?", re.IGNORECASE)  # pixel0, px_12, 1x28
MIN_PIXELS = 16  # the fewest columns in a table of pixels
_MAX_FIELD = 2**22  # characters in a cell, which may hold all pixels of a large image
PACKED = "pixels"  # one column with all of them, separated by blanks: as in FER2013
# in upper or lower case; Kaggle's public images are for choosing, private ones for the final score
SPLITS = SPLIT_NAMES | {"publictest": "val", "privatetest": "test"}
SEPARATORS = ",;\t|"


class Columns(NamedTuple):
    """Which file, and which of its columns; None for columns to recognise by name."""

    labels: str
    test_labels: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None


class Row(NamedTuple):
    """One image of a table: a file, or pixels; `split` is None if it is still to be chosen."""

    line: int
    image: str
    label: str
    split: str | None
    pixels: np.ndarray | None


class Table(NamedTuple):
    """A file, how to read it, and what its columns are.

    - `image`: None if `pixels` are the image: one column per pixel, or one column with all.
    - `label`: None if `classes` are columns, with a single 1 in each line and otherwise 0.
    """

    path: Path
    encoding: str
    separator: str
    header: list[str]
    has_header: bool
    image: int | None = None
    label: int | None = None
    split: int | None = None
    pixels: Sequence[int] = ()
    classes: Sequence[int] = ()


def find(root: Path, name: str) -> Path:
    """The file `name` in the folder of the pictures, or in the working folder.

    Raises:
        DataError: if it is in neither.
    """
    path = Path(name).expanduser()
    for place in (root / path, path):
        if place.is_file():
            return place
    places = [str(root / path)] + ([] if path.is_absolute() else [str(path.absolute())])
    raise DataError(
        f"there is no file {' or '.join(map(repr, places))}; set data.labels to a CSV with a line "
        "for each image"
    )


def open_table(path: Path, columns: Columns) -> Table:
    """A CSV, with columns recognised by its first line.

    Raises:
        DataError: if it is not such a table.
    """
    encoding = _encoding(path)
    try:
        with open(path, encoding=encoding, newline="") as file:
            first_line = next((line for line in file if line.strip()), "")
    except UnicodeDecodeError:
        raise _not_utf8(path, 1) from None
    if not first_line:
        raise DataError(f"{str(path)!r} is empty; a line for each image is expected")
    if "\0" in first_line:
        raise DataError(f"{str(path)!r} holds zero bytes and is not a CSV")
    separator = max(SEPARATORS, key=lambda mark: len(_cells(first_line, mark)))
    cells = [cell.strip() for cell in _cells(first_line, separator)]
    if len(cells) < 2:
        raise DataError(
            f"{str(path)!r} begins with {on_one_line(first_line.strip()[:60])!r}, which is one "
            "column; two or more are expected, separated by comma, semicolon, tab or |"
        )
    if not _is_header(cells):
        for key in ("image_column", "label_column", "split_column"):
            if getattr(columns, key) is not None:
                raise DataError(
                    f"{str(path)!r} has no header, but data.{key} names a column of it; "
                    "add a first line with the names of the columns"
                )
        return _without_header(Table(path, encoding, separator, cells, False))
    return _with_header(Table(path, encoding, separator, cells, True), columns)


def _encoding(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(4)
    if start in (b"PK\x03\x04", b"\xd0\xcf\x11\xe0"):
        raise DataError(f"{str(path)!r} is a workbook or an archive; save the table as CSV")
    # Excel's "Unicode text" starts with this mark
    return "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _not_utf8(path: Path, line: int) -> DataError:
    return DataError(f"{str(path)!r} is not UTF-8 from line {line} on; save it as CSV in UTF-8")


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def is_picture(cell: str) -> bool:
    """Whether it is the name of a picture file."""
    return os.path.splitext(cell)[1].lower() in SUFFIXES


def is_number(cell: str) -> bool:
    """Whether it is a finite number."""
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _are_pixels(cell: str) -> bool:
    """Whether it holds all pixels of an image, with blanks between them."""
    values = cell.split()
    return len(values) >= MIN_PIXELS and all(map(is_number, values))


def _is_header(cells: Sequence[str]) -> bool:
    """Whether these are names: no file and no pixels, and numbers only as columns are counted."""
    if any(is_picture(cell) or _are_pixels(cell) for cell in cells):
        return False
    numbers = [float(cell) for cell in cells if is_number(cell)]
    ordered = sorted({*numbers})
    is_counting = len(ordered) == len(numbers) and (
        len(numbers) < MIN_PIXELS
        or numbers == ordered  # in the order of words, 10 comes before 2
        or ordered[-1] - ordered[0] == len(numbers) - 1
    )
    return len(numbers) < len(cells) and is_counting


def _without_header(table: Table) -> Table:
    """The columns are known by what the first line holds: one label, its image, perhaps a split."""
    cells = table.header
    every = range(len(cells))
    files = [index for index in every if is_picture(cells[index])]
    packed = [index for index in every if _are_pixels(cells[index])]
    others = [index for index in every if index not in (*files, *packed)]
    words = [index for index in others if not is_number(cells[index])]
    splits = [index for index in words if cells[index].casefold() in SPLITS]
    split = splits[0] if len(splits) == 1 and len(others) > 1 else None
    others = [index for index in others if index != split]
    labels, pixels = others, packed
    if not files and not packed and len(others) > MIN_PIXELS:
        # a label that is a number comes first, as MNIST is often passed on
        labels = [index for index in words if index != split] or others[:1]
        pixels = [index for index in others if index not in labels]
    if (
        len(labels) != 1
        or (len(files), len(packed)) not in ((1, 0), (0, 1), (0, 0))
        or (not files and not pixels)
    ):
        raise DataError(
            f"{str(table.path)!r} has no header and {counted(len(cells), 'column')}; without one, "
            "a label is expected and its file or its pixels, and perhaps a split; add a first line "
            "with the names of the columns"
        )
    return table._replace(
        header=[f"column {index + 1}" for index in every],
        image=files[0] if files else None,
        label=labels[0],
        split=split,
        pixels=pixels,
    )


def _with_header(table: Table, columns: Columns) -> Table:
    path, header = table.path, table.header
    for name, count in Counter(header).items():
        if count > 1 and name:
            raise DataError(f"{str(path)!r} has {count} columns {name!r}; rename or remove one")
    split = _column(path, header, SPLIT_COLUMNS, "split", columns.split_column)
    asked = (columns.label_column, columns.split_column)
    pixels = [i for i, name in enumerate(header) if PIXEL.fullmatch(name) and name not in asked]
    image = None
    has_pixels = len(pixels) >= MIN_PIXELS and not _are_classes_of_files(table, pixels)
    if columns.image_column is not None or not has_pixels:
        image = _column(path, header, IMAGE_COLUMNS, "image", columns.image_column)
        pixels = [i for i, name in enumerate(header) if name.casefold() == PACKED and image is None]
        if image is None and not pixels:
            raise _unclear(path, header, "image")
    others = [i for i in range(len(header)) if i not in (image, split, *pixels) and header[i]]
    if columns.label_column is None and len(others) == 1:
        label: int | None = others[0]
    else:
        label = _column(path, header, LABEL_COLUMNS, "label", columns.label_column)
    table = table._replace(image=image, label=label, split=split, pixels=pixels)
    if label is None and _are_classes(table, others):
        return table._replace(classes=others)
    if label is None or label == image:
        raise _unclear(path, header, "label")
    return table


def _are_classes(table: Table, columns: Sequence[int]) -> bool:
    """Whether these columns hold only 0 and 1, so that each line gives its class by them."""
    first = next(_lines(table), None)
    known = {"0", "1"}  # ways to write them, so far
    for _, cells in _lines(table):
        for value in {cells[i].strip() for i in columns} - known:
            if not is_number(value) or float(value) not in (0, 1):
                return False
            known.add(value)
    return first is not None


def _are_classes_of_files(table: Table, columns: Sequence[int]) -> bool:
    """Whether columns with names like those of pixels are classes: 0 and 1 beside a file's name."""
    named = [i for i, name in enumerate(table.header) if name.casefold() in IMAGE_COLUMNS]
    _, first = next(_lines(table), (0, []))
    # a number that counts the lines stands beside pixels too, which may be black and white
    return any(first and not is_number(first[i]) for i in named) and _are_classes(table, columns)


def _column(
    path: Path, header: Sequence[str], known: Sequence[str], kind: str, asked: str | None
) -> int | None:
    """Index of the column called `asked`, or of one with a known name, if there is one."""
    if asked is not None:
        if asked in header:
            return header.index(asked)
        raise DataError(
            f"data.{kind}_column={asked}: {str(path)!r} has no such column; "
            f"allowed: {_shown(header)}{hint(asked, header)}"
        )
    found = [i for i, name in enumerate(header) if name.casefold() in known]
    if len(found) > 1:
        raise _unclear(path, [header[i] for i in found], kind)
    return found[0] if found else None


def _unclear(path: Path, candidates: Sequence[str], kind: str) -> DataError:
    meaning = {"image": "names the picture", "label": "is the label", "split": "is the split"}
    return DataError(
        f"which column of {str(path)!r} {meaning[kind]}: {_shown(candidates)}? "
        f"Add data.{kind}_column=<name>"
    )


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(on_one_line, names[:10])) + ", ..." * (len(names) > 10)


def rows(table: Table) -> Iterator[Row]:
    """The images of a table, one by one.

    Raises:
        DataError: naming a line that is not an image.
    """
    for line, cells in _lines(table):
        yield _row(table, cells, f"line {line} of {str(table.path)!r}", line)


def _lines(table: Table) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line below the header.

    Raises:
        DataError: naming the line that cannot be read.
    """
    where = f"of {str(table.path)!r}"
    with open(table.path, encoding=table.encoding, newline="") as file:
        csv.field_size_limit(_MAX_FIELD)  # all pixels of an image may be in one field
        reader = csv.reader(file, delimiter=table.separator, skipinitialspace=True)
        to_skip = table.has_header
        try:
            for cells in reader:
                if not any(map(str.strip, cells)):
                    continue
                if to_skip:
                    to_skip = False
                    continue
                if len(cells) != len(table.header):
                    raise DataError(
                        f"line {reader.line_num} {where} has {counted(len(cells), 'column')}, and "
                        f"the first one {len(table.header)}; quote what holds a "
                        f"{table.separator!r}"
                    )
                yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"line {reader.line_num} {where} cannot be read: {error}") from None
        except UnicodeDecodeError:
            raise _not_utf8(table.path, reader.line_num + 1) from None


def _row(table: Table, cells: list[str], where: str, line: int) -> Row:
    label = _class(table, cells, where) if table.label is None else cells[table.label].strip()
    image = "" if table.image is None else cells[table.image].strip()
    if not label:
        raise DataError(f"{where} has no label; fill it in or remove the line")
    if table.image is not None and not image:
        raise DataError(f"{where} names no picture; fill it in or remove the line")
    split = None
    if table.split is not None:
        said = cells[table.split].strip()
        split = SPLITS.get(said.casefold())
        if split is None:
            name = table.header[table.split]
            raise DataError(
                f"{where}: {name} is {said!r}; allowed: train, val, test, or leave the column out"
            )
    pixels = None
    if table.image is None:
        is_packed = len(table.pixels) == 1
        values = cells[table.pixels[0]].split() if is_packed else [cells[i] for i in table.pixels]
        if not values:
            raise DataError(f"{where}: {table.header[table.pixels[0]]} is empty")
        try:
            pixels = np.array([float(value) for value in values], np.float32)
        except ValueError as error:
            raise DataError(f"{where}: a pixel is not a number ({error})") from None
    return Row(line, image, label, split, pixels)


def _class(table: Table, cells: list[str], where: str) -> str:
    """Name of the one column that holds a 1."""
    found = [table.header[i] for i in table.classes if float(cells[i]) == 1]
    if len(found) == 1:
        return found[0]
    if not found:
        names = _shown([table.header[i] for i in table.classes])
        raise DataError(f"{where} has a 1 in none of {names}; fill it in or remove the line")
    raise DataError(
        f"{where} has a 1 in several columns ({_shown(found)}), but an image has one class here; "
        f"remove such lines, or tell one class from the rest: data.label_column={found[0]}"
    )
