"""Sweeps drawn from known variances, and how often an analysis of them is right.

A case says what varies: cells follow their seed, each level of a key has luck of its own with each
seed, runs differ by chance. `python -m tests.simulated_sweeps` prints the table of docs/facts.md.
"""

import itertools
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from convscape.reports.comparisons import effect_contrasts, interaction_contrasts
from convscape.reports.contrasts import ALONE, AT_ANY_TIME, Cells, judge, one_family
from convscape.reports.looks import nth_look
from convscape.reports.results import SweptKey


@dataclass(frozen=True)
class Case:
    """Standard deviations in points, and a grid of so many levels per key.

    - `seed`: of what all cells of a seed share.
    - `seed_level`: for each key, of what all cells with one level and seed share.
    - `run`: of a single run; `wild`: times that, for the last level of the first key.
    - `num_images`: accuracies are whole images of so many; 0: any number.
    - `missing`: places of cells that cannot be.
    """

    shape: tuple[int, ...] = (3, 2, 2)
    seed: float = 0.3
    seed_level: tuple[float, ...] = (0.0, 0.0, 0.0)
    run: float = 0.3
    wild: float = 1.0
    num_images: int = 0
    missing: tuple[int, ...] = ()

    def draw(self, rng, num_seeds, effects=()):
        """Values (cells, seeds), without any effect but those (key, level, points)."""
        values = np.zeros((*self.shape, num_seeds)) + rng.normal(0, self.seed, num_seeds)
        for axis, deviation in enumerate(self.seed_level):
            sizes = [1] * len(self.shape)
            sizes[axis] = self.shape[axis]
            values = values + rng.normal(0, deviation, (*sizes, num_seeds))
        noise = rng.normal(0, self.run, values.shape)
        noise[-1] *= self.wild
        values = values + noise
        for axis, level, points in effects:
            np.moveaxis(values, axis, 0)[level] += points
        if self.num_images:
            values = np.round((90 + values) * self.num_images / 100) * 100 / self.num_images
        values = values.reshape(-1, num_seeds)
        values[list(self.missing)] = np.nan
        return values


CASES = {
    "runs alone": Case(seed=0.0),
    "runs and seeds": Case(),
    "seed x level as large as runs": Case(seed_level=(0.3, 0.3, 0.3)),
    "seed x level of one key": Case(seed_level=(1.0, 0.0, 0.0)),
    "seed x level of two keys, few runs' noise": Case(seed_level=(0.3, 0.3, 0.0), run=0.1),
    "cells follow their seed (digits MLP)": Case((2, 3), 0.5, (1.2, 0.0), 0.0, num_images=200),
    "one level three times as noisy": Case(wild=3.0),
    "200 images, a missing cell": Case(num_images=200, missing=(10,)),
    "one key of two levels": Case((2,), seed_level=(0.0,)),
    "one key of five levels": Case((5,), seed_level=(0.0,)),
    "64 cells, seed x level": Case((4, 4, 4), seed_level=(0.2, 0.2, 0.2)),
}


@dataclass
class Design:
    """The comparisons of a case's grid, found once for all draws."""

    case: Case
    num_seeds: int
    effects: list = field(init=False)
    interactions: list = field(init=False)
    names: list = field(init=False)

    def __post_init__(self):
        places = np.indices(self.case.shape).reshape(len(self.case.shape), -1)
        keys = [
            SweptKey(f"key{n}", tuple(map(str, range(size))), None)
            for n, size in enumerate(self.case.shape)
        ]
        levels = {key.name: row for key, row in zip(keys, places, strict=True)}
        values = self.case.draw(np.random.default_rng(0), self.num_seeds)
        cells = Cells(levels, values)
        found = list(effect_contrasts(cells, keys))
        self.names = [(int(e.key.name[3:]), int(e.level)) for e, _ in found]
        self.effects = [c for _, c in found]
        self.interactions = [c for _, c in interaction_contrasts(cells, keys)]


def by_seeds_and_others(design, values, look=ALONE):
    """What a report does."""
    judged = judge(values, design.effects), judge(values, design.interactions)
    first, second = one_family(*judged, look)
    return [(e.p, e.mean, e.half_width) for e in (*first, *second)]


def at_any_time(design, values):
    """What a report of until=verdict does."""
    return by_seeds_and_others(design, values, AT_ANY_TIME)


def by_seeds_alone(design, values):
    """Student's t over seeds, Bonferroni over everything."""
    contrasts = [*design.effects, *design.interactions]
    return [_of_t(c.of(values), len(contrasts)) for c in contrasts]


def by_pooled_runs(design, values):
    """A linear model with a term for each cell and seed: all that is left over is noise."""
    kept = values[np.isfinite(values).all(axis=1)]
    rest = kept - kept.mean(0) - kept.mean(1, keepdims=True) + kept.mean()
    freedom = (len(kept) - 1) * (kept.shape[1] - 1)
    variance = (rest**2).sum() / freedom / kept.shape[1]
    contrasts = [*design.effects, *design.interactions]
    answers = []
    for each in contrasts:
        error = (variance * (each.weights**2).sum()) ** 0.5
        answers.append(_answer(each.of(values).mean(), error, freedom, len(contrasts)))
    return answers


def by_pairs(design, values):
    """As reports did before: each pair a replicate, effects and interactions corrected apart."""
    grid = values.reshape(*design.case.shape, -1)
    answers = []
    effects = [
        (part[level] - part[0]).ravel()
        for axis, size in enumerate(design.case.shape)
        for part in [np.moveaxis(grid, axis, 0)]
        for level in range(1, size)
    ]
    fours = []
    for one, other in itertools.combinations(range(grid.ndim - 1), 2):
        part = np.moveaxis(grid, (one, other), (0, 1))
        for a, b in itertools.product(range(1, part.shape[0]), range(1, part.shape[1])):
            fours.append((part[a, b] - part[a, 0] - part[0, b] + part[0, 0]).ravel())
    for family in (effects, fours):
        answers += [_of_t(each[np.isfinite(each)], len(family)) for each in family]
    return answers


def _of_t(values, times):
    error = values.std(ddof=1) / len(values) ** 0.5
    return _answer(values.mean(), error, len(values) - 1, times)


def _answer(mean, error, freedom, times):
    if error < 1e-12:
        return None, mean, None
    p = min(1.0, times * 2 * stats.t.sf(abs(mean) / error, freedom))
    return p, mean, error * stats.t.isf(0.025 / times, freedom)


ANALYSES = {
    "pairs": by_pairs,
    "all residuals pooled": by_pooled_runs,
    "seeds alone": by_seeds_alone,
    "seeds and the others' noise": by_seeds_and_others,
}


def false_claims(case, num_seeds, analysis, num=1000, seed=0):
    """Share of sweeps without any effect whose report has a clear sentence."""
    rng, design = np.random.default_rng(seed), Design(case, num_seeds)
    return np.mean(
        [
            any(p is not None and p < 0.05 for p, _, _ in analysis(design, values))
            for values in (case.draw(rng, num_seeds) for _ in range(num))
        ]
    )


def power(case, num_seeds, analysis, points, num=300, seed=0):
    """Share of sweeps in which the first key's second level, worth so much, is clear."""
    rng, design = np.random.default_rng(seed), Design(case, num_seeds)
    place = design.names.index((0, 1))
    hits = []
    for _ in range(num):
        p, mean, _ = analysis(design, case.draw(rng, num_seeds, [(0, 1, points)]))[place]
        hits.append(p is not None and p < 0.05 and mean > 0)
    return np.mean(hits)


def first_looks(num):
    """The looks of a report that is asked `num` times, each time with one more seed."""
    return [nth_look([True] * num, place) for place in range(num)]


def false_claims_by_peeking(case, looks, analysis, num=500, seed=0, shares=None):
    """Share of sweeps without any effect that are called clear at one of these numbers of seeds.

    - `shares`: what each of the looks may err; all of it unless given.
    """
    rng, designs = np.random.default_rng(seed), {n: Design(case, n) for n in looks}
    extra = [()] * len(looks) if shares is None else [(each,) for each in shares]
    hits = []
    for _ in range(num):
        values = case.draw(rng, max(looks))
        asked = zip(looks, extra, strict=True)
        answers = (a for n, more in asked for a in analysis(designs[n], values[:, :n], *more))
        hits.append(any(p is not None and p < 0.05 for p, _, _ in answers))
    return np.mean(hits)


def always_covered(case, num_seeds, num=500, seed=0):
    """Share of sweeps in which all intervals of until=verdict hold at every number of seeds."""
    rng, designs = np.random.default_rng(seed), [Design(case, n) for n in range(2, num_seeds + 1)]
    held = []
    for _ in range(num):
        values = case.draw(rng, num_seeds)
        found = (each for d in designs for each in at_any_time(d, values[:, : d.num_seeds]))
        held.append(all(width is None or abs(mean) <= width for _, mean, width in found))
    return np.mean(held)


PEEKED = ("one key of two levels", "runs and seeds", "seed x level of one key")


def main():
    for name, case in CASES.items():
        for label, analysis in ANALYSES.items():
            rates = [f"{100 * false_claims(case, n, analysis):.1f}" for n in (2, 3, 5, 10)]
            row = [f"{100 * power(case, n, analysis, 1.0):.0f}" for n in (3, 5, 10)]
            print(f"| {name} | {label} | {' | '.join(rates)} | {' | '.join(row)} |", flush=True)  # noqa: T201

    for name in PEEKED:
        rates = [
            false_claims_by_peeking(CASES[name], range(3, 13), by_seeds_and_others),
            *peeking_up_to(CASES[name], 50),
        ]
        print(f"| {name} | {' | '.join(f'{100 * rate:.1f}' for rate in rates)} |")  # noqa: T201


def peeking_up_to(case, num_seeds, num=500):
    """False claims with a look after every seed, by the looks of a report and of until=verdict."""
    looks = range(2, num_seeds + 1)
    shares = first_looks(len(looks))
    yield false_claims_by_peeking(case, looks, by_seeds_and_others, num, shares=shares)
    yield false_claims_by_peeking(case, looks, at_any_time, num)


if __name__ == "__main__":
    main()
