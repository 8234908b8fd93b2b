"""The user's own parts: data sets and augmentations from packages that were allowed by name."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.data import arrays, items
from convscape.data.arrays import Source
from convscape.data.cache import DataError, load_or_build
from convscape.geometry.window import parse_size

if TYPE_CHECKING:
    from convscape.data.cache import ImageSet


def functions(
    targets: Sequence[str], allow_packages: Sequence[str]
) -> tuple[Callable[..., Any], ...]:
    """The augmentations that `targets` name.

    Raises:
        ConfigError: if one is not allowed, does not exist, or is not a function.
    """
    key = "data.augment.own"
    return tuple(parts.find("augment", key, target, allow_packages) for target in targets)


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
    """The user's own images; the named function is called once per process.

    A function returns, or a class is, one of these:
    - (images, labels), which get one fixed split, or (train images, train labels, test images,
      test labels). Images are (N, H, W) or (N, C, H, W); labels are numbers or words, and the
      distinct labels, sorted, are the classes.
    - a data set that gives (image, label) for each index, or a pair of them: train and test
    - a LightningDataModule

    Byte images stay bytes; all others become float32 by one `Stretch` fitted to the train images.

    - `use_val`: whether to use the validation images of a data module.

    Raises:
        ConfigError: if the function is not allowed or does not exist.
        DataError: if it fails, or returns something else.
    """
    found = parts.find("data", "data._target_", target, allow_packages)
    is_there = items.is_items(found) or items.is_module(found)
    if not callable(found) and not (is_there and isinstance(found, Hashable)):
        raise ConfigError(f"data._target_={target} is not a function")
    if is_there and arguments:
        raise ConfigError(
            f"data.arguments={arguments}: data._target_={target} is not a function, and takes no "
            "arguments"
        )
    folder = Path(cache_dir).expanduser().absolute()
    return _loaded(
        *(found, target, json.dumps(arguments), root, test_fraction),
        *(folder, image_size, channels, use_val),
    )


@functools.cache  # runs that differ only in the seed share it
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
    given = _splits(target, returned, size, channels)
    if use_val and "val" not in given:
        raise DataError(
            f"data.val_size=null: data._target_={target} brings no images of its own for "
            "validation; allowed: a number of images, or a fraction below 1"
        )
    source = Source(f"data._target_={target}", "returned")
    checked = arrays.checked(source, given, test_fraction, use_val)
    shape = arrays.shape_of(checked, source, image_size, channels)
    folder = f"own-{shape[0]}x{shape[1]}x{shape[2]}-{arrays.digest(checked)}"
    return load_or_build(
        cache_dir / folder,
        "own",
        lambda: arrays.contents(checked, source, image_size, channels),
    )


def _called(function: Callable[..., Any], target: str, arguments: str, root: str) -> Any:
    """The function's result.

    Raises:
        DataError: with the line of the user's code, if the function fails.
    """
    keywords = json.loads(arguments)
    with suppress(ValueError):  # for code written in C
        if "root" in inspect.signature(function).parameters:
            keywords.setdefault("root", root)
    with items.users_code(target):
        return function(**keywords)


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
