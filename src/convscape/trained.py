"""Trained runs put to use: load one, measure it on a split, ask it about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscape import machine, models, pictures, run_data
from convscape.cache import DataError, ImageSet
from convscape.checkpoints import BROKEN, read_checkpoint
from convscape.config import Config, OwnModelConfig, check
from convscape.data import ImageDataModule
from convscape.errors import ConfigError, NotAllowed
from convscape.geometry import Plan, format_table
from convscape.runs import Result, RunFolder
from convscape.training import build_model, build_own, data_module, normalization, ours, uses_bf16
from convscape.values import shortened

if TYPE_CHECKING:
    import pandas as pd

# ends the sentence that refuses other data
OTHER_DATA = "; --other-data (in Python other_data=True) goes on with them all the same"
Z_95 = 1.959964  # the normal distribution's 97.5 % quantile
MOST_CLASSES_IN_MATRIX = 20  # more columns do not fit on a terminal


@dataclass(repr=False)
class TrainedRun:
    """A run's `config`, and its network `model` with the weights of the chosen checkpoint.

    The model is in eval mode. `data`, `image_set`, `result`, `metrics` and `history` are read when
    they are asked for. `other_data`: whether the data may be others than it was trained on.
    """

    path: Path
    config: Config
    model: nn.Module
    other_data: bool = False

    @cached_property
    def image_set(self) -> ImageSet:
        """The data set that it was trained on, or another one that fits.

        Raises:
            DataError: if it is not there, or is another one and none is asked for.
        """
        image_set = run_data.load_images(self.config)
        if self.other_data:
            run_data.check_other(image_set, self.image_shape, self.classes)
        else:
            classes = self.classes if isinstance(self.model, models.ImageClassifier) else ()
            run_data.check_same(image_set, self._known, classes, OTHER_DATA)
        return image_set

    @cached_property
    def _known(self) -> Result | None:
        return RunFolder(self.path).read_result()

    @property
    def _dataset(self) -> dict[str, Any]:
        """What the run knows of its data; nothing of runs made before they noted it."""
        return self._known.dataset if self._known is not None else {}

    @cached_property
    def data(self) -> ImageDataModule:
        """Its splits."""
        return data_module(self.config, self.image_set, macs=None)

    @property
    def result(self) -> Result:
        """What its result.json holds: status, metrics, sizes, times, environment."""
        result = RunFolder(self.path).read_result()
        if result is None:
            raise ConfigError(f"{self.path} has no result.json that can be read")
        return result

    @property
    def metrics(self) -> dict[str, float]:
        """Losses, and accuracies from 0 to 1, of the chosen checkpoint: val/acc, test/acc ..."""
        return self.result.metrics

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch.

        Raises:
            ConfigError: if it is missing or damaged.
        """
        import pandas as pd

        file = RunFolder(self.path).history_file
        try:
            return pd.read_csv(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None

    def __str__(self) -> str:
        result = RunFolder(self.path).read_result()
        metrics = result.metrics if result is not None else {}
        return ", ".join([str(self.path), *(f"{k} {value:.4f}" for k, value in metrics.items())])

    __repr__ = __str__  # what a Python prompt shows

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the logits."""
        own = self.model.classes if isinstance(self.model, models.ImageClassifier) else ()
        return list(own or self._dataset.get("classes") or self.image_set.classes)

    @property
    def label_names(self) -> list[str]:
        """Of its data: the classes, or where other data have others "lynx as cat"."""
        pairs = zip(self.image_set.classes, self.classes, strict=True)
        return [label if label == name else f"{label} as {name}" for label, name in pairs]

    @property
    def data_name(self) -> str:
        """Its data set, and whether it is another one than it was trained on."""
        known = self._known.data_checksum if self._known is not None else None
        is_other = known not in (None, self.image_set.checksum)
        return self.config.data.name + " (other images than it was trained on)" * is_other

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        plan = getattr(self.model, "plan", None)
        known = plan.input_shape if isinstance(plan, Plan) else self._dataset.get("image_shape")
        if known is None:
            return run_data.load_images(self.config).train_images.shape[1:]
        channels, height, width = known
        return channels, height, width

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and std per channel that it was trained with, of values scaled to 0..1."""
        known = self._dataset
        return (
            (known["mean"], known["std"]) if known else normalization(self.config, self.image_set)
        )

    @property
    def brightness(self) -> float:
        """Mean of the training images' pixels, 0..1."""
        if isinstance(self.model, models.ImageClassifier):
            return float((-self.model.shift / self.model.scale).mean() / 255)
        return float(np.mean(self.normalization[0]))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) on the CPU, of uint8 images (N, C, H, W), in one batch."""
        images = images.to(self.device)
        if not isinstance(self.model, models.ImageClassifier):
            mean, std = (
                torch.tensor(values, device=self.device).view(-1, 1, 1)
                for values in self.normalization
            )
            images = (images / 255 - mean) / std
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._uses_bf16):
            return self.model(images).float().cpu()

    @cached_property
    def _uses_bf16(self) -> bool:
        """As it was trained."""
        plan = getattr(self.model, "plan", None)
        return uses_bf16(self.config, plan if isinstance(plan, Plan) else None)

    def loss(self, logits: Tensor, labels: Tensor) -> float:
        """Mean loss of logits (N, K) for labels (N,), as in training."""
        if isinstance(self.model, models.ImageClassifier):
            return float(self.model.loss(logits, labels))
        return float(F.cross_entropy(logits, labels))


def load_run(
    path: str | Path,
    allow_packages: Sequence[str] = (),
    *,
    root: str | None = None,
    cache_dir: str | None = None,
    other_data: bool = False,
) -> TrainedRun:
    """The run in the folder `path`, ready to use.

    Nothing in the folder can run code: the checkpoint holds plain values, and a class of one's own
    is built only from a package in `allow_packages`.

    - `root`, `cache_dir`: where its data are now, if not where they were.
    - `other_data`: whether they may be others than it was trained on, which is refused otherwise.

    Raises:
        ConfigError: if it is no run, or has no checkpoint that can be read.
    """
    machine.keep_freed_memory()
    folder = RunFolder(Path(path))
    given = {"root": root, "cache_dir": cache_dir}
    places = {key: str(place) for key, place in given.items() if place is not None}
    stored = run_data.with_places(folder.read_config(), places)
    try:
        config = check(stored | {"allow_packages": list(allow_packages)})
    except NotAllowed as error:
        raise ConfigError(error.as_option) from None
    if not folder.best_checkpoint.is_file():
        result = folder.read_result()
        status = f"; its status is {result.status}" if result is not None else ""
        raise ConfigError(f"{path} has no checkpoints/best.ckpt{status}")
    checkpoint = read_checkpoint(folder.best_checkpoint)
    own = _own_model(config, folder) if isinstance(config.model, OwnModelConfig) else None
    try:
        model = own or _rebuilt(config, checkpoint)
        model.load_state_dict(checkpoint["state_dict"])
    except BROKEN as error:
        why = shortened(" ".join(str(error).split()) or type(error).__name__)
        raise ConfigError(
            f"{folder.best_checkpoint} does not hold the network of config.yaml: {why}"
        ) from None
    if torch.cuda.is_available() and config.trainer.device != "cpu":
        model.to("cuda")
    return TrainedRun(folder.path, config, model.eval(), other_data)


def _own_model(config: Config, folder: RunFolder) -> nn.Module:
    """Built from what the run noted of its data, or from the data themselves."""
    assert isinstance(config.model, OwnModelConfig)
    known = folder.read_result()
    if known is None or not known.dataset:
        image_set = run_data.load_images(config)
        return build_model(config, image_set, data_module(config, image_set, None))
    facts = known.dataset
    training = {key: facts[key] for key in ("mean", "std", "classes")}
    shape, num_classes = facts["image_shape"], len(facts["classes"])
    return build_own(config.model, config.allow_packages, shape, num_classes, training)


def _rebuilt(config: Config, checkpoint: dict[str, Any]) -> models.PlannedClassifier:
    """The network of a checkpoint, tried out on one image; raises one of `BROKEN`."""
    assert not isinstance(config.model, OwnModelConfig)
    model: models.PlannedClassifier = ours(config.model.target)(**checkpoint["hyper_parameters"])
    shape = run_data.image_shape(config) or model.plan.input_shape
    black = torch.zeros(1, *shape, dtype=torch.uint8)
    with torch.inference_mode():
        num_classes = model.eval()(black).shape[1]
    if len(model.classes) != num_classes or not all(isinstance(n, str) for n in model.classes):
        raise ValueError(f"{len(model.classes)} names for {num_classes} classes")
    return model


# --- evaluation -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluation:
    """Metrics of a split; `confusion[t, p]` counts images of class t that were taken for p."""

    split: str
    data: str
    classes: list[str]
    loss: float
    confusion: np.ndarray

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
        """Fraction of right answers for each class; None for one without images."""
        counts = self.confusion.sum(1)
        hits = np.diag(self.confusion)
        return [h / n if n else None for h, n in zip(hits.tolist(), counts.tolist(), strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "data": self.data,
            "split": self.split,
            "num_images": self.num_images,
            f"{self.split}/loss": self.loss,
            f"{self.split}/acc": self.acc,
            f"{self.split}/acc_interval_95": list(wilson_interval(self.acc, self.num_images)),
            "classes": self.classes,
            "class_acc": self.class_acc,
            "confusion": self.confusion.tolist(),
        }

    def __str__(self) -> str:
        low, high = wilson_interval(self.acc, self.num_images)
        lines = [
            f"{self.split} split of {self.data}: {self.num_images:,} images",
            f"accuracy {100 * self.acc:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f}), "
            f"loss {self.loss:.4f}",
            "",
            format_table([("class", "images", "right", "taken for"), *self._class_rows()], (1, 2)),
        ]
        if len(self.classes) <= MOST_CLASSES_IN_MATRIX:
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


def evaluate(run: TrainedRun, split: str = "test") -> Evaluation:
    """Metrics of `run` on "train", "val" or "test".

    Raises:
        ConfigError: if the split has no images.
    """
    labels = run.data.labels(split)
    if not len(labels):
        raise ConfigError(f"--split {split}: the run has no such images (data.val_size=0)")
    # batch by batch: all images together may be larger than memory
    batches = torch.arange(len(labels)).split(run.config.data.eval_batch_size)
    logits = torch.cat([run.logits(run.data.tensors(split, batch)[0]) for batch in batches])
    num_classes = logits.shape[1]
    pairs = labels.long() * num_classes + logits.argmax(1)
    confusion = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    return Evaluation(
        split, run.data_name, run.label_names, run.loss(logits, labels), confusion.numpy()
    )


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """95 % interval of a fraction of `count` images (Wilson 1927, doi 10.2307/2276774)."""
    spread = Z_95**2 / count
    centre = (fraction + spread / 2) / (1 + spread)
    half = Z_95 * (fraction * (1 - fraction) / count + spread / (4 * count)) ** 0.5 / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)


# --- prediction -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """What the network says of one picture.

    - `fitted`: what was done to the picture first.
    - `looks_inverted`: whether its negative would be closer to the training images' brightness.
    """

    path: Path
    fitted: str
    looks_inverted: bool
    probabilities: dict[str, float]  # by class, the most probable first

    @property
    def label(self) -> str:
        """The most probable class."""
        return next(iter(self.probabilities))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "path": str(self.path),
            "class": self.label,
            "probability": self.probabilities[self.label],
            "probabilities": self.probabilities,
            "fitted": self.fitted,
        }


def find_picture_files(paths: Sequence[Path]) -> tuple[list[Path], int]:
    """Picture files: those named, and all those in the folders named, at any depth.

    The number is of the other files in these folders, which are left out.

    Raises:
        ConfigError: if a path is missing or a folder holds no picture.
    """
    found: list[Path] = []
    num_others = 0
    for path in paths:
        if path.is_dir():
            files = [f for f in sorted(path.rglob("*")) if f.is_file() and f.name[0] != "."]
            inside = [f for f in files if f.suffix.lower() in pictures.SUFFIXES]
            num_others += len(files) - len(inside)
            if not inside:
                raise ConfigError(f"{path} holds no pictures ({', '.join(pictures.SUFFIXES)})")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ConfigError(f"there is no picture or folder {path}")
    return found, num_others


def read_picture(run: TrainedRun, path: str | Path, invert: bool) -> tuple[Tensor, str, bool]:
    """A picture file as the network takes it: uint8 (C, H, W); and in words how it came to be that.

    `invert` swaps dark and light. The last says whether the negative of what comes out would be
    closer to the training images' brightness.

    Raises:
        DataError: if it cannot be read.
    """
    shape, usual = run.image_shape, run.brightness
    pixels = pictures.read_picture(path, shape)
    fitted = pictures.describe_fit(path, shape)
    if invert:
        pixels, fitted = 255 - pixels, f"{fitted}, dark and light swapped"
    brightness = pixels.mean() / 255
    looks_inverted = abs(1 - brightness - usual) + 0.2 < abs(brightness - usual)
    return torch.from_numpy(pixels.copy()), fitted, bool(looks_inverted)


def warning_of_negatives(count: int, total: int) -> str:
    """That so many of the pictures look inverted, and what to do."""
    those = (
        "the picture looks like a negative"
        if total == 1
        else (f"{count} of {total} pictures look like negatives")
    )
    return f"{those} beside the training images; --invert swaps dark and light"


def predict(
    run: TrainedRun, paths: Sequence[Path], invert: bool = False
) -> Iterator[Prediction | DataError]:
    """For each picture its prediction, or why it cannot be read; `invert` swaps dark and light."""
    for path in paths:
        try:
            image, fitted, looks_inverted = read_picture(run, path, invert)
        except DataError as error:
            yield error
            continue
        chances = run.logits(image[None]).softmax(1)[0]
        order = chances.argsort(descending=True).tolist()
        named = {run.classes[label]: float(chances[label]) for label in order}
        yield Prediction(path, fitted, looks_inverted, named)


def answers(
    run: TrainedRun, paths: Sequence[Path], top: int, invert: bool
) -> tuple[list[dict[str, Any]], str, list[DataError]]:
    """Predictions as JSON values and as a table, and the pictures that cannot be read."""
    predictions: list[Prediction] = []
    errors: list[DataError] = []
    for answer in predict(run, paths, invert):
        if isinstance(answer, Prediction):
            predictions.append(answer)
        else:
            errors.append(answer)
    rows = [("picture", "class", "probability", "or", "fitted")]
    for one in predictions:
        chances = list(one.probabilities.items())[:top]
        others = ", ".join(f"{name} {100 * chance:.1f} %" for name, chance in chances[1:])
        rows.append((str(one.path), one.label, f"{100 * chances[0][1]:.1f} %", others, one.fitted))
    table = format_table(rows, right_aligned=(2,)) if predictions else ""
    if num_inverted := sum(one.looks_inverted for one in predictions):
        table += f"\n{warning_of_negatives(num_inverted, len(predictions))}"
    return [one.as_dict() for one in predictions], table, errors
