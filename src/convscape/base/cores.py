"""The cores that this process may use, the threads that follow, and the load from others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from convscape.base.values import counted

_GROUPS = Path("/sys/fs/cgroup")
_TAKEN = 0.5  # of a core; less is what every desktop does
_MIN_S = 0.3  # the kernel counts in hundredths of a second


def available_cores() -> int:
    """Cores that this process may use: its affinity, and what SLURM, Ray or the user granted.

    A container's share counts too: with half of a machine's time, more threads only wait.
    """
    limits = [os.environ.get(name, "") for name in ("SLURM_CPUS_PER_TASK", "OMP_NUM_THREADS")]
    given = [int(limit) for limit in limits if limit.isdigit() and int(limit)]
    return min([_cores_here(), *given, *(max(1, round(share)) for share in _granted())])


def num_threads(asked: int | None, num_processes: int = 1) -> int:
    """Threads for each process that trains a run: as asked, or an equal share of the cores.

    The load of the machine does not matter here: the sums of a convolution depend on the number
    of threads, so a run's results would depend on the load.
    """
    return asked or max(1, available_cores() // num_processes)


def _cores_here() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _granted() -> Iterator[float]:
    """How many cores' worth of time each control group above this process allows it."""
    for (text,) in in_groups("", "cpu.max"):  # "200000 100000", or "max 100000"
        with suppress(ValueError):
            quota, period = map(int, text.split())
            yield quota / period
    for quota_us, period_us in in_groups("cpu", "cpu.cfs_quota_us", "cpu.cfs_period_us"):
        with suppress(ValueError, ZeroDivisionError):
            if int(quota_us) > 0:  # -1 where there is none
                yield int(quota_us) / int(period_us)


def in_groups(controller: str, *files: str) -> Iterator[list[str]]:
    """The texts of `files` in the control group of this process and in those above it.

    Groups without the first file are left out.

    - `controller`: one of cgroup version 1, such as cpu; empty for version 2.
    """
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, names, place = line.split(":", 2)
        if controller in names.split(","):
            own = PurePosixPath(place.lstrip("/"))
            for group in (own, *own.parents):  # a container may see its own only at the top
                texts = [_text(_GROUPS / controller / group / file) for file in files]
                if texts[0]:
                    yield texts


class Others:
    """How much of the cores other processes have used since it was created or last asked."""

    def __init__(self) -> None:
        self._before = _moment()

    def cores(self) -> float | None:
        """Their share of the cores that this process may use, in cores; None if unknown."""
        before, self._before = self._before, _moment()
        if before is None or self._before is None:
            return None
        seconds, busy, own = (now - then for now, then in zip(self._before, before, strict=True))
        return max(0.0, round((busy - own) / seconds, 1)) if seconds >= _MIN_S else None


def sentence(taken: float | None, num_threads: int) -> str | None:
    """The warning that other processes slow down a training with `num_threads`.

    None if it is not worth a line, for example because enough cores are left.
    """
    num_cores = _cores_here()  # of the machine: a container's share may be on any of them
    num_spare = max(0, num_cores - num_threads)
    if taken is None or taken - num_spare < _TAKEN:
        return None
    return f"other processes use {taken:g} of {counted(num_cores, 'core')}: training is slower"


def _moment() -> tuple[float, float, float] | None:
    """Seconds: the time now, CPU time on this process's cores, and CPU time of its own."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    names, busy = {f"cpu{number}" for number in os.sched_getaffinity(0)}, 0
    lines = [line.split() for line in _text(Path("/proc/stat")).splitlines()]
    for _, *counts in (line for line in lines if line and line[0] in names):
        user, nice, system, _idle, _waiting, *rest = map(int, counts[:8])  # see man 5 proc_stat
        busy += user + nice + system + sum(rest)
    own = sum(os.times()[:4])
    return (time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), own) if busy else None


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""


# counts from the import, or from the start of the previous run in this process
others = Others()
