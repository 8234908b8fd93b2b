"""Claims: verdicts from intervals, the same budget for all arms, and what a user reads."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from hydra import compose
from PIL import Image
from scipy import stats

from convscape.claims import run as claims
from convscape.claims.claim import load, names
from convscape.claims.findings import verdict as verdict_of
from convscape.reports.contrasts import AT_ANY_TIME, Look
from convscape.reports.looks import FILE, PLANNED_SHARE, look_at_claim, look_until_settled
from convscape.reports.page import write_report
from convscape.reports.statistics import estimate
from convscape.trained import probes
from tests.conftest import PATIENCE_S
from tests.fake_runs import a_claim, write_runs
from tests.test_config import initialised

pytestmark = pytest.mark.usefixtures("without_figures")

QUICK = (
    *("data=digits", "data.train_size=300", "data.val_size=100", "trainer.max_epochs=1"),
    *("visual=off", "trainer.threads=1", "seeds=2", "jobs=1"),
)


@pytest.fixture
def planned():
    def plan(name, mode="quick"):
        with initialised():
            return claims.plan_claim(load(name), [], mode, lambda words: compose("train", words))

    return plan


@pytest.mark.parametrize(
    ("expect", "by", "values", "verdict"),
    [
        ("lower", 0.02, [-0.05, -0.051, -0.049], "supported"),
        ("lower", 0.02, [-0.01, -0.011, -0.009], "not supported"),
        ("lower", 0.02, [-0.05, -0.01, -0.03], "undecided"),
        ("lower", 0.02, [0.05, 0.051, 0.049], "not supported"),
        ("higher", 0.02, [0.05, 0.051, 0.049], "supported"),
        ("higher", 0.02, [0, 0, 0], "not supported"),
        ("equal", 0.01, [0, 0, 0], "supported"),
        ("equal", 0.01, [0.05, 0.051, 0.049], "not supported"),
        ("equal", 0.01, [0.01, -0.01, 0.005], "undecided"),
        ("equal", 0.01, [0.0], "undecided"),
    ],
)
def test_the_verdict_comes_from_the_interval(expect, by, values, verdict):
    assert verdict_of(expect, by, estimate(values)) == verdict


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("mode", ["quick", "full"])
def test_all_arms_of_a_claim_have_one_budget(name, mode, planned):
    runs, claim = planned(name, mode), load(name)
    budget = {
        (
            run.config.data.name,
            run.config.data.train_size,
            run.config.data.split_seed,
            run.config.trainer.max_epochs,
            run.config.optimizer.model_dump_json(),
            run.config.scheduler.model_dump_json(),
        )
        for run in runs
    }
    assert len(budget) == 1
    seeds = {json.dumps(run.labels): set() for run in runs}
    for run in runs:
        seeds[json.dumps(run.labels)].add(run.config.seed)
    assert set(map(frozenset, seeds.values())) == {frozenset(range(claim.budget(mode).seeds))}
    assert claim.budget(mode).seeds >= 3
    for statement in claim.statements:
        for side in filter(None, (statement.arm, statement.than)):
            wanted = {"arm": side} if isinstance(side, str) else side
            assert any(
                {k: str(v) for k, v in wanted.items()}.items() <= run.labels.items() for run in runs
            )
    assert {probe["name"] for probe in claim.probes} <= set(probes.PROBES)


def test_small_regions_compares_equal_parameters(planned):
    plans = {run.labels["arm"]: run.config.plan() for run in planned("small_regions")}
    goal = plans["CNN, global pool, 28"].num_parameters
    for arm, plan in plans.items():
        if not arm.startswith("CNN,") or "pool" in arm:
            assert plan.num_parameters == pytest.approx(goal, rel=0.1), arm


def answer_of(tmp_path, name):
    return json.loads((tmp_path / "outputs" / "claims" / name / "answer.json").read_text())


def test_equal_arms_come_out_as_not_supported_and_nothing_is_trained_twice(command, tmp_path):
    first = command("claim", "spatial", *QUICK, "data.change.permute=0")
    assert (first.code, first.err) == (0, "")
    answer = answer_of(tmp_path, "spatial")
    verdicts = {finding["says"]: finding["verdict"] for finding in answer["findings"]}
    assert verdicts == {
        "the permutation leaves the MLP as it was": "supported",  # it is the same network
        "it costs the CNN two points or more": "not supported",
    }
    assert answer["verdict"] == "not supported"
    assert [arm["n"] for arm in answer["arms"]] == [2, 2, 2, 2]
    assert "SPATIAL: NOT SUPPORTED".lower() in first.out.lower()
    page = (tmp_path / "outputs" / "claims" / "spatial" / "report.html").read_text()
    assert '"verdict":"not supported"' in page
    again = command("claim", "spatial", *QUICK, "data.change.permute=0")
    assert "[4/4]" in first.out  # equal networks are trained once
    assert "[1/" not in again.out


def test_shuffled_labels_support_nothing_and_more_seeds_are_a_second_look(command, tmp_path):
    words = ("claim", "spatial", *QUICK, "data.change.shuffle_labels=0")
    assert command(*words).code == 0
    assert {f["look"] for f in answer_of(tmp_path, "spatial")["findings"]} == {"first look"}
    second = command(*words, "seeds=3")
    assert "This is look 2 at these runs." in second.out
    assert ", n = 3, look 2; expected" in second.out
    answer = answer_of(tmp_path, "spatial")
    assert answer["verdict"] != "supported"
    assert answer["findings"][1]["verdict"] != "supported"
    accs = {}
    for file in (tmp_path / "outputs" / "claims" / "spatial").glob("*/result.json"):
        run = json.loads(file.read_text())
        if "kernel_size" in run["config"]["model"]:  # the CNN
            is_permuted = run["config"]["data"]["change"]["permute"] is not None
            accs[run["seed"], is_permuted] = run["metrics"]["test/acc"]
    values = [accs[seed, True] - accs[seed, False] for seed in range(3)]
    found = answer["findings"][1]
    # the second look may err in 0.2 / (1 * 2) of the 5 %
    error = stats.sem(values)
    expected = stats.t.interval(1 - 0.05 * 0.1, 2, np.mean(values), error) if error else (0, 0)
    assert (found["low"], found["high"]) == pytest.approx(expected)
    assert command(*words).code == 0  # what was asked first is still that look
    assert {f["look"] for f in answer_of(tmp_path, "spatial")["findings"]} == {"first look"}


def test_looks_at_other_arms_do_not_count_and_until_verdict_is_one_entry(tmp_path):
    def look(question, *found):
        return look_at_claim(tmp_path, question, found, 2, is_complete=True)

    assert look("quick", 1) == Look(1, PLANNED_SHARE)
    assert look("full", 1) == Look(1, PLANNED_SHARE)
    assert look("quick", 2).number == 2
    until = look_until_settled(tmp_path, "quick")
    assert until == Look(None, pytest.approx((1 - PLANNED_SHARE) / 6))
    assert look_until_settled(tmp_path, "quick") == until
    assert look_until_settled(tmp_path, "new") == look("new", 1) == AT_ANY_TIME
    write_runs(tmp_path / "runs", levels={"model.kernel_size": [3, 5]})
    shutil.copy(tmp_path / FILE, tmp_path / "runs")
    assert "look " not in " ".join(write_report([tmp_path / "runs"]).notes)


@pytest.mark.long
def test_one_seed_is_undecided_and_a_terminal_of_80_columns_shows_one_table(
    command, monkeypatch, tmp_path
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    words = [word for word in QUICK if not word.startswith(("seeds", "trainer.max_epochs"))]
    words += ["trainer.max_epochs=40", "seeds=1"]  # each run is seen by a table drawn each second
    answer = command("claim", "sampling", *words, "model.channels=[4,4]")
    assert answer.code == 0
    assert re.search(r"running  \w+ pool, seed 0", answer.err)  # an arm, and no run's name
    assert re.search(r"\d of \d runs", answer.err)
    addresses = ("report:", "tensorboard", "next:")
    lines = [line for line in answer.out.splitlines() if not line.startswith(addresses)]
    assert max(map(len, lines)) <= 80, max(lines, key=len)
    answer = answer_of(tmp_path, "sampling")
    assert {finding["verdict"] for finding in answer["findings"]} == {"undecided"}
    assert (tmp_path / "outputs" / "claims" / "sampling" / "figures" / "shift.png").is_file()


@pytest.mark.long
def test_two_processes_give_what_one_gives(start, command, tmp_path):
    words = [word for word in QUICK if word not in ("jobs=1", "seeds=2")]
    assert command("claim", "depth", *words, "seeds=1", "jobs=1").code == 0
    alone = answer_of(tmp_path, "depth")["arms"]
    process = start("claim", "depth", *words, "seeds=1", "jobs=2", "output_dir=two")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    together = json.loads((tmp_path / "two" / "claims" / "depth" / "answer.json").read_text())
    assert together["arms"] == alone
    assert "[4/4]" in out


def test_the_list_names_every_claim_and_its_time(command):
    out = command("claim", "list").out
    assert all(name in out for name in names())
    assert "about" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["spacial"], "there is no claim 'spacial'; allowed: list, all, depth"),
        (["spatial", "mode=fast"], "mode=fast: allowed: quick, full"),
        (["spatial", "seeds=0"], "seeds=0: allowed: an integer of 1 or more"),
        (["spatial", "data=digits"], "the train split has 1,438"),
        (["spatial", "model.kernal=3"], "kernal"),
        (["spatial", "data=digits", "trainer.device=mps"], "mps is not on this machine"),
    ],
)
def test_wrong_input_is_one_sentence(command, words, sentence):
    answer = command("claim", *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("question: [", ["mine.yaml cannot be read: "]),
        ("", ["mine.yaml: question: the key is missing"]),
        ("question: 3", ["mine.yaml: question=3: allowed: a word"]),
        (
            "question: why\nclaims: so",
            ["mine.yaml: claim: the key is missing", "mine.yaml: claims: there is no such key"],
        ),
    ],
)
def test_a_wrong_file_of_ones_own_is_said_key_by_key(command, tmp_path, text, sentences):
    (tmp_path / "mine.yaml").write_text(text)
    answer = command("claim", "mine.yaml")
    assert answer.code == 2
    assert all(sentence in answer.err for sentence in sentences), answer.err


def test_pictures_without_a_black_ground_are_refused(command, tmp_path):
    for split, count in (("train", 6), ("test", 2)):
        for name, grey in (("dark", 90), ("light", 200)):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("L", (28, 28), grey + number).save(folder / f"{number}.png")
    answer = command("claim", "location", "data=image_folder", "data.root=pictures",
                     "data.image_size=28", "data.channels=1", "data.cache_dir=cache",
                     "data.train_size=null", "data.val_size=2")  # fmt: skip
    assert answer.code == 2
    assert "claim location moves objects over a black background" in answer.err


def test_a_claims_page_opens_with_its_verdict_beside_what_was_expected(browser, tmp_path):
    write_runs(tmp_path, seeds=2, levels={"model.kernel_size": [3, 5]})
    found = a_claim("5 sees more than 3", mean=0.05, low=0.01, high=0.09, verdict="undecided")
    report = write_report([tmp_path], claim=found)
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    page.goto((report.folder / "report.html").as_uri())
    assert page.locator(".verdict .badge").text_content() == "undecided"
    place = "element => ({left: element.getBoundingClientRect().left, " + (
        "right: element.getBoundingClientRect().right})"
    )
    wanted = page.locator("rect.wanted").evaluate(place)
    interval = page.locator(".effect.unclear .interval").first.evaluate(place)
    assert interval["left"] < wanted["left"] < interval["right"] < wanted["right"]
