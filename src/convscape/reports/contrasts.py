"""Comparisons of runs whose unit is the seed, and one family of them per report.

Runs with the same seed share luck: networks that hardly differ end up alike, seed after seed. So
the runs of a comparison are first averaged within each seed, and only the seeds are counted. Three
seeds say little about their own noise; the noise of the other comparisons is added to it, never put
in its place. docs/facts.md has the reasons, the sources and how often this was right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from convscape.config.metrics import Metric
from convscape.reports import anytime
from convscape.reports.results import RunTable

SIGNIFICANT = 0.05  # for a whole report: the share of reports without any effect that claim one
EFFECTS_SHARE = 0.8  # of that for effects, the rest for the many interactions that nobody asked for
POOLED_SEEDS = 2  # weight of the other comparisons' noise against the number of seeds minus one
MAX_FREEDOM = 3  # times the degrees of freedom of a comparison's own seeds

_NO_SPREAD = 1e-12  # relative to the values: smaller differences are rounding


@dataclass(frozen=True)
class Look:
    """How much the comparisons of a report may claim.

    - `number`: of this look at the runs, from 1; None: intervals hold for any number of looks.
    - `share`: the part of `SIGNIFICANT` that this look may spend.
    """

    number: int | None
    share: float

    @property
    def words(self) -> str:
        """In a sentence."""
        if self.number is None:
            return "valid at any look"
        return "first look" if self.number == 1 else f"look {self.number}"

    @property
    def remarks(self) -> list[str]:
        """What else a report says about it."""
        if self.number is None or self.number == 1:
            return []
        return [
            f"This is look {self.number} at these runs. Its intervals are wider than those of a "
            "only look, so that all looks together are wrong no more often than one would be."
        ]


ALONE = Look(1, 1.0)  # the only look there will ever be
AT_ANY_TIME = Look(None, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A mean of `n` values; `half_width` of its interval and p-value of "it is 0", or None.

    - `look`: the look that they are valid for.
    """

    mean: float
    n: int
    sd: float | None = None
    half_width: float | None = None
    p: float | None = None
    look: Look = ALONE

    @property
    def is_clear(self) -> bool:
        """Whether it can be told from chance."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class Cells:
    """The finished runs by configuration: a row per cell, which has one value of every key.

    - `levels`: for each key the index of each cell's value among its levels (cells,); -1 if a cell
      lacks the key.
    - `values`: the metric per cell and seed (cells, seeds); NaN where no run has finished.
    """

    levels: dict[str, np.ndarray]
    values: np.ndarray
    costs: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, table: RunTable, metric: Metric, costs: Sequence[str] = ()) -> Cells | None:
        """The cells of a table; None if no run has the metric."""
        ok = table.ok
        if metric.name not in ok or not (ok := ok[ok[metric.name].notna()])["seed"].notna().any():
            return None
        names = [key.name for key in table.keys]
        codes = pd.DataFrame({name: ok[name].cat.codes.to_numpy() for name in names}, ok.index)
        cell = codes.groupby(names).ngroup() if names else pd.Series(0, ok.index)
        first = codes.groupby(cell).first()
        columns = [metric.name, *(c for c in costs if c in ok and c != metric.name)]
        means = ok.groupby([cell, "seed"])[columns].mean().unstack("seed")
        wide = {name: means[name].to_numpy(float) for name in columns}
        levels = {name: first[name].to_numpy() for name in names}
        return cls(levels, wide[metric.name], {name: wide[name] for name in columns[1:]})


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of cells, for each of its seeds.

    - `weights`: (cells,); over each corner of the comparison they sum to its sign.
    - `seeds`: indices of the seeds that have a run in every cell with a weight.
    - `num_sets`: how many pairs (of an interaction: sets of four) each seed has.
    - `num_left_out`: pairs that exist, but not for every one of these seeds.
    """

    weights: np.ndarray
    seeds: tuple[int, ...]
    num_sets: int
    num_left_out: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """One number per seed (seeds,) from values (cells, seeds)."""
        used = self.weights != 0
        return self.weights[used] @ values[np.ix_(used, self.seeds)]


def contrast(cells: Cells, corners: Sequence[tuple[Mapping[str, int], int]]) -> Contrast | None:
    """The sum over `corners`, each a level per key and a sign, in otherwise equal cells.

    Only complete sets count: a cell at every corner, and a run in every cell for each of the seeds.
    Keys that some of the cells do not have (a kernel size in an MLP) are averaged over. None if
    nothing is left.
    """
    masks = [
        np.logical_and.reduce([cells.levels[name] == level for name, level in corner.items()])
        for corner, _ in corners
    ]
    used = np.flatnonzero(np.logical_or.reduce(masks))
    others = [
        levels[used]
        for name, levels in cells.levels.items()
        if name not in corners[0][0] and (levels[used] >= 0).all()
    ]
    groups = np.zeros(len(used), dtype=int)
    if others and len(used):
        groups = np.unique(np.stack(others), axis=1, return_inverse=True)[1].reshape(-1)
    num_groups = int(groups.max(initial=-1)) + 1
    counts = [np.bincount(groups[mask[used]], minlength=num_groups) for mask in masks]
    num_missing = np.zeros((num_groups, cells.values.shape[1]), dtype=int)
    np.add.at(num_missing, groups, ~np.isfinite(cells.values[used]))
    is_there = (num_missing == 0) & (np.min(counts, axis=0) > 0)[:, None]
    if not is_there.any():
        return None
    rows, seeds = complete_block(is_there)
    weights = np.zeros(len(cells.values))
    is_kept = np.isin(groups, rows)
    for mask, count, (_, sign) in zip(masks, counts, corners, strict=True):
        mine = mask[used] & is_kept
        weights[used[mine]] += sign / (count[groups[mine]] * len(rows))
    left_out = int(is_there.sum()) - len(rows) * len(seeds)
    return Contrast(weights, tuple(seeds.tolist()), len(rows), left_out)


def complete_block(is_there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns without gaps: in turn the one with the largest share of gaps is dropped.

    If a row (a set of cells) and a column (a seed) have the same share, the row goes.
    """
    rows = np.flatnonzero(is_there.any(axis=1))
    columns = np.flatnonzero(is_there.any(axis=0))
    while not (rest := is_there[np.ix_(rows, columns)]).all():
        gaps_of_row, gaps_of_column = 1 - rest.mean(axis=1), 1 - rest.mean(axis=0)
        if gaps_of_row.max() >= gaps_of_column.max():
            rows = np.delete(rows, gaps_of_row.argmax())
        else:
            columns = np.delete(columns, gaps_of_column.argmax())
    return rows, columns


@dataclass(frozen=True)
class Judged:
    """The mean of a contrast over its seeds, with its squared error, or None.

    - `freedom`: degrees of freedom of the error.
    - `has_spread`: whether its own seeds differ by more than rounding.
    """

    mean: float
    n: int
    sd: float | None = None
    variance: float | None = None
    freedom: float = 0.0
    has_spread: bool = False

    def estimate(self, share: float, look: Look = ALONE) -> Estimate:
        """The mean with interval and p-value at this `share` of what a `look` may spend.

        They agree: p is below `SIGNIFICANT` exactly if the interval excludes 0.
        """
        share *= look.share
        if look.number is None:
            sd = self.sd if self.has_spread else None
            if sd is None:
                return Estimate(self.mean, self.n, self.sd, look=look)
            width = anytime.half_width(self.n, sd, SIGNIFICANT * share)
            p = min(1.0, anytime.p_value(self.n, self.mean, sd) / share)
            return Estimate(self.mean, self.n, sd, width, p, look)
        if self.variance is None:
            return Estimate(self.mean, self.n, self.sd, look=look)
        error = self.variance**0.5
        half_width = error * float(stdtrit(self.freedom, 1 - SIGNIFICANT * share / 2))
        p = float(2 * stdtr(self.freedom, -abs(self.mean) / error)) / share
        return Estimate(self.mean, self.n, self.sd, half_width, min(1.0, p), look)


def judge(values: np.ndarray, contrasts: Sequence[Contrast]) -> list[Judged]:
    """Mean and error over seeds of contrasts of one kind, from the values (cells, seeds).

    The variance of one is that of its own seeds, plus `POOLED_SEEDS` / (seeds - 1) times that of
    the other contrasts that are complete for the same seeds. So its own noise always counts in
    full, and the more seeds there are, the less the others' noise counts. The degrees of freedom
    are Satterthwaite's (1946, https://doi.org/10.2307/3002019), at most `MAX_FREEDOM` times those
    of the own seeds.
    """
    pools: dict[tuple[int, ...], tuple[float, int]] = {}
    found = []
    for each in contrasts:
        own = each.of(values)
        n, mean = len(own), float(own.mean())
        if n < 2:
            found.append(Judged(mean, n))
            continue
        if each.seeds not in pools:
            pools[each.seeds] = _spread(values, contrasts, each.seeds)
        total, rank = pools[each.seeds]
        squares, size = float(((own - mean) ** 2).sum()), float((each.weights**2).sum())
        scale = float(np.abs(values[np.ix_(each.weights != 0, each.seeds)]).max())
        freedom = n - 1
        spread = squares / freedom
        pooled, pooled_freedom = 0.0, (rank - 1) * freedom
        if pooled_freedom:
            pooled = max(0.0, total * size - squares) / pooled_freedom * POOLED_SEEDS / freedom
        rounding = (_NO_SPREAD * max(1.0, scale)) ** 2
        if spread + pooled <= rounding:
            found.append(Judged(mean, n, spread**0.5))
            continue
        inverse = (spread**2 + (pooled**2 / (rank - 1) if pooled else 0.0)) / freedom
        known = min((spread + pooled) ** 2 / inverse, MAX_FREEDOM * freedom)
        error = (spread + pooled) / n
        found.append(Judged(mean, n, spread**0.5, error, known, spread > rounding))
    return found


def _spread(
    values: np.ndarray, contrasts: Sequence[Contrast], seeds: tuple[int, ...]
) -> tuple[float, int]:
    """Sum of squares in the space that the contrasts span, over these seeds, and its dimension."""
    values = values[:, list(seeds)]
    is_full = np.isfinite(values).all(axis=1)
    weights = np.array([c.weights for c in contrasts if is_full[c.weights != 0].all()])
    weights, values = weights[:, is_full], values[is_full]
    sums = weights @ (values - values.mean(axis=1, keepdims=True))
    products = weights @ weights.T
    inverse = np.linalg.pinv(products, rcond=1e-9, hermitian=True)
    rank = np.linalg.matrix_rank(products, tol=1e-9 * np.abs(products).max(), hermitian=True)
    return float(np.einsum("is,ij,js->", sums, inverse, sums)), int(rank)


def one_family(
    effects: Sequence[Judged], interactions: Sequence[Judged], look: Look = ALONE
) -> tuple[list[Estimate], list[Estimate]]:
    """Both with intervals that hold simultaneously in 95 of 100 reports (weighted Bonferroni).

    `EFFECTS_SHARE` is for the effects, or everything if there are no interactions. With several
    looks they all hold in 95 of 100 sweeps, however many looks there are.
    """
    num = [sum(j.variance is not None for j in judged) for judged in (effects, interactions)]
    share = EFFECTS_SHARE if all(num) else 1.0
    shares = (share / max(1, num[0]), (1 - share if all(num) else 1.0) / max(1, num[1]))
    first, second = (
        [each.estimate(mine, look) for each in judged]
        for judged, mine in zip((effects, interactions), shares, strict=True)
    )
    return first, second
