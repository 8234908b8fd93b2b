"""The run folder: its name, its fingerprint, its status and its `result.json`. No torch.

<run>/config.yaml  result.json  history.csv  run.log  events.out.tfevents.*
      checkpoints/best.ckpt  checkpoints/last.ckpt
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from convscape.config import Config, OwnModelConfig
from convscape.errors import ConfigError
from convscape.geometry import Conv

Status = Literal[
    "running", "ok", "infeasible", "diverged", "out_of_memory", "failed", "interrupted"
]
CHOSEN_BY = (
    "val/acc"  # checkpoints and configurations are chosen on validation, the higher the better
)
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
    """What `result.json` holds; `status` is "running", with host and process, while it lasts.

    - `config`: every key with its value; `overrides`: what the user typed.
    - `num_parameters`, `macs` (per image), `receptive_field` (pixels, H and W): of the plan.
    - `metrics`: of the chosen checkpoint; losses, and accuracies from 0 to 1.
    - `best_epoch`: of the chosen checkpoint, counted from 1; `epochs`: finished.
    - `seconds`: of setup, fit (validation and checkpoints included) and test.
    - `samples_per_second`: training images per second of training, without validation.
    - `attempts`: how often it was begun since it last got further.
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
    attempts: int = 1
    environment: dict[str, Any] = field(default_factory=dict)

    def fail(self, status: Status, error: BaseException) -> None:
        """Record how the run ended."""
        self.status = status
        self.error = {"type": type(error).__name__, "message": str(error)}


class RunFolder:
    """One run's files. Every file is written whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.yaml"
        self.result_file = path / "result.json"
        self.history_file = path / "history.csv"
        self.log_file = path / "run.log"
        self.best_checkpoint = path / "checkpoints" / "best.ckpt"
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"

    @contextmanager
    def held(self) -> Iterator[Path]:
        """The folder; keep other processes off this run, for as long as this one lives.

        Raises:
            RunIsBusy: if a living process holds it.
            ConfigError: if the folder cannot be made.
        """
        with _explained(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunIsBusy(f"another process is working on {self.path}; wait for it") from None
        try:
            yield self.path
        finally:
            lock.release()

    def create(self, config: dict[str, Any]) -> None:
        """Make the folder, and keep the config as it was asked for.

        Raises:
            ConfigError: if the folder cannot be written to.
        """
        with _explained(self.path):
            self.last_checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.config_file, yaml.safe_dump(config, sort_keys=False))

    def write(self, result: Result) -> None:
        """Replace `result.json`."""
        document = asdict(result)
        if result.status == "running":
            document |= {"host": socket.gethostname(), "process": os.getpid()}
        write_whole(self.result_file, json.dumps(document, indent=1) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The config that the run was started with, as plain values.

        Raises:
            ConfigError: if this is not the folder of a run.
        """
        if not self.config_file.is_file():
            raise ConfigError(
                f"{self.path} is not a run folder: it has no config.yaml; "
                "give a folder such as outputs/runs/<date>-<time>-<run>"
            )
        try:
            config = yaml.safe_load(self.config_file.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self.config_file} is damaged: {str(error).splitlines()[0]}"
            ) from None
        if not isinstance(config, dict):
            raise ConfigError(f"{self.config_file} is damaged: it holds no keys")
        return config

    def read_result(self) -> Result | None:
        """What the run has reached; None before its first second or if the file is damaged."""
        try:
            document = json.loads(self.result_file.read_text("utf-8"))
            known = {key: document[key] for key in document if key in Result.__annotations__}
            return Result(**known)
        except (OSError, ValueError, TypeError):
            return None


class RunIsBusy(ConfigError):
    """A living process is working on the run."""


def helper_rank() -> int:
    """Which process of a run this is: 0, or that of a helper that Lightning started for DDP."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write the folder {path}: {error.strerror}; "
            "choose another place with output_dir=..."
        ) from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name and rename it, so that no one sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- names and fingerprints -------------------------------------------------------------------

SECTIONS = ("data", "model", "optimizer", "scheduler", "trainer")
# Where a run happens and what it shows, but not what comes out of it.
NO_MATTER = {
    "data": ("root", "cache_dir", "download", "eval_batch_size", "epochs"),
    "trainer": ("device", "devices", "threads", "steps_per_execution", "compile", "progress"),
}


def fingerprint(config: Config) -> str:
    """Eight hex digits of all that matters to the result: model, data, optimiser, length, seed.

    Networks that are equal layer by layer are equal here, however they were written.
    """
    matter = config.model_dump(include={"data", "optimizer", "scheduler", "trainer", "seed"})
    for section, keys in NO_MATTER.items():
        for key in keys:
            matter[section].pop(key)
    for section, key in (
        (matter["data"], "target"),
        (matter["data"], "arguments"),
        (matter["data"]["augment"], "own"),
    ):
        if not section[key]:  # as if there were no such key
            del section[key]
    if (content := config.content_digest()) is not None:
        matter["data"]["content"] = content
    model = config.model
    if isinstance(model, OwnModelConfig):
        matter["model"] = _plain(model.model_dump())
    else:
        layers = config.layers
        assert layers is not None
        matter["model"] = [str(named.layer) for named in layers]
        matter["model"] += [model.init, model.loss, model.label_smoothing]
        if any(isinstance(named.layer, Conv) for named in layers):
            matter["model"].append(getattr(model, "first_layer", "learned"))
    return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: Any) -> Any:
    """1.0 and 1 as one: equal in meaning is equal in the fingerprint."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# Keys that say which file of conf/ a section came from; the command line calls them by the section.
_HEADS = {
    "model._target_": "model",
    "optimizer.name": "optimizer",
    "scheduler.name": "scheduler",
    "data.name": "data",
}


def flat_config(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a stored config that matters to the result: model, model.stride, optimizer.lr.

    The seed is not among them: runs that differ only in it belong together.
    """
    for name, value in config.items():
        key = prefix + name
        section, _, leaf = key.partition(".")
        if section not in SECTIONS or leaf in NO_MATTER.get(section, ()):
            continue
        if isinstance(value, dict):
            yield from flat_config(value, f"{key}.")
        elif key == "model._target_":
            yield "model", str(value).rpartition(".")[2]
        else:
            yield _HEADS.get(key, key), value


def typed_value(value: Any) -> str:
    """A value of the config as it is written on the command line: [32,64], true, 0.01."""
    if isinstance(value, list):
        return f"[{','.join(map(typed_value, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{typed_value(entry)}' for key, entry in value.items())}}}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


_SHORT = {"learning_rate": "lr", "batch_size": "bs", "weight_decay": "wd", "max_epochs": "ep"}
_IN_TITLE = {
    "model",
    "model._target_",
    "model.kernel_size",
    "model.stride",
    "model.padding",
    "model.hidden",
}


def run_name(config: Config, overrides: list[str], digest: str) -> str:
    """A readable name, such as cnn_k5_s2_same_lr0.01-3f9a1c2b.

    It says the network, the user's other choices as far as they matter to the result, and
    `digest`, the fingerprint.
    """
    words = [config.model.title]
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        section, _, leaf = key.partition(".")
        matters = section in (*SECTIONS, "seed")
        if not matters or key in _IN_TITLE or leaf in NO_MATTER.get(section, ()):
            continue
        # pool1.size says more than size
        last = key.partition(".layers.")[2] or key.rpartition(".")[2]
        if re.fullmatch(r"\d*\.\d{5,}", value):
            value = f"{float(value):.3g}"
        words.append((_SHORT.get(last, last) if leaf or last == "seed" else "") + value)
    title = re.sub(r"[^A-Za-z0-9_.]+", "-", "_".join(words)).strip("-.")
    return f"{title[:80].rstrip('-._')}-{digest}"


@contextmanager
def fresh_run(config: Config, overrides: list[str]) -> Iterator[Path]:
    """A new run folder, held, and removed if the input turns out to be wrong."""
    name = run_name(config, overrides, fingerprint(config))
    path = new_run_path(Path(config.output_dir), name)
    with RunFolder(path).held():
        try:
            yield path
        except ConfigError:
            shutil.rmtree(path)  # nothing has happened in it
            raise


def new_run_path(output_dir: Path, name: str) -> Path:
    """A new folder <output_dir>/runs/<date>-<time>-<run>; no two processes get the same.

    Raises:
        ConfigError: if it cannot be made.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with _explained(output_dir):
        for number in itertools.count(1):
            path = output_dir / "runs" / f"{stamp}-{f'{number}-' * (number > 1)}{name}"
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if not path.is_dir():
                    raise
            else:
                return path
    raise AssertionError("count() does not end")
