"""A run's data, as seen by later commands: where they are now, and whether they are the same.

A run records the checksum and the classes that it was trained on. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convscape.base.errors import ConfigError
from convscape.base.values import hint, on_one_line
from convscape.config.schema import FILES, Config
from convscape.data import given
from convscape.data.cache import DataError, ImageSet
from convscape.data.datasets import DATASET_INFO, target_shape
from convscape.data.folders import describe_classes, find_pictures, splits
from convscape.data.splits import split_sizes, taken_for_validation
from convscape.data.variants import variant_shape
from convscape.runs.result import Result

PLACES = ("data.root", "data.cache_dir")  # what a later command may say about a run's data
MAX_NAMED = 10  # classes in a sentence


def take_places(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """A command line without `data.root=...` and `data.cache_dir=...`, and their values.

    Raises:
        ConfigError: if another data key is given: a run keeps its own.
    """
    from convscape.config.typed import refuse_misread  # Hydra, which a run itself does not need

    if any("$" in word for word in words):
        refuse_misread(words)
    others: list[str] = []
    places: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and re.fullmatch(r"data\.\w+", key)):
            others.append(word)
        elif key in PLACES:
            places[key.removeprefix("data.")] = value
        else:
            raise ConfigError(
                f"{word}: a run keeps its own config; allowed: {', '.join(PLACES)}"
                f"{hint(key, PLACES)}"
            )
    return others, places


def with_places(stored: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The stored config of a run whose data are at `places`."""
    data = stored.get("data")
    return stored | {"data": data | dict(places)} if isinstance(data, dict) else stored


def check_there(config: Config) -> None:
    """Refuse a run whose folder of pictures has moved.

    Raises:
        DataError: with the key that says where it is now.
    """
    is_file = config.data.name in ("image_folder", *FILES)
    if is_file and not Path(config.data.root).expanduser().exists():
        raise _gone(config)


def image_shape(config: Config) -> tuple[int, int, int] | None:
    """(C, H, W) of an image if the config alone says it, which it does not for a user's arrays."""
    data = config.data
    if data.is_brought:
        return None
    shape = target_shape(data.name, data.image_size, data.channels)
    return variant_shape(shape, data.change)


def check_splits(config: Config) -> None:
    """Refuse splits that the data do not have, as far as no picture has to be read for that.

    Raises:
        DataError: naming the key.
    """
    data = config.data
    has_own, num_images = False, None
    if data.is_brought:
        image_set = config.load_images()
        has_own, num_images = image_set.val_labels is not None, len(image_set.train_labels)
    elif data.name == "image_folder":
        has_own = "val" in splits(Path(data.root).expanduser())
    taken = taken_for_validation(has_own, data.val_size, data.fold)
    if num_images is not None:
        split_sizes(num_images, taken, data.train_size, data.fold)


def describe(config: Config) -> list[str]:
    """Classes and counts of a user's own data, in a few lines; empty for a published set.

    Raises:
        DataError: if they are missing or invalid.
    """
    data = config.data
    if data.name == "image_folder":
        tree = find_pictures(Path(data.root).expanduser(), use_val=data.val_size is None)
        return tree.describe()
    if data.name == "csv" and (named := given.find_pictures(data.wanted())) is not None:
        return named.describe()
    if data.is_brought:
        image_set = config.load_images()
        labels, num_classes = image_set.train_labels, len(image_set.classes)
        counts = np.bincount(labels, minlength=num_classes).tolist()
        numbers = f"train {len(labels):,}, test {len(image_set.test_labels):,}"
        if image_set.val_labels is not None:
            numbers += f", validation {len(image_set.val_labels):,}"
        return [f"images: {numbers}; {describe_classes(image_set.classes, counts)}"]
    return []


def load_images(config: Config) -> ImageSet:
    """The data set of a run.

    Raises:
        DataError: if it is not there or damaged.
    """
    check_there(config)
    try:
        return config.load_images()
    except DataError as error:
        is_published = config.data.name in DATASET_INFO and config.data.name != "digits"
        if is_published and not Path(config.data.root).expanduser().is_dir():
            raise _gone(config) from error
        raise


def check_same(
    image_set: ImageSet, known: Result | None, classes: Sequence[str] = (), way_out: str = ""
) -> None:
    """Refuse data that a run was not trained on.

    - `known`: what could be read of the run's result.json; older ones do not contain all of it.
    - `classes`: the classes that the network was trained on, if it records them.
    - `way_out`: ends the error message.

    Raises:
        DataError: with checksum and classes then and now.
    """
    checksum = known.data_checksum if known is not None else None
    before = list(classes or (known.dataset.get("classes", ()) if known is not None else ()))
    now = list(image_set.classes)
    if checksum in (None, image_set.checksum) and before in ([], now):
        return
    was = [] if checksum is None else [f"checksum {checksum}"]
    new = [f"checksum {image_set.checksum}"]
    if before == now:
        new.append("and the same classes")
    elif before:
        was.append(_named(before, now))
        new.append(_named(now, before))
    raise DataError(
        "the data are not those the run was trained on: "
        f"then {', '.join(was)}; now {', '.join(new)}{way_out}"
    )


def check_other(image_set: ImageSet, shape: Sequence[int], classes: Sequence[str]) -> None:
    """Refuse other data that do not fit a network for images of `shape` (C, H, W).

    Raises:
        DataError: naming what does not fit.
    """
    now = list(image_set.classes)
    if len(now) != len(classes):
        raise DataError(
            f"the other data have {_named(now, classes)}, and the network "
            f"{_named(classes, now)}; allowed: the same number"
        )
    if tuple(shape) != image_set.train_images.shape[1:]:
        found, needed = ("x".join(map(str, s)) for s in (image_set.train_images.shape[1:], shape))
        raise DataError(f"the other data have images of {found}, and the network takes {needed}")


def _named(classes: Sequence[str], others: Sequence[str]) -> str:
    """How many classes, and which; if there are many, those that `others` lack."""
    shown = classes if len(classes) <= MAX_NAMED else [c for c in classes if c not in {*others}]
    names = ", ".join(map(on_one_line, shown[:MAX_NAMED])) + ", ..." * (len(shown) > MAX_NAMED)
    among = "among them " if len(shown) < len(classes) else ""
    return f"{len(classes):,} classes" + (f" ({among}{names})" if names else "")


def _gone(config: Config) -> DataError:
    folder = Path(config.data.root).expanduser().absolute()
    return DataError(
        f"the data of this run are not where they were: there is no folder {str(folder)!r}; "
        "add data.root=<where they are now>"
    )
