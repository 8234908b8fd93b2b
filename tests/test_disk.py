"""A full disk, a read-only one, a folder that is removed: one sentence, and nothing is lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from convscape.base.errors import is_about_the_disk
from convscape.runs.folder import RunFolder
from tests.conftest import PATIENCE_S, TINY
from tests.dying import at, train_apart
from tests.fake_runs import write_runs
from tests.test_resume import assert_equal_runs

RUN = [*TINY, "trainer.max_epochs=3", "visual=off", "trainer.progress=off"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with room for three megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    path = tmp_path / "outputs"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", path]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a file system")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(disk):
    """Leave no room, to the last byte."""
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (2**16, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))


def runs(folder):
    return [path.parent for path in folder.glob("**/config.yaml")]


def is_one_sentence(answer, words):
    lines = answer.err.strip().splitlines()
    return len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]


def test_a_disk_that_is_full_at_the_start_is_a_users_mistake(command, small_disk):
    fill(small_disk)
    answer = command("train", *RUN)
    assert answer.code == 2
    assert is_one_sentence(answer, "No space left on device"), answer.err
    assert not runs(small_disk)
    answer = command("train", "-m", *RUN, "seed=0,1")
    assert (answer.code, is_one_sentence(answer, "No space left on device")) == (2, True)


@pytest.mark.parametrize("moment", ["step", "epoch", "writing", "test"])
def test_a_disk_that_fills_up_interrupts_the_run(
    command, small_disk, tmp_path, monkeypatch, moment
):
    assert train_apart(RUN, tmp_path / "whole") == "ok"  # and the images are prepared
    number = {"step": 2, "epoch": 2, "writing": 8, "test": 1}[moment]
    with monkeypatch.context() as patch:
        at(moment, number, lambda: fill(small_disk), patch.setattr)
        answer = command("train", *RUN)
    assert (answer.code, answer.err) == (1, "")
    assert "No space left on device; free some space" in answer.out
    assert "Traceback" not in answer.out
    (path,) = runs(small_disk)
    assert f"train.py resume={path.relative_to(tmp_path)}" in answer.out
    assert torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] >= 0
    assert not list(path.glob("**/*.half"))
    (small_disk / "ballast").unlink()
    assert command("train", f"resume={path}").code == 0
    assert_equal_runs(RunFolder(path), RunFolder(tmp_path / "whole"))


def test_a_full_disk_stops_a_sweep_at_once(command, small_disk, monkeypatch):
    sweep = ["-m", *RUN, "seed=range(4)", "name=full"]
    with monkeypatch.context() as patch:
        at("epoch", 5, lambda: fill(small_disk), patch.setattr)  # of the second run
        answer = command("train", *sweep)
    assert answer.code == 1
    assert is_one_sentence(answer, "No space left on device"), answer.err
    assert "1 ok, 1 interrupted, 2 not started" in answer.out
    (small_disk / "ballast").unlink()
    assert command("train", *sweep).code == 0


CLAIM = ["depth", "seeds=1", "data=digits", "data.train_size=200", "data.val_size=100"]
CLAIM += ["trainer.max_epochs=1", "visual=off"]


def test_a_full_disk_stops_a_claim_at_once(command, small_disk, monkeypatch):
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    with monkeypatch.context() as patch:
        at("epoch", 2, lambda: fill(small_disk), patch.setattr)  # of the second run
        answer = command("claim", *CLAIM, "jobs=1")
    assert answer.code == 1
    sentence, hint = answer.err.splitlines()
    assert sentence.startswith("error: ")
    assert "No space left on device; free some space" in sentence
    assert hint == "the same command finishes the rest"
    assert len(runs(small_disk)) == 2
    (small_disk / "ballast").unlink()
    assert command("claim", *CLAIM, "jobs=1").code == 0


@pytest.mark.long
def test_a_full_disk_stops_the_workers_of_a_claim(start, small_disk):
    fill(small_disk)
    process = start("claim", *CLAIM, "jobs=2")
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert "No space left on device; free some space" in err.splitlines()[0]
    assert "Traceback" not in err


def test_a_read_only_disk_is_a_users_mistake(command, small_disk):
    path = small_disk / "runs" / "killed"
    assert train_apart(RUN, path, "epoch", 2) is None
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for arguments in (RUN, ["-m", *RUN, "seed=0,1"], [f"resume={path}"]):
        answer = command("train", *arguments)
        assert (answer.code, is_one_sentence(answer, "Read-only file system")) == (2, True), answer


def test_a_report_that_cannot_be_written_leaves_the_one_before(command, small_disk):
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    write_runs(small_disk)
    assert command("report", small_disk).code == 0
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    fill(small_disk)
    answer = command("report", small_disk)
    assert (answer.code, is_one_sentence(answer, "No space left on device")) == (2, True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_data_cache_that_cannot_be_written_is_one_sentence(command, small_disk, monkeypatch):
    fill(small_disk)
    monkeypatch.setenv("CONVSCAPE_CACHE", str(small_disk / "cache"))
    answer = command("train", *RUN)
    assert (answer.code, is_one_sentence(answer, "No space left on device")) == (2, True)
    assert not list(small_disk.glob("cache/*/*"))


def test_a_run_whose_folder_is_removed_says_so(command, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at("saved", 2, lambda: shutil.rmtree(tmp_path / "outputs"), patch.setattr)
        answer = command("train", *RUN)
    assert (answer.code, answer.err) == (1, "")
    assert "was removed during the run" in answer.out
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_goes_on_without_a_run_whose_folder_is_removed(command, tmp_path, monkeypatch):
    folder = tmp_path / "outputs" / "sweeps" / "removed"

    def remove():
        (running,) = (p for p in runs(folder) if RunFolder(p).read_result().status == "running")
        shutil.rmtree(running)

    with monkeypatch.context() as patch:
        at("saved", 2, remove, patch.setattr)
        answer = command("train", "-m", *RUN, "seed=range(3)", "name=removed")
    assert answer.code == 1
    assert "FolderIsGone" in answer.out
    assert "Traceback" not in answer.out + answer.err
    assert "2 ok, 1 not started" in answer.out
    assert command("train", "-m", *RUN, "seed=range(3)", "name=removed").code == 0
    assert {json.loads((p / "result.json").read_text())["status"] for p in runs(folder)} == {"ok"}


@pytest.mark.skipif(sys.platform == "win32", reason="no working folder can be removed there")
def test_a_working_folder_that_goes_away_is_no_fault_of_the_run(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()  # as where a shared file system was unmounted
    with pytest.raises(FileNotFoundError) as unmounted:
        os.getcwd()
    assert is_about_the_disk(unmounted.value)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        gone.stat()
    mistakes = FileNotFoundError("no such file among these"), TimeoutError("no answer")
    sockets = (OSError(code, "no answer") for code in (errno.ENOTCONN, errno.ETIMEDOUT))
    for error in (missing.value, *mistakes, *sockets):
        assert not is_about_the_disk(error)
    assert is_about_the_disk(OSError(errno.ENOTCONN, "no answer", "/mnt/shared"))
