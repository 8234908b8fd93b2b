"""What tests of sweeps on a cluster look at: the run folders, beside those of one process."""

import json

import pytest

from tests.conftest import TINY

LONG = ["-m", *TINY[:3], "seed=0,1", "trainer.max_epochs=40", "model.dropout=0.2"]
METRICS = ("val/acc", "val/loss", "test/acc", "test/loss")


def results(folder, name):
    found = [json.loads(f.read_text()) for f in (folder / "sweeps" / name).glob("*/result.json")]
    return {result["seed"]: result for result in found}


def checkpoints(folder, name):
    return list((folder / "sweeps" / name).glob("*/checkpoints/last.ckpt"))


def assert_as_left_alone(command, folder, name, sweep):
    """Every run is ok and has the metrics of a sweep in one process."""
    assert command("train", *sweep, "name=alone", f"output_dir={folder}").code == 0
    found, alone = results(folder, name), results(folder, "alone")
    assert found.keys() == alone.keys()
    for seed, result in found.items():
        assert result["status"] == "ok", result["error"]
        for metric in METRICS:
            assert result["metrics"][metric] == pytest.approx(alone[seed]["metrics"][metric])
