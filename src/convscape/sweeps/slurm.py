"""What we ask of SLURM besides submitting: list jobs, how they ended, cancel them.

squeue, not sacct, tells whether a job is alive: many clusters keep no job accounts.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from convscape.base.errors import ConfigError

PENDING, RUNNING = "PENDING", "RUNNING"
_PATIENCE_S = 15  # at most, between two queries
_MAX_ARGUMENTS = 500  # on a command line; a thousand jobs are filtered by their ids


def max_array_size(default: int = 1001) -> int:
    """The most jobs in one array; the default is SLURM's own."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config") or "", re.M)
    return max(1, int(found[1])) if found else default


def check_is_here() -> None:
    """Refuse a machine from which nothing can be submitted.

    Raises:
        ConfigError: saying what is missing.
    """
    if _ask("squeue", "--version") is None:
        raise ConfigError("there is no squeue here; run it where you would run sbatch")


def jobs_of_user() -> dict[str, str] | None:
    """The state of each unfinished job of this user, as {"12_3": "RUNNING"}.

    None if SLURM does not answer.
    """
    answer = _ask("squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i %T")
    if answer is None:
        return None
    return dict(line.split(maxsplit=1) for line in answer.splitlines() if " " in line)


def of_arrays(states: Collection[str], arrays: Collection[str]) -> list[str]:
    """The jobs that belong to arrays with these ids."""
    return [job for job in states if array_of(job) in arrays]


def array_of(job: str) -> str:
    """The id of the array: "12" for the jobs 12 and 12_3."""
    return job.partition("_")[0]


def job_of(task: str) -> str:
    """The id of the job: "12_3" for that job and for its tasks, such as 12_3.1."""
    return task.partition(".")[0]


def looks(
    arrays: Collection[str], is_over: Callable[[str], bool]
) -> Iterator[dict[str, str] | None]:
    """Yield the states of the jobs of these arrays, repeatedly until none is left.

    None whenever SLURM does not answer; the jobs may well be running.

    - `is_over`: whether a job has left its answer; then SLURM is asked at once.
    """
    pause, over = 1.0, set[str]()
    while True:
        states = jobs_of_user()
        mine = None if states is None else {job: states[job] for job in of_arrays(states, arrays)}
        yield mine
        if mine is not None and not mine:
            return
        running = {job for job, state in (mine or {}).items() if state == RUNNING}
        deadline, news = time.monotonic() + pause, set[str]()
        while not news and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(1, left))
            news = {job for job in running - over if is_over(job)}
        over |= news
        pause = 1.0 if news else min(_PATIENCE_S, 1.2 * pause)


def end(jobs: Sequence[str]) -> None:
    """Cancel jobs that have not started."""
    for first in range(0, len(jobs), _MAX_ARGUMENTS):
        _ask("scancel", f"--state={PENDING}", *jobs[first : first + _MAX_ARGUMENTS])


def interrupt(arrays: Sequence[str]) -> None:
    """Cancel jobs that have not started; running ones save and end, as after Ctrl-C."""
    end(arrays)
    _ask("scancel", "--signal=INT", *arrays)


def requeue_if_preempted(job: str) -> None:
    """Put a job back into the queue that runs, and that SLURM has told to make room.

    SLURM does so itself only if the job is still there after its grace period. One that was
    cancelled gets the same signal, but does not run any more.
    """
    answer = _ask("scontrol", "show", "job", job) or ""
    if "JobState=RUNNING" in answer and re.search(r"PreemptTime=\d", answer):
        _ask("scontrol", "requeue", job)


def how_ended(jobs: Sequence[str]) -> dict[str, str]:
    """A state such as "CANCELLED" for each, or words if SLURM keeps no accounts."""
    found = dict.fromkeys(jobs, "it keeps no record of why")
    for first in range(0, len(jobs), _MAX_ARGUMENTS):
        ids = ",".join(jobs[first : first + _MAX_ARGUMENTS])
        words = ("sacct", "--noheader", "--allocations", "--parsable2", "--format=JobID,State")
        for line in (_ask(*words, f"--jobs={ids}") or "").splitlines():
            job, _, state = line.partition("|")
            if job in found and state not in ("", RUNNING, PENDING):  # accounts may lag behind
                found[job] = state.split()[0]  # "CANCELLED by 1000"
    return found


def _ask(*words: str) -> str | None:
    """The output of a SLURM command; None if it is not installed or fails."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
