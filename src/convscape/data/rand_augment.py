"""RandAugment, drawn separately for each image (Cubuk 2020, https://arxiv.org/abs/1909.13719).

The operations and their strengths are those of torchvision.transforms.v2.RandAugment, which draws
once for a whole batch. Here images with the same draw go through its functions together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from convscape.base.errors import ConfigError

NUM_OPERATIONS = 2  # applied in turn, as in the paper's experiments and in torchvision
MOST = 30  # the strongest
# in the order of torchvision's table; these have a strength of either sign
SIGNED = (
    "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast",
    "sharpness",
)  # fmt: skip
OPERATIONS = (*SIGNED, "identity", "posterize", "solarize", "auto_contrast", "equalize")


def rand_augmented(
    images: Tensor, magnitude: int, generator: torch.Generator | None = None
) -> Tensor:
    """Bytes (N, C, H, W) after two operations each, with strength `magnitude`, 0 to 30.

    Raises:
        ConfigError: if the images are not bytes, or do not have 1 or 3 channels.
    """
    if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        raise ConfigError(
            "data.augment.rand_augment: its operations are those of 8-bit grey or colour "
            f"pictures, and these images are {images.dtype} with {images.shape[1]} channels; leave "
            "it out"
        )
    device = "cpu" if generator is None else generator.device
    images = images.contiguous()
    for _ in range(NUM_OPERATIONS):
        # on the CPU, to avoid waiting for a GPU
        draws = torch.rand(2, len(images), generator=generator, device=device).cpu()
        chosen = (draws[0] * len(OPERATIONS)).long()
        signs = torch.where(draws[1] < 0.5, -1, 1)
        signs[chosen >= len(SIGNED)] = 1
        images = _one_each(images, chosen, signs, magnitude)
    return images


def _one_each(images: Tensor, chosen: Tensor, signs: Tensor, magnitude: int) -> Tensor:
    result = images.clone()
    for operation, sign in torch.stack([chosen, signs], 1).unique(dim=0).tolist():
        if OPERATIONS[operation] == "identity":
            continue
        mine = ((chosen == operation) & (signs == sign)).nonzero().flatten().to(images.device)
        changed = changed_by(OPERATIONS[operation], images.index_select(0, mine), magnitude, sign)
        result.index_copy_(0, mine, changed)
    return result


def changed_by(operation: str, images: Tensor, magnitude: int, sign: int) -> Tensor:
    """All images after one of `OPERATIONS`, with the strengths of torchvision's table."""
    from torchvision.transforms.v2 import functional as F

    height, width = images.shape[2:]
    part = sign * magnitude / MOST

    def affine(
        translate: Sequence[int] = (0, 0), shear: Sequence[float] = (0, 0), **more: Any
    ) -> Any:
        return F.affine(images, 0.0, list(translate), 1.0, list(shear), **more)

    def sheared(*places: int) -> Any:
        angle = math.degrees(math.atan(0.3 * part))
        return affine(shear=[angle * place for place in places], center=[0, 0])

    changes: dict[str, Callable[[], Any]] = {
        "shear_x": lambda: sheared(1, 0),
        "shear_y": lambda: sheared(0, 1),
        "translate_x": lambda: affine([int(150 / 331 * width * part), 0]),
        "translate_y": lambda: affine([0, int(150 / 331 * height * part)]),
        "rotate": lambda: F.rotate(images, 30 * part),
        "brightness": lambda: F.adjust_brightness(images, 1 + 0.9 * part),
        "color": lambda: F.adjust_saturation(images, 1 + 0.9 * part),
        "contrast": lambda: F.adjust_contrast(images, 1 + 0.9 * part),
        "sharpness": lambda: F.adjust_sharpness(images, 1 + 0.9 * part),
        "posterize": lambda: F.posterize(images, 8 - round(4 * part)),
        "solarize": lambda: F.solarize(images, 255 * (1 - part)),
        "auto_contrast": lambda: F.autocontrast(images),
        "equalize": lambda: F.equalize(images),
    }
    result: Tensor = changes[operation]()
    return result
