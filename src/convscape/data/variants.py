"""Data sets changed for an experiment: permuted pixels, objects on a canvas, random labels.

The change is set under `data.change` in the config, so it is part of the run. No torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from convscape.base.errors import ConfigError
from convscape.base.sections import Section, Seed
from convscape.data.cache import Scene
from convscape.data.moments import Moments

if TYPE_CHECKING:
    from convscape.data.cache import ImageSet


class ChangeConfig(Section):
    """Changes to all images of a set before anything else, see `apply_variant`."""

    permute: Seed | None
    canvas: Annotated[int, Field(ge=1, le=4096)] | None
    clutter: Annotated[int, Field(ge=0, le=1000)]
    placement: Literal["once", "each_epoch", "center"] = "once"
    shuffle_labels: Seed | None


CHUNK = 4096  # images at a time
CLUTTER_SHARE = 3  # the side of a piece of clutter is a third of the image's


def variant_shape(shape: tuple[int, int, int], change: ChangeConfig) -> tuple[int, int, int]:
    """Shape (C, H, W) of an image after `change`.

    Raises:
        ConfigError: if the image does not fit on the canvas.
    """
    if change.canvas is None:
        if change.clutter:
            raise ConfigError(
                f"data.change.clutter={change.clutter} needs a canvas; set data.change.canvas"
            )
        if change.placement != "once":
            raise ConfigError(
                f"data.change.placement={change.placement} needs a canvas; set data.change.canvas"
            )
        return shape
    channels, height, width = shape
    if change.canvas < max(height, width):
        raise ConfigError(
            f"data.change.canvas={change.canvas} is smaller than the image, {height}x{width}; "
            f"allowed: {max(height, width)} or more"
        )
    return channels, change.canvas, change.canvas


def apply_variant(image_set: ImageSet, change: ChangeConfig) -> ImageSet:
    """The image set after `change`; mean, std and checksum are those of the result."""
    shape = variant_shape(image_set.train_images.shape[1:], change)
    if change.permute is change.canvas is change.shuffle_labels is None:
        return image_set
    arrays = [
        (image_set.train_images, image_set.train_labels),
        (image_set.test_images, image_set.test_labels),
    ]
    if image_set.val_images is not None and image_set.val_labels is not None:
        arrays.append((image_set.val_images, image_set.val_labels))
    try:
        splits = [_changed_split(*split, change, number) for number, split in enumerate(arrays)]
    except MemoryError:
        raise ConfigError(
            f"data.change makes images of {'x'.join(map(str, shape))}, which do not all fit "
            "into memory; try a smaller data.change.canvas"
        ) from None
    mean, std = _mean_std(splits[0][0])
    val = splits[2] if len(splits) == 3 else (None, None)
    # later keys are left out at their defaults, so that checksums of earlier runs stay the same
    described = json.dumps([image_set.checksum, change.model_dump(exclude_defaults=True)])
    scene = None
    if change.placement == "each_epoch":
        assert change.canvas is not None
        scene = Scene(image_set.train_images, change.canvas, change.clutter, change.permute)
    return replace(
        image_set,
        train_images=splits[0][0],
        train_labels=splits[0][1],
        test_images=splits[1][0],
        test_labels=splits[1][1],
        scene=scene,
        val_images=val[0],
        val_labels=val[1],
        mean=mean,
        std=std,
        checksum=hashlib.sha256(described.encode()).hexdigest()[:12],
    )


def _changed_split(
    images: np.ndarray, labels: np.ndarray, change: ChangeConfig, split: int
) -> tuple[np.ndarray, np.ndarray]:
    if change.canvas is not None:
        rng = np.random.default_rng([0, split])
        is_centered = change.placement == "center"
        images = on_canvas(images, change.canvas, change.clutter, rng, is_centered)
    if change.permute is not None:
        images = permuted(images, change.permute)
    if change.shuffle_labels is not None:
        labels = np.random.default_rng([change.shuffle_labels, split]).permutation(labels)
    return images, labels


def permuted(images: np.ndarray, seed: int) -> np.ndarray:
    """Images (N, C, H, W), all with their pixels in the same new order."""
    order = pixel_order(seed, images.shape[2] * images.shape[3])
    flat = images.reshape(*images.shape[:2], -1)
    return np.take(flat, order, axis=2).reshape(images.shape)


def pixel_order(seed: int, num_pixels: int) -> np.ndarray:
    """Which pixel goes to each place in `permuted`."""
    return np.random.default_rng(seed).permutation(num_pixels)


def on_canvas(
    images: np.ndarray,
    side: int,
    num_clutter: int,
    rng: np.random.Generator,
    is_centered: bool = False,
) -> np.ndarray:
    """Images (N, C, H, W) at random places, or in the middle, of canvases (N, C, side, side).

    - `num_clutter`: square pieces of other images of the set, scattered over each black canvas.

    Where they overlap, the brighter pixel shows.
    """
    count, channels, height, width = images.shape
    canvases = np.zeros((count, channels, side, side), images.dtype)
    piece = max(height, width) // CLUTTER_SHARE
    for _ in range(num_clutter):
        others = rng.permutation(count)
        top, left = (int(rng.integers(size - piece + 1)) for size in (height, width))
        pieces = images[others, :, top : top + piece, left : left + piece]
        _lay(pieces, canvases, rng)
    if is_centered:
        top, left = (side - height) // 2, (side - width) // 2
        middle = canvases[:, :, top : top + height, left : left + width]
        np.maximum(middle, images, out=middle)
    else:
        _lay(images, canvases, rng)
    return canvases


def _lay(objects: np.ndarray, canvases: np.ndarray, rng: np.random.Generator) -> None:
    """Draw each of the objects (N, C, h, w) at a random place on its canvas, in place."""
    count, channels, height, width = objects.shape
    tops = rng.integers(canvases.shape[2] - height + 1, size=count)
    lefts = rng.integers(canvases.shape[3] - width + 1, size=count)
    for start in range(0, count, CHUNK):
        some = np.arange(start, min(start + CHUNK, count))
        place = (
            some[:, None, None, None],
            np.arange(channels)[:, None, None],
            (tops[some][:, None] + np.arange(height))[:, None, :, None],
            (lefts[some][:, None] + np.arange(width))[:, None, None, :],
        )
        canvases[place] = np.maximum(canvases[place], objects[some])


def _mean_std(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of values scaled to 0..1."""
    if images.dtype != np.uint8:
        moments = Moments(images[0])
        for start in range(0, len(images), CHUNK):
            moments.add(images[start : start + CHUNK])
        of_floats = moments.mean_std()
        return tuple(of_floats[0]), tuple(of_floats[1])
    values = np.arange(256) / 255
    mean, std = [], []
    for channel in range(images.shape[1]):
        shares = np.bincount(images[:, channel].ravel(), minlength=256) / images[:, channel].size
        mean.append(float(shares @ values))
        std.append(float((shares @ values**2 - mean[-1] ** 2) ** 0.5))
    return tuple(mean), tuple(std)


def border_brightness(image_set: ImageSet, count: int = 1000) -> float:
    """Mean of the outermost pixels of some train images, 0..1: 0 means a black background."""
    some = image_set.train_images[:count]
    edges = [some[:, :, 0], some[:, :, -1], some[:, :, :, 0], some[:, :, :, -1]]
    return float(np.mean([edge.mean() for edge in edges]) / 255)
