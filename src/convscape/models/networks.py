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

    - `input_shape`: (C, H, W) of an image.
    - `channels`: of each block; as many blocks as entries.
    - `init`: how the weights begin, see `layers.initialize`.
    - `first_layer`: "learned", or "random" or "designed" and frozen.
    - `training`: everything but the network, as `ImageClassifier` takes it.
    - `knobs`: kernel_size=3, stride=1, padding="valid", dilation=1, groups=1, pool="max",
      pool_size=2, pool_stride=None, pool_padding="valid", pool_ceil_mode=False, batch_norm=False,
      activation="relu", dropout=0.0, head="flatten", dense=(), dense_dropout=0.0,
      output_layer="dense": all have the names, the values and the meaning of conf/model/cnn.yaml.
      A list gives one value per block.

    Raises:
        ConfigError: if an argument has another name or value than is allowed.
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
        training = with_full_name(training)  # which is what the checkpoint will hold
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
    - `output_layer`: "dense", or "none" where `layers` end in a number per class themselves.
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
