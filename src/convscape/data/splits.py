"""How many images train and validate, and which ones: the split of a data set. No torch."""

from __future__ import annotations

import numpy as np

from convscape.data.cache import DataError

VAL_FRACTION = 0.1  # of the train images, if nothing else is set


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Optimiser steps for one pass over the images; the last batch may be smaller."""
    return -(-num_images // batch_size)


def taken_for_validation(has_own: bool, val_size: int | float | None, fold: int = 0) -> int | float:
    """How much `val_size` takes from train: nothing if it is None and validation has its own.

    - `has_own`: whether the data have a split for validation.

    Raises:
        DataError: if a `fold` of nothing is asked for.
    """
    taken = (0 if has_own else VAL_FRACTION) if val_size is None else val_size
    if fold and not taken:
        why = (
            f"data.val_size={val_size}" if val_size is not None else "the data have a split for it"
        )
        raise DataError(
            f"data.fold={fold}: no train image is used for validation, since {why}; for five folds "
            "set data.val_size=0.2"
        )
    return taken


def split_sizes(
    num_images: int, val_size: int | float, train_size: int | None = None, fold: int = 0
) -> tuple[int, int]:
    """How many of the train split's `num_images` are for training and how many for validation.

    - `val_size`: a number of images, or a fraction of them.
    - `train_size`: None for all that validation leaves.

    Raises:
        DataError: if there are fewer images than asked for, or no such `fold` of them.
    """
    num_val = round(val_size * num_images) if isinstance(val_size, float) else val_size
    num_train = num_images - num_val if train_size is None else train_size
    if num_train < 1:
        raise DataError(
            f"data.val_size={val_size} leaves no image to train on: the train split has "
            f"{num_images:,}"
        )
    if num_train + num_val > num_images:
        raise DataError(
            f"data.val_size={val_size} and data.train_size={train_size or 'null'} ask for "
            f"{num_val + num_train:,} images, but the train split has {num_images:,}"
        )
    num_folds = round(num_images / num_val) if num_val else 1
    if fold >= num_folds:
        highest = "0, the only one" if num_folds == 1 else f"0 to {num_folds - 1}"
        raise DataError(
            f"data.fold={fold}: of parts of {num_val:,} of {num_images:,} images, which "
            f"data.val_size={val_size} takes, allowed: {highest}; 5 folds are data.val_size=0.2"
        )
    return num_train, num_val


def split(
    labels: np.ndarray,
    val_size: int | float,
    train_size: int | None,
    split_seed: int,
    fold: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the train and the validation images, stratified; see `split_sizes`.

    - `fold`: which part of this size is for validation, counted from 0. The last one may share a
      few images with the one before it, if the split is not even.

    Raises:
        DataError: from `split_sizes`.
    """
    num_train, num_val = split_sizes(len(labels), val_size, train_size, fold)
    order = _interleaved(labels, split_seed)
    if fold:
        order = np.roll(order, -min(fold * num_val, len(order) - num_val))
    return np.sort(order[num_val : num_val + num_train]), np.sort(order[:num_val])


def _interleaved(labels: np.ndarray, seed: int) -> np.ndarray:
    """All indices in a random order of which every prefix is stratified."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return shuffled[np.argsort(position[shuffled], kind="stable")]
