"""Life without what only POSIX has, and on terminals that know few letters."""

import os
import subprocess
import sys

import pytest

from convscape.base import files
from convscape.runs.folder import RunFolder
from tests.test_docs import ROOT

FEW = ["model=mlp", "model.hidden=[4]", "data.train_size=100", "trainer.max_epochs=2"]


def run_without(folder, script, *words):
    """What a script says that lacks what Windows lacks."""
    warn = ["-X", "warn_default_encoding"]
    path = ROOT / "scripts" / f"{script}.py"
    answer = subprocess.run(
        [sys.executable, *warn, str(ROOT / "tests" / "windows.py"), str(path), *map(str, words)],
        cwd=folder, env=os.environ | {"PYTHONUTF8": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A folder with a sweep of two runs."""
    folder = tmp_path_factory.mktemp("windows")
    run_without(folder, "train", "-m", *FEW, "seed=0,1", "name=two")
    return folder


@pytest.mark.long
def test_a_sweep_and_its_report_need_nothing_that_windows_lacks(swept):
    sweep = swept / "outputs" / "sweeps" / "two"
    assert len([*sweep.glob("*/result.json")]) == 2
    (sweep / "report.html").unlink()
    run_without(swept, "report", sweep)
    assert (sweep / "report.html").is_file()


@pytest.mark.long
def test_nor_does_what_a_run_is_put_to_use_for(swept):
    (run, _) = (swept / "outputs" / "sweeps" / "two").glob("mlp_4*")
    assert "confusion matrix" in run_without(swept, "evaluate", run)
    assert RunFolder(run).read_result().checkpoint == "checkpoints/best.ckpt"


@pytest.mark.long
def test_nor_does_a_run_that_goes_on(swept, tmp_path):
    (run, _) = (swept / "outputs" / "sweeps" / "two").glob("mlp_4*")
    folder = RunFolder(run)
    result = folder.read_result()
    result.status = "interrupted"
    folder.write(result)
    assert "test acc" in run_without(swept, "train", f"resume={run}")


@pytest.mark.slow
def test_whole_files_of_tests_pass_without_what_windows_lacks():
    names = ["train", "resume", "sweep", "report", "trained", "explain"]
    files = [f"tests/test_{name}.py" for name in names]
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.windows", *files],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout


def held_by_another(winerror, times):
    """A step that fails as on Windows so many times."""
    left = [times]

    def step():
        if left[0]:
            left[0] -= 1
            error = PermissionError(13, "used by another process")
            error.winerror = winerror
            raise error
        left.append("done")

    return step, left


def test_what_a_virus_scanner_holds_for_a_moment_is_waited_for(tmp_path):
    step, left = held_by_another(winerror=32, times=3)
    files._patiently(tmp_path / "result.json", step)
    assert left == [0, "done"]


@pytest.mark.parametrize(("winerror", "said"), [(32, "result.json is open in"), (None, "used by")])
def test_what_stays_open_is_named_and_other_errors_are_not_waited_for(tmp_path, winerror, said):
    step, left = held_by_another(winerror, times=100)
    with pytest.raises(PermissionError, match=said):
        files._patiently(tmp_path / "result.json", step)
    assert left == [100 - (len(files._PAUSES_S) + 1 if winerror else 1)]


def test_only_files_renames_and_removes():
    words = ("os.replace(", "os.rename(", ".rename(", "rmtree(", ".unlink(", "os.remove(")
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text("utf-8")
        assert path.name == "files.py" or not any(word in text for word in words), path


def test_only_what_goes_to_cuda_is_not_waited_for():
    for path in (ROOT / "src").rglob("*.py"):
        assert path.name == "machine.py" or "non_blocking" not in path.read_text("utf-8"), path


def test_a_worker_without_signals_looks_for_the_file(tmp_path, monkeypatch):
    """The process that trains is told by the one that launched it, in the middle of an epoch."""
    from convscape.base import stopping
    from convscape.runs.resolved import ResolvedRun
    from convscape.training import callbacks
    from convscape.training.run import train
    from tests.test_config import checked

    monkeypatch.setattr(callbacks, "HAS_SIGNALS", False)
    run = ResolvedRun(checked(*FEW, "trainer.steps_per_execution=1", "data.batch_size=10"))
    with stopping.stop_file(tmp_path) as tell_workers:
        tell_workers()
        assert train(run, tmp_path / "run").error["message"] == "stopped by SIGINT"
    assert train(run, tmp_path / "run").status == "ok"
    assert not [*tmp_path.glob(".stopped*")]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_pipe_that_knows_few_letters_gets_others_in_their_place(command, tmp_path, encoding):
    answer = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "plan.py"), "-m", "model.kernel_size=3,30"],
        cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert b"-----" in answer.stdout
    assert b"2 runs, 1 possible" in answer.stdout
