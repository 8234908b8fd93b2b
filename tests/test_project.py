"""`init` lays a project that trains at once, and whose tests pass."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from convscape.base.distribution import folder
from convscape.base.project import lay_project
from convscape.config.directory import VARIABLE
from tests.conftest import TINY


@pytest.fixture
def mylab(command, tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    lay_project(tmp_path / "mylab")
    monkeypatch.chdir(tmp_path / "mylab")
    return tmp_path / "mylab"


def results(path):
    return [json.loads(file.read_text()) for file in path.glob("*/result.json")]


def test_what_is_said_afterwards_is_there_and_hidden_files_too(command, tmp_path):
    answer = command("init", "mylab")
    assert answer.code == 0, answer.err
    for name in (".gitignore", "mypackage.py", "conf/experiment/first.yaml"):
        assert (tmp_path / "mylab" / name).is_file()
        assert f"mylab/{name}" in answer.out.replace(os.sep, "/")
    assert "  cd mylab\n  convscape train experiment=first\n" in answer.out
    assert "  cd 'my lab'\n" in command("init", "my lab").out


def test_its_experiment_and_its_sweep_train(command, mylab):
    answer = command("train", "experiment=first", *TINY)
    assert answer.code == 0, answer.err
    (result,) = results(mylab / "outputs" / "runs")
    assert result["status"] == "ok"
    answer = command("train", "-m", "sweep=first", "visual=off", *TINY)
    assert answer.code == 0, answer.err
    assert len(results(mylab / "outputs" / "sweeps" / "first")) == 8


@pytest.mark.long
def test_its_own_tests_pass(mylab):
    answer = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"],
        cwd=mylab, capture_output=True, text=True,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "6 passed" in answer.stdout


def test_the_loss_of_its_readme_trains(command, mylab):
    lines = (mylab / "README.md").read_text("utf-8").splitlines()
    words = next(line for line in lines if "mypackage.focal" in line).split()
    assert words[:2] == ["convscape", "train"]
    answer = command(*words[1:], *TINY)
    assert answer.code == 0, answer.err
    (result,) = results(mylab / "outputs" / "runs")
    loss = result["config"]["loss"]
    assert (loss["_target_"], loss["gamma"]) == ("mypackage.focal", 1)
    said = re.findall(r"python scripts/(evaluate|explain)\.py (.*)", answer.out)
    assert len(said) == 2
    for verb, rest in said:  # the run is allowed the package again
        again = command(verb, *shlex.split(rest))
        assert again.code == 0, again.err


def test_its_parts_are_used_only_where_the_command_line_says_so(command, mylab):
    answer = command("train", "experiment=mine")
    assert (answer.code, "add allow_packages=[mypackage]" in answer.err) == (2, True), answer.err


def test_a_folder_with_something_in_it_is_left_alone(command, tmp_path):
    (tmp_path / "mylab").mkdir()
    assert command("init", "mylab").code == 0  # an empty one is as good as none
    before = {path: path.read_bytes() for path in (tmp_path / "mylab").glob("*.*")}
    (tmp_path / "a_file").write_text("x")
    for name in ("mylab", "a_file"):
        answer = command("init", name)
        assert (answer.code, f"{name} already exists" in answer.err) == (2, True)
        assert answer.err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / "mylab").glob("*.*")}


def test_a_place_that_cannot_be_written_is_one_sentence(command, as_nobody, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    with as_nobody():
        answer = command("init", "closed/mylab")
    assert (answer.code, "cannot write the folder closed" in answer.err) == (2, True), answer.err
    assert answer.err.count("\n") == 1


def test_its_recipes_are_those_of_its_readme():
    readme = (folder("templates") / "README.md").read_text("utf-8")
    recipes = [*(folder("templates") / "conf").glob("[es]*/*.yaml")]
    assert len(recipes) == 3
    for file in recipes:
        assert f"{file.parent.name}={file.stem}" in readme
