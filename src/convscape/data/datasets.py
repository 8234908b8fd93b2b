"""Any data set as uint8 arrays: from disk, or else downloaded, or else a clear error.

The first call builds a cache; later ones map it into memory and import neither torchvision nor
scikit-learn nor Pillow. The source is checked each time (names, sizes, modification times), so an
old cache never hides a changed or damaged source.
"""

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convscape.data import decoding, folders, originals, pictures
from convscape.data.cache import Contents, DataError, ImageSet, Origin, load_or_build
from convscape.data.originals import Published
from convscape.geometry.window import parse_size

__all__ = ["DATASETS", "DataError", "ImageSet", "Published", "image_shape", "load_images"]

CACHE_VERSION = 1  # increased whenever the same source would give other arrays
DIGITS_TEST_FRACTION = (
    0.2  # scikit-learn's digits have no official split; this is ours and never changes
)


class DatasetInfo(NamedTuple):
    """What is known about a published set without reading it."""

    shape: tuple[int, int, int]  # (C, H, W)
    num_classes: int


DATASET_INFO = {
    "digits": DatasetInfo(
        (1, 28, 28), 10
    ),  # 8x8 in scikit-learn; enlarged so that networks for MNIST fit
    **{
        name: DatasetInfo(layout.shape, layout.num_classes)
        for name, layout in originals.LAYOUTS.items()
    },
}
DATASETS = (*DATASET_INFO, "image_folder")


def image_shape(
    name: str,
    *,
    root: str | Path,
    image_size: int | str | None = None,
    channels: int | None = None,
) -> tuple[tuple[int, int, int], int]:
    """Shape (C, H, W) of the images and number of classes, without reading an image.

    Raises:
        DataError: if the set is unknown, or an image folder has fewer than two classes.
    """
    shape = target_shape(name, image_size, channels)
    if name in DATASET_INFO:
        return shape, DATASET_INFO[name].num_classes
    return shape, len(folders.class_names(_expanded(root)))


def folder_digest(root: str | Path, use_val: bool) -> str:
    """A short hash of a folder of pictures, from names and sizes, wherever the folder is.

    - `use_val`: whether to include its folder for validation.

    Raises:
        DataError: if it is not a folder of pictures.
    """
    root = _expanded(root)
    with suppress(OSError):  # problems with the folder are reported below
        return _folder_digest(root, use_val, _times(root))
    return _folder_digest(root, use_val, ())


def _times(root: Path) -> tuple[int, ...]:
    """When the folders last changed: they do when files are added, removed or renamed."""
    levels = [[root]]
    for _ in range(2):
        levels.append([Path(e.path) for f in levels[-1] for e in os.scandir(f) if e.is_dir()])
    return tuple(folder.stat().st_mtime_ns for level in levels for folder in level)


@functools.lru_cache(maxsize=16)  # runs of a sweep share it
def _folder_digest(root: Path, use_val: bool, times: tuple[int, ...]) -> str:
    tree = folders.find_pictures(root, use_val)
    files = [
        [Path(os.path.relpath(picture.path, root)).as_posix(), picture.size]
        for picture in tree.pictures
    ]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]


def has_val_folder(root: str | Path) -> bool:
    """Whether a folder of pictures has one for validation; False if the folder is wrong."""
    with suppress(DataError):
        return "val" in folders.splits(_expanded(root))
    return False


def load_images(
    name: str,
    *,
    root: str | Path,
    cache_dir: str | Path,
    image_size: int | str | None = None,
    channels: int | None = None,
    download: bool = True,
    on_unreadable: str = "error",
    test_fraction: float = 0.2,
    use_val: bool = False,
    published: Published | None = None,
) -> ImageSet:
    """The images of a set, from its cache in `cache_dir`, which is built if there is none.

    - `name`: one of `DATASETS`. `digits` has a fixed split into train and test, 80 to 20 % in each
      class; the others have official splits.
    - `root`: where torchvision would look; for `image_folder` the folder of pictures itself.
    - `image_size` (`28`, `32x48`), `channels` (1 grey, 3 colour): None for the set's own.
    - `download`: whether missing files may be downloaded.
    - `on_unreadable`: for `image_folder`, `error` or `skip` (left out, named in a warning).
    - `test_fraction`: of each class, for an `image_folder` without train/ and test/. Only the names
      of pictures decide which are for testing, so no seed changes the split.
    - `use_val`: whether to use an `image_folder`'s folder for validation.
    - `published`: mirrors and checksums instead of torchvision's.

    Raises:
        DataError: if the data are missing, damaged or make no sense.
    """
    shape = target_shape(name, image_size, channels)
    _check_options(on_unreadable, test_fraction)
    root = _expanded(root)
    try:
        if name == "digits":
            source = _digits(shape)
        elif name == "image_folder":
            source = _image_folder(root, shape, on_unreadable, test_fraction, use_val)
        else:
            source = _original(name, root, shape, download, published)
        _, height, width = shape
        folder = f"{name}-{height}x{width}-{_key(name, shape, source.identity)}"
        cache = _expanded(cache_dir) / folder

        def read() -> Contents:
            contents = source.read()
            _check_room(cache.parent, contents.num_images * math.prod(shape))
            return contents

        return load_or_build(cache, name, read)
    except MemoryError:
        raise DataError(
            f"images of {'x'.join(map(str, shape))} do not fit into memory; try a "
            "smaller data.image_size"
        ) from None
    except OSError as error:
        raise DataError(
            f"cannot read {str(error.filename or root)!r}: {error.strerror or error}; "
            "check its permissions, or set data.root (or CONVSCAPE_DATA) to another folder"
        ) from error


def _check_options(on_unreadable: str, test_fraction: float) -> None:
    if on_unreadable not in ("error", "skip"):
        raise DataError(f"data.on_unreadable={on_unreadable!r}; allowed: error, skip")
    if not 0 < test_fraction < 1:
        raise DataError(f"data.test_fraction={test_fraction!r}; allowed: between 0 and 1")


def _check_room(folder: Path, num_bytes: int) -> None:
    """Refuse to build a cache that does not fit on the disk, before it fills up."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DataError(
            f"the prepared images take {num_bytes:,} bytes, but {str(folder)!r} has {free:,} free; "
            "choose a smaller data.image_size, or another data.cache_dir (or CONVSCAPE_CACHE)"
        )


@dataclass(frozen=True)
class _Source:
    """A way to read a set, and everything that the result depends on."""

    identity: Iterable[Any]
    read: Callable[[], Contents]


def _digits(shape: tuple[int, int, int]) -> _Source:
    def read() -> Contents:
        from sklearn.datasets import load_digits

        digits = load_digits()
        # values 0..16
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        train, test = pictures.split_by_name(
            [str(index) for index in range(len(images))],
            digits.target.tolist(),
            DIGITS_TEST_FRACTION,
        )
        return Contents(
            classes=tuple(str(name) for name in digits.target_names),
            train=pictures.pieces(images[train], digits.target[train], shape),
            test=pictures.pieces(images[test], digits.target[test], shape),
            num_images=len(images),
        )

    return _Source(["scikit-learn", importlib.metadata.version("scikit-learn")], read)


def _original(
    name: str,
    root: Path,
    shape: tuple[int, int, int],
    download: bool,
    published: Published | None,
) -> _Source:
    paths = originals.locate(name, root, download, published)

    def read() -> Contents:
        arrays = originals.LAYOUTS[name].read(paths, published or originals.published(name))
        _check_arrays(name, arrays, root)
        return Contents(
            classes=arrays.classes,
            train=pictures.pieces(arrays.train_images, arrays.train_labels, shape),
            test=pictures.pieces(arrays.test_images, arrays.test_labels, shape),
            num_images=len(arrays.train_images) + len(arrays.test_images),
        )

    statuses = [(path, path.stat()) for path in paths]
    identity = [(os.path.abspath(path), s.st_size, s.st_mtime_ns) for path, s in statuses]
    return _Source(identity, read)


def _image_folder(
    root: Path,
    shape: tuple[int, int, int],
    on_unreadable: str,
    test_fraction: float,
    use_val: bool,
) -> _Source:
    tree = folders.find_pictures(root, use_val)

    def read() -> Contents:
        state = hashlib.sha256(json.dumps(tree.pictures).encode()).hexdigest()
        origin = Origin(os.path.abspath(root), "with val" if use_val else "", state)
        skipped: list[str] = []
        named = skipped if on_unreadable == "skip" else None
        train, test = tree.train, tree.test
        if test is None:
            train, test = pictures.split_of_tree(train, tree.classes, root, test_fraction)
        return Contents(
            classes=tree.classes,
            train=decoding.Decoded(train, shape, named),
            test=decoding.Decoded(test, shape, named),
            val=None if tree.val is None else decoding.Decoded(tree.val, shape, named),
            num_images=len(tree.pictures),
            skipped=skipped,
            origin=origin,
        )

    split = test_fraction if tree.test is None else None
    identity: list[Any] = [os.path.abspath(root), on_unreadable, split, tree.classes]
    identity += [[*tree.train, *(tree.test or ())], *([] if tree.val is None else [tree.val])]
    return _Source(identity, read)


def _check_arrays(name: str, arrays: originals.Arrays, root: Path) -> None:
    facts = DATASET_INFO[name]
    where = f"the files of {name} in {str(root)!r} do not fit together"
    if len(arrays.classes) != facts.num_classes:
        raise DataError(
            f"{where}: {facts.num_classes} classes expected, {len(arrays.classes)} named"
        )
    for split, images, labels in (
        ("train", arrays.train_images, arrays.train_labels),
        ("test", arrays.test_images, arrays.test_labels),
    ):
        if images.shape[1:] != facts.shape:
            raise DataError(f"{where}: {split} images are {images.shape[1:]}, not {facts.shape}")
        if len(images) != len(labels) or not len(images):
            raise DataError(f"{where}: {len(images)} {split} images, {len(labels)} labels")
        if labels.min() < 0 or labels.max() >= facts.num_classes:
            raise DataError(f"{where}: {split} labels beyond 0..{facts.num_classes - 1}")


def target_shape(
    name: str, image_size: int | str | None, channels: int | None
) -> tuple[int, int, int]:
    """Shape (C, H, W) of a set's images, without accessing its files.

    Raises:
        DataError: if the set is unknown, or the size or the channels are wrong.
    """
    if name not in DATASETS:
        raise DataError(f"data.name={name!r}; allowed: {', '.join(DATASETS)}")
    if name == "image_folder" and (image_size is None or channels is None):
        raise DataError(
            "an image_folder needs data.image_size (such as 32 or 48x64) and data.channels"
        )
    if channels not in (None, 1, 3):
        raise DataError(f"data.channels={channels!r}; allowed: 1 (grey), 3 (colour)")
    try:
        size = None if image_size is None else parse_size(image_size)
    except ValueError as error:
        raise DataError(f"data.image_size: {error}") from error
    own_channels, *own_size = DATASET_INFO[name].shape if name in DATASET_INFO else (3, 0, 0)
    height, width = size or own_size
    return channels or own_channels, height, width


def _key(name: str, shape: tuple[int, int, int], identity: Iterable[Any]) -> str:
    described = json.dumps([CACHE_VERSION, name, shape, identity])  # ASCII, whatever the names
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _expanded(path: str | Path) -> Path:
    return Path(path).expanduser()
