"""What goes wrong with numbers: too few bytes for them, and values that are none."""

import re

import pytest
import torch

from convscape.runs.resolved import ResolvedRun
from convscape.training import run as training
from convscape.training.memory import training_bytes
from tests.dying import train_in_little_memory
from tests.test_config import checked
from tests.test_resume import OVERRIDES

# 28x28 pixels in 64 channels, layer after layer: batches of 1,024 take about 1.3 GiB
ROOM = 500 * 2**20
WIDE = ["model.channels=[64,64]", "model.pool=none", "model.padding=same", "visual=off"]
WIDE += ["data.train_size=1024", "data.val_size=50", "data.eval_batch_size=50"]
WIDE += ["trainer.max_epochs=1", "trainer.threads=1", "trainer.progress=off"]
WIDE += ["trainer.precision=fp32", "data.batch_size=1024"]


def test_a_run_out_of_memory_says_what_would_fit_and_the_next_one_works(tmp_path):
    small = [*WIDE[:-1], "data.batch_size=32", "data.train_size=64"]
    (bad, advice), (good, _) = train_in_little_memory([WIDE, small], tmp_path, ROOM)
    assert (bad, good) == ("out_of_memory", "ok"), advice
    words = r"batches of 1,024 take an estimated ([\d,]+) MiB, and ([\d,]+) MiB were free"
    needed, free = (int(text.replace(",", "")) for text in re.search(words, advice).groups())
    assert needed > 1000 > 500 >= free
    fits = int(re.search(r"try data.batch_size=(\d+)", advice)[1])
    assert training_bytes(checked(*WIDE).plan(), fits, in_bf16=False) < ROOM


@pytest.mark.slow
def test_the_batch_size_that_is_said_to_fit_does(tmp_path):
    (_, advice), *_ = train_in_little_memory([WIDE], tmp_path, ROOM)
    fits = re.search(r"data.batch_size=\d+", advice)[0]
    ((status, _),) = train_in_little_memory([[*WIDE[:-1], fits]], tmp_path / "f", ROOM)
    assert status == "ok"


@pytest.mark.parametrize("steps", [1, 5, 50])
def test_the_step_at_which_the_loss_was_lost_is_named_whatever_the_call_holds(
    tmp_path, monkeypatch, steps
):
    """The learning rate explodes at step 30 of 13 an epoch; the best checkpoint is from before."""
    lr = training.models.ImageClassifier.learning_rate
    monkeypatch.setattr(
        training.models.ImageClassifier,
        "learning_rate",
        lambda self, step: 1e30 if step == 29 else lr(self, step),
    )
    overrides = [*OVERRIDES, "optimizer=sgd", "model.batch_norm=false"]
    overrides += [f"trainer.steps_per_execution={steps}"]
    result = training.train(ResolvedRun(checked(*overrides), overrides), tmp_path)
    assert result.status == "diverged"
    assert "the loss is not finite at step 31 (learning rate" in result.error["message"]
    assert result.epochs == 2
    weights = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in weights["state_dict"].values())


def test_weights_that_the_last_step_has_spoiled_are_not_a_result(tmp_path, monkeypatch):
    """The loss of the last step is fine; what it did to the weights shows in the validation."""
    lr = training.models.ImageClassifier.learning_rate
    last = 4 * 13 - 1
    monkeypatch.setattr(
        training.models.ImageClassifier,
        "learning_rate",
        lambda self, step: float("inf") if step == last else lr(self, step),
    )
    result = training.train(ResolvedRun(checked(*OVERRIDES), OVERRIDES), tmp_path)
    assert (result.status, result.epochs) == ("diverged", 3)
    assert "NaN" not in (tmp_path / "result.json").read_text()
