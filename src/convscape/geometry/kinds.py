"""What a kind of layer is: its keys, shapes, cost and words, in one class each."""

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

    - `parse`: from what a person writes to what the layer takes; raises ValueError.
    - `default`: as a person would write it; without one the key must be given.
    - `whole`: what is kept of what a person writes, with all that was left out.
    """

    parse: Callable[[Any], Any]
    default: Any = ...
    whole: Callable[[Any], Any] = lambda value: value

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
    - `parts`: the layers in it, one after the other, if it is made of layers.
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
        """(C, H, W) or (features,) of what comes out.

        Raises:
            InfeasibleGeometry: for an input that it cannot take, with what would do.
        """
        return input_shape

    def branches(self, input_shape: Shape) -> tuple[tuple[NamedLayer, ...], ...]:
        """If it is made of layers: the rows of layers that its input takes, side by side."""
        return ()

    def num_parameters(self, input_shape: Shape, output_shape: Shape) -> int:
        """Trainable numbers of its own: weights and biases."""
        return 0

    def macs(self, input_shape: Shape, output_shape: Shape) -> int:
        """Multiply-accumulates of its own for one image."""
        return 0

    @property
    def windows(self) -> tuple[Window, Window] | None:
        """The window that slides along height and width, if one does."""
        return None

    def with_value(self, field: str, value: Any) -> Self:
        """The same with another value of a field."""
        return replace(self, **{field: value})  # type: ignore[type-var]

    def alternatives(self, input_shape: Shape) -> list[tuple[str, Any]]:
        """Fields with values that may do for an input that it cannot take as it is."""
        return []

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


def all_layers(layers: Iterable[NamedLayer]) -> Iterator[Layer]:
    """Each layer, and those in it."""
    for _, layer in layers:
        yield layer
        yield from all_layers(layer.parts)


# of Activation, by torch.nn.functional's names; their modules stand in `layers.ACTIVATIONS`
ACTIVATIONS = (
    "none", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"
)  # fmt: skip
activation = one_of(*ACTIVATIONS)
