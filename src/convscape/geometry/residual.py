"""Layers whose output is added to their input (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from convscape.base.values import one_of
from convscape.geometry.kinds import Key, Layer, NamedLayer, activation, all_layers
from convscape.geometry.layers import BatchNorm, Conv, Dense, Flatten
from convscape.geometry.sequential import LayerError, in_a_row, whole_layers
from convscape.geometry.sliding import place_of
from convscape.geometry.window import InfeasibleGeometry, Pair, Window, as_pair, by, format_size

if TYPE_CHECKING:
    from convscape.geometry.window import Shape


def inner_layers(written: Any) -> tuple[NamedLayer, ...]:
    """Layers inside another layer, from what the user writes.

    Raises:
        LayerError: if one of them is wrong, none does anything, or they turn maps into a vector.
    """
    layers = tuple(in_a_row(whole_layers(written)))
    if _takes(layers) == "vector":  # then the input is flattened before
        layers = tuple(named for named in layers if not isinstance(named.layer, Flatten))
    elif vectors := [named for named in layers if named.layer.gives == "vector"]:
        name = next((n for n, layer in vectors if not isinstance(layer, Flatten)), vectors[0].name)
        raise LayerError(
            f"layers.{name}: its output is a vector, which cannot be added to maps; "
            "put it after the residual layer"
        )
    if not layers:
        raise LayerError("layers: none of them does anything; allowed: one that does")
    return layers


def _takes(layers: Iterable[NamedLayer]) -> Literal["maps", "vector", "any"]:
    return next((named.layer.takes for named in layers if named.layer.takes != "any"), "any")


@dataclass(frozen=True, repr=False)
class Residual(Layer):
    """Layers, and a shortcut around them: their outputs are added.

    If the layers change the shape, the identity subsamples and adds channels of zeros: option A of
    section 4.1 of the paper. A projection is a 1x1 convolution with batch norm: option B if it is
    used only where the shape changes, option C if it is used everywhere.
    """

    kind_name = "residual"
    keys: ClassVar = {
        "layers": Key(inner_layers, whole=whole_layers),
        "shortcut": Key(one_of("identity", "projection"), "identity"),
        "activation": Key(activation, "none"),
    }

    parts: tuple[NamedLayer, ...]
    shortcut: Literal["identity", "projection"] = "identity"

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Residual:
        return cls(values["layers"], values["shortcut"])

    @property
    def takes(self) -> Literal["maps", "vector", "any"]:  # type: ignore[override]
        return _takes(self.parts)

    @property
    def gives(self) -> Literal["vector", "same"]:  # type: ignore[override]
        return "vector" if self.takes == "vector" else "same"

    def __repr__(self) -> str:  # as for the fingerprint: names do not matter
        return f"Residual({[named.layer for named in self.parts]}, {self.shortcut!r})"

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        output_shape = _shape_behind(self.parts, input_shape, f"{name}.")
        around = _shape_behind(self._shortcut(input_shape, output_shape), input_shape, f"{name}.")
        if around == output_shape:
            return output_shape
        if around[1:] == output_shape[1:]:
            why = "its shortcut leaves out no channels"
        else:
            why = f"its shortcut makes {by(around)} of that"
        raise InfeasibleGeometry(
            f"{place_of(name)}: its layers make {by(output_shape)} of {by(input_shape)}, and {why}"
        )

    def branches(self, input_shape: Shape) -> tuple[tuple[NamedLayer, ...], ...]:
        """Its layers, and its shortcut."""
        output_shape = _shape_behind(self.parts, input_shape)
        return self.parts, self._shortcut(input_shape, output_shape)

    def _shortcut(self, input_shape: Shape, output_shape: Shape) -> tuple[NamedLayer, ...]:
        """The shortcut past the layers: to the same number of channels, and with their stride."""
        stride = stride_of(self.parts)
        if self.shortcut == "projection":
            norm = NamedLayer("shortcut.batch_norm", BatchNorm())
            if len(input_shape) == 1:
                return NamedLayer("shortcut.dense", Dense(output_shape[0], bias=False)), norm
            conv = Conv(output_shape[0], (1, 1), stride, bias=False)
            return NamedLayer("shortcut.conv", conv), norm
        num_zeros = max(output_shape[0] - input_shape[0], 0)
        if stride == (1, 1) and not num_zeros:
            return ()
        return (NamedLayer("shortcut", Subsample(stride, num_zeros)),)

    def describe(self) -> str:
        what = "its input" if self.shortcut == "identity" else "a projection of its input"
        return f"residual, sum with {what}"

    def remarks(self, name: str) -> list[str]:
        return [remark for part, layer in self.parts for remark in layer.remarks(f"{name}.{part}")]

    def alternatives(self, input_shape: Shape) -> list[tuple[str, Any]]:
        return [("shortcut", "projection")] if self.shortcut == "identity" else []


@dataclass(frozen=True)
class Subsample(Layer):
    """Every position at a stride, and channels of zeros after the others."""

    stride: Pair
    num_zeros: int

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        sizes = (-(-size // step) for size, step in zip(input_shape[1:], self.stride, strict=False))
        return input_shape[0] + self.num_zeros, *sizes

    @property
    def windows(self) -> tuple[Window, Window] | None:
        down, along = self.stride
        return None if self.stride == (1, 1) else (Window(1, down), Window(1, along))

    def describe(self) -> str:
        strides = [] if self.stride == (1, 1) else [f"stride {format_size(self.stride)}"]
        zeros = [f"{self.num_zeros} channels of zeros"] if self.num_zeros else []
        return ", ".join(["identity", *strides, *zeros])


def stride_of(layers: Iterable[NamedLayer]) -> Pair:
    """The total stride along each axis: input positions for one position of the output."""
    windows = [layer.windows for layer in all_layers(layers) if layer.windows is not None]
    return as_pair(prod(window[axis].stride for window in windows) for axis in range(2))


def _shape_behind(layers: Iterable[NamedLayer], shape: Shape, prefix: str = "") -> Shape:
    for name, layer in layers:
        shape = layer.output_shape(prefix + name, shape)
    return shape
