"""until=verdict replayed on runs that are there, seeds in random order, beside plans of fixed size.

`python -m tests.replays <sweep folder> <margin in points>` prints what docs/facts.md says of them.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from convscape.config.metrics import Metric
from convscape.reports.comparisons import effect_contrasts
from convscape.reports.contrasts import ALONE, AT_ANY_TIME, Cells, judge, one_family
from convscape.reports.results import SweptKey, ranking_metric, read_runs, tables
from convscape.reports.verdicts import Budget, seed_by_seed, verdict

POINTS = Metric("points", "max")


@dataclass(frozen=True)
class Replay:
    """Of one key, whose first level the others are compared with: how many were right, and runs."""

    right: np.ndarray
    num_runs: int


def verdicts(values, margin, look):
    """Level -> verdict and the mean, from values (levels, seeds) with NaN where nothing ran."""
    names = tuple(map(str, range(len(values))))
    cells = Cells({"key": np.arange(len(values))}, values)
    found = list(effect_contrasts(cells, [SweptKey("key", names, None)]))
    judged = judge(values, [contrast for _, contrast in found])
    estimates, _ = one_family(judged, [], look)
    return {
        int(effect.level): verdict(estimate, POINTS, margin)
        for (effect, _), estimate in zip(found, estimates, strict=True)
    }


def rights(found, truth, margin):
    """Whether each verdict is so."""
    so = {
        "better": lambda t: t > 0,
        "worse": lambda t: t < 0,
        "equal": lambda t: abs(t) <= margin,
        "open": lambda t: False,
    }
    return np.array([so[found.get(level, "open")](t) for level, t in enumerate(truth, 1)])


def until_verdict(values, truth, margin, budget):
    """As a sweep does it; `values` (levels, seeds) in the order in which they are trained."""
    ran = np.full(values.shape, np.nan)

    def train(cells, seeds):
        for cell in cells:
            ran[cell, list(seeds)] = values[cell, list(seeds)]
        return True

    def unsettled():
        is_open = [k for k, v in verdicts(ran, margin, AT_ANY_TIME).items() if v == "open"]
        return [0, *is_open] if is_open else []

    seed_by_seed(range(len(values)), budget, train, unsettled)
    found = verdicts(ran, margin, AT_ANY_TIME)
    return Replay(rights(found, truth, margin), int(np.isfinite(ran).sum()))


def fixed_plan(values, truth, margin, num_seeds):
    """One look at so many seeds of every level."""
    found = verdicts(values[:, :num_seeds], margin, ALONE)
    return Replay(rights(found, truth, margin), len(values) * num_seeds)


def replay(draw, truth, margin, budget, num=200, seed=0):
    """Share of right verdicts, and mean runs, of until=verdict.

    - `draw`: values (levels, seeds) in a random order, from a random generator.
    """
    rng = np.random.default_rng(seed)
    mine = [until_verdict(draw(rng), truth, margin, budget) for _ in range(num)]
    return np.mean([each.right for each in mine]), np.mean([each.num_runs for each in mine])


def seeds_of_a_plan(draw, truth, margin, most, num=200, seed=0):
    """Seeds of a plan for the same margin, made before any effect is known.

    Whether the effects are 0 or the margin, 95 of 100 verdicts are to be right.
    """
    for num_seeds in range(3, most + 1):
        for effect in (0.0, margin):
            rng = np.random.default_rng(seed)
            shift = np.array([0.0, *(effect - t for t in truth)])[:, None]
            moved = [effect] * len(truth)
            shares = [
                fixed_plan(draw(rng) + shift, moved, margin, num_seeds).right.mean()
                for _ in range(num)
            ]
            if np.mean(shares) < 0.95:
                break
        else:
            return num_seeds
    return most


def stored(folder):
    """Values (levels, seeds) in points of a sweep over one key and seeds."""
    (table,) = tables(read_runs([Path(folder)]))
    metric = ranking_metric(table, None)
    return 100 * Cells.of(table, metric).values


def main():
    values, margin = stored(sys.argv[1]), float(sys.argv[2])
    truth = (values[1:] - values[0]).mean(axis=1)
    print("means", values.mean(axis=1).round(2), "differences", truth.round(2))  # noqa: T201
    print("their deviations", (values[1:] - values[0]).std(axis=1, ddof=1).round(2))  # noqa: T201
    most = values.shape[1]

    def draw(rng):
        return values[:, rng.permutation(most)]

    share, runs = replay(draw, truth, margin, Budget(3, most))
    num_seeds = seeds_of_a_plan(draw, truth, margin, most)
    planned = num_seeds * len(values)
    print(f"right {100 * share:.1f} %, {runs:.1f} runs; planned {num_seeds} seeds, {planned} runs")  # noqa: T201


if __name__ == "__main__":
    main()
