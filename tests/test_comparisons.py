"""What is said of a sweep's keys: by hand, and in sweeps that were drawn from known variances."""

import itertools
import json
import re

import numpy as np
import pytest
from scipy import optimize, stats

from convscape.config.metrics import metric
from convscape.reports import anytime, looks
from convscape.reports.comparisons import compare
from convscape.reports.contrasts import complete_block
from convscape.reports.looks import look_at, nth_look
from convscape.reports.page import write_report
from convscape.reports.results import RunTable, ranking_metric, read_runs, tables
from convscape.reports.sentences import effect_sentence
from tests.fake_runs import LEVELS, TRUTH, accuracy, write_runs
from tests.simulated_sweeps import (
    CASES,
    Case,
    Design,
    always_covered,
    by_pairs,
    by_seeds_alone,
    by_seeds_and_others,
    false_claims,
    false_claims_by_peeking,
    peeking_up_to,
    power,
)
from tests.test_statistics import VAL, grid

TWO = {"model.stride": [1, 2]}
TWO_KERNELS = {"model.kernel_size": [3, 5]}


def effects(table):
    return compare([(table, VAL)])[0].effects


def failed(table, **values):
    """The same without the runs that have these values."""
    is_gone = np.logical_and.reduce(
        [table.frame[name].astype(str) == str(v) for name, v in values.items()]
    )
    table.frame.loc[is_gone, ["status", "val/acc"]] = "failed", None
    return table


def noisy(deviation=0.002, seed=0):
    rng = np.random.default_rng(seed)
    return lambda cell, _: accuracy(cell, rng.normal(0, deviation))


def test_a_single_comparison_is_the_paired_t_test_over_seeds():
    table = grid(noisy(), num_seeds=5, levels=TWO)
    (effect,) = effects(table)
    wide = table.frame.pivot(index="seed", columns="model.stride", values="val/acc")
    expected = stats.ttest_rel(wide["2"], wide["1"])
    low, high = expected.confidence_interval(0.95)
    found = effect.estimate
    assert (found.n, effect.num_pairs) == (5, 1)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.mean - found.half_width == pytest.approx(low)
    assert found.mean + found.half_width == pytest.approx(high)


def test_pairs_of_one_seed_are_averaged_before_seeds_are_counted():
    table = grid(noisy(), num_seeds=4)
    stride = next(e for e in effects(table) if e.key.name == "model.stride")
    wide = table.frame.groupby(["seed", "model.stride"], observed=True)["val/acc"].mean().unstack()
    difference = wide["2"] - wide["1"]
    assert (stride.estimate.n, stride.num_pairs) == (4, 6)
    assert stride.estimate.mean == pytest.approx(difference.mean())
    assert stride.estimate.sd == pytest.approx(difference.std(ddof=1))


def test_the_noise_of_the_others_is_added_as_worked_by_hand():
    """Three kernels: what 5 against 3 leaves of the plane of both is 7 against their mean."""
    rng = np.random.default_rng(1)
    values = rng.normal(0, 0.01, (3, 3))
    table = grid(lambda c, s: values[s, (3, 5, 7).index(c["k"])], levels={"k": [3, 5, 7]})
    first = effects(table)[0].estimate
    own = (values[:, 1] - values[:, 0]).var(ddof=1)
    other = (values[:, 2] - values[:, :2].mean(axis=1)).var(ddof=1) / 1.5 * 2
    variance, freedom = own + other, (own + other) ** 2 / (own**2 / 2 + other**2 / 2)
    error = (variance / 3) ** 0.5
    expected = error * stats.t.isf(0.025 / 2, min(freedom, 6))
    assert first.half_width == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(20))
def test_interval_and_p_never_disagree(seed):
    rng = np.random.default_rng(seed)
    table = grid(lambda c, s: accuracy(c, rng.normal(0, 0.004)))
    (found,) = compare([(table, VAL)])
    for each in (*found.effects, *found.interactions):
        is_outside = abs(each.estimate.mean) > each.estimate.half_width
        assert is_outside == (each.estimate.p < 0.05) == each.is_clear


def test_data_sets_of_one_report_are_one_family():
    table, other = grid(noisy()), grid(noisy(seed=1))
    (alone,) = compare([(table, VAL)])
    together, _ = compare([(table, VAL), (other, VAL)])
    for one, two in zip(alone.effects, together.effects, strict=True):
        assert two.estimate.p == pytest.approx(min(1, 2 * one.estimate.p))
        assert two.estimate.half_width > one.estimate.half_width


def test_one_seed_and_no_spread_give_no_interval():
    for effect in effects(grid(noisy(), num_seeds=1)):
        assert (effect.estimate.half_width, effect.estimate.p) == (None, None)
        assert "one seed: no interval" in effect_sentence(effect, VAL)
    for effect in effects(grid(lambda cell, seed: accuracy(cell, 0.01 * seed))):
        assert effect.estimate.half_width is None
        assert effect.estimate.mean == pytest.approx(
            TRUTH[effect.key.name][type(LEVELS[effect.key.name][0])(effect.level)]
        )
        assert "no spread: no interval" in effect_sentence(effect, VAL)


def test_a_cell_that_cannot_be_takes_its_pairs_with_it():
    """The sum of effects comes out as it went in, whatever is missing for every seed."""
    table = grid(lambda cell, seed: accuracy(cell, 0.01 * seed))
    failed(table, **{"model.kernel_size": 7, "model.stride": 2, "model.padding": "valid"})
    found = {(e.key.name, e.level): e for e in effects(table)}
    assert found["model.stride", "2"].num_pairs == 5
    assert found["model.stride", "2"].num_left_out == 0
    assert found["model.kernel_size", "7"].estimate.mean == pytest.approx(0.015)


def test_a_failed_run_leaves_what_remains_balanced():
    """A luckier seed must not count for one side only, nor an easier cell."""
    table = grid(lambda cell, seed: accuracy(cell, 0.05 * seed))
    failed(table, **{"model.kernel_size": 3, "model.stride": 2, "seed": 2, "model.padding": "same"})
    stride = next(e for e in effects(table) if e.key.name == "model.stride")
    assert stride.estimate.mean == pytest.approx(-0.008)
    assert (stride.estimate.n, stride.num_pairs, stride.num_left_out) == (3, 5, 2)
    assert "2 pairs without all seeds left out" in effect_sentence(stride, VAL)


def test_a_sweep_that_was_stopped_in_its_last_seed_keeps_the_others():
    table = failed(grid(noisy(), num_seeds=3, levels=TWO), seed=2, **{"model.stride": 2})
    (effect,) = effects(table)
    assert (effect.estimate.n, effect.num_pairs) == (2, 1)


def test_levels_with_other_seeds_are_each_compared_by_their_own():
    table = grid(noisy(), num_seeds=6, levels={"model.kernel_size": [3, 5, 7]})
    for seed in (3, 4, 5):
        failed(table, seed=seed, **{"model.kernel_size": 7})
    assert [e.estimate.n for e in effects(table)] == [6, 3]


def test_keys_that_some_runs_do_not_have_are_averaged_over():
    """Three kernels of a CNN against one MLP, which has no kernel."""
    accuracies = {"3": 0.95, "5": 0.96, "7": 0.985}
    table = grid(
        lambda cell, _: 0.9 if cell["kind"] == "mlp" else accuracies[str(cell["kernel"])],
        levels={"kernel": [3, 5, 7], "kind": ["cnn", "mlp"]},
    )
    frame = table.frame
    frame = frame[(frame["kind"] == "cnn") | (frame["kernel"] == "3")].copy()
    frame.loc[frame["kind"] == "mlp", "kernel"] = None
    found = effects(RunTable("digits", frame, table.keys, table.by, ["val/acc"], [VAL]))
    assert [(e.key.name, e.level) for e in found] == [
        ("kernel", "5"), ("kernel", "7"), ("kind", "mlp")
    ]  # fmt: skip
    expected = [0.01, 0.035, 0.9 - sum(accuracies.values()) / 3]
    assert [e.estimate.mean for e in found] == pytest.approx(expected)


def test_a_complete_block_loses_as_little_as_it_must():
    there = np.ones((4, 3), dtype=bool)
    there[1, 2] = False
    rows, columns = complete_block(there)
    assert (rows.tolist(), columns.tolist()) == ([0, 2, 3], [0, 1, 2])
    there[:3, 2] = False
    rows, columns = complete_block(there)
    assert (rows.tolist(), columns.tolist()) == ([0, 1, 2, 3], [0, 1])


def test_an_interaction_is_found_and_a_sum_of_effects_is_none():
    def with_interaction(cell, seed):
        extra = -0.05 if cell == {**cell, "model.kernel_size": 7, "model.stride": 2} else 0
        return noise(cell, seed) + extra

    noise = noisy(seed=4)
    (found,) = compare([(grid(with_interaction), VAL)])
    (clear,) = found.clear_interactions()
    assert (clear.level, clear.other_level, clear.num_fours) == ("7", "2", 2)
    assert clear.estimate.mean == pytest.approx(-0.05, abs=0.005)
    assert clear.effects[1] - clear.effects[0] == pytest.approx(clear.estimate.mean)
    (none,) = compare([(grid(noisy(seed=5)), VAL)])
    assert none.clear_interactions() == []


@pytest.mark.parametrize(("ratio", "words"), [(1.01, ""), (1.03, "3 % more"), (1.7, "1.7 times")])
def test_a_cost_that_grows_little_is_said_in_percent(ratio, words):
    table = grid(noisy(), levels=TWO)
    table.frame["macs"] = np.where(table.frame["model.stride"] == "2", 1000.0 * ratio, 1000.0)
    (effect,) = effects(table)
    sentence = effect_sentence(effect, VAL)
    assert words in sentence
    assert ("takes" in sentence) == bool(words)
    assert "over 3 seeds, on the same validation images" in sentence


# --- simulated: an effect is claimed in at most 5 of 100 sweeps that have none -----------------


@pytest.mark.parametrize("name", CASES)
def test_sweeps_without_effects_are_seldom_called_clear(name):
    """The bound is 5 % and two standard errors of 400 sweeps; 1,000 each are in docs/facts.md."""
    assert false_claims(CASES[name], 3, by_seeds_and_others, num=400) <= 0.072


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_seeds"), [*itertools.product(CASES, (2, 3, 5, 10))])
def test_a_thousand_sweeps_without_effects(name, num_seeds):
    """A single comparison errs in exactly 5 %: the bound is that and two standard errors."""
    assert false_claims(CASES[name], num_seeds, by_seeds_and_others, num=1000) <= 0.064


def test_pairs_that_are_counted_as_seeds_would_be_caught():
    """The simulation can fail: the old rule claims an effect for the digits' MLP."""
    case = CASES["cells follow their seed (digits MLP)"]
    assert false_claims(case, 3, by_pairs, num=200) > 0.2


def test_it_sees_at_three_seeds_what_seeds_alone_do_not():
    case = CASES["runs and seeds"]
    assert power(case, 3, by_seeds_alone, 1.0, num=200) < 0.5
    assert power(case, 3, by_seeds_and_others, 1.0, num=200) > 0.7


@pytest.mark.parametrize("num_seeds", [3, 10])
def test_all_intervals_of_a_report_hold_in_95_of_100(num_seeds):
    rng, case = np.random.default_rng(5), Case(seed_level=(0.2, 0.1, 0.0))
    design, points = Design(case, num_seeds), 0.7
    held = []
    for _ in range(300):
        found = by_seeds_and_others(design, case.draw(rng, num_seeds, [(0, 1, points)]))
        truth = [points if name == (0, 1) else 0.0 for name in design.names]
        truth += [0.0] * len(design.interactions)
        held.append(
            all(abs(mean - t) <= width for (_, mean, width), t in zip(found, truth, strict=True))
        )
    assert np.mean(held) >= 0.93


def test_a_single_interval_holds_in_95_of_100():
    case = CASES["one key of two levels"]
    rng, design = np.random.default_rng(6), Design(case, 3)
    found = [by_seeds_and_others(design, case.draw(rng, 3))[0] for _ in range(2000)]
    assert 0.93 <= np.mean([abs(mean) <= width for _, mean, width in found]) <= 0.97


def test_the_metrics_split_is_named():
    table = grid(noisy(), levels=TWO)
    table.frame["test/acc"] = table.frame["val/acc"]
    test = metric("test/acc")
    ((effect,),) = ([e for e in each.effects] for each in compare([(table, test)]))
    assert "on the same test images" in effect_sentence(effect, test)


ONE_KEY = CASES["one key of two levels"]


def test_a_look_after_every_seed_would_claim_too_much_if_each_were_a_first_one():
    """The simulation can fail: this is what the looks of a folder are remembered for."""
    assert false_claims_by_peeking(ONE_KEY, range(3, 13), by_seeds_and_others, num=300) > 0.1


def test_a_look_after_every_seed_up_to_fifty_keeps_the_promise():
    """By the looks of a report and by those of until=verdict; the bound is as above."""
    for rate in peeking_up_to(ONE_KEY, 50, 200):
        assert rate <= 0.08


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_each_look_of_forty_nine_is_within_the_promise(name):
    for rate in peeking_up_to(CASES[name], 50, 300):
        assert rate <= 0.075
    assert always_covered(CASES[name], 50, 300) >= 0.925


def test_intervals_at_any_time_hold_at_every_number_of_seeds():
    assert always_covered(ONE_KEY, 30, num=300) >= 0.925


def test_an_interval_at_any_time_ends_where_its_p_value_is_that_of_its_level():
    """Found by bisection in Wang and Ramdas' martingale, which is written out here once more."""

    def martingale(differences, shift):
        moved, n = differences - shift, len(differences)
        squares, total = (moved**2).sum(), moved.sum()
        ratio = squares / (squares - total**2 / (n + anytime.PRIOR))
        return (anytime.PRIOR / (n + anytime.PRIOR)) ** 0.5 * ratio ** (n / 2)

    differences = np.random.default_rng(3).normal(0.4, 1, 9)
    mean, sd = differences.mean(), differences.std(ddof=1)
    width = anytime.half_width(9, sd, 0.05)
    edge = optimize.brentq(lambda x: martingale(differences, mean - x) - 20, 0, 50)
    assert width == pytest.approx(edge)
    assert anytime.p_value(9, mean, sd) == pytest.approx(1 / max(1, martingale(differences, 0)))
    assert anytime.half_width(2, sd, 0.05) is None  # two values exclude nothing


# --- looks are remembered ----------------------------------------------------------------------


def sentences(folder, rank=None):
    """What a report says of effects, without its figures."""
    asked = [(table, ranking_metric(table, rank)) for table in tables(read_runs([folder]))]
    compared = compare(asked, look_at([folder], asked))
    return [effect_sentence(effect, VAL) for each in compared for effect in each.effects]


def test_the_same_question_about_the_same_runs_is_the_same_look(tmp_path):
    write_runs(tmp_path, levels=TWO_KERNELS)
    first = sentences(tmp_path)
    assert "first look" in first[0]
    assert sentences(tmp_path) == first
    assert "look 2" in sentences(tmp_path, "test/acc")[0]
    assert sentences(tmp_path) == first
    assert "This is look 2 at these runs." in " ".join(write_report([tmp_path], "test/acc").lines)
    notes = [json.loads(line) for line in (tmp_path / looks.FILE).read_text().splitlines()]
    assert [note["asked"][0][1] for note in notes] == ["val/acc", "test/acc"]


def test_more_seeds_are_another_look_with_wider_intervals(tmp_path):
    widths = []
    for remembers in (True, False):
        folder = tmp_path / str(remembers)
        for seeds in (3, 4):
            write_runs(folder, seeds=seeds, levels=TWO_KERNELS)
            (said,) = sentences(folder)
            if not remembers:
                (folder / looks.FILE).unlink()
        widths.append(float(re.search(r"± ([\d.]+)", said)[1]))
    assert widths[0] > 1.5 * widths[1]


def test_a_look_while_runs_are_training_leaves_the_planned_one_its_share(tmp_path):
    write_runs(tmp_path, seeds=2, levels=TWO_KERNELS)
    busy = json.loads((tmp_path / "run00003" / "result.json").read_text())
    file = tmp_path / "run00004" / "result.json"
    file.parent.mkdir()
    file.write_text(json.dumps(busy | {"status": "running", "fingerprint": "4", "seed": 2}))
    assert "first look" in sentences(tmp_path)[0]
    file.write_text(json.dumps(busy | {"fingerprint": "4", "seed": 2}))
    assert "look 2" in sentences(tmp_path)[0]
    # as many as it takes, they stay within the whole
    shares = [nth_look([False, True, *[True] * 48], n).share for n in range(50)]
    assert shares[1] == looks.PLANNED_SHARE
    assert 0.98 < sum(shares) < 1


@pytest.mark.parametrize("content", ["nonsense\n[1]\n{}\n", "\n" * 2**21])
def test_a_damaged_memory_of_looks_is_no_reason_to_fail(tmp_path, content):
    write_runs(tmp_path, levels=TWO_KERNELS)
    (tmp_path / looks.FILE).write_text(content)
    assert " look" in sentences(tmp_path)[0]


def test_looks_are_not_written_through_a_link(tmp_path):
    folder, victim = tmp_path / "sweep", tmp_path / "victim"
    write_runs(folder, levels=TWO_KERNELS)
    victim.write_text("")
    (folder / looks.FILE).symlink_to(victim)
    assert "first look" in sentences(folder)[0]
    assert victim.read_text() == ""
