"""How a picture is turned into an input as the data set was made: for `static/fit.js`."""

from __future__ import annotations

from typing import Any

import numpy as np

from convscape.base.errors import ConfigError
from convscape.data.datasets import DATASET_INFO, target_shape
from convscape.data.variants import pixel_order
from convscape.trained.load import TrainedRun

# MNIST, http://yann.lecun.com/exdb/mnist/: "size normalized to fit in a 20x20 pixel box while
# preserving their aspect ratio", grey by anti-aliasing, and "centered in a 28x28 image by computing
# the center of mass of the pixels". The longer side of all but 13 of the 60,000 train images is 20,
# and their centre of mass lies in pixel 14 of both axes. `strokes`: the 5 % and 95 % quantiles of
# the train images' `thickness` in fit.js, in pixels.
MNIST = {
    "kind": "framed",
    "words": "fitted into 20x20, centred by mass in 28x28",
    "frame": [28, 28],
    "box": 20,
    "center": "mass",
    "strokes": [1.63, 3.58],
}
# Fashion-MNIST, https://arxiv.org/abs/1708.07747, section 2: trimmed, the longer side 28, centred.
FASHION = {
    "kind": "framed",
    "words": "trimmed, and its longer side made 28 pixels",
    "frame": [28, 28],
    "box": 28,
    "center": "box",
    "strokes": None,
}
# scikit-learn's digits, https://archive.ics.uci.edu/dataset/80: bitmaps of 32x32 by NIST's
# programs, counted in blocks of 4x4. These (hsfsys, normaliz.c and shear.c) fit a digit into 20x32,
# change its strokes if it has too few or too many pixels, and shear it upright. `strokes`: the 5 %
# and 95 % quantiles of the sums of the 1,797 images.
DIGITS = {
    "kind": "bitmap",
    "words": "fitted into a 32x32 bitmap, sheared upright, counted in 4x4 blocks",
    "frame": [32, 32],
    "box": [32, 20],
    "block": 4,
    "strokes": [261, 368],
}
PLAIN = {"kind": "plain", "words": "cut to the network's ratio and scaled, as predict does"}
WAYS = {"mnist": MNIST, "fashion_mnist": FASHION, "digits": DIGITS}

EVEN_LEVELS = 20  # borders that vary by less, out of 255, count as one background
MAX_LOOKED_AT = 500  # train images


def facts(run: TrainedRun) -> dict[str, Any]:
    """Plain values for the page: "kind", and what that kind needs.

    - "base": (C, H, W) of an image of the data set, before the run laid it on its "canvas" (side in
      pixels, or None) and gave its pixels another "order" (or None).
    - "brightness": mean of the training images, 0..1; "ground": their border, 0..255 per channel.
    - "pictures": whether the network can take a picture: it has one channel or three.
    """
    data = run.config.data
    change = data.change
    channels, height, width = run.image_shape
    has_canvas = change.canvas is not None and data.name in DATASET_INFO
    base = [channels, height, width]
    if has_canvas:
        base = list(target_shape(data.name, data.image_size, data.channels))
    order = None
    if change.permute is not None:
        order = pixel_order(change.permute, height * width).tolist()
    return {
        **WAYS.get(data.name, PLAIN),
        "pictures": channels in (1, 3),
        "base": base,
        "canvas": change.canvas if has_canvas else None,
        "order": order,
        "brightness": run.brightness,
        "ground": [0] * channels if order is not None else _ground(run),
    }


def _ground(run: TrainedRun) -> list[int]:
    """The background of the training images, 0..255 per channel.

    Black if it varies, or if the data are missing.
    """
    try:
        some = np.asarray(run.image_set.train_images[:MAX_LOOKED_AT], np.float32)
    except ConfigError:
        return [0] * run.image_shape[0]
    edges = np.concatenate(
        [some[:, :, 0], some[:, :, -1], some[:, :, :, 0], some[:, :, :, -1]], axis=2
    )
    levels, spread = np.median(edges, (0, 2)), np.std(edges, (0, 2))
    return [int(np.clip(level, 0, 255)) for level in np.where(spread < EVEN_LEVELS, levels, 0)]
