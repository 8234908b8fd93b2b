"""Why a network does not learn: what the doctor finds, what it tries, and what it leaves alone."""

import re
from html import escape

import numpy as np
import pytest
import torch

import convscape
from convscape import api
from convscape.doctor.answer import Answer, in_words
from convscape.doctor.case import Case
from convscape.doctor.command import answer
from convscape.doctor.examine import examine
from convscape.doctor.finding import Finding
from convscape.doctor.images import is_better_than_luck, unlike_validation
from convscape.doctor.inside import look_inside
from convscape.doctor.trials import new_model, trial
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training.run import train
from tests.conftest import TINY
from tests.drawn_trainings import FAULTS, drawn, examined
from tests.test_config import checked
from tests.test_json import document

SMALL = ("data.image_size=8", "model.channels=[8]", "data.train_size=300", "data.val_size=100",
         "data.batch_size=64", "trainer.max_epochs=20", "trainer.threads=1")  # fmt: skip

SLOW = ("learning rate too large", "learning rate too small", "receptive field too small")


def bright(case):
    """A rule of one's own."""
    mean = float(case.sample("train")[0].float().mean())
    return Finding("the images are bright", f"their mean is {mean:.0f} of 255", "a test says so")


def test_a_healthy_training_is_one_sentence(command):
    answer = command("doctor", *SMALL)
    assert answer.code == 0, answer.err
    sentence = " ".join(answer.out.split())
    assert re.fullmatch(
        r"nothing found by \d+ rules: after 60 steps [\d.]+ % of 100 validation images are right, "
        r"with a loss of [\d.]+ \(guessing: 2\.30\)",
        sentence,
    )


@pytest.fixture(scope="module")
def ill():
    """What is found where the learning rate is far too large."""
    return examine(Case(api.compose(*SMALL, "optimizer.lr=20")))


def test_what_is_advised_has_been_tried(ill):
    first = ill.findings[0]
    assert first.rule == "lr_too_large"
    again = ill.case.with_values(first.mend)
    shown = first.after
    assert trial(again, shown.steps).losses == shown.losses  # which is what one will get
    assert first.after.acc > first.before.acc + 0.3
    assert examine(again).findings == []
    assert checked(*SMALL, *first.words).optimizer.lr == first.mend["optimizer.lr"]


def test_what_is_said_fits_the_terminal(ill, monkeypatch):
    for width in (80, 60):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = in_words(ill)
        assert f"   try:      {ill.findings[0].words[0]}" in lines
        assert max(map(len, lines)) <= width


def test_a_notebook_shows_what_is_printed(ill):
    answer = Answer("words", False, ill)
    assert answer.findings is ill.findings
    assert (str(answer), answer.is_healthy) == ("\n".join(in_words(ill)), False)
    page = answer._repr_html_()
    first = ill.findings[0]
    for said in (first.measured, first.why, *first.words):
        assert f"<dd>{escape(said)}" in page
    assert page.count("<li>") == len(ill.findings)
    assert f"{100 * first.after.acc:.1f} %</td>" in page
    document = answer.as_dict()
    assert document["findings"][0]["mend"] == first.words


def test_python_asks_as_the_shell_does(tmp_path):
    with pytest.raises(convscape.ConfigError, match=r"model\.kernal_size.*kernel_size"):
        convscape.diagnose("model.kernal_size=3")
    with pytest.raises(convscape.ConfigError, match="there is no "):
        convscape.diagnose(str(tmp_path / "none"))
    words = (*SMALL, "trainer.max_epochs=1", "visual=off", f"output_dir={tmp_path}")
    run = convscape.train(*words, "trainer.progress=off")
    with pytest.raises(convscape.ConfigError, match="is given; allowed: one of the two"):
        convscape.diagnose("latest", run=run)
    answer = convscape.diagnose(run=run)
    assert (answer.subject, answer.is_run, answer.is_healthy) == (str(run.path), True, True)
    assert answer.diagnosis.case.trained is not None
    assert "nothing found by 20 rules: after" in answer._repr_html_()


# `python -m tests.drawn_trainings` draws hundreds, of the slower kinds too
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in SLOW])
def test_a_fault_that_was_put_in_is_found(fault, tmp_path_factory):
    rules, _ = examined(7, fault, tmp_path_factory.getbasetemp() / "drawn")
    assert FAULTS[fault].intersection(rules), rules


@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_training_is_not_called_ill(seed, tmp_path_factory):
    assert examined(seed, None, tmp_path_factory.getbasetemp() / "drawn")[0] == []


def test_validation_unlike_train_can_be_taken_from_train(tmp_path):
    case = Case(drawn(0, "validation unlike train", tmp_path))
    (finding,) = [f for f in examine(case).findings if f.rule == "unlike_validation"]
    assert finding.words == ["data.val_size=0.1"]
    assert finding.after.score > finding.before.score
    assert unlike_validation(case.with_values(finding.mend)) is None


def test_everything_is_as_it_was_afterwards():
    case = Case(api.compose(*SMALL, "optimizer.lr=1e-9", "model.batch_norm=true"))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    case.trained = new_model(case)
    torch.set_rng_state(state)
    case.trained.eval()
    before = {name: value.clone() for name, value in case.trained.state_dict().items()}
    assert examine(case).findings[0].rule == "lr_too_small"
    assert len(case.range_test.best) == 3
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    assert not case.trained.training
    assert all(torch.equal(value, before[n]) for n, value in case.trained.state_dict().items())
    assert all(parameter.grad is None for parameter in case.trained.parameters())


def test_the_inside_of_a_network_is_what_torch_says():
    case = Case(api.compose(*SMALL))
    model = new_model(case)
    images, labels = case.sample("train")
    inside = look_inside(model, images[:50], labels[:50])
    with torch.no_grad():
        model.network.block1.conv.bias[:2] = -1e4
    dead = look_inside(model, images[:50], labels[:50]).dead
    assert inside.dead == {"block1.activation": 0.0}
    assert dead == {"block1.activation": 2 / 8}
    with torch.no_grad():
        logits = new_model(case)(images[:50])
    loss = torch.nn.functional.cross_entropy(logits, labels[:50])
    assert inside.loss == pytest.approx(loss.item())


def test_answers_are_better_than_luck_only_where_they_are():
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 300)
    alarms = sum(is_better_than_luck(draw.permutation(labels), labels) for _ in range(50))
    assert alarms == 0
    some = np.where(draw.random(300) < 0.3, labels, draw.permutation(labels))
    assert is_better_than_luck(some, labels)


def test_a_rule_of_ones_own_is_asked_where_it_is_allowed(command):
    words = (*SMALL, "rules=[tests.test_doctor.bright]")
    answer = command("doctor", *words)
    assert answer.code == 2
    assert "allow_packages=[tests]" in answer.err
    answer = command("doctor", *words, "allow_packages=[tests]", "--json")
    (finding,) = document(answer, "doctor")["findings"]
    assert (finding["rule"], finding["mend"], finding["after"]) == ("bright", [], None)


def test_a_run_that_diverged_is_examined(command, tmp_path):
    folder = tmp_path / "outputs" / "runs" / "one"
    config = checked(*SMALL, "model.activation=none", "optimizer=sgd", "optimizer.lr=1e20")
    assert train(ResolvedRun(config), folder).status == "diverged"
    found = document(command("doctor", "latest", "--json"), "doctor")
    assert found["is_run"]
    assert found["findings"][0]["rule"] == "lr_too_large"
    assert found["trial"]["loss"] is None
    answer = command("doctor", "latest", "optimizer.lr=1")
    assert (answer.code, answer.out) == (2, "")
    assert "a run keeps its own config" in answer.err
    assert sorted(path.name for path in folder.parent.iterdir()) == ["one"]


def test_an_own_network_is_examined_with_the_weights_of_its_run(tmp_path):
    """With these steps the ReLUs have died; a new network's are alive."""
    words = ["model=own", "model._target_=tests.drawn_trainings.Sick", "+model.fault=none"]
    words += ["optimizer=sgd", "optimizer.lr=1000", "trainer.gradient_clip_norm=1"]
    words += ["allow_packages=[tests]", "trainer.max_epochs=2"]
    config = checked(SMALL[0], *SMALL[2:], *words)
    assert train(ResolvedRun(config), tmp_path / "one").status == "ok"
    case = answer([str(tmp_path / "one"), "allow_packages=[tests]"]).diagnosis.case
    assert max(case.at_start.dead.values()) < 0.5
    assert max(case.inside_trained.dead.values()) > 0.9


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("outputs/runs/none",), "there is no "),
        (("resume=outputs/runs/x",), "give the run alone: outputs/runs/x"),
        (("rules=bright",), "allowed: a list"),
        (("optimizer.lrr=1",), "optimizer.lr"),
        (("--epochs=5",), "no such option"),
    ],
)
def test_mistakes_are_one_sentence(command, words, says):
    answer = command("doctor", *words)
    assert (answer.code, answer.out) == (2, "")
    assert says in answer.err
    assert len(answer.err.splitlines()) == 1


# --- while it trains ------------------------------------------------------------------------------


def trained(path, *words):
    """The history of a run, what it noted, and its fingerprint."""
    run = ResolvedRun(checked(*SMALL, "data.batch_size=4", "visual=off", *words))
    assert train(run, path).status == "ok"
    rows = [line.rpartition(",")[0] for line in RunFolder(path).history_file.read_text().split()]
    return rows, (path / "run.log").read_text(), run.fingerprint


def test_a_run_that_learns_nothing_says_so_once(tmp_path, capsys):
    words = "optimizer.lr=1e-12", "trainer.max_epochs=4", "model.dropout=0.3"
    watched, log, name = trained(tmp_path / "a", *words)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "is guessing" in line]
    assert line.startswith("after 3 epochs the loss is 2.")
    assert f"doctor.py {tmp_path / 'a'}" in line
    assert line in log
    unwatched, log, other = trained(tmp_path / "b", *words, "trainer.watch=false")
    assert "is guessing" not in capsys.readouterr().err + log
    assert (watched, name) == (unwatched, other)


@pytest.mark.parametrize("words", [[], ["data.val_size=0"], ["trainer.ema=0.1"]])
def test_dead_units_are_said_after_the_first_epoch(tmp_path, capsys, words):
    words = [*words, "optimizer=sgd", "optimizer.lr=1000", "trainer.gradient_clip_norm=1"]
    trained(tmp_path / "a", *words, "trainer.max_epochs=1")
    said = capsys.readouterr().err
    assert "% of the ReLUs of block1.activation are 0 for every image" in said


def test_a_run_that_learns_says_nothing(tmp_path, capsys):
    trained(tmp_path / "a", *TINY[3:])
    assert "doctor" not in capsys.readouterr().err
