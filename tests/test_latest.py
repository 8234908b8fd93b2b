"""`latest` wherever a run or a sweep is named."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from convscape.base.errors import ConfigError
from convscape.runs.latest import named

from .conftest import TINY


def made(path, seconds):
    """A run that began at a time."""
    path.mkdir(parents=True)
    (path / "config.yaml").touch()
    os.utime(path / "config.yaml", (seconds, seconds))
    return path


def test_it_is_the_newest_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(Path("outputs/runs/z-old"), 100)
    new = made(Path("outputs/runs/a-new"), 200)
    made(Path("outputs/sweeps/one/run1"), 400)
    made(Path("outputs/sweeps/two/run1"), 50)
    last = made(Path("outputs/sweeps/two/run2"), 500)
    assert named("latest") == named("outputs/runs/latest") == new
    assert named(Path("outputs/sweeps/latest")) == named("latest", "sweeps") == last.parent
    assert named("outputs/sweeps/two/latest") == last
    assert named("outputs/runs/z-old") == Path("outputs/runs/z-old")
    own = made(Path("outputs/runs/latest"), 1)
    assert named("outputs/runs/latest") == own


def test_without_a_run_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^outputs.runs holds no run, .*; begin one: .*train"):
        named("latest")
    with pytest.raises(ConfigError, match=r"sweeps holds no run, .* -m \.\.\. name=<sweep>$"):
        named("latest", "sweeps")


TAKING = {
    "evaluate": [],
    "predict": ["picture.png"],
    "export": ["--format", "safetensors"],
    "explain": [],
    "probe": ["prune"],
    "compare": ["outputs/runs/latest:seed=1"],
    "report": [],
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("latst", "latest"),
        ("outputs/runs/lastest", "outputs/runs/latest"),
        ("20261127-101010-mlp_digits-abc", "outputs/runs/20261127-101010-mlp_digits-abc"),
        (
            "outputs/run/20261127-101010-mlp_digits-abd",
            "outputs/runs/20261127-101010-mlp_digits-abc",
        ),
        ("kernles", None),
        ("zzz", None),
    ],
)
def test_a_mistyped_run_is_told_what_was_meant(typed, meant, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made(Path("outputs/runs/20261127-101010-mlp_digits-abc"), 1)
    made(Path("outputs/sweeps/kernels/one"), 1)
    with pytest.raises(ConfigError, match=r"^there is no .*; allowed: a folder such as") as caught:
        named(typed)
    found = str(caught.value).partition("; did you mean ")[2]
    assert found == (f"{str(Path(meant))!r}?" if meant else "")
    with pytest.raises(ConfigError, match=r"kernels'\?$"):
        named("kernles", "sweeps")


@pytest.mark.parametrize("script", [*sorted(TAKING), "doctor"])
def test_no_command_waits_for_torch_to_refuse_a_run(script, tmp_path):
    words = [script, "latst", *TAKING.get(script, [])]
    code = f"import sys; from convscape.__main__ import main; sys.argv = {['convscape', *words]}\n"
    code += "try: main()\nfinally: print('torch' in sys.modules)"
    asked = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert asked.returncode == 2
    assert "did you mean 'latest'" in asked.stderr.replace("\n", " ")
    assert asked.stdout.split()[-1] == "False"


def test_every_command_that_takes_a_run_knows_it(command, tmp_path):
    for script, more in TAKING.items():
        answer = command(script, "latest", *more)
        assert answer.code == 2
        assert "holds no run, so there is no latest" in answer.err.replace("\n", " "), script
    assert "holds no run" in command("train", "resume=latest").err
    assert command("train", *TINY, "trainer.max_epochs=1", "visual=off").code == 0
    assert "this run is finished" in command("train", "resume=latest").out
    assert "test" in command("evaluate", "latest").out
    assert command("export", "outputs/runs/latest", "--format", "safetensors").code == 0
    answer = command("explain", "latest")
    assert (answer.code, answer.err) == (0, "")
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert (run / "explain.html").is_file()
    assert (run / "model.safetensors").is_file()
    shutil.copytree(run, tmp_path / "outputs" / "sweeps" / "one" / run.name)
    assert str(Path("outputs/sweeps/one/report.html")) in command("report", "latest").out
