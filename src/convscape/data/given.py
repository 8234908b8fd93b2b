"""The user's files as one image set: an .npz, or a CSV with labels. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from convscape.data import archives, arrays, labelled, tables
from convscape.data.arrays import Source
from convscape.data.cache import Contents, DataError, ImageSet, load_or_build
from convscape.data.decoding import Decoded
from convscape.data.folders import Tree
from convscape.data.pictures import Shape, split_of_tree
from convscape.data.tables import Columns
from convscape.geometry.window import parse_size

NAMES = ("csv", "npz")
VERSION = 1  # increased whenever the same files would give other arrays


@dataclass(frozen=True)
class Wanted:
    """Where the files are, and what to make of them; None keeps a property as it is.

    - `root`: for `npz` the file; for `csv` the folder of the pictures, or of the table.
    - `columns`: for `csv`.
    - `use_val`: whether a split for validation is used.
    """

    name: str
    root: Path
    image_size: int | str | None
    channels: int | None
    test_fraction: float
    on_unreadable: str
    use_val: bool
    columns: Columns | None = None


@dataclass(frozen=True)
class _Files:
    """A cache's name, which encodes everything that it depends on, and how to build it."""

    key: str
    read: Callable[[], Contents] = field(compare=False)


def load_given(wanted: Wanted, cache_dir: str | Path) -> ImageSet:
    """The images of the files, from their cache, which is built if it is missing or outdated.

    Raises:
        DataError: if they are missing, damaged or make no sense.
    """
    try:
        if wanted.name == "npz":
            files = _npz(wanted)
        else:
            tree = find_pictures(wanted)
            files = _pixels(wanted) if tree is None else _pictures(wanted, tree)
        return _loaded(Path(cache_dir).expanduser().absolute(), wanted.name, files)
    except OSError as error:
        raise DataError(
            f"cannot read {str(error.filename or wanted.root)!r}: {error.strerror or error}"
        ) from error


@lru_cache(maxsize=4)  # runs of a sweep share it
def _loaded(cache_dir: Path, name: str, files: _Files) -> ImageSet:
    return load_or_build(cache_dir / f"{name}-{files.key}", name, files.read)


def find_pictures(wanted: Wanted) -> Tree | None:
    """The pictures that a table names, for `csv`; None if there are arrays."""
    if wanted.columns is None:
        return None
    return labelled.find_pictures(wanted.root, wanted.columns, wanted.use_val)


def _key(wanted: Wanted, *identity: object) -> str:
    described = [
        *(VERSION, wanted.name, str(wanted.image_size), wanted.channels, wanted.test_fraction),
        *(wanted.on_unreadable, wanted.use_val, wanted.columns, *identity),
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:12]


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return os.path.abspath(path), status.st_size, status.st_mtime_ns


def _npz(wanted: Wanted) -> _Files:
    source = archives.source(wanted.root)

    def read() -> Contents:
        given = archives.read(wanted.root)
        checked = arrays.checked(source, given, wanted.test_fraction, wanted.use_val)
        return arrays.contents(checked, source, wanted.image_size, wanted.channels)

    if not wanted.root.is_file():
        read()  # it reports what is missing
    return _Files(_key(wanted, _stamp(wanted.root)), read)


def _pixels(wanted: Wanted) -> _Files:
    columns = wanted.columns
    assert columns is not None
    names = [name for name in (columns.labels, columns.test_labels) if name is not None]
    paths = [tables.find(wanted.root, name) for name in names]
    source = Source(repr(str(paths[0])), "holds")

    def read() -> Contents:
        given = labelled.read_pixels(wanted.root, columns, _size(wanted))
        checked = arrays.checked(source, given, wanted.test_fraction, wanted.use_val)
        return arrays.contents(checked, source, wanted.image_size, wanted.channels)

    return _Files(_key(wanted, *map(_stamp, paths)), read)


def _size(wanted: Wanted) -> tuple[int, int] | None:
    return None if wanted.image_size is None else parse_size(wanted.image_size)


def _pictures(wanted: Wanted, tree: Tree) -> _Files:
    if wanted.image_size is None:
        raise DataError(
            "data=csv with pictures needs data.image_size, such as 32 or 48x64; 64 or more for "
            "photographs"
        )
    height, width = parse_size(wanted.image_size)
    shape: Shape = (wanted.channels or 3, height, width)
    train, test = tree.train, tree.test
    if test is None:
        train, test = split_of_tree(train, tree.classes, wanted.root, wanted.test_fraction)

    def read() -> Contents:
        skipped: list[str] = []
        named = skipped if wanted.on_unreadable == "skip" else None
        return Contents(
            classes=tree.classes,
            train=Decoded(train, shape, named),
            test=Decoded(test, shape, named),
            val=None if tree.val is None else Decoded(tree.val, shape, named),
            num_images=len(tree.pictures),
            skipped=skipped,
        )

    return _Files(_key(wanted, tree.classes, train, test, tree.val), read)
