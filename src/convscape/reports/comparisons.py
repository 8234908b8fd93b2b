"""What each value of a key does, and when it depends on another key: one family per report."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from convscape.config.metrics import Metric
from convscape.reports.contrasts import (
    ALONE,
    Cells,
    Contrast,
    Estimate,
    Judged,
    Look,
    contrast,
    judge,
    one_family,
)
from convscape.reports.results import COSTS, RunTable, SweptKey


@dataclass(frozen=True)
class Effect:
    """What `level` of a key does instead of `base`, in runs that are otherwise equal.

    - `estimate`: the difference in the metric over seeds; each seed first averages its pairs. Its
      interval and p-value allow for there being many comparisons.
    - `num_pairs`: pairs per seed; `num_left_out`: pairs that only some of the seeds have.
    - `ratios`: ratios of the costs, geometric means over the same pairs.
    """

    key: SweptKey
    level: str
    base: str
    estimate: Estimate
    num_pairs: int
    num_left_out: int
    ratios: dict[str, float]

    @property
    def is_clear(self) -> bool:
        """Whether it can be told from chance."""
        return self.estimate.is_clear


@dataclass(frozen=True)
class Interaction:
    """`level` instead of `base` of `key` has another effect where `given` is `other_level`.

    - `effects`: effects of the key where `given` is `other_base` and where it is `other_level`.
    - `estimate`: of the difference between the two, over seeds.
    - `num_fours`: sets of four runs for each seed.
    """

    key: SweptKey
    level: str
    base: str
    given: SweptKey
    other_level: str
    other_base: str
    effects: tuple[float, float]
    estimate: Estimate
    num_fours: int

    @property
    def is_clear(self) -> bool:
        """Whether it can be told from chance."""
        return self.estimate.is_clear


@dataclass(frozen=True)
class Comparisons:
    """For one data set: every effect and every interaction, whether clear or not."""

    effects: list[Effect]
    interactions: list[Interaction]

    def clear_interactions(self) -> list[Interaction]:
        """The interactions that can be told from chance, largest first."""
        clear = [each for each in self.interactions if each.is_clear]
        return sorted(clear, key=lambda each: -abs(each.estimate.mean))


def compare(asked: Sequence[tuple[RunTable, Metric]], look: Look = ALONE) -> list[Comparisons]:
    """The comparisons of each table by its metric; all tables of a report are one family."""
    parts = [_of_table(table, metric) for table, metric in asked]
    effects = [each for part in parts for each in part[0]]
    interactions = [each for part in parts for each in part[1]]
    first, second = one_family([j for _, j in effects], [j for _, j in interactions], look)
    done = iter([replace(e, estimate=x) for (e, _), x in zip(effects, first, strict=True)])
    more = iter([replace(i, estimate=x) for (i, _), x in zip(interactions, second, strict=True)])
    return [
        Comparisons(
            list(itertools.islice(done, len(part[0]))), list(itertools.islice(more, len(part[1])))
        )
        for part in parts
    ]


_Part = tuple[list[tuple[Effect, Judged]], list[tuple[Interaction, Judged]]]
_UNKNOWN = Estimate(float("nan"), 0)  # until the family is complete


def _of_table(table: RunTable, metric: Metric) -> _Part:
    cells = Cells.of(table, metric, COSTS)
    if cells is None:
        return [], []
    discrete = [key for key in table.by if not key.is_continuous]
    effects = list(effect_contrasts(cells, discrete))
    interactions = list(interaction_contrasts(cells, discrete))
    judged = judge(cells.values, [c for _, c in effects])
    between = judge(cells.values, [c for _, c in interactions])
    return (
        [(effect, each) for (effect, _), each in zip(effects, judged, strict=True)],
        [(one, each) for (one, _), each in zip(interactions, between, strict=True)],
    )


def effect_contrasts(cells: Cells, keys: Sequence[SweptKey]) -> Iterator[tuple[Effect, Contrast]]:
    """Every value of every key against the key's first; empty if nothing pairs."""
    for key in keys:
        for place, level in enumerate(key.levels[1:], 1):
            found = contrast(cells, [({key.name: place}, 1), ({key.name: 0}, -1)])
            if found is not None:
                effect = Effect(
                    *(key, level, key.levels[0], _UNKNOWN),
                    *(found.num_sets, found.num_left_out, _ratios(cells, found)),
                )
                yield effect, found


def _ratios(cells: Cells, found: Contrast) -> dict[str, float]:
    """For each cost that all of the runs have: the factor it changes by."""
    ratios = {}
    used = found.weights != 0
    for name, costs in cells.costs.items():
        mine = costs[np.ix_(used, found.seeds)]
        if (mine > 0).all():
            logs = found.weights[used] @ np.log(mine)
            ratios[name] = float(np.exp(logs.mean()))
    return ratios


def interaction_contrasts(
    cells: Cells, keys: Sequence[SweptKey]
) -> Iterator[tuple[Interaction, Contrast]]:
    """Every value of a key against its first, at every value of another key against its first."""
    for key, given in itertools.combinations(keys, 2):
        places = itertools.product(range(1, len(key.levels)), range(1, len(given.levels)))
        for place, other in places:
            corners = [
                ({key.name: a, given.name: b}, (1 if a else -1) * (1 if b else -1))
                for a, b in itertools.product((place, 0), (other, 0))
            ]
            found = contrast(cells, corners)
            if found is None:
                continue
            is_at_base = cells.levels[given.name] == 0
            there = replace(found, weights=np.where(is_at_base, 0.0, found.weights))
            base = replace(found, weights=np.where(is_at_base, -found.weights, 0.0))
            effects = (float(base.of(cells.values).mean()), float(there.of(cells.values).mean()))
            yield (
                Interaction(
                    *(key, key.levels[place], key.levels[0]),
                    *(given, given.levels[other], given.levels[0]),
                    *(effects, _UNKNOWN, found.num_sets),
                ),
                found,
            )
