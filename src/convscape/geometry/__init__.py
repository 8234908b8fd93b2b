"""Window arithmetic, the kinds of layers, and the plan of a network: shapes, cost, fields.

It imports only `base`, and never torch. Begin with `window`, then `layers`, then `plan`.
"""

from convscape.geometry.kinds import LAYER_KINDS, Layer, NamedLayer, activation
from convscape.geometry.layers import (
    BLUR_SIZE,
    POOLINGS,
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Pool,
    pooling_kind,
)
from convscape.geometry.networks import CNNKnobs, cnn_layers, mlp_layers
from convscape.geometry.plan import Plan, plan_layers
from convscape.geometry.residual import Residual, Subsample
from convscape.geometry.window import (
    InfeasibleGeometry,
    OutputLayer,
    Padding,
    Shape,
    Window,
    pad_amounts,
    parse_optional_size,
    parse_padding,
    parse_size,
    same_padding,
)

__all__ = [
    "BLUR_SIZE",
    "LAYER_KINDS",
    "POOLINGS",
    "Activation",
    "BatchNorm",
    "CNNKnobs",
    "Conv",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalPool",
    "InfeasibleGeometry",
    "Layer",
    "NamedLayer",
    "OutputLayer",
    "Padding",
    "Plan",
    "Pool",
    "Residual",
    "Shape",
    "Subsample",
    "Window",
    "activation",
    "cnn_layers",
    "mlp_layers",
    "pad_amounts",
    "parse_optional_size",
    "parse_padding",
    "parse_size",
    "plan_layers",
    "pooling_kind",
    "same_padding",
]
