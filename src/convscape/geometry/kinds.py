"""What a kind of layer is: its keys, shapes, cost and words, in one class each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from convscape.base.values import one_of

if TYPE_CHECKING:
    from convscape.geometry.window import Shape, Window


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


# of Activation, by torch.nn.functional's names; their modules stand in `layers.ACTIVATIONS`
ACTIVATIONS = (
    "none", "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid"
)  # fmt: skip
activation = one_of(*ACTIVATIONS)
