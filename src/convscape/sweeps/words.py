"""A sweep in words: what it will do, each run, the outcome."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import notebook
from convscape.base.distribution import command_name
from convscape.base.terminal import columns, shortened
from convscape.base.values import counted
from convscape.runs.folder import FAILURES
from convscape.runs.latest import LATEST, named
from convscape.runs.words import command_on, in_a_column, open_board

if TYPE_CHECKING:
    from convscape.runs.result import Result
    from convscape.sweeps.grid import PlannedRun, SweepPlan


NUM_RUNS = "CONVSCAPE_SWEEP_RUNS"  # runs to do, for the lines of the runs

_ELSEWHERE = "in other processes"


def overview(plan: SweepPlan, folder: Path, num_todo: int, num_elsewhere: int) -> list[str]:
    """The sweep in a few lines, before it starts.

    - `num_elsewhere`: runs that other processes are working on.
    """
    impossible = len(plan.runs) - len(plan.feasible)
    runs = counted(len(plan.runs), "run")
    others = f", {num_elsewhere:,} {_ELSEWHERE}" if num_elsewhere else ""
    lines = [f"sweep {folder}: {runs}, {impossible:,} impossible, {num_todo:,} to do{others}"]
    lines += duplicates(plan)
    choices = dict.fromkeys(config.choice for config in plan.data_configs.values())
    lines += [f"  {choice}" for choice in choices if choice is not None]
    reasons = Counter(run.reason for run in plan.runs if run.reason is not None)
    lines += [f"  impossible ({count}x): {reason}" for reason, count in reasons.items()]
    return lines


def duplicates(plan: SweepPlan) -> list[str]:
    """What was left out of the grid, in words."""
    if not plan.duplicates:
        return []
    are = "is" if plan.duplicates == 1 else "are"
    return [f"{counted(plan.duplicates, 'duplicate')} {are} left out"]


def line(result: Result, done: str, left: str = "") -> str:
    """A finished run of a sweep in one line: `done` of all in front, the time left at the end."""
    return fitted(
        done, result.run, f"{result.status:<8}", *_outcome(result), *([left] if left else [])
    )


def fitted(done: str, run: str, *outcome: str) -> str:
    """A line about a run that fits the terminal; if necessary its name is shortened."""
    words = [done, "", *outcome]
    width = columns()
    room = 40 if width is None else max(20, width - len("  ".join(words)))
    name = run if width is None else shortened(run, room)
    words[1] = name.ljust(min(40, room))
    text = "  ".join(words).rstrip()
    return text if width is None or len(text) <= width else f"{text[: width - 1]}…"


def _outcome(result: Result) -> Iterator[str]:
    """A run's result and how long it took, or what ended it."""
    if result.status == "ok":
        chosen_by = result.monitor
        if chosen_by is not None and chosen_by.name in result.metrics:
            yield f"{chosen_by.name} {chosen_by.written(result.metrics[chosen_by.name])}"
        yield f"{sum(result.seconds.values()):.1f} s"
    elif result.error is not None:
        yield short_error(result)


class LiveTable:
    """The finished runs of a sweep, as a table that grows below the cell of a notebook."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, ...]] = [("", "run", "status", "")]
        self._shown = notebook.Shown()

    def add(self, result: Result, done: str, left: str) -> None:
        """Show another run; takes the same arguments as `line`."""
        self._rows.append((done, result.run, result.status, "  ".join(_outcome(result))))
        self._shown.replace(f"{notebook.table(self._rows)}<p>{left}</p>")


def short_error(result: Result) -> str:
    """What ended a run, in one line."""
    return first_line(result.why)


def first_line(message: Any) -> str:
    """The beginning of a message, for a table."""
    line = next(iter(str(message).splitlines()), "")
    return line if len(line) <= 120 else f"{line[:117]}..."


def duration(seconds: float) -> str:
    """As in "40 s", "5 min", "3.2 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counter(number: int, total: int | None = None) -> str:
    """As in "[ 3/36]"; without a `total`, that of this process, if it knows it."""
    known = str(total or os.environ.get(NUM_RUNS, ""))
    return f"[{number:>{len(known)}}/{known}]" if known else f"[{number}]"


def summary(
    runs: Sequence[PlannedRun], results: list[Result], folder: Path, blocked: list[str]
) -> list[str]:
    """Counts per status, what failed, what blocks runs, and how to finish the rest."""
    counts = Counter(result.status for result in results)
    unfinished = len(runs) - len(results)
    called = {"running": _ELSEWHERE}
    words = [f"{count:,} {called.get(status, status)}" for status, count in counts.items()]
    words += [f"{unfinished} not started"] if unfinished else []
    lines = [f"sweep {folder}: {', '.join(words)}"]
    for result in results:
        if result.status in FAILURES:
            lines.append(f"  {result.status}: {result.run}: {short_error(result)}")
    lines += [f"  in the way of a run: {obstacle}" for obstacle in blocked]
    if unfinished or counts["interrupted"]:
        first = "once nothing is in the way, " * bool(blocked)
        lines.append(f"{first}the same command again finishes the rest")
    if counts.keys() & set(FAILURES):
        lines.append("the same command with retry=true trains the failed ones again")
    return [*lines, *_next(results, folder)]


def _next(results: Sequence[Result], folder: Path) -> list[str]:
    """The commands to run next: for the whole sweep, its best run, its numbers in a paper."""
    best: tuple[Result, float] | None = None
    for result in results:
        by = result.monitor
        if result.status == "ok" and by is not None and by.name in result.metrics:
            value = result.metrics[by.name]
            best = (result, value) if best is None or by.is_better(value, best[1]) else best
    if best is None:
        return []
    sweep, (run, _) = shlex.quote(str(folder)), best
    newest = folder.parent / LATEST
    if folder.parent == Path("outputs", "sweeps") and named(newest, "sweeps") == folder:
        sweep = LATEST
    explain = command_on(folder / run.run, "explain", run.config)
    commands = [explain, f"{command_name('report')} {sweep} --latex"]
    return in_a_column("next:", [*open_board(folder), *commands])
