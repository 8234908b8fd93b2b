"""Parts of the user's own: data sets and augmentations of packages that were allowed by name."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convscape.base.errors import ConfigError
from convscape.base.parts import find
from convscape.data import pictures
from convscape.data.cache import Contents, DataError, load_or_build
from convscape.geometry.window import parse_size

if TYPE_CHECKING:
    from convscape.data.cache import ImageSet


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
        if not two:
            raise DataError(
                f"data._target_={target} returned one image of each class, too few to split into "
                "train and test; allowed: more, or the four arrays of an official split"
            )
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
    given = type(images).__name__
    with suppress(ValueError, TypeError):  # a list of images that differ in size
        images = np.asarray(images)
    if not isinstance(images, np.ndarray) or images.dtype == object:
        what, advice = given, ""
    else:
        what, advice = f"{images.dtype} {images.shape}", _advice(images)
        if not advice:
            return images[:, None] if images.ndim == 3 else images
    raise DataError(
        f"data._target_={target} returned images of {what}{advice}; allowed: a NumPy array of "
        "uint8, (N, H, W) or (N, C, H, W) with 1 or 3 channels on the second axis"
    )


def _advice(images: np.ndarray) -> str:
    """Why an array cannot be images, and what would make it that; nothing if it can."""
    if not images.size:
        return ", which is empty"
    if images.dtype != np.uint8:
        if images.dtype.kind not in "biuf":
            return "" if images.dtype.kind == "O" else ", which are no numbers"
        low, high = float(images.min()), float(images.max())
        if not np.isfinite([low, high]).all():
            return ", with NaN or infinite values"
        values = f", with values from {low:g} to {high:g}"
        if low < 0 or high > 255:
            return values
        scale = "" if high > 1 else " * 255"
        return f"{values}; (images{scale}).round().astype('uint8') would do"
    if images.ndim not in (3, 4):
        return "" if images.ndim in (3, 4) else f", which has {images.ndim} axes"
    if images.ndim == 4 and images.shape[1] not in (1, 3):
        if images.shape[3] in (1, 3):
            return "; images.transpose(0, 3, 1, 2) would do"
        return f", which has {images.shape[1]} channels"
    return ""


def _labels(target: str, labels: Any, count: int) -> np.ndarray:
    try:
        plain = plain_labels(labels)
    except ValueError as error:
        raise DataError(f"data._target_={target} returned {error}") from None
    if len(plain) != count:
        raise DataError(
            f"data._target_={target} returned labels of {plain.dtype} {plain.shape} for {count} "
            "images; allowed: a whole number or a word for each"
        )
    return plain


def plain_labels(labels: Any) -> np.ndarray:
    """Labels (N,) of whole numbers or words, from whatever holds these: (N, 1), objects, floats.

    Raises:
        ValueError: if there are others among them.
    """
    try:
        array = np.asarray(labels)
    except ValueError:
        raise ValueError("labels that are not one for each image") from None
    what = f"labels of {array.dtype} {array.shape}"
    if array.dtype == object:
        kinds = {type(label).__name__ for label in array.flat}
        found = np.array(array.tolist()) if kinds else array
        if found.dtype.kind not in "biufUS" or (len(kinds) > 1 and "str" in kinds):
            raise ValueError(
                f"{what}, of several kinds or unknown ones: {', '.join(sorted(kinds))}"
                "; allowed: a whole number or a word for each"
            )
        array = found
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        more = "; labels.argmax(1) makes numbers of one-hot labels" if array.ndim == 2 else ""
        raise ValueError(f"{what}; allowed: one label for each image{more}")
    match array.dtype.kind:
        case "f" if np.isfinite(array).all() and (array == array.round()).all():
            return array.astype(np.int64)
        case "S":
            return np.char.decode(array, "utf-8", "replace")
        case "b" | "i" | "u" | "U":
            return array
    example = (
        next((label for label in array.tolist() if label != label or label % 1), None)
        if array.dtype.kind == "f"
        else array.tolist()[0]
    )
    raise ValueError(f"{what} such as {example}; allowed: a whole number or a word for each")
