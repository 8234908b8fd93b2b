"""Life without what only POSIX has, and on terminals that know few letters."""

import os
import subprocess
import sys

import pytest

from tests.test_docs import ROOT

# what Windows lacks, taken away before anything is imported
WITHOUT = """
import ctypes, os, runpy, signal, sys
sys.modules["resource"] = None
del os.O_NOFOLLOW, os.O_DIRECTORY
os.supports_dir_fd = set()
del os.geteuid
there = signal.SIGUSR1, signal.SIGUSR2
del signal.SIGUSR1, signal.SIGUSR2
from convscape.training.callbacks import SCHEDULERS
assert SCHEDULERS == ()
signal.SIGUSR1, signal.SIGUSR2 = there  # Lightning asks the system's name whether they are there
load = ctypes.CDLL.__init__

def refuse(self, name, *rest, **more):
    if name is None:
        raise TypeError("an integer is required")
    load(self, name, *rest, **more)

ctypes.CDLL.__init__ = refuse
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
FEW = ["model=mlp", "model.hidden=[4]", "data.train_size=100", "trainer.max_epochs=1"]


def run_without(folder, script, *words, **environment):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, str(ROOT / "scripts" / f"{script}.py"), *words],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True,
    )  # fmt: skip


def test_train_sweep_and_evaluate_need_nothing_that_windows_lacks(tmp_path):
    answer = run_without(tmp_path, "train", "-m", *FEW, "seed=0,1", "name=two", PYTHONUTF8="1")
    assert answer.returncode == 0, answer.stderr
    (run, _) = (tmp_path / "outputs" / "sweeps" / "two").glob("mlp_4*")
    answer = run_without(tmp_path, "evaluate", str(run))
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_pipe_that_knows_few_letters_gets_others_in_their_place(command, tmp_path, encoding):
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "plan.py"), "-m", "model.kernel_size=3,30"],
        cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert b"-----" in answer.stdout
    assert b"2 runs, 1 possible" in answer.stdout
