"""The run folder: its name, its fingerprint, its status and its `result.json`. No torch.

<run>/config.yaml  result.json  history.csv  predictions.npz  run.log  events.out.tfevents.*
      checkpoints/best.ckpt  checkpoints/last.ckpt  checkpoints/epochs/0001.ckpt
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from convscape.base import files
from convscape.base.errors import ConfigError
from convscape.base.files import explained
from convscape.config.earlier import read_config_as_before
from convscape.geometry.window import InfeasibleGeometry
from convscape.runs.result import BEST_CHECKPOINT, RESULT_FILE, Result, Status

if TYPE_CHECKING:
    from convscape.runs.resolved import ResolvedRun


class RunFolder:
    """A run's files. Every file is written whole or not at all.

    - `within`: the sweep folder that the user named; no link below it is followed.
    """

    def __init__(self, path: Path, within: Path | None = None) -> None:
        self.path = path
        self.within = path if within is None else within
        self.config_file = path / "config.yaml"
        self.result_file = path / RESULT_FILE
        self.history_file = path / "history.csv"
        self.log_file = path / "run.log"
        self.predictions_file = path / "predictions.npz"
        self.best_checkpoint = path / BEST_CHECKPOINT
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"
        self.epochs_folder = path / "checkpoints" / "epochs"

    def epoch_file(self, epoch: int) -> Path:
        """Where trainer.keep_epochs puts the weights after epoch `epoch`, counted from 1."""
        return self.epochs_folder / f"{epoch:04d}.ckpt"

    @contextmanager
    def held(self, wait: bool = False) -> Iterator[Path]:
        """The folder, locked: other processes keep off this run until this ends.

        - `wait`: wait until the process that holds the lock is done.

        Raises:
            RunIsBusy: if a live process holds it.
            NotInside: if its lock is a link, or the folder is one in the sweep folder.
            CannotWrite: if the folder cannot be made.
        """
        with explained(self.path):
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

    def begin(self, run: ResolvedRun) -> Result:
        """Make the folder resumable, before anything that takes time.

        The caller holds the lock; calling it twice changes nothing.

        Raises:
            CannotWrite: if the folder cannot be written to.
        """
        before = self.read_result()
        result = new_result(run)
        result.epochs = self.num_epochs()
        if before is not None and before.status in ("running", "interrupted"):
            result.attempts = before.attempts + (before.status == "interrupted")
            result.data_checksum, result.dataset = before.data_checksum, before.dataset
            result.parent, result.loaded = before.parent, before.loaded
        self.create(result)
        return result

    def create(self, result: Result) -> None:
        """Create the folder, with the result so far and the config as requested.

        Raises:
            CannotWrite: if the folder cannot be written to.
        """
        with explained(self.path):
            files.make_folder(self.last_checkpoint.parent, within=self.path)
            self._clear_up()
            self.write(result)
            # last: a folder with a config counts as a run
            config = files.as_yaml(result.config)
            files.write_atomic(self.config_file, config, within=self.path)

    def _clear_up(self) -> None:
        """Remove incomplete files left by a killed process."""
        for folder in (self.path, self.last_checkpoint.parent, self.epochs_folder):
            for path in folder.glob(f".*{files.HALF}"):
                files.remove(path, within=self.path)

    def num_epochs(self) -> int:
        """Number of epochs in the history, which is written just before each checkpoint."""
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
        files.write_atomic(self.result_file, text, within=self.path)

    def read_config(self) -> dict[str, Any]:
        """The config that the run was started with, as plain values.

        Raises:
            ConfigError: if this is not the folder of a run.
        """
        if not os.path.isfile(self.config_file):  # or it may not be read
            runs = sorted(str(file.parent) for file in self.path.glob("*/config.yaml"))
            which = "the run" if len(runs) == 1 else f"one of the {len(runs)} runs"
            inside = f"{which} inside: {', '.join(runs[:3])}" + " ..." * (len(runs) > 3)
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
        """The run's result so far; None before it has started or if the file is damaged."""
        try:
            return Result.from_json(files.read_bytes(self.result_file))
        except (OSError, ValueError):
            return None


class RunIsBusy(ConfigError):
    """A live process is working on the run."""


class FolderIsGone(Exception):
    """The run folder was removed during the run."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} was removed during the run; start it again")


def local_rank() -> int:
    """Which process of a run this is: 0, or the rank of one that Lightning started for DDP."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def new_result(run: ResolvedRun) -> Result:
    """The result of a run before it starts."""
    result = Result(
        run=run.name,
        fingerprint=run.fingerprint,
        config=run.config.model_dump(by_alias=True),
        overrides=run.overrides,
        seed=run.config.seed,
    )
    with suppress(InfeasibleGeometry):  # then there is no plan
        if run.plan is not None:
            result.num_parameters, result.macs = run.plan.num_parameters, run.plan.macs
            result.receptive_field = list(run.plan.receptive_field)
    return result


def never_begun(folder: RunFolder, run: ResolvedRun, status: Status, error: ConfigError) -> Result:
    """Write the result of a run that never started."""
    result = new_result(run)
    result.fail(status, error)
    folder.create(result)
    return result


def output_folder(text: str) -> Path:
    """The folder that output_dir names.

    Raises:
        ConfigError: if it contains a `~` or $NAME that the shell should have expanded.
    """
    expanded = os.path.expanduser(os.path.expandvars(text))
    if expanded != text:
        raise ConfigError(
            f"output_dir={text}: the shell has not expanded this, because of the quotes around "
            f"it; type output_dir={expanded}"
        )
    if match := re.search(r"\$\{?[A-Za-z_]\w*", text):
        raise ConfigError(
            f"output_dir={text}: the environment has no {match[0]}; type the folder itself"
        )
    return Path(text)


@contextmanager
def fresh_run(run: ResolvedRun) -> Iterator[Path]:
    """A new run folder, locked, and removed if the input turns out to be wrong."""
    path = new_run_path(output_folder(run.config.output_dir), run.name)
    try:
        with RunFolder(path).held():
            yield path
    except ConfigError:
        with suppress(OSError):
            files.remove_folder(path, within=path.parent)  # nothing has happened in it yet
        raise


def new_run_path(output_dir: Path, name: str) -> Path:
    """A new folder <output_dir>/runs/<date>-<time>-<run>; no two processes get the same one.

    Raises:
        ConfigError: if it cannot be created.
    """
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with explained(output_dir):
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


FAILURES = ("failed", "diverged", "out_of_memory")
