"""Inside a network: the filters applied to the image, and the feature maps of every block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from convscape.models.classifier import ImageClassifier


def first_filters(model: nn.Module, limit: int = 32) -> Tensor | None:
    """A copy of the first weights (N, C, H, W) applied to the image, at most `limit` of them.

    A dense layer's weights have the shape of the image. None if the image goes into neither a
    convolution nor a dense layer.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            return layer.weight[:limit].detach().float().cpu().clone()
        if isinstance(layer, nn.Linear):
            plan = model.plan if isinstance(model, ImageClassifier) else None
            if plan is None or layer.in_features != math.prod(plan.input_shape):
                return None
            weights = layer.weight[:limit].detach().float().cpu()
            return weights.reshape(-1, *plan.input_shape).clone()
    return None


@torch.no_grad()
def feature_maps(model: ImageClassifier, images: Tensor) -> dict[str, Tensor]:
    """Each convolution's output for uint8 images (N, C, H, W), as the next layer sees it.

    Maps (N, M, H, W) by the name of the block: after its activation and pooling.
    """
    found = {}
    maps = model.normalize(images.to(model.device))
    convolution = None
    for name, stage in model.network.named_children():
        is_next = any(isinstance(module, nn.Conv2d) for module in stage.modules())
        before, maps = maps, stage(maps)
        if convolution is not None and (is_next or maps.ndim != 4):
            found[convolution] = before.float().cpu()
        convolution = name if is_next and maps.ndim == 4 else convolution
        if maps.ndim != 4:
            break
    return found


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Restore each module's training or evaluation mode afterwards, however `model` was set.

    Module by module: what is frozen stays in evaluation mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
