"""A page with a window that slides over a matrix: play it, change stride, padding and kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from convscape.drawing.kernels import KERNELS, SlidingWindow
from convscape.geometry.layers import Conv
from convscape.living.page import rendered, write


def write_film(window: SlidingWindow, path: Path, frames_per_second: float = 1) -> None:
    """Write the page, one offline HTML file.

    Raises:
        CannotWrite: if it cannot be written.
    """
    values = film(window, frames_per_second)
    write(rendered("film", values, ("engine", "film"), ("page", "film")), path)


def film(window: SlidingWindow, frames_per_second: float) -> dict[str, Any]:
    """What the page begins with, as plain values."""
    layer = window.layer
    return {
        "title": "A window slides over a matrix",
        "matrix": window.matrix.tolist(),
        "kernel": None if window.kernel is None else window.kernel.tolist(),
        "kind": "conv" if isinstance(layer, Conv) else layer.kind,
        "kernel_size": list(layer.kernel_size),
        "stride": list(layer.stride),
        "dilation": list(window.dilation),
        "padding": layer.padding if isinstance(layer.padding, str) else list(layer.padding),
        "kernels": {name: kernel.tolist() for name, kernel in KERNELS.items()},
        "frames_per_second": frames_per_second,
    }
