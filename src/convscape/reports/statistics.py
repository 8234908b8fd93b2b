"""What the runs show: pooled numbers with intervals, trends, balanced means, Pareto fronts.

All intervals are 95 % intervals of Student's t. A number has no interval if it comes from fewer
than two values, a single seed, or values without any spread.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from convscape.config.metrics import Metric
from convscape.reports.contrasts import Estimate, Judged, Look
from convscape.reports.results import COSTS, RunTable, SweptKey

CONFIDENCE = 0.95


def estimate(values: Sequence[float] | np.ndarray, num_seeds: int | None = None) -> Estimate:
    """Mean of independent `values` with its t interval; a single seed gives no interval."""
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


def estimate_at(values: Sequence[float], look: Look) -> Estimate:
    """Mean of independent `values`, with its interval at one of several looks."""
    plain = estimate(values)
    if plain.half_width is None or plain.sd is None:
        return replace(plain, look=look)
    judged = Judged(plain.mean, plain.n, plain.sd, plain.sd**2 / plain.n, plain.n - 1, True)
    return judged.estimate(1.0, look)


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
    result["num_runs"] = code.value_counts().reindex(result.index)  # missing if no run is ok
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
    """Which points no other beats: none costs no more and is worth more, or the reverse."""
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
class Trend:
    """Spearman's rank correlation of a continuous key with the metric, over `n` runs."""

    key: SweptKey
    correlation: float
    n: int
    best: str


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

    A row stands for a seed and values of all other keys; keys that some of the runs lack (a kernel
    size in an MLP) are averaged over. None if a level has no run.
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
    """The trend of every continuous key."""
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
    """Mean of the metric per seed, with a column for each level (or pair) that has a run.

    Only cells of the other keys with a finished run in every column count, so that columns are
    comparable; if there are none, all runs count.
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
