"""Sliding-window arithmetic along one axis, and sizes and paddings as people write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from convscape.base.errors import ConfigError
from convscape.base.values import MAX_INTEGER

Pair = tuple[int, int]
Shape = tuple[int, ...]
NamedPadding = Literal["valid", "same", "circular"]
OutputLayer = Literal["dense", "none"]
Padding = NamedPadding | Pair


class InfeasibleGeometry(ConfigError):
    """A window does not fit its input, or groups do not divide the channels."""


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pooling window; an int `padding` is the pixels on each side."""

    kernel_size: int
    stride: int = 1
    padding: int | NamedPadding = "valid"
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def extent(self) -> int:
        """Pixels from the first to the last that the window reads, inclusive."""
        return self.dilation * (self.kernel_size - 1) + 1


def same_padding(size: int, window: Window) -> Pair:
    """Padding (before, after) with which `window` gives ceil(size / stride) outputs.

    The odd pixel goes after (bottom, right), as in TensorFlow, Keras and JAX:
    https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    outputs = -(-size // window.stride)
    total = max((outputs - 1) * window.stride + window.extent - size, 0)
    return total // 2, total - total // 2


def pad_amounts(size: int, window: Window) -> Pair:
    """Padding (before, after) in pixels along an axis of `size` pixels.

    "circular" pads as much as "same", with pixels from the opposite edge.
    """
    if window.padding in ("same", "circular"):
        return same_padding(size, window)
    amount = 0 if isinstance(window.padding, str) else window.padding
    return amount, amount


def output_size(size: int, window: Window) -> int:
    """Outputs along one axis after sliding `window` over `size` pixels.

    Floor rounding as torch.nn.Conv2d; with `ceil_mode` as torch.nn.MaxPool2d, whose last window
    may reach beyond the padded input, and is dropped if it would start in the padding after it:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    Raises:
        InfeasibleGeometry: if no window fits.
    """
    outputs = num_outputs(size, window)
    if outputs < 1:
        raise InfeasibleGeometry(formula(size, window))
    return outputs


def num_outputs(size: int, window: Window) -> int:
    before, after = pad_amounts(size, window)
    room = size + before + after - window.extent
    steps = -(-room // window.stride) if window.ceil_mode else room // window.stride
    if window.ceil_mode and steps * window.stride >= size + before:
        steps -= 1
    return steps + 1


def formula(size: int, window: Window) -> str:
    padding = sum(pad_amounts(size, window))
    padded = f"{size}+{padding}" if padding else f"{size}"
    spread = f"{window.dilation}*({window.kernel_size}-1)-1"
    extent = window.kernel_size if window.dilation == 1 else spread
    rounded = "ceil" if window.ceil_mode else "floor"
    return f"{rounded}(({padded}-{extent})/{window.stride})+1 = {num_outputs(size, window)}"


def parse_size(value: Any, minimum: int = 1) -> Pair:
    """Read `3` or `"3x5"` (height x width) as a pair.

    Raises:
        ValueError: if it is neither, or an entry is below `minimum`.
    """
    parts = value.lower().split("x") if isinstance(value, str) else [value]
    try:
        numbers = [int(part) if isinstance(part, str) else part for part in parts]
    except ValueError:
        numbers = []
    if not all(type(number) is int for number in numbers) or len(numbers) not in (1, 2):
        raise ValueError(f"{value!r} is not a size; allowed: an integer or HxW, such as 3 or 3x5")
    if min(numbers) < minimum:
        raise ValueError(f"{value!r} is too small; allowed: {minimum} or more")
    if max(numbers) > MAX_INTEGER:
        raise ValueError(f"{value!r} is too large; allowed: up to {MAX_INTEGER}")
    return numbers[0], numbers[-1]


def parse_optional_size(value: Any) -> Pair | None:
    """As `parse_size`, but None stays None; its key says what that means."""
    return None if value is None else parse_size(value)


def parse_padding(value: Any) -> Padding:
    """Read `valid`, `same`, `circular`, `1` or `"0x2"` (pixels on each side, height x width).

    Raises:
        ValueError: if it is none of these.
    """
    for name in get_args(NamedPadding):
        if isinstance(value, str) and value.lower() == name:
            return name
    try:
        return parse_size(value, minimum=0)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a padding; allowed: valid, same, circular, an integer of 0 or more, "
            "or HxW such as 0x2"
        ) from None


def as_pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second


def by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def format_size(size: Pair) -> str:
    """`3x3` and `3x5` as a person writes them: `3`, `3x5`."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def format_padding(padding: Padding) -> str:
    """`valid`, `same`, `1` or `0x2`."""
    return padding if isinstance(padding, str) else format_size(padding)
