"""Convolution and pooling modules with every padding mode at every stride, and their builder.

All modules take images of shape (N, C, H, W). SAME padding is TensorFlow's, see
`geometry.same_padding`; where it is the same on both sides, torch's own padding does it for free.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscape import geometry
from convscape.geometry import NamedLayer, Pair, Plan


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d with SAME padding at every stride, dilation and kernel size.

    - `conv`: out_channels, kernel_size, stride, padding, dilation, groups and bias.
    """

    def __init__(self, in_channels: int, conv: geometry.Conv) -> None:
        super().__init__(
            in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding if isinstance(conv.padding, tuple) else 0,
            conv.dilation,
            conv.groups,
            conv.bias,
        )
        self.windows = geometry.layer_windows(conv)

    def forward(self, images: Tensor) -> Tensor:
        """Cross-correlate images (N, C, H, W) with the kernels: (N, out_channels, H', W')."""
        images, padding = _pad(images, self.windows, value=0.0)
        return F.conv2d(
            images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class MaxPool2d(nn.Module):
    """Maximum per window; padding counts as minus infinity."""

    def __init__(self, pool: geometry.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.windows = geometry.layer_windows(pool)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        pool = self.pool
        images, padding = _pad(images, self.windows, value=float("-inf"))
        return F.max_pool2d(
            images, pool.kernel_size, pool.stride, padding, ceil_mode=pool.ceil_mode
        )


class AvgPool2d(nn.Module):
    """Mean per window over the pixels of the image; padding is left out of sum and divisor."""

    def __init__(self, pool: geometry.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.windows = geometry.layer_windows(pool)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        pool = self.pool
        padded, padding = _pad(images, self.windows, value=0.0)

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(
                values,
                pool.kernel_size,
                pool.stride,
                padding,
                ceil_mode=pool.ceil_mode,
                count_include_pad=False,
            )

        if padded is images:
            return mean(images)
        inside, _ = _pad(torch.ones_like(images[:1, :1]), self.windows, value=0.0)
        return mean(padded) / mean(inside)


class GlobalPool(nn.Module):
    """Mean or maximum over all positions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        return images.mean((2, 3)) if self.kind == "avg" else images.amax((2, 3))


def _pad(
    images: Tensor, windows: tuple[geometry.Window, geometry.Window], value: float
) -> tuple[Tensor, Pair]:
    """Images and the padding that is left for torch: all of it where both sides get the same."""
    top, bottom = geometry.pad_amounts(images.shape[2], windows[0])
    left, right = geometry.pad_amounts(images.shape[3], windows[1])
    if (top, left) == (bottom, right):
        return images, (top, left)
    return F.pad(images, (left, right, top, bottom), value=value), (0, 0)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def build_network(plan: Plan, init: str = "default") -> nn.Sequential:
    """The modules of a planned network; "block1.conv" becomes `network.block1.conv`.

    A block's max pooling runs before its ReLU, which changes no number: both orders take the
    largest value of a window, or 0. ReLU then has a quarter of the values to look at.
    """
    stages: OrderedDict[str, OrderedDict[str, nn.Module]] = OrderedDict()
    for row in plan.layers:
        stage, _, part = row.name.partition(".")
        module = _build_layer(NamedLayer(row.name, row.layer), row.input_shape)
        stages.setdefault(stage, OrderedDict())[part] = module
    for parts in stages.values():
        pool, activation = parts.get("pool"), parts.get("activation")
        if isinstance(pool, MaxPool2d) and isinstance(activation, nn.ReLU | nn.LeakyReLU):
            _move_behind(parts, "activation", "pool")
    network = nn.Sequential(
        OrderedDict(
            (stage, parts[""] if "" in parts else nn.Sequential(parts))
            for stage, parts in stages.items()
        )
    )
    initialize(network, init)
    return network


def _move_behind(parts: OrderedDict[str, nn.Module], moved: str, place: str) -> None:
    names = [name for name in parts if name != moved]
    names.insert(names.index(place) + 1, moved)
    for name in names:
        parts.move_to_end(name)


def _build_layer(named: NamedLayer, input_shape: geometry.Shape) -> nn.Module:
    match named.layer:
        case geometry.Conv() as conv:
            return Conv2d(input_shape[0], conv)
        case geometry.Pool() as pool:
            return MaxPool2d(pool) if pool.kind == "max" else AvgPool2d(pool)
        case geometry.GlobalPool(kind):
            return GlobalPool(kind)
        case geometry.Flatten():
            return nn.Flatten()
        case geometry.Dense(out_features, bias):
            return nn.Linear(input_shape[0], out_features, bias)
        case geometry.BatchNorm():
            norm = nn.BatchNorm2d if len(input_shape) == 3 else nn.BatchNorm1d
            return norm(input_shape[0])
        case geometry.Activation(name):
            return ACTIVATIONS[name]()
        case geometry.Dropout(p):
            return nn.Dropout(p)


def initialize(network: nn.Module, init: str) -> None:
    """Fill the weights of conv and dense layers; all but torch's default set the biases to zero.

    - "default": as torch.nn does.
    - "glorot_uniform": Keras' default, https://proceedings.mlr.press/v9/glorot10a.html
    - "kaiming_normal": https://arxiv.org/abs/1502.01852, for ReLU.
    - "dirac": each convolution begins as the identity; dense layers as "default".
    """
    if init == "default":
        return
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if init == "dirac":
            if isinstance(module, nn.Linear):
                continue
            nn.init.dirac_(module.weight, module.groups)
        elif init == "glorot_uniform":
            nn.init.xavier_uniform_(module.weight)
        elif init == "kaiming_normal":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            raise ValueError(
                f"init={init!r}; allowed: default, glorot_uniform, kaiming_normal, dirac"
            )
        if module.bias is not None:
            nn.init.zeros_(module.bias)
