"""A trained run as one document of plain values: what a page needs to compute the network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from math import isfinite, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscape import geometry
from convscape.base.errors import ConfigError
from convscape.geometry.kinds import Layer
from convscape.geometry.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Pool,
)
from convscape.geometry.plan import LayerPlan
from convscape.geometry.residual import Residual, Subsample
from convscape.geometry.sliding import Sliding
from convscape.geometry.window import Shape
from convscape.living import fitting, unlike
from convscape.models import modules
from convscape.models.classifier import ImageClassifier
from convscape.trained.explain import Chosen
from convscape.trained.load import TrainedRun

# what a browser can compute while a slider moves: about half a second, 60 MB of numbers
MAX_MACS = 500_000_000
MAX_ACTIVATIONS = 4_000_000
MAX_PARAMETERS = 4_000_000  # 21 MB of text
MAX_LAYERS = 300
MAX_CLASSES = 200
MAX_IMAGE_BYTES = 2**20
IMAGES_PER_CLASS = 10
MAX_LOOKED_AT = 2_000  # test images that are searched for mistakes

# static/engine.js has one function for each of these
KINDS: dict[type[Layer], str] = {
    Conv: "conv",
    Pool: "pool",
    GlobalPool: "global_pool",
    Flatten: "flatten",
    Dense: "dense",
    BatchNorm: "batch_norm",
    Activation: "activation",
    Dropout: "dropout",
    Residual: "residual",
    Subsample: "subsample",
}
POOLS = ("max", "avg", "blur", "aps")


def obstacle(run: TrainedRun) -> str | None:
    """Why a page cannot compute this network, in a sentence; None if it can."""
    model = run.model
    plan = model.plan if isinstance(model, ImageClassifier) else None
    is_ours = isinstance(model, ImageClassifier) and (
        type(model).forward is ImageClassifier.forward
        and type(model).normalize is ImageClassifier.normalize
    )
    if plan is None or not is_ours:
        return f"only the code of {type(model).__name__} says what it computes"
    assert isinstance(model, ImageClassifier)
    if (channels := plan.input_shape[0]) not in (1, 3):
        return f"its images have {channels} channels, and a page can only draw one or three"
    for row in plan.all_layers:
        kind = type(row.layer)
        is_known = kind in KINDS and getattr(row.layer, "kind", "max") in POOLS
        if not is_known or type(model.network.get_submodule(row.name)) not in _known_modules():
            return (
                f"layer {row.name} ({row.layer.describe()}) is of a kind that a page cannot compute"
            )
    for count, most, what in (
        (plan.num_parameters, MAX_PARAMETERS, "parameters"),
        (plan.macs, MAX_MACS, "MACs for one image"),
        (plan.num_activations, MAX_ACTIVATIONS, "activations"),
        (len(plan.all_layers), MAX_LAYERS, "layers"),
        (len(run.classes), MAX_CLASSES, "classes"),
    ):
        if count > most:
            return f"the network has {count:,} {what}, and a page can compute up to {most:,}"
    return None


def _known_modules() -> set[type[nn.Module]]:
    ours = (modules.Conv2d, modules.BatchNorm1d, modules.BatchNorm2d, modules.GlobalPool)
    others = (modules.Residual, modules.Subsample, nn.Flatten, nn.Linear, nn.Dropout)
    pools = (modules.MaxPool2d, modules.AvgPool2d, modules.BlurPool2d, modules.PolyphasePool2d)
    return {*ours, *others, *pools, *modules.ACTIVATIONS.values()}


def missing_data(run: TrainedRun) -> str | None:
    """Why there are no images for the page to show, in a sentence; None if there are some."""
    try:
        return None if run.image_set is not None else ""
    except ConfigError as error:
        return str(error)


@torch.no_grad()
def document(run: TrainedRun, chosen: Chosen | None = None) -> dict[str, Any]:
    """Everything that the page stores; tensors are base64 of float32, pixels base64 of bytes.

    - `chosen`: the image that the page opens with.

    Without its data, a run has no images and no measure of how unlike them an input is.
    """
    model = run.model.cpu().float().eval()
    assert isinstance(model, ImageClassifier)
    plan = model.plan
    assert plan is not None
    has_data = missing_data(run) is None
    return {
        "title": run.path.name,
        "run": run.path.name,
        "words": f"{len(plan.all_layers)} layers, {plan.num_parameters:,} parameters, "
        f"{plan.macs:,} MACs",
        "classes": run.classes,
        "data": run.data_name if has_data else run.config.data.name,
        **network(model),
        "images": _images(run, model) if has_data else _packed_images(run, [], [], []),
        "chosen": None if chosen is None else _chosen(chosen),
        "fitting": fitting.facts(run),
        "unlike": unlike.facts(run) if has_data else {},
    }


def network(model: ImageClassifier) -> dict[str, Any]:
    """What a network computes: the shape of its input, the normalisation, and the layers."""
    assert model.plan is not None
    channels = model.plan.input_shape[0]
    return {
        "input": list(model.plan.input_shape),
        "normalize": {
            "scale": _finite(model.scale.expand(channels, 1, 1)),
            "shift": _finite(model.shift.expand(channels, 1, 1)),
        },
        "layers": layers_of(model.plan.layers, model.network),
    }


def layers_of(rows: Iterable[LayerPlan], network: nn.Module) -> list[dict[str, Any]]:
    """A plan's layers with their tensors; `index` is the place in Plan.all_layers.

    `from` lists the indices of the layers that a layer reads, -1 for the input.
    """
    return _row(rows, network, -1, iter(range(2**31)))


def _row(
    rows: Iterable[LayerPlan], network: nn.Module, source: int, indices: Iterator[int]
) -> list[dict[str, Any]]:
    found = []
    for row in rows:
        index = next(indices)
        branches = [_row(branch, network, source, indices) for branch in row.branches]
        ends = [branch[-1]["index"] if branch else source for branch in branches]
        found.append(
            {
                "index": index,
                "from": ends or [source],
                "name": row.name,
                "kind": KINDS[type(row.layer)],
                "words": row.layer.describe(),
                "shape": _maps(row.output_shape),
                "reads": _maps(row.input_shape),
                "parameters": row.num_parameters,
                "macs": row.macs,
                "field": asdict(row.field),
                **_facts(row),
                "tensors": layer_tensors(network.get_submodule(row.name)),
                "branches": branches,
            }
        )
        source = index
    return found


def _maps(shape: Shape) -> list[int]:
    """A shape as (C, H, W), also that of a vector."""
    return [*shape, 1, 1][:3]


def _facts(row: LayerPlan) -> dict[str, Any]:
    """What the kind of layer needs besides its tensors."""
    layer, facts = row.layer, {}
    if isinstance(layer, Sliding):
        windows = layer.windows
        (top, bottom), (left, right) = (
            geometry.pad_amounts(row.input_shape[1 + axis], windows[axis]) for axis in range(2)
        )
        facts = {
            "kernel_size": list(layer.kernel_size),
            "stride": list(layer.stride),
            "dilation": list(layer.dilation),
            "pads": [top, bottom, left, right],
            "circular": layer.padding == "circular",
        }
    match layer:
        case Conv():
            facts["groups"] = layer.groups
        case Pool() | GlobalPool():
            facts["pool"] = layer.kind
        case Activation():
            facts["activation"] = layer.name
        case BatchNorm():
            facts["eps"] = 1e-5  # torch's default; none of our keys changes it
        case Subsample():
            facts["stride"] = list(layer.stride)
    return facts


def layer_tensors(module: nn.Module, dtype: str = "float32") -> dict[str, Any]:
    """A layer's own numbers, by their names in the page."""
    found = {name: parameter for name, parameter in module.named_parameters(recurse=False)}
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        assert module.running_mean is not None
        assert module.running_var is not None
        found |= {"mean": module.running_mean, "variance": module.running_var}  # type: ignore[dict-item]
    return {name: packed(values, dtype) for name, values in found.items()}


def packed(values: Tensor, dtype: str = "float32") -> dict[str, Any]:
    """A tensor as base64 of little-endian numbers, `dtype` float32 or float16."""
    array = values.detach().numpy().astype(np.dtype(dtype).newbyteorder("<"))
    return {"dtype": dtype, "shape": list(values.shape), "data": _base64(array)}


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def _finite(values: Tensor) -> list[float | None]:
    """Numbers for JSON, which has only finite ones."""
    return [value if isfinite(value) else None for value in values.flatten().tolist()]


def _chosen(chosen: Chosen) -> dict[str, Any]:
    pixels = chosen.image.numpy().astype(np.uint8)
    return {"pixels": _base64(pixels), "name": chosen.name, "label": chosen.label}


def _images(run: TrainedRun, model: ImageClassifier) -> dict[str, Any]:
    """Some test images of each class, starting with those that the network gets wrong."""
    labels = run.data.labels("test")[:MAX_LOOKED_AT]
    images, _ = run.data.tensors("test", slice(MAX_LOOKED_AT))
    predicted = torch.cat([model(batch).argmax(1) for batch in images.split(256)])
    per_class = _per_class(len(run.classes), prod(run.image_shape))
    places = []
    for label in range(len(run.classes)):
        (those,) = torch.where(labels == label)
        order = (predicted[those] == label).int().argsort(stable=True)
        places += those[order][:per_class].tolist()
    return _packed_images(run, places, labels[places].tolist(), predicted[places].tolist())


def _packed_images(
    run: TrainedRun, places: list[int], labels: list[int], predicted: list[int]
) -> dict[str, Any]:
    """The test images at these indices, their classes and the network's answers."""
    pixels = run.data.tensors("test", torch.tensor(places))[0].numpy() if places else np.empty(0)
    return {
        "pixels": _base64(pixels),
        "labels": labels,
        "predicted": predicted,
        "places": places,
        "count": len(places),
    }


def _per_class(num_classes: int, image_bytes: int) -> int:
    """How many images of each class fit the page, possibly 0."""
    return min(IMAGES_PER_CLASS, MAX_IMAGE_BYTES // max(num_classes * image_bytes, 1))
