"""What a kind of layer is: one class for each, with its keys, shapes, cost and words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from convscape.base.values import one_of

if TYPE_CHECKING:
    from convscape.geometry.window import Shape, Window


@dataclass(frozen=True)
class Key:
    """One key of a kind of layer in model=sequential.

    - `parse`: turns what the user writes into what the layer takes; raises ValueError.
    - `default`: as the user would write it; without one the key must be given.
    - `whole`: completes what the user writes with everything that was left out.
    """

    parse: Callable[[Any], Any]
    default: Any = ...
    whole: Callable[[Any], Any] = lambda value: value

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is ...


LAYER_KINDS: dict[str, type[Layer]] = {}  # by `kind_name`, in the order of listings


class Layer:
    """A kind of layer: its keys, shapes, cost and words. Each kind is a frozen dataclass.

    Its module, or how to make one, is in `layers.MODULES`. Nothing else lists the kinds:
    docs/extending.md shows how to add one.

    - `kind_name`: its word in model=sequential; a class that has one is in `LAYER_KINDS`.
    - `keys`: what may be set. The first may be given alone, as in `pool1: 2`; a key called
      `activation` adds an activation after the layer.
    - `takes`: maps (C, H, W), a vector (features,) or any; for a vector, maps are flattened first.
    - `gives`: "vector" if the output is a vector for any input.
    - `parts`: the layers in it, in order, if it is made of layers.
    """

    kind_name: ClassVar[str]
    keys: ClassVar[Mapping[str, Key]] = {}
    takes: Literal["maps", "vector", "any"] = "any"
    gives: Literal["vector", "same"] = "same"
    parts: tuple[NamedLayer, ...] = ()

    def __init_subclass__(cls) -> None:
        if "kind_name" in vars(cls):
            LAYER_KINDS[cls.kind_name] = cls

    @classmethod
    def from_keys(cls, values: dict[str, Any]) -> Layer | None:
        """The layer with these parsed values of its keys; None for one that does nothing."""
        return cls(**values)

    def output_shape(self, name: str, input_shape: Shape) -> Shape:
        """The shape of the output: (C, H, W) or (features,).

        Raises:
            InfeasibleGeometry: for an input that it cannot take, with what would work.
        """
        return input_shape

    def branches(self, input_shape: Shape) -> tuple[tuple[NamedLayer, ...], ...]:
        """If it is made of layers: the parallel branches that its input goes through."""
        return ()

    def num_parameters(self, input_shape: Shape, output_shape: Shape) -> int:
        """Its own trainable parameters: weights and biases."""
        return 0

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Its own multiply-accumulates for one image."""
        return 0

    @property
    def has_weights(self) -> bool:
        """Whether it has trainable parameters of its own."""
        return type(self).num_parameters is not Layer.num_parameters

    @property
    def windows(self) -> tuple[Window, Window] | None:
        """The window that slides along height and width, if there is one."""
        return None

    def with_value(self, field: str, value: Any) -> Self:
        """The same layer with another value of a field."""
        return replace(self, **{field: value})  # type: ignore[type-var]

    def alternatives(self, input_shape: Shape) -> list[tuple[str, Any]]:
        """Fields with values that may work for an input that it cannot take as it is."""
        return []

    def describe(self) -> str:
        """The layer in a few words, as in "conv 3x3, stride 2, same"."""
        return self.kind_name.replace("_", " ")

    def remarks(self, name: str) -> list[str]:
        """Remarks on what is legal but odd, one sentence each."""
        return []


class NamedLayer(NamedTuple):
    """A layer and its place in the network, such as "block1.conv"."""

    name: str
    layer: Layer


def all_layers(layers: Iterable[NamedLayer]) -> Iterator[Layer]:
    """Each layer, and those in it."""
    for _, layer in layers:
        yield layer
        yield from all_layers(layer.parts)


# of Activation, with torch.nn.functional's names; their modules are in `layers.ACTIVATIONS`
ACTIVATIONS = (
    "none", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"
)  # fmt: skip
activation = one_of(*ACTIVATIONS)
