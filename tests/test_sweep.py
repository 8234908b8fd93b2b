"""Sweeps from the command line, on the basic launcher and joblib's, with all that can go wrong."""

import json
import random
import signal
import textwrap
import time

import pytest
import yaml

import convscape
from convscape.base.errors import ConfigError
from convscape.config.directory import CONFIG_DIR
from convscape.sweeps.grid import EXECUTION_KEYS
from tests.conftest import PATIENCE_S, TINY, needs_signals, wait_for

pytestmark = pytest.mark.usefixtures("without_figures")

# what badnets.Net does in training, by the value of model.how
BAD = """
    import os, signal, sys, time, torch
    from torch import nn

    class Net(nn.Sequential):
        def __init__(self, num_classes, how):
            super().__init__(nn.Flatten(), nn.Linear(784, num_classes))
            self.how = how

        def forward(self, images):
            if self.training:
                if self.how == "raise":
                    raise RuntimeError("on purpose")
                if self.how == "exit":
                    sys.exit(3)
                if self.how == "diverge":
                    return super().forward(images) * float("nan")
                if self.how == "memory":
                    torch.empty(2**50)
                if self.how == "slow":
                    time.sleep(0.5)  # its first epoch is not saved before "kill" has died
                if self.how == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().forward(images)
"""
ENDINGS = {
    "good": "ok",
    "raise": "failed",
    "exit": "failed",
    "diverge": "diverged",
    "memory": "out_of_memory",
    "fine": "ok",
}
BAD_SWEEP = ["-m", "name=bad", "model=own", "model._target_=badnets.Net", *TINY[1:]]
BAD_SWEEP += ["allow_packages=[badnets]", "visual=off"]
SHORT = ["-m", "name=short", *TINY, "visual=off"]


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "badnets.py").write_text(textwrap.dedent(BAD))


def results(tmp_path, name):
    """Results of a sweep by what was chosen."""
    found = {}
    for file in (tmp_path / "outputs" / "sweeps" / name).glob("*/result.json"):
        result = json.loads(file.read_text())
        common = {*TINY, "trainer.max_epochs=12", "model.dropout=0.2", *BAD_SWEEP}
        found[" ".join(o for o in result["overrides"] if o not in common)] = result
    return found


def statuses(tmp_path, name):
    return {key: result["status"] for key, result in results(tmp_path, name).items()}


def test_a_sweep_finishes_and_the_same_command_again_repeats_nothing(command, tmp_path):
    sweep = [*SHORT, "model.kernel_size=3,29,[3]", "seed=0,1"]
    answer = command("train", *sweep)
    assert answer.code == 0, answer.err
    assert statuses(tmp_path, "short") == {
        "model.kernel_size=3 seed=0": "ok",
        "model.kernel_size=3 seed=1": "ok",
        "model.kernel_size=29 seed=0": "infeasible",
        "model.kernel_size=29 seed=1": "infeasible",
    }
    times = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/sweeps/short/*/checkpoints/*")}
    again = command("train", *sweep)
    assert again.code == 0
    assert "0 to do" in again.out
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_an_impossible_run_is_recorded_with_its_reason(command, tmp_path):
    answer = command("train", *SHORT, "model.kernel_size=3,29")
    assert answer.code == 0
    impossible = results(tmp_path, "short")["model.kernel_size=29"]
    assert impossible["error"]["type"] == "InfeasibleGeometry"
    assert "a 29x29 kernel does not fit its 28x28 input" in impossible["error"]["message"]
    assert "1 impossible" in answer.out
    assert "1 ok, 1 infeasible" in answer.out


def test_a_run_in_a_sweep_is_the_run_alone(command, tmp_path):
    """Nothing leaks from run to run: the second of a sweep has the metrics of a run of its own."""
    command("train", *SHORT, "optimizer.lr=0.01,0.002", "seed=4")
    command("train", *TINY, "optimizer.lr=0.002", "seed=4")
    (alone,) = tmp_path.glob("outputs/runs/*/result.json")
    assert (
        results(tmp_path, "short")["optimizer.lr=0.002 seed=4"]["metrics"]
        == json.loads(alone.read_text())["metrics"]
    )


def test_bad_runs_are_recorded_as_what_they_are_and_the_others_finish(command, bad, tmp_path):
    answer = command("train", *BAD_SWEEP, f"+model.how={','.join(ENDINGS)}")
    assert answer.code == 1
    assert statuses(tmp_path, "bad") == {f"+model.how={how}": s for how, s in ENDINGS.items()}
    assert "failed    RuntimeError: on purpose" in answer.out
    for path in tmp_path.glob("outputs/sweeps/bad/*raise*/run.log"):
        assert "RuntimeError: on purpose" in path.read_text()


def test_failed_runs_are_tried_again_only_when_asked(command, bad, tmp_path):
    sweep = [*BAD_SWEEP, "+model.how=good,raise"]
    assert command("train", *sweep).code == 1
    assert "0 to do" in command("train", *sweep).out
    text = (tmp_path / "badnets.py").read_text()
    (tmp_path / "badnets.py").write_text(text.replace("raise Run", "print; Run"))
    assert "1 to do" in command("train", *sweep, "retry=true").out


def test_fail_fast_stops_at_the_first_failure(command, bad, tmp_path):
    sweep = [*BAD_SWEEP, "+model.how=good,raise,fine"]
    answer = command("train", *sweep, "fail_fast=true")
    assert answer.code == 1
    assert statuses(tmp_path, "bad") == {"+model.how=good": "ok", "+model.how=raise": "failed"}
    assert "1 not started" in answer.out
    command("train", *sweep)
    assert statuses(tmp_path, "bad")["+model.how=fine"] == "ok"


@pytest.mark.parametrize("launcher", ["basic", pytest.param("joblib", marks=pytest.mark.slow)])
def test_a_run_that_kills_its_process_costs_no_other_run(start, bad, tmp_path, launcher):
    """The kill takes the sweep or its pool along; the same command goes on, and gives it up."""
    sweep = [*BAD_SWEEP, "+model.how=slow,kill,diverge,fine", f"hydra/launcher={launcher}"]
    for _ in range(4):
        code = start("train", *sweep).wait()
        if statuses(tmp_path, "bad").get("+model.how=kill") == "failed":
            break
    assert code == 1
    assert statuses(tmp_path, "bad") == {
        "+model.how=slow": "ok",
        "+model.how=kill": "failed",
        "+model.how=diverge": "diverged",
        "+model.how=fine": "ok",
    }


@pytest.mark.long
def test_a_killed_sweep_goes_on_and_ends_as_one_that_was_left_alone(start, command, tmp_path):
    sweep = ["-m", *TINY, "trainer.max_epochs=12", "model.dropout=0.2", "optimizer.lr=0.01,0.003"]
    sweep = [word for word in sweep if word != "trainer.max_epochs=2"] + ["seed=0,1"]
    process = start("train", *sweep, "name=killed")
    folder = tmp_path / "outputs" / "sweeps" / "killed"
    wait_for(lambda: len(list(folder.glob("*/checkpoints/last.ckpt"))) == 2, process)
    process.kill()
    process.wait()
    finished = {p: p.stat().st_mtime_ns for p in folder.glob("*/result.json") if is_ok(p)}
    assert command("train", *sweep, "name=killed").code == 0
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    assert command("train", *sweep, "name=alone").code == 0
    killed, alone = results(tmp_path, "killed"), results(tmp_path, "alone")
    assert len(killed) == 4
    assert {k: r["metrics"] for k, r in killed.items()} == {
        k: r["metrics"] for k, r in alone.items()
    }


@pytest.mark.slow
def test_a_sweep_killed_at_ten_moments_ends_as_one_that_was_left_alone(start, command, tmp_path):
    """SIGKILL after a random time, started again each time; no finished run is trained twice."""
    rng = random.Random(0)
    sweep = ["-m", *TINY[:3], "trainer.max_epochs=12", "trainer.threads=1", "model.dropout=0.2"]
    sweep += ["optimizer.lr=0.01,0.003", "seed=range(6)"]
    folder = tmp_path / "outputs" / "sweeps" / "killed"
    finished = {}
    for _ in range(10):
        process = start("train", *sweep, "name=killed")
        time.sleep(rng.uniform(0.5, 8))
        process.kill()
        process.wait()
        for path in folder.glob("*/result.json"):
            if is_ok(path):
                when = finished.setdefault(path, path.stat().st_mtime_ns)
                assert path.stat().st_mtime_ns == when
    # what died twice without a checkpoint in between has failed by then, so it is asked for again
    assert command("train", *sweep, "name=killed", "retry=true").code == 0
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    assert command("train", *sweep, "name=alone").code == 0
    killed, alone = results(tmp_path, "killed"), results(tmp_path, "alone")
    assert len(killed) == 12
    assert {k: r["metrics"] for k, r in killed.items()} == {
        k: r["metrics"] for k, r in alone.items()
    }


def is_ok(path):
    return json.loads(path.read_text())["status"] == "ok"


@needs_signals
def test_ctrl_c_ends_a_sweep_with_130_and_it_goes_on(start, command, tmp_path):
    sweep = ["-m", "name=long", *TINY[:3], "seed=0,1", "trainer.threads=1"]
    process = start("train", *sweep, "trainer.max_epochs=3000")
    folder = tmp_path / "outputs" / "sweeps" / "long"
    wait_for(lambda: list(folder.glob("*/checkpoints/last.ckpt")), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, err
    assert "1 interrupted, 1 not started" in out
    assert "the same command again finishes the rest" in out
    assert "Traceback" not in err


def test_two_processes_share_a_sweep(start, tmp_path):
    """Started at the same moment: every run is done once, by one of them."""
    sweep = [*SHORT, "seed=range(6)", "trainer.max_epochs=6"]
    both = [start("train", *sweep) for _ in range(2)]
    outs = [process.communicate(timeout=PATIENCE_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    assert set(statuses(tmp_path, "short").values()) == {"ok"}
    assert len(results(tmp_path, "short")) == 6
    lines = [line for out in outs for line in out.splitlines() if line.startswith("[")]
    assert len([line for line in lines if "  ok  " in line]) == 6


@pytest.mark.long
def test_joblib_gives_what_the_basic_launcher_gives(start, command, tmp_path):
    sweep = ["-m", *TINY, "seed=0,1,2"]
    process = start("train", *sweep, "name=parallel", "hydra/launcher=joblib")
    assert process.wait() == 0
    assert command("train", *sweep, "name=serial").code == 0
    parallel, serial = results(tmp_path, "parallel"), results(tmp_path, "serial")
    assert {k: r["metrics"] for k, r in parallel.items()} == {
        k: r["metrics"] for k, r in serial.items()
    }


def test_a_preset_is_a_sweep_that_can_be_changed(command, tmp_path):
    answer = command(
        *("train", "-m", "sweep=geometry", "model.kernel_size=3", "seed=0", "data.train_size=200"),
        *("model.channels=[4,4]", "trainer.max_epochs=1", "visual=off"),
    )
    assert answer.code == 0, answer.err
    definition = yaml.safe_load((tmp_path / "outputs/sweeps/geometry/sweep.yaml").read_text())
    assert definition["model.stride"] == "1,2"
    assert definition["model.kernel_size"] == "3"
    assert len(results(tmp_path, "geometry")) == 4


def test_the_flag_for_many_runs_may_stand_anywhere(command):
    answer = command("train", "model.stride=1", "-m", "seed=range(0)")
    assert "the sweep is empty" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["seed=0,1", "name=a/b"], "cannot name a folder"),
        (["seed=0,1", "name=.."], "cannot name a folder"),
        (["seed=0,1", "trainer.devices=2"], "trainer.devices must be 1 in a sweep"),
        (["seed=range(0)"], "the sweep is empty"),
        (["model.stride=1,0"], "model.stride=0: 0 is too small"),
        (["seed=0,1", "resume=somewhere"], "resume is for single runs"),
        (["seed=0,1", "hydra/launcher=nonsense"], "hydra/launcher=nonsense: there is no such"),
        (["seed=0,1", "data.val_size=5000"], "the train split has 1,438"),
        (["seed=0,1", "trainer.device=mps"], "trainer.device=mps is not on this machine"),
        (["optimizer.lr=interval(0,1)"], "scripts/search.py"),
        (["seed=0,1", "data=image_folder", "data.root=nowhere"], "there is no folder"),
        (["model=own", "model._target_=nonsense.Net", "allow_packages=[nonsense]"], "No module"),
    ],
)
def test_a_users_mistake_ends_the_sweep_before_anything_trains(command, tmp_path, arguments, words):
    answer = command("train", "-m", *arguments)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    assert answer.err.startswith("error: ")
    assert not list(tmp_path.glob("outputs/**/checkpoints"))


@pytest.mark.parametrize("key", [*EXECUTION_KEYS, "name", "resume", "sweep", "logger.tensorboard"])
def test_a_key_that_steers_a_sweep_has_one_value(command, tmp_path, key):
    """Runs in two folders, or under two names, would be lost from the summary of either."""
    for script in ("train", "plan"):
        answer = command(script, "-m", "seed=0,1", f"{key}=a,b")
        assert (answer.code, "so it takes one value" in answer.err) == (2, True), answer.err
        assert answer.err.startswith(f"error: {key}=a,b: ")
    assert "so it takes one value" in command("plan", "-m", "hydra/launcher=basic,joblib").err
    assert not (tmp_path / "outputs").exists()


def test_a_preset_of_a_sweep_alone_says_that_it_is_a_grid(command, tmp_path):
    for preset in sorted(path.stem for path in (CONFIG_DIR / "sweep").glob("*.yaml")):
        answer = command("train", f"sweep={preset}", "seed=1")
        assert (answer.code, answer.err) == (
            2,
            f"error: sweep={preset} is a grid of many runs; to train them: "
            f"python scripts/train.py -m sweep={preset} seed=1\n",
        )
    assert "is a grid" in command("search", "sweep=pooling").err
    assert "is a grid" in command("claim", "spatial", "sweep=pooling").err
    with pytest.raises(ConfigError, match=r"convscape.train_sweep\('sweep=pooling', name=...\)"):
        convscape.train("sweep=pooling")
    assert not (tmp_path / "outputs" / "runs").exists()


def test_a_name_in_use_by_another_sweep_is_refused_with_the_difference(command, tmp_path):
    assert command("train", *SHORT, "seed=0").code == 0
    answer = command("train", *SHORT, "seed=0,1")
    assert answer.code == 2
    assert "seed was 0 and is now 0,1" in answer.err
    assert command("train", *SHORT, "seed=0,1", "extend=true").code == 0
    assert len(results(tmp_path, "short")) == 2


def test_a_read_only_output_folder_is_one_sentence(command, tmp_path, as_nobody):
    (tmp_path / "outputs").mkdir(mode=0o555)
    with as_nobody():
        answer = command("train", *SHORT, "seed=0,1")
    assert (answer.code, "cannot write the folder" in answer.err) == (2, True)


def test_what_is_no_folder_is_refused_as_output(command, tmp_path):
    (tmp_path / "file").write_text("")
    answer = command("train", *SHORT, "seed=0,1", "output_dir=file")
    assert (answer.code, "choose another place with output_dir" in answer.err) == (2, True)


def test_what_is_in_the_way_of_a_run_is_named_and_then_the_sweep_is_finished(command, tmp_path):
    sweep = [*SHORT, "seed=0,1,2", "model.kernel_size=3,29"]
    assert command("train", *sweep[:-2], "seed=0,1", sweep[-1]).code == 0
    files = sorted(tmp_path.glob("outputs/sweeps/short/*/result.json"))
    foreign, unfinished = (file for file in files if '"ok"' in file.read_text())
    others = {f: f.stat().st_ino for f in files if f not in (foreign, unfinished)}
    foreign.write_text(foreign.read_text().replace(foreign.parent.name[-8:], "12345678"))
    unfinished.unlink()
    folder = unfinished.with_name("history.csv")
    folder.unlink()
    folder.mkdir()
    answer = command("train", *sweep, "extend=true")
    assert answer.code == 1
    assert "1 to do" in answer.out
    where = [path.relative_to(tmp_path) for path in (foreign, folder)]
    assert f"{where[0]} belongs to another run, 12345678; move {where[0].parent} away" in answer.out
    assert f"{where[1]} is a folder where a file belongs; move it away" in answer.out
    assert "once nothing is in the way, the same command again finishes the rest" in answer.out
    foreign.parent.rename(tmp_path / "elsewhere")
    folder.rename(tmp_path / "away")
    answer = command("train", *sweep, "extend=true")
    assert (answer.code, "2 to do" in answer.out) == (0, True), answer.err
    # what is known to be impossible is not written again
    assert others == {file: file.stat().st_ino for file in others}


def test_what_breaks_before_the_training_is_named_and_the_sweep_goes_on(tmp_path, monkeypatch):
    from convscape.training import conditions

    real, calls = conditions.environment, []

    def breaking_once(config):
        calls.append(config)
        if len(calls) == 1:
            raise RuntimeError("no such processor")
        return real(config)

    monkeypatch.setattr(conditions, "environment", breaking_once)
    words = [*TINY, "trainer.max_epochs=1", "visual=off", "trainer.progress=off", "seed=0,1"]
    convscape.train_sweep(*words, f"output_dir={tmp_path}", name="broken")
    documents = [json.loads(f.read_text()) for f in tmp_path.glob("sweeps/broken/*/result.json")]
    assert sorted(document["status"] for document in documents) == ["failed", "ok"]
    (error,) = (document["error"] for document in documents if document["error"] is not None)
    assert "no such processor" in error["message"]
