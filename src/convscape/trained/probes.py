"""What a trained network does when its images are shifted, permuted, occluded, or it is pruned.

A probe takes a run, images (N, C, H, W) and labels (N,), and returns plain values: `numbers` to
compare and average, and what its figure shows. Nothing is trained.
"""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.files import make_folder, write_atomic
from convscape.base.values import hint
from convscape.data import variants
from convscape.drawing import sheets
from convscape.trained.answers import MAX_SHOWN, read_answer
from convscape.trained.load import TrainedRun, load_run

Logits = Callable[[Tensor], Tensor]
ProbeResult = dict[str, Any]

BATCH_SIZE = 256
FRACTIONS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)  # of all weights
TOLERATED = 0.01  # the accuracy that pruning may cost: one point


def ask(
    run: TrainedRun, name: str, num_images: int = 1000, split: str = "test", **settings: Any
) -> ProbeResult:
    """The answer of the probe `name` on the first images of a split, `settings` included.

    Raises:
        ConfigError: if there is no such probe or setting, or it does not apply.
    """
    check_settings(name, run.image_shape, settings)
    count = min(num_images, len(run.data.indices[split]))
    if not count:
        raise ConfigError(f"probe {name}: the {split} split has no images")
    # the splits are stored in their original order, which may be class by class
    chosen = torch.linspace(0, len(run.data.indices[split]) - 1, count).round().long()
    images, labels = run.data.tensors(split, chosen)
    asked = {"probe": name, "split": split, "num_images": count, **settings}
    return {"asked": asked, **PROBES[name](run, images, labels, **settings)}


def check_settings(
    name: str, image_shape: tuple[int, int, int], settings: Mapping[str, Any]
) -> None:
    """Refuse probes and settings that do not apply to images (C, H, W).

    Raises:
        ConfigError: if there is no such probe or setting, or a value is out of its range.
    """
    if name not in PROBES:
        raise ConfigError(
            f"there is no probe {name!r}; allowed: {', '.join(PROBES)}{hint(name, PROBES)}"
        )
    parameters = list(inspect.signature(PROBES[name]).parameters.values())[3:]
    known = {parameter.name: parameter.default for parameter in parameters}
    for key in settings:
        if key not in known:
            raise ConfigError(f"probe {name}: {key}: allowed: {', '.join(known)}{hint(key, known)}")
    _, height, width = image_shape
    if name == "canvas" and height != width:
        raise ConfigError(f"probe canvas: it needs square images, these are {height}x{width}")
    side = min(height, width)
    ranges: dict[str, tuple[float, float]] = {
        **{"max": (1, side - 1), "size": (1, side), "sides": (2, side), "step": (1, side)},
        **{"clutter": (0, 100), "shown": (1, MAX_SHOWN), "seed": (0, 2**32)},
        **{"fractions": (0, 0.999)},
    }
    for key, value in (known | dict(settings)).items():
        if value is None:
            continue
        low, high = ranges[key]
        for entry in value if isinstance(value, tuple | list) else [value]:
            if not low <= entry <= high:
                raise ConfigError(
                    f"probe {name}: {key}={entry}: allowed: {low:g} to {high:g}"
                    f", for images of {height}x{width}"
                )


def ask_and_keep(
    path: Path,
    name: str,
    num_images: int,
    split: str,
    *,
    allow_packages: Sequence[str] = (),
    places: Mapping[str, str] | None = None,
    other_data: bool = False,
    out: Path | None = None,
    **settings: Any,
) -> ProbeResult:
    """The answer for the run in the folder `path`, kept as `<name>.json` in the folder `out`.

    That is its `probes` folder unless given. An answer to the same question is not computed again.
    `allow_packages`, `places` and `other_data` are as `load_run` takes them.

    Raises:
        CannotWrite: if it cannot be written.
    """
    folder, within = (path / "probes", path) if out is None else (out, out)
    file = folder / f"{name}.json"
    wanted = {"probe": name, "split": split, "num_images": num_images, **settings}
    if other_data:
        wanted["other_data"] = dict(places or {})
    if name in PROBES and (kept := read_answer(file, json.loads(json.dumps(wanted)))) is not None:
        return kept
    run = load_run(path, allow_packages, other_data=other_data, **(places or {}))
    answer = ask(run, name, num_images, split, **settings)
    try:
        make_folder(folder, within=within)
        write_atomic(file, json.dumps({"wanted": wanted, **answer}), within=within)
    except OSError as error:
        raise CannotWrite(folder, error, "--out <folder>") from None
    return answer


def shift(
    run: TrainedRun, images: Tensor, labels: Tensor, max: int = 8, step: int = 2
) -> ProbeResult:
    """Accuracy with every image moved by up to `max` pixels in each direction; black fills in.

    `acc` is for a grid of shifts, and `shift/consistency` the chance that two of these copies of an
    image get the same answer. `shift/acc_N` is the mean over eight directions at N pixels; diagonal
    shifts are as long, to the nearest whole pixel.
    """
    step = min(step, max)
    reach = max // step * step
    offsets = list(range(-reach, reach + 1, step))

    @cache
    def predictions(down: int, right: int) -> Tensor:
        return classify(run.logits, shifted(images, down, right))

    grid = [[predictions(down, right) for right in offsets] for down in offsets]
    numbers = {}
    for distance in range(0, reach + 1, step):
        aside = round(distance / 2**0.5)
        ring = [
            *((distance, 0), (-distance, 0), (0, distance), (0, -distance)),
            *((aside, aside), (aside, -aside), (-aside, aside), (-aside, -aside)),
        ]
        acc = [accuracy(predictions(*place), labels) for place in ring]
        numbers[f"shift/acc_{distance}"] = float(np.mean(acc))
    numbers["shift/consistency"] = consistency(torch.stack([a for row in grid for a in row]))
    return {
        "numbers": numbers,
        "offsets": offsets,
        "acc": [[accuracy(each, labels) for each in row] for row in grid],
    }


def permute(run: TrainedRun, images: Tensor, labels: Tensor, seed: int = 0) -> ProbeResult:
    """Accuracy on images with their pixels in a new order, which the network has never seen."""
    permuted_images = torch.from_numpy(variants.permuted(images.numpy(), seed))
    numbers = {
        "permute/acc_before": accuracy(classify(run.logits, images), labels),
        "permute/acc": accuracy(classify(run.logits, permuted_images), labels),
    }
    return {"numbers": numbers}


def canvas(
    run: TrainedRun,
    images: Tensor,
    labels: Tensor,
    sides: tuple[int, ...] | None = None,
    clutter: int = 0,
) -> ProbeResult:
    """Accuracy with the image scaled to `sides` and put in a random place on a black canvas."""
    if sides is None:
        sides = tuple(round(images.shape[2] * share) for share in (1, 0.85, 0.7, 0.55, 0.4))
    numbers = {}
    for side in sides:
        size = (side, side)
        small = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        if images.dtype == torch.uint8:
            small = small.round().clamp(0, 255).to(torch.uint8)
        rng = np.random.default_rng(side)
        laid = torch.from_numpy(variants.on_canvas(small.numpy(), images.shape[2], clutter, rng))
        numbers[f"canvas/acc_{side}"] = accuracy(classify(run.logits, laid), labels)
    return {"numbers": numbers, "sides": list(sides)}


def occlude(
    run: TrainedRun,
    images: Tensor,
    labels: Tensor,
    size: int = 6,
    step: int = 2,
    shown: int = 8,
) -> ProbeResult:
    """How much less probable the true class becomes with a grey square over each place.

    `maps` (N, rows, columns) are for the first `shown` images, `occlude/largest_drop` for all.
    """
    height, width = images.shape[2:]
    before = true_class_probability(run.logits, images, labels)
    grey = round(255 * run.brightness)
    tops, lefts = range(0, height - size + 1, step), range(0, width - size + 1, step)
    maps = torch.zeros(len(images), len(tops), len(lefts))
    for row, top in enumerate(tops):
        for column, left in enumerate(lefts):
            covered = images.clone()
            covered[:, :, top : top + size, left : left + size] = grey
            after = true_class_probability(run.logits, covered, labels)
            maps[:, row, column] = before - after
    return {
        "numbers": {"occlude/largest_drop": float(maps.amax((1, 2)).mean())},
        "maps": maps[:shown].tolist(),
        "images": sheets.viewable(images[:shown].numpy()).tolist(),
        "labels": [run.label_names[label] for label in labels[:shown].tolist()],
    }


def prune(
    run: TrainedRun, images: Tensor, labels: Tensor, fractions: tuple[float, ...] = FRACTIONS
) -> ProbeResult:
    """Accuracy without the smallest weights, of all conv and dense layers together.

    `prune/removable` is the largest fraction that costs at most one point.
    """
    acc = []
    for fraction in fractions:
        pruned = replace(run, model=without_smallest_weights(run.model, fraction))
        acc.append(accuracy(classify(pruned.logits, images), labels))
    kept = [f for f, a in zip(fractions, acc, strict=True) if a >= acc[0] - TOLERATED]
    return {
        "numbers": {"prune/removable": float(np.max(kept))},
        "fractions": list(fractions),
        "acc": acc,
    }


PROBES: Mapping[str, Callable[..., ProbeResult]] = {
    "shift": shift,
    "permute": permute,
    "canvas": canvas,
    "occlude": occlude,
    "prune": prune,
}


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Images (N, C, H, W) moved by this many pixels; zeros fill in."""
    height, width = images.shape[2:]
    moved = torch.zeros_like(images)
    rows, columns = (_overlap(size, by) for size, by in ((height, down), (width, right)))
    moved[:, :, rows.target, columns.target] = images[:, :, rows.source, columns.source]
    return moved


@dataclass(frozen=True)
class _Overlap:
    """The part of a shifted axis that remains: where it was and where it goes."""

    source: slice
    target: slice


def _overlap(size: int, by: int) -> _Overlap:
    kept = max(0, size - abs(by))
    return _Overlap(slice(max(0, -by), max(0, -by) + kept), slice(max(0, by), max(0, by) + kept))


def classify(logits: Logits, images: Tensor) -> Tensor:
    """The answers (N,), batch by batch."""
    return torch.cat([logits(batch).argmax(1) for batch in images.split(BATCH_SIZE)])


def true_class_probability(logits: Logits, images: Tensor, labels: Tensor) -> Tensor:
    """Softmax probability (N,) of each image's own class."""
    probabilities = torch.cat([logits(batch).softmax(1) for batch in images.split(BATCH_SIZE)])
    return probabilities.gather(1, labels[:, None])[:, 0]


def accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Fraction of right answers."""
    return float((predictions == labels).double().mean())


def consistency(predictions: Tensor) -> float:
    """Chance that two different copies of an image get the same answer; answers (copies, N)."""
    copies = len(predictions)
    counts = F.one_hot(predictions.T).sum(1)  # (N, K): how many copies got each class
    agreeing = (counts * (counts - 1)).sum(1)
    return float((agreeing / (copies * (copies - 1))).mean())


def without_smallest_weights(model: nn.Module, fraction: float) -> nn.Module:
    """A copy with the smallest `fraction` of all conv and dense weights set to 0."""
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)  # pruning needs it
    layers = [
        (module, "weight")
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    if fraction and layers:
        method = torch_prune.L1Unstructured
        torch_prune.global_unstructured(layers, pruning_method=method, amount=fraction)
        for module, name in layers:
            torch_prune.remove(module, name)
    return model


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """`["max=8", "sides=20,12"]` as {"max": 8, "sides": (20, 12)}; --max=8 and --max 8 work too.

    Raises:
        ConfigError: if a word is not name=number.
    """
    settings: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            word = word[2:] if "=" in word else f"{word[2:]}={next(rest, '')}"
        name, _, text = word.partition("=")
        try:
            numbers = [float(part) if "." in part else int(part) for part in text.split(",")]
        except ValueError:
            raise ConfigError(f"{word!r}: allowed: <setting>=<number>, such as max=8") from None
        settings[name] = tuple(numbers) if name in ("sides", "fractions") else numbers[0]
    return settings
