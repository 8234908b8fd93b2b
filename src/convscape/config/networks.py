"""Keys of the networks: CNN, MLP, Sequential, and the user's own classes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
)

from convscape import geometry
from convscape.base.sections import Fraction, Part, Positive, Section
from convscape.base.shared import once_for_each
from convscape.config.kinds import (
    Activations,
    Flags,
    Groups,
    OptionalSizes,
    Paddings,
    PoolKinds,
    Probabilities,
    Sizes,
)
from convscape.config.losses import in_full
from convscape.geometry.kinds import ACTIVATIONS, NamedLayer
from convscape.geometry.sequential import checked_layers, kind_of, whole_layers
from convscape.geometry.window import InfeasibleGeometry

if TYPE_CHECKING:
    from convscape.geometry.plan import Plan


Loss = Annotated[
    Literal["cross_entropy", "mse", "logits_mse", "softmax_mse"], AfterValidator(in_full)
]
_BESIDE_THE_LAYERS = ("target", "init", "first_layer", "loss", "label_smoothing")
Init = Literal["default", "glorot_uniform", "kaiming_normal", "dirac"]


class CNNConfig(Section):
    """Blocks of conv, pool, dropout; a head; dense layers. A list gives one value per block."""

    target: Literal["convscape.models.CNN"] = Field(alias="_target_")
    channels: Annotated[list[Positive], Field(min_length=1)]
    kernel_size: Sizes
    stride: Sizes
    padding: Paddings
    dilation: Sizes
    groups: Groups
    pool: PoolKinds
    pool_size: Sizes
    pool_stride: OptionalSizes
    pool_padding: Paddings
    pool_ceil_mode: Flags
    batch_norm: Flags
    activation: Activations
    dropout: Probabilities
    head: Literal["flatten", "global_avg", "global_max"]
    dense: list[Positive]
    dense_dropout: Fraction
    output_layer: geometry.OutputLayer = "dense"
    init: Init
    first_layer: Literal["learned", "random", "designed"]
    loss: Loss
    label_smoothing: Fraction

    def named_layers(self, num_classes: int) -> list[NamedLayer]:
        """The network as a list of layers."""
        return geometry.cnn_layers(num_classes, **self.knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that shape the network, as `geometry.cnn_layers` takes them."""
        return {key: value for key, value in self if key not in _BESIDE_THE_LAYERS}

    @property
    def title(self) -> str:
        """A short name for run folders: cnn_k5_s2_same."""
        parts = (self.kernel_size, self.stride, self.padding)
        kernel, stride, padding = (
            "-".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts
        )
        return f"cnn_k{kernel}_s{stride}_{'p' * padding[0].isdigit()}{padding}"


class MLPConfig(Section):
    """Dense layers on the flattened pixels; without hidden layers, softmax regression."""

    target: Literal["convscape.models.MLP"] = Field(alias="_target_")
    hidden: list[Positive]
    activation: Literal[ACTIVATIONS]  # type: ignore[valid-type]
    dropout: Fraction
    batch_norm: bool
    init: Init
    loss: Loss
    label_smoothing: Fraction

    def named_layers(self, num_classes: int) -> list[NamedLayer]:
        """The network as a list of layers."""
        return geometry.mlp_layers(num_classes, **self.knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that shape the network, as `geometry.mlp_layers` takes them."""
        return {key: value for key, value in self if key not in _BESIDE_THE_LAYERS}

    @property
    def title(self) -> str:
        """A short name for run folders: mlp_512-512."""
        return "mlp_" + ("-".join(map(str, self.hidden)) or "softmax")


class SequentialConfig(Section):
    """One layer after the other, as in `sequential.whole_layers`, and an output layer."""

    target: Literal["convscape.models.Sequential"] = Field(alias="_target_")
    layers: Annotated[Any, BeforeValidator(whole_layers)]
    output_layer: geometry.OutputLayer = "dense"
    init: Init
    loss: Loss
    label_smoothing: Fraction

    def named_layers(self, num_classes: int) -> list[NamedLayer]:
        """The network as a list of layers."""
        return checked_layers(num_classes, **self.knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that shape the network, as `sequential.checked_layers` takes them."""
        return {"layers": self.layers, "output_layer": self.output_layer}

    @property
    def title(self) -> str:
        """A short name for run folders, with the layers that learn: seq_conv32-conv64-dense128."""
        words = [f"{kind_of(name)}{width}" for name, width in _widths(self.layers) if width]
        counts = [(word, len(list(same))) for word, same in groupby(words)]
        parts = [word if count == 1 else f"{count}x{word}" for word, count in counts]
        return "seq_" + ("-".join(parts) or "softmax")


def _widths(layers: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int | None]]:
    """The channels or units of each layer; for a layer made of layers, those of the last one."""
    for name, values in layers.items():
        inner = [width for _, width in _widths(values.get("layers", {})) if width]
        yield name, values.get("channels") or values.get("units") or (inner[-1] if inner else None)


class OwnModelConfig(Part):
    """A user's class: any nn.Module or LightningModule of a package in `allow_packages`."""

    @property
    def title(self) -> str:
        """A short name for run folders: the class's, or its name in torchvision."""
        named = self.arguments.get("name") if self.is_of_torchvision else None
        return str(named or self.target.rpartition(".")[2].lower())

    @property
    def is_of_torchvision(self) -> bool:
        """Whether it is one of torchvision's networks."""
        return self.target.startswith("torchvision.models.")


Network = CNNConfig | MLPConfig | SequentialConfig


@once_for_each
def layers_of(model: Network, num_classes: int) -> list[NamedLayer]:
    """The network as a list of layers."""
    output = NamedLayer("output", geometry.Dense(num_classes))
    layers = layers_for_one_class(model)
    return [output if named.name == output.name else named for named in layers]


@once_for_each
def layers_for_one_class(model: Network) -> list[NamedLayer]:
    """The network where the number of classes is not known yet; only its output depends on it."""
    return model.named_layers(1)


def plan_of(model: Network, image_shape: tuple[int, int, int], num_classes: int) -> Plan:
    """Shapes, parameters and MACs of the network.

    Raises:
        InfeasibleGeometry: if it cannot exist.
    """
    found = _plan_or_error(model, image_shape, num_classes)
    if isinstance(found, InfeasibleGeometry):
        raise InfeasibleGeometry(str(found))
    return found


@once_for_each
def _plan_or_error(
    model: Network, image_shape: tuple[int, int, int], num_classes: int
) -> Plan | InfeasibleGeometry:
    try:
        return geometry.plan_layers(layers_of(model, num_classes), image_shape, num_classes)
    except InfeasibleGeometry as error:
        return error.with_traceback(None)


def _model_kind(value: Any) -> str:
    target = value.get("_target_") if isinstance(value, dict) else getattr(value, "target", None)
    package, _, name = str(target).rpartition(".")
    is_ours = package == "convscape.models" and name in ("CNN", "MLP", "Sequential")
    return name.lower() if is_ours else "own"


ModelConfig = Annotated[
    Annotated[CNNConfig, Tag("cnn")]
    | Annotated[MLPConfig, Tag("mlp")]
    | Annotated[SequentialConfig, Tag("sequential")]
    | Annotated[OwnModelConfig, Tag("own")],
    Discriminator(_model_kind),
]
