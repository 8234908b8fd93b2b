"""What a terminal shows while runs train: one table instead of a line per epoch.

It reads the run folders, so it sees runs wherever they are: in this process, in others, on the
nodes of a cluster.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import notebook
from convscape.base.files import changed
from convscape.base.terminal import say, shortened
from convscape.runs.folder import FAILURES, RunFolder
from convscape.runs.progress import Remembered, last_metrics, progress
from convscape.sweeps.words import counter, duration, line, short_error

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from convscape.runs.progress import Progress
    from convscape.runs.result import Result

_PRUNED = "Pruned"  # the error of a trial that a search ended, with status interrupted
_HERE = "CONVSCAPE_SWEEP_TABLE"
_MAX_RUNNING = 8  # runs that get a line each
_MAX_FAILED = 2
_PATIENCE_S = 5  # with an unfinished drawing when the sweep ends
_SHARE = 0.05  # of the time may be spent on the answer so far, which may go unread


@contextmanager
def table(
    folder: Path,
    style: str,
    *,
    has_answer: bool = True,
    has_lines: bool = True,
    titles: Mapping[str, str] | None = None,
) -> Iterator[None]:
    """Show the runs in a folder while this lasts, if there is a terminal.

    - `style`: trainer.progress.
    - `has_answer`: whether to say what the runs show so far.
    - `has_lines`: whether each finished run gets a line above the table.
    - `titles`: a title per fingerprint; otherwise the run's name.
    """
    if style != "auto" or not sys.stderr.isatty() or notebook.is_here():
        yield
        return
    from rich.console import Console

    view = _View(folder, Console(stderr=True), has_answer, has_lines, titles)
    os.environ[_HERE] = "1"
    try:
        with view.shown():
            yield
    finally:
        del os.environ[_HERE]


def is_here() -> bool:
    """Whether a table shows the runs, so this run, if it is one of them, need not print."""
    return _HERE in os.environ


Reader = Callable[[Path], "Result | None"]


def runs_in(folder: Path, read: Reader) -> list[tuple[Path, Result]]:
    """The runs in a sweep's folder, with what `read` finds in each result file."""
    files = sorted(folder.glob("*/result.json"))
    return [(file.parent, result) for file in files if (result := read(file)) is not None]


def time_left(found: Progress) -> str:
    """As in "about 5 min left"; empty if it cannot be known."""
    if found.left_s is None or found.is_open:
        return ""
    return f"about {duration(found.left_s)} left"


class TimeLeft:
    """The time left in a sweep, for each run's line, if there is no table.

    In a folder with very many runs most lines omit it, because finding out takes time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._next = folder, 0.0
        self._read = Remembered(lambda file: RunFolder(file.parent).read_result())

    def __call__(self) -> str:
        """As it is now."""
        start = time.monotonic()
        if start < self._next:
            return ""
        words = time_left(progress(self._folder, runs_in(self._folder, self._read)))
        self._next = time.monotonic() + (time.monotonic() - start) / _SHARE
        return words


@lru_cache(maxsize=1)
def time_left_of(folder: Path) -> TimeLeft:
    """One `TimeLeft` for all runs of a process."""
    return TimeLeft(folder)


class _View:
    """The table of a folder, drawn from its own thread."""

    def __init__(
        self,
        folder: Path,
        console: Console,
        has_answer: bool,
        has_lines: bool = True,
        titles: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.console, self.has_answer = folder, console, has_answer
        self._has_lines, self._titles = has_lines, titles or {}
        self._read = Remembered(lambda file: RunFolder(file.parent).read_result())
        self._told: set[str] | None = None
        self._runs: list[tuple[Path, Result]] = []
        self._answer = ""
        self._answered, self._next_answer = 0, 0.0
        self._stop = threading.Event()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw every second, or less often if there is much to read."""
        from rich.live import Live

        self.look()
        live = Live(
            self.drawn(),
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )

        def draw() -> None:
            pause = 0.2
            while not self._stop.wait(pause):
                start = time.perf_counter()
                with suppress(OSError):  # the folder is being removed
                    live.update(self.drawn(), refresh=True)
                pause = max(1.0, 20 * (time.perf_counter() - start))
                self.answer()

        thread = threading.Thread(target=draw, daemon=True)
        with live:
            thread.start()
            try:
                yield
            finally:
                self._stop.set()
                thread.join(_PATIENCE_S)
                self.look()

    def look(self) -> Progress:
        """Read what is new, and report which runs have ended since."""
        self._runs = [
            (path, replace(result, run=self._titles.get(result.fingerprint, result.run)))
            for path, result in runs_in(self.folder, self._read)
        ]
        found = progress(self.folder, self._runs)
        ended = [(path, r) for path, r in self._runs if r.status != "running"]
        if self._told is None:
            self._told = {_key(r) for _, r in ended}
        new = [each for each in ended if _key(each[1]) not in self._told]
        self._told |= {_key(r) for _, r in new}
        new.sort(key=lambda each: changed(RunFolder(each[0]).result_file))
        for number, (_, result) in enumerate(new, found.done - len(new) + 1):
            if self._has_lines:
                say(line(result, f"[{number}]" if found.is_open else counter(number, found.total)))
        return found

    def drawn(self) -> RenderableType:
        """The table as it is now."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        found = self.look()
        head = Table.grid(padding=(0, 2))
        head.add_row(
            ProgressBar(total=max(1, found.total), completed=found.done, width=24),
            f"{found.done:,} of {found.total:,} runs", time_left(found),
        )  # fmt: skip
        rows = Table.grid(padding=(0, 2))
        width = self.console.width
        for kind, name, *facts in self._rows(found):
            room = max(12, width - 40)
            rows.add_row(kind, shortened(name, room), *facts)
        pruned = sum(_is_pruned(result) for _, result in self._runs)
        parts: list[Any] = [head, Text(_counts(found, pruned), style="dim"), rows]
        if self._answer:
            parts.append(Text(f"so far: {self._answer}"))
        return Group(*parts)

    def _rows(self, found: Progress) -> Iterator[tuple[str, ...]]:
        """What is running, the best so far, what has failed."""
        lasting = [(path, result) for path, result in self._runs if path in found.running]
        for path, result in lasting[:_MAX_RUNNING]:
            pace, by = found.running[path], result.monitor
            epochs = str(pace.epochs) if pace.planned is None else f"{pace.epochs}/{pace.planned}"
            now = last_metrics(RunFolder(path)) if by is not None else {}
            words = f"{by.name} {by.written(now[by.name])}" if by and by.name in now else ""
            left = "" if pace.left_s is None else duration(pace.left_s)
            yield "running", result.run, f"epoch {epochs}", words, left
        if len(lasting) > _MAX_RUNNING:
            yield "", f"and {len(lasting) - _MAX_RUNNING} more running"
        best = None
        for _, result in self._runs:
            by = result.monitor
            if result.status != "ok" or by is None or by.name not in result.metrics:
                continue
            if best is None or by.is_better(result.metrics[by.name], best[1]):
                best = result.run, result.metrics[by.name], by
        if best is not None:
            name, value, by = best
            yield "best", name, "", f"{by.name} {by.written(value)}"
        failed = [result for _, result in self._runs if result.status in FAILURES]
        for result in failed[-_MAX_FAILED:]:
            yield result.status, result.run, short_error(result)

    def answer(self) -> None:
        """Work out now and then what the runs show so far."""
        num_ok = sum(result.status == "ok" for _, result in self._runs)
        if not self.has_answer or num_ok in (0, self._answered):
            return
        if time.monotonic() < self._next_answer:
            return
        from convscape.reports import page  # noqa: F401  which is needed at the end anyway

        start = time.monotonic()
        self._answered, self._answer = num_ok, _answer(self.folder)
        self._next_answer = time.monotonic() + (time.monotonic() - start) / _SHARE


def _key(result: Result) -> str:
    return f"{result.fingerprint} {result.status}"


def _is_pruned(result: Result) -> bool:
    return result.error is not None and result.error["type"] == _PRUNED


def _counts(found: Progress, num_pruned: int = 0) -> str:
    counts = Counter(found.counts)
    counts["pruned"] += num_pruned
    counts["interrupted"] -= num_pruned
    words = [f"{count:,} {status.replace('_', ' ')}" for status, count in (+counts).items()]
    return ", ".join([*words, f"{found.todo:,} to do"])


def _answer(folder: Path) -> str:
    """What the runs in a sweep's folder show so far, in a sentence; empty if nothing yet.

    Errors are left for the report at the end to explain.
    """
    from convscape.reports.board import verdict
    from convscape.reports.looks import watch
    from convscape.reports.page import sections_of
    from convscape.reports.results import read_runs

    try:
        sections, _ = sections_of(read_runs([folder]), [folder], looking=watch)
    except Exception:  # noqa: BLE001
        return ""
    found = [verdict(section) for section in sections]
    return " ".join(each["words"] for each in found if each["kind"] != "none")
