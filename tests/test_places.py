"""Folders that cannot be written, or are not what the user meant: a sentence, and a way out."""

import os
import shlex
import shutil
import signal

import pytest
from PIL import Image

from convscape.base.errors import CannotWrite
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.runs.resume import held_to_go_on
from convscape.training.run import train
from tests.conftest import TINY
from tests.dying import at
from tests.fake_runs import write_runs
from tests.test_config import checked

RUN = [*TINY, "trainer.max_epochs=1", "visual=off"]


def test_what_writes_into_a_run_that_is_read_only_says_where_else_it_can(
    command, tmp_path, as_nobody, monkeypatch
):
    monkeypatch.setenv("CONVSCAPE_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "run"
    assert train(ResolvedRun(checked(*RUN), RUN), path).status == "ok"
    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(0o777)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    with as_nobody():
        for words in (["evaluate", path], ["predict", path, "picture.png"]):
            assert command(*words).code == 0
        for words, out in (
            (["explain", path, "3"], "mine/explain.html"),
            (["probe", path, "prune", "--images", "50"], "mine"),
            (["export", path, "--format", "safetensors"], "mine/model.safetensors"),
            (["report", path], "mine"),
        ):
            answer = command(*words)
            assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
            assert f"error: cannot write the folder {path}" in answer.err
            assert "Permission denied; " in answer.err
            assert "choose another place with --out <" in answer.err
            answer = command(*words, "--out", out)
            assert answer.code == 0, answer.err
            assert "mine" in answer.out
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    written = {file.name for file in (tmp_path / "mine").iterdir()}
    assert written >= {"explain.html", "prune.json", "prune.png", "model.safetensors"}
    assert written >= {"report.html", "results.csv", "figures"}


def test_a_run_that_cannot_be_written_goes_on_in_a_copy(command, tmp_path):
    (tmp_path / "file").touch()  # in which nobody can make a folder, root neither
    way_out = "copy it to where you can write, and continue there with resume=<the copy>"
    place = held_to_go_on(RunFolder(tmp_path / "file" / "run"))
    with pytest.raises(CannotWrite, match=f"allow writing there, or {way_out}$"), place:
        pass
    path = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        at("epoch", 1, lambda: os.kill(os.getpid(), signal.SIGTERM), patch.setattr)
        assert train(ResolvedRun(checked(*RUN), RUN), path).status == "interrupted"
    assert command("train", f"resume={shutil.copytree(path, tmp_path / 'copy')}").code == 0


@pytest.mark.parametrize("status", ["diverged", "infeasible"])
@pytest.mark.parametrize("levels", [{}, {"model.stride": [1, 2]}], ids=["one", "swept"])
def test_a_report_without_a_finished_run_says_so(command, tmp_path, status, levels):
    error = {"type": "Diverged", "message": "the loss is not finite"}
    write_runs(tmp_path, seeds=1, levels=levels, status=status, error=error, metrics={})
    answer = command("report", tmp_path)
    assert (answer.code, answer.err) == (0, "")
    assert "No run has finished" in answer.out
    assert status in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("script", ["train", "sweep", "search", "claim"])
@pytest.mark.parametrize(
    ("typed", "meant"), [("$HOME/x", "{home}/x"), ("~/x", "{home}/x"), ("${HOME}", "{home}")]
)
def test_an_output_folder_that_the_shell_has_left_as_it_is_is_refused(
    command, tmp_path, monkeypatch, script, typed, meant
):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    words = {"sweep": ["train", "-m", *RUN, "seed=0,1"], "claim": ["claim", "depth"]}
    words |= {"search": ["search"]}
    words = words.get(script, [script, *RUN])
    if typed.startswith("${") and script != "claim":
        pytest.skip("Hydra reads that as a reference to a key")
    is_read_by_hydra = script != "claim" and typed.startswith("~")  # which wants it in quotes
    answer = command(*words, f"output_dir='{typed}'" if is_read_by_hydra else f"output_dir={typed}")
    assert answer.code == 2
    way_out = f"type output_dir={meant.format(home=home)}"
    assert way_out in answer.err
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["home"]
    assert not list(home.iterdir())
    if (script, typed) == ("train", "$HOME/x"):
        assert command(*words, *shlex.split(way_out.removeprefix("type "))).code == 0
        assert list((home / "x" / "runs").glob("*/events*"))


def test_a_folder_with_a_dollar_in_its_name_keeps_its_events(tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "elsewhere")
    path = tmp_path / "a $WHERE" / "~run"
    assert train(ResolvedRun(checked(*RUN), RUN), path).status == "ok"
    assert list(path.glob("events.out.tfevents.*"))
    assert [each.name for each in tmp_path.iterdir() if each.name != "cache"] == ["a $WHERE"]
