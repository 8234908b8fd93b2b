import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from convscape.config.metrics import metric
from convscape.reports.results import RunTable, SweptKey, read_runs, tables
from convscape.reports.statistics import (
    configurations,
    estimate,
    level_means,
    pair_means,
    pareto_front,
    trends,
)
from tests.fake_runs import LEVELS, TRUTH, accuracy, write_runs

VAL = metric("val/acc")


def grid(values, num_seeds=3, levels=LEVELS):
    """A table of finished runs whose accuracy is `values(cell, seed)`."""
    keys = [SweptKey(k, tuple(map(str, v)), None) for k, v in levels.items()]
    rows = []
    for seed, *choice in itertools.product(range(num_seeds), *levels.values()):
        cell = dict(zip(levels, choice, strict=True))
        named = {key: str(value) for key, value in cell.items()}
        rows.append({**named, "seed": seed, "status": "ok", "val/acc": values(cell, seed)})
    frame = pd.DataFrame(rows)
    for key in keys:
        frame[key.name] = pd.Categorical(frame[key.name], list(key.levels), ordered=True)
    return RunTable("digits", frame, keys, keys, ["val/acc"], [VAL])


def test_an_interval_is_students():
    values = [0.91, 0.93, 0.92, 0.95]
    found = estimate(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert (found.mean, found.half_width) == pytest.approx((np.mean(values), (high - low) / 2))
    assert found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


@pytest.mark.parametrize(("values", "seeds"), [([0.9], None), ([0.9, 0.8], 1), ([0.9, 0.9], None)])
def test_there_is_no_interval_without_spread_or_seeds(values, seeds):
    assert estimate(values, seeds).half_width is None


def test_level_means_pool_the_other_keys_per_seed():
    table = grid(lambda cell, seed: accuracy(cell, 0.001 * seed))
    key = table.by[0]
    means = level_means(table, VAL, key)
    base = 0.95 - 0.004 + 0.001
    assert [m.mean for m in means] == pytest.approx([base, base + 0.010, base + 0.015])
    assert all(m.n == 3 for m in means)
    assert means[0].half_width == pytest.approx(stats.t.ppf(0.975, 2) * 0.001 / 3**0.5)


def test_level_and_pair_means_are_of_equals_where_cells_are_missing():
    """A sum of effects comes out as it went in, though what is missing had the best padding."""
    truth = {**TRUTH, "model.padding": {"valid": 0.0, "same": 0.02}}

    def added(cell, seed):
        return 0.9 + sum(truth[key][value] for key, value in cell.items()) + 0.001 * seed

    table = grid(added)
    frame = table.frame
    is_missing = (frame["model.kernel_size"] == "7") & (frame["model.padding"] == "valid")
    frame.loc[is_missing & (frame["model.stride"] == "2"), ["status", "val/acc"]] = (
        "infeasible",
        None,
    )
    kernel, stride, padding = table.by
    found = pair_means(table, VAL, kernel, stride)
    expected = [
        [added({kernel.name: k, stride.name: s, padding.name: "same"}, 1) for s in (1, 2)]
        for k in (3, 5, 7)
    ]
    assert found.to_numpy() == pytest.approx(np.array(expected))
    assert (list(found.index), list(found.columns)) == (["3", "5", "7"], ["1", "2"])
    for key, other in itertools.permutations(table.by, 2):
        cells = pair_means(table, VAL, key, other)
        base = cells.iloc[0, 0]
        for (row, level), (column, other_level) in itertools.product(
            enumerate(LEVELS[key.name]), enumerate(LEVELS[other.name])
        ):
            gain = truth[key.name][level] + truth[other.name][other_level]
            if np.isfinite(cells.iloc[row, column]):
                assert cells.iloc[row, column] - base == pytest.approx(gain)
    means = [each.mean for each in level_means(table, VAL, kernel)]
    assert np.subtract(means, means[0]) == pytest.approx([0, 0.010, 0.015])


def test_a_pair_without_runs_is_empty_and_the_others_stay_balanced():
    levels = {"model.kernel_size": [3, 5, 7], "model.stride": [1, 2]}
    table = grid(lambda cell, seed: accuracy(cell, 0.01 * seed), levels=levels)
    frame = table.frame
    at = (frame["model.kernel_size"] == "7") & (frame["model.stride"] == "2")
    at |= (frame["model.kernel_size"] == "5") & (frame["seed"] == 2)  # its best seed
    frame.loc[at, ["status", "val/acc"]] = "failed", None
    found = pair_means(table, VAL, *table.by)
    assert np.isnan(found.loc["7", "2"])
    assert found.loc["3"].tolist() == pytest.approx([0.955, 0.947])
    assert found.loc["5"].tolist() == pytest.approx([0.965, 0.957])
    frame[["status", "val/acc"]] = "failed", None
    assert pair_means(table, VAL, *table.by).isna().all(axis=None)
    assert [each.n for each in level_means(table, VAL, table.by[0])] == [0, 0, 0]


def test_a_continuous_key_has_a_trend():
    levels = {"optimizer.lr": [0.001 * n for n in range(1, 13)]}
    table = grid(lambda cell, seed: cell["optimizer.lr"], num_seeds=1, levels=levels)
    keys = [SweptKey(k.name, k.levels, tuple(map(float, k.levels))) for k in table.keys]
    (trend,) = trends(RunTable("digits", table.frame, keys, keys, ["val/acc"], [VAL]), VAL)
    assert (trend.correlation, trend.n) == (pytest.approx(1.0), 12)
    assert float(trend.best) == pytest.approx(0.012)


def test_the_pareto_front_is_what_no_other_beats():
    #        a, b,  c: dearer and worse than b,  d, e: as good as d and dearer, f: no cost known
    costs = [1, 2, 3, 4, 5, float("nan")]
    values = [0.5, 0.7, 0.6, 0.9, 0.9, 0.99]
    assert pareto_front(costs, values).tolist() == [True, True, False, True, False, False]


def test_configurations_pool_the_seeds_and_come_best_first(tmp_path):
    write_runs(tmp_path)
    (table,) = tables(read_runs([tmp_path]))
    found = configurations(table, VAL)
    frame = table.frame
    assert found["val/acc"].is_monotonic_decreasing
    assert len(found) == 11
    best = found.iloc[0]
    mine = frame.loc[list(best["rows"]), "val/acc"]
    assert (best["n"], best["num_runs"]) == (3, 3)
    assert best["val/acc"] == pytest.approx(mine.mean())
    assert best["val/acc/sd"] == pytest.approx(mine.std(ddof=1))
    assert best["val/acc/half_width"] == pytest.approx(
        stats.t.ppf(0.975, 2) * mine.std(ddof=1) / 3**0.5
    )
    assert best["macs"] == 5_000_000
