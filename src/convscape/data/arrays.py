"""Images and labels as arrays from the user: checked, split, turned into pixels. No torch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from convscape.base.values import shortened
from convscape.data import items, pictures
from convscape.data.cache import Contents, DataError
from convscape.data.stretch import Stretch
from convscape.geometry.window import parse_size

log = logging.getLogger(__name__)

MAX_CHANNELS = 64


class Source(NamedTuple):
    """Where the arrays come from, in words: a key with its value, and "returned" or "holds"."""

    key: str
    verb: str

    @property
    def says(self) -> str:
        """The beginning of a message about the arrays."""
        return f"{self.key} {self.verb}"


class Arrays(NamedTuple):
    """Images (N, C, H, W) as given and labels (N,) from 0, in two or three splits."""

    classes: tuple[str, ...]
    # train, test, perhaps val
    splits: Mapping[str, tuple[np.ndarray | pictures.Picked, np.ndarray]]
    stretch: Stretch | None  # turns the images into pixels, if they are not bytes


def contents(
    arrays: Arrays, source: Source, image_size: int | str | None, channels: int | None
) -> Contents:
    """`arrays` in the wanted size and channels (None for their own), for a cache.

    Raises:
        DataError: if the number of channels cannot be changed.
    """
    shape = shape_of(arrays, source, image_size, channels)
    chunks = {
        split: pictures.pieces(*both, shape, stretch=arrays.stretch)
        for split, both in arrays.splits.items()
    }
    return Contents(
        classes=arrays.classes,
        train=chunks["train"],
        test=chunks["test"],
        val=chunks.get("val"),
        num_images=sum(len(labels) for _, labels in arrays.splits.values()),
        stretch=arrays.stretch,
    )


def shape_of(
    arrays: Arrays, source: Source, image_size: int | str | None, channels: int | None
) -> pictures.Shape:
    """The (C, H, W) that `contents` gives them; raises the same errors."""
    _, own_channels, *own_size = arrays.splits["train"][0].shape
    if channels not in (None, own_channels) and own_channels not in (1, 3):
        raise DataError(
            f"data.channels={channels}: the images of {source.key} have "
            f"{own_channels}; allowed: null, which keeps them"
        )
    height, width = own_size if image_size is None else parse_size(image_size)
    return channels or own_channels, height, width


def digest(arrays: Arrays) -> str:
    """A short hash of classes, images and labels."""
    sha256 = hashlib.sha256(repr(arrays.classes).encode())
    for split in ("train", "test", "val"):
        for array in arrays.splits.get(split, ()):
            if array.dtype not in (np.uint8, np.int64):
                sha256.update(array.dtype.str.encode())
            sha256.update(repr(array.shape).encode())
            for start in range(0, len(array), pictures.NUM_AT_ONCE):
                some = array[start : start + pictures.NUM_AT_ONCE]
                sha256.update(np.ascontiguousarray(some).data)
    return sha256.hexdigest()[:12]


def checked(
    source: Source, given: dict[str, items.Given], test_fraction: float, use_val: bool
) -> Arrays:
    """The given arrays with labels from 0; a test split is taken if there is none.

    - `use_val`: whether images for validation are kept.

    Raises:
        DataError: if these are not images with labels.
    """
    if "val" in given and not use_val:
        unused = given.pop("val")
        log.warning(
            "%s: its %d images for validation are not used; data.val_size=null does that",
            *(source.key, len(unused.images)),
        )
    splits = {
        split: (_images(source, each.images), _labels(source, each.labels, len(each.images)))
        for split, each in given.items()
    }
    train_images = splits["train"][0]
    for split, (images, _) in splits.items():
        if images.shape[1:] != train_images.shape[1:] or images.dtype != train_images.dtype:
            one, other = (f"{e.dtype} {e.shape[1:]}" for e in (train_images, images))
            raise DataError(
                f"{source.says} train images of {one} and {split} images of "
                f"{other}; allowed: one shape and kind"
            )
    stretch = None if train_images.dtype == np.uint8 else Stretch.of(train_images)
    values, classes = _classes(source, splits, given["train"].names)
    numbered: dict[str, tuple[np.ndarray | pictures.Picked, np.ndarray]] = {
        s: (x, np.searchsorted(values, labels)) for s, (x, labels) in splits.items()
    }
    if "test" not in numbered:
        numbers = numbered["train"][1]
        which = [str(index) for index in range(len(numbers))]
        train, test = pictures.split_by_name(which, numbers.tolist(), test_fraction)
        if not test:
            raise DataError(
                f"{source.says} one image of each class, too few to split into "
                "train and test; allowed: more, or the four arrays of an official split"
            )
        numbered["train"] = pictures.Picked(train_images, train), numbers[train]
        numbered["test"] = pictures.Picked(train_images, test), numbers[test]
    return Arrays(classes, numbered, stretch)


def _classes(
    source: Source, splits: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of the train images, sorted, and their names."""
    values = np.unique(splits["train"][1])
    are_numbers = values.dtype.kind in "iu" and values[0] >= 0 and values[-1] < len(names)
    classes = tuple(names[value] if are_numbers else str(value) for value in values)
    if len(classes) < 2:
        raise DataError(f"{source.says} one class, {shortened(classes[0], 100)!r}; two are needed")
    for split, (_, labels) in splits.items():
        unknown = np.setdiff1d(labels, values)
        if len(unknown):
            raise DataError(f"{source.key}: no train image has the {split} label {unknown[0]!s}")
    return values, classes


def _images(source: Source, images: Any) -> np.ndarray:
    """The images as (N, C, H, W), bytes or other finite numbers."""
    given = type(images).__name__
    with suppress(ValueError, TypeError):  # a list of images of different sizes
        images = np.asarray(images)
    if not isinstance(images, np.ndarray) or images.dtype == object:
        what, advice = given, ""
    else:
        what, advice = f"{images.dtype} {images.shape}", _advice(images)
        if not advice:
            return images[:, None] if images.ndim == 3 else images
    raise DataError(
        f"{source.says} images of {what}{advice}; allowed: a NumPy array of "
        f"finite numbers, (N, H, W) or (N, C, H, W) with 1 to {MAX_CHANNELS} channels on axis 1"
    )


def _advice(images: np.ndarray) -> str:
    """Why an array cannot be images, and how to convert it; empty if it can."""
    if not images.size:
        return ", which is empty"
    if images.dtype.kind not in "biuf":
        return ", which are not numbers"
    if not np.isfinite([images.min(), images.max()]).all():
        return ", with NaN or infinite values"
    if images.ndim not in (3, 4):
        return f", which has {images.ndim} axes"
    if images.ndim == 4 and _looks_turned(*images.shape[1:]):
        return "; try images.transpose(0, 3, 1, 2)"
    if images.ndim == 4 and images.shape[1] > MAX_CHANNELS:
        return f", which has {images.shape[1]} channels"
    return ""


def channels_second(images: np.ndarray) -> np.ndarray:
    """Images as (N, C, H, W), if they seem to be (N, H, W, C)."""
    if images.ndim == 4 and _looks_turned(*images.shape[1:]):
        return images.transpose(0, 3, 1, 2)
    return images


def _looks_turned(first: int, second: int, third: int) -> bool:
    """Whether a shape taken as (C, H, W) seems to be (H, W, C)."""
    if second == third or third > MAX_CHANNELS:
        return False
    is_usual = third in (1, 3) and first not in (1, 3)
    return is_usual or first > MAX_CHANNELS or (first == second and third < first)


def _labels(source: Source, labels: Any, count: int) -> np.ndarray:
    try:
        plain = plain_labels(labels)
    except ValueError as error:
        raise DataError(f"{source.says} {error}") from None
    if len(plain) != count:
        raise DataError(
            f"{source.says} labels of {plain.dtype} {plain.shape} for {count} "
            "images; allowed: a whole number or a word for each"
        )
    return plain


def plain_labels(labels: Any) -> np.ndarray:
    """Labels (N,) as whole numbers or words, also from (N, 1), objects or floats.

    Raises:
        ValueError: if they are anything else.
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
        more = "; labels.argmax(1) turns one-hot labels into numbers" if array.ndim == 2 else ""
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
