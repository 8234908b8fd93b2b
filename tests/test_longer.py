"""Runs that go on for longer than was asked for at first, and with other learning rates."""

import json
import re
from contextlib import chdir, contextmanager

import pytest

import convscape
from convscape.base import machine
from convscape.base.errors import ConfigError
from convscape.data.ahead import Ahead
from convscape.models.schedules import lr_factor
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.runs.resume import resumed
from convscape.training import run as training
from convscape.training.longer import longer
from tests.conftest import TINY
from tests.dying import train_apart
from tests.test_config import checked, composed
from tests.test_resume import OVERRIDES, assert_equal_runs, history, stop_at
from tests.test_resume_own import points

LENGTHS = ("scheduler=", "trainer.max_epochs=")
WORDS = [word for word in OVERRIDES if not word.startswith(LENGTHS)]
CONSTANT = [*WORDS, "scheduler=constant"]
LONG = [*CONSTANT, "trainer.max_epochs=4"]


def trained(path, *words):
    """The run's folder; 13 steps an epoch."""
    assert training.train(ResolvedRun(checked(*words), words), path).status == "ok"
    return RunFolder(path)


@contextmanager
def going_on(folder, where, *words):
    """The other run, its new folder and what is said of it, as `resume=` with `words` has it."""
    where.mkdir(exist_ok=True)
    with chdir(where), (other := asked(folder, *words)).place as path:
        yield other.run, path.absolute(), other.words


def asked(folder, *words):
    typed = [f"resume={folder.path}", *words]
    return longer(resumed(composed(*typed), typed))


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    path = tmp_path_factory.mktemp("long")
    assert train_apart(LONG, path) == "ok"
    return RunFolder(path)


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    path = tmp_path_factory.mktemp("short")
    assert train_apart([*CONSTANT, "trainer.max_epochs=2"], path) == "ok"
    return RunFolder(path)


@pytest.fixture(scope="module")
def one_cycle(tmp_path_factory):
    path = tmp_path_factory.mktemp("one_cycle")
    words = [*WORDS, "model.batch_norm=false", "visual=off", "trainer.max_epochs=1"]
    assert train_apart(words, path) == "ok"
    return RunFolder(path)


def test_a_finished_run_goes_on_to_the_bits_of_the_long_one(tmp_path, short, long):
    with going_on(short, tmp_path, "trainer.max_epochs=4") as (run, path, words):
        assert training.train(run, path).status == "ok"
    assert words == (
        f"continues from {short.path}, after 2 epochs, to the same bits as 4 epochs from the "
        "beginning"
    )
    assert_equal_runs(RunFolder(path), long)
    assert points(RunFolder(path)) == points(long)  # its hyper-parameters stand once
    parent = json.loads(RunFolder(path).result_file.read_text())["parent"]
    assert parent == {"run": short.path.name, "epochs": 2, "steps": 26}
    assert f"continues {short.path.name}, after 2 epochs" in (path / "run.log").read_text()


@pytest.mark.parametrize(("moment", "number"), [("begun", 1), ("step", 3), ("saved", 1)])
def test_one_that_is_killed_on_the_way_does_so_too(tmp_path, short, long, moment, number):
    with going_on(short, tmp_path, "trainer.max_epochs=4") as (_, path, _):
        pass
    assert train_apart(LONG, path, moment, number) is None
    assert train_apart(LONG, path) == "ok"
    assert_equal_runs(RunFolder(path), long)
    assert points(RunFolder(path)) == points(long)


def test_a_run_that_was_stopped_within_an_epoch_does_so_too(tmp_path, monkeypatch, long):
    words = [*CONSTANT, "trainer.max_epochs=3"]
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        result = training.train(ResolvedRun(checked(*words), words), tmp_path / "stopped")
    assert result.status == "interrupted"
    folder = RunFolder(tmp_path / "stopped")
    with going_on(folder, tmp_path, "trainer.max_epochs=4") as (run, path, _):
        assert training.train(run, path).status == "ok"
    assert_equal_runs(RunFolder(path), long)


def test_averages_of_images_larger_than_memory_go_on_to_the_same_bits(tmp_path, monkeypatch):
    """Both at once: the weights are swapped with their average, and the batches are read ahead."""
    words = [*CONSTANT, "trainer.ema=0.9"]
    whole = trained(tmp_path / "whole", *words, "trainer.max_epochs=3")
    asked_for = []
    monkeypatch.setattr(machine, "memory_limit", lambda: 1)
    of_batch = Ahead.of_batch
    monkeypatch.setattr(Ahead, "of_batch", lambda *a: asked_for.append(a) or of_batch(*a))
    with monkeypatch.context() as patch:
        stop_at(patch, 10)
        short = [*words, "trainer.max_epochs=2"]
        result = training.train(ResolvedRun(checked(*short), short), tmp_path / "stopped")
    assert result.status == "interrupted"
    stopped = trained(tmp_path / "stopped", *short)
    with going_on(stopped, tmp_path, "trainer.max_epochs=3") as (run, path, _):
        assert training.train(run, path).status == "ok"
    assert_equal_runs(RunFolder(path), whole)
    assert asked_for


def test_a_schedule_that_depends_on_the_length_says_what_can_be_done(one_cycle):
    with pytest.raises(ConfigError) as refused:
        asked(one_cycle, "trainer.max_epochs=2")
    sentence = str(refused.value)
    assert "one_cycle spreads the learning rates over the whole training: 2 epochs" in sentence
    assert "scheduler=cosine or scheduler=constant, from optimizer.lr=0.005 or" in sentence
    assert "train from the start: python scripts/train.py" in sentence


@pytest.mark.parametrize("name", ["cosine", "constant"])
def test_the_rest_has_learning_rates_of_its_own(one_cycle, tmp_path, name):
    words = (f"scheduler={name}", "optimizer.lr=0.001", "trainer.max_epochs=3")
    with going_on(one_cycle, tmp_path, *words) as (run, path, said):
        assert training.train(run, path).status == "ok"
    before = float(history(one_cycle)[0]["lr"])
    assert f"the learning rate was {before:.3g} and continues at 0.001 (scheduler={name})" in said
    rates = [float(row["lr"]) for row in history(RunFolder(path))]
    rest = [
        0.001 * lr_factor(step, name=name, steps_per_epoch=13, total_steps=26) for step in (12, 25)
    ]
    assert rates == pytest.approx([before, *rest])
    result = RunFolder(path).read_result()
    assert result.overrides == [f"resume={one_cycle.path}", *words]
    assert result.config["parent"] == {
        "fingerprint": one_cycle.read_result().fingerprint, "steps": 13, "new_schedule": True
    }  # fmt: skip
    assert run.fingerprint != ResolvedRun(run.config.model_copy(update={"parent": None}), [])


def test_a_run_of_its_own_that_is_killed_ends_with_the_same_bits(one_cycle, tmp_path):
    folders = []
    for name in ("whole", "killed"):
        words = ("scheduler=constant", "trainer.max_epochs=3")
        with going_on(one_cycle, tmp_path / name, *words) as (run, path, _):
            folders.append(RunFolder(path))
            if name == "whole":
                assert training.train(run, path).status == "ok"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        assert training.train(run, path).status == "interrupted"
    again = resumed(composed(f"resume={path}"), [])
    assert again.before is None
    assert training.train(again.run, path).status == "ok"
    assert_equal_runs(*folders)
    for checkpoint in (folders[1].last_checkpoint, folders[1].best_checkpoint):
        checkpoint.unlink()
    with pytest.raises(ConfigError, match="are lost, and with them the state it continued from"):
        training.train(again.run, path)


def test_what_is_no_part_of_the_result_may_be_said_anew(short, tmp_path):
    words = ["visual=full", "logger=csv", "trainer.progress=lines", "data.root=there"]
    again = resumed(composed(f"resume={short.path}", *words), words)
    config = again.run.config
    assert again.before is None
    assert (config.visual, config.trainer.progress, config.data.root) == ("full", "lines", "there")
    assert (config.logger.tensorboard, config.logger.csv is None) == (None, False)
    assert again.run.fingerprint == short.read_result().fingerprint


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["seed=3", "trainer.max_epochs=4"], "leave out seed=3; allowed: trainer.max_epochs"),
        (["optimizer=sgd"], "leave out optimizer=sgd"),
        (["optimizer.eps=1"], "leave out optimizer.eps=1"),
        (["output_dir=there"], "leave out output_dir"),
        (["trainer.max_epochs=1"], "26 steps, already; ask for more, such as trainer.max_epochs=3"),
        (
            ["trainer.max_epochs=9", "trainer.max_steps=26"],
            "such as trainer.max_epochs=9 trainer.max_steps=27",
        ),
        (["scheduler=cosine"], "max_epochs=2: the run has done 2 epochs, 26 steps, already"),
        (["trainer.max_steps=20"], "max_steps=20: the run has done 2 epochs"),
        (["trainer.early_stopping=3"], "may have passed where that stops; allowed: null"),
        (["trainer.max_epochs=3", "data.root=x", "model.stride=2"], "leave out model.stride=2"),
        (
            ["trainer.max_epochs=3", "scheduler._target_=torch.optim.lr_scheduler.StepLR"],
            "allowed for the rest of a run: scheduler=constant",
        ),
    ],
)
def test_all_else_is_refused(short, words, sentence):
    with pytest.raises(ConfigError) as refused:
        asked(short, *words)
    assert sentence in str(refused.value)


def test_parts_that_may_look_at_the_length_make_it_a_run_of_its_own(tmp_path):
    words = [*WORDS, "scheduler=constant", "visual=off", "trainer.max_epochs=9"]
    timer = "+callbacks.timer._target_=lightning.pytorch.callbacks.Timer"
    for name, word in (("callback", timer), ("cut", "trainer.max_steps=6")):
        run = ResolvedRun(checked(*words, "trainer.max_epochs=1", word), words)
        assert training.train(run, tmp_path / name).status == "ok"
        more = ["trainer.max_epochs=2"] + ["trainer.max_steps=20"] * (name == "cut")
        with going_on(RunFolder(tmp_path / name), tmp_path, *more) as (other, path, said):
            assert training.train(other, path).epochs == 2
        reason = "acted differently" if name == "callback" else "trainer.max_steps=6 cut epoch 1"
        assert "as a separate run" in said
        assert reason in said
        assert other.config.parent.new_schedule is False


def test_one_that_stopped_early_would_do_so_again(tmp_path):
    words = [*WORDS, "scheduler=constant", "visual=off", "optimizer.lr=1e-12"]
    words += ["model.batch_norm=false", "trainer.early_stopping=1", "trainer.max_epochs=9"]
    folder = trained(tmp_path / "early", *words)
    with pytest.raises(ConfigError, match=r"stopped early .*; add trainer\.early_stopping=null or"):
        asked(folder, "trainer.max_epochs=12")
    with going_on(folder, tmp_path, "trainer.early_stopping=2") as (run, path, _):
        assert training.train(run, path).epochs == 3


def test_longer_from_the_shell_and_from_python(command, tmp_path):
    first = command("train", *TINY, "scheduler=constant", "trainer.progress=off")
    (folder,) = tmp_path.glob("outputs/runs/*")
    finished = command("train", f"resume={folder}")
    assert "for longer:  the same command with trainer.max_epochs=<more>" in finished.out
    answer = command("train", f"resume={folder}", "trainer.max_epochs=3", "trainer.progress=off")
    assert (first.code, answer.code) == (0, 0), answer.err
    assert "after 2 epochs, to the same bits as 3 epochs from the beginning" in answer.out
    run = convscape.train(f"resume={folder}", "trainer.max_epochs=3", "trainer.progress=off")
    assert len(run.history) == 3
    folders = sorted(tmp_path.glob("outputs/runs/*"))
    assert len(folders) == 3
    assert any(re.search(r"_ep3_?.*-[0-9a-f]{8}$", each.name) for each in folders)
    longer = [each for each in folders if each != folder]
    one, other = (RunFolder(each).read_result().metrics for each in longer)
    assert one == other


def test_a_parent_is_not_to_be_typed(command):
    parent = "+parent={fingerprint:'01234567',steps:3,new_schedule:false}"
    answer = command("train", *TINY, parent)
    assert (answer.code, "gets it from resume=<run folder>" in answer.err) == (2, True)
