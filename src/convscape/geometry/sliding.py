"""What convolution and pooling share: a window that slides, why it may not fit, and what would."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

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
    """What a convolution and a pooling have in common: a window that slides over maps.

    - `noun`: what the window is called in messages.
    - `pads_at_most_half`: of the window, as torch has it for pooling.
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
        """What the window reads; more than `kernel_size` where something is done before."""
        return self.kernel_size

    @property
    def default_stride(self) -> Pair:
        """The stride of which nothing needs to be said."""
        return 1, 1

    @property
    def windows(self) -> tuple[Window, Window]:
        """The windows along height and width."""
        return self._along(0), self._along(1)

    def _along(self, axis: int) -> Window:
        padding = self.padding if isinstance(self.padding, str) else self.padding[axis]
        size, stride, dilation = self.window_size[axis], self.stride[axis], self.dilation[axis]
        return Window(size, stride, padding, dilation, self.ceil_mode)

    def changed(self, **changes: Any) -> Self:
        """The same with other values."""
        return replace(self, **changes)  # type: ignore[type-var]

    def wrong_channels(self, in_channels: int) -> str | None:
        """What is wrong with so many input channels, and what would do."""
        return None

    def key_of(self, field: str, is_of_block: bool) -> str:
        """What a field is called in the config: of one layer, or of a block of a CNN."""
        return field

    def alternatives(self, size: Pair, is_of_block: bool) -> list[tuple[str, Self | None]]:
        """What might fit an input of `size` instead, as it is typed; None is nothing at all."""
        return []

    def output_sizes(self, name: str, input_shape: Shape) -> Pair:
        """What (H, W) it makes of an input (C, H, W).

        Raises:
            InfeasibleGeometry: in one sentence which window does not fit which input, why, and what
                would.
        """
        size, is_of_block = as_pair(input_shape[1:]), _is_of_block(name)
        wrong_channels = self.wrong_channels(input_shape[0])
        faults = [wrong_channels] if wrong_channels else []
        try:
            sizes = as_pair(_axis_output(self, size, axis, is_of_block) for axis in range(2))
        except InfeasibleGeometry as error:
            remedies = list(_remedies(self, size, is_of_block))
            if is_of_block and not name.startswith("block1."):
                remedies.append("fewer blocks")
            faults.append(f"{error}; {either(remedies)} would" if remedies else str(error))
        if faults:
            raise InfeasibleGeometry(f"{place_of(name)}: {'; besides, '.join(faults)}")
        return sizes

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
            f"{place_of(name)}: the stride is larger than the window, some pixels are never read"
        ]


def _axis_output(layer: Sliding, size: Pair, axis: int, is_of_block: bool) -> int:
    window = layer.windows[axis]
    match _fault(layer, window, size[axis]):
        case None:
            return num_outputs(size[axis], window)
        case "half":
            raise InfeasibleGeometry(
                f"{layer.key_of('padding', is_of_block)} {format_padding(layer.padding)} is more "
                f"than half of its {by(layer.kernel_size)} window, which could then hold padding "
                "alone"
            )
        case "circular":
            raise InfeasibleGeometry(
                f"circular padding of a {by(layer.kernel_size)} window goes around its "
                f"{by(size)} input more than once"
            )
    raise InfeasibleGeometry(
        f"a {_window_in_words(layer)} does not fit its {by(size)} input "
        f"({_padding_in_words(layer.padding)}: {formula(size[axis], window)})"
    )


def _fault(
    layer: Sliding, window: Window, size: int
) -> Literal["half", "circular", "window"] | None:
    """What is wrong with one `window` of `layer` on `size` pixels, as torch would refuse it."""
    explicit = 0 if isinstance(window.padding, str) else window.padding
    if layer.pads_at_most_half and 2 * explicit > window.kernel_size:
        return "half"
    if window.padding == "circular" and max(pad_amounts(size, window)) > size:
        return "circular"
    return "window" if num_outputs(size, window) < 1 else None


def _window_in_words(layer: Sliding) -> str:
    stride = f" at stride {format_size(layer.stride)}" if max(layer.stride) > 1 else ""
    spread = f", dilation {format_size(layer.dilation)}" if max(layer.dilation) > 1 else ""
    return f"{by(layer.kernel_size)} {layer.noun}{stride}{spread}"


@lru_cache(maxsize=4096)  # many runs of a sweep have the same misfit
def _remedies(layer: Sliding, size: Pair, is_of_block: bool) -> tuple[str, ...]:
    """Changes of one key with which an impossible layer is possible; each of them was tried."""
    found = []
    if (largest := _largest_size(layer, size)) is not None:
        sign = " <= " if fits(_resized(layer, (1, 1)), size) else "="
        found.append(f"{layer.key_of('kernel_size', is_of_block)}{sign}{format_size(largest)}")
    changes: list[tuple[str, Sliding | None]] = [
        *layer.alternatives(size, is_of_block),
        (f"{layer.key_of('stride', is_of_block)}=1", layer.changed(stride=(1, 1))),
        (f"{layer.key_of('padding', is_of_block)}=same", layer.changed(padding="same")),
    ]
    found += [words for words, changed in changes if changed and fits([changed], size)]
    return *found, *(words for words, changed in changes if changed is None)


def _largest_size(layer: Sliding, size: Pair) -> Pair | None:
    """The largest window that fits; where its padding asks for a larger one, the smallest."""
    largest = list(layer.kernel_size)
    for axis, window in enumerate(layer.windows):
        wider = window.kernel_size - layer.kernel_size[axis]  # than what is typed: "blur", "aps"
        padding = window.padding if isinstance(window.padding, int) else 0
        fitting, too_large = max(1, 2 * padding - wider), layer.kernel_size[axis] + 1
        while fitting < too_large - 1:
            largest[axis] = (fitting + too_large) // 2
            if fits(_resized(layer, as_pair(largest)), size, [axis]):
                fitting = largest[axis]
            else:
                too_large = largest[axis]
        largest[axis] = fitting
    return as_pair(largest) if fits(_resized(layer, as_pair(largest)), size) else None


def _resized(layer: Sliding, kernel_size: Pair) -> list[Sliding]:
    """The layer with another window; its stride follows, if none was typed."""
    resized = layer.changed(kernel_size=kernel_size)
    if layer.stride != layer.default_stride or resized.stride == resized.default_stride:
        return [resized]
    return [resized, resized.changed(stride=resized.default_stride)]


def fits(layers: Iterable[Sliding], size: Pair, axes: Sequence[int] = (0, 1)) -> bool:
    return all(
        _fault(layer, layer.windows[axis], size[axis]) is None for layer in layers for axis in axes
    )


def _padding_in_words(padding: Padding) -> str:
    return padding if isinstance(padding, str) else f"padding {format_size(padding)}"


def _is_of_block(name: str) -> bool:
    """Whether it is block3.pool, whose keys are pool_size and the like, and not pool3."""
    return name.startswith("block")


def place_of(name: str) -> str:
    """As a person says it: block3.conv is "block 3", block3.pool is "block 3 pool"."""
    block, _, part = name.partition(".")
    words = f"block {block.removeprefix('block')}" if _is_of_block(name) else f"layer {block}"
    return words if part in ("", "conv") else f"{words} {part}"


def either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"
