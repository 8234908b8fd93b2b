"""until=verdict: seed after seed, until every comparison is settled or the seeds are spent."""

import json
import shutil

import numpy as np
import pytest

from convscape.config.metrics import metric
from convscape.reports.contrasts import Estimate
from convscape.reports.verdicts import Budget, seed_by_seed, verdict
from tests.conftest import TINY
from tests.replays import replay, seeds_of_a_plan

VAL, LOSS = metric("val/acc"), metric("val/loss")
# a learning rate that learns, and one that does not: no noise hides that
UNTIL = ["-m", *TINY, "optimizer.lr=0.01,1e-7", "name=rates", "until=verdict", "visual=off"]
UNTIL += ["logger=[]"]


@pytest.mark.parametrize(
    ("mean", "half_width", "margin", "expected"),
    [
        (0.02, 0.01, None, "better"),
        (-0.02, 0.01, None, "worse"),
        (0.02, 0.03, None, "open"),
        (0.001, 0.001, 0.005, "equal"),
        (0.002, 0.001, 0.005, "equal"),  # and better, by too little to matter
        (0.004, 0.002, 0.005, "better"),
        (0.004, 0.006, 0.005, "open"),
        (0.004, None, 0.005, "open"),
    ],
)
def test_a_verdict_is_what_its_interval_says(mean, half_width, margin, expected):
    estimate = Estimate(mean, 5, 0.01, half_width)
    assert verdict(estimate, VAL, margin) == expected
    other = {"better": "worse", "worse": "better"}.get(expected, expected)
    assert verdict(estimate, LOSS, margin) == other


def test_only_what_is_not_settled_is_trained_further():
    trained, is_open = [], [["a", "b"], ["b"], []]

    def train(cells, seeds):
        trained.extend((cell, seed) for seed in seeds for cell in cells)
        return True

    assert seed_by_seed(["a", "b", "c"], Budget(2, 10), train, lambda: is_open.pop(0)) == 4
    assert [cell for cell, seed in trained if seed == 0] == ["a", "b", "c"]
    assert trained[6:] == [("a", 2), ("b", 2), ("b", 3)]


@pytest.mark.parametrize(("step", "looks"), [(1, 8), (2, 4), (8, 1)])
def test_it_ends_with_the_seeds_it_was_given(step, looks):
    counts = []

    def train(cells, seeds):
        counts.append(len(seeds))
        return True

    assert seed_by_seed(["a"], Budget(2, 10, step), train, lambda: ["a"]) == 10
    assert sum(counts) == 10
    assert len(counts) == looks + 1


def test_it_stops_where_nothing_can_be_trained():
    looked = []
    assert seed_by_seed(["a"], Budget(2, 10), lambda *_: False, lambda: looked.append(1)) == 2
    assert not looked


def test_it_ends_with_a_verdict_and_goes_on_where_it_was_stopped(command, tmp_path):
    first = command("train", *UNTIL, "seeds=3..12")
    assert first.code == 0, first.err
    assert "lr 0.01 instead of 1e-07 is better: +" in first.out
    assert "valid at any look" in first.out
    folder = tmp_path / "outputs" / "sweeps" / "rates"
    runs = sorted(folder.glob("*/result.json"))
    assert 8 <= len(runs) < 24
    assert f"until=verdict: {len(runs)} runs" in first.out
    # as if it had been stopped in its last look
    last = max(runs, key=lambda file: json.loads(file.read_text())["seed"])
    shutil.rmtree(last.parent)
    again = command("train", *UNTIL, "seeds=3..12", "margin=50")
    assert again.code == 0, again.err
    assert again.out.count("  ok  ") == 1
    assert sorted(folder.glob("*/result.json")) == runs
    assert "until" not in json.dumps(json.loads(runs[0].read_text())["overrides"])
    for extra in ("until=null", "seed=0,1"):
        words = [w for w in UNTIL if not w.startswith("until=")] if "=0" in extra else UNTIL
        answer = command("train", *words, extra, "extend=true")
        assert answer.code == 2
        assert "continue with until=verdict and more seeds" in answer.err


def test_seeds_that_were_decided_on_do_not_turn_into_seeds_until_a_verdict(command):
    words = [word for word in UNTIL if not word.startswith("until=")]
    assert command("train", *words, "seed=0").code == 0
    answer = command("train", *UNTIL, "extend=true")
    assert answer.code == 2
    assert "choose another name for until=verdict" in answer.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-m", "until=verdit"], "did you mean 'verdict'?"),
        (["-m", "margin=0.2"], "margin=0.2: only until=verdict reads it"),
        (["-m", "seeds=3..9"], "seeds=3..9: only until=verdict reads it"),
        (["-m", "until=verdict", "margin=0"], "margin=0: allowed: more than 0"),
        (["-m", "until=verdict", "seeds=9..3"], "seeds=9..3: allowed: 2 to 1,000"),
        (["-m", "until=verdict", "seeds=many"], "seeds=many: allowed: 2 to 1,000"),
        (["-m", "until=verdict", "seed=0,1"], "until=verdict counts the seeds itself"),
        (["-m", "until=verdict", "margin=1,2"], "it takes one value"),
        (["-m", "until=verdict,null"], "it takes one value"),
        (["until=verdict"], "sweep with -m, or leave it out"),
    ],
)
def test_a_mistake_is_one_sentence(command, words, sentence):
    answer = command("train", "model.kernel_size=3,5" if "-m" in words else "seed=0", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search", "search=learning", "until=verdict"], "until=verdict: only a sweep reads it"),
        (["claim", "depth", "margin=1"], "margin=1: a claim does not read it"),
        (["claim", "depth", "until=verdit"], "did you mean 'verdict'?"),
        (["claim", "depth", "until=verdict", "seeds=4..2"], "seeds=4..2: allowed: 2 to 1,000"),
    ],
)
def test_what_a_search_or_a_claim_does_not_read_is_refused(command, words, sentence):
    answer = command(*words)
    assert answer.code == 2
    assert sentence in answer.err


@pytest.mark.long
def test_a_claim_is_asked_until_it_is_decided(command, tmp_path):
    """Two networks that hardly learn: nothing is decided with 2 or 3 seeds, and all are trained."""
    claim = ["claim", "depth", "data=digits", *TINY[1:], "until=verdict", "jobs=1"]
    answer = command(*claim, "seeds=2..3")
    assert answer.code == 0, answer.err
    assert "DEPTH: UNDECIDED" in answer.out.upper()
    kept = json.loads((tmp_path / "outputs" / "claims" / "depth" / "answer.json").read_text())
    assert {finding["n"] for finding in kept["findings"]} == {3}
    assert kept["findings"][0]["low"] is None  # no interval at any time ends at three seeds
    assert kept["budget"].startswith("until=verdict, ")


# --- replayed -----------------------------------------------------------------------------------


def drawn(effects, deviation, most):
    """Draws of a sweep of one key, whose runs differ by chance and whose seeds do so in common."""
    means = 90 + np.array([0.0, *effects])[:, None]

    def draw(rng):
        noise = rng.normal(0, deviation, (len(means), most))
        return means + rng.normal(0, 0.3, most) + noise

    return draw


@pytest.mark.parametrize(
    ("effects", "margin", "of_the_plan"), [((0.0, 1.0), 0.5, 1.1), ((-1.0, 2.0), 0.5, 0.5)]
)
def test_a_replay_is_right_and_costs_less_than_a_plan(effects, margin, of_the_plan):
    """An effect of 0 costs about what a plan costs, one of twice the margin less than half."""
    draw = drawn(effects, 0.3, 60)
    share, runs = replay(draw, effects, margin, Budget(3, 60), num=60)
    planned = seeds_of_a_plan(draw, effects, margin, 60, num=40) * (1 + len(effects))
    assert share >= 0.95
    assert runs <= of_the_plan * planned
