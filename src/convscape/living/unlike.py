"""How unlike the training data an input is, and how often an equally confident answer was right.

The measure is the Mahalanobis distance of the last hidden layer's values to the nearest class mean
(Lee et al. 2018, https://arxiv.org/abs/1807.03888). The covariance within the classes is given by
its largest directions and one variance for all others (Tipping and Bishop 1999). The values are
first scaled to length 1 (Mueller and Hein, "Mahalanobis++", ICML 2025): otherwise an input with
small values in every direction, such as a blank image, would lie in the middle of all images.
An input is called unlike the training images beyond a threshold that validation images exceed at
most at the stated rate: the conformal quantile (Vovk et al. 2005).
"""

from __future__ import annotations

import base64
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from convscape.geometry.layers import Dense
from convscape.models.classifier import ImageClassifier
from convscape.models.losses import gives_probabilities
from convscape.trained.load import TrainedRun

FALSE_ALARMS = 0.01  # of images from the validation distribution
MAX_LOOKED_AT = 2_000  # training images, and validation images
MAX_DIRECTIONS = 32
MAX_NUMBERS = 120_000  # numbers of means and directions in the page: 320 kB of text
BATCH = 256
LEVELS = (0.5, 0.7, 0.9, 0.97, 0.99, 0.999)  # of the largest probability


def facts(run: TrainedRun) -> dict[str, Any]:
    """Plain values for `static/unlike.js`; None for what cannot be measured for this network.

    - "measure": see `_measure`.
    - "levels", "sure": for each interval of the largest probability, how many validation images
      fall into it, and how many of those were right.
    """
    model = run.model
    nothing = {"measure": None, "sure": None}
    if not isinstance(model, ImageClassifier) or not len(run.data.indices["val"]):
        return nothing
    model = model.cpu().float().eval()
    found = _output(model)
    train, _, train_labels = _answers(run, model, found, "train")
    val, logits, val_labels = _answers(run, model, found, "val")
    if not torch.isfinite(logits).all():
        return nothing
    means = gives_probabilities(model)
    return {
        "measure": found and _measure(found[0], train, train_labels, val, len(run.classes)),
        "levels": list(LEVELS),
        "sure": _sure(logits, val_labels) if means else None,
    }


def _output(model: ImageClassifier) -> tuple[int, nn.Linear] | None:
    """The last dense layer, and the index in Plan.all_layers of the layer before it, or -1."""
    assert model.plan is not None
    tops = model.plan.layers
    places = [place for place, row in enumerate(tops) if type(row.layer) is Dense]
    if not places:
        return None
    module = model.network.get_submodule(tops[places[-1]].name)
    assert isinstance(module, nn.Linear)
    if places[-1] == 0:
        return -1, module
    before = tops[places[-1] - 1]
    return next(i for i, row in enumerate(model.plan.all_layers) if row is before), module


@torch.no_grad()
def _answers(
    run: TrainedRun, model: ImageClassifier, output: tuple[int, nn.Linear] | None, split: str
) -> tuple[np.ndarray, Tensor, np.ndarray]:
    """The inputs of the last dense layer (N, D), logits (N, K) and labels (N,) of images.

    If the split is larger than MAX_LOOKED_AT, the images are spread evenly over it.
    """
    step = max(1, ceil(len(run.data.indices[split]) / MAX_LOOKED_AT))
    images, labels = run.data.tensors(split, slice(None, None, step))
    read: list[Tensor] = []
    hooks = []
    if output is not None:
        hooks = [output[1].register_forward_pre_hook(lambda _, values: read.append(values[0]))]
    try:
        logits = torch.cat([model(batch) for batch in images.split(BATCH)])
    finally:
        for hook in hooks:
            hook.remove()
    values = torch.cat(read).numpy() if read else np.empty((len(labels), 0), np.float32)
    return values, logits, labels.numpy()


def _measure(
    layer: int, train: np.ndarray, labels: np.ndarray, val: np.ndarray, num_classes: int
) -> dict[str, Any] | None:
    """How to measure how unlike the training images an input is, and the threshold.

    "layer": the index of the layer whose values are measured, -1 for the normalised input; "means"
    (K, D), "directions" (M, D) and "deviations" (M,), "rest": the variance of all other directions;
    "threshold": of the distance; "false_alarms": the rate of validation images beyond it.
    """
    if train.shape[1] * (num_classes + 1) > MAX_NUMBERS or len(train) <= num_classes:
        return None
    measure = Measure(train, labels, num_classes)
    distances = np.sort(measure.distances(val))
    if not np.isfinite(distances).all():
        return None
    rank = min(ceil((1 - FALSE_ALARMS) * (len(distances) + 1)), len(distances))
    return {
        "layer": layer,
        "means": _packed(measure.means),
        "directions": _packed(measure.directions),
        "deviations": measure.deviations.tolist(),
        "rest": measure.rest,
        "threshold": float(distances[rank - 1]),
        "false_alarms": 1 - rank / (len(distances) + 1),
    }


class Measure:
    """The means of the classes, and the directions in which images of one class differ most.

    - `values`: (N, D), of training images with their `labels` (N,).
    """

    def __init__(self, values: np.ndarray, labels: np.ndarray, num_classes: int) -> None:
        values = _of_length_one(values)
        size = values.shape[1]
        present = [(labels == k).any() for k in range(num_classes)]
        self.means = _as_packed(
            np.stack(
                [
                    values[labels == k].mean(0) if present[k] else values.mean(0)
                    for k in range(num_classes)
                ]
            )
        )
        within = torch.from_numpy(values - self.means[labels])
        count = len(values) - num_classes
        most = min(MAX_DIRECTIONS, *within.shape, MAX_NUMBERS // size - num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the directions are found by random projections
            _, singular, directions = torch.svd_lowrank(within, q=most, niter=4)
        self.directions = _as_packed(directions.T.numpy())
        variances = singular.double().numpy() ** 2 / count
        total = float(within.double().square().sum()) / count
        rest = (total - float(variances.sum())) / max(size - most, 1)
        self.rest = max(rest, 1e-6 * total / size, 1e-12)
        self.deviations = np.sqrt(np.maximum(variances, self.rest))

    def distances(self, values: np.ndarray) -> np.ndarray:
        """The distance of each row (N, D) to the nearest class (N,)."""
        values = _of_length_one(values)
        found = np.full(len(values), np.inf)
        for mean in self.means:
            apart = values - mean
            along = apart @ self.directions.T
            outside = np.maximum((apart**2).sum(1) - (along**2).sum(1), 0)
            squared = ((along / self.deviations) ** 2).sum(1) + outside / self.rest
            found = np.minimum(found, squared)
        return np.sqrt(found / values.shape[1])


def _sure(logits: Tensor, labels: np.ndarray) -> list[list[int]]:
    """From each of LEVELS up to the next: how many images, and how many of them are right."""
    probabilities, predicted = logits.softmax(1).max(1)
    is_right = predicted.numpy() == labels
    level = np.digitize(probabilities.numpy(), LEVELS)
    return [
        [int((level == k).sum()), int(is_right[level == k].sum())] for k in range(len(LEVELS) + 1)
    ]


def _of_length_one(values: np.ndarray) -> np.ndarray:
    """The rows (N, D) scaled to length 1; rows of zeros stay."""
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    result: np.ndarray = values / np.where(lengths > 0, lengths, 1)
    return result


def _as_packed(values: np.ndarray) -> np.ndarray:
    """The values as the page stores them, at half the size."""
    return values.astype("<f2").astype(np.float32)


def _packed(values: np.ndarray) -> dict[str, Any]:
    data = base64.b64encode(values.astype("<f2").tobytes()).decode()
    return {"dtype": "float16", "shape": list(values.shape), "data": data}
