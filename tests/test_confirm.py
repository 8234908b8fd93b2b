"""The best trials of a search once more: on fresh seeds, unbiased, and never twice."""

import json
import shutil
import socket

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int
from optuna.samplers import RandomSampler

from convscape.config.metrics import metric
from convscape.reports.confirmed import Confirmed, Race, Search, decides
from convscape.reports.verdicts import Budget, seed_by_seed
from convscape.runs.result import Result
from convscape.sweeps.confirm import Confirmation, confirm_once
from convscape.sweeps.database import database, no_warnings
from convscape.sweeps.search_config import SearchConfig
from convscape.sweeps.search_figures import importances
from convscape.sweeps.study import SharedStudy
from tests.conftest import PATIENCE_S, TINY
from tests.fake_runs import finished_run, write_run, write_runs
from tests.stored_runs import RATES
from tests.test_config import composed
from tests.test_json import document
from tests.test_search import preset  # noqa: F401  a fixture

VAL = metric("val/acc")
SMALL = [*TINY[1:], "search.trials=3", "search.sampler_seed=1", "name=small", "visual=off"]
SMALL += ["logger=[]", "search.confirm.best=2", "search.confirm.seeds=2..2"]


@pytest.fixture
def space(preset):  # noqa: F811
    return preset("rates", "{optimizer.lr: {low: 0.001, high: 0.02}}")


def runs_of(tmp_path):
    """(seed, learning rate) -> result.json of each confirmation."""
    files = (tmp_path / "outputs/searches/small/confirmed").glob("*/result.json")
    return {
        (found["seed"], found["config"]["optimizer"]["lr"]): found
        for found in (json.loads(file.read_text()) for file in files)
    }


# --- who wins -----------------------------------------------------------------------------------


def race(values, margin=None):
    return Race(np.array(values, float), VAL, margin)


def test_what_is_clearly_worse_is_trained_no_further():
    noise = np.tile([0.001, -0.001, 0.0], 3)
    found = race([0.9 + noise, 0.9 + np.roll(noise, 1), 0.5 + noise[::-1]])
    assert found.outcome == "open"
    assert set(found.contenders) == set(found.unsettled()) == {0, 1}
    assert found.verdict(0, 2) == "better"


def test_equals_are_tied_within_a_margin_alone():
    noise = np.tile([0.001, -0.001, 0.0], 3)
    values = [0.9 + noise, 0.9 + np.roll(noise, 1)]
    assert race(values).outcome == "open"
    assert race(values, 0.01).outcome == "tied"
    assert race(values, 0.01).unsettled() == []


def test_an_arm_that_always_fails_cannot_win_and_one_that_fails_once_can():
    nan = float("nan")
    found = race([[nan] * 6, [0.9, 0.91, 0.9, 0.92, nan, 0.9], [0.5, 0.51, 0.5, 0.49, 0.5, 0.5]])
    assert (found.contenders, found.outcome) == ([1], "clear")
    assert race([[nan], [nan]]).contenders == []
    assert race([[nan], [nan]]).unsettled() == []


# --- replayed -----------------------------------------------------------------------------------


def drawn(rng, num_trials=30):
    """Values (trials, seeds) of networks as good as `truths`, each run with luck of its own."""
    truths = rng.normal(0.95, 0.004, num_trials)
    return truths[:, None] + rng.normal(0, 0.004, (num_trials, 13)), truths


def stored(rng):
    """Values of runs that were made, seeds in a random order; the truth is that of other seeds."""
    values = RATES[:, rng.permutation(RATES.shape[1])]
    return values, values[:, 13:].mean(axis=1)


def replay(values, truths, best=3, least=4, most=8):
    """Of a search: how much too good is what is said of it, and whether an interval has the truth.

    Errors of the best trial's own value, of the winner's mean over the seeds that chose it, and of
    what is told.

    - `values` (trials, seeds): the first seed is the trials', then come `most` that decide and
      `least` that tell.
    """
    trials = values[:, 0]
    arms = [(str(place),) for place in np.argsort(-trials, kind="stable")[:best]]
    results = {arm: {} for arm in arms}

    def train(wanted, seeds):
        for arm in wanted:
            for seed in seeds:
                value = values[int(arm[0]), 1 + seed // 2 + (0 if decides(seed) else most)]
                run = Result("run", "0", "ok", {}, [], seed, metrics={"val/acc": value})
                results[arm][seed] = run
        return True

    def confirmed():
        return Confirmed(Search(None, VAL, ("key",), None), results)

    def race_on(wanted, places):
        return train(wanted, [2 * place + 1 for place in places])

    def unsettled():
        found = confirmed()
        return [found.arms[place] for place in found.race.unsettled()]

    seed_by_seed(arms, Budget(least, most), race_on, unsettled)
    winner = confirmed().winner
    assert winner is not None
    train([winner], [2 * place for place in range(least)])
    truth, told = truths[int(winner[0])], confirmed().told("val/acc")
    deciding = [r.metrics["val/acc"] for seed, r in results[winner].items() if decides(seed)]
    return (
        trials.max() - truths[trials.argmax()],
        np.mean(deciding) - truth,
        told.mean - truth,
        abs(told.mean - truth) <= told.half_width,
    )


def replays(draw, num=200):
    """Mean errors and their standard errors, of trial, race and what is told; share of coverage."""
    rng = np.random.default_rng(0)
    *errors, is_covered = np.array([replay(*draw(rng)) for _ in range(num)]).T
    errors = np.array(errors)
    return errors.mean(1), errors.std(1, ddof=1) / num**0.5, is_covered.mean()


@pytest.mark.parametrize(("draw", "too_good"), [(drawn, 10), (stored, 2)])
def test_what_is_said_of_the_winner_is_unbiased_and_the_best_trials_own_value_is_not(
    draw, too_good
):
    means, errors, coverage = replays(draw)
    trial, race, told = means / errors
    assert trial > too_good  # standard errors
    assert abs(told) < 2
    if draw is drawn:
        assert race > 2  # the seeds that chose it are too good as well
        assert 0.91 <= coverage <= 0.99


# --- which keys matter ----------------------------------------------------------------------------


def study_of(num_trials):
    """A random search of which `lr` alone decides, and `width` and `kernel` do not."""
    space = {"lr": Float(0, 1), "width": Int(1, 100), "kernel": Categorical([3, 5])}
    study = optuna.create_study(direction="maximize", sampler=RandomSampler(seed=0))
    noise = np.random.default_rng(0)
    for _ in range(num_trials):
        trial = study.ask(space)
        study.tell(trial, -abs(trial.params["lr"] - 0.3) + noise.normal(0, 0.02))
    return study


def test_the_key_that_decides_is_told_from_those_that_do_not():
    found = importances(study_of(80))
    assert found["lr"][1] > max(found["width"][2], found["kernel"][2])  # whole intervals
    assert all(0 <= low <= value <= high <= 1 for value, low, high in found.values())
    assert importances(study_of(19)) is None


# --- as a command -------------------------------------------------------------------------------


@pytest.mark.long
def test_workers_confirm_a_winner_on_seeds_that_no_trial_had(start, command, tmp_path, space):
    workers = [start("search", space, *SMALL, "search.sampler_seed=null") for _ in range(2)]
    outs = [worker.communicate(timeout=PATIENCE_S)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outs
    runs = runs_of(tmp_path)
    assert "".join(outs).count("[seed ") == len(runs) == 6  # none is trained twice
    assert sorted(seed for seed, _ in runs) == [1, 1, 2, 3, 3, 4]  # 0 is the trials'
    report = document(command("report", tmp_path / "outputs/searches/small", "--json"), "report")
    (section,) = report["sections"]
    winner = section["confirmed"]
    told = [r["metrics"]["test/acc"] for (seed, _), r in runs.items() if not decides(seed)]
    assert winner["seeds"] == [2, 4]
    assert winner["metrics"]["test/acc"]["mean"] == pytest.approx(np.mean(told))
    assert [one["verdict"] for one in winner["finalists"]].count("winner") == 1
    assert winner["outcome"] == "open"  # no interval ends at two seeds
    first = section["sentences"][0]
    assert first.startswith(f"Confirmed: lr={float(winner['values']['optimizer.lr']):.4g} reaches")
    assert f"test/acc {100 * np.mean(told):.2f}" in first
    assert all(first in out for out in outs)
    assert any("it is the luckiest of 3 trials" in each for each in section["sentences"])
    # one is lost, and a seed more is asked for: these are made, and nothing else
    lost = next(file for file in (tmp_path / "outputs/searches/small/confirmed").glob("*/result*"))
    shutil.rmtree(lost.parent)
    kept = runs_of(tmp_path)
    again = command("search", space, *SMALL, "search.confirm.seeds=2..3")
    assert again.code == 0, again.err
    made = runs_of(tmp_path)
    assert again.out.count("[seed ") == len(made) - len(kept)  # none is trained twice
    assert kept.items() <= made.items()
    report = document(command("report", tmp_path / "outputs/searches/small", "--json"), "report")
    wins = float(report["sections"][0]["confirmed"]["values"]["optimizer.lr"])
    # the third seed may turn the two: then the other is measured, and what was lost of the first
    # that chose nothing is not made again
    deciding = {(seed, rate) for seed in (1, 3, 5) for _, rate in runs}
    assert set(made) == set(kept) | deciding | {(2, wins), (4, wins)}


class Counted(Confirmation):
    """One that notes when it is to train, and trains nothing; some leave a run, some are stopped.

    - `stops`: whether it is interrupted, when it first trains, with or without a run made.
    """

    num_failed_runs = times = 0
    stops = None

    def work(self, trials, style="off"):
        self.times += 1
        self.folder.mkdir(exist_ok=True)
        if self.stops == "with a run":
            write_runs(self.folder, seeds=1, levels={"model.stride": [1]})
        if self.stops is not None:
            raise KeyboardInterrupt

    def num_failed(self):
        return self.num_failed_runs


@pytest.fixture
def study(tmp_path):
    """On a database, with a trial."""
    with no_warnings():
        study = optuna.create_study(storage=database(f"sqlite:///{tmp_path}/study.db"))
        study.add_trial(optuna.create_trial(value=0.5))
    study.set_user_attr("definition", {"data": "digits", "search.prune": "false"})
    return study


@pytest.fixture
def confirm(tmp_path, study):
    """What a worker in that folder finds, and how often it was to train."""
    settings = SearchConfig.model_validate(
        {
            "space": {"optimizer.lr": {"choices": [0.1, 0.2]}},
            **{"trials": 1, "objectives": ["val/acc"], "storage": None, "sampler": "tpe"},
            **{"prune": False, "sampler_seed": None},
        }
    )

    def work(name, stops=None, num_failed=0, retry=False):
        (tmp_path / name).mkdir(exist_ok=True)
        confirmation = Counted(settings, VAL, tmp_path / name, 0, None)
        confirmation.stops, confirmation.num_failed_runs = stops, num_failed
        shared = SharedStudy(study, tmp_path / name, {}, has_heartbeat=True)
        with shared.at_work():
            return confirm_once(confirmation, shared, "off", retry), confirmation.times

    return work


def test_of_folders_on_a_database_the_one_that_confirmed_has_it_and_other_trials_do_it_again(
    tmp_path, study, confirm
):
    with pytest.raises(KeyboardInterrupt):
        confirm("one", stops="without a run")
    assert confirm("two", num_failed=3)[0] is None
    found, times = confirm("one")
    assert (times, found.num_failed) == (0, 3)
    assert str(tmp_path / "two") in found.words
    assert "failed in" in found.words  # no run of the winner is there
    assert "retry=true" in found.words
    assert confirm("two")[1] == 1  # what is missing
    study.add_trial(optuna.create_trial(value=0.7))
    assert confirm("one") == (None, 2)


def test_a_confirmation_that_was_stopped_with_runs_made_goes_on_in_its_folder(tmp_path, confirm):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            confirm("one", stops="with a run")
        found, times = confirm("two")
        assert (times, found.num_failed) == (0, 1)
        assert f"was stopped in {socket.gethostname()}:{tmp_path / 'one'}" in found.words
        assert "with retry=true another one begins here" in found.words
    assert confirm("one") == (None, 2)
    found, times = confirm("two")
    assert (times, found.num_failed) == (0, 0)


def test_a_confirmation_that_was_stopped_begins_elsewhere_where_that_is_asked_for(confirm):
    with pytest.raises(KeyboardInterrupt):
        confirm("one", stops="with a run")
    assert confirm("two", retry=True) == (None, 2)
    assert confirm("three")[1] == 0


def test_a_study_made_anew_under_an_old_name_is_confirmed_anew(study, confirm):
    assert confirm("one") == (None, 2)
    study.set_user_attr("definition", {"data": "digits", "search.prune": "true"})
    assert confirm("two")[1] == 0  # its trials are the same
    study.set_user_attr("definition", {"data": "mnist", "search.prune": "true"})
    assert confirm("two") == (None, 2)


def test_which_of_two_equal_arms_wins_does_not_depend_on_the_names_of_folders(tmp_path):
    base, winners = composed(), []
    for place, rates in (("a", (0.1, 0.2)), ("b", (0.2, 0.1))):
        for number, rate in enumerate(rates):
            run = finished_run(base, {"optimizer.lr": rate}, 1, 0.9, number)
            write_run(tmp_path / place / "confirmed" / f"run{number}", run)
        winners.append(Search(tmp_path / place, VAL, ("optimizer.lr",), None).confirmed.winner)
    assert winners == [("0.1",), ("0.1",)]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["search.confirm.best=99"], "search.confirm.best=99: allowed: "),
        (["search.confirm.seeds=9..4"], "search.confirm.seeds=9..4: allowed: 2 to 1,000"),
        (["search.confirm.margin=0"], "search.confirm.margin=0: allowed: more than 0"),
        (["+search.space.seed={choices:[0,1]}"], "search.space.seed: the best trials are"),
        (
            ["search.objectives=[val/acc,macs]"],
            "search.confirm.best=2: a search with two objectives",
        ),
        (["search.confirm.best=0"], "search.confirm.seeds=2..2: search.confirm.best=0 confirms"),
        (["search.objectives=[macs]"], "search.confirm.best=2: macs is the same with every seed"),
    ],
)
def test_a_mistake_is_one_sentence(command, words, sentence):
    answer = command("search", *SMALL, *words)
    assert (answer.code, sentence in answer.err) == (2, True), answer.err
    assert len(answer.err.splitlines()) == 1
