"""What is different on a GPU; `python -m pytest -m gpu` there."""

import csv
import signal

import pytest
import torch

from convscape.models.classifier import ImageClassifier
from convscape.runs.resolved import ResolvedRun
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=needs_gpu)])
def test_no_step_waits_for_the_device(device, tmp_path, monkeypatch):
    take_steps = ImageClassifier.training_step

    def without_waiting(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            take_steps(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(ImageClassifier, "training_step", without_waiting)
    changes = ["data.augment.shift=2", "data.augment.flip=true"]
    result = train(ResolvedRun(checked(*TINY, f"trainer.device={device}", *changes)), tmp_path)
    assert (result.status, result.error) == ("ok", None)
    assert result.environment["device"] == "cuda:0"


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_gpu)])
def test_what_an_epoch_has_counted_is_kept_when_it_is_stopped(device, tmp_path, monkeypatch):
    take_steps = ImageClassifier.training_step

    def stopped_once(self, steps, batch_idx):
        if batch_idx == 4 and self.trainer.current_epoch == 1:
            monkeypatch.setattr(ImageClassifier, "training_step", take_steps)
            signal.raise_signal(signal.SIGTERM)
        take_steps(self, steps, batch_idx)

    overrides = [*TINY, f"trainer.device={device}", "trainer.steps_per_execution=1"]
    config = checked(*overrides, "data.batch_size=32")
    monkeypatch.setattr(ImageClassifier, "training_step", stopped_once)
    assert train(ResolvedRun(config), tmp_path / "stopped").status == "interrupted"
    for name in ("stopped", "whole"):
        assert train(ResolvedRun(config), tmp_path / name).status == "ok"

    def accuracies(name):
        rows = csv.DictReader((tmp_path / name / "history.csv").read_text().splitlines())
        return [float(row["train/acc"]) for row in rows]

    # a GPU adds up in an order of its own
    assert accuracies("stopped") == pytest.approx(accuracies("whole"), abs=0.02)
