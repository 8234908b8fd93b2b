"""Pixels: rounded to the type of a data set, and normalised for a network.

Normalised means float32 with zero mean and unit standard deviation per channel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def as_kept(images: Tensor, values: Tensor) -> Tensor:
    """New values in the type of `images`: bytes, or floats, which are not limited to 255."""
    return values.round_().clamp_(0, 255).to(torch.uint8) if images.dtype == torch.uint8 else values


def standardized(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(pixel / 255 - mean) / std of uint8 images (N, C, H, W), as float32."""
    shift, deviation = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (mean, std))
    return (images / 255 - shift) / deviation


def scale_and_shift(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """The same as pixel * scale + shift: two tensors (C, 1, 1)."""
    deviation = torch.tensor(std)
    scale, shift = 1 / (255 * deviation), -torch.tensor(mean) / deviation
    return scale.view(-1, 1, 1), shift.view(-1, 1, 1)
