"""`result.json`: what it contains, and how an untrusted one is checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from convscape.base import files
from convscape.base.values import MAX_INTEGER
from convscape.config.earlier import read_config_as_before
from convscape.config.metrics import monitor_of
from convscape.runs.fingerprint import SECTIONS

if TYPE_CHECKING:
    from convscape.config.metrics import Metric


Status = Literal[
    "running", "ok", "infeasible", "diverged", "out_of_memory", "failed", "interrupted"
]
RESULT_FILE, BEST_CHECKPOINT = "result.json", "checkpoints/best.ckpt"  # in a run folder
EXIT_CODES: dict[Status, int] = {
    "ok": 0,
    "infeasible": 2,
    "diverged": 1,
    "out_of_memory": 1,
    "failed": 1,
    "interrupted": 130,
}


@dataclass
class Result:
    """The content of `result.json`; `status` is "running", with host and process, during the run.

    - `config`: every key with its value; `overrides`: what the user typed.
    - `num_parameters`, `macs` (per image), `receptive_field` (pixels, H and W): of the plan.
    - `metrics`: of the chosen checkpoint; losses, and accuracies from 0 to 1.
    - `best_epoch`: of the chosen checkpoint, counted from 1; `epochs`: finished.
    - `seconds`: of setup, fit (validation and checkpoints included) and test.
    - `samples_per_second`: training images per second of training, without validation.
    - `data_checksum`, `dataset`: of the training data: their checksum; `classes`, `image_shape` (C,
      H, W), `mean` and `std` per channel, of values scaled to 0..1; their `stretch` if they were
      not bytes, see `data.stretch`.
    - `attempts`: how often it was started since it last made progress.
    - `loaded`: layers that `init_from` loaded weights into.
    - `parent`: the `run` folder that it continues, and after how many `epochs` and `steps`.
    """

    run: str
    fingerprint: str
    status: Status = "running"
    error: dict[str, str] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)
    seed: int = 0
    num_parameters: int | None = None
    macs: int | None = None
    receptive_field: list[int] | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    best_epoch: int | None = None
    epochs: int = 0
    global_step: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    samples_per_second: float | None = None
    peak_memory_bytes: int | None = None
    checkpoint: str | None = None
    data_checksum: str | None = None
    dataset: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1
    parent: dict[str, Any] | None = None
    loaded: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: bytes) -> Result:
        """Parse what `RunFolder.write`, or a stranger, wrote.

        Raises:
            ValueError: naming what is missing or of the wrong kind.
        """
        document = files.plain_json(content)
        wrong = _wrong_part(document)
        if wrong is not None:
            raise ValueError(wrong)
        read_config_as_before(document["config"])
        return cls(**{key: document[key] for key in document if key in cls.__annotations__})

    @property
    def monitor(self) -> Metric | None:
        """The metric that chose its checkpoint; None: the last epoch."""
        return monitor_of(self.config)

    @property
    def why(self) -> str | None:
        """What ended the run; with the type of the error where the status does not say it."""
        if self.error is None:
            return None
        message = self.error["message"]
        return f"{self.error['type']}: {message}" if self.status == "failed" else message

    def fail(self, status: Status, error: BaseException) -> None:
        """Record how the run ended."""
        self.status = status
        self.error = {"type": type(error).__name__, "message": str(error)}


_KINDS = {
    "run": str, "fingerprint": str, "config": dict, "overrides": list, "seed": int,
    "metrics": dict, "seconds": dict, "environment": dict,
}  # fmt: skip


MAX_NUMBER = 10**300  # a float holds it
_NUMBERS = ("num_parameters", "macs", "samples_per_second", "peak_memory_bytes", "best_epoch")


def _wrong_part(document: Any) -> str | None:
    """Why a JSON document is not a `Result`, in words; None if it is one."""
    if not isinstance(document, dict):
        return "it holds no keys"
    for key, kind in _KINDS.items():
        if not isinstance(document.get(key), kind):
            return f"{key} is missing or of the wrong kind"
    for section in (*SECTIONS, "logger"):
        value = document["config"].get(section, {})
        if not (isinstance(value, dict) or (section == "parent" and value is None)):
            return f"config.{section} is of the wrong kind"
    if not (isinstance(document.get("status"), str) and document["status"] in get_args(Status)):
        return "status is missing or unknown"
    for key in ("data_checksum", "checkpoint"):
        if not isinstance(document.get(key), str | None):
            return f"{key} is not text"
    for value in document["environment"].values():
        if not (isinstance(value, str | bool | None) or _is_number(value)):
            return "an entry of environment is not a plain value"
    if not all(isinstance(override, str) for override in document["overrides"]):
        return "an override is not text"
    numbers = [document["seed"], *document["seconds"].values()]
    numbers += [document.get(key, 0) for key in ("epochs", "global_step", "attempts")]
    numbers += [document[key] for key in _NUMBERS if document.get(key) is not None]
    seen = document.get("receptive_field")
    if seen is not None and not (isinstance(seen, list) and len(seen) == 2):
        return "receptive_field is not a pair"
    if not all(_is_number(value) and math.isfinite(value) for value in [*numbers, *(seen or ())]):
        return "a size or time is not a number"
    if not all(map(_is_number, document["metrics"].values())):  # nan and inf are allowed
        return "a metric is not a number"
    if not isinstance(document.get("data_checksum"), str | None):
        return "data_checksum is not text"
    if not _is_dataset(document.get("dataset", {})):
        return "dataset is of the wrong kind"
    loaded = document.get("loaded", [])
    if not (isinstance(loaded, list) and all(isinstance(name, str) for name in loaded)):
        return "loaded is not a list of names"
    if not _is_parent(document.get("parent")):
        return "parent is of the wrong kind"
    error = document.get("error")
    is_ok = document["status"] in ("ok", "running")
    if error is None and not is_ok:
        return "error is missing"
    if error is not None and not (
        isinstance(error, dict)
        and {"type", "message"} <= set(error)
        and all(isinstance(text, str) for text in error.values())
    ):
        return "error has no type and message"
    return None


def _is_dataset(value: Any) -> bool:
    """Whether it is a valid `Result.dataset`; it is empty in runs from before it existed."""
    if value == {}:
        return True
    if not isinstance(value, dict):
        return False
    if set(value) - {"stretch"} != {"classes", "image_shape", "mean", "std"}:
        return False
    if not all(isinstance(part, list) and part for part in value.values()):
        return False
    names, shape, mean, std = (value[k] for k in ("classes", "image_shape", "mean", "std"))
    stretch = value.get("stretch", [0, 1])
    return (
        all(isinstance(name, str) for name in names)
        and len(shape) == 3
        and all(type(size) is int and 0 < size <= MAX_INTEGER for size in shape)
        and len(mean) == len(std) == shape[0]
        and all(_is_number(v) and abs(v) <= MAX_INTEGER for v in [*mean, *std])
        and all(deviation > 0 for deviation in std)
        and len(stretch) == 2
        and all(_is_number(v) and math.isfinite(v) for v in stretch)
        and stretch[1] > 0
    )


def _is_parent(value: Any) -> bool:
    """Whether it is a valid `Result.parent`."""
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and set(value) == {"run", "epochs", "steps"}
        and isinstance(value["run"], str)
        and all(type(value[key]) is int and value[key] >= 0 for key in ("epochs", "steps"))
    )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, float) or abs(value) < MAX_NUMBER)
