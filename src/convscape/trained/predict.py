"""Classes and probabilities of picture files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from convscape.base.errors import ConfigError
from convscape.base.terminal import format_table
from convscape.data import pictures
from convscape.data.cache import DataError
from convscape.models.losses import gives_probabilities

if TYPE_CHECKING:
    from convscape.trained.load import TrainedRun


NO_PROBABILITIES = (
    "the network was trained with model.loss=logits_mse, to outputs of 0 and 1: their softmax is "
    "nearly flat, and does not measure how sure it is; the order of the classes is correct"
)


@dataclass(frozen=True)
class Prediction:
    """The network's answer for one picture.

    - `fitted`: how the picture was adapted first.
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

    Also the number of other files in these folders, which are left out.

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
    """A picture file as the network takes it, uint8 (C, H, W), and how it was adapted, in words.

    A file <name>.npy holds an image (C, H, W) with its data set's original values. `invert` swaps
    dark and light. The last value says whether the negative of the result would be closer to the
    training images' brightness.

    Raises:
        DataError: if it cannot be read.
    """
    shape, usual = run.image_shape, run.brightness
    if Path(path).suffix == ".npy":
        pixels, fitted = _read_array(run, Path(path))
    elif shape[0] not in (1, 3):
        raise DataError(
            f"{str(path)!r}: a picture has one channel or three, and the network takes {shape[0]}; "
            f"allowed: an image {shape} that numpy.save wrote, <name>.npy"
        )
    else:
        pixels = pictures.read_picture(path, shape)
        fitted = pictures.describe_fit(path, shape)
        if run.stretch is not None:
            pixels, fitted = pixels.astype(np.float32), f"{fitted}, {run.stretch}"
    if invert:
        pixels, fitted = 255 - pixels, f"{fitted}, dark and light swapped"
    brightness = pixels.mean() / 255
    looks_inverted = abs(1 - brightness - usual) + 0.2 < abs(brightness - usual)
    return torch.from_numpy(pixels.copy()), fitted, bool(looks_inverted)


def _read_array(run: TrainedRun, path: Path) -> tuple[np.ndarray, str]:
    """An image (C, H, W) as the network takes it, and what it was, in words."""
    try:
        values = np.load(path, allow_pickle=False)
        values = values[None] if values.ndim == 2 else values
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read the array {str(path)!r}: {error}") from error
    is_number = values.dtype == np.uint8 if run.stretch is None else values.dtype.kind in "biuf"
    if values.shape != run.image_shape or not is_number or not np.isfinite(values).all():
        kind = "uint8" if run.stretch is None else "finite numbers"
        raise DataError(
            f"{str(path)!r} holds {values.dtype} {values.shape}; allowed: {kind} {run.image_shape}"
        )
    words = f"{values.dtype} {'x'.join(map(str, values.shape))}"
    if run.stretch is None:
        return values, words
    return run.stretch.pixels(values), f"{words}, {run.stretch}"


def warning_of_negatives(count: int, total: int) -> str:
    """The warning that this many pictures look inverted, and what to do."""
    those = (
        "the picture looks like a negative"
        if total == 1
        else (f"{count} of {total} pictures look like negatives")
    )
    return f"{those} compared with the training images; --invert swaps dark and light"


def predict(
    run: TrainedRun, paths: Sequence[Path], invert: bool = False
) -> Iterator[Prediction | DataError]:
    """Each picture's prediction, or why it cannot be read; `invert` swaps dark and light."""
    for path in paths:
        try:
            image, fitted, looks_inverted = read_picture(run, path, invert)
        except DataError as error:
            yield error
            continue
        probabilities = run.logits(image[None]).softmax(1)[0]
        order = probabilities.argsort(descending=True).tolist()
        named = {run.classes[label]: float(probabilities[label]) for label in order}
        yield Prediction(path, fitted, looks_inverted, named)


def predictions(
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
        probabilities = list(one.probabilities.items())[:top]
        others = ", ".join(
            f"{name} {100 * probability:.1f} %" for name, probability in probabilities[1:]
        )
        rows.append(
            (str(one.path), one.label, f"{100 * probabilities[0][1]:.1f} %", others, one.fitted)
        )
    table = format_table(rows, right_aligned=(2,)) if predictions else ""
    if table:
        notes = [] if gives_probabilities(run.model) else [NO_PROBABILITIES]
        table = "\n".join([table, *notes, *run.remarks])
    if num_inverted := sum(one.looks_inverted for one in predictions):
        table += f"\n{warning_of_negatives(num_inverted, len(predictions))}"
    return [one.as_dict() for one in predictions], table, errors
