"""Mean and standard deviation of a split's pixels, accumulated chunk by chunk. No torch."""

from __future__ import annotations

import math

import numpy as np


class Moments:
    """Sums per channel of the pixels and of their squares.

    For bytes they are whole numbers, so exact. For floats the first pixel of each channel is
    subtracted first, so that a constant channel has a deviation of exactly 0.
    """

    def __init__(self, first: np.ndarray) -> None:
        """`first`: an image (C, H, W)."""
        self.is_exact = first.dtype == np.uint8
        kind = np.int64 if self.is_exact else np.float64
        self.num_values = 0  # per channel
        self.sums = self.squares = np.zeros(len(first), dtype=kind)
        origins = np.zeros(len(first)) if self.is_exact else first[:, 0, 0]
        self.origins: list[float] = origins.tolist()

    def add(self, images: np.ndarray) -> None:
        """Count images (n, C, H, W)."""
        self.num_values += images.size // images.shape[1]
        if self.is_exact:
            self.sums = self.sums + images.sum(axis=(0, 2, 3), dtype=np.int64)
            # 255 squared fits 16 bits
            squared = np.square(images, dtype=np.uint16)
            self.squares = self.squares + squared.sum(axis=(0, 2, 3), dtype=np.int64)
            return
        values = images - np.array(self.origins).reshape(-1, 1, 1)
        self.sums = self.sums + values.sum(axis=(0, 2, 3))
        self.squares = self.squares + np.square(values).sum(axis=(0, 2, 3))

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, of pixels scaled to 0..1."""
        n = self.num_values
        pairs = list(zip(self.sums.tolist(), self.squares.tolist(), strict=True))
        mean = [(s / n + origin) / 255 for (s, _), origin in zip(pairs, self.origins, strict=True)]
        variances = [max(0, n * s2 - s * s) for s, s2 in pairs]
        return mean, [math.sqrt(variance) / n / 255 for variance in variances]
