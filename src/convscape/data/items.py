"""The user's data sets and data modules, which give one image at a time: read once into arrays."""

from __future__ import annotations

import logging
import random
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from convscape.data import pictures
from convscape.data.cache import DataError
from convscape.data.progress import progress_when_slow

log = logging.getLogger(__name__)

NUM_TWICE = 8  # the first images of a split are read twice, to see whether they are random
IMAGE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels")
# the names of splits in Hugging Face's DatasetDict
SPLIT_KEYS = {"train": "train", "test": "test", "val": "val", "validation": "val"}


class Wanted(NamedTuple):
    """Which key's data set to read, and in what form; None keeps a property as it is."""

    target: str
    size: tuple[int, int] | None = None
    channels: int | None = None


class Given(NamedTuple):
    """Images (N, C, H, W) and labels of a split as given; `names` by label, if known."""

    images: Any
    labels: Any
    names: Sequence[str] = ()


def is_items(thing: Any) -> bool:
    """Whether it has a length and items, but is not an array or list of images or labels."""
    if isinstance(thing, type | str | bytes | Mapping) or hasattr(thing, "__array__"):
        return False
    if isinstance(thing, list | tuple):  # of (image, label)
        return bool(thing) and all(isinstance(e, Mapping) or _is_pair(e) for e in thing[:1])
    return hasattr(thing, "__len__") and hasattr(thing, "__getitem__")


def _is_pair(thing: Any) -> bool:
    if not isinstance(thing, list | tuple) or len(thing) != 2:
        return False
    image, label = thing
    is_image = hasattr(image, "getbands") or getattr(image, "ndim", 0) in (2, 3)
    return is_image and not isinstance(label, list | tuple) and not getattr(label, "ndim", 0)


def is_module(thing: Any) -> bool:
    """Whether it is a LightningDataModule, of either package."""
    parts = ("prepare_data", "setup", "train_dataloader")
    return not isinstance(thing, type) and all(hasattr(thing, part) for part in parts)


def read_splits(returned: Any, wanted: Wanted) -> dict[str, Given] | None:
    """The splits of a data module, a data set, a pair or a dict of these; None for anything else.

    Raises:
        DataError: if they cannot be read, or give different images when read twice.
    """
    if is_module(returned):
        return _of_module(returned, wanted)
    splits: dict[str, Any] = {}
    if is_items(returned):
        splits = {"train": returned}
    elif isinstance(returned, Mapping) and "train" in returned:
        splits = {SPLIT_KEYS[key]: each for key, each in returned.items() if key in SPLIT_KEYS}
    elif isinstance(returned, tuple | list) and len(returned) == 2:
        splits = dict(zip(("train", "test"), returned, strict=True))
    if not splits or not all(map(is_items, splits.values())):
        return None
    return {split: _of_items(each, split, wanted) for split, each in splits.items()}


@contextmanager
def users_code(target: str) -> Iterator[None]:
    """Turn whatever the user's code raises into a DataError with its line."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise DataError(
            f"data._target_={target} failed: {type(error).__name__}: {error} "
            f"({last.filename}, line {last.lineno})"
        ) from error


def _of_items(items: Any, split: str, wanted: Wanted) -> Given:
    with users_code(wanted.target):
        count = len(items)
        rows = [_pair(items[index], wanted) for index in range(min(NUM_TWICE, count))]
        again = [_pair(items[index], wanted) for index in range(len(rows))]
        _check_alike(rows, again, wanted)
        every = (_pair(items[index], wanted) for index in range(count))
        return Given(*_read(every, count, split, wanted), _names(items))


def _names(items: Any) -> Sequence[str]:
    """Names of the classes by number, if given as in torchvision or Hugging Face."""
    names = getattr(items, "classes", None)
    if names is None and hasattr(items, "dataset"):  # a subset
        return _names(items.dataset)
    features = getattr(items, "features", None)
    if names is None and isinstance(features, Mapping):
        feature = next((features[key] for key in LABEL_KEYS if key in features), None)
        names = getattr(feature, "names", None)
    is_list = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list and names is not None and len({*names}) == len(names) else ()


# --- data modules -----------------------------------------------------------------------------


def _of_module(module: Any, wanted: Wanted) -> dict[str, Given]:
    with users_code(wanted.target), _same_draws():
        module.prepare_data()
        module.setup("fit")
        module.setup("test")
        names = {"train": "train_dataloader", "val": "val_dataloader", "test": "test_dataloader"}
        loaders = {split: _loader(module, name) for split, name in names.items()}
        splits = {
            split: _of_loader(loader, split, wanted)
            for split, loader in loaders.items()
            if loader is not None
        }
    if "train" not in splits:
        raise DataError(f"data._target_={wanted.target}: it has no train_dataloader")
    if _has_own(module, "on_after_batch_transfer"):
        log.warning(
            "data._target_=%s: its on_after_batch_transfer is not called; use data.augment and "
            "data.mean instead",
            wanted.target,
        )
    return splits


def _has_own(module: Any, name: str) -> bool:
    """Whether a hook is the user's own, not Lightning's, which does nothing."""
    method = getattr(module, name, None)
    if not hasattr(method, "__func__"):  # Lightning's `from_datasets` sets plain functions
        return method is not None
    return method.__module__.partition(".")[0] not in ("lightning", "pytorch_lightning")


def _loader(module: Any, name: str) -> Any:
    """A data loader, or None if there is none."""
    loader = getattr(module, name)() if _has_own(module, name) else None
    return None if isinstance(loader, list | tuple) and not loader else loader


@contextmanager
def _same_draws() -> Iterator[None]:
    """Make random splits equal in every process: a later command reads them again."""
    torch = sys.modules["torch"]  # a data module has already imported it
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


def _of_loader(loader: Any, split: str, wanted: Wanted) -> Given:
    if isinstance(loader, list | tuple | Mapping) or not hasattr(loader, "__iter__"):
        raise DataError(
            f"data._target_={wanted.target}: {split}_dataloader() returns "
            f"{type(loader).__name__}; allowed: one data loader"
        )
    dataset, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    in_batches = getattr(loader, "batch_size", None) or getattr(loader, "batch_sampler", None)
    if dataset is None or collate is None or not (is_items(dataset) and in_batches):
        first, again = (_rows_of_first(loader, wanted) for _ in range(2))
        _check_alike(first, again, wanted)
        every = [row for batch in loader for row in _rows(batch, wanted)]
        return Given(*_read(every, len(every), split, wanted))

    def rows_at(indices: Sequence[int]) -> list[tuple[np.ndarray, Any]]:
        return list(_rows(collate([dataset[index] for index in indices]), wanted))

    chosen = _indices(loader, split, wanted)
    first, again = (rows_at(chosen[:NUM_TWICE]) for _ in range(2))
    _check_alike(first, again, wanted)
    pieces = (chosen[start : start + 64] for start in range(0, len(chosen), 64))
    rows = (row for piece in pieces for row in rows_at(piece))
    return Given(*_read(rows, len(chosen), split, wanted), _names(dataset))


def _indices(loader: Any, split: str, wanted: Wanted) -> list[int]:
    """Indices that a data loader visits, sorted; the order of training does not matter here.

    Raises:
        DataError: if they differ each time.
    """
    batches = loader.batch_sampler
    plain = loader.batch_size is not None  # then it may drop an incomplete batch

    def drawn() -> list[int]:
        found = loader.sampler if plain else (index for batch in batches for index in batch)
        return sorted({int(index) for index in found})

    chosen = drawn()
    if not chosen:
        raise DataError(f"data._target_={wanted.target}: its {split} data loader has no images")
    if chosen != drawn():
        raise DataError(
            f"data._target_={wanted.target}: the sampler of its {split} data loader draws "
            "different images each time, and each is read only once; allowed: one that draws all "
            "of its images"
        )
    return chosen


def _rows_of_first(loader: Any, wanted: Wanted) -> list[tuple[np.ndarray, Any]]:
    return next((list(_rows(batch, wanted))[:NUM_TWICE] for batch in loader), [])


def _rows(batch: Any, wanted: Wanted) -> Iterator[tuple[np.ndarray, Any]]:
    """The images (C, H, W) and labels of a batch."""
    images, labels = _parts(batch, wanted)
    if len(images) != len(labels):
        raise DataError(
            f"data._target_={wanted.target}: a batch has {len(images)} images and {len(labels)} "
            "labels"
        )
    for image, label in zip(images, labels, strict=True):
        yield _image(image, wanted), _label(label)


# --- images -----------------------------------------------------------------------------------


def _read(
    rows: Iterable[tuple[np.ndarray, Any]], count: int, split: str, wanted: Wanted
) -> tuple[np.ndarray, list[Any]]:
    images = np.empty((0,), np.uint8)
    labels = []
    with progress_when_slow(f"reading {split}", count) as advance:
        for index, (image, label) in enumerate(rows):
            if not index:
                images = np.empty((count, *image.shape), image.dtype)
            if image.shape != images.shape[1:]:
                raise DataError(_uneven(images.shape[1:], image.shape, wanted))
            if image.dtype != images.dtype:
                raise DataError(
                    f"data._target_={wanted.target}: it has images of {images.dtype} and of "
                    f"{image.dtype}; allowed: one kind"
                )
            images[index] = image
            labels.append(label)
            advance(1)
    return images, labels


def _uneven(one: tuple[int, ...], other: tuple[int, ...], wanted: Wanted) -> str:
    is_size = one[1:] != other[1:]
    key, value = ("image_size", "x".join(map(str, one[1:]))) if is_size else ("channels", 3)
    return (
        f"data._target_={wanted.target}: it has images of {'x'.join(map(str, one))} and of "
        f"{'x'.join(map(str, other))}; allowed: one shape, which data.{key}={value} makes"
    )


def _check_alike(first: list[Any], again: list[Any], wanted: Wanted) -> None:
    pairs = zip(first, again, strict=True)
    alike = (
        np.array_equal(one, other, equal_nan=True) and np.array_equal(label, same)
        for (one, label), (other, same) in pairs
    )
    if not all(alike):
        raise DataError(
            f"data._target_={wanted.target}: the same image comes out differently when it is read "
            "again: its augmentation is random, and would be frozen because every image is read "
            "once; remove it there, and use data.augment instead, such as data.augment.flip=true"
        )


def _pair(item: Any, wanted: Wanted) -> tuple[np.ndarray, Any]:
    image, label = _parts(item, wanted)
    return _image(image, wanted), _label(label)


def _parts(item: Any, wanted: Wanted) -> tuple[Any, Any]:
    """Image and label of an item, or images and labels of a batch."""
    if isinstance(item, Mapping):
        image, label = (
            next((item[key] for key in keys if key in item), None)
            for keys in (IMAGE_KEYS, LABEL_KEYS)
        )
        if image is not None and label is not None:
            return image, label
        what = f"dicts with the keys {', '.join(map(str, item))}"
    elif isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    elif isinstance(item, tuple | list):
        what = f"{type(item).__name__}s of {len(item)}"
    else:
        what = type(item).__name__
    raise DataError(
        f"data._target_={wanted.target}: its items are {what}; allowed: (image, label), or dicts "
        f"with {' or '.join(IMAGE_KEYS)}, and {' or '.join(LABEL_KEYS)}"
    )


def _label(label: Any) -> Any:
    """The plain value of a tensor or an array; an array if it holds several."""
    if hasattr(label, "detach"):
        label = label.detach().cpu().numpy()
    return label.item() if hasattr(label, "item") and label.ndim == 0 else label


def _image(given: Any, wanted: Wanted) -> np.ndarray:
    """An image from PIL, NumPy or torch as (C, H, W), with the wanted size and channels."""
    image = _plain_image(given, wanted)
    size, channels = wanted.size or image.shape[1:], wanted.channels or len(image)
    shape = (channels, size[0], size[1])
    if shape == image.shape:
        return image
    if len(image) != channels and not {len(image), channels} <= {1, 3}:
        return image  # problems are reported once for all images
    values = image if image.dtype == np.uint8 else image.astype(np.float32)
    return pictures.resized(values[None], shape)[0]


def _plain_image(given: Any, wanted: Wanted) -> np.ndarray:
    if hasattr(given, "getbands"):
        return pictures.as_array(given)
    channels_first = hasattr(given, "detach")
    if channels_first:
        given = given.detach().cpu()
        given = given.float() if "bfloat16" in str(given.dtype) else given
    image = np.asarray(given)
    if image.ndim == 2 and image.dtype.kind in "biuf":
        return image[None]
    if image.ndim != 3 or image.dtype.kind not in "biuf":
        raise DataError(
            f"data._target_={wanted.target}: it has an image of {type(given).__name__}, "
            f"{image.dtype} {image.shape}; allowed: a PIL image, a NumPy array (H, W) or (H, W, "
            "C), a tensor (C, H, W)"
        )
    # channels last, if only that gives one or three channels
    first, last = image.shape[0] in (1, 3), image.shape[2] in (1, 3)
    channels_first = first if first != last else channels_first
    return image if channels_first else image.transpose(2, 0, 1)
