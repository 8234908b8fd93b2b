"""Values of any range as pixels of 0 to 255, which everything after the data takes. No torch."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Stretch(NamedTuple):
    """How the values of a data set became pixels: (value - offset) * factor, as float32.

    It is fitted to the whole train split: 0 is its smallest value and 255 its largest; test images
    and later ones may reach beyond.
    """

    offset: float
    factor: float

    @classmethod
    def of(cls, images: np.ndarray) -> Stretch:
        """The stretch that maps the values of `images` to 0..255."""
        low, high = float(images.min()), float(images.max())
        return cls(low, 255 / (high - low) if high > low else 1.0)

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """The values (...) as float32 pixels (...)."""
        # float64 in between: float32 would lose small differences of large values
        return ((values.astype(np.float64) - self.offset) * self.factor).astype(np.float32)

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """The values that the pixels (...) came from, as float64."""
        return pixels / self.factor + self.offset

    def __str__(self) -> str:
        return f"values of {self.offset:g} to {self.offset + 255 / self.factor:g} as 0 to 255"
