"""Sweeps on a real SLURM and a real Ray, where there is one.

SLURM: a cluster whose `sbatch` works here, with this checkout on a shared folder.
Ray: two nodes are started on this machine by the test.
Run them with: python -m pytest -m "slurm or ray"
"""

import json
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

SWEEP = ["-m", *TINY, "seed=range(4)"]
LONG = ["-m", *TINY[:3], "seed=0,1", "trainer.max_epochs=40", "model.dropout=0.2"]
METRICS = ("val/acc", "val/loss", "test/acc", "test/loss")


@pytest.fixture
def shared(tmp_path):
    """A folder that all nodes see: beside the checkout."""
    folder = ROOT / "outputs" / f"test-{secrets.token_hex(4)}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


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


# --- SLURM ------------------------------------------------------------------------------------

SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2"]
SLURM += ["hydra.launcher.array_parallelism=2", "hydra.launcher.timeout_min=10"]


def slurm(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


@pytest.fixture
def partition():
    """A partition with idle nodes."""
    if shutil.which("sbatch") is None:
        pytest.skip("needs SLURM: there is no sbatch")
    pytest.importorskip("submitit")
    idle = slurm("sinfo", "-h", "-t", "idle", "-o", "%R").split()
    if not idle:
        pytest.skip("needs SLURM: no node is idle")
    return f"hydra.launcher.partition={idle[0]}"


@pytest.mark.slurm
def test_slurm_runs_a_sweep(start, command, shared, partition):
    process = start("train", *SWEEP, *SLURM, partition, "name=slurm", f"output_dir={shared}")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "4 ok" in out
    assert_as_left_alone(command, shared, "slurm", SWEEP)


@pytest.mark.slurm
def test_a_job_that_slurm_kills_goes_on_with_the_same_command(start, command, shared, partition):
    sweep = [*LONG, *SLURM, partition, "name=killed", f"output_dir={shared}"]
    process = start("train", *sweep)
    wait_for(lambda: len(checkpoints(shared, "killed")) == 2, process)
    jobs = slurm("squeue", "-h", "-r", "-o", "%i", "-n", "train").split()
    slurm("scancel", "--signal=KILL", jobs[0])
    assert process.wait(timeout=300) == 1
    assert start("train", *sweep).wait(timeout=300) == 0
    assert_as_left_alone(command, shared, "killed", LONG)


@pytest.mark.slurm
def test_a_preempted_job_saves_itself_and_is_queued_again(start, command, shared, partition):
    sweep = [*LONG, "seed=0", *SLURM, partition, "name=requeued", f"output_dir={shared}"]
    sweep.remove("seed=0,1")
    process = start("train", *sweep)
    wait_for(lambda: checkpoints(shared, "requeued"), process)
    (job,) = slurm("squeue", "-h", "-r", "-o", "%i", "-n", "train").split()
    slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: results(shared, "requeued")[0]["status"] == "interrupted", process)
    assert process.wait(timeout=500) == 0  # SLURM waits two minutes before it starts it again
    assert results(shared, "requeued")[0]["attempts"] == 2
    alone = [*(o for o in LONG if o != "seed=0,1"), "seed=0"]
    assert_as_left_alone(command, shared, "requeued", alone)


def test_an_unreachable_scheduler_is_one_sentence(start, tmp_path):
    pytest.importorskip("submitit")
    empty = tmp_path / "bin"
    empty.mkdir()
    process = start("train", *SWEEP, "name=none", "hydra/launcher=slurm", PATH=str(empty))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert err.startswith("error: hydra/launcher=slurm: ")
    assert "no run was begun" in err


# --- Ray --------------------------------------------------------------------------------------


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
    assert "no run was begun" in done.stderr
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
