"""A network's answers: which modules give one, which outputs are valid, answering both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from convscape.base.errors import ConfigError
from convscape.base.quick_lightning import pl


def check_forward(module: nn.Module) -> None:
    """Refuse a LightningModule that only says in its steps how an image is classified.

    Raises:
        ConfigError: saying what to add.
    """
    if type(module).forward is pl.LightningModule.forward:
        raise ConfigError(
            f"{type(module).__name__} has no forward, so it cannot classify an image; add "
            "`def forward(self, images)` that returns logits: the checkpoint stays as it is"
        )


def check_logits(logits: Any, num_classes: int) -> None:
    """Refuse a user's network's outputs that are not logits (N, num_classes).

    Raises:
        ConfigError: saying what they are.
    """
    if not isinstance(logits, Tensor):
        found = f"a {type(logits).__name__}"
    elif logits.ndim != 2 or logits.shape[1] != num_classes:
        found = f"a tensor ({', '.join(['N', *map(str, logits.shape[1:])])})"
    else:
        return
    raise ConfigError(
        f"the network answers N images with {found}; allowed: logits (N, {num_classes}), one for "
        "each class"
    )


def both_ways(answer: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Logits (N, K) of images (N, C, H, W): the mean over each image and its mirror image."""
    return (answer(images) + answer(images.flip(3))) / 2
