"""How far a folder's runs are, from its files alone: they may be on any machine. No torch.

A sweep records next to its runs what it is about to train, because a run that has not started has
no folder. Both the terminal and the tab in TensorBoard read progress here.
"""

from __future__ import annotations

import csv
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from convscape.base import files
from convscape.base.errors import CannotWrite
from convscape.base.files import changed
from convscape.runs.folder import RunFolder
from convscape.runs.result import Result

NOTE = ".to-do.json"  # in a sweep's folder
_USUAL_IMAGES = 50_000  # assumed if all images of a data set are trained on
_MAX_BYTES = 2**24  # in the note: a grid has up to 100,000 runs
_QUIET_S = 120  # without a sign of life for this long, and twice a run's time: nobody works on it

T = TypeVar("T")


class Remembered(Generic[T]):
    """Reads a file again only if it has changed."""

    def __init__(self, read: Callable[[Path], T]) -> None:
        self._read = read
        self._known: dict[Path, tuple[int, T]] = {}

    def __call__(self, file: Path) -> T:
        """The file's current content."""
        stamp = changed(file)
        if (before := self._known.get(file)) is None or before[0] != stamp:
            before = self._known[file] = stamp, self._read(file)
        return before[1]


@dataclass(frozen=True)
class ToDo:
    """What a sweep is about to train, as recorded.

    - `since`: seconds, when it started on that.
    - `work`: the work of each run by its fingerprint, see `work`.
    - `is_open`: whether there may be more.
    - `more`: how many more there will be of which only the number is known: trials of a search.
    """

    since: float = 0.0
    work: Mapping[str, float | None] = field(default_factory=dict)
    is_open: bool = False
    more: int = 0


def note_to_do(folder: Path, todo: ToDo) -> None:
    """Write it to a sweep's folder.

    Raises:
        CannotWrite: if it cannot be written.
    """
    values = asdict(todo)
    try:
        files.write_atomic(folder / NOTE, json.dumps(values), within=folder)
    except OSError as error:
        raise CannotWrite(folder, error) from None


def read_to_do(folder: Path) -> ToDo:
    """What was recorded there; empty if missing or damaged."""
    try:
        note = files.plain_json(files.read_bytes(folder / NOTE, _MAX_BYTES))
        known = {str(k): None if v is None else _finite(v) for k, v in note["work"].items()}
        more = int(_finite(note.get("more", 0)))
        return ToDo(_finite(note["since"]), known, note["is_open"] is True, more)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ToDo()


def _finite(value: Any) -> float:
    number = float(value)
    if not 0 <= number < 1e30:
        raise ValueError(f"{number} is not one of ours")
    return number


def work(config: Mapping[str, Any], macs: int | None) -> float | None:
    """What a run's time is proportional to: the MACs of its training; None if unknown."""
    data, trainer = config.get("data", {}), config.get("trainer", {})
    epochs, images = trainer.get("max_epochs"), data.get("train_size") or _USUAL_IMAGES
    if macs is None or not isinstance(epochs, int) or not isinstance(images, int):
        return None
    return float(macs) * max(epochs, 1) * max(images, 1)


@dataclass(frozen=True)
class Pace:
    """How far a run is: epochs done and planned, and the seconds it still needs."""

    epochs: int
    planned: int | None
    left_s: float | None = None

    @classmethod
    def of(cls, run: RunFolder, result: Result, now: float | None = None) -> Pace:
        """The pace of a running run, from its history, or of another one, from its result."""
        planned = result.config.get("trainer", {}).get("max_epochs")
        planned = planned if isinstance(planned, int) and planned > 0 else None
        if result.status != "running":
            return cls(result.epochs, planned)
        done = max(0, run.num_epochs())
        began, last = (changed(file) / 1e9 for file in (run.config_file, run.history_file))
        here = done - result.epochs  # since it was started or resumed
        if planned is None or here < 1 or last <= began:
            return cls(done, planned)
        now = time.time() if now is None else now
        left = (planned - done) * (last - began) / here - (now - last)
        return cls(done, planned, max(0.0, left))


@dataclass(frozen=True)
class Progress:
    """The progress of a folder of runs.

    - `counts`: how many runs have which status; `todo`: how many have not started.
    - `left_s`: until everything known is done; None if it cannot be estimated, or nobody is working
      on it.
    - `is_open`: whether more runs may be added.
    """

    counts: Mapping[str, int]
    running: Mapping[Path, Pace]
    todo: int = 0
    left_s: float | None = None
    is_open: bool = False

    @property
    def total(self) -> int:
        """All known runs."""
        return sum(self.counts.values()) + self.todo

    @property
    def done(self) -> int:
        """Runs that ended, in whichever way."""
        return self.total - self.todo - self.counts.get("running", 0)

    def in_short(self) -> dict[str, Any]:
        """The same as plain values, for a page."""
        left = None if self.is_open or self.left_s is None else round(self.left_s)
        numbers = {"total": self.total, "done": self.done, "todo": self.todo, "left": left}
        return numbers | {"running": self.counts.get("running", 0)}


def progress(
    folder: Path, runs: Iterable[tuple[Path, Result]], now: float | None = None
) -> Progress:
    """How far the `runs` in `folder`, a sweep's or not, are."""
    now = time.time() if now is None else now
    todo, runs = read_to_do(folder), list(runs)
    lasting = [(path, result) for path, result in runs if result.status == "running"]
    running = {path: Pace.of(RunFolder(path), result, now) for path, result in lasting}
    found = {result.fingerprint: (path, result) for path, result in runs}
    counts: Counter[str] = Counter(result.status for _, result in runs)
    ended: list[tuple[Path, Result]] = []
    waiting: list[str] = []
    for fingerprint in todo.work:
        path, result = found.get(fingerprint, (None, None))
        if path is None or result is None:
            waiting.append(fingerprint)
        elif result.status == "running":
            continue
        elif changed(path / "result.json") / 1e9 >= todo.since:
            ended.append((path, result))
        else:  # it will be resumed
            waiting.append(fingerprint)
            counts[result.status] -= 1
    working = {path: r for path, r in lasting if r.fingerprint in todo.work or todo.more}
    if todo.more:
        others = [(p, r) for p, r in runs if r.fingerprint not in todo.work and p not in working]
        ended += [(p, r) for p, r in others if changed(p / "result.json") / 1e9 >= todo.since]
    begun = {path for path, r in ended if r.fingerprint not in todo.work}
    begun |= {path for path, r in working.items() if r.fingerprint not in todo.work}
    num_more = max(0, todo.more - len(begun))
    works = [*(todo.work[each] for each in waiting), *[None] * num_more]
    left = _left(todo, ended, working, works, now)
    if left is None and not (todo.work or todo.more) and running:
        known = [pace.left_s for pace in running.values() if pace.left_s is not None]
        left = max(known, default=None) if len(known) == len(running) else None
    return Progress(+counts, running, len(works), left, todo.is_open)


def _left(
    todo: ToDo,
    ended: list[tuple[Path, Result]],
    running: Mapping[Path, Result],
    waiting: Sequence[float | None],
    now: float,
) -> float | None:
    """Seconds until all is done: the time so far, scaled by what is left over what is done.

    This takes into account how many run at once and the gaps between them, but not the start-up of
    processes.
    """
    finished = [
        (work(result.config, result.macs), sum(result.seconds.values()))
        for _, result in ended
        if result.status == "ok"
    ]
    if not finished or not (running or waiting):
        return None
    seconds = _by_work(finished)
    spans = [(*_span(path), sum(result.seconds.values())) for path, result in ended]
    last = max(end for _, end, _ in spans)
    left, longest = sum(map(seconds, waiting)), 0.0
    for path, result in running.items():
        run, whole = RunFolder(path), seconds(todo.work.get(result.fingerprint))
        last = max(last, changed(run.history_file) / 1e9)
        began = changed(run.config_file) / 1e9
        rest = Pace.of(run, result, now).left_s
        if rest is None:  # before its first epoch
            rest = max(whole - (now - began), 0.05 * whole)
        share = max(0.0, now - began) / max(now - began + rest, 1e-9)
        spans.append((began, now, share * whole))
        left += (1 - share) * whole
        longest = max(longest, (1 - share) * whole)
    if now - last > max(_QUIET_S, 2 * seconds(None)):
        return None
    since = sorted(end for _, end, _ in spans[: len(ended)])[len(ended) // 3]
    if len(ended) < 3:
        since = max(todo.since, min(began for began, _, _ in spans))
    done = sum(
        amount * max(0.0, end - max(began, since)) / max(end - began, 1e-9)
        for began, end, amount in spans
    )
    return max(longest, left * max(now - since, 0.0) / done) if done > 0 else longest


def _span(path: Path) -> tuple[float, float]:
    """When a finished run was started or last resumed, and when it ended."""
    run = RunFolder(path)
    return changed(run.config_file) / 1e9, changed(run.result_file) / 1e9


def _by_work(finished: list[tuple[float | None, float]]) -> Callable[[float | None], float]:
    """A run's seconds as a function of its work: from similar runs, or a line through all."""
    mean = sum(seconds for _, seconds in finished) / len(finished)
    same: dict[float, list[float]] = {}
    for amount, seconds in finished:
        if amount is not None:
            same.setdefault(amount, []).append(seconds)
    means = {amount: sum(each) / len(each) for amount, each in same.items()}
    slope, base = 0.0, mean
    if len(means) > 1:
        x, y = sum(means) / len(means), sum(means.values()) / len(means)
        spread = sum((amount - x) ** 2 for amount in means)
        slope = sum((amount - x) * (each - y) for amount, each in means.items()) / spread
        # more work never takes less time, and no work never takes all of it
        slope = min(max(slope, 0.0), y / x)
        base = y - slope * x
    return lambda amount: mean if amount is None else means.get(amount, base + slope * amount)


def last_metrics(run: RunFolder) -> dict[str, float]:
    """The metrics of the latest epoch in a run's history that are numbers."""
    found: dict[str, float] = {}
    with suppress(OSError, ValueError):
        header, *rows = files.read_bytes(run.history_file).decode().splitlines() or [""]
        for names, values in zip(csv.reader([header]), csv.reader(rows[-1:]), strict=False):
            for name, value in zip(names, values, strict=False):
                with suppress(ValueError):
                    found[name] = float(value)
    return found
