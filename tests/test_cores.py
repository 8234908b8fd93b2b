"""What a run takes of a machine's cores, and what it says of those that others take."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

import convscape
from convscape.base import cores, machine
from convscape.base.quick_lightning import pl
from convscape.data import ahead
from tests.conftest import TINY

BUSY = "while True: pass"


@pytest.fixture
def one_core():
    """This process on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield min(before)
    os.sched_setaffinity(0, before)


def test_a_loop_beside_is_told_from_ones_own_work(one_core):
    others = cores.Others()
    with subprocess.Popen([sys.executable, "-c", BUSY]) as beside:  # on the same core
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            pass
        taken, own = others.cores(), time.process_time()
        beside.kill()
    assert own > 0.1  # it worked as well
    assert 0.2 < taken <= 1.1
    assert cores.sentence(taken, 1) == (
        None if taken < 0.5 else f"other processes use {taken:g} of 1 core: training is slower"
    )


def test_what_was_measured_for_an_instant_is_not_told():
    assert cores.Others().cores() is None
    assert cores.sentence(None, 1) is None


@pytest.mark.parametrize(
    ("taken", "num_threads", "is_said"),
    [
        *((1.0, 2, True), (0.4, 2, False)),
        *((1.0, 1, False), (1.6, 1, True)),  # the second core is enough for one thread
        *((0.0, 3, False), (0.5, 3, True)),  # one's own threads too many are not others'
    ],
)
def test_others_are_named_where_they_leave_too_few_cores(taken, num_threads, is_said, monkeypatch):
    monkeypatch.setattr(cores, "_cores_here", lambda: 2)
    words = f"other processes use {taken:g} of 2 cores: training is slower"
    assert cores.sentence(taken, num_threads) == (words if is_said else None)


def test_a_containers_share_is_not_slower_while_the_machine_has_idle_cores(tmp_path, monkeypatch):
    groups("0::/", {"cpu.max": "200000 100000"}, tmp_path, monkeypatch)
    monkeypatch.setattr(cores, "_cores_here", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    num_threads = cores.num_threads(None)
    assert num_threads == 2
    assert cores.sentence(40.0, num_threads) is None
    assert cores.sentence(63.0, num_threads) is not None


def test_threads_are_shared_out_among_processes(monkeypatch):
    monkeypatch.setattr(cores, "available_cores", lambda: 6)
    assert [cores.num_threads(None, n) for n in (1, 2, 4, 8)] == [6, 3, 1, 1]
    assert cores.num_threads(5, 2) == 5


def groups(memberships, files, tmp_path, monkeypatch):
    """Control groups as they are in a container."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    read = cores._text
    monkeypatch.setattr(
        cores, "_text", lambda file: memberships if file.name == "cgroup" else read(file)
    )
    monkeypatch.setattr(cores, "_GROUPS", tmp_path)


@pytest.mark.parametrize(
    ("memberships", "files", "expected"),
    [
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("1:cpu,x:/x", {"cpu/x/cpu.cfs_quota_us": "20000", "cpu/x/cpu.cfs_period_us": "10000"}, 2),
        ("1:cpu:/x", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)  # fmt: skip
def test_a_container_has_its_share_of_the_cores(
    memberships, files, expected, tmp_path, monkeypatch
):
    groups(memberships, files, tmp_path, monkeypatch)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert cores.available_cores() == expected


def test_threads_do_not_spin_for_long_unless_the_user_says_so():
    code = "import os, convscape; print(os.environ.get('GOMP_SPINCOUNT'))"
    found = []
    for given in ({}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"}):
        clean = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", *given)}
        answer = subprocess.run(
            [sys.executable, "-c", code], env=clean | given, capture_output=True, text=True
        )
        found.append(answer.stdout.strip())
    assert found == ["1000", "7", "None"]


def test_a_run_tells_what_others_took(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cores.others, "cores", lambda: 1.6)
    monkeypatch.setattr(cores, "_cores_here", lambda: 2)
    words = [*TINY, "trainer.max_epochs=1", "trainer.progress=lines", f"output_dir={tmp_path}"]
    run = convscape.train(*words)
    assert "other processes use 1.6 of 2 cores: training is slower" in capsys.readouterr().err
    assert run.result.environment["taken_cores"] == 1.6
    assert "1 thread, 1.6 cores used by others) in " in (run.path / "run.log").read_text()


@pytest.fixture
def lightnings_processes(monkeypatch):
    """A trainer that starts as with several processes, but one; the threads of each part."""
    found = {}

    class See(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            found["fit"] = torch.get_num_threads()

        def on_test_epoch_start(self, trainer, pl_module):
            found["test"] = torch.get_num_threads()

    class Trainer(pl.Trainer):
        def __init__(self, callbacks, **arguments):
            super().__init__(callbacks=[*callbacks, See()], strategy="ddp", **arguments)

    monkeypatch.setattr(pl, "Trainer", Trainer)
    with patch.dict(os.environ):
        os.environ.pop("OMP_NUM_THREADS", None)
        yield found
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*sync_dist")
def test_processes_that_train_a_run_keep_its_threads(lightnings_processes, tmp_path):
    asked = 1 if len(os.sched_getaffinity(0)) > 1 else 2  # another number than Lightning's
    run = convscape.train(
        *TINY, "trainer.max_epochs=1", f"trainer.threads={asked}", f"output_dir={tmp_path}"
    )
    assert run.result.environment["threads"] == asked
    assert lightnings_processes == {"fit": asked, "test": asked}


STAT = "anon 5\nactive_file 100\ninactive_file 200"


@pytest.mark.parametrize(
    ("memberships", "files", "limit", "free"),
    [
        ("0::/a/b", {"a/memory.max": "1000000", "a/b/memory.max": "max"}, 1_000_000, 1_000_000),
        (
            "0::/a/b",  # the nearest limit is not the smallest that is left
            {
                **{"a/memory.max": "9000", "a/memory.current": "8800", "a/memory.stat": STAT},
                **{"a/b/memory.max": "8000", "a/b/memory.current": "300"},
            },
            8_000,
            500,
        ),
        ("4:memory:/x", {"memory/x/memory.limit_in_bytes": "2000000"}, 2_000_000, 2_000_000),
        (
            "4:memory:/x/y",
            {
                "memory/x/memory.limit_in_bytes": "2000",
                "memory/x/memory.usage_in_bytes": "1900",
                "memory/x/memory.stat": "active_file 1\n" + STAT.replace("\n", "\ntotal_"),
                "memory/x/y/memory.limit_in_bytes": str(2**63 - 4096),  # none
                "memory/x/y/memory.usage_in_bytes": "7",
            },
            2_000,
            400,
        ),
        ("0::/", {"memory.max": "1000", "memory.current": "1200"}, 1_000, 0),
    ],
)
def test_a_container_has_its_share_of_memory(
    memberships, files, limit, free, tmp_path, monkeypatch
):
    whole = machine.memory_limit(), machine.free_memory("cpu")
    groups(memberships, files, tmp_path, monkeypatch)
    assert (machine.memory_limit(), machine.free_memory("cpu")) == (limit, free)
    assert whole[0] is None or whole[0] > limit
    assert whole[1] > free


@pytest.mark.parametrize("limit", [2**14, 2**30, None])
def test_images_that_do_not_fit_into_memory_are_asked_for_and_no_others(
    limit, tmp_path, monkeypatch
):
    images = np.arange(2**16, dtype=np.uint16).astype(np.uint8).reshape(-1, 1, 32, 32)
    np.save(tmp_path / "train_images.npy", images)
    opened = np.load(tmp_path / "train_images.npy", mmap_mode="c")
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    asks = ahead.reads_ahead(opened)
    maps = Path("/proc/self/smaps").read_text()  # rr: random reads, see man 5 proc_pid_smaps
    own = re.findall(r"train_images\.npy\n(?:(?!\w+-).*\n)*?VmFlags: (.*)", maps)
    assert (asks is not None, "rr" in " ".join(own).split()) == (limit == 2**14,) * 2
    if asks is not None:
        asks.ask([63, 0, 5])
    assert (opened == images).all()
    assert ahead.reads_ahead(images) is None
