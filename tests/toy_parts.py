"""Parts of one's own as docs/extending.md describes them; importing the module registers them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from convscape.base.sections import Fraction
from convscape.base.values import probability
from convscape.config.metrics import METRICS, Metric
from convscape.config.optimizers import OptimizerConfig
from convscape.geometry.kinds import Key, Layer
from convscape.geometry.layers import POOLINGS, Pooling
from convscape.models.modules import MODULES, POOLS, AvgPool2d
from convscape.models.networks import CNN


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


class SignConfig(OptimizerConfig):
    """A step of lr along the sign of each gradient."""

    torch_classes: ClassVar = {"sign": f"{__name__}.SignSGD"}

    shrink: Fraction


class SignSGD(torch.optim.Optimizer):
    def __init__(self, params, lr, shrink):
        super().__init__(params, {"lr": lr, "shrink": shrink})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - group["shrink"]).sub_(group["lr"] * parameter.grad.sign())


def stripes(num_images=300):
    """Lying and standing stripes: uint8 images (N, H, W), and a word for each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 40, (num_images, 12, 12), dtype=np.uint8)
    images[:, rng.integers(1, 11)] += 200
    images[::2] = images[::2].transpose(0, 2, 1)
    return images, np.where(np.arange(num_images) % 2, "lying", "standing")


METRICS["val/sureness"] = Metric("val/sureness", "max", "%", 2)


class Sure(CNN):
    """A CNN that also says how probable it holds its answers."""

    def validation_step(self, batch, batch_idx):
        logits = super().validation_step(batch, batch_idx)
        self.log("val/sureness", logits.softmax(1).amax(1).mean(), batch_size=len(logits))
        return logits
