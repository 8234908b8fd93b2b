"""What happens to a sweep's runs outside this process: errors, logs, other sweeps."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base.cores import available_cores
from convscape.base.errors import ConfigError
from convscape.runs.folder import RunFolder, RunIsBusy
from convscape.sweeps.words import first_line

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from convscape.runs.result import Result
    from convscape.sweeps.grid import PlannedRun

ON_THIS_MACHINE = ("basic", "joblib")  # launchers; a cluster's may find other things there
WITH_JOBS = ("slurm",)  # launchers whose jobs outlive the command
_PATIENCE_S = 1  # between two checks whether others are done


def launcher_of(cfg: DictConfig) -> str:
    """As in "slurm", of hydra/launcher=slurm."""
    return str(cfg.hydra.runtime.choices["hydra/launcher"])


def num_at_once(cfg: DictConfig) -> int:
    """How many runs the launcher trains side by side, as far as that is known."""
    if launcher_of(cfg) == "basic":
        return 1
    num_jobs = cfg.hydra.launcher.get("n_jobs")
    if num_jobs is None:
        return 2  # on a cluster, whose size is not known
    return int(num_jobs) if num_jobs > 0 else max(1, available_cores() + 1 + num_jobs)


def batches(
    todo: Sequence[PlannedRun], states: Mapping[str, Result]
) -> Iterator[tuple[int, list[PlannedRun]]]:
    """Batches to launch together, each with the number of its first run.

    Runs whose process has died without saving anything come last and one by one: whatever kills its
    process takes a whole pool of workers down, and the other runs must not die of it twice.
    """
    died = [
        run
        for run in todo
        if (result := states.get(run.fingerprint)) is not None
        and result.error is not None
        and result.error["type"] == ProcessLookupError.__name__
        and result.attempts
    ]
    others = [run for run in todo if run not in died]
    if others:
        yield 0, others
    for number, run in enumerate(died, len(others)):
        yield number, [run]


def errors_of(returned: Any) -> list[str]:
    """What went wrong in workers, from what a launcher returned: Hydra's JobReturn per job."""
    outcomes = [getattr(job, "_return_value", None) for job in returned or ()]
    return list(dict.fromkeys(in_words(each) for each in outcomes if isinstance(each, Exception)))


def in_words(error: Exception) -> str:
    """What a launcher or one of its workers raised, in one line."""
    if isinstance(error, ConfigError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def where_to_look(cfg: DictConfig) -> str:
    """Where the logs of a launcher's workers are, in words; empty if not known."""
    if (folder := cfg.hydra.launcher.get("submitit_folder")) is not None:
        return f"its logs are in {Path(folder).parent}"
    if "ray" in launcher_of(cfg):
        return "its logs are in /tmp/ray/session_latest/logs on the nodes"
    return "the workers said nothing"


def busy(folder: Path, fingerprints: Iterable[str]) -> set[str]:
    """The runs of a sweep `folder` that a process is working on."""
    wanted = set(fingerprints)
    found = set()
    for path in folder.glob("*-*"):
        digest = path.name.rpartition("-")[2]
        if digest in wanted and _is_held(RunFolder(path, within=folder)):
            found.add(digest)
    return found


def _is_held(run: RunFolder) -> bool:
    if not (run.path / ".lock").is_file():
        return False
    try:
        with run.held():
            return False
    except RunIsBusy:
        return True
    except ConfigError:  # such as a folder in the way
        return False


def wait_for_others(folder: Path, fingerprints: Iterable[str]) -> Iterator[int]:
    """Wait until no process is working on these runs; yields their number when it changes."""
    working, told = busy(folder, fingerprints), 0
    while working:
        if len(working) != told:
            told = len(working)
            yield told
        time.sleep(_PATIENCE_S)
        working = busy(folder, working)
