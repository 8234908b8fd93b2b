"""Sweeps on a real SLURM of two nodes, which the tests start: make test-clusters."""

import importlib
import itertools
import os
import pickle
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
from hydra.core.config_store import ConfigStore

from convscape.sweeps import slurm as slurm_commands
from convscape.sweeps.jobs import array_sizes
from convscape.sweeps.shared_runs import Limit, SharedRuns
from tests.conftest import TINY, wait_for
from tests.slurm_cluster import MAX_ARRAY_SIZE, folder_of, running_slurm, what_is_missing
from tests.sweeps_elsewhere import LONG, assert_as_left_alone, checkpoints, results

SWEEP = ["-m", *TINY, "seed=range(8)"]
SLURM = ["hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=1"]
SLURM += ["hydra.launcher.array_parallelism=2", "hydra.launcher.timeout_min=10"]
SLURM += ["hydra.launcher.partition=debug"]


@pytest.fixture(scope="module")
def _cluster(tmp_path_factory):
    pytest.importorskip("submitit")
    if missing := what_is_missing():
        pytest.skip(f"needs {missing}")
    with running_slurm(folder_of(tmp_path_factory)) as environment:
        yield environment["SLURM_CONF"]


@pytest.fixture
def cluster(_cluster, monkeypatch):
    """Its commands are those of a SLURM of our own; no job of another test is in its queue."""
    monkeypatch.setenv("SLURM_CONF", _cluster)
    yield
    slurm("scancel", "--user=root", "--signal=KILL", "--full")
    slurm("scancel", "--user=root")


def slurm(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def jobs(state="R,PD"):
    return slurm("squeue", "-h", "-r", "-t", state, "-o", "%i").split()


@pytest.mark.slurm
def test_few_jobs_take_all_runs_and_those_that_would_find_none_leave_the_queue(
    start, command, tmp_path, cluster
):
    sweep = [*SWEEP, *SLURM, "name=slurm", f"output_dir={tmp_path}"]
    out, err = start("train", *sweep).communicate(timeout=300)
    assert "8 ok" in out, err
    assert "8 runs for 8 jobs, 2 at a time" in out
    assert "scancel" in out
    jobs_folder = tmp_path / "sweeps" / ".submitit"
    assert 2 <= len(list(jobs_folder.glob("*_*/*_log.out"))) <= 4  # the others never ran
    assert all(file.stat().st_size < 2000 for file in jobs_folder.glob("*_*/*_submitted.pkl"))
    assert_as_left_alone(command, tmp_path, "slurm", SWEEP)


@pytest.mark.slurm
def test_more_jobs_than_an_array_may_have_are_several_arrays(start, tmp_path, cluster):
    one_each = "hydra.launcher.runs_per_job=1"
    sweep = [*SWEEP, *SLURM, one_each, "name=pieces", f"output_dir={tmp_path}"]
    out, err = start("train", *sweep).communicate(timeout=300)
    assert "8 ok" in out, err
    assert err == ""
    first, second = (tmp_path / "sweeps" / ".submitit").glob("*/*_submission.sh")
    assert {"--array=0-4%2", "--array=0-2%2"} == {
        line.split()[1]
        for file in (first, second)
        for line in file.read_text().splitlines()
        if "--array=" in line
    }
    assert MAX_ARRAY_SIZE == 5


@pytest.mark.slurm
def test_a_job_that_is_lost_ends_nothing_else_and_the_same_command_goes_on(
    start, command, tmp_path, cluster
):
    sweep = [*LONG, *SLURM, "hydra.launcher.runs_per_job=1", "name=lost", f"output_dir={tmp_path}"]
    process = start("train", *sweep)
    wait_for(lambda: len(checkpoints(tmp_path, "lost")) == 2, process)
    lost = jobs("R")[0]
    slurm("scancel", "--signal=KILL", lost)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "1 ok" in out
    assert "1 interrupted" in out
    assert f"hydra/launcher=slurm: SLURM ended job {lost} (" in err
    out, err = start("train", *sweep).communicate(timeout=300)
    assert "2 ok" in out, err
    assert_as_left_alone(command, tmp_path, "lost", LONG)


@pytest.mark.slurm
def test_jobs_outlive_their_command_and_the_same_command_waits_for_them(
    start, command, tmp_path, cluster
):
    sweep = [*LONG, *SLURM, "seed=0,1,2,3", "name=again", f"output_dir={tmp_path}"]
    sweep.remove("seed=0,1")
    first = start("train", *sweep)
    wait_for(lambda: len(checkpoints(tmp_path, "again")) == 2, first)
    os.kill(first.pid, signal.SIGINT)
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 130
    (array,) = {job.partition("_")[0] for job in jobs()}
    assert f"SLURM job {array}: not ended; the same command waits" in out
    assert "2 in other processes, 2 not started" in out
    out, err = start("train", *sweep).communicate(timeout=300)
    assert "2 to do, 2 in other processes" in out
    assert f"SLURM job {array}: 2 runs from an earlier command" in out
    assert "4 ok" in out, err
    alone = [*(word for word in LONG if word != "seed=0,1"), "seed=0,1,2,3"]
    assert_as_left_alone(command, tmp_path, "again", alone)
    assert {result["attempts"] for result in results(tmp_path, "again").values()} == {1}


@pytest.mark.slurm
def test_ctrl_c_ends_the_jobs_too_where_that_was_asked_for(start, tmp_path, cluster):
    sweep = [*LONG, *SLURM, "hydra.launcher.cancel=true", "name=ended", f"output_dir={tmp_path}"]
    process = start("train", *sweep, "trainer.max_epochs=4000")
    wait_for(lambda: len(checkpoints(tmp_path, "ended")) == 2, process)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert "telling the runs to save and end" in out
    deadline = time.monotonic() + 60
    while jobs("R,PD,CG"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert {r["status"] for r in results(tmp_path, "ended").values()} == {"interrupted"}


@pytest.mark.slurm
def test_a_job_whose_time_is_up_or_that_is_preempted_is_queued_again(
    start, command, tmp_path, cluster
):
    one_each = "hydra.launcher.runs_per_job=1"
    process = start("train", *LONG, *SLURM, one_each, "name=requeued", f"output_dir={tmp_path}")
    wait_for(lambda: len(checkpoints(tmp_path, "requeued")) == 2, process)

    def is_interrupted(seed):
        return results(tmp_path, "requeued")[seed]["status"] == "interrupted"

    taken = sorted((tmp_path / "sweeps" / ".submitit").glob("runs-*/taken-*"))
    late, preempted = (path.read_text() for path in taken)
    slurm("scancel", "--signal=USR2", late)
    wait_for(lambda: is_interrupted(0), process)
    node = slurm("squeue", "-h", "-j", preempted, "-o", "%N").strip()
    urgent = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null"]
    slurm("sbatch", *urgent, "--wrap=sleep 5")
    wait_for(lambda: is_interrupted(1), process)
    assert process.wait(timeout=500) == 0  # SLURM waits two minutes before it starts them again
    assert {r["attempts"] for r in results(tmp_path, "requeued").values()} == {2}
    assert_as_left_alone(command, tmp_path, "requeued", LONG)


# without a cluster


def test_an_unreachable_scheduler_is_one_sentence(start, tmp_path):
    pytest.importorskip("submitit")
    empty = tmp_path / "bin"
    empty.mkdir()
    process = start("train", *SWEEP, "name=none", "hydra/launcher=slurm", PATH=str(empty))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert err.startswith("error: hydra/launcher=slurm: there is no squeue here; ")
    assert "no run was started" in err


@pytest.mark.parametrize("value", ["runs_per_job=0", "runs_per_job=few", "minutes_per_job=-1"])
def test_a_job_that_takes_no_runs_is_refused(command, value):
    pytest.importorskip("submitit")
    answer = command("train", *SWEEP, *SLURM, f"hydra.launcher.{value}", "name=none")
    assert answer.code == 2
    assert f"error: hydra/launcher=slurm: hydra.launcher.{value}: allowed: " in answer.err
    assert " or more" in answer.err


def test_the_config_of_the_launcher_outlives_a_second_import_as_a_job_makes_it():
    pytest.importorskip("submitit")
    module = importlib.import_module("hydra_plugins.convscape_slurm")
    node = ConfigStore.instance().load("hydra/launcher/convscape_slurm.yaml").node
    importlib.reload(module)
    assert pickle.loads(pickle.dumps(node)) == node


def test_runs_are_taken_once_each_and_a_job_that_is_requeued_goes_on_with_its_own(tmp_path):
    shared = SharedRuns(tmp_path / "runs-1")
    shared.write([[f"seed={seed}"] for seed in range(5)])
    one, two = (SharedRuns(shared.folder).take(job, Limit(None, 10)) for job in ("7_0", "7_1"))
    assert [next(one)[0], next(two)[0], next(one)[0]] == [0, 1, 2]
    again = shared.take("7_0", Limit(None, 10))
    assert [number for number, _ in again] == [0, 2, 3, 4]
    assert shared.are_all_taken()
    assert shared.taken() == {0: "7_0", 1: "7_1", 2: "7_0", 3: "7_0", 4: "7_0"}


@pytest.mark.parametrize(
    ("limit", "num_taken"), [(Limit(2, 0), 2), (Limit(None, 1), 3), (Limit(None, 0), 1)]
)
def test_a_job_takes_runs_until_it_has_its_number_or_its_age(tmp_path, limit, num_taken):
    shared = SharedRuns(tmp_path / "runs-1")
    shared.write([[f"seed={seed}"] for seed in range(9)])
    times = iter(range(0, 900, 25))  # a run of 25 seconds
    taken = shared.take("7_0", limit, clock=lambda: next(times))
    assert len(list(taken)) == num_taken


def test_slurm_is_asked_rarely_but_at_once_when_a_job_has_left_its_answer(monkeypatch):
    now, asked = 0.0, []

    def sleep(seconds):
        nonlocal now
        now += seconds

    def jobs_of_user():
        asked.append(now)
        return {"7_0": "RUNNING"} if now < 203 else {}

    monkeypatch.setattr(slurm_commands, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(slurm_commands, "jobs_of_user", jobs_of_user)
    list(slurm_commands.looks(["7"], lambda job: now >= 200))
    assert len([when for when in asked if when < 200]) < 25
    assert max(after - before for before, after in itertools.pairwise(asked)) <= 15
    assert [when for when in asked if when >= 200] == pytest.approx(
        [200.5, 201.5, 202.7, 204], abs=1
    )


def test_jobs_are_as_many_arrays_as_it_takes():
    assert array_sizes(1100, None, 1001) == [1001, 99]
    assert array_sizes(1100, 10, 1001) == [110]
    assert array_sizes(1, 10, 1001) == [1]
