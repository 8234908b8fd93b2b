"""One image through your own network: a page with every map and the numbers behind each unit."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor, nn

from convscape import geometry
from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.files import make_folder, write_atomic
from convscape.base.pages import styled
from convscape.data.pixels import scale_and_shift, standardized
from convscape.drawing import sheets
from convscape.geometry.layers import Activation, BatchNorm, Conv, Dense, GlobalPool, Pool
from convscape.geometry.plan import LayerPlan
from convscape.geometry.residual import Subsample
from convscape.geometry.sliding import Sliding
from convscape.models.answers import check_forward, check_logits
from convscape.models.classifier import ImageClassifier
from convscape.models.modules import BlurPool2d, PolyphasePool2d
from convscape.trained.load import TrainedRun
from convscape.trained.predict import read_picture

MAX_MAPS = 64  # per layer; more are sampled
MAX_VALUES = 2**16  # in a layer's maps
MIN_MAPS = 4
MAX_UNITS = 128  # of a dense layer
MAX_TERMS = 16  # in a dense unit's sum; the others are added up
MAX_CLASSES = 20  # in the table of probabilities


@dataclass(frozen=True)
class Chosen:
    """An image (C, H, W) of 0 to 255, its name, its class if known, whether it looks inverted."""

    image: Tensor
    name: str
    label: int | None = None
    looks_inverted: bool = False


def choose_image(run: TrainedRun, text: str, split: str, invert: bool = False) -> Chosen:
    """A picture file or an index into a split; `invert` swaps dark and light.

    Raises:
        ConfigError: if there is no such image.
    """
    if not text.removeprefix("-").isdigit():
        image, name, looks_inverted = read_picture(run, text, invert)
        return Chosen(image, name, None, looks_inverted)
    index, count = int(text), len(run.data.indices[split])
    if not 0 <= index < count:
        raise ConfigError(f"there is no image {index} in the {split} split: it has {count:,}")
    (image,), (label,) = run.data.tensors(split, slice(index, index + 1))
    name = f"image {index} of the {split} split"
    if run.other_data:
        name += f", {run.label_names[int(label)]}"
    if invert:
        image, name = 255 - image, f"{name}, dark and light swapped"
    return Chosen(image, name, int(label))


def write_page(run: TrainedRun, image: Tensor, name: str, label: int | None, path: Path) -> None:
    """Write the page for an image (C, H, W), whose class is `label` if known.

    Raises:
        ConfigError: if a user's network returns something other than logits.
        CannotWrite: if the page cannot be written.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("convscape.trained", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    document = explanation(run, image, name, label)
    # "</script>" would end the script element, "<!--<script>" would keep it open
    data = json.dumps(document, separators=(",", ":")).replace("<", "\\u003c")
    page = environment.get_template("explain.html.j2").render(
        data=data, title=document["title"], base_style=Markup(styled(""))
    )
    try:
        make_folder(path.parent, within=path.parent)
        write_atomic(path, page, within=path.parent)
    except OSError as error:
        raise CannotWrite(path.parent, error, "--out <page>.html") from None


@torch.no_grad()
def explanation(run: TrainedRun, image: Tensor, name: str, label: int | None) -> dict[str, Any]:
    """Everything that the page shows, as plain values; tensors are base64 of float32."""
    check_forward(run.model)
    on_cpu = run.device.type == "cpu"
    model = (run.model if on_cpu else copy.deepcopy(run.model).cpu()).float().eval()
    plan = model.plan if isinstance(model, ImageClassifier) else None
    if isinstance(model, ImageClassifier):
        inputs = model.normalize(image[None])
        network, scale, shift = model.network, model.scale, model.shift
    else:  # a user's LightningModule
        inputs = standardized(image[None], *run.normalization)
        network, (scale, shift) = model, scale_and_shift(*run.normalization)
    way = _Way(network, image, inputs, scale, shift)
    if plan is not None:
        values, _ = way.through(plan.layers, inputs, 0)
        what = f"{len(plan.all_layers)} layers, {plan.num_parameters:,} parameters"
    else:
        values = way.watched(inputs)
        check_logits(values, len(run.classes))
        what = (
            f"the modules of {type(network).__name__} in the order in which they are called; only "
            "its code says how they are connected"
        )
    layers = way.layers
    layers[-1]["classes"] = [run.classes[unit] for unit in layers[-1]["shown"]]
    probabilities = values.softmax(1)[0]
    order = probabilities.argsort(descending=True)[:MAX_CLASSES].tolist()
    return {
        "title": f"{run.path.name}: {name}",
        "network": what,
        "classes": [run.classes[index] for index in order],
        "order": order,
        "num_classes": len(probabilities),
        "label": None if label is None else run.classes[label],
        "logits": values[0][order].tolist(),
        "exp_sum": float((values[0] - values.max()).exp().sum()),
        "largest": float(values.max()),
        "probabilities": probabilities[order].tolist(),
        "image": {
            "shape": list(image.shape),
            "pixels": _packed(image),
            "seen": sheets.which_channels(len(image)).removeprefix("; "),
        },
        "layers": layers,
    }


class _Maps:
    """Which channels are shown: those of a conv layer are kept until their number changes."""

    def __init__(self, chosen: range | np.ndarray) -> None:
        self.chosen = np.asarray(chosen)

    def choose(self, shape: tuple[int, ...]) -> None:
        """Choose as many of the maps (C, H, W) as fit on the page."""
        num, height, width = shape
        count = min(num, MAX_MAPS, max(MIN_MAPS, MAX_VALUES // (height * width)))
        self.chosen = _spread(num, count)

    def of(self, values: Tensor) -> dict[str, Any]:
        """Shape and values of a layer's output (1, C, H, W) or (1, F)."""
        shape = list(values.shape[1:])
        shown = _spread(shape[0], MAX_UNITS) if values.ndim == 2 else self.chosen
        return {
            "shape": shape,
            "shown": shown.tolist(),
            "values": _packed(values[0][torch.from_numpy(shown)]),
        }


class _Way:
    """An image's path through a network, and what the page shows of each layer along it."""

    def __init__(
        self, network: nn.Module, image: Tensor, inputs: Tensor, scale: Tensor, shift: Tensor
    ) -> None:
        self._network, self._image_shape = network, image.shape
        self._maps = _Maps(range(image.shape[0]))
        self.layers: list[dict[str, Any]] = [
            {
                **{"name": "input", "kind": "input", "what": "pixels, normalised per channel"},
                **{"from": [], "depth": 0},
                "field": {"size": [1, 1], "stride": [1, 1], "padding": [0, 0]},
                "scale": scale.flatten().tolist(),
                "shift": shift.flatten().tolist(),
                **self._maps.of(inputs),
            }
        ]

    def through(
        self, rows: Iterable[LayerPlan], values: Tensor, source: int, depth: int = 0
    ) -> tuple[Tensor, int]:
        """The output of consecutive layers for `values`, and the index of the last of them.

        `layers[source]` produces `values`. Layers inside a layer come before it: it is the sum of
        the last one of each branch.
        """
        for row in rows:
            sources, chosen = [], []
            before = self._maps.chosen
            for branch in row.branches:
                self._maps.chosen = before
                sources.append(self.through(branch, values, source, depth + 1)[1])
                chosen.append(self._maps.chosen)
            self._maps.chosen = chosen[0] if chosen else before
            module = self._network.get_submodule(row.name)
            inputs, values = values, module(values)
            facts = _layer(row, module, inputs, values, self._maps, self._image_shape)
            self.layers.append({**facts, "from": sources or [source], "depth": depth})
            source = len(self.layers) - 1
        return values, source

    def watched(self, inputs: Tensor) -> Tensor:
        """A user's network's output; the outputs of its innermost modules are recorded."""

        def put_down(name: str, module: nn.Module, values: Any) -> None:
            if not isinstance(values, Tensor) or values.ndim not in (2, 4) or len(values) != 1:
                return
            if values.ndim == 4 and values.shape[1] != self.layers[-1]["shape"][0]:
                self._maps.choose(tuple(values.shape[1:]))
            place = len(self.layers)
            self.layers.append(
                {
                    **{"name": name, "kind": "watched", "what": type(module).__name__},
                    **{"from": [place - 1], "depth": 0, "field": None},
                    "parameters": sum(each.numel() for each in module.parameters()),
                    **self._maps.of(values.clone()),  # the next one may change it in place
                }
            )

        handles = [
            module.register_forward_hook(
                lambda module, _, values, name=name: put_down(name, module, values)
            )
            for name, module in self._network.named_modules()
            if name and not any(True for _ in module.children())
        ]
        try:
            answer: Tensor = self._network(inputs)
        finally:
            for handle in handles:
                handle.remove()
        last = self.layers[-1]
        if not isinstance(answer, Tensor) or last["shape"] != list(answer.shape[1:]):
            put_down("output", self._network, answer)
        return answer


def _layer(
    row: LayerPlan,
    module: nn.Module,
    before: Tensor,
    after: Tensor,
    maps: _Maps,
    image_shape: torch.Size,
) -> dict[str, Any]:
    layer = row.layer
    facts: dict[str, Any] = {
        "name": row.name,
        "kind": type(layer).__name__,
        "what": layer.describe(),
        "parameters": row.num_parameters,
        "field": asdict(row.field),
    }
    if isinstance(layer, Sliding):
        windows = layer.windows
        pads = [geometry.pad_amounts(row.input_shape[1 + a], windows[a]) for a in range(2)]
        facts |= {
            "kernel_size": list(layer.kernel_size),
            "stride": list(layer.stride),
            "dilation": [window.dilation for window in windows],
            "pad": [pad[0] for pad in pads],
            "circular": layer.padding == "circular",
        }
    inputs = maps.chosen
    num_maps = row.output_shape[0] if after.ndim == 4 else None
    is_new = num_maps not in (None, row.input_shape[0]) and not row.branches
    if isinstance(layer, Conv) or is_new:
        maps.choose(row.output_shape)
    match layer:  # of any other kind the page only shows the values
        case Conv():
            assert isinstance(module, nn.Conv2d)
            facts["groups"] = layer.groups
            facts["inputs"] = inputs.tolist()
            facts["weights"] = _packed(_dense_weights(module, layer)[maps.chosen][:, inputs])
            if module.bias is not None:
                facts["bias"] = module.bias[torch.from_numpy(maps.chosen)].tolist()
        case Pool(kind) | GlobalPool(kind):
            facts["pool"] = kind
            if isinstance(module, PolyphasePool2d):
                _, (chosen,) = module.choose(before)
                facts["grid"] = divmod(int(chosen), module.pool.stride[1])
            elif isinstance(module, BlurPool2d):
                facts["weights"] = _packed(module.kernel)
        case Activation(name):
            facts["function"] = name
        case BatchNorm():
            assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
            facts |= _batch_norm(module, maps.chosen if after.ndim == 4 else None)
        case Subsample(stride):
            facts["stride"] = list(stride)
        case Dense():
            assert isinstance(module, nn.Linear)
            facts |= _dense(module, before[0], image_shape)
    return facts | maps.of(after)


def _dense_weights(module: nn.Conv2d, conv: Conv) -> Tensor:
    """Weights (out, in, h, w) with zeros between groups."""
    outputs, inputs = module.out_channels, module.in_channels
    weights = torch.zeros(outputs, inputs, *conv.kernel_size)
    per_group = inputs // conv.groups
    for output in range(outputs):
        first = output // (outputs // conv.groups) * per_group
        weights[output, first : first + per_group] = module.weight[output]
    return weights


def _batch_norm(
    module: nn.BatchNorm2d | nn.BatchNorm1d, chosen: np.ndarray | None
) -> dict[str, Any]:
    which = torch.from_numpy(_spread(module.num_features, MAX_UNITS) if chosen is None else chosen)
    assert module.running_mean is not None
    assert module.running_var is not None
    return {
        "mean": module.running_mean[which].tolist(),
        "var": module.running_var[which].tolist(),
        "gamma": module.weight[which].tolist(),
        "beta": module.bias[which].tolist(),
        "eps": module.eps,
    }


def _dense(module: nn.Linear, inputs: Tensor, image_shape: torch.Size) -> dict[str, Any]:
    """For each shown unit its largest terms and, if applied to the image, its weights."""
    shown = torch.from_numpy(_spread(module.out_features, MAX_UNITS))
    weights = module.weight[shown]
    products = weights * inputs
    top = products.abs().topk(min(MAX_TERMS, module.in_features), dim=1).indices
    facts = {
        "num_inputs": module.in_features,
        "num_terms": top.shape[1],
        "terms": top.flatten().tolist(),
        "term_inputs": _packed(inputs[top]),
        "term_weights": _packed(weights.gather(1, top)),
    }
    if module.bias is not None:
        facts["bias"] = module.bias[shown].tolist()
    if module.in_features == image_shape.numel() and len(shown) * module.in_features <= 2**19:
        facts["templates"] = _packed(weights)
        facts["template_shape"] = list(image_shape)
    return facts


def _spread(num: int, most: int) -> np.ndarray:
    """At most `most` of the indices below `num`, evenly spaced."""
    return np.linspace(0, num - 1, min(num, most)).round().astype(int)


def _packed(values: Tensor) -> str:
    return base64.b64encode(values.float().contiguous().numpy().tobytes()).decode()
