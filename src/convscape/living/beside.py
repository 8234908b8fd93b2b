"""A second network on the page of a run; it gets the same images."""

from __future__ import annotations

from typing import Any

import torch

from convscape.base.errors import ConfigError
from convscape.living import fitting
from convscape.living.document import network, obstacle
from convscape.models.classifier import ImageClassifier
from convscape.trained.load import TrainedRun


def facts(run: TrainedRun, other: TrainedRun) -> dict[str, Any]:
    """What the page stores about the other network.

    Raises:
        ConfigError: if a page cannot compute one of them, or they cannot take the same image.
    """
    for each in (run, other):
        if (reason := obstacle(each)) is not None:
            raise ConfigError(f"{each.path} cannot be shown next to another run: {reason}")
    for what, one, two in (
        ("images of", "x".join(map(str, run.image_shape)), "x".join(map(str, other.image_shape))),
        ("the classes", ", ".join(run.classes), ", ".join(other.classes)),
    ):
        if one != two:
            raise ConfigError(
                f"{run.path} has {what} {one}, and {other.path} {two}: one image cannot go through "
                "both; give two runs on the same data"
            )
    if fitting.facts(run)["order"] != fitting.facts(other)["order"]:
        raise ConfigError(
            f"{run.path} and {other.path} have the pixels of an image in different orders: one "
            "image cannot go through both; give two runs with the same data.change"
        )
    model = other.model.cpu().float().eval()
    assert isinstance(model, ImageClassifier)
    plan = model.plan
    assert plan is not None
    layers = f"{len(plan.all_layers)} layers, {plan.num_parameters:,} parameters"
    words = f"{layers}, {plan.macs:,} MACs"
    return {"run": other.path.name, "words": words, "right": None, **network(model)}


@torch.no_grad()
def num_right(other: TrainedRun, images: dict[str, Any], data: TrainedRun) -> int | None:
    """How many of a page's test images the other network gets right; None without images."""
    if not images["count"]:
        return None
    pixels, labels = data.data.tensors("test", torch.tensor(images["places"]))
    return int((other.model(pixels).argmax(1) == labels).sum())
