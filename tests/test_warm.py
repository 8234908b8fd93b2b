"""The processes that `start` forks behave as those of an interpreter of their own."""

import signal

import pytest

from tests.conftest import PATIENCE_S


@pytest.mark.parametrize("arguments", [["model.kernel_size=5"], ["model.kernal_size=5"]])
def test_a_forked_script_says_and_returns_what_a_fresh_one_does(start, start_fresh, arguments):
    forked, fresh = (run("plan", *arguments) for run in (start, start_fresh))
    assert forked.communicate(PATIENCE_S) == fresh.communicate(PATIENCE_S)
    assert forked.returncode == fresh.returncode


def test_a_forked_script_that_is_killed_says_by_what(start):
    process = start("plan", "seed=range(2500)", "model.stride=1,2")
    process.kill()
    assert process.wait(PATIENCE_S) == -signal.SIGKILL
