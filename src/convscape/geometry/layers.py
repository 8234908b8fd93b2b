"""The kinds of layers as plain values; the modules that compute them are in `models.modules`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import gcd, prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from convscape.base.values import boolean, integer, one_of, probability
from convscape.geometry.kinds import Key, Layer, activation
from convscape.geometry.sliding import Sliding
from convscape.geometry.window import (
    Padding,
    Pair,
    parse_optional_size,
    parse_padding,
    parse_size,
)

if TYPE_CHECKING:
    from convscape.geometry.window import Shape, Window


@dataclass(frozen=True)
class Conv(Sliding):
    """2D convolution (really cross-correlation, as in every deep-learning library)."""

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
        return (
            f"groups={self.groups} must divide its {in_channels} input channels and its "
            f"{self.out_channels} output channels"
        )

    def alternatives(self, input_shape: Shape) -> list[tuple[str, Any]]:
        groups = (
            {gcd(input_shape[0], self.out_channels), 1}
            if self.wrong_channels(input_shape[0])
            else {}
        )
        return [*(("groups", n) for n in sorted(groups, reverse=True)), ("dilation", (1, 1))]

    def describe(self) -> str:
        return super().describe() + (f", {self.groups} groups" if self.groups > 1 else "")


class Pooling(NamedTuple):
    """A kind of pooling without torch; its module is in `layers.POOLS`.

    - `reaches_further`: how many pixels beyond its size a window reads at a stride.
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

    Two kinds change less when the image is shifted. Both take the maximum at every position.
    "blur" then blurs before subsampling, https://arxiv.org/abs/1904.11486; "aps" keeps the one of
    all possible subsampling grids with the largest values, https://arxiv.org/abs/2011.14214
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
    has_own_stride: bool = field(default=True, compare=False, repr=False)  # or it equals the size

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Pool | None:
        kind, size, stride = values["kind"], values["size"], values["stride"]
        if kind == "none":
            return None
        rest = values["padding"], values["ceil_mode"], stride is not None
        return cls(kind, size, stride or size, *rest)

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

    def with_value(self, field: str, value: Any) -> Self:
        own_stride = field == "stride" or self.has_own_stride
        changed = replace(super().with_value(field, value), has_own_stride=own_stride)
        return changed if own_stride else replace(changed, stride=changed.kernel_size)

    can_be_left_out = True

    @property
    def is_plain(self) -> bool:
        return self == self.from_keys(
            {key: spec.default for key, spec in self.keys.items()} | {"kind": self.kind}
        )

    def alternatives(self, input_shape: Shape) -> list[tuple[str, Any]]:
        smaller = [("padding", None)] if isinstance(self.padding, tuple) else []
        return [*smaller, ("kind", "max")]


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
        """None: maps are flattened where it is first needed, and a vector is flat already."""

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
