"""Parts of the user's own: data sets and augmentations of packages that were allowed by name."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.data import items, pictures
from convscape.data.cache import Contents, DataError, load_or_build
from convscape.data.stretch import Stretch
from convscape.geometry.window import parse_size

if TYPE_CHECKING:
    from convscape.data.cache import ImageSet


log = logging.getLogger(__name__)

MAX_CHANNELS = 64


def functions(
    targets: Sequence[str], allow_packages: Sequence[str]
) -> tuple[Callable[..., Any], ...]:
    """The augmentations that `targets` name.

    Raises:
        ConfigError: if one is not allowed, not there, or no function.
    """
    key = "data.augment.own"
    return tuple(parts.find("augment", key, target, allow_packages) for target in targets)


class Arrays(NamedTuple):
    """Images (N, C, H, W) as they were given and labels (N,) from 0, in two or three splits."""

    classes: tuple[str, ...]
    splits: dict[str, tuple[np.ndarray, np.ndarray]]  # train, test, perhaps val
    stretch: Stretch | None  # what makes pixels of the images, if they are no bytes


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
    use_val: bool = False,
) -> ImageSet:
    """The images of the user's; what is named is called once in a process.

    A function returns, or a class is, one of these:
    - (images, labels), which are split once and for all, or (train images, train labels, test
      images, test labels). Images are (N, H, W) or (N, C, H, W); labels are numbers or words, and
      the classes are what differs among them, sorted.
    - a data set that gives (image, label) for each index, or a pair of them: train and test
    - a LightningDataModule

    Images of bytes stay bytes; all others become float32 by one `Stretch` of the train images.

    - `use_val`: whether the images for validation are used that a data module brings.

    Raises:
        ConfigError: if the function is not allowed or not there.
        DataError: if it fails, or returns something else.
    """
    found = parts.find("data", "data._target_", target, allow_packages)
    is_there = items.is_items(found) or items.is_module(found)
    if not callable(found) and not (is_there and isinstance(found, Hashable)):
        raise ConfigError(f"data._target_={target} is no function")
    if is_there and arguments:
        raise ConfigError(
            f"data.arguments={arguments}: data._target_={target} is no function, and takes none"
        )
    folder = Path(cache_dir).expanduser().absolute()
    return _loaded(
        *(found, target, json.dumps(arguments), root, test_fraction),
        *(folder, image_size, channels, use_val),
    )


@functools.cache  # runs that differ in the seed share it
def _loaded(
    found: Any,
    target: str,
    arguments: str,
    root: str,
    test_fraction: float,
    cache_dir: Path,
    image_size: int | str | None,
    channels: int | None,
    use_val: bool,
) -> ImageSet:
    size = None if image_size is None else parse_size(image_size)
    is_there = items.is_items(found) or items.is_module(found)
    returned = found if is_there else _called(found, target, arguments, root)
    arrays = _checked(target, _splits(target, returned, size, channels), test_fraction, use_val)
    _, own_channels, *own_size = arrays.splits["train"][0].shape
    if channels not in (None, own_channels) and own_channels not in (1, 3):
        raise DataError(
            f"data.channels={channels}: the images of data._target_={target} have "
            f"{own_channels}; allowed: null, which keeps them"
        )
    height, width = size or own_size
    shape = (channels or own_channels, height, width)

    def read() -> Contents:
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

    folder = f"own-{shape[0]}x{height}x{width}-{_digest(arrays)}"
    return load_or_build(cache_dir / folder, "own", read)


def _called(function: Callable[..., Any], target: str, arguments: str, root: str) -> Any:
    """What the function returns.

    Raises:
        DataError: with the line of the user's code, if it fails.
    """
    keywords = json.loads(arguments)
    with suppress(ValueError):  # of what is written in C
        if "root" in inspect.signature(function).parameters:
            keywords.setdefault("root", root)
    with items.users_code(target):
        return function(**keywords)


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256(repr(arrays.classes).encode())
    for split in ("train", "test", "val"):
        for array in arrays.splits.get(split, ()):
            if array.dtype not in (np.uint8, np.int64):
                digest.update(array.dtype.str.encode())
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:12]


def _splits(
    target: str, returned: Any, size: tuple[int, int] | None, channels: int | None
) -> dict[str, items.Given]:
    found = items.read_splits(returned, items.Wanted(target, size, channels))
    if found is not None:
        return found
    if not isinstance(returned, tuple) or len(returned) not in (2, 4):
        raise DataError(
            f"data._target_={target} returned {type(returned).__name__}; allowed: (images, labels) "
            "or (train images, train labels, test images, test labels), one data set with "
            "__len__ and __getitem__ or a pair of them, a LightningDataModule"
        )
    pairs = zip(("train", "test"), returned[::2], returned[1::2], strict=False)
    return {split: items.Given(images, labels) for split, images, labels in pairs}


def _checked(
    target: str, given: dict[str, items.Given], test_fraction: float, use_val: bool
) -> Arrays:
    if use_val and "val" not in given:
        raise DataError(
            f"data.val_size=null: data._target_={target} brings no images of its own for "
            "validation; allowed: a number of images, or a fraction below 1"
        )
    if "val" in given and not use_val:
        unused = given.pop("val")
        log.warning(
            "data._target_=%s: its %d images for validation are not used; data.val_size=null "
            "does that",
            *(target, len(unused.images)),
        )
    splits = {
        split: (_images(target, each.images), _labels(target, each.labels, len(each.images)))
        for split, each in given.items()
    }
    train_images = splits["train"][0]
    for split, (images, _) in splits.items():
        if images.shape[1:] != train_images.shape[1:] or images.dtype != train_images.dtype:
            one, other = (f"{e.dtype} {e.shape[1:]}" for e in (train_images, images))
            raise DataError(
                f"data._target_={target} returned train images of {one} and {split} images of "
                f"{other}; allowed: one shape and kind"
            )
    stretch = None if train_images.dtype == np.uint8 else Stretch.of(train_images)
    values, classes = _classes(target, splits, given["train"].names)
    numbered = {s: (x, np.searchsorted(values, labels)) for s, (x, labels) in splits.items()}
    if "test" not in numbered:
        images, numbers = numbered["train"]
        which = [str(index) for index in range(len(numbers))]
        train, test = pictures.split_by_name(which, numbers.tolist(), test_fraction)
        if not test:
            raise DataError(
                f"data._target_={target} returned one image of each class, too few to split into "
                "train and test; allowed: more, or the four arrays of an official split"
            )
        numbered["train"] = images[train], numbers[train]
        numbered["test"] = images[test], numbers[test]
    return Arrays(classes, numbered, stretch)


def _classes(
    target: str, splits: dict[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels there are among the train images, sorted, and their names."""
    values = np.unique(splits["train"][1])
    are_numbers = values.dtype.kind in "iu" and values[0] >= 0 and values[-1] < len(names)
    classes = tuple(names[value] if are_numbers else str(value) for value in values)
    if len(classes) < 2:
        raise DataError(
            f"data._target_={target} returned one class, {classes[0]!r}; two are needed"
        )
    for split, (_, labels) in splits.items():
        unknown = np.setdiff1d(labels, values)
        if len(unknown):
            raise DataError(
                f"data._target_={target}: no train image has the {split} label {unknown[0]!s}"
            )
    return values, classes


def _images(target: str, images: Any) -> np.ndarray:
    """(N, C, H, W), bytes or other finite numbers."""
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
        f"finite numbers, (N, H, W) or (N, C, H, W) with 1 to {MAX_CHANNELS} channels on axis 1"
    )


def _advice(images: np.ndarray) -> str:
    """Why an array cannot be images, and what would make it that; nothing if it can."""
    if not images.size:
        return ", which is empty"
    if images.dtype.kind not in "biuf":
        return ", which are no numbers"
    if not np.isfinite([images.min(), images.max()]).all():
        return ", with NaN or infinite values"
    if images.ndim not in (3, 4):
        return f", which has {images.ndim} axes"
    if images.ndim == 4 and _looks_turned(*images.shape[1:]):
        return "; try images.transpose(0, 3, 1, 2)"
    if images.ndim == 4 and images.shape[1] > MAX_CHANNELS:
        return f", which has {images.shape[1]} channels"
    return ""


def _looks_turned(first: int, second: int, third: int) -> bool:
    """Whether what is taken for (C, H, W) seems to be (H, W, C)."""
    if second == third or third > MAX_CHANNELS:
        return False
    is_usual = third in (1, 3) and first not in (1, 3)
    return is_usual or first > MAX_CHANNELS or (first == second and third < first)


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
