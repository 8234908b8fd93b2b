"""The run folder: its name, its fingerprint, its status and its `result.json`. No torch.

<run>/config.yaml  result.json  history.csv  run.log  events.out.tfevents.*
      checkpoints/best.ckpt  checkpoints/last.ckpt
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from filelock import Timeout

from convscape import files
from convscape.config import Config, OwnModelConfig
from convscape.errors import CannotWrite, ConfigError
from convscape.geometry import Conv, InfeasibleGeometry
from convscape.losses import BEFORE, read_config_as_before
from convscape.metrics import Metric, monitor_of
from convscape.names import file_name, short_value
from convscape.values import LARGEST

Status = Literal[
    "running", "ok", "infeasible", "diverged", "out_of_memory", "failed", "interrupted"
]
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
    - `data_checksum`, `dataset`: of what it is trained on: the content; `classes`, `image_shape`
      (C, H, W), `mean` and `std` per channel, of values scaled to 0..1.
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
    dataset: dict[str, Any] = field(default_factory=dict)
    attempts: int = 1
    environment: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, content: bytes) -> Result:
        """What `RunFolder.write` wrote, or a stranger did.

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
        """What its checkpoint was chosen by; None: the last epoch."""
        return monitor_of(self.config)

    def fail(self, status: Status, error: BaseException) -> None:
        """Record how the run ended."""
        self.status = status
        self.error = {"type": type(error).__name__, "message": str(error)}


_KINDS = {
    "run": str, "fingerprint": str, "config": dict, "overrides": list, "seed": int,
    "metrics": dict, "seconds": dict, "environment": dict,
}  # fmt: skip
LARGEST_NUMBER = 10**300  # a float holds it
_NUMBERS = ("num_parameters", "macs", "samples_per_second", "peak_memory_bytes", "best_epoch")


def _wrong_part(document: Any) -> str | None:
    """What keeps a JSON document from being a `Result`, in words."""
    if not isinstance(document, dict):
        return "it holds no keys"
    for key, kind in _KINDS.items():
        if not isinstance(document.get(key), kind):
            return f"{key} is missing or of the wrong kind"
    for section in (*SECTIONS, "logger"):
        if not isinstance(document["config"].get(section, {}), dict):
            return f"config.{section} is of the wrong kind"
    if not (isinstance(document.get("status"), str) and document["status"] in get_args(Status)):
        return "status is missing or unknown"
    for key in ("data_checksum", "checkpoint"):
        if not isinstance(document.get(key), str | None):
            return f"{key} is no text"
    for value in document["environment"].values():
        if not (isinstance(value, str | bool | None) or _is_number(value)):
            return "an entry of environment is no plain value"
    if not all(isinstance(override, str) for override in document["overrides"]):
        return "an override is no text"
    numbers = [document["seed"], *document["seconds"].values()]
    numbers += [document.get(key, 0) for key in ("epochs", "global_step", "attempts")]
    numbers += [document[key] for key in _NUMBERS if document.get(key) is not None]
    seen = document.get("receptive_field")
    if seen is not None and not (isinstance(seen, list) and len(seen) == 2):
        return "receptive_field is no pair"
    if not all(_is_number(value) and math.isfinite(value) for value in [*numbers, *(seen or ())]):
        return "a size or time is no number"
    if not all(map(_is_number, document["metrics"].values())):  # nan and inf may be
        return "a metric is no number"
    if not isinstance(document.get("data_checksum"), str | None):
        return "data_checksum is no text"
    if not _is_dataset(document.get("dataset", {})):
        return "dataset is of the wrong kind"
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
    """Whether it is `Result.dataset`; runs made before there was one have an empty one."""
    if value == {}:
        return True
    if not isinstance(value, dict) or set(value) != {"classes", "image_shape", "mean", "std"}:
        return False
    if not all(isinstance(part, list) and part for part in value.values()):
        return False
    names, shape, mean, std = (value[k] for k in ("classes", "image_shape", "mean", "std"))
    return (
        all(isinstance(name, str) for name in names)
        and len(shape) == 3
        and all(type(size) is int and 0 < size <= LARGEST for size in shape)
        and len(mean) == len(std) == shape[0]
        and all(_is_number(v) and abs(v) <= LARGEST for v in [*mean, *std])
        and all(deviation > 0 for deviation in std)
    )


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (isinstance(value, float) or abs(value) < LARGEST_NUMBER)


class RunFolder:
    """One run's files. Every file is written whole or not at all.

    - `within`: the sweep folder that the user named, below which no link is followed.
    """

    def __init__(self, path: Path, within: Path | None = None) -> None:
        self.path = path
        self.within = path if within is None else within
        self.config_file = path / "config.yaml"
        self.result_file = path / "result.json"
        self.history_file = path / "history.csv"
        self.log_file = path / "run.log"
        self.best_checkpoint = path / "checkpoints" / "best.ckpt"
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"

    @contextmanager
    def held(self, wait: bool = False) -> Iterator[Path]:
        """The folder; keep other processes off this run, for as long as this one lives.

        - `wait`: until the process that holds it now has done with it.

        Raises:
            RunIsBusy: if a living process holds it.
            NotInside: if its lock is a link, or the folder is one in the sweep folder.
            CannotWrite: if the folder cannot be made.
        """
        with _explained(self.path):
            lock = files.lock(self.path / ".lock", within=self.within)
            try:
                lock.acquire(timeout=-1 if wait else 0)
            except Timeout:
                busy = f"another process is working on {self.path}; wait for it"
                raise RunIsBusy(busy) from None
        try:
            yield self.path
        finally:
            lock.release()

    def begin(self, config: Config, overrides: list[str]) -> Result:
        """Make the folder what `resume=` can go on with, before anything that takes time.

        Whoever calls it holds the run; calling it twice changes nothing.

        Raises:
            CannotWrite: if the folder cannot be written to.
        """
        before = self.read_result()
        result = new_result(config, overrides)
        result.epochs = self.num_epochs()
        if before is not None and before.status in ("running", "interrupted"):
            result.attempts = before.attempts + (before.status == "interrupted")
            result.data_checksum, result.dataset = before.data_checksum, before.dataset
        self.create(result)
        return result

    def create(self, result: Result) -> None:
        """Make the folder, with the result so far and the config as it was asked for.

        Raises:
            CannotWrite: if the folder cannot be written to.
        """
        with _explained(self.path):
            files.make_folder(self.last_checkpoint.parent, within=self.path)
            self._clear_up()
            self.write(result)
            # the last one: what has a config is a run
            config = yaml.safe_dump(result.config, sort_keys=False)
            files.write_whole(self.config_file, config, within=self.path)

    def _clear_up(self) -> None:
        """Remove the halves of files that a killed process has left."""
        for folder in (self.path, self.last_checkpoint.parent):
            for path in folder.glob(f".*{files.HALF}"):
                files.remove(path, within=self.path)

    def num_epochs(self) -> int:
        """Epochs in the history, which is written just before each checkpoint."""
        try:
            return self.history_file.read_bytes().count(b"\n") - 1
        except OSError:
            return 0

    def write(self, result: Result) -> None:
        """Replace `result.json`."""
        document = asdict(result)
        if result.status == "running":
            document |= {"host": socket.gethostname(), "process": os.getpid()}
        text = json.dumps(document, indent=1) + "\n"
        files.write_whole(self.result_file, text, within=self.path)

    def read_config(self) -> dict[str, Any]:
        """The config that the run was started with, as plain values.

        Raises:
            ConfigError: if this is not the folder of a run.
        """
        if not self.config_file.is_file():
            runs = sorted(str(file.parent) for file in self.path.glob("*/config.yaml"))
            inside = f"one of the {len(runs)} runs inside: {', '.join(runs[:3])}" + (
                " ..." if len(runs) > 3 else ""
            )
            raise ConfigError(
                f"{self.path} is not a run folder: it has no config.yaml; give "
                f"{inside if runs else 'a folder such as outputs/runs/<date>-<time>-<run>'}"
            )
        try:
            config = files.read_yaml(self.config_file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.config_file} is damaged: {error}") from None
        if not isinstance(config, dict):
            raise ConfigError(f"{self.config_file} is damaged: it holds no keys")
        read_config_as_before(config)
        return config

    def read_result(self) -> Result | None:
        """What the run has reached; None before its first second or if the file is damaged."""
        try:
            return Result.from_json(files.read_bytes(self.result_file))
        except (OSError, ValueError):
            return None


class RunIsBusy(ConfigError):
    """A living process is working on the run."""


class FolderIsGone(Exception):
    """The run folder was removed while the run was going on."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was removed while the run was going on; start it once more")


def helper_rank() -> int:
    """Which process of a run this is: 0, or that of a helper that Lightning started for DDP."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(path, error) from None


def new_result(config: Config, overrides: list[str]) -> Result:
    """What is known of a run before it begins."""
    digest = fingerprint(config)
    result = Result(
        run=run_name(config, overrides, digest),
        fingerprint=digest,
        config=config.model_dump(by_alias=True),
        overrides=overrides,
        seed=config.seed,
    )
    with suppress(InfeasibleGeometry):  # then there is no plan
        plan = config.plan()
        if plan is not None:
            result.num_parameters, result.macs = plan.num_parameters, plan.macs
            result.receptive_field = list(plan.receptive_field)
    return result


# --- names and fingerprints -------------------------------------------------------------------

SECTIONS = ("data", "model", "optimizer", "scheduler", "trainer")
# Where a run happens and what it shows, but not what comes out of it.
NO_MATTER = {
    "data": ("root", "cache_dir", "download", "eval_batch_size", "epochs"),
    "trainer": ("device", "devices", "threads", "steps_per_execution", "compile", "progress"),
}
# Keys that earlier runs did not have. At the default of their class, which is what those runs
# meant, it is as if there were no such key.
ADDED_LATER = (
    *("data.target", "data.arguments", "data.augment.own", "data.change.placement"),
    *("trainer.monitor", "trainer.monitor_mode"),
)


def fingerprint(config: Config) -> str:
    """Eight hex digits of all that matters to the result: model, data, optimiser, length, seed.

    Networks that are equal layer by layer are equal here, however they were written.
    """
    matter = config.model_dump(include={"data", "optimizer", "scheduler", "trainer", "seed"})
    for section, keys in NO_MATTER.items():
        for key in keys:
            matter[section].pop(key)
    for key in ADDED_LATER:
        *path, leaf = key.split(".")
        described: Any = config
        values = matter
        for part in path:
            described, values = getattr(described, part), values[part]
        if values[leaf] == type(described).model_fields[leaf].default:
            del values[leaf]
    if (content := config.content_digest()) is not None:
        matter["data"]["content"] = content
    model = config.model
    if isinstance(model, OwnModelConfig):
        matter["model"] = _plain(model.model_dump())
    else:
        layers = config.layers
        assert layers is not None
        matter["model"] = [str(named.layer) for named in layers]
        loss = "mse" if model.loss == BEFORE["mse"] else model.loss  # as it was called at first
        matter["model"] += [model.init, loss, model.label_smoothing]
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


def with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the keys that it is too old to have, at what it meant."""
    completed = copy.deepcopy(config)
    for key in ADDED_LATER:
        *path, leaf = key.split(".")
        section: Any = Config
        values: Any = completed
        for part in path:
            section = section.model_fields[part].annotation
            values = values.get(part) if isinstance(values, dict) else None
        if isinstance(values, dict):
            field = section.model_fields[leaf]
            values.setdefault(field.alias or leaf, field.default)
    return completed


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
    chosen = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)  # the last
    for key, value in chosen.items():
        section, _, leaf = key.partition(".")
        matters = section in (*SECTIONS, "seed")
        if not matters or key in _IN_TITLE or leaf in NO_MATTER.get(section, ()):
            continue
        # pool1.size says more than size
        last = key.partition(".layers.")[2] or key.rpartition(".")[2]
        word = _SHORT.get(last, last) if leaf or last == "seed" else ""
        words.append(word + short_value(value))
    return f"{file_name(words)}-{digest}"


def output_folder(text: str) -> Path:
    """The folder that output_dir names.

    Raises:
        ConfigError: if the shell was to put in `~` or $NAME and has not.
    """
    expanded = os.path.expanduser(os.path.expandvars(text))
    if expanded != text:
        raise ConfigError(
            f"output_dir={text}: the shell has left this as it is, for the quotes around it; "
            f"type output_dir={expanded}"
        )
    if match := re.search(r"\$\{?[A-Za-z_]\w*", text):
        raise ConfigError(
            f"output_dir={text}: the environment has no {match[0]}; type the folder itself"
        )
    return Path(text)


@contextmanager
def fresh_run(config: Config, overrides: list[str]) -> Iterator[Path]:
    """A new run folder, held, and removed if the input turns out to be wrong."""
    name = run_name(config, overrides, fingerprint(config))
    path = new_run_path(output_folder(config.output_dir), name)
    with RunFolder(path).held():
        try:
            yield path
        except ConfigError:
            shutil.rmtree(path, ignore_errors=True)  # nothing has happened in it
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
