"""`predictions.npz`: a run's answers on each image of its validation and test split.

It holds four arrays per split and is read as an untrusted file: see `Predictions`. No torch.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from convscape.base.files import read_bytes, write_atomic
from convscape.runs.folder import RunFolder

SPLITS = ("val", "test")
MAX_BYTES = 2**28  # for the file, and for its unpacked content: about 25 million images
MAX_CLASSES = 2**31
CHECKSUM = "data_checksum"


@dataclass(frozen=True)
class Predictions:
    """Answers of one network on the N images of a split, in the order of the split.

    - `labels`, `predicted` (N,): class ids.
    - `probability` (N,): of the true class, 0..1.
    - `margin` (N,): that probability minus the largest of the other classes, -1..1; negative if the
      answer is wrong.
    """

    labels: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    margin: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """Whether each answer is right (N,)."""
        right: np.ndarray = self.labels == self.predicted
        return right

    @property
    def acc(self) -> float:
        """Fraction of right answers."""
        return float(self.correct.mean())

    @property
    def confidence(self) -> np.ndarray:
        """Probability of each answer (N,)."""
        return np.where(self.correct, self.probability, self.probability - self.margin)

    def wrong_part(self) -> str | None:
        """What is wrong with the arrays, in words; None if nothing."""
        arrays = [getattr(self, field.name) for field in fields(self)]
        if any(array.shape != self.labels.shape for array in arrays) or self.labels.ndim != 1:
            return "its arrays differ in length"
        if not len(self.labels):
            return "it holds no image"
        if any(array.dtype.kind not in "ui" for array in arrays[:2]):
            return "a class is not an integer"
        if any(array.dtype.kind != "f" for array in arrays[2:]):
            return "a probability is not a number"
        if min(self.labels.min(), self.predicted.min()) < 0 or (
            max(self.labels.max(), self.predicted.max()) >= MAX_CLASSES
        ):
            return "a class is out of range"
        # comparisons with nan are false
        if not ((self.probability >= 0) & (self.probability <= 1)).all():
            return "a probability is not in 0..1"
        if not ((self.margin >= -1) & (self.margin <= 1)).all():
            return "a margin is not in -1..1"
        if (np.where(self.correct, self.margin, -self.margin) < 0).any():
            return "a margin does not match its answer"
        return None


@dataclass(frozen=True)
class Answers:
    """A run's predictions by split, and the checksum of the data they are about."""

    splits: Mapping[str, Predictions]
    data_checksum: str


def write_answers(folder: RunFolder, answers: Answers) -> None:
    """Replace `predictions.npz`.

    Raises:
        OSError: if it cannot be written.
    """
    arrays = {CHECKSUM: np.array(answers.data_checksum)}
    for split, predictions in answers.splits.items():
        for field in fields(predictions):
            arrays[f"{split}_{field.name}"] = _compact(getattr(predictions, field.name))
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    write_atomic(folder.predictions_file, content.getbuffer(), within=folder.path)


def _compact(values: np.ndarray) -> np.ndarray:
    """Probabilities as float32, classes in as few bytes as the largest needs."""
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    largest = int(values.max(initial=0))
    return values.astype(np.min_scalar_type(largest))


def read_answers(path: Path) -> Answers | None:
    """The answers of the run in the folder `path`; None if missing or damaged."""
    try:
        return _parsed(read_bytes(RunFolder(path).predictions_file, MAX_BYTES))
    except (OSError, ValueError):
        return None


def _parsed(content: bytes) -> Answers:
    """The answers in a file's bytes.

    Raises:
        ValueError: if they are damaged.
    """
    arrays = _arrays(content)
    checksum = arrays.get(CHECKSUM)
    if checksum is None or checksum.dtype.kind != "U" or checksum.shape:
        raise ValueError("it does not say for which data")
    names = [field.name for field in fields(Predictions)]
    splits = {
        split: Predictions(*(arrays[f"{split}_{name}"] for name in names))
        for split in SPLITS
        if all(f"{split}_{name}" in arrays for name in names)
    }
    for predictions in splits.values():
        if (wrong := predictions.wrong_part()) is not None:
            raise ValueError(wrong)
    if not splits:
        raise ValueError("it holds no split")
    return Answers(splits, str(checksum))


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, none of which can be an object or larger than it says."""
    allowed = {f"{split}_{field.name}" for split in SPLITS for field in fields(Predictions)}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
            if not members.keys() <= allowed | {CHECKSUM}:
                raise ValueError("it holds something else")
            # zipfile unpacks no more of a member than its table of contents says
            if sum(member.file_size for member in members.values()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES / 2**20:g} MiB")
            return {name: _array(file.read(member)) for name, member in members.items()}
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
        *(OSError, TypeError, SyntaxError, OverflowError, MemoryError),
    ) as error:
        raise ValueError(f"it is damaged: {error}") from None


def _array(content: bytes) -> np.ndarray:
    """An array from the bytes of an .npy file, sharing their memory."""
    stream = io.BytesIO(content)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError("an array in it has another format version")
    shape, _, dtype = npy.read_array_header_1_0(stream)
    if dtype.kind not in "uifU" or dtype.itemsize > 1000:
        raise ValueError("an array in it holds no plain values")
    return np.frombuffer(stream.read(), dtype).reshape(shape)
