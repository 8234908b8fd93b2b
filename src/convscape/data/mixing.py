"""Images mixed in pairs, with soft labels: mixup and CutMix, drawn separately for each image.

Everything is drawn on the CPU, so that it is the same on every device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from convscape.data.pixels import as_kept


def mixed(
    images: Tensor, labels: Tensor, num_classes: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Images (N, C, H, W), each mixed with another one, and soft labels (N, num_classes).

    - `mixup`, `cutmix`: alpha of the Beta(alpha, alpha) distribution that shares are drawn from.
      0 switches it off; if neither is 0, each image gets one of the two with equal probability.
    """
    num, _, height, width = images.shape
    partner = torch.randperm(num)
    is_cut = torch.rand(num) < (0.5 if mixup and cutmix else float(cutmix > 0))
    own = torch.where(is_cut, _shares(cutmix, num), _shares(mixup, num))
    # the centre may be anywhere, the rectangle is clipped at the border: the code of Yun 2019
    rows, columns = ((torch.rand(num) * side).long() for side in (height, width))
    top, bottom = _span(rows, own, height)
    left, right = _span(columns, own, width)
    own = torch.where(is_cut, 1 - (bottom - top) * (right - left) / (height * width), own)
    device = images.device
    partner, is_cut, own, *box = (
        t.to(device) for t in (partner, is_cut, own, top, bottom, left, right)
    )
    others = images.index_select(0, partner)
    result = images
    if mixup:
        result = blended(images, others, own)
    if cutmix:
        pasted_images = pasted(images, others, *box)
        result = torch.where(is_cut[:, None, None, None], pasted_images, result)
    return result, shared(labels, labels.index_select(0, partner), own, num_classes)


def blended(images: Tensor, others: Tensor, own: Tensor) -> Tensor:
    """Image n times `own[n]` plus the rest of the other (Zhang 2018, arxiv.org/abs/1710.09412)."""
    share = own[:, None, None, None]
    return as_kept(images, images * share + others * (1 - share))


def pasted(
    images: Tensor, others: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor
) -> Tensor:
    """Image n with rows `top[n]` to `bottom[n]` and columns `left[n]` to `right[n]` of the other.

    The ends are exclusive (CutMix: Yun 2019, arxiv.org/abs/1905.04899).
    """
    height, width = images.shape[2:]
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device)
    in_rows = (y >= top[:, None]) & (y < bottom[:, None])
    in_columns = (x >= left[:, None]) & (x < right[:, None])
    return torch.where((in_rows[:, :, None] & in_columns[:, None, :])[:, None], others, images)


def shared(labels: Tensor, others: Tensor, own: Tensor, num_classes: int) -> Tensor:
    """Soft labels (N, num_classes): `own[n]` for `labels[n]`, the rest for `others[n]`."""
    soft = torch.zeros(len(labels), num_classes, device=labels.device)
    soft.scatter_add_(1, labels.long()[:, None], own[:, None].float())
    return soft.scatter_add_(1, others.long()[:, None], 1 - own[:, None].float())


def _shares(shape: float, num: int) -> Tensor:
    if not shape:
        return torch.ones(num)
    return torch.distributions.Beta(shape, shape).sample((num,))


def _span(centre: Tensor, own: Tensor, side: int) -> tuple[Tensor, Tensor]:
    half = ((1 - own).sqrt() * side).long() // 2
    return (centre - half).clamp(min=0), (centre + half).clamp(max=side)
