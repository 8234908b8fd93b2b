"""The jobs of a sweep on SLURM: what to submit, what is already queued, how to wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from convscape.base import files
from convscape.base.terminal import say
from convscape.base.values import counted
from convscape.sweeps import slurm
from convscape.sweeps.grid import EXECUTION_KEYS, key_of
from convscape.sweeps.shared_runs import SharedRuns

# submits this many jobs, which start when the array with that id is over: submitit's jobs
Submit = Callable[[Path, int, str | None], Sequence[Any]]


class Jobs:
    """What a command has submitted, and what an earlier one had.

    - `place`: the folder for what jobs share and for their logs.
    """

    def __init__(self, place: Path, wanted: Sequence[Sequence[str]]) -> None:
        self._place = place
        self._others, self._left = _found(place, wanted)
        self._mine: SharedRuns | None = None
        self._jobs: list[Any] = []
        self._unneeded: set[str] = set()
        self._problems: list[str] = []
        if num_found := len(wanted) - len(self._left):
            arrays = [array for other in self._others for array in other.jobs()]
            say(f"{_named(arrays)}: {counted(num_found, 'run')} from an earlier command")

    def submit(
        self, submit: Submit, runs_per_job: int | None, num_at_once: int, ends_them: bool
    ) -> None:
        """Submit the runs that are in no live job, in as many arrays as needed.

        - `ends_them`: as for `wait`.
        """
        if not self._left:
            return
        self._mine = SharedRuns(self._place / f"runs-{token_hex(4)}")
        self._mine.write(self._left)
        arrays: list[str] = []
        for size in array_sizes(len(self._left), runs_per_job, slurm.max_array_size()):
            try:
                jobs = submit(self._mine.folder, size, arrays[-1] if arrays else None)
            except Exception as error:
                if not arrays:
                    raise
                # such as a limit on jobs; those already submitted may do the rest too
                self._problems.append(f"no more jobs: {' '.join(str(error).split())}")
                break
            self._jobs += jobs
            arrays.append(slurm.array_of(jobs[0].job_id))
            self._mine.write_jobs(arrays)
        at_once = min(num_at_once, len(self._jobs))
        say(
            f"{_named(arrays)}: {counted(len(self._left), 'run')} for "
            f"{counted(len(self._jobs), 'job')}, {at_once} at a time",
            f"  logs: {', '.join(f'{self._place}/{array}_*' for array in arrays[:3])}",
            f"  to end all: scancel {' '.join(arrays)}; "
            + ("so does Ctrl-C, which lets them save" if ends_them else "Ctrl-C ends none of them"),
        )

    def wait(self, ends_them: bool) -> None:
        """Wait until all jobs are over and what they share is no longer needed.

        - `ends_them`: whether Ctrl-C also ends the jobs that this command has submitted.

        Raises:
            KeyboardInterrupt: after saying what happens to the jobs.
        """
        shared = [*self._others, *([self._mine] if self._mine is not None else [])]
        arrays = [array for each in shared for array in each.jobs()]
        is_silent = False
        try:
            for states in slurm.looks(arrays, self._is_over) if arrays else ():
                if states is None and not is_silent:
                    say("SLURM does not answer; its jobs continue, and this command waits for them")
                is_silent = states is None
                for each in shared:
                    self._end_unneeded(each, states or {})
        except KeyboardInterrupt:
            self._say_what_goes_on(arrays, ends_them)
            raise
        if self._mine is not None:
            files.remove_folder(self._mine.folder, within=self._place)

    def _is_over(self, job: str) -> bool:
        """Whether it has left what submitit keeps of it: SLURM is asked less often than a disk."""
        from submitit.core.utils import JobPaths

        return JobPaths(self._place / "%j", job).result_pickle.is_file()

    def _end_unneeded(self, shared: SharedRuns, states: dict[str, str]) -> None:
        """Remove jobs from the queue that would find no run left to take."""
        arrays = shared.jobs()
        queued = {
            job
            for job in slurm.of_arrays(states, arrays)
            if states[job] == slurm.PENDING and job not in self._unneeded
        }
        if queued and shared.are_all_taken():
            queued -= {slurm.job_of(owner) for owner in shared.taken().values()}  # requeued
            slurm.end(sorted(queued))
            self._unneeded |= queued

    def _say_what_goes_on(self, arrays: Sequence[str], ends_them: bool) -> None:
        mine = self._mine.jobs() if self._mine is not None else []
        if ends_them and mine:
            slurm.interrupt(mine)
            say(f"{_named(mine)}: telling the runs to save and end")
        left = [array for array in arrays if not (ends_them and array in mine)]
        if left:
            say(
                f"{_named(left)}: not ended; the same command waits for the runs,",
                f"  scancel {' '.join(left)} ends them",
            )

    def problems(self) -> list[str]:
        """What went wrong in the jobs that were submitted, and which were lost."""
        from submitit.core.utils import pickle_load

        lost = []
        for job in self._jobs:
            if not job.paths.result_pickle.is_file():
                lost += [job.job_id] if job.job_id not in self._unneeded else []
                continue
            outcome, returned = pickle_load(job.paths.result_pickle)
            last_line = str(returned).strip().rpartition("\n")[2]
            self._problems += returned if outcome == "success" else [last_line]
        return [*dict.fromkeys(self._problems), *self._words_of_lost(lost)]

    def _words_of_lost(self, jobs: Sequence[str]) -> list[str]:
        states: dict[str, list[str]] = {}
        for job, state in slurm.how_ended(jobs).items():
            states.setdefault(state, []).append(job)
        return [
            f"SLURM ended {'jobs' if len(those) > 1 else 'job'} {', '.join(those[:5])}"
            f"{f' and {len(those) - 5} more' * (len(those) > 5)} ({state}); "
            f"{'the log of the first' if len(those) > 1 else 'its log'} is in "
            f"{self._place}/{those[0]}"
            for state, those in states.items()
        ]


def _named(arrays: Sequence[str]) -> str:
    return f"SLURM {'jobs' if len(arrays) > 1 else 'job'} {', '.join(arrays)}"


def array_sizes(num_runs: int, runs_per_job: int | None, most: int) -> list[int]:
    """How many jobs each array gets."""
    num_jobs = math.ceil(num_runs / (runs_per_job or 1))
    return [min(most, num_jobs - first) for first in range(0, num_jobs, most)]


def _found(
    place: Path, wanted: Sequence[Sequence[str]]
) -> tuple[list[SharedRuns], list[Sequence[str]]]:
    """Which of these runs an earlier command has submitted, and which no live job has."""
    states = slurm.jobs_of_user() or {}
    living = {slurm.array_of(job) for job in states}
    asked = {_identity(run) for run in wanted}
    others, theirs = [], set()
    for folder in sorted(place.glob("runs-*")):
        shared = SharedRuns(folder)
        if not living & {*shared.jobs()}:
            continue
        taken = shared.taken()
        found = {
            _identity(run)
            for number, run in enumerate(shared.runs())
            if number not in taken or slurm.job_of(taken[number]) in states
        }
        if found & asked:
            others.append(shared)
            theirs |= found
    return others, [run for run in wanted if _identity(run) not in theirs]


def _identity(overrides: Sequence[str]) -> frozenset[str]:
    """What is trained and under which name, but not how the command prints."""
    return frozenset(
        each
        for each in overrides
        if key_of(each) not in EXECUTION_KEYS and not key_of(each).startswith("hydra")
    )
