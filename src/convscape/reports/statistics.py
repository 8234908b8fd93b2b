"""What runs say: pooled numbers, paired differences with intervals, interactions, Pareto fronts.

All intervals are 95 % intervals of Student's t. A number without an interval is one that has none:
fewer than two values, a single seed, or values without any spread.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from convscape.config.metrics import Metric
from convscape.reports.results import COSTS, RunTable, SweptKey

CONFIDENCE = 0.95
SIGNIFICANT = 1 - CONFIDENCE


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values; `half_width` of its interval and p-value of "it is 0", or None."""

    mean: float
    n: int
    sd: float | None = None
    half_width: float | None = None
    p: float | None = None


def estimate(values: Sequence[float] | np.ndarray, num_seeds: int | None = None) -> Estimate:
    """Mean of independent `values` with its t interval; one seed alone gives no interval."""
    values = np.asarray(values, dtype=float)
    n, mean = len(values), float(values.mean())
    if n < 2:
        return Estimate(mean, n)
    sd = float(values.std(ddof=1))
    if num_seeds == 1 or sd <= 1e-12 * max(1.0, abs(mean)):
        return Estimate(mean, n, sd)
    error = sd / n**0.5
    half_width = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    return Estimate(mean, n, sd, half_width, float(2 * stdtr(n - 1, -abs(mean) / error)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """P-values corrected for their number (Holm 1979, https://www.jstor.org/stable/4615733)."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, place) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - rank)))
        corrected[place] = highest
    return corrected


def configurations(table: RunTable, metric: Metric) -> pd.DataFrame:
    """One row per configuration with a finished run, best first, numbered from 1.

    Columns: the keys of `table.by`; `n` finished of `num_runs` runs; `<metric>`, `<metric>/sd` and
    `<metric>/half_width` of every metric; the means of costs and speed; `rows`, the labels of the
    finished runs in `table.frame`.
    """
    keys = [key.name for key in table.by]
    code = _codes(table.frame, keys)
    ok = table.ok
    groups = ok.groupby(code[ok.index])
    first = ok.groupby(code[ok.index], sort=True).head(1)
    result = first[keys].set_axis(code[first.index])
    result["n"] = groups.size()
    result["num_runs"] = code.value_counts().reindex(result.index)  # none where no run is ok
    measured = [name for name in table.metrics if name in ok]
    mean, sd, n = (groups[measured].agg(how) for how in ("mean", "std", "count"))
    width = stdtrit(n.clip(lower=2) - 1, (1 + CONFIDENCE) / 2) * sd / np.sqrt(n)
    width = width.where(sd > 1e-12 * mean.abs())
    result = result.join([mean, sd.add_suffix("/sd"), width.add_suffix("/half_width")])
    for name in (*COSTS, "samples_per_second", "receptive_field_height", "receptive_field_width"):
        result[name] = groups[name].mean() if name in ok else np.nan
    result["rows"] = pd.Series(groups.groups)
    if metric.name in result:
        result = result.sort_values(
            metric.name, ascending=not metric.higher_is_better, kind="stable"
        )
    return result.set_axis(range(1, len(result) + 1))


def _codes(frame: pd.DataFrame, keys: list[str]) -> pd.Series:
    """A number per run that is the same for runs with the same values of `keys`."""
    if not keys:
        return pd.Series(0, index=frame.index)
    return frame.groupby(keys, dropna=False, observed=True, sort=False).ngroup()


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> np.ndarray:
    """Which points no other beats: none costs at most as much and is worth more, or reverse."""
    cost, value = np.asarray(costs, dtype=float), np.asarray(values, dtype=float)
    on_front = np.zeros(len(cost), dtype=bool)
    best = -np.inf
    order = np.lexsort((-value, cost))
    for each, group in itertools.groupby(order, key=lambda place: cost[place]):
        places = list(group)
        top = value[places[0]]
        if np.isfinite(each) and top > best:
            on_front[[place for place in places if value[place] == top]] = True
            best = top
    return on_front


@dataclass(frozen=True)
class Effect:
    """What `level` of a key does instead of `base`, in runs that are equal in all else.

    - `estimate`: of the difference in the metric, over pairs with a common seed.
    - `ratios`: of the costs, geometric means over the same pairs.
    - `p`: of the estimate, corrected for the number of comparisons.
    """

    key: SweptKey
    level: str
    base: str
    estimate: Estimate
    num_seeds: int
    differences: np.ndarray = field(repr=False)
    ratios: dict[str, float]
    p: float | None = None

    @property
    def is_clear(self) -> bool:
        """Whether it can be told from chance."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Trend:
    """Spearman's rank correlation of a continuous key with the metric, over `n` runs."""

    key: SweptKey
    correlation: float
    n: int
    best: str


def effects(table: RunTable, metric: Metric) -> list[Effect]:
    """Every value of every discrete key against the key's first one; none where nothing pairs."""
    found = []
    ok = _with_metric(table, metric)
    for key in (key for key in table.by if not key.is_continuous):
        base = key.levels[0]
        for level in key.levels[1:]:
            effect = _effect(ok, table.keys, key, base, level, metric)
            if effect is not None:
                found.append(effect)
    corrected = holm([effect.estimate.p for effect in found])
    return [replace(effect, p=p) for effect, p in zip(found, corrected, strict=True)]


def _effect(
    ok: pd.DataFrame, keys: list[SweptKey], key: SweptKey, base: str, level: str, metric: Metric
) -> Effect | None:
    columns = [metric.name, *(cost for cost in COSTS if cost in ok and cost != metric.name)]
    cells = _cells(ok, keys, {key: (base, level)}, columns)
    if cells is None:
        return None
    values = cells[metric.name]
    paired = (values[level] - values[base]).dropna()
    if paired.empty:
        return None
    num_seeds = paired.index.get_level_values("seed").nunique()
    ratios = {}
    for cost in columns[1:]:
        pair = cells[cost].loc[paired.index]
        logs = np.log(pair[level].where(lambda x: x > 0) / pair[base].where(lambda x: x > 0))
        if logs.notna().all():
            ratios[cost] = float(np.exp(logs.mean()))
    differences = paired.to_numpy()
    return Effect(
        key, level, base, estimate(differences, num_seeds), num_seeds, differences, ratios
    )


def _with_metric(table: RunTable, metric: Metric) -> pd.DataFrame:
    ok = table.ok
    return ok[ok[metric.name].notna()] if metric.name in ok else ok.iloc[:0]


def _cells(
    ok: pd.DataFrame,
    keys: list[SweptKey],
    compared: Mapping[SweptKey, Sequence[str]],
    columns: list[str],
) -> pd.DataFrame | None:
    """Means of `columns` with the levels of the keys `compared` side by side.

    A row stands for a seed and values of all other keys; keys that some of the runs do not have
    (a kernel size in an MLP) are averaged over. None if a level has no run.
    """
    names = [key.name for key in compared]
    for key, levels in compared.items():
        ok = ok[ok[key.name].isin(levels)]
        if ok[key.name].nunique() < len(levels):
            return None
    others = [k.name for k in keys if k.name not in names and ok[k.name].notna().all()]
    groups = ok.groupby([*others, "seed", *names], observed=True, sort=False)
    means = groups[columns].mean()
    return means.unstack(names)


def trends(table: RunTable, metric: Metric) -> list[Trend]:
    """Of every continuous key."""
    found = []
    ok = _with_metric(table, metric)
    for key in (key for key in table.by if key.is_continuous):
        values = ok[ok[key.name].notna()]
        if len(values) < 3:
            continue
        numbers = values[key.name].astype(str).astype(float)
        correlation = float(numbers.rank().corr(values[metric.name].rank()))
        pick = values[metric.name].idxmax if metric.higher_is_better else values[metric.name].idxmin
        found.append(Trend(key, correlation, len(values), str(values[key.name][pick()])))
    return found


def level_means(table: RunTable, metric: Metric, key: SweptKey) -> list[Estimate]:
    """Balanced mean of the metric at each level, with its interval over the seeds."""
    per_seed = _balanced(table, metric, [key])
    columns = [per_seed[level].dropna() if level in per_seed else [] for level in key.levels]
    return [estimate(each) if len(each) else Estimate(float("nan"), 0) for each in columns]


def pair_means(table: RunTable, metric: Metric, key: SweptKey, other: SweptKey) -> pd.DataFrame:
    """Balanced mean of the metric for each pair of levels; NaN where no run has finished."""
    means = _balanced(table, metric, [key, other]).mean()
    pairs = pd.MultiIndex.from_product([key.levels, other.levels])
    grid = means.reindex(pairs).to_numpy(float).reshape(len(key.levels), len(other.levels))
    return pd.DataFrame(grid, list(key.levels), list(other.levels))


def _balanced(table: RunTable, metric: Metric, compared: list[SweptKey]) -> pd.DataFrame:
    """Mean of the metric per seed, with a column for each level (or pair of them) that has a run.

    Only cells of the other keys count that have a finished run in every column, so that columns can
    be compared; where there are none, all runs count.
    """
    ok = _with_metric(table, metric)
    names = [key.name for key in compared]
    ok = ok[ok[names].notna().all(axis=1)]
    if ok.empty:
        return pd.DataFrame()
    levels = {
        key: [each for each in key.levels if (ok[key.name] == each).any()] for key in compared
    }
    cells = _cells(ok, table.keys, levels, [metric.name])
    assert cells is not None
    values = cells[metric.name].dropna()
    if values.empty:
        return ok.groupby(["seed", *names], observed=True)[metric.name].mean().unstack(names)
    return values.groupby(level="seed").mean()


@dataclass(frozen=True)
class Interaction:
    """`level` instead of `base` of `key` does something else where `given` is `other_level`.

    - `effects`: of the key where `given` is `other_base` and where it is `other_level`.
    - `estimate`: of the difference between the two, over `n` runs in fours with a common seed.
    """

    key: SweptKey
    level: str
    base: str
    given: SweptKey
    other_level: str
    other_base: str
    effects: tuple[float, float]
    estimate: Estimate
    p: float | None = None


def interactions(table: RunTable, metric: Metric) -> list[Interaction]:
    """Those of two discrete keys that can be told from chance, the largest first."""
    found = []
    ok = _with_metric(table, metric)
    discrete = [key for key in table.by if not key.is_continuous]
    for key, given in itertools.combinations(discrete, 2):
        cells = _cells(ok, table.keys, {key: key.levels, given: given.levels}, [metric.name])
        if cells is None:
            continue
        values = cells[metric.name]
        contrasts = itertools.product(key.levels[1:], given.levels[1:])
        for level, other in contrasts:
            corners = [(key.levels[0], given.levels[0]), (level, given.levels[0])]
            corners += [(key.levels[0], other), (level, other)]
            if not all(corner in values for corner in corners):
                continue
            fours = values[corners].dropna()
            if fours.empty:
                continue
            at_base = fours[corners[1]] - fours[corners[0]]
            at_other = fours[corners[3]] - fours[corners[2]]
            num_seeds = fours.index.get_level_values("seed").nunique()
            found.append(
                Interaction(
                    key, level, key.levels[0], given, other, given.levels[0],
                    (float(at_base.mean()), float(at_other.mean())),
                    estimate(at_other - at_base, num_seeds),
                )
            )  # fmt: skip
    corrected = holm([one.estimate.p for one in found])
    clear = [
        replace(one, p=p)
        for one, p in zip(found, corrected, strict=True)
        if p is not None and p < SIGNIFICANT
    ]
    return sorted(clear, key=lambda one: -abs(one.estimate.mean))
