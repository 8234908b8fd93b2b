"""The arithmetic of sliding windows, and the layer-by-layer plan of a network. Needs no torch.

A network is a list of named layers (`Conv`, `Pool`, `Dense`, ...); each knows its keys, its output
shape, its cost and its words. `cnn_layers` and `mlp_layers` write that list from the knobs of a
config; `plan_layers` walks it and says for every layer the output shape, parameters, MACs and
receptive field, or raises `InfeasibleGeometry`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from math import gcd, prod
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypedDict, get_args

from convscape.errors import ConfigError
from convscape.values import LARGEST, boolean, integer, one_of, probability

Pair = tuple[int, int]
Shape = tuple[int, ...]
NamedPadding = Literal["valid", "same", "circular"]
OutputLayer = Literal["dense", "none"]
Padding = NamedPadding | Pair


class InfeasibleGeometry(ConfigError):
    """A window does not fit its input, or groups do not divide the channels."""


# --- one axis ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pooling window; `padding` as an int means so many each side."""

    kernel_size: int
    stride: int = 1
    padding: int | NamedPadding = "valid"
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def extent(self) -> int:
        """Pixels from the first to the last one that the window reads, both included."""
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

    "circular" is as much as "same", filled with what is at the other end.
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
        InfeasibleGeometry: if not one window fits.
    """
    outputs = _num_outputs(size, window)
    if outputs < 1:
        raise InfeasibleGeometry(_formula(size, window))
    return outputs


def _num_outputs(size: int, window: Window) -> int:
    before, after = pad_amounts(size, window)
    room = size + before + after - window.extent
    steps = -(-room // window.stride) if window.ceil_mode else room // window.stride
    if window.ceil_mode and steps * window.stride >= size + before:
        steps -= 1
    return steps + 1


def _formula(size: int, window: Window) -> str:
    padding = sum(pad_amounts(size, window))
    padded = f"{size}+{padding}" if padding else f"{size}"
    spread = f"{window.dilation}*({window.kernel_size}-1)-1"
    extent = window.kernel_size if window.dilation == 1 else spread
    rounded = "ceil" if window.ceil_mode else "floor"
    return f"{rounded}(({padded}-{extent})/{window.stride})+1 = {_num_outputs(size, window)}"


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
    if max(numbers) > LARGEST:
        raise ValueError(f"{value!r} is too large; allowed: up to {LARGEST}")
    return numbers[0], numbers[-1]


def parse_optional_size(value: Any) -> Pair | None:
    """As `parse_size`; None for what its key says of it."""
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


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def format_size(size: Pair) -> str:
    """`3x3` and `3x5` as a person writes them: `3`, `3x5`."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def format_padding(padding: Padding) -> str:
    """`valid`, `same`, `1` or `0x2`."""
    return padding if isinstance(padding, str) else format_size(padding)


# --- what a layer is --------------------------------------------------------------------------


@dataclass(frozen=True)
class Key:
    """One key of a kind of layer in model=sequential.

    - `parse`: from what a person writes to what the layer takes; raises ValueError.
    - `default`: as a person would write it; without one the key must be given.
    """

    parse: Callable[[Any], Any]
    default: Any = ...

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is ...


LAYER_KINDS: dict[str, type[Layer]] = {}  # by `kind_name`, in the order in which they are listed


class Layer:
    """A kind of layer: its keys, shapes, cost and words. Each is a frozen dataclass of its own.

    Its module, or how to make one, stands in `layers.MODULES`. Nothing else knows the kinds one by
    one: docs/extending.md shows a new one.

    - `kind_name`: its word in model=sequential; a class that has one is in `LAYER_KINDS`.
    - `keys`: what may be set there. The first may stand alone, as in `pool1: 2`; one that is called
      `activation` puts an activation behind the layer.
    - `takes`: maps (C, H, W), a vector (features,) or any; before a vector, maps are flattened.
    - `gives`: whether a vector comes out whatever goes in.
    """

    kind_name: ClassVar[str]
    keys: ClassVar[Mapping[str, Key]] = {}
    takes: ClassVar[Literal["maps", "vector", "any"]] = "any"
    gives: ClassVar[Literal["vector", "same"]] = "same"

    def __init_subclass__(cls) -> None:
        if "kind_name" in vars(cls):
            LAYER_KINDS[cls.kind_name] = cls

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Layer | None:
        """The layer with these parsed values of its keys; None for one that does nothing."""
        return cls(**values)

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        """(C, H, W) or (features,) of what comes out.

        Raises:
            InfeasibleGeometry: for an input that it cannot take, with what would do.
        """
        return input_shape

    def num_parameters(self, input_shape: Shape, output_shape: Shape) -> int:
        """Trainable numbers: weights and biases."""
        return 0

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Multiply-accumulates for one image."""
        return 0

    @property
    def windows(self) -> tuple[Window, Window] | None:
        """The window that slides along height and width, if one does."""
        return None

    def describe(self) -> str:
        """The layer in a few words, as in "conv 3x3, stride 2, same"."""
        return self.kind_name.replace("_", " ")

    def remarks(self, name: str) -> list[str]:
        """What is legal but odd, a sentence each."""
        return []


class NamedLayer(NamedTuple):
    """A layer and where it stands, as in "block1.conv"."""

    name: str
    layer: Layer


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
        size, is_of_block = _pair(input_shape[1:]), _is_of_block(name)
        wrong_channels = self.wrong_channels(input_shape[0])
        faults = [wrong_channels] if wrong_channels else []
        try:
            sizes = _pair(_axis_output(self, size, axis, is_of_block) for axis in range(2))
        except InfeasibleGeometry as error:
            remedies = list(_remedies(self, size, is_of_block))
            if is_of_block and not name.startswith("block1."):
                remedies.append("fewer blocks")
            faults.append(f"{error}; {_either(remedies)} would" if remedies else str(error))
        if faults:
            raise InfeasibleGeometry(f"{_place(name)}: {'; besides, '.join(faults)}")
        return sizes

    def describe(self) -> str:
        words = [f"{super().describe()} {_by(self.kernel_size)}"]
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
        return [f"{_place(name)}: the stride is larger than the window, some pixels are never read"]


# --- windows that do not fit, and what would --------------------------------------------------


def _axis_output(layer: Sliding, size: Pair, axis: int, is_of_block: bool) -> int:
    window = layer.windows[axis]
    match _fault(layer, window, size[axis]):
        case None:
            return _num_outputs(size[axis], window)
        case "half":
            raise InfeasibleGeometry(
                f"{layer.key_of('padding', is_of_block)} {format_padding(layer.padding)} is more "
                f"than half of its {_by(layer.kernel_size)} window, which could then hold padding "
                "alone"
            )
        case "circular":
            raise InfeasibleGeometry(
                f"circular padding of a {_by(layer.kernel_size)} window goes around its "
                f"{_by(size)} input more than once"
            )
    raise InfeasibleGeometry(
        f"a {_window_in_words(layer)} does not fit its {_by(size)} input "
        f"({_padding_in_words(layer.padding)}: {_formula(size[axis], window)})"
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
    return "window" if _num_outputs(size, window) < 1 else None


def _window_in_words(layer: Sliding) -> str:
    stride = f" at stride {format_size(layer.stride)}" if max(layer.stride) > 1 else ""
    spread = f", dilation {format_size(layer.dilation)}" if max(layer.dilation) > 1 else ""
    return f"{_by(layer.kernel_size)} {layer.noun}{stride}{spread}"


@lru_cache(maxsize=4096)  # many runs of a sweep have the same misfit
def _remedies(layer: Sliding, size: Pair, is_of_block: bool) -> tuple[str, ...]:
    """Changes of one key with which an impossible layer is possible; each of them was tried."""
    found = []
    if (largest := _largest_size(layer, size)) is not None:
        sign = " <= " if _fits(_resized(layer, (1, 1)), size) else "="
        found.append(f"{layer.key_of('kernel_size', is_of_block)}{sign}{format_size(largest)}")
    changes: list[tuple[str, Sliding | None]] = [
        *layer.alternatives(size, is_of_block),
        (f"{layer.key_of('stride', is_of_block)}=1", layer.changed(stride=(1, 1))),
        (f"{layer.key_of('padding', is_of_block)}=same", layer.changed(padding="same")),
    ]
    found += [words for words, changed in changes if changed and _fits([changed], size)]
    return *found, *(words for words, changed in changes if changed is None)


def _largest_size(layer: Sliding, size: Pair) -> Pair | None:
    """The largest window that fits; where its padding asks for a larger one, the smallest."""
    largest = list(layer.kernel_size)
    for axis, window in enumerate(layer.windows):
        wider = window.kernel_size - layer.kernel_size[axis]  # than what is typed: "blur", "aps"
        padding = window.padding if isinstance(window.padding, int) else 0
        fits, too_large = max(1, 2 * padding - wider), layer.kernel_size[axis] + 1
        while fits < too_large - 1:
            largest[axis] = (fits + too_large) // 2
            if _fits(_resized(layer, _pair(largest)), size, [axis]):
                fits = largest[axis]
            else:
                too_large = largest[axis]
        largest[axis] = fits
    return _pair(largest) if _fits(_resized(layer, _pair(largest)), size) else None


def _resized(layer: Sliding, kernel_size: Pair) -> list[Sliding]:
    """The layer with another window; its stride follows, if none was typed."""
    resized = layer.changed(kernel_size=kernel_size)
    if layer.stride != layer.default_stride or resized.stride == resized.default_stride:
        return [resized]
    return [resized, resized.changed(stride=resized.default_stride)]


def _fits(layers: Iterable[Sliding], size: Pair, axes: Sequence[int] = (0, 1)) -> bool:
    return all(
        _fault(layer, layer.windows[axis], size[axis]) is None for layer in layers for axis in axes
    )


def _padding_in_words(padding: Padding) -> str:
    return padding if isinstance(padding, str) else f"padding {format_size(padding)}"


def _is_of_block(name: str) -> bool:
    """Whether it is block3.pool, whose keys are pool_size and the like, and not pool3."""
    return name.startswith("block")


def _place(name: str) -> str:
    """As a person says it: block3.conv is "block 3", block3.pool is "block 3 pool"."""
    block, _, part = name.partition(".")
    words = f"block {block.removeprefix('block')}" if _is_of_block(name) else f"layer {block}"
    return words if part in ("", "conv") else f"{words} {part}"


def _either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"


# --- the kinds --------------------------------------------------------------------------------


# of Activation, by torch.nn.functional's names; their modules stand in `layers.ACTIVATIONS`
ACTIVATIONS = (
    "none", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"
)  # fmt: skip
activation = one_of(*ACTIVATIONS)


@dataclass(frozen=True)
class Conv(Sliding):
    """2D convolution (in fact cross-correlation, as in every deep-learning library)."""

    kind_name = "conv"
    keys: ClassVar = {
        "channels": Key(integer),
        "kernel_size": Key(parse_size, 3),
        "stride": Key(parse_size, 1),
        "padding": Key(parse_padding, "valid"),
        "dilation": Key(parse_size, 1),
        "groups": Key(integer, 1),
        "bias": Key(boolean, True),
        "activation": Key(activation, "none"),
    }
    out_channels: int
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Conv:
        return cls(values.pop("channels"), **values)

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        return self.out_channels, *self.output_sizes(name, input_shape)

    def num_parameters(self, input_shape: Shape, output_shape: Shape) -> int:
        return self._num_weights(input_shape) + self.out_channels * self.bias

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        return self._num_weights(input_shape) * prod(output_shape[1:])

    def _num_weights(self, input_shape: Shape) -> int:
        return self.out_channels * input_shape[0] // self.groups * prod(self.kernel_size)

    def wrong_channels(self, in_channels: int) -> str | None:
        if not (in_channels % self.groups or self.out_channels % self.groups):
            return None
        most = gcd(in_channels, self.out_channels)
        return (
            f"groups={self.groups} must divide its {in_channels} input channels and its "
            f"{self.out_channels} output channels; groups={most}{' or groups=1' * (most > 1)} would"
        )

    def alternatives(self, size: Pair, is_of_block: bool) -> list[tuple[str, Self | None]]:
        return [("dilation=1", self.changed(dilation=(1, 1)))]

    def describe(self) -> str:
        return super().describe() + (f", {self.groups} groups" if self.groups > 1 else "")


class Pooling(NamedTuple):
    """A kind of pooling without torch; its module stands in `layers.POOLS`.

    - `reaches_further`: by how many pixels a window reads beyond its size, at a stride.
    - `has_ceil_mode`: whether a last window may reach beyond the padded input.
    """

    reaches_further: Callable[[int], int] = lambda stride: 0
    has_ceil_mode: bool = False


BLUR_SIZE = 3  # of the binomial filter of "blur" pooling
POOLINGS = {
    "max": Pooling(has_ceil_mode=True),
    "avg": Pooling(has_ceil_mode=True),
    "blur": Pooling(lambda stride: BLUR_SIZE - 1),
    "aps": Pooling(lambda stride: stride - 1),
}


def pooling_kind(value: Any) -> str:
    """A kind of pooling, or none.

    Raises:
        ValueError: if there is no such kind.
    """
    return one_of(*POOLINGS, "none")(value)


@dataclass(frozen=True)
class Pool(Sliding):
    """2D pooling; the average leaves padding out of its divisor.

    Two kinds change less when the image is shifted. Both take the maximum at every position;
    "blur" then blurs before it leaves out positions, https://arxiv.org/abs/1904.11486; "aps" keeps,
    of all ways to leave out positions, the one with the largest values,
    https://arxiv.org/abs/2011.14214
    """

    kind_name = "pool"
    keys: ClassVar = {
        "size": Key(parse_size, 2),
        "kind": Key(pooling_kind, "max"),
        "stride": Key(parse_optional_size, None),
        "padding": Key(parse_padding, "valid"),
        "ceil_mode": Key(boolean, False),
    }
    pads_at_most_half = True

    kind: str
    kernel_size: Pair
    stride: Pair
    padding: Padding = "valid"
    ceil_mode: bool = False

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Pool | None:
        kind, size, stride = values["kind"], values["size"], values["stride"] or values["size"]
        if kind == "none":
            return None
        return cls(kind, size, stride, values["padding"], values["ceil_mode"])

    @property
    def noun(self) -> str:  # type: ignore[override]
        return f"{self.kind} pool"

    def describe(self) -> str:
        return f"{self.kind} {super().describe()}"

    @property
    def window_size(self) -> Pair:
        reaches_further = POOLINGS[self.kind].reaches_further
        (height, width), (down, along) = self.kernel_size, self.stride
        return height + reaches_further(down), width + reaches_further(along)

    @property
    def default_stride(self) -> Pair:
        return self.kernel_size

    def _along(self, axis: int) -> Window:
        window = super()._along(axis)
        return window if POOLINGS[self.kind].has_ceil_mode else replace(window, ceil_mode=False)

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        return input_shape[0], *self.output_sizes(name, input_shape)

    def key_of(self, field: str, is_of_block: bool) -> str:
        key = "size" if field == "kernel_size" else field
        if not is_of_block:
            return key
        return "pool" if field == "kind" else f"pool_{key}"

    def alternatives(self, size: Pair, is_of_block: bool) -> list[tuple[str, Self | None]]:
        found: list[tuple[str, Self | None]] = [(f"{self.key_of('kind', is_of_block)}=none", None)]
        if isinstance(self.padding, tuple):
            windows, given = self.windows, self.padding
            most = _pair(min(given[a], windows[a].kernel_size // 2) for a in range(2))
            sign = " <= " if _fits([self.changed(padding=(0, 0))], size) else "="
            words = f"{self.key_of('padding', is_of_block)}{sign}{format_size(most)}"
            found.append((words, self.changed(padding=most)))
        return [*found, (f"{self.key_of('kind', is_of_block)}=max", self.changed(kind="max"))]


@dataclass(frozen=True)
class GlobalPool(Layer):
    """Mean or maximum over all positions: (C, H, W) -> (C,)."""

    kind_name = "global_pool"
    keys: ClassVar = {"kind": Key(one_of("avg", "max"), "avg")}
    takes = "maps"
    gives = "vector"

    kind: Literal["avg", "max"]

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        return input_shape[:1]

    def describe(self) -> str:
        return f"global {self.kind} pool"


@dataclass(frozen=True)
class Flatten(Layer):
    """(C, H, W) -> (C * H * W,)."""

    kind_name = "flatten"
    takes = "vector"
    gives = "vector"

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> None:
        """Nothing: it stands where maps are first flattened, and a vector is flat already."""

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        return (prod(input_shape),)


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected layer."""

    kind_name = "dense"
    keys: ClassVar = {
        "units": Key(integer),
        "bias": Key(boolean, True),
        "activation": Key(activation, "none"),
    }
    takes = "vector"
    gives = "vector"

    out_features: int
    bias: bool = True

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Dense:
        return cls(values["units"], values["bias"])

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        return (self.out_features,)

    def num_parameters(self, input_shape: Shape, output_shape: Shape) -> int:
        return (input_shape[0] + self.bias) * self.out_features

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        return input_shape[0] * self.out_features


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation per channel (C, H, W) or per feature (C,)."""

    kind_name = "batch_norm"

    def num_parameters(self, input_shape: Shape, output_shape: Shape) -> int:
        return 2 * input_shape[0]


@dataclass(frozen=True)
class Activation(Layer):
    """Element-wise nonlinearity by its torch.nn.functional name."""

    kind_name = "activation"
    keys: ClassVar = {"name": Key(activation, "relu")}

    name: str

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Activation | None:
        return None if values["name"] == "none" else cls(values["name"])

    def describe(self) -> str:
        return self.name


@dataclass(frozen=True)
class Dropout(Layer):
    """Element-wise dropout with probability `p`."""

    kind_name = "dropout"
    keys: ClassVar = {"p": Key(probability)}

    p: float

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Dropout | None:
        return cls(values["p"]) if values["p"] else None

    def describe(self) -> str:
        return f"dropout {self.p:g}"


# --- from the knobs of a config to layers -----------------------------------------------------


def per_block(key: str, value: Any, num_blocks: int) -> list[Any]:
    """One value for each block, from one value for all or a list with one per block.

    Raises:
        ValueError: if a list has another length than the network has blocks.
    """
    if not isinstance(value, list | tuple):
        return [value] * num_blocks
    if len(value) != num_blocks:
        raise ValueError(
            f"{key}={list(value)} has {len(value)} entries for {num_blocks} blocks "
            f"(channels has {num_blocks}); allowed: one value for all, or {num_blocks} values"
        )
    return list(value)


class CNNKnobs(TypedDict, total=False):
    """What shapes the blocks and the head of a CNN, beside `channels`; see conf/model/cnn.yaml.

    A size is 3 or "3x5" (height x width); a list gives one value per block.
    """

    kernel_size: int | str | list[int | str]
    stride: int | str | list[int | str]
    padding: int | str | list[int | str]
    dilation: int | str | list[int | str]
    groups: int | list[int]
    pool: str | list[str]
    pool_size: int | str | list[int | str]
    pool_stride: int | str | list[int | str | None] | None
    pool_padding: int | str | list[int | str]
    pool_ceil_mode: bool | list[bool]
    batch_norm: bool | list[bool]
    activation: str | list[str]
    dropout: float | list[float]
    head: Literal["flatten", "global_avg", "global_max"]
    dense: Sequence[int]
    dense_dropout: float
    output_layer: OutputLayer


def cnn_layers(
    num_classes: int,
    *,
    channels: Sequence[int],
    kernel_size: Any = 3,
    stride: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
    groups: Any = 1,
    pool: Any = "max",
    pool_size: Any = 2,
    pool_stride: Any = None,
    pool_padding: Any = "valid",
    pool_ceil_mode: Any = False,
    batch_norm: Any = False,
    activation: Any = "relu",
    dropout: Any = 0.0,
    head: Literal["flatten", "global_avg", "global_max"] = "flatten",
    dense: Sequence[int] = (),
    dense_dropout: float = 0.0,
    output_layer: OutputLayer = "dense",
) -> list[NamedLayer]:
    """Layers of a CNN: blocks of conv, batch norm, activation, pool, dropout; head; dense layers.

    Every knob of a block is one value for all blocks or a list with one per block.

    Raises:
        ValueError: if a list has the wrong length or a size does not parse.
    """
    knobs = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "pool": pool,
        "pool_size": pool_size,
        "pool_stride": pool_stride,
        "pool_padding": pool_padding,
        "pool_ceil_mode": pool_ceil_mode,
        "batch_norm": batch_norm,
        "activation": activation,
        "dropout": dropout,
    }
    columns = {key: per_block(key, value, len(channels)) for key, value in knobs.items()}
    layers: list[NamedLayer] = []
    for index, out_channels in enumerate(channels):
        knob = {key: column[index] for key, column in columns.items()}
        layers += _block_layers(f"block{index + 1}", out_channels, knob)
    if head == "flatten":
        layers.append(NamedLayer("flatten", Flatten()))
    else:
        layers.append(NamedLayer("head", GlobalPool("avg" if head == "global_avg" else "max")))
    dense_activation = columns["activation"][-1]
    layers += _dense_layers("dense", dense, False, dense_activation, dense_dropout)
    if output_layer == "dense":
        layers.append(NamedLayer("output", Dense(num_classes)))
    return layers


def _block_layers(block: str, out_channels: int, knob: dict[str, Any]) -> list[NamedLayer]:
    conv = Conv(
        out_channels,
        parse_size(knob["kernel_size"]),
        parse_size(knob["stride"]),
        parse_padding(knob["padding"]),
        parse_size(knob["dilation"]),
        knob["groups"],
        bias=not knob["batch_norm"],  # batch norm has its own shift
    )
    layers = [NamedLayer(f"{block}.conv", conv)]
    if knob["batch_norm"]:
        layers.append(NamedLayer(f"{block}.batch_norm", BatchNorm()))
    if knob["activation"] != "none":
        layers.append(NamedLayer(f"{block}.activation", Activation(knob["activation"])))
    if knob["pool"] != "none":
        pool_size = parse_size(knob["pool_size"])
        pool = Pool(
            knob["pool"],
            pool_size,
            pool_size if knob["pool_stride"] is None else parse_size(knob["pool_stride"]),
            parse_padding(knob["pool_padding"]),
            knob["pool_ceil_mode"],
        )
        layers.append(NamedLayer(f"{block}.pool", pool))
    if knob["dropout"]:
        layers.append(NamedLayer(f"{block}.dropout", Dropout(knob["dropout"])))
    return layers


def mlp_layers(
    num_classes: int,
    *,
    hidden: Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> list[NamedLayer]:
    """Layers of an MLP; without hidden layers it is softmax regression."""
    layers = [NamedLayer("flatten", Flatten())]
    layers += _dense_layers("hidden", hidden, batch_norm, activation, dropout)
    return [*layers, NamedLayer("output", Dense(num_classes))]


def _dense_layers(
    prefix: str, widths: Sequence[int], batch_norm: bool, activation: str, dropout: float
) -> list[NamedLayer]:
    layers: list[NamedLayer] = []
    for index, width in enumerate(widths):
        name = f"{prefix}{index + 1}"
        layers.append(NamedLayer(f"{name}.dense", Dense(width, bias=not batch_norm)))
        if batch_norm:
            layers.append(NamedLayer(f"{name}.batch_norm", BatchNorm()))
        if activation != "none":
            layers.append(NamedLayer(f"{name}.activation", Activation(activation)))
        if dropout:
            layers.append(NamedLayer(f"{name}.dropout", Dropout(dropout)))
    return layers


# --- the plan ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """What one unit of a layer sees of the input, per axis (H, W).

    Unit u looks at the pixels around -padding + u * stride + (size - 1) / 2; the recursion is that
    of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks",
    Distill 2019, https://distill.pub/2019/computing-receptive-fields/
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    def behind(self, windows: tuple[Window, Window], pads_before: Pair) -> Field:
        """The field of a unit of the layer that slides `windows` over this one's output."""
        axes = range(2)
        return Field(
            _pair(self.size[a] + (windows[a].extent - 1) * self.stride[a] for a in axes),
            _pair(self.stride[a] * windows[a].stride for a in axes),
            _pair(self.padding[a] + pads_before[a] * self.stride[a] for a in axes),
        )


@dataclass(frozen=True)
class LayerPlan:
    """One row of the layer table; shapes are (C, H, W) or (features,)."""

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    num_parameters: int
    macs: int
    field: Field


@dataclass(frozen=True, repr=False)
class Plan:
    """What a network will be: its layers in order, and remarks on what is legal but odd."""

    input_shape: Shape
    layers: tuple[LayerPlan, ...]
    remarks: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Trainable numbers: weights and biases."""
        return sum(row.num_parameters for row in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the layers for one image, biases not counted."""
        return sum(row.macs for row in self.layers)

    @property
    def num_activations(self) -> int:
        """Numbers that come up for one image: its own, and the outputs of all layers."""
        shapes = [self.input_shape, *(row.output_shape for row in self.layers)]
        return sum(prod(shape) for shape in shapes)

    @property
    def stages(self) -> list[LayerPlan]:
        """The last layer of each block, and the hidden dense layers: the shape of the network."""
        last = {row.name.partition(".")[0]: row for row in self.layers}
        last.pop("output", None)
        return [
            row
            for stage, row in last.items()
            if row.name != stage or not (row.layer.takes == "any" or isinstance(row.layer, Flatten))
        ]

    @property
    def receptive_field(self) -> Pair:
        """Pixels (H, W) that a unit of the last sliding window sees; without one, the image."""
        fields = [row.field for row in self.layers if row.layer.windows is not None]
        return fields[-1].size if fields else _pair(self.input_shape[1:])

    def rows(self) -> list[tuple[str, ...]]:
        """The layer table: a header, a row per layer, the total."""
        header = ("layer", "what", "output", "parameters", "MACs", "receptive field")
        rows = [
            (
                row.name,
                row.layer.describe(),
                "x".join(map(str, row.output_shape)),
                f"{row.num_parameters:,}" if row.num_parameters else "",
                f"{row.macs:,}" if row.macs else "",
                format_size(row.field.size),
            )
            for row in self.layers
        ]
        total = ("total", "", "", f"{self.num_parameters:,}", f"{self.macs:,}", "")
        return [header, *rows, total]

    def __str__(self) -> str:
        return format_table(self.rows(), right_aligned=(3, 4))

    def __repr__(self) -> str:  # what a Python prompt shows
        return str(self)

    def _repr_html_(self) -> str:
        """The layer table in a notebook."""
        header, *rows = self.rows()
        head = _cells("th", header)
        body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div>{table}{remarks}</div>"


def _cells(tag: str, row: Sequence[str]) -> str:
    """Words to the left; notebooks set everything to the right."""
    sides = ("left", "left", "left", "right", "right", "left")
    pairs = zip(row, sides, strict=True)
    return "".join(
        f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for cell, side in pairs
    )


def plan_layers(
    layers: Iterable[NamedLayer], input_shape: Sequence[int], num_classes: int | None = None
) -> Plan:
    """Walk `layers` from `input_shape` (C, H, W): shapes, parameters, MACs, receptive fields.

    Raises:
        InfeasibleGeometry: naming the layer, its input and what would work; or if the network does
            not end in a number for each of `num_classes`.
    """
    shape: Shape = tuple(input_shape)
    field, whole = Field(), Field(_pair(input_shape[1:]))
    rows: list[LayerPlan] = []
    remarks: list[str] = []
    for name, layer in layers:
        before, shape = shape, layer.output_shape(name, shape)
        if (windows := layer.windows) is not None:
            pads = _pair(pad_amounts(before[1 + a], windows[a])[0] for a in range(2))
            field = field.behind(windows, pads)
        elif len(shape) < len(before):
            field = whole
        cost = layer.num_parameters(before, shape), layer.macs(before, shape)
        rows.append(LayerPlan(name, layer, before, shape, *cost, field))
        remarks += layer.remarks(name)
    if num_classes is not None and shape != (num_classes,):
        raise InfeasibleGeometry(
            f"without an output layer the network ends in {_by(shape)} numbers (layer "
            f"{rows[-1].name}), and the data have {num_classes} classes; {num_classes} channels "
            "before a global pool, or output_layer=dense would fit"
        )
    return Plan(tuple(input_shape), tuple(rows), tuple(remarks))


# --- as text ----------------------------------------------------------------------------------


def format_table(rows: Sequence[Sequence[str]], right_aligned: Sequence[int] = ()) -> str:
    """Columns of text, the first row underlined; a line break in a cell is a space."""
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index in right_aligned else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])
