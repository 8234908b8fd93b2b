"""Runs of a LightningModule of one's own that are stopped anywhere end with the same bits."""

import signal
from collections import Counter

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training import events
from convscape.training import run as training
from tests.dying import KILL, train_apart
from tests.test_config import checked
from tests.test_resume import OVERRIDES as OURS
from tests.test_resume import assert_equal_runs, history, scalars

OWN = [
    "model=own",
    "model._target_=tests.own_modules.Lit",
    "allow_packages=[tests]",
    "data.augment.shift=2",
    "data.batch_size=32",
    "data.eval_batch_size=40",
    "data.train_size=100",
    "data.val_size=100",
    "trainer.max_epochs=3",
    "trainer.threads=1",
    "trainer.progress=off",
]


def points(folder):
    """How often each tag has a point at each step, of any kind: curves, pictures, histograms."""
    return Counter(
        (value.tag, event.step)
        for path in events.event_files(folder.path)
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    )


@pytest.fixture(scope="module")
def whole_own(tmp_path_factory):
    path = tmp_path_factory.mktemp("own")
    assert train_apart(OWN, path) == "ok"
    return RunFolder(path)


def test_what_is_logged_every_other_epoch_stands_in_its_epochs_alone(whole_own):
    rows = history(whole_own)
    assert [bool(row["val/margin"]) for row in rows] == [True, False, True]
    assert all(row["val/acc"] and row["train/loss"] and row["train/acc"] for row in rows)
    assert list(rows[0])[-1] == "train_seconds"


# three epochs of 4 steps and 3 batches of validation
@pytest.mark.parametrize(
    ("moment", "number", "signum"),
    [
        ("begun", 1, KILL),
        ("writing", 5, KILL),
        ("renaming", 6, KILL),
        ("renamed", 7, KILL),
        ("own step", 6, KILL),
        ("own validation", 5, KILL),
        ("epoch", 2, KILL),
        ("saved", 1, KILL),
        ("saved", 2, KILL),
        ("trained", 1, KILL),
        ("own test", 2, KILL),
        ("own step", 2, signal.SIGTERM),
        ("own step", 7, signal.SIGTERM),
        ("own validation", 5, signal.SIGTERM),
    ],
)
def test_a_module_of_ones_own_goes_on_bit_for_bit(tmp_path, whole_own, moment, number, signum):
    status = None if signum == KILL else "interrupted"
    assert train_apart(OWN, tmp_path, moment, number, signum) == status
    assert train_apart(OWN, tmp_path) == "ok"
    folder = RunFolder(tmp_path)
    assert_equal_runs(folder, whole_own)
    assert points(folder)["config/text_summary", 0] == 1


def test_max_steps_end_a_module_of_ones_own_within_an_epoch(tmp_path):
    """What is left of the epoch is its validation."""
    words = [*OWN, "trainer.max_steps=6", "visual=off"]
    result = training.train(ResolvedRun(checked(*words), words), tmp_path)
    assert (result.status, result.global_step, result.epochs) == ("ok", 6, 2)
    assert [bool(row["val/acc"]) for row in history(RunFolder(tmp_path))] == [True, True]


FULL = [*OURS, "visual=full", "trainer.max_epochs=2"]


@pytest.mark.parametrize("moment", ["trained", "pictures", "test"])
def test_no_picture_histogram_or_curve_stands_twice(tmp_path, whole_full, moment):
    number = 3 if moment == "pictures" else 1
    train_apart(FULL, tmp_path, moment, number)
    assert train_apart(FULL, tmp_path) == "ok"
    assert points(RunFolder(tmp_path)) == points(whole_full)


@pytest.fixture(scope="module")
def whole_full(tmp_path_factory):
    path = tmp_path_factory.mktemp("full")
    assert train_apart(FULL, path) == "ok"
    folder = RunFolder(path)
    assert set(points(folder).values()) == {1}
    assert scalars(folder)
    return folder
