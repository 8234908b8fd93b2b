"""The temperature of a network's confidence."""

import json

import pytest
import torch

from convscape.runs.resolved import ResolvedRun
from convscape.trained.temperature import apply_temperature, fit_temperature
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked


def drawn(count, factor, seed):
    """Labels drawn from the softmax of logits, which are then `factor` times too sure."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return factor * logits, labels


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_how_many_times_too_sure_the_network_is(factor):
    assert fit_temperature(*drawn(20_000, factor, 0)) == pytest.approx(factor, rel=0.05)
    found = apply_temperature(drawn(20_000, factor, 0), drawn(20_000, factor, 1))
    assert found.calibration_error[1] < 0.015
    assert found.log_loss[1] <= found.log_loss[0] + 1e-3
    if factor != 1:
        assert found.calibration_error[0] > 3 * found.calibration_error[1]


def test_it_is_said_and_changes_no_answer(command, tmp_path):
    run = ResolvedRun(checked(*TINY, "visual=off"), TINY)
    assert train(run, tmp_path / "run").status == "ok"
    answer = command("evaluate", tmp_path / "run", "--temperature")
    assert "fitted on 100 validation images: calibration error" in answer.out
    plain = json.loads(command("evaluate", tmp_path / "run", "--json").out)
    found = json.loads(command("evaluate", tmp_path / "run", "--json", "--temperature").out)
    temperature = found.pop("temperature")
    assert plain.pop("temperature") is None
    assert found == plain
    assert temperature["log_loss"][0] == pytest.approx(found["test/loss"], rel=1e-3)
    answer = command("evaluate", tmp_path / "run", "--temperature", "--split", "val")
    assert (answer.code, "allowed: --split test, train" in answer.err) == (2, True)
