"""Metrics of a trained run on a split, with intervals, confusions and mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convscape.base.errors import ConfigError
from convscape.base.terminal import format_table
from convscape.base.values import counted
from convscape.models.classifier import ImageClassifier
from convscape.models.sums import MetricSums
from convscape.runs.folder import RunFolder
from convscape.runs.predictions import SPLITS, Answers, read_answers, write_answers
from convscape.trained.temperature import Temperature, apply_temperature
from convscape.training.build import build_metrics
from convscape.training.predictions import are_probabilities, as_predictions

if TYPE_CHECKING:
    from convscape.trained.load import TrainedRun


Z_95 = 1.959964  # the normal distribution's 97.5 % quantile
MAX_CLASSES_IN_MATRIX = 20  # more columns do not fit on a terminal


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split; `confusion[t, p]` counts images of class t classified as p."""

    run: str
    split: str
    data: str
    classes: list[str]
    loss: float
    confusion: np.ndarray
    # metrics that the config adds, such as f1
    metrics: dict[str, float] = field(default_factory=dict)
    temperature: Temperature | None = None
    flip: bool = False  # whether answers are averaged over each image and its mirror image
    weights: str = ""  # which ones, where they are not those that were trained

    @property
    def num_images(self) -> int:
        """All images of the split."""
        return int(self.confusion.sum())

    @property
    def acc(self) -> float:
        """Fraction of right answers."""
        return float(np.trace(self.confusion) / self.num_images)

    @property
    def class_acc(self) -> list[float | None]:
        """Fraction of right answers per class; None for a class without images."""
        counts = self.confusion.sum(1)
        correct = np.diag(self.confusion)
        return [
            h / n if n else None for h, n in zip(correct.tolist(), counts.tolist(), strict=True)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "num_images": self.num_images,
            "flip": self.flip,
            "weights": "averaged" if self.weights else "trained",
            f"{self.split}/loss": self.loss,
            f"{self.split}/acc": self.acc,
            **{f"{self.split}/{name}": value for name, value in self.metrics.items()},
            f"{self.split}/acc_interval_95": list(wilson_interval(self.acc, self.num_images)),
            "classes": self.classes,
            "class_acc": self.class_acc,
            "confusion": self.confusion.tolist(),
            "temperature": None if self.temperature is None else vars(self.temperature),
        }

    def __str__(self) -> str:
        low, high = wilson_interval(self.acc, self.num_images)
        lines = [
            f"{self.split} split of {self.data}: {counted(self.num_images, 'image')}"
            + ", each together with its mirror image" * self.flip
            + f", with {self.weights}" * bool(self.weights),
            f"accuracy {100 * self.acc:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}), "
            + ", ".join(f"{k} {v:.4f}" for k, v in {"loss": self.loss, **self.metrics}.items()),
            *([] if self.temperature is None else [str(self.temperature)]),
            "",
            format_table([("class", "images", "right", "taken for"), *self._class_rows()], (1, 2)),
        ]
        if len(self.classes) <= MAX_CLASSES_IN_MATRIX:
            rows = [
                (name, *(str(count) if count else "." for count in row))
                for name, row in zip(self.classes, self.confusion.tolist(), strict=True)
            ]
            columns = range(1, len(self.classes) + 1)
            lines += ["", "confusion matrix (a row per true class, a column per answer)"]
            lines += [format_table([("", *self.classes), *rows], tuple(columns))]
        return "\n".join(lines)

    def _class_rows(self) -> Iterator[tuple[str, ...]]:
        for label, (name, acc) in enumerate(zip(self.classes, self.class_acc, strict=True)):
            row = self.confusion[label]
            mistakes = [p for p in np.argsort(-row, kind="stable") if p != label and row[p]]
            taken_for = ", ".join(f"{self.classes[p]} ({row[p]})" for p in mistakes[:3])
            right = "-" if acc is None else f"{100 * acc:.1f} %"
            yield name, f"{row.sum():,}", right, taken_for


def evaluate(
    run: TrainedRun, split: str = "test", *, with_temperature: bool = False, flip: bool = False
) -> Evaluation:
    """Metrics of `run` on "train", "val" or "test".

    If a finished run has no answers image by image, `predictions.npz` is written.

    - `flip`: average each answer with that for the mirror image; for test images of a run with
      trainer.test_flip that is always so.
    - `with_temperature`: also fit the temperature of its confidence on the validation images.

    Raises:
        ConfigError: if the split has no images, or there are none to fit the temperature on.
    """
    if with_temperature and split == "val":
        raise ConfigError(
            "--temperature: it is fitted on the validation images; allowed: --split test, train"
        )
    labels = run.data.labels(split)
    if not len(labels):
        raise ConfigError(f"--split {split}: the run has no such images (data.val_size=0)")
    is_asked_so = _is_flipped(run, split)
    flip = flip or is_asked_so
    logits = _logits(run, split, flip)
    _keep_answers(run, {split: logits} if flip is is_asked_so else {})
    num_classes = logits.shape[1]
    pairs = labels.long() * num_classes + logits.argmax(1)
    confusion = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    sums = MetricSums()
    config = run.config
    sums.metrics = build_metrics(config.metrics, num_classes, config.allow_packages)
    loss = run.loss(logits, labels)
    sums.add([torch.tensor(loss)], [logits], [labels])
    return Evaluation(
        str(run.path),
        split,
        run.data_name,
        run.label_names,
        loss,
        confusion.numpy(),
        {name: float(value) for name, value in sums.measured().items()},
        _temperature(run, logits, labels, flip) if with_temperature else None,
        flip,
        run.weights,
    )


def _is_flipped(run: TrainedRun, split: str) -> bool:
    """Whether the run itself averages these answers with those for the mirror images."""
    is_ours = isinstance(run.model, ImageClassifier)
    return is_ours and run.config.trainer.test_flip and split == "test"


def _temperature(run: TrainedRun, logits: Tensor, labels: Tensor, flip: bool) -> Temperature:
    """The temperature, fitted on the validation images, and its effect on these logits (N, K)."""
    if not len(run.data.indices["val"]):
        raise ConfigError("--temperature: it is fitted on validation images, and there are none")
    pairs = [(_logits(run, "val", flip), run.data.labels("val")), (logits, labels)]
    if not isinstance(run.model, ImageClassifier) and are_probabilities(logits):
        pairs = [(rows.clamp_min(1e-12).log(), own) for rows, own in pairs]
    return apply_temperature(*pairs)


def _logits(run: TrainedRun, split: str, flip: bool) -> Tensor:
    """Logits of all images of a split (N, K), batch by batch to save memory."""
    batches = torch.arange(len(run.data.indices[split])).split(run.config.data.eval_batch_size)
    tensors = (run.data.tensors(split, batch)[0] for batch in batches)
    return torch.cat([run.logits(images, flip=flip) for images in tensors])


def _keep_answers(run: TrainedRun, known: dict[str, Tensor]) -> None:
    """Write `predictions.npz` if it is missing and the folder is writable.

    - `known`: logits by split; the others are computed.
    """
    folder, data = RunFolder(run.path), run.image_set.checksum
    result = folder.read_result()
    if result is None or result.status != "ok" or result.data_checksum not in (None, data):
        return
    wanted = {split for split in SPLITS if len(run.data.indices[split])}
    before = read_answers(run.path)
    if before is not None and before.splits.keys() >= wanted:
        return
    is_ours = isinstance(run.model, ImageClassifier)
    splits = {
        split: as_predictions(
            known[split] if split in known else _logits(run, split, _is_flipped(run, split)),
            run.data.labels(split).long(),
            is_ours,
        )
        for split in SPLITS
        if split in wanted
    }
    if any(predictions.wrong_part() for predictions in splits.values()):
        return  # not finite
    with suppress(OSError):
        write_answers(folder, Answers(splits, data))


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """95 % interval of a fraction of `count` images (Wilson 1927, doi 10.2307/2276774)."""
    spread = Z_95**2 / count
    centre = (fraction + spread / 2) / (1 + spread)
    half = Z_95 * (fraction * (1 - fraction) / count + spread / (4 * count)) ** 0.5 / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
