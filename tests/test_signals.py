"""Ctrl-C and SIGTERM, wherever a command is: saved, said, and ended within seconds."""

import json
import os
import signal
import textwrap
import time

import pytest

from tests.conftest import PATIENCE_S, TINY, wait_for
from tests.fake_runs import write_runs

LONG = [*TINY[:3], "trainer.threads=1", "trainer.max_epochs=3000"]


def statuses(folder):
    found = [json.loads(file.read_text()) for file in folder.glob("*/result.json")]
    return sorted(result["status"] for result in found)


def end(process, signum, group=False):
    """Send it and wait: exit code, output, and how long it took."""
    begin = time.monotonic()
    (os.killpg if group else os.kill)(process.pid, signum)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert "Traceback" not in err, err
    return process.returncode, out, time.monotonic() - begin


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_stopped_in_its_first_second_can_go_on(start_fresh, tmp_path, signum, code):
    process = start_fresh("train", *LONG)
    wait_for(lambda: list(tmp_path.glob("outputs/runs/*/config.yaml")), process)
    ended, out, seconds = end(process, signum)
    assert (ended, seconds < 60) == (code, True)
    assert statuses(tmp_path / "outputs" / "runs") == ["interrupted"]
    assert "to continue:  python scripts/train.py resume=outputs/runs/" in out


SLOW = """
    import time, pathlib
    from torch import nn

    class Net(nn.Sequential):
        def __init__(self, num_classes):
            super().__init__(nn.Flatten(), nn.Linear(784, num_classes))

        def forward(self, images):
            pathlib.Path("busy").touch()
            end = time.monotonic() + 60
            while time.monotonic() < end:
                time.sleep(0.1)
            return super().forward(images)
"""


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(start, tmp_path):
    """The step that the first one waits for takes a minute."""
    (tmp_path / "slownets.py").write_text(textwrap.dedent(SLOW))
    process = start(
        "train", *LONG[1:], "model=own", "model._target_=slownets.Net", "allow_packages=[slownets]"
    )
    wait_for((tmp_path / "busy").exists, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    code, _, seconds = end(process, signal.SIGINT)
    assert (code, seconds < 30) == (130, True)


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "parent alone"])
def test_joblibs_runs_are_saved(start, tmp_path, group):
    """A terminal sends Ctrl-C to all processes, `kill` to one of them."""
    process = start("train", "-m", "name=two", *LONG, "seed=range(4)", "hydra/launcher=joblib")
    folder = tmp_path / "outputs" / "sweeps" / "two"
    wait_for(lambda: len(list(folder.glob("*/checkpoints/last.ckpt"))) == 2, process)
    ended, out, seconds = end(process, signal.SIGINT if group else signal.SIGTERM, group)
    assert (ended, seconds < 60) == (130 if group else 143, True)
    assert statuses(folder) == ["interrupted", "interrupted"]
    for file in folder.glob("*/result.json"):
        message = json.loads(file.read_text())["error"]["message"]
        assert message.startswith("stopped by SIG")  # saved, and not found dead
    assert "the same command again finishes the rest" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("search", ["search=geometry", *LONG[1:], "search.trials=2"]),
        ("claim", ["location", "data=digits", "data.train_size=null", "jobs=2", *LONG[1:]]),
    ],
)
def test_searches_and_claims_are_stopped_too(start, tmp_path, script, arguments):
    process = start(script, *arguments)
    wait_for(lambda: list(tmp_path.glob("outputs/*/*/*/checkpoints/last.ckpt")), process)
    ended, _, seconds = end(process, signal.SIGTERM)
    assert (ended, seconds < 60) == (143, True)
    (folder,) = (path for path in tmp_path.glob("outputs/*/*") if path.is_dir())
    assert set(statuses(folder)) == {"interrupted"}


def test_a_report_is_stopped_at_once_and_leaves_no_half_file(start, tmp_path):
    folder = tmp_path / "fake"
    folder.mkdir()
    write_runs(folder)
    process = start("report", folder)
    wait_for((folder / "figures").exists, process)
    ended, _, seconds = end(process, signal.SIGTERM)
    assert (ended, seconds < 60) == (143, True)
    assert not [path for path in folder.rglob("*.half")]
    for picture in folder.glob("figures/*.png"):
        assert picture.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_the_handlers_are_put_back_after_a_command(command):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert command("train", *TINY).code == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
