"""Runs that are stopped anywhere end with the same bits as those that were left alone."""

import csv
import json
import os
import random
import resource
import shutil
import signal
import time

import pytest
import torch

from convscape import training
from convscape.runs import RunFolder
from tests.conftest import wait_for
from tests.test_config import checked

# dropout, batch norm, augmentation and a schedule: all that has a state or draws numbers
OVERRIDES = [
    "model.channels=[4,4]",
    "model.dropout=0.2",
    "model.batch_norm=true",
    "data.augment.shift=2",
    "data.batch_size=32",
    "data.train_size=400",
    "data.val_size=100",
    "trainer.max_epochs=4",
    "trainer.threads=1",
    "trainer.steps_per_execution=2",
    "trainer.progress=off",
]


def weights(folder):
    """Of the last epoch."""
    return torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]


def assert_equal_runs(one, other):
    """Bit for bit in weights, metrics and history; times aside."""
    ours, theirs = weights(one), weights(other)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    results = [json.loads(folder.result_file.read_text()) for folder in (one, other)]
    for key in ("status", "metrics", "best_epoch", "epochs", "global_step", "fingerprint"):
        assert results[0][key] == results[1][key], key
    histories = []
    for folder in (one, other):
        with folder.history_file.open() as file:
            histories.append([{**row, "train_seconds": ""} for row in csv.DictReader(file)])
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was left alone."""
    path = tmp_path_factory.mktemp("whole")
    assert training.train(checked(*OVERRIDES), path, OVERRIDES).status == "ok"
    return RunFolder(path)


def stop_at(monkeypatch, call):
    """Let a signal arrive in the `call`-th training_step."""
    step = training.models.ImageClassifier.training_step
    calls = []

    def stopping(self, *arguments):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(training.models.ImageClassifier, "training_step", stopping)


@pytest.mark.parametrize("call", [1, 5, 7, 8, 20, 28])
def test_a_run_stopped_by_ctrl_c_goes_on_bit_for_bit(tmp_path, monkeypatch, whole, call):
    """An epoch has 13 steps, 7 calls: the middle, its end, its beginning and the last one."""
    folder = RunFolder(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        result = training.train(checked(*OVERRIDES), tmp_path, OVERRIDES)
    assert result.status == "interrupted"
    assert folder.read_result().status == "interrupted"
    assert training.train(checked(*OVERRIDES), tmp_path, OVERRIDES).status == "ok"
    assert_equal_runs(folder, whole)


def test_the_signal_handlers_are_put_back(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(monkeypatch, 3)
    training.train(checked(*OVERRIDES), tmp_path, OVERRIDES)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def run_folder(tmp_path):
    return next((tmp_path / "outputs" / "runs").iterdir())


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_a_checkpoint_and_the_way_on(
    start, command, tmp_path, signum, code
):
    process = start("train", *OVERRIDES, "trainer.max_epochs=2000")
    wait_for(lambda: list(tmp_path.glob("outputs/runs/*/checkpoints/last.ckpt")), process)
    process.send_signal(signum)
    begin = time.monotonic()
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - begin < 5
    assert process.returncode == code
    assert "Traceback" not in err
    folder = run_folder(tmp_path)
    assert f"python scripts/train.py resume={folder.relative_to(tmp_path)}" in out


def test_a_killed_run_goes_on_in_place(start, command, tmp_path, whole):
    process = start("train", *OVERRIDES)
    wait_for(lambda: list(tmp_path.glob("outputs/runs/*/checkpoints/last.ckpt")), process)
    process.kill()
    process.wait()
    answer = command("train", f"resume={run_folder(tmp_path)}")
    assert answer.code == 0, answer.out + answer.err
    assert_equal_runs(RunFolder(run_folder(tmp_path)), whole)
    again = command("train", f"resume={run_folder(tmp_path)}")
    assert (again.code, "this run is finished" in again.out) == (0, True)


def test_a_run_that_another_process_works_on_is_left_to_it(start, command, tmp_path):
    process = start("train", *OVERRIDES, "trainer.max_epochs=2000")
    wait_for(lambda: list(tmp_path.glob("outputs/runs/*/checkpoints/last.ckpt")), process)
    answer = command("train", f"resume={run_folder(tmp_path)}")
    assert (answer.code, "another process is working on" in answer.err) == (2, True)


def test_half_a_checkpoint_is_never_there(tmp_path, monkeypatch):
    """Files of over 10 kB cannot be written after step 30: an older checkpoint stays."""
    folder = RunFolder(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    step = training.models.ImageClassifier.training_step

    def limiting(self, *arguments):
        if self.global_step > 30:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        return step(self, *arguments)

    monkeypatch.setattr(training.models.ImageClassifier, "training_step", limiting)
    try:
        # no pictures: the event file is to stay below the limit
        result = training.train(checked(*OVERRIDES, "visual=off"), tmp_path, OVERRIDES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.status, "File too large" in result.error["message"]) == ("failed", True)
    assert folder.read_result() == result
    assert torch.load(folder.last_checkpoint, weights_only=True)["epoch"] == 1
    files = {file.name for file in folder.last_checkpoint.parent.iterdir()}
    assert files == {"best.ckpt", "last.ckpt"}


@pytest.mark.slow
def test_a_run_killed_at_many_moments_ends_with_the_same_bits(start, tmp_path, whole):
    """SIGKILL after a random time, again and again, until the run is done."""
    rng = random.Random(0)
    process = start("train", *OVERRIDES)
    kills = 0
    while process.poll() is None:
        time.sleep(rng.uniform(3, 8))
        if process.poll() is None:
            process.kill()
            process.wait()
            kills += 1
            runs = list(tmp_path.glob("outputs/runs/*"))
            if runs and not (runs[0] / "config.yaml").exists():
                shutil.rmtree(runs[0])
                runs = []
            process = start("train", *([f"resume={runs[0]}"] if runs else OVERRIDES))
    assert kills > 0
    assert_equal_runs(RunFolder(run_folder(tmp_path)), whole)
