"""Parts of one's own as docs/extending.md describes them; importing the module registers them."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from convscape.geometry import POOLINGS, Key, Layer, Pooling
from convscape.layers import MODULES, POOLS, AvgPool2d
from convscape.values import probability


@dataclass(frozen=True)
class Scale(Layer):
    """Each channel times a number of its own, which is learned."""

    kind_name = "scale"
    keys: ClassVar = {"start": Key(probability, 0.5)}

    start: float

    def num_parameters(self, input_shape, output_shape):
        return input_shape[0]

    def macs(self, input_shape, output_shape):
        return torch.Size(input_shape).numel()


class ScaleModule(nn.Module):
    def __init__(self, num_channels, start):
        super().__init__()
        self.factors = nn.Parameter(torch.full((num_channels,), start))

    def forward(self, values):
        return values * self.factors.view(-1, *[1] * (values.ndim - 2))


MODULES[Scale] = lambda scale, input_shape: ScaleModule(input_shape[0], scale.start)


class RMSPool2d(AvgPool2d):
    """The root of the mean square of each window."""

    def forward(self, images):
        return (super().forward(images.square()) + 1e-12).sqrt()


POOLINGS["rms"] = Pooling(has_ceil_mode=True)
POOLS["rms"] = RMSPool2d
