"""Runs that are stopped anywhere end with the same bits as those that were left alone."""

import csv
import hashlib
import json
import random
import signal
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training import run as training
from tests.conftest import PATIENCE_S, needs_signals, wait_for
from tests.dying import MOMENTS, train_apart
from tests.test_config import checked

# dropout, batch norm, augmentation, bf16, a schedule and an average: all that has a state or draws
OVERRIDES = [
    "model.channels=[4,4]",
    "model.dropout=0.2",
    "model.batch_norm=true",
    "data.augment.shift=2",
    "data.augment.rand_augment=9",
    "data.augment.random_erasing=0.3",
    "data.augment.mixup=0.4",
    "data.augment.cutmix=1",
    "data.batch_size=16",
    "data.eval_batch_size=40",
    "data.train_size=200",
    "data.val_size=100",
    "scheduler=one_cycle",
    "trainer.max_epochs=4",
    "trainer.threads=1",
    "trainer.steps_per_execution=2",
    "trainer.progress=off",
    "trainer.precision=bf16",
    "trainer.ema=0.9",
    "trainer.test_flip=true",
]
# and what a run that continues another one says about it
TIMES = ("seconds", "samples_per_second", "peak_memory_bytes", "environment", "attempts", "parent")


def bits(checkpoint):
    """All that a checkpoint holds of weights, their average and the optimiser, by name."""
    loaded = torch.load(checkpoint, weights_only=True)
    found = dict(loaded["state_dict"])
    average = loaded["callbacks"].get("WeightAverage", {"other": {}})
    found |= {f"other.{name}": tensor for name, tensor in average["other"].items()}
    for number, state in loaded["optimizer_states"][0]["state"].items():
        found |= {f"{number}.{key}": value for key, value in state.items()}
    return found


def scalars(folder):
    """What TensorBoard shows: step and value of each point, the speed aside."""
    events = EventAccumulator(str(folder.path), {"scalars": 0})
    events.Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag != "samples_per_second"
    }


def last_pictures(folder):
    """The last picture of each tag; how many came before it is a matter of time."""
    events = EventAccumulator(str(folder.path), {"images": 0})
    events.Reload()
    drawn = {tag: events.Images(tag)[-1] for tag in events.Tags()["images"]}
    return {
        tag: (picture.step, hashlib.sha256(picture.encoded_image_string).hexdigest())
        for tag, picture in drawn.items()
    }


def result_but_for_times(folder):
    result = json.loads(folder.result_file.read_text())
    return {key: value for key, value in result.items() if key not in TIMES}


def history(folder):
    with folder.history_file.open() as file:
        return [{**row, "train_seconds": ""} for row in csv.DictReader(file)]


def answers(folder):
    """Image by image, as bytes."""
    return folder.predictions_file.read_bytes() if folder.predictions_file.is_file() else None


def files(folder):
    """Names of all files but event files, of which each attempt has its own."""
    names = {path.name for path in folder.path.rglob("*") if path.is_file()}
    return {name for name in names if not name.startswith(("events.", ".lock"))}


def differences(one, other):
    """What two runs do not share bit for bit, times aside: weights, optimiser, numbers, curves."""
    found = []
    for name in ("last_checkpoint", "best_checkpoint"):
        ours, theirs = bits(getattr(one, name)), bits(getattr(other, name))
        found += [f"{name} {key}" for key in ours.keys() ^ theirs.keys()]
        both = ours.keys() & theirs.keys()
        found += [f"{name} {key}" for key in both if not torch.equal(ours[key], theirs[key])]
    for look in (result_but_for_times, history, answers, scalars, last_pictures, files):
        ours, theirs = look(one), look(other)
        if ours != theirs:
            found.append(f"{look.__name__}: {ours} instead of {theirs}")
    return found


def assert_equal_runs(one, other):
    """Bit for bit the same, times aside."""
    assert not differences(one, other)


# four epochs of 13 steps, 7 calls, 3 batches of validation; seven files per pair of epochs
@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("begun", 1),
        ("writing", 5),  # the first best.ckpt
        ("renaming", 4),
        ("renamed", 5),
        ("step", 10),
        ("validation", 4),
        ("points", 2),
        ("epoch", 4),
        ("trained", 1),
        ("test", 2),
    ],
)
def test_a_run_killed_at_any_moment_ends_with_the_same_bits(tmp_path, whole, moment, number):
    assert train_apart(OVERRIDES, tmp_path, moment, number) is None
    assert train_apart(OVERRIDES, tmp_path) == "ok"
    assert_equal_runs(RunFolder(tmp_path), whole)


@pytest.mark.slow
def test_a_run_killed_at_fifty_random_moments_ends_with_the_same_bits(tmp_path, whole):
    """At random times, and at random calls of all that is special, until each run is done."""
    rng = random.Random(0)
    kills = runs = 0
    while kills < 50:
        path = tmp_path / str(runs)
        runs += 1
        for _ in range(12):
            if rng.random() < 0.3:
                ending = train_apart(OVERRIDES, path, after_s=rng.uniform(0, 3))
            else:
                moment = rng.choice([name for name in MOMENTS if name != "report"])
                ending = train_apart(OVERRIDES, path, moment, rng.randint(1, 9))
            if ending is not None:
                break
            kills += 1
        assert ending == "ok" or train_apart(OVERRIDES, path) == "ok"
        assert_equal_runs(RunFolder(path), whole)


@pytest.mark.long
@pytest.mark.parametrize(("moment", "number"), [("trained", 1), ("pictures", 3), ("test", 1)])
def test_what_is_drawn_at_the_end_is_drawn_by_a_run_that_only_had_this_left(
    tmp_path, moment, number
):
    overrides = [*OVERRIDES, "trainer.max_epochs=3", "visual=full"]
    for name in ("whole", "killed"):
        if name == "killed":
            assert train_apart(overrides, tmp_path / name, moment, number) is None
        assert train_apart(overrides, tmp_path / name) == "ok"
    assert_equal_runs(RunFolder(tmp_path / "killed"), RunFolder(tmp_path / "whole"))
    assert (tmp_path / "whole" / "projector_config.pbtxt").is_file()


def test_a_run_that_stopped_early_goes_on_to_its_test_and_no_further(tmp_path):
    overrides = [*OVERRIDES, "trainer.max_epochs=9", "trainer.early_stopping=1"]
    overrides += ["optimizer.lr=1e-12", "model.batch_norm=false"]
    assert train_apart(overrides, tmp_path / "whole") == "ok"
    assert train_apart(overrides, tmp_path / "killed", "test", 1) is None
    assert train_apart(overrides, tmp_path / "killed") == "ok"
    assert RunFolder(tmp_path / "whole").read_result().epochs == 2
    assert_equal_runs(RunFolder(tmp_path / "killed"), RunFolder(tmp_path / "whole"))


@pytest.mark.parametrize("number", [1, 4, 6])
def test_a_signal_in_the_validation_keeps_the_epoch(tmp_path, whole, number):
    """It has three batches; what was trained is saved, and validated again."""
    status = train_apart(OVERRIDES, tmp_path, "validation", number, signal.SIGTERM)
    assert status == "interrupted"
    epoch = (number + 2) // 3
    steps = torch.load(RunFolder(tmp_path).last_checkpoint, weights_only=True)["global_step"]
    assert steps == 13 * epoch
    assert train_apart(OVERRIDES, tmp_path) == "ok"
    assert_equal_runs(RunFolder(tmp_path), whole)


@pytest.mark.parametrize("moment", ["data", "saved", "pictures", "trained", "test"])
def test_a_signal_elsewhere_loses_nothing(tmp_path, whole, moment):
    assert train_apart(OVERRIDES, tmp_path, moment, 1, signal.SIGTERM) == "interrupted"
    assert RunFolder(tmp_path).read_result().error["message"] == "stopped by SIGTERM"
    assert train_apart(OVERRIDES, tmp_path) == "ok"
    assert_equal_runs(RunFolder(tmp_path), whole)


def stop_at(monkeypatch, call):
    """Let a signal arrive in the `call`-th training_step."""
    step = training.models.ImageClassifier.training_step
    calls = []

    def stopping(self, *arguments):
        calls.append(None)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(training.models.ImageClassifier, "training_step", stopping)


@pytest.mark.parametrize("call", [1, 5, 7, 8, 20, 28])
def test_a_run_stopped_by_ctrl_c_goes_on_bit_for_bit(tmp_path, monkeypatch, whole, call):
    """An epoch has 13 steps, 7 calls: the middle, its end, its beginning and the last one."""
    folder = RunFolder(tmp_path)
    with monkeypatch.context() as patch:
        stop_at(patch, call)
        result = training.train(ResolvedRun(checked(*OVERRIDES), OVERRIDES), tmp_path)
    assert result.status == "interrupted"
    assert folder.read_result().status == "interrupted"
    assert training.train(ResolvedRun(checked(*OVERRIDES), OVERRIDES), tmp_path).status == "ok"
    assert_equal_runs(folder, whole)


def test_the_signal_handlers_are_put_back(tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(monkeypatch, 3)
    training.train(ResolvedRun(checked(*OVERRIDES), OVERRIDES), tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def run_folder(tmp_path):
    return next((tmp_path / "outputs" / "runs").iterdir())


@needs_signals
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_command_with_a_checkpoint_and_the_way_on(
    start, command, tmp_path, signum, code
):
    process = start("train", *OVERRIDES, "trainer.max_epochs=2000")
    wait_for(lambda: list(tmp_path.glob("outputs/runs/*/checkpoints/last.ckpt")), process)
    process.send_signal(signum)
    begin = time.monotonic()
    out, err = process.communicate(timeout=PATIENCE_S)
    assert time.monotonic() - begin < 60
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
    resource = pytest.importorskip("resource", reason="Windows has none")
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
        result = training.train(ResolvedRun(checked(*OVERRIDES, "visual=off"), OVERRIDES), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (result.status, result.error["type"]) == ("interrupted", "CannotWrite")
    assert "File too large" in result.error["message"]
    assert folder.read_result() == result
    assert torch.load(folder.last_checkpoint, weights_only=True)["epoch"] == 1
    files = {file.name for file in folder.last_checkpoint.parent.iterdir()}
    assert files == {"best.ckpt", "last.ckpt"}
