"""run.log reads as the diary of the run."""

import os
import re
import signal
import warnings

import pytest
from PIL import Image

from convscape.runs.resolved import ResolvedRun
from convscape.training import run as training
from tests.conftest import TINY
from tests.test_config import checked

WORDS = [*TINY, "seed=3", "trainer.progress=off"]


@pytest.fixture(scope="module")
def diary(tmp_path_factory):
    """Of a run that is stopped in its second epoch, in which each step warns, and goes on."""
    path = tmp_path_factory.mktemp("run")
    step = training.models.ImageClassifier.training_step
    calls = []

    def warning(self, *arguments):
        calls.append(None)
        if self.trainer.current_epoch == 1 and "SIGTERM" not in (path / "run.log").read_text():
            os.kill(os.getpid(), signal.SIGTERM)
        warnings.warn("it is\nwarm in here", stacklevel=1)
        return step(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("always")
        patch.setattr(training.models.ImageClassifier, "training_step", warning)
        words = [*WORDS, "trainer.steps_per_execution=1"]
        for status in ("interrupted", "ok"):
            assert training.train(ResolvedRun(checked(*words), words), path).status == status
    assert len(calls) > 4
    return (path / "run.log").read_text()


def test_each_entry_begins_with_its_time(diary):
    lines = diary.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  \S", line) for line in lines)


def test_it_tells_the_pictures_of_each_class_and_what_was_left_out(tmp_path):
    for number in range(12):
        folder = tmp_path / "photos" / ("cat" if number % 3 else "owl\nbarn")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 20 * number).save(folder / f"{number}.png")
    (tmp_path / "photos" / "cat" / "13.heic").touch()
    for litter in ("__MACOSX/cat", ".ipynb_checkpoints", "cat/@eaDir"):
        (tmp_path / "photos" / litter).mkdir(parents=True)
    data = [
        "data=image_folder",
        "model=mlp",
        f"data.root={tmp_path / 'photos'}",
        "data.image_size=8",
        "data.val_size=3",
    ]
    words = [*data, "trainer.max_epochs=1", "visual=off", "logger=[]"]
    path = tmp_path / "run"
    assert training.train(ResolvedRun(checked(*words), words), path).status == "ok"
    entries = [line[21:] for line in (path / "run.log").read_text().splitlines()]
    assert r"pictures: 12; 2 classes (cat 8, owl\nbarn 4)" in entries
    (left_out,) = (entry for entry in entries if entry.startswith("left out: "))
    for what in ("1 .heic", "'__MACOSX'", "'.ipynb_checkpoints'", "'@eaDir'"):
        assert what in left_out


def test_it_tells_the_run_from_beginning_to_end(diary):
    entries = [line[21:] for line in diary.splitlines()]
    beginnings = [
        *("run cnn_", "typed: model.channels=[4] ", "data: digits, checksum ", "10 classes: 0, 1"),
        *("network: ", "on cpu (", "warning: it is warm in here (UserWarning, test_diary.py"),
        *("epoch 1/2  train/loss", "interrupted after epoch 1: stopped by SIGTERM"),
        *("going on with run cnn_", "typed: ", "data: ", "10 classes: ", "network: ", "on cpu ("),
        *("warning: it is warm", "epoch 2/2  train/loss", "ok: test acc "),
    ]
    assert [e[: len(b)] for e, b in zip(entries, beginnings, strict=True)] == beginnings
    assert "300 train, 100 val, 359 test images of 1x28x28" in entries[2]
