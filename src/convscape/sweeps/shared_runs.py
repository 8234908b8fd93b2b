"""Runs shared by several jobs: each job takes the next free one while it has time.

A cluster job waits in a queue and imports torch for seconds before it trains anything; a run may
take three seconds. All this needs is a folder that all jobs see:

<folder>/runs.json   the overrides of each run
         jobs.json   ids of the jobs, once they are submitted
         launcher.pkl   what each of them calls
         taken-<n>   made by the job that took run n; holds its id
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from convscape.base import files
from convscape.base.errors import ConfigError

_TAKEN = "taken-"


@dataclass(frozen=True)
class Limit:
    """When a job stops taking runs: after a number of runs, or at a certain age.

    Raises:
        ConfigError: if a job could not take any.
    """

    runs: int | None
    minutes: float

    def __post_init__(self) -> None:
        if self.runs is not None and not (isinstance(self.runs, int) and self.runs >= 1):
            raise ConfigError(
                f"hydra.launcher.runs_per_job={self.runs}: allowed: 1 or more, or null"
            )
        if not (isinstance(self.minutes, int | float) and self.minutes >= 0):
            raise ConfigError(f"hydra.launcher.minutes_per_job={self.minutes}: allowed: 0 or more")

    def is_reached(self, num_runs: int, seconds: float) -> bool:
        """Whether a job that has done `num_runs` in `seconds` has reached it."""
        return seconds >= 60 * self.minutes if self.runs is None else num_runs >= self.runs


class SharedRuns:
    """The runs in `folder`, as seen by a job or by whoever submitted them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, runs: Sequence[Sequence[str]]) -> None:
        """Create the folder, before any job is submitted."""
        files.make_folder(self.folder, within=self.folder.parent)
        self._write("runs.json", [list(run) for run in runs])

    def write_jobs(self, jobs: Sequence[str]) -> None:
        """Record the ids of the submitted jobs, for later commands."""
        self._write("jobs.json", list(jobs))

    def _write(self, name: str, value: object) -> None:
        files.write_atomic(self.folder / name, json.dumps(value), within=self.folder)

    def runs(self) -> list[list[str]]:
        """The overrides of each."""
        return [list(map(str, run)) for run in json.loads((self.folder / "runs.json").read_text())]

    def jobs(self) -> list[str]:
        """The ids; empty if the command was killed before recording them."""
        try:
            return [str(job) for job in json.loads((self.folder / "jobs.json").read_text())]
        except (OSError, ValueError):
            return []

    def taken(self) -> dict[int, str]:
        """The job that took each run, by the run's number."""
        found = self.folder.glob(f"{_TAKEN}*")
        return {int(path.name.removeprefix(_TAKEN)): path.read_text() for path in found}

    def are_all_taken(self) -> bool:
        """Whether another job would find nothing to do."""
        return sum(1 for _ in self.folder.glob(f"{_TAKEN}*")) >= len(self.runs())

    def take(
        self, job: str, limit: Limit, clock: Callable[[], float] = time.monotonic
    ) -> Iterator[tuple[int, list[str]]]:
        """One run after another, starting with those this job had taken before it was requeued."""
        runs, start = self.runs(), clock()
        mine = [number for number, owner in sorted(self.taken().items()) if owner == job]
        for number in mine:
            yield number, runs[number]
        for count, number in enumerate(self._free(job, len(runs)), len(mine)):
            yield number, runs[number]
            if limit.is_reached(count + 1, clock() - start):
                return

    def _free(self, job: str, num_runs: int) -> Iterator[int]:
        """Take a free run each time one is requested."""
        number = 0
        while number < num_runs:
            if not (self.folder / f"{_TAKEN}{number}").exists() and self._is_mine(number, job):
                yield number
            number += 1

    def _is_mine(self, number: int, job: str) -> bool:
        """Take a run, unless another job was faster."""
        try:
            file = files.append(self.folder / f"{_TAKEN}{number}", within=self.folder, is_new=True)
        except FileExistsError:
            return False
        with file:
            file.write(job.encode())
        return True
