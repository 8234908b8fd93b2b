"""How large a network without a plan of its layers is: torchvision's, or a user's.

It is built and run without numbers, on torch's "meta" device, which costs no memory and no time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.base.quick_lightning import pl
from convscape.config.networks import OwnModelConfig
from convscape.geometry.window import InfeasibleGeometry
from convscape.models.answers import check_logits
from convscape.models.classifier import ImageClassifier
from convscape.training.build import own_module

if TYPE_CHECKING:
    from convscape.config.schema import Config

SIZES = (32, 64, 96, 128, 224, 299)  # of images that networks were made for


@dataclass(frozen=True)
class Size:
    """What a network costs for one image; MACs are None if it needs real numbers."""

    num_parameters: int
    macs: int | None


def size_of(config: Config) -> Size:
    """The size of the network that `config` names by `_target_`.

    Raises:
        ConfigError: if it cannot be found or built.
        InfeasibleGeometry: if one of torchvision's does not take the images, saying what it takes.
    """
    assert isinstance(config.model, OwnModelConfig)
    shape, num_classes = config.image_shape
    return _size_of(
        config.model.model_dump_json(by_alias=True),
        tuple(config.allow_packages),
        shape,
        num_classes,
    )


@lru_cache  # runs that differ in the seed share it
def _size_of(
    described: str, packages: tuple[str, ...], shape: tuple[int, int, int], num_classes: int
) -> Size:
    model = OwnModelConfig.model_validate_json(described)

    def build() -> nn.Module:
        return own_module(model, packages, shape, num_classes)

    try:
        with torch.device("meta"):
            built = build()
    except ConfigError:
        built = build()  # it may need real numbers; a real error shows again
    network = built.network if isinstance(built, ImageClassifier) else built
    size = measured(network, shape, num_classes)
    if size.macs is None and model.is_of_torchvision:
        raise InfeasibleGeometry(_why_not(network, model.title, shape, num_classes))
    return size


def measured(network: nn.Module, shape: Sequence[int], num_classes: int) -> Size:
    """Learned parameters, and multiplications by weights for one image of `shape` (C, H, W)."""
    count = sum(each.numel() for each in network.parameters() if each.requires_grad)
    try:
        return Size(count, _macs(network, shape, num_classes))
    except Exception:  # noqa: BLE001  a user's network may need real numbers
        return Size(count, None)


def _macs(network: nn.Module, shape: Sequence[int], num_classes: int) -> int:
    without_numbers = copy.deepcopy(network).to("meta").train()
    if isinstance(without_numbers, pl.LightningModule):
        without_numbers.eval()  # it may log
    counter = FlopCounterMode(display=False)
    with torch.device("meta"), torch.no_grad(), counter:
        # two images: batch norm refuses a single one
        logits = without_numbers(torch.empty(2, *shape))
    check_logits(logits, num_classes)
    return int(counter.get_total_flops()) // 2 // 2  # an addition comes with each multiplication


def _why_not(network: nn.Module, name: str, shape: tuple[int, int, int], num_classes: int) -> str:
    """Why one of torchvision's networks does not take images of `shape`, and which it takes."""
    try:
        _macs(network, shape, num_classes)
    except ConfigError as error:
        return f"model.name={name}: {error}; +model.aux_logits=false leaves a single output"
    except Exception as error:  # noqa: BLE001  whatever torch says
        why = parts.told(error)
    asked = "x".join(map(str, shape))
    for words, other in _others(shape):
        if measured(network, other, num_classes).macs is not None:
            return f"model.name={name} does not take images of {asked}; {words} works"
    return f"model.name={name} does not take images of {asked}: {why}"


def _others(shape: tuple[int, int, int]) -> Iterator[tuple[str, tuple[int, int, int]]]:
    channels, height, width = shape
    colour = {"": channels} | ({" data.channels=3": 3} if channels == 1 else {})
    for words, number in colour.items():
        if words:
            yield words.strip(), (number, height, width)
        for side in SIZES:
            if side > min(height, width):
                yield f"data.image_size={side}{words}", (number, side, side)
