"""What convolution and pooling share: a sliding window, and why it may not fit."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from convscape.geometry.kinds import Layer
from convscape.geometry.window import (
    InfeasibleGeometry,
    Padding,
    Pair,
    Window,
    as_pair,
    by,
    format_padding,
    format_size,
    formula,
    num_outputs,
    pad_amounts,
)

if TYPE_CHECKING:
    from convscape.geometry.window import Shape


class Sliding(Layer):
    """What convolution and pooling have in common: a window that slides over maps.

    - `noun`: what the window is called in messages.
    - `pads_at_most_half`: whether padding may be at most half the window, as in torch's pooling.
    """

    takes = "maps"
    kernel_size: Pair
    stride: Pair
    padding: Padding
    dilation: Pair = (1, 1)
    ceil_mode: bool = False
    noun: str = "kernel"
    pads_at_most_half: ClassVar[bool] = False

    @property
    def window_size(self) -> Pair:
        """The size that the window reads; larger than `kernel_size` if another step comes first."""
        return self.kernel_size

    @property
    def default_stride(self) -> Pair:
        """The stride that descriptions leave out."""
        return 1, 1

    @cached_property
    def windows(self) -> tuple[Window, Window]:
        """The windows along height and width."""
        return self._along(0), self._along(1)

    def _along(self, axis: int) -> Window:
        padding = self.padding if isinstance(self.padding, str) else self.padding[axis]
        size, stride, dilation = self.window_size[axis], self.stride[axis], self.dilation[axis]
        return Window(size, stride, padding, dilation, self.ceil_mode)

    def wrong_channels(self, in_channels: int) -> str | None:
        """What is wrong with this number of input channels, if anything."""
        return None

    def key_of(self, field: str, is_of_block: bool) -> str:
        """The key of a field in the config: of a single layer, or of a CNN's block."""
        return field

    @property
    def can_be_left_out(self) -> bool:
        """Whether the config has a word for leaving it out."""
        return False

    @property
    def is_plain(self) -> bool:
        """Whether all its keys are at their defaults, so that it can be left out."""
        return True

    def bounds(self, field: str, axis: int) -> tuple[int, int, int]:
        """The smallest value of a size, the smallest with its padding, and the current one."""
        window = self.windows[axis]
        wider = window.kernel_size - self.kernel_size[axis]  # than what was typed: "blur", "aps"
        padding = window.padding if isinstance(window.padding, int) else 0
        if field == "padding":
            return 0, 0, min(padding, window.kernel_size // 2)
        lowest = 2 * padding - wider if self.pads_at_most_half else 1
        return 1, max(1, lowest), self.kernel_size[axis]

    def fault_along(self, axis: int, size: int) -> Literal["half", "circular", "window"] | None:
        """What is wrong with its window on `size` pixels, by torch's rules."""
        window = self.windows[axis]
        explicit = 0 if isinstance(window.padding, str) else window.padding
        if self.pads_at_most_half and 2 * explicit > window.kernel_size:
            return "half"
        if window.padding == "circular" and max(pad_amounts(size, window)) > size:
            return "circular"
        return "window" if num_outputs(size, window) < 1 else None

    def faults(self, input_shape: Shape, is_of_block: bool = False) -> list[str]:
        """The reasons why it cannot take an input (C, H, W), one phrase each."""
        found = [self.wrong_channels(input_shape[0])]
        size = as_pair(input_shape[1:])
        axis = next((axis for axis in range(2) if self.fault_along(axis, size[axis])), None)
        found += [] if axis is None else [_fault_in_words(self, size, axis, is_of_block)]
        return [fault for fault in found if fault is not None]

    def output_sizes(self, name: str, input_shape: Shape) -> Pair:
        """The output (H, W) for an input (C, H, W).

        Raises:
            InfeasibleGeometry: with one sentence: which window does not fit which input, and why.
        """
        if faults := self.faults(input_shape, is_of_block(name)):
            raise InfeasibleGeometry(f"{place_of(name)}: {'; besides, '.join(faults)}")
        return as_pair(num_outputs(input_shape[1 + a], self.windows[a]) for a in range(2))

    def describe(self) -> str:
        words = [f"{super().describe()} {by(self.kernel_size)}"]
        if self.stride != self.default_stride:
            words.append(f"stride {format_size(self.stride)}")
        if self.padding != "valid":
            words.append(_padding_in_words(self.padding))
        if self.dilation != (1, 1):
            words.append(f"dilation {format_size(self.dilation)}")
        return ", ".join(words)

    def remarks(self, name: str) -> list[str]:
        if all(window.stride <= window.extent for window in self.windows):
            return []
        return [
            f"{place_of(name)}: the stride is larger than the window, so some pixels are never read"
        ]


def _fault_in_words(layer: Sliding, size: Pair, axis: int, is_of_block: bool) -> str:
    match layer.fault_along(axis, size[axis]):
        case "half":
            return (
                f"{layer.key_of('padding', is_of_block)} {format_padding(layer.padding)} is more "
                f"than half of its {by(layer.kernel_size)} window, so a window could hold "
                "nothing but padding"
            )
        case "circular":
            return (
                f"circular padding of a {by(layer.kernel_size)} window goes around its "
                f"{by(size)} input more than once"
            )
    return (
        f"a {_window_in_words(layer)} does not fit its {by(size)} input "
        f"({_padding_in_words(layer.padding)}: {formula(size[axis], layer.windows[axis])})"
    )


def _window_in_words(layer: Sliding) -> str:
    stride = f" at stride {format_size(layer.stride)}" if max(layer.stride) > 1 else ""
    spread = f", dilation {format_size(layer.dilation)}" if max(layer.dilation) > 1 else ""
    return f"{by(layer.kernel_size)} {layer.noun}{stride}{spread}"


def _padding_in_words(padding: Padding) -> str:
    return padding if isinstance(padding, str) else f"padding {format_size(padding)}"


def is_of_block(name: str) -> bool:
    """Whether it is like block3.pool, with keys such as pool_size, and not like pool3."""
    return name.startswith("block")


def place_of(name: str) -> str:
    """The place in plain words: block3.conv is "block 3", block3.pool is "block 3 pool"."""
    if not is_of_block(name):
        return f"layer {name}"
    block, _, part = name.partition(".")
    words = f"block {block.removeprefix('block')}"
    return words if part in ("", "conv") else f"{words} {part}"
