"""How many seeds a sweep takes, asked before it is trained."""

import json

import numpy as np
import pytest
from scipy import integrate, stats

from convscape.base.files import read_yaml
from convscape.reports.comparisons import effect_contrasts
from convscape.reports.contrasts import Cells, Look, judge, one_family
from convscape.reports.looks import PLANNED_SHARE
from convscape.reports.power import POWER, FirstLook, deviation, deviation_over_images, luck_of
from convscape.reports.results import SweptKey
from tests.conftest import TINY
from tests.test_json import document

GRID = [*TINY, "visual=off", "logger=[]"]


@pytest.mark.parametrize(("effect", "alpha"), [(0.5, 0.04), (1.0, 0.04), (2.0, 0.04)])
def test_the_seeds_are_those_of_a_paired_t_test(effect, alpha):
    """Against scipy's noncentral t, summed up from its density."""
    found = FirstLook().seeds_for(effect)

    def power(n):
        critical = stats.t.ppf(1 - alpha / 2, n - 1)
        grid = np.linspace(critical, critical + 60, 60_001)
        density = stats.nct.pdf(grid, n - 1, effect * n**0.5)
        return integrate.trapezoid(np.nan_to_num(density), grid)

    assert power(found - 1) < POWER <= power(found) + 1e-6
    assert FirstLook().smallest(found) == pytest.approx(effect, rel=0.2)
    assert FirstLook().seeds_for(0.001) is None


@pytest.mark.parametrize("num_levels", [2, 3, 5])
def test_a_report_sees_an_effect_as_often_as_it_is_said(num_levels):
    """One key in simulated sweeps of that many seeds; deviation of a difference is 1."""
    test = FirstLook(num_levels - 1)
    num_seeds = test.seeds_for(1.2)
    rng = np.random.default_rng(0)
    key = SweptKey("key", tuple(map(str, range(num_levels))), None)
    num_clear = 0
    for _ in range(300):
        values = rng.normal(0, 0.5**0.5, (num_levels, num_seeds))
        values[1] += 1.2
        found = list(effect_contrasts(Cells({"key": np.arange(num_levels)}, values), [key]))
        judged = judge(values, [contrast for _, contrast in found])
        estimates, _ = one_family(judged, [], Look(1, PLANNED_SHARE))
        num_clear += estimates[0].is_clear
    assert num_clear / 300 == pytest.approx(POWER, abs=0.08)


def test_images_of_their_own_chance_vary_as_their_answers_tell():
    """Hard and easy images: less than if all were equally hard."""
    rng = np.random.default_rng(0)
    chance = rng.beta(0.5, 0.05, 400)
    right = (rng.random((2000, 400)) < chance).astype(float)
    measured = right.mean(axis=1).std(ddof=1)
    expected = (luck_of(right[:4]).mean() / 400) ** 0.5
    assert expected == pytest.approx(measured, rel=0.15)
    assert deviation_over_images(1 - chance.mean(), 400) > 1.2 * measured
    assert deviation(0.0, 0, None) is None
    assert deviation(12.0, 4, 1.0) == pytest.approx(2**0.5)


def test_before_any_run_it_depends_on_how_many_answers_are_wrong(command):
    found = document(command("seeds", *GRID, "optimizer.lr=0.01,0.02", "--json"), "seeds")
    assert [case["noise"]["error"] for case in found["cases"]] == [0.01, 0.05, 0.2, 0.4]
    assert found["command"] is None
    answer = command("seeds", *GRID, "optimizer.lr=0.01,0.02", "margin=5")
    assert answer.code == 0, answer.err
    assert "there is no run on these data yet" in answer.out
    assert "seeds for 5 points" in answer.out


def test_a_pilot_is_the_beginning_of_the_sweep_and_nobody_has_looked(command, tmp_path):
    words = [*GRID, "optimizer.lr=0.01,1e-7"]
    found = document(command("seeds", *words, "margin=20", "pilot=2", "--json"), "seeds")
    (case,) = found["cases"]
    assert (case["noise"]["num_runs"], case["noise"]["freedom"]) == (4, 2)
    (one,) = case["comparisons"]
    assert one["over_images_is_measured"]
    assert case["num_seeds"] >= 3
    assert case["num_runs"] == 2 * case["num_seeds"]
    assert case["seconds"] > 0
    (folder,) = (tmp_path / "outputs" / "sweeps").glob("seeds-*")
    assert not (folder / "looks.jsonl").exists()
    assert f"name={folder.name} extend=true" in found["command"]
    assert read_yaml(folder / "sweep.yaml")["seed"] == "range(2)"
    # the sweep trains only what the pilot has not
    answer = command("train", "-m", *words, "seed=range(3)", f"name={folder.name}", "extend=true")
    assert answer.out.count("  ok  ") == 2, answer.err
    assert "first look" in answer.out
    assert len((folder / "looks.jsonl").read_text().splitlines()) == 1
    # other networks on the same data say something too
    similar = document(command("seeds", *GRID, "optimizer.lr=0.03,0.02", "--json"), "seeds")
    assert similar["cases"][0]["noise"]["source"] == "of other networks on these data"
    assert json.dumps(similar["seconds_are_guessed"]) == "true"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "nothing is compared"),
        (["seed=0,1"], "seed=0,1: that is what this command finds out; leave it out"),
        (["until=verdict"], "until=verdict: this command does not read it"),
        (["optimizer.lr=0.1,0.2", "margin=0"], "margin=0: allowed: more than 0"),
        (["optimizer.lr=0.1,0.2", "margin=much"], "margin=much: allowed: more than 0"),
        (["optimizer.lr=0.1,0.2", "pilot=1"], "pilot=1: allowed: 2 or more"),
        (["optimizer.lr=0.1,0.2", "pilot=x"], "pilot=x: allowed: an integer of 1 or more"),
        (["model.kernel_sise=3,5"], "did you mean"),
        (["data=digits,mnist"], "the noise is that of one data set"),
        (["model.kernel_size=3,17", "model.padding=valid"], "no two networks of the grid"),
        (["--margin", "2"], "--margin"),
    ],
)
def test_a_mistake_is_one_sentence(command, words, sentence):
    answer = command("seeds", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert len(answer.err.splitlines()) == 1
