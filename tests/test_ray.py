"""Sweeps on a real Ray of two nodes, which the tests start: make test-clusters."""

import os
import pickle
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from convscape.base.errors import ConfigError
from convscape.base.surroundings import Surroundings
from tests.conftest import ROOT, TINY, wait_for
from tests.sweeps_elsewhere import LONG, assert_as_left_alone, checkpoints

SWEEP = ["-m", *TINY, "seed=range(4)"]


@pytest.fixture
def ray_nodes(monkeypatch, tmp_path_factory):
    """The address of a Ray with two nodes, and the process id of the second node's raylet.

    It is started in another folder than the sweeps, as a cluster is.
    """
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray = [str(Path(sys.executable).with_name("ray"))]
    head = ["start", "--head", "--node-ip-address=127.0.0.2", "--port=6399", "--num-cpus=1"]
    before = raylets()
    subprocess.run(
        [*ray, *head, "--include-dashboard=false"], check=True, capture_output=True, cwd=elsewhere
    )
    first = raylets() - before
    second = ["start", "--address=127.0.0.2:6399", "--node-ip-address=127.0.0.3", "--num-cpus=1"]
    subprocess.run([*ray, *second], check=True, capture_output=True, cwd=elsewhere)
    yield "127.0.0.2:6399", (raylets() - before - first).pop()
    subprocess.run([*ray, "stop", "--grace-period=5"], check=False, capture_output=True)
    assert not list(elsewhere.iterdir())  # nothing of a run belongs there


def raylets():
    """Process ids of Ray's node managers."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text().strip() == "raylet":
                found.add(int(folder.name))
        except OSError:
            continue
    return found


def on_ray(address):
    return ["hydra/launcher=ray_cluster", f"hydra.launcher.ray.init.address={address}"]


@pytest.mark.ray
def test_ray_runs_a_sweep_and_a_node_that_dies_loses_nothing(start, command, tmp_path, ray_nodes):
    address, raylet = ray_nodes
    sweep = [*LONG, *on_ray(address), "name=ray"]  # with output_dir and data.root as they are
    folder = tmp_path / "outputs"
    process = start("train", *sweep)
    wait_for(lambda: len(checkpoints(folder, "ray")) == 2, process)
    os.kill(raylet, signal.SIGKILL)
    code = process.wait(timeout=300)
    if code != 0:  # the sweep ended with its node; the same command goes on
        code = start("train", *sweep).wait(timeout=300)
    assert code == 0
    assert_as_left_alone(command, folder, "ray", LONG)


@pytest.mark.ray
def test_a_worker_that_does_not_see_the_folder_says_which_and_where(tmp_path, ray_nodes):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root, for a file system that only the sweep sees")
    unseen = tmp_path / "unseen"
    unseen.mkdir()
    words = [sys.executable, ROOT / "scripts" / "train.py", *SWEEP, *on_ray(ray_nodes[0])]
    line = shlex.join(map(str, [*words, "name=unseen", f"output_dir={unseen}"]))
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"mount -t tmpfs none {unseen} && exec {line}"],
        **{"cwd": tmp_path, "capture_output": True, "text": True, "check": False},
    )
    assert done.returncode == 2, done.stderr
    where = f"the worker on {socket.gethostname()} does not see {unseen}/sweeps/unseen; "
    assert f"error: hydra/launcher=ray_cluster: {where}" in done.stderr
    assert "no run was started" in done.stderr
    assert not list(unseen.iterdir())


# without a cluster: what it does to a sweep


def test_a_task_finds_the_folder_and_the_variables_of_its_command(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir(), there.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("CONVSCAPE_DATA", "images")
    task = pickle.dumps(Surroundings())
    monkeypatch.chdir(there)
    monkeypatch.delenv("CONVSCAPE_DATA")
    with pickle.loads(task).restored():
        assert (Path.cwd(), os.environ["CONVSCAPE_DATA"]) == (here, "images")
    assert (Path.cwd(), "CONVSCAPE_DATA" in os.environ) == (there, False)
    here.rmdir()
    with pytest.raises(ConfigError, match=f"does not see {here}"), pickle.loads(task).restored():
        pass


def test_a_launcher_that_is_not_installed_names_its_extra(command):
    try:
        import hydra_plugins.hydra_ray_launcher  # noqa: F401
    except ImportError:
        answer = command("train", *SWEEP, "hydra/launcher=ray_cluster")
        assert (answer.code, "pip install -e '.[ray]'" in answer.err) == (2, True), answer.err
    else:
        pytest.skip("Ray's launcher is installed")
