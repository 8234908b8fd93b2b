"""How good the best trials of a search are on seeds that no trial used.

The best of many trials is also the luckiest. So the best few are trained on fresh seeds. The odd
ones decide who wins: pairwise, by intervals that hold however often you look. The winner then gets
the even ones, which have decided nothing, and only these are reported: a mean over seeds that also
chose the winner, or when to stop, would again be too good. All this follows from which runs exist;
the only things stored are in search.yaml: objectives, keys, margin.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from convscape.base.errors import ConfigError
from convscape.base.files import read_yaml
from convscape.base.values import counted, typed_value
from convscape.config.metrics import metric
from convscape.reports.cells import level_text
from convscape.reports.contrasts import AT_ANY_TIME, Cells, Estimate, contrast, judge, one_family
from convscape.reports.results import ranking_metric, read_runs
from convscape.reports.statistics import estimate
from convscape.reports.verdicts import Verdict, verdict
from convscape.runs.fingerprint import flat_config, with_later_keys

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.results import RunTable
    from convscape.runs.result import Result

FOLDER = "confirmed"  # in a search's folder
NOTE = "search.yaml"  # in a search's folder: its objective

Arm = tuple[str, ...]  # a value of every searched key, as typed
Outcome = Literal["alone", "clear", "tied", "open"]


def decides(seed: int) -> bool:
    """Whether a fresh seed helps decide who wins; the others tell how good the winner is."""
    return seed % 2 == 1


class Race:
    """Who is ahead, from values (arms, seeds) of deciding seeds; NaN where a run did not finish.

    - `margin`: a difference too small to matter, in the unit of the values; None: every one
      matters.
    """

    def __init__(self, values: np.ndarray, metric: Metric, margin: float | None) -> None:
        self._values, self._metric, self._margin = values, metric, margin
        cells = Cells({"trial": np.arange(len(values))}, values)
        pairs = {}
        for one, other in itertools.combinations(range(len(values)), 2):
            found = contrast(cells, [({"trial": one}, 1), ({"trial": other}, -1)])
            if found is not None:
                pairs[one, other] = found
        estimates, _ = one_family(judge(values, [*pairs.values()]), [], AT_ANY_TIME)
        self._estimates = dict(zip(pairs, estimates, strict=True))

    def difference(self, one: int, other: int) -> Estimate:
        """One arm minus another, with an interval that allows for all pairs."""
        found = self._estimates.get((min(one, other), max(one, other)), Estimate(float("nan"), 0))
        return found if one < other else replace(found, mean=-found.mean)

    def verdict(self, one: int, other: int) -> Verdict:
        """The verdict on an arm compared with another."""
        return verdict(self.difference(one, other), self._metric, self._margin)

    @cached_property
    def contenders(self) -> list[int]:
        """Arms that no other one clearly beats, best first."""
        ran = [arm for arm, row in enumerate(self._values) if np.isfinite(row).any()]
        unbeaten = [
            arm for arm in ran if all(self.verdict(other, arm) != "better" for other in ran)
        ]
        if not unbeaten:
            return []
        rows = self._values[unbeaten]
        shared = np.isfinite(rows).all(axis=0)  # a hard seed is hard for all arms
        means = np.nanmean(rows[:, shared] if shared.any() else rows, axis=1)
        order = np.argsort(-means if self._metric.higher_is_better else means, kind="stable")
        return [unbeaten[place] for place in order]

    def unsettled(self) -> list[int]:
        """The arms that need more seeds: the one ahead, and those that cannot be told from it."""
        first, *others = self.contenders or [0]
        needed = [arm for arm in others if self.verdict(first, arm) == "open"]
        return [first, *needed] if needed else []

    @property
    def outcome(self) -> Outcome:
        """Whether the arm ahead is the best, equal to the rest within the margin, or neither."""
        if len(self._values) == 1:
            return "alone"
        if len(self.contenders) == 1:
            return "clear"
        return "open" if self.unsettled() else "tied"


@dataclass(frozen=True)
class Search:
    """What a search's folder says about it.

    - `keys`: the keys that were searched.
    - `margin`: as typed; in points if the metric is a share.
    """

    folder: Path
    objective: Metric
    keys: tuple[str, ...]
    margin: float | None

    def arm_of(self, config: dict[str, object]) -> Arm:
        """Which arm a run with this config belongs to."""
        flat = dict(flat_config(with_later_keys(config)))
        return tuple(typed_value(flat.get(key)) for key in self.keys)

    def label(self, arm: Arm) -> str:
        """As in "lr=0.01, stride=2"."""
        leaves = [key.rpartition(".")[2] for key in self.keys]
        names = [
            key if leaves.count(leaf) > 1 or leaf == "name" else leaf
            for key, leaf in zip(self.keys, leaves, strict=True)
        ]
        return ", ".join(f"{n}={v}" for n, v in zip(names, map(level_text, arm), strict=True))

    def rank(self, table: RunTable) -> Metric:
        """What its trials are ranked by: the objective, if a trial has it."""
        has_it = self.objective.name in table.ok and table.ok[self.objective.name].notna().any()
        return self.objective if has_it else ranking_metric(table, None)

    @property
    def confirmed(self) -> Confirmed:
        """The confirmation by the runs that exist now."""
        try:
            runs = [result for _, result in read_runs([self.folder / FOLDER]).runs]
        except ConfigError:  # there are no runs
            runs = []
        results: dict[Arm, dict[int, Result]] = {}
        for result in runs:
            results.setdefault(self.arm_of(result.config), {})[result.seed] = result
        # of equal arms the first wins, wherever the runs are and whatever their folders are called
        return Confirmed(self, dict(sorted(results.items())))


def search_in(folder: Path) -> Search | None:
    """The search whose folder this is; None if it is not one, or has two objectives."""
    try:
        note = read_yaml(folder / NOTE)
        ((name, direction),) = note["objectives"].items()
        if direction not in ("max", "min"):
            return None
        margin = None if note["margin"] is None else float(note["margin"])
        return Search(folder, metric(str(name), direction), tuple(map(str, note["keys"])), margin)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


@dataclass(frozen=True)
class Confirmed:
    """Fresh runs of the best trials of a search, by arm and seed."""

    search: Search
    results: dict[Arm, dict[int, Result]]

    def value(self, result: Result) -> float:
        """A run's value of the objective; NaN if it did not finish."""
        found = result.metrics.get(self.search.objective.name) if result.status == "ok" else None
        return float("nan") if found is None else float(found)

    @cached_property
    def arms(self) -> list[Arm]:
        """All arms whose confirmation has at least begun."""
        return list(self.results)

    @cached_property
    def race(self) -> Race:
        """The race by the seeds that decide."""
        rows = list(self.results.values())
        seeds = sorted({seed for row in rows for seed in row if decides(seed)})
        values = [
            [self.value(row[seed]) if seed in row else float("nan") for seed in seeds]
            for row in rows
        ]
        metric, margin = self.search.objective, self.search.margin
        scaled = None if margin is None else margin / metric.scale
        return Race(np.array(values).reshape(len(rows), len(seeds)), metric, scaled)

    @cached_property
    def winner(self) -> Arm | None:
        """The arm that is ahead; None if no arm has a finished run."""
        if len(self.arms) == 1:  # nothing to decide
            return self.arms[0]
        return self.arms[self.race.contenders[0]] if self.race.contenders else None

    def num_deciding(self, arm: Arm) -> int:
        """Number of seeds that an arm was compared on."""
        return sum(decides(seed) for seed in self.results[arm])

    @cached_property
    def telling(self) -> list[Result]:
        """Runs of the winner that decided nothing."""
        runs = self.results[self.winner] if self.winner is not None else {}
        return [result for seed, result in runs.items() if not decides(seed)]

    def told(self, name: str) -> Estimate | None:
        """A metric of the winner over the runs that decided nothing; None if none has it."""
        ok = [result for result in self.telling if result.status == "ok"]
        values = [result.metrics[name] for result in ok if name in result.metrics]
        return estimate(values) if values else None

    @property
    def has_answer(self) -> bool:
        """Whether it is known how good the winner is."""
        return self.winner is not None and self.told(self.search.objective.name) is not None

    # --- in words -----------------------------------------------------------------------------

    def sentences(self, num_images: int | None) -> list[str]:
        """What is known about the winner, and how sure its win is; empty without runs.

        - `num_images`: how many images the objective was measured on.
        """
        if not self.arms:
            return []
        objective = self.search.objective
        if self.winner is None or (told := self.told(objective.name)) is None:
            return ["Not confirmed yet: the search's command, typed again, continues."]
        numbers = [f"{objective.name} {self._amount(objective, told)}"]
        on_test = metric(objective.on_test, objective.direction)
        if objective.split != "test" and (test := self.told(on_test.name)) is not None:
            numbers.append(f"{on_test.name} {self._amount(on_test, test)}")
        rests_on = f"{counted(told.n, 'fresh seed')} that chose nothing"
        if num_images and objective.split in ("val", "test"):
            split = "validation" if objective.split == "val" else "test"
            rests_on += f", on the same {num_images:,} {split} images"
        if failed := len(self.telling) - told.n:
            rests_on += f"; {counted(failed, 'more run')} did not finish"
        label = self.search.label(self.winner)
        first = f"Confirmed: {label} reaches {', '.join(numbers)} ({rests_on})."
        return [first, *self._comparison()]

    def _amount(self, metric: Metric, found: Estimate) -> str:
        text = metric.number(found.mean)
        if found.half_width is not None:
            text += f" ± {metric.number(found.half_width)}"
        return f"{text} {metric.unit}".rstrip()

    def _comparison(self) -> list[str]:
        """How the winner differs from the others, by the seeds that decide."""
        race, arms = self.race, self.arms
        if race.outcome == "alone" or self.winner is None:
            return []
        first, *rest = race.contenders
        others = [arm for arm in range(len(arms)) if arm != first]
        most = max(race.difference(first, arm).n for arm in others)
        by = f"by up to {counted(most, 'other fresh seed')} each, valid at any look"
        if race.outcome == "clear":
            which = "the other one" if len(others) == 1 else f"the other {len(others)}"
            return [f"It is better than {which} of the best trials ({by})."]
        near = self.search.label(arms[rest[0]])
        if len(rest) > 1:
            near = f"{len(rest)} others of the best trials"
        if race.outcome == "tied":
            return [f"It is tied, within {self.search.margin:g}, with {near} ({by})."]
        return [f"It cannot be told from {near} ({by})."]
