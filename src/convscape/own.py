"""Parts of the user's own: data sets and augmentations of packages that were allowed by name."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convscape import pictures
from convscape.cache import Contents, DataError, ImageSet, load_or_build
from convscape.config import check_own
from convscape.errors import ConfigError
from convscape.geometry import parse_size


def find(key: str, target: str, allow_packages: Sequence[str]) -> Any:
    """What `target` names (mypackage.load), from a package that the user allowed.

    Raises:
        ConfigError: if it is not allowed or not there.
    """
    check_own(key, target, allow_packages)
    module, _, name = target.rpartition(".")
    if os.getcwd() not in sys.path:  # where the user's packages are looked for last: here
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}={target}: {error}") from None


def functions(
    key: str, targets: Sequence[str], allow_packages: Sequence[str]
) -> tuple[Callable[..., Any], ...]:
    """The functions that `targets` name.

    Raises:
        ConfigError: if one is not allowed, not there, or no function.
    """
    found = tuple(find(key, target, allow_packages) for target in targets)
    for target, each in zip(targets, found, strict=True):
        if not callable(each):
            raise ConfigError(f"{key}={target} is no function")
    return found


# --- a data set -------------------------------------------------------------------------------


class Arrays(NamedTuple):
    """Images (N, C, H, W) uint8 and labels (N,) from 0, in two splits."""

    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_own(
    target: str,
    arguments: dict[str, Any],
    allow_packages: Sequence[str],
    *,
    root: str,
    cache_dir: str | Path,
    image_size: int | str | None = None,
    channels: int | None = None,
    test_fraction: float = 0.2,
) -> ImageSet:
    """The images that the user's function returns; it is called once in a process.

    It returns (images, labels), which are split once and for all, or (train images, train labels,
    test images, test labels). Images are uint8, (N, H, W) or (N, C, H, W); labels are numbers or
    words, and the classes are what differs among them, sorted.

    Raises:
        ConfigError: if the function is not allowed or not there.
        DataError: if it fails, or returns something else.
    """
    (function,) = functions("data._target_", [target], allow_packages)
    folder = Path(cache_dir).expanduser().absolute()
    return _loaded(
        *(function, target, json.dumps(arguments), root, test_fraction),
        *(folder, image_size, channels),
    )


@functools.cache  # runs that differ in the seed share it
def _loaded(
    function: Callable[..., Any],
    target: str,
    arguments: str,
    root: str,
    test_fraction: float,
    cache_dir: Path,
    image_size: int | str | None,
    channels: int | None,
) -> ImageSet:
    arrays = _checked(target, _called(function, target, arguments, root), test_fraction)
    _, own_channels, *own_size = arrays.train_images.shape
    height, width = own_size if image_size is None else parse_size(image_size)
    shape = (channels or own_channels, height, width)

    def read() -> Contents:
        return Contents(
            classes=arrays.classes,
            train=pictures.pieces(arrays.train_images, arrays.train_labels, shape),
            test=pictures.pieces(arrays.test_images, arrays.test_labels, shape),
            num_images=len(arrays.train_images) + len(arrays.test_images),
        )

    folder = f"own-{shape[0]}x{height}x{width}-{_digest(arrays)}"
    return load_or_build(cache_dir / folder, "own", read)


def _called(function: Callable[..., Any], target: str, arguments: str, root: str) -> Any:
    """What the function returns.

    Raises:
        DataError: with the line of the user's code, if it fails.
    """
    keywords = json.loads(arguments)
    if "root" in inspect.signature(function).parameters:
        keywords.setdefault("root", root)
    try:
        return function(**keywords)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"data._target_={target} failed: {type(error).__name__}: {error} "
            f"({last.filename}, line {last.lineno})"
        ) from error


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256(repr(arrays.classes).encode())
    for array in arrays[1:]:
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def _checked(target: str, returned: Any, test_fraction: float) -> Arrays:
    if not isinstance(returned, tuple) or len(returned) not in (2, 4):
        raise DataError(
            f"data._target_={target} returned {type(returned).__name__}; allowed: (images, labels) "
            "or (train images, train labels, test images, test labels)"
        )
    splits = [
        (_images(target, images), _labels(target, labels, len(images)))
        for images, labels in zip(returned[::2], returned[1::2], strict=True)
    ]
    names = np.unique(splits[0][1])
    classes = tuple(str(name) for name in names)
    if len(classes) < 2:
        raise DataError(
            f"data._target_={target} returned one class, {classes[0]!r}; two are needed"
        )
    if len(splits) == 1:
        images, labels = splits[0]
        numbers = np.searchsorted(names, labels)
        which = [str(index) for index in range(len(labels))]
        one, two = pictures.split_by_name(which, numbers.tolist(), test_fraction)
        return Arrays(classes, images[one], numbers[one], images[two], numbers[two])
    (train_images, train_labels), (test_images, test_labels) = splits
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"data._target_={target} returned train images of {train_images.shape[1:]} and test "
            f"images of {test_images.shape[1:]}; allowed: one shape"
        )
    unknown = np.setdiff1d(test_labels, names)
    if len(unknown):
        raise DataError(f"data._target_={target}: no train image has the test label {unknown[0]!s}")
    train, test = (np.searchsorted(names, labels) for labels in (train_labels, test_labels))
    return Arrays(classes, train_images, train, test_images, test)


def _images(target: str, images: Any) -> np.ndarray:
    """(N, C, H, W)."""
    is_array = isinstance(images, np.ndarray)
    if not is_array or images.dtype != np.uint8 or images.ndim not in (3, 4) or not len(images):
        what = f"{images.dtype} {images.shape}" if is_array else type(images).__name__
        raise DataError(
            f"data._target_={target} returned images of {what}; allowed: a NumPy array of uint8, "
            "(N, H, W) or (N, C, H, W)"
        )
    if images.ndim == 3:
        images = images[:, None]
    if images.shape[1] not in (1, 3):
        raise DataError(
            f"data._target_={target} returned images of {images.shape}; allowed: 1 or 3 channels, "
            "on the second axis"
        )
    return images


def _labels(target: str, labels: Any, count: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        raise DataError(
            f"data._target_={target} returned labels of {labels.dtype} {labels.shape} for {count} "
            "images; allowed: a whole number or a word for each"
        )
    return labels
