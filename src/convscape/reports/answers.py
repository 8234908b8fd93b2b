"""What answers image by image tell: one network's errors, and two networks' differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from convscape.base.errors import ConfigError
from convscape.reports.figures import COLORS, figure_style
from convscape.reports.statistics import CONFIDENCE
from convscape.runs.predictions import Predictions, read_answers

if TYPE_CHECKING:
    from convscape.reports.results import RunTable

NUM_BINS = 15  # of confidence: Guo et al. 2017, https://arxiv.org/abs/1706.04599
NUM_RESAMPLES = 20_000


def accuracy_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """95 % interval of an accuracy for the error of the images (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(num_correct, num_images).proportion_ci(CONFIDENCE, method="wilson")
    return float(found.low), float(found.high)


def check_same_images(one: Predictions, other: Predictions) -> None:
    """Refuse answers on different images.

    Raises:
        ConfigError: if the labels are not the same.
    """
    if not np.array_equal(one.labels, other.labels):
        raise ConfigError(
            f"the answers are not on the same images: their labels differ ({len(one):,} and "
            f"{len(other):,} images); allowed: runs with one test set"
        )


def num_images(table: RunTable, split: str | None) -> int | None:
    """Number of images of a split on which a table's runs have kept answers; None if unknown."""
    if any(key.name.startswith("data.val") for key in table.keys) or table.ok["fold"].nunique() > 1:
        return None  # not the same for all runs
    for folder in table.ok["folder"]:
        if (found := read_answers(Path(folder))) is not None:
            return len(found.splits[split]) if split and split in found.splits else None
    return None


@dataclass(frozen=True)
class McNemar:
    """Two networks on the same images.

    - `only_first`, `only_second`: images that only one of them gets right.
    - `p`: p-value of McNemar's exact test of 1947 (doi 10.1007/BF02295996), two-sided.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Predictions, second: Predictions) -> McNemar:
    """Whether one of two networks gets more of the same images right than chance explains."""
    from scipy.stats import binomtest

    check_same_images(first, second)
    only_first = int((first.correct & ~second.correct).sum())
    only_second = int((second.correct & ~first.correct).sum())
    count = only_first + only_second
    p = float(binomtest(only_first, count).pvalue) if count else 1.0
    return McNemar(only_first, only_second, p)


def paired_bootstrap(differences: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean of `differences` (N,), one for each image, over other images.

    The percentiles of the mean over N images drawn from these with replacement (Efron 1979). For
    images with equal differences only their count is drawn, which is equivalent.
    """
    values, counts = np.unique(differences, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(
        len(differences), counts / len(differences), NUM_RESAMPLES
    )
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(draws @ values / len(differences), [tail, 100 - tail])
    return float(low), float(high)


def right_rate(runs: Sequence[Predictions]) -> np.ndarray:
    """Share of the runs that get each image right (N,)."""
    for other in runs[1:]:
        check_same_images(runs[0], other)
    rate: np.ndarray = np.mean([each.correct for each in runs], axis=0)
    return rate


def always_wrong(runs: Sequence[Predictions]) -> np.ndarray:
    """Indices of the images that no run gets right."""
    return np.flatnonzero(right_rate(runs) == 0)


def disagreements(first: Predictions, second: Predictions) -> np.ndarray:
    """Indices of the images that two networks answer differently."""
    check_same_images(first, second)
    return np.flatnonzero(first.predicted != second.predicted)


def ensemble(runs: Sequence[Predictions]) -> np.ndarray:
    """The class with the most votes for each image (N,); ties go to the highest confidence."""
    right_rate(runs)  # the same images
    num_classes = 1 + max(int(each.predicted.max()) for each in runs)
    answers, rows = np.arange(len(runs[0])), np.zeros((len(runs[0]), num_classes))
    for each in runs:
        # the confidences of all runs add up to less than one vote
        rows[answers, each.predicted.astype(int)] += 1 + each.confidence / (2 * len(runs))
    best: np.ndarray = rows.argmax(1)
    return best


@dataclass(frozen=True)
class Calibration:
    """How often answers given with a certain confidence are right.

    - `counts`, `confidence`, `acc` (B,): of each bin of equal width; means of empty bins are nan.
    - `error`: expected calibration error: mean of |acc - confidence| over images.
    """

    counts: np.ndarray
    confidence: np.ndarray
    acc: np.ndarray
    error: float


def calibration(predictions: Predictions, num_bins: int = NUM_BINS) -> Calibration:
    """Confidence and accuracy in bins of confidence (left open, right closed)."""
    confidence = predictions.confidence.astype(np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = [
        np.bincount(bins, weights, num_bins) for weights in (confidence, predictions.correct * 1.0)
    ]
    with np.errstate(invalid="ignore"):
        means = [each / counts for each in sums]
    error = float(np.abs(sums[0] - sums[1]).sum() / len(predictions))
    return Calibration(counts, means[0], means[1], error)


def reliability_diagram(named: dict[str, Predictions]) -> Figure:
    """Accuracy against confidence, a line per name; on the diagonal both agree."""
    with figure_style():
        figure = Figure(figsize=(5.2, 4.4), layout="constrained")
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
        for (name, predictions), color in zip(named.items(), COLORS, strict=False):
            found = calibration(predictions)
            sizes = 10 + 150 * found.counts / found.counts.max()
            axis.plot(found.confidence, found.acc, color=color, linewidth=0.8)
            axis.scatter(found.confidence, found.acc, sizes, color=color, alpha=0.6, label=name)
        axis.set(xlabel="confidence of the answer", ylabel="share of right answers")
        legend = axis.legend(loc="lower right")
        for handle in legend.legend_handles:
            handle.set_sizes([40])  # type: ignore[union-attr]
    return figure
