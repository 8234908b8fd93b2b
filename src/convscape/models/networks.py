"""`CNN`, `MLP` and `Sequential`: classifiers whose layers are planned."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack

import torch
from torch import nn

from convscape import geometry
from convscape.config.check import check_arguments
from convscape.config.networks import CNNConfig, MLPConfig, SequentialConfig
from convscape.drawing.kernels import designed_filters
from convscape.geometry.sequential import sequential_layers, whole_layers
from convscape.models.classifier import ImageClassifier, with_full_name
from convscape.models.modules import build_network, freeze_first_layer

if TYPE_CHECKING:
    from convscape.data.module import ImageDataModule


class PlannedClassifier(ImageClassifier):
    """What `CNN`, `MLP` and `Sequential` have in common: their layers are known."""

    plan: geometry.Plan

    def __init__(
        self, network: nn.Module, plan: geometry.Plan, training: Mapping[str, Any] | None
    ) -> None:
        super().__init__(network, **(training or {}))
        self.plan = plan

    @classmethod
    def for_data(cls, data: ImageDataModule, **arguments: Any) -> Self:
        """A model that fits `data`: its image shape, classes, mean and std; `arguments` as of cls.

        CNN.for_data(convscape.data_module("digits"), channels=[16, 32])
        """
        known = {"mean": data.mean, "std": data.std, "classes": data.classes}
        training = {**known, **arguments.pop("training", {})}
        make: Any = cls
        model: Self = make(data.image_shape, len(data.classes), training=training, **arguments)
        return model

    def __str__(self) -> str:
        return "\n".join([str(self.plan), *self.plan.remarks])

    def _repr_html_(self) -> str:
        return self.plan._repr_html_()


class CNN(PlannedClassifier):
    """Blocks of convolution and pooling, then dense layers.

    CNN((1, 28, 28), 10, channels=[32, 64], kernel_size=5, padding="same")

    Keys, values and defaults are those of conf/model/cnn.yaml. A size is 3 or "3x5" (height x
    width); a key of a block is one value for all blocks, or a list with one value per block.

    - `input_shape`: (C, H, W) of an image; `num_classes`: logits per image.
    - `channels`: output channels of each block; as many blocks as entries.
    - `kernel_size` (3), `stride` (1), `dilation` (1): of each convolution, in pixels.
    - `padding` ("valid"): "valid", "same" as in TensorFlow, "circular", or pixels on each side.
    - `groups` (1): groups of channels that are convolved separately.
    - `pool` ("max"): "max", "avg", "blur", "aps" or "none".
    - `pool_size` (2), `pool_stride` (None: the same), `pool_padding` ("valid").
    - `pool_ceil_mode` (False): keep a last window that the input fills only partly.
    - `batch_norm` (False): after each convolution, which then has no bias.
    - `activation` ("relu"): its name in torch.nn.functional, or "none".
    - `dropout` (0.0): probability, at the end of each block.
    - `head` ("flatten"): "flatten", "global_avg" or "global_max".
    - `dense` (()): widths of the hidden layers after the head; `dense_dropout` (0.0) after each.
    - `output_layer` ("dense"): "none" if the layers already end in one number per class.
    - `init`: how the weights are initialised, see `modules.initialize`.
    - `first_layer`: "learned", or "random" or "designed" and frozen.
    - `training`: everything except the network, as `ImageClassifier` takes it.

    Raises:
        ConfigError: if an argument's name or value is not allowed.
        InfeasibleGeometry: if a window does not fit its input.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        channels: Sequence[int],
        init: str = "glorot_uniform",
        first_layer: str = "learned",
        training: Mapping[str, Any] | None = None,
        **knobs: Unpack[geometry.CNNKnobs],
    ) -> None:
        training = with_full_name(training)  # as the checkpoint will hold it
        given = {"channels": channels, "init": init, "first_layer": first_layer, **knobs}
        check_arguments(CNNConfig, given)
        layers = geometry.cnn_layers(num_classes, channels=channels, **knobs)
        plan = geometry.plan_layers(layers, input_shape, num_classes)
        network = build_network(plan, init)
        if first_layer == "designed":
            conv = plan.layers[0].layer
            assert isinstance(conv, geometry.Conv)
            filters = designed_filters(conv.out_channels, conv.kernel_size)
            freeze_first_layer(network, torch.from_numpy(filters).float())
        elif first_layer == "random":
            freeze_first_layer(network)
        super().__init__(network, plan, training)
        self.save_hyperparameters(logger=False)


class MLP(PlannedClassifier):
    """Dense layers on the flattened pixels; arguments as of `CNN`.

    MLP((1, 28, 28), 10, hidden=[512, 512], dropout=0.2)

    - `hidden`: widths of the hidden layers; [] is softmax regression.
    - `dropout`, `batch_norm`: after each hidden layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        hidden: Sequence[int],
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        init: str = "glorot_uniform",
        training: Mapping[str, Any] | None = None,
    ) -> None:
        knobs: dict[str, Any] = {
            "hidden": hidden,
            "activation": activation,
            "dropout": dropout,
            "batch_norm": batch_norm,
        }
        training = with_full_name(training)
        check_arguments(MLPConfig, {"init": init, **knobs})
        plan = geometry.plan_layers(geometry.mlp_layers(num_classes, **knobs), input_shape)
        super().__init__(build_network(plan, init), plan, training)
        self.save_hyperparameters(logger=False)


class Sequential(PlannedClassifier):
    """One layer after the other, then the output layer; arguments as of `CNN`.

    Sequential((1, 28, 28), 10, layers=[{"conv": 32}, {"pool": 2}, {"dense": 64}])

    - `layers`: as `sequential.whole_layers` takes them: {"conv1": 32, "pool1": 2, "dense1": 64}, or
      a list of layers without names: [{"conv": {"channels": 32, "kernel_size": 5}}, "flatten"].
    - `output_layer`: "dense", or "none" if `layers` already end in one number per class.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        *,
        layers: Mapping[str, Any] | Sequence[Any],
        output_layer: geometry.OutputLayer = "dense",
        init: str = "glorot_uniform",
        training: Mapping[str, Any] | None = None,
    ) -> None:
        layers, training = whole_layers(layers), with_full_name(training)
        knobs: dict[str, Any] = {"layers": layers, "output_layer": output_layer}
        check_arguments(SequentialConfig, {"init": init, **knobs})
        named = sequential_layers(num_classes, **knobs)
        plan = geometry.plan_layers(named, input_shape, num_classes)
        super().__init__(build_network(plan, init), plan, training)
        self.save_hyperparameters(logger=False)


def takes_keywords(parameters: Mapping[str, inspect.Parameter]) -> bool:
    """Whether a signature ends in **keywords."""
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


MODELS: dict[str, type[PlannedClassifier]] = {
    kind.__name__: kind for kind in (CNN, MLP, Sequential)
}
