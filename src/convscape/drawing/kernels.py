"""Classic kernels by name, and a window that slides over a matrix, one position at a time.

The arithmetic is written out in NumPy so that it can be read; tests compare it with torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from convscape import geometry
from convscape.base.errors import ConfigError
from convscape.base.values import hint
from convscape.geometry.kinds import NamedLayer
from convscape.geometry.layers import Conv, Pool
from convscape.geometry.window import Pair

T = TypeVar("T")

# Kernels designed by hand for photographs, before networks learned their own; see Gonzalez and
# Woods, "Digital Image Processing", chapter 3.
KERNELS: dict[str, np.ndarray] = {
    name: np.array(rows, float) / divisor
    for name, rows, divisor in (
        ("identity", [[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1),
        ("edge_detection", [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], 1),
        ("sharpen", [[0, -1, 0], [-1, 5, -1], [0, -1, 0]], 1),
        ("box_blur", [[1, 1, 1], [1, 1, 1], [1, 1, 1]], 9),
        ("gaussian_blur", [[1, 2, 1], [2, 4, 2], [1, 2, 1]], 16),
        ("emboss", [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], 1),
        ("sobel_x", [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 1),
        ("sobel_y", [[-1, -2, -1], [0, 0, 0], [1, 2, 1]], 1),
        ("laplacian", [[0, 1, 0], [1, -4, 1], [0, 1, 0]], 1),
    )
}


def parse_matrix(text: str) -> np.ndarray:
    """Read "0 -1 0; -1 5 -1; 0 -1 0": rows end with a semicolon, numbers with a space or comma.

    Raises:
        ConfigError: if it is not rectangular or holds anything but finite numbers.
    """
    rows = [row.replace(",", " ").split() for row in text.strip().strip(";").split(";")]
    lengths = [len(row) for row in rows]
    if min(lengths) == 0 or min(lengths) != max(lengths):
        raise ConfigError(
            f"{text!r} is not a matrix: its rows have {', '.join(map(str, lengths))} entries; "
            'allowed: rows of equal length, as in "0 -1 0; -1 5 -1; 0 -1 0"'
        )
    try:
        matrix = np.array([[_number(entry) for entry in row] for row in rows])
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a matrix: {error}; allowed: numbers") from None
    return matrix


def _number(entry: str) -> float:
    top, _, bottom = entry.partition("/")  # 1/9 is easier to read than 0.1111
    try:
        value = float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{entry!r} is not a number")
    return value


def parse_kernel(text: str) -> np.ndarray:
    """A kernel by name, or a matrix.

    Raises:
        ConfigError: if it is neither.
    """
    name = text.strip().lower().replace(" ", "_").replace("-", "_")
    if name in KERNELS:
        return KERNELS[name]
    if not any(letter.isdigit() for letter in text):
        raise ConfigError(
            f"there is no kernel {text!r}; allowed: {', '.join(KERNELS)}, or a matrix such as "
            f'"0 -1 0; -1 5 -1; 0 -1 0"{hint(name, KERNELS)}'
        )
    return parse_matrix(text)


def conv_layer(kernel: np.ndarray, stride: str, padding: str, dilation: str) -> Conv:
    """A convolution of one channel, from what the user typed.

    Raises:
        ConfigError: if a size does not parse.
    """
    height, width = kernel.shape
    return Conv(
        1,
        (height, width),
        _parsed("stride", geometry.parse_size, stride),
        _parsed("padding", _parse_padding, padding),
        _parsed("dilation", geometry.parse_size, dilation),
        bias=False,
    )


def pool_layer(kind: str, size: str, stride: str | None, padding: str) -> Pool:
    """A pooling window, from what the user typed; by default it moves by its own size.

    Raises:
        ConfigError: if a size does not parse.
    """
    window = _parsed("size", geometry.parse_size, size)
    step = window if stride is None else _parsed("stride", geometry.parse_size, stride)
    return Pool(
        "max" if kind == "max" else "avg",
        window,
        step,
        _parsed("padding", _parse_padding, padding),
    )


def _parse_padding(text: str) -> geometry.Padding:
    padding = geometry.parse_padding(text)
    if padding == "circular":
        raise ValueError("'circular' cannot be shown; allowed: valid, same, 1, or 0x2")
    return padding


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"--{option}: {error}") from None


@dataclass(frozen=True)
class Step:
    """One position of the window: the output (row, column) and everything it is computed from.

    - `values`: what the window reads (h, w), padding included.
    - `is_padding`: which of them lie outside the matrix (h, w).
    - `weights`: the kernel (h, w); None for pooling.
    - `result`: the output at this position.
    """

    row: int
    column: int
    values: np.ndarray
    is_padding: np.ndarray
    weights: np.ndarray | None
    result: float

    def in_words(self) -> str:
        """The sum, the maximum or the mean written out, row by row: "9*0 + 4*2 + ... = 16"."""
        if self.weights is not None:
            pairs = zip(self.values.flat, self.weights.flat, strict=True)
            terms = [f"{shown(value)}*{shown(weight)}" for value, weight in pairs]
            return f"{' + '.join(terms)} = {shown(self.result)}"
        inside = [shown(value) for value in self.values[~self.is_padding]]
        return f"{', '.join(inside)}: {shown(self.result)}"


@dataclass(frozen=True)
class SlidingWindow:
    """A matrix (H, W) and a convolution or pooling window that slides over it.

    - `layer`: its size, stride, padding and dilation.
    - `kernel`: the weights (h, w) of a convolution; None for pooling.

    What deep-learning libraries call convolution is cross-correlation: the kernel is laid on the
    matrix as it is. True convolution rotates it by 180 degrees first: `flipped`.

    Raises:
        InfeasibleGeometry: if the window does not fit.
    """

    matrix: np.ndarray
    layer: Conv | Pool
    kernel: np.ndarray | None = None

    def __post_init__(self) -> None:
        self.output_shape  # noqa: B018  raises if the window does not fit

    @property
    def flipped(self) -> SlidingWindow:
        """The same film with true convolution."""
        assert self.kernel is not None
        return replace(self, kernel=self.kernel[::-1, ::-1])

    @cached_property
    def output_shape(self) -> Pair:
        """Rows and columns of the output."""
        plan = geometry.plan_layers([NamedLayer("window", self.layer)], (1, *self.matrix.shape))
        _, height, width = plan.layers[0].output_shape
        return height, width

    @cached_property
    def pads(self) -> tuple[Pair, Pair]:
        """Padding (top, bottom) and (left, right)."""
        windows = self.layer.windows
        height, width = self.matrix.shape
        return geometry.pad_amounts(height, windows[0]), geometry.pad_amounts(width, windows[1])

    @property
    def dilation(self) -> Pair:
        """Pixels from one entry of the window to the next."""
        return self.layer.dilation if isinstance(self.layer, Conv) else (1, 1)

    def places(self, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows (h,) and columns (w,) of the matrix under the window; others are padding."""
        starts = (
            index * stride - pads[0]
            for index, stride, pads in zip((row, column), self.layer.stride, self.pads, strict=True)
        )
        rows, columns = (
            start + dilation * np.arange(size)
            for start, dilation, size in zip(
                starts, self.dilation, self.layer.kernel_size, strict=True
            )
        )
        return rows, columns

    def step(self, row: int, column: int) -> Step:
        """The computation of the output at (row, column)."""
        rows, columns = self.places(row, column)
        height, width = self.matrix.shape
        inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
        values = np.zeros(inside.shape)
        values[inside] = self.matrix[np.clip(rows, 0, height - 1)][
            :, np.clip(columns, 0, width - 1)
        ][inside]
        if self.kernel is not None:
            result = (values * self.kernel).sum()
        else:
            known = values[inside]
            result = known.max() if self.is_max else known.mean()
        return Step(row, column, values, ~inside, self.kernel, float(result))

    @property
    def is_max(self) -> bool:
        """Whether it takes the largest value of each window."""
        return isinstance(self.layer, Pool) and self.layer.kind == "max"

    def steps(self) -> Iterator[Step]:
        """All positions, row by row."""
        height, width = self.output_shape
        return (self.step(row, column) for row in range(height) for column in range(width))

    @cached_property
    def output(self) -> np.ndarray:
        """The whole output (H', W'): the sum of shifted matrices, each times its weight."""
        if self.kernel is None:
            return np.array([step.result for step in self.steps()]).reshape(self.output_shape)
        (top, bottom), (left, right) = self.pads
        padded = np.pad(self.matrix, ((top, bottom), (left, right)))
        height, width = self.output_shape
        down, along = self.layer.stride
        result = np.zeros((height, width))
        for (i, j), weight in np.ndenumerate(self.kernel):
            y, x = i * self.dilation[0], j * self.dilation[1]
            shifted = padded[y : y + (height - 1) * down + 1 : down]
            result += weight * shifted[:, x : x + (width - 1) * along + 1 : along]
        return result


def filtered(
    image: np.ndarray, kernel: np.ndarray, layer: Conv, *, flipped: bool, signed: bool
) -> np.ndarray:
    """An image (C, H, W) uint8 filtered with a kernel, channel by channel: uint8 (C, H', W').

    - `flipped`: true convolution instead of cross-correlation.
    - `signed`: grey stands for 0, so that negative values show; otherwise they become black.

    Raises:
        InfeasibleGeometry: if the window does not fit.
    """
    weights = kernel[::-1, ::-1] if flipped else kernel
    maps = np.stack([SlidingWindow(channel, layer, weights).output for channel in image / 255])
    if signed:
        maps = maps / (2 * max(np.abs(maps).max(), 1e-12)) + 0.5
    return (maps.clip(0, 1) * 255).round().astype(np.uint8)


def designed_filters(count: int, size: Pair) -> np.ndarray:
    """Filters (count, h, w) of the kind designed before they were learned; each has norm 1.

    Blur, Laplacian, and Gabor's edges and lines (Daugman 1985, doi 10.1364/JOSAA.2.001160) in
    sixteen directions, with both bright and dark lines; if `count` is larger, these are repeated
    at twice the wavelength. If it is smaller, filters are taken evenly from these.
    """
    height, width = size
    y = (np.arange(height) - (height - 1) / 2)[:, None]
    x = np.arange(width) - (width - 1) / 2
    spread = max(height, width) / 4
    bell = np.exp(-(x**2 + y**2) / (2 * spread**2))
    bank: list[np.ndarray] = [bell, (x**2 + y**2 - 2 * spread**2) * bell]
    wavelength = float(max(height, width))
    while len(bank) < count or len(bank) == 2:
        for direction in np.arange(16) * np.pi / 8:
            phase = 2 * np.pi * (x * np.cos(direction) + y * np.sin(direction)) / wavelength
            sign = 1 if direction < np.pi else -1
            bank += [np.sin(phase) * bell, sign * (np.cos(phase) * bell)]
        wavelength *= 2
    for place, kernel in enumerate(bank):
        if place and kernel.size > 1:
            kernel = kernel - kernel.mean()  # all except the blur give 0 on a plain area
        bank[place] = kernel / max(np.linalg.norm(kernel), 1e-12)
    chosen = np.linspace(0, len(bank) - 1, count).round().astype(int)
    return np.stack([bank[place] for place in chosen])


def shown(value: float) -> str:
    """A number as people write it: at most three decimals, and none for a whole number."""
    text = f"{value:.3f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
