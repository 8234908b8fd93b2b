"""until=verdict: which runs of a grid come next, and which comparisons are settled. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convscape.base.values import counted
from convscape.config.kinds import seed_range
from convscape.reports.sentences import change_in_words
from convscape.reports.verdicts import Budget, verdict
from convscape.sweeps.words import duration

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.config.schema import Config
    from convscape.reports.comparisons import Effect
    from convscape.reports.verdicts import Verdict
    from convscape.runs.result import Result
    from convscape.sweeps.grid import PlannedRun, SweepPlan

Cell = tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """A comparison with its verdict; `cells` are the cells it compares."""

    effect: Effect
    metric: Metric
    verdict: Verdict
    cells: frozenset[Cell]


class Comparing:
    """The runs of a grid by cell and seed, and what finished ones say about its comparisons."""

    def __init__(self, plan: SweepPlan, folder: Path, config: Config, num_at_once: int) -> None:
        self.folder, self.margin = folder, config.margin
        self._runs: dict[tuple[Cell, int], PlannedRun] = {}
        self._cell_of: dict[str, Cell] = {}
        for run in plan.runs:
            seed = next(int(o.partition("=")[2]) for o in run.overrides if o.startswith("seed="))
            cell = tuple(o for o in run.overrides if not o.startswith("seed="))
            self._runs[cell, seed] = run
            self._cell_of[run.fingerprint] = cell
        self.cells = list(dict.fromkeys(cell for cell, _ in self._runs))
        least, most = seed_range(config.seeds)
        self.budget = Budget(least, most, max(1, num_at_once // len(self.cells)))
        if num_at_once > 1:
            self.budget = Budget(least, most, max(2, self.budget.step))

    def overview(self, folder: Path) -> str:
        """The sweep in a line, before it starts."""
        least, most = self.budget.least, self.budget.most
        until = "settled" if self.margin is None else f"settled, within {self.margin:g} if equal"
        return (
            f"sweep {folder}: {counted(len(self.cells), 'configuration')}, {least} to {most} seeds "
            f"each, until every comparison is {until}"
        )

    def runs(self, cells: Collection[Cell], seeds: Sequence[int]) -> Iterator[PlannedRun]:
        """The runs of these cells and seeds, seed by seed."""
        for seed in seeds:
            for cell in cells:
                if (run := self._runs.get((cell, seed))) is not None:
                    yield run

    def unsettled(self) -> list[Cell]:
        """The cells of all comparisons not settled yet."""
        needed = {cell for one in self.found() if one.verdict == "open" for cell in one.cells}
        return [cell for cell in self.cells if cell in needed]

    def found(self) -> list[Found]:
        """Each value of each key compared with its first, from the runs in the folder."""
        from convscape.reports.comparisons import compare
        from convscape.reports.contrasts import AT_ANY_TIME
        from convscape.reports.results import ranking_metric, read_runs, tables, typed_order

        run_tables = tables(read_runs([self.folder]), orders=[typed_order(self.folder)])
        asked = [(table, ranking_metric(table, None)) for table in run_tables]
        found = []
        for (table, metric), compared in zip(asked, compare(asked, AT_ANY_TIME), strict=True):
            margin = None if self.margin is None else self.margin / metric.scale
            for effect in compared.effects:
                values = table.frame[effect.key.name]
                rows = table.frame[(values == effect.level) | (values == effect.base)]
                names = [name.rpartition("-")[2] for name in rows["run"]]
                cells = frozenset(self._cell_of[n] for n in names if n in self._cell_of)
                settled = verdict(effect.estimate, metric, margin)
                found.append(Found(effect, metric, settled, cells))
        return found

    def words(self, results: Sequence[Result]) -> list[str]:
        """A line per comparison, and the total cost."""
        found = self.found()
        lines = [_line(one, self.margin, self.budget.most) for one in found]
        made = [result for result in results if result.status != "infeasible"]
        seconds = sum(sum(result.seconds.values()) for result in made)
        possible = sum(run.reason is None for run in self._runs.values())
        lines.append(
            f"until=verdict: {counted(len(made), 'run')} and {duration(seconds)} of training; "
            f"with {self.budget.most} seeds for all it would be {counted(possible, 'run')}"
        )
        if any(one.verdict == "open" for one in found):
            lines.append(
                f"to continue with more seeds: seeds={self.budget.least}..{2 * self.budget.most}"
                + ("; or choose a larger margin" if self.margin is not None else "")
            )
        return lines


def _line(one: Found, margin: float | None, most: int) -> str:
    """As in "kernel size 5 instead of 3 is better: +0.58 (+0.10 to +1.06) points, 11 seeds"."""
    effect, metric, estimate = one.effect, one.metric, one.effect.estimate
    is_ = {
        "better": "is better",
        "worse": "is worse",
        "equal": f"is equal within {margin:g}" if margin is not None else "",
        "open": "is not settled",
    }[one.verdict]

    def number(value: float) -> str:
        return f"{metric.scale * value:+.{metric.digits}f}"

    amount = number(estimate.mean)
    if estimate.half_width is not None:
        low, high = estimate.mean - estimate.half_width, estimate.mean + estimate.half_width
        amount += f" ({number(low)} to {number(high)})"
    unit = "points" if metric.is_share else metric.name
    return f"{change_in_words(effect)} {is_}: {amount} {unit}, {counted(estimate.n, 'seed')}"
