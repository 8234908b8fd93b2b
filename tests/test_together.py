"""Two of a kind at the same time, and clocks that do not behave."""

import gc
import json
import os
import subprocess
import sys

import pytest

from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training import run as training
from tests.conftest import PATIENCE_S, ROOT, TINY, wait_for
from tests.dying import train_apart
from tests.fake_runs import write_runs
from tests.test_config import checked
from tests.test_resume import OVERRIDES, assert_equal_runs


@pytest.mark.slow
def test_of_two_sweeps_with_one_name_the_second_is_told(start, tmp_path):
    """Started at the same moment."""
    both = [start("train", "-m", "name=one", *TINY, f"seed={seeds}") for seeds in ("0,1", "5,6")]
    answers = [process.communicate(timeout=PATIENCE_S) for process in both]
    assert sorted(process.returncode for process in both) == [0, 2], answers
    assert any("name=one is in use by another sweep: seed was" in err for _, err in answers)
    seeds = {json.loads(f.read_text())["seed"] for f in tmp_path.glob("outputs/**/result.json")}
    assert seeds in ({0, 1}, {5, 6})


@pytest.mark.slow
def test_two_reports_at_a_time_leave_one_whole_report(start, tmp_path):
    folder = tmp_path / "fake"
    folder.mkdir()
    write_runs(folder)
    both = [start("report", folder) for _ in range(2)]
    answers = [process.communicate(timeout=PATIENCE_S) for process in both]
    assert [process.returncode for process in both] == [0, 0], answers
    assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    assert not list(folder.rglob("*.half"))


@pytest.mark.slow
def test_a_sweep_can_be_reported_while_it_runs(start, command, tmp_path):
    long = [*TINY[:3], "trainer.threads=1", "trainer.max_epochs=2,3000"]
    process = start("train", "-m", "name=going", *long)
    folder = tmp_path / "outputs" / "sweeps" / "going"
    wait_for(lambda: len(list(folder.glob("*/checkpoints/last.ckpt"))) == 2, process)
    answer = command("report", folder)
    assert answer.code == 0, answer.err
    assert process.poll() is None


@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_was_set_between_two_attempts_changes_nothing(tmp_path, days, whole):
    assert train_apart(OVERRIDES, tmp_path / "set", "epoch", 3) is None
    assert train_apart(OVERRIDES, tmp_path / "set", days=days) == "ok"
    assert_equal_runs(RunFolder(tmp_path / "set"), whole)


def test_a_clock_that_is_set_back_during_a_run_changes_nothing(tmp_path, whole):
    assert train_apart(OVERRIDES, tmp_path / "set", "epoch", 2, signum=None, days=-1) == "ok"
    one = RunFolder(tmp_path / "set")
    assert_equal_runs(one, whole)
    assert all(seconds >= 0 for seconds in one.read_result().seconds.values())


def test_a_run_leaves_no_trainer_behind(tmp_path):
    """It refers to itself, holds the images, and Python seldom looks at what has grown old."""

    def trainers():
        return sum(type(each) is training.pl.Trainer for each in gc.get_objects())

    gc.collect()
    before = trainers()
    assert training.train(ResolvedRun(checked(*OVERRIDES), OVERRIDES), tmp_path).status == "ok"
    assert trainers() == before


MANY = """
import gc, os, sys, threading
from pathlib import Path
import torch
from convscape.training.run import train
from tests.test_config import checked

def state():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tensors = sum(isinstance(o, torch.Tensor) for o in gc.get_objects())
    return pages * 4096, threading.active_count(), len(os.listdir("/proc/self/fd")), tensors

overrides = ["model.channels=[2]", "data.train_size=64", "data.val_size=50", "data.batch_size=32"]
overrides += ["trainer.max_epochs=1", "trainer.threads=1", "trainer.progress=off"]
for number in range(int(sys.argv[1])):
    config = checked(*overrides, f"seed={number}")
    assert train(config, Path("runs") / str(number), overrides).status == "ok"
    if number in (19, int(sys.argv[1]) - 1):
        print(*state())
"""


@pytest.mark.slow
@pytest.mark.parametrize("runs", [int(os.environ.get("MANY_RUNS", "200"))])
def test_many_runs_in_one_process_leave_nothing_behind(tmp_path, runs):
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    answer = subprocess.run(
        [sys.executable, "-c", MANY, str(runs)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    first, last = (list(map(int, line.split())) for line in answer.stdout.splitlines())
    assert last[1:] == first[1:], (first, last)  # threads, files, tensors
    assert (last[0] - first[0]) / runs < 50_000, (first, last)
