"""An .npz file of images and labels, as MedMNIST, Keras and NumPy users save them. No torch."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from convscape.data.arrays import Source, channels_second
from convscape.data.cache import DataError
from convscape.data.items import Given

SPLITS = {"train": ("train",), "test": ("test",), "val": ("val", "valid", "validation")}
IMAGES = ("images", "x", "data", "imgs")
LABELS = ("labels", "y", "targets", "target", "label")
EXPECTED = (
    "train_images, train_labels, test_images, test_labels (and val_images, val_labels), or "
    "x_train, y_train, x_test, y_test, or images, labels"
)


def source(path: Path) -> Source:
    """What messages call the file."""
    return Source(f"data.root={str(path)!r}", "holds")


def read(path: Path) -> dict[str, Given]:
    """The splits of a file; only "train" if it has one pair of images and labels.

    Channels on the last axis, as in nearly all such files, are moved to the second.

    Raises:
        DataError: if it is not such a file.
    """
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}; set data.root to an .npz with {EXPECTED}")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{str(path)!r} is not an .npz; expected: one with {EXPECTED}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            names = {name.casefold(): name for name in archive.files}
            pairs = _pairs(path, names)
            return {
                split: Given(_images(archive[images]), archive[labels])
                for split, (images, labels) in pairs.items()
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, DataError):
            raise
        if "allow_pickle" in str(error):
            why = "an array of Python objects, which is not loaded; save numbers or words"
        else:
            why = f"what cannot be read ({error})"
        raise DataError(f"{str(path)!r} holds {why}") from error


def _images(images: np.ndarray) -> np.ndarray:
    """Channels moved to axis 1; flat squares, common with scikit-learn, reshaped to images."""
    if images.ndim == 2 and math.isqrt(images.shape[1]) ** 2 == images.shape[1] > 1:
        side = math.isqrt(images.shape[1])
        return images.reshape(-1, side, side)
    return channels_second(images)


def _pairs(path: Path, names: dict[str, str]) -> dict[str, tuple[str, str]]:
    """The names of the arrays of images and labels in each split."""
    found = {}
    for split, prefixes in SPLITS.items():
        images, labels = (
            [names[key] for p in prefixes for k in kinds for key in (f"{p}_{k}", f"{k}_{p}")
             if key in names]
            for kinds in (IMAGES, LABELS)
        )  # fmt: skip
        if images and labels:
            found[split] = (images[0], labels[0])
    if "train" not in found:
        images, labels = ([names[k] for k in kinds if k in names] for kinds in (IMAGES, LABELS))
        if images and labels:
            found["train"] = (images[0], labels[0])
    if "train" not in found:
        held = ", ".join(list(names.values())[:10]) + ", ..." * (len(names) > 10)
        raise DataError(f"{str(path)!r} holds {held or 'nothing'}; expected {EXPECTED}")
    return found
