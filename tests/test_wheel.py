"""The wheel, made from the sdist, in an empty folder: whatever a checkout can do, without one."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import convscape
from tests.test_docs import ROOT

INSIDE = ("conf", "scripts", "templates")
MANIFEST = [line.split() for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines()]
FOLDERS = [name for command, *names in MANIFEST if command == "graft" for name in names] + ["src"]
FILES = [name for command, *names in MANIFEST if command == "include" for name in names]
FILES += ["MANIFEST.in", "pyproject.toml", "setup.py", "README.md", "LICENSE"]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """A folder with the files of the sdist, made from nothing but what MANIFEST.in names."""
    folder = tmp_path_factory.mktemp("sources")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=folder, check=True, capture_output=True)
    (archive,) = (folder / "dist").glob("convscape-*.tar.gz")
    place = tmp_path_factory.mktemp("sdist")
    with tarfile.open(archive) as file:
        file.extractall(place, filter="data")
    (top,) = place.iterdir()
    return top


@pytest.fixture(scope="module")
def installed(sdist, tmp_path_factory):
    """A folder with the wheel's files."""
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--quiet", "-w", "dist"], cwd=sdist, check=True, capture_output=True)
    (wheel,) = (sdist / "dist").glob("convscape-*.whl")
    place = tmp_path_factory.mktemp("installed")  # not below what looks like a checkout
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def convscape_command(installed, folder, *words):
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, "-m", "convscape", *words],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.long
def test_a_wheel_sweeps_and_explains_in_an_empty_folder(installed, tmp_path):
    words = ["model=mlp", "model.hidden=[4]", "data.train_size=100", "trainer.max_epochs=1"]
    sweep = convscape_command(
        installed, tmp_path, "sweep", *words, "seed=0,1", "visual=off", "name=two"
    )
    assert sweep.returncode == 0, sweep.stderr
    folder = tmp_path / "outputs" / "sweeps" / "two"
    assert (folder / "report.html").is_file()
    (run, _) = folder.glob("mlp_4*")
    answer = convscape_command(installed, tmp_path, "explain", str(run), "0")
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "  train     Train a network\n"),
        (["--version"], 0, convscape.__version__),
        (["trian"], 2, "did you mean 'train'?"),
        (["data=mnist"], 2, "write convscape train data=mnist"),
        (["train", "sweep=geometry"], 2, "convscape train -m sweep=geometry"),
        (["train", "--help"], 0, "convscape train data=mnist model=mlp"),
        (["evaluate", "--help"], 0, "usage: convscape evaluate [-h]"),
        (["kernels", "--help"], 0, "convscape kernels flower --kernel edge_detection"),
        (["plan", "claim=depth"], 2, "convscape claim depth"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_what_it_says_names_the_command_that_was_typed(installed, tmp_path, words, code, said):
    answer = convscape_command(installed, tmp_path, *words)
    assert answer.returncode == code
    assert said in answer.stdout + answer.stderr
    assert "scripts/" not in answer.stdout + answer.stderr


@pytest.mark.long
def test_a_wheel_trains_in_two_processes(installed, tmp_path):
    words = ["model=mlp", "model.hidden=[4]", "data.train_size=100", "trainer.max_epochs=1"]
    words += ["trainer.devices=2", "trainer.device=cpu", "trainer.threads=1"]
    answer = convscape_command(installed, tmp_path, "train", *words)
    assert answer.returncode == 0, answer.stderr
    assert "epoch 1 of 1" in answer.stdout


def test_a_wheel_lays_a_project_and_plans_in_it(installed, tmp_path):
    answer = convscape_command(installed, tmp_path, "init", "mylab")
    assert answer.returncode == 0, answer.stderr
    assert (
        "usage: convscape init [-h]" in convscape_command(installed, tmp_path, "init", "-h").stdout
    )
    answer = convscape_command(installed, tmp_path / "mylab", "plan", "sweep=first")
    assert "8 runs, 8 possible" in answer.stdout, answer.stderr


def test_what_python_says_names_the_command_that_there_is(installed, tmp_path):
    words = "import convscape; convscape.train_sweep('hydra/launcher=joblib', name='x')"
    environment = os.environ | {"PYTHONPATH": str(installed)}
    answer = subprocess.run(
        [sys.executable, "-c", words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "; convscape train -m takes Hydra's launchers" in answer.stderr


def test_every_room_and_every_choice_is_in_the_wheel(installed):
    for top in (*INSIDE, "src/convscape"):
        home = installed / "convscape" / ("" if top.startswith("src") else top)
        for path in (ROOT / top).rglob("*"):
            is_ours = path.suffix in (".py", ".yaml", ".j2", ".typed") or path.name == ".gitignore"
            if path.is_file() and is_ours:
                assert (home / path.relative_to(ROOT / top)).is_file(), path


def test_every_file_of_the_repository_is_in_the_sdist(sdist):
    if not (ROOT / ".git").exists():
        pytest.skip("needs a checkout")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    missing = [name for name in listed.stdout.splitlines() if not (sdist / name).is_file()]
    assert missing == []


@pytest.mark.slow
def test_the_tests_of_the_sdist_pass_in_it_beside_an_installed_package(sdist, installed):
    """All are collected; those run that are quick and read much of what an sdist holds."""
    python = [sys.executable, "-P", "-m", "pytest", "-p", "no:xdist"]
    environment = os.environ | {"PYTHONPATH": f"{installed}{os.pathsep}{sdist}"}
    names = ["architecture", "config", "docs", "plan", "project_files", "runs"]
    chosen = [f"tests/test_{name}.py" for name in names]
    for words in (["--collect-only"], [*chosen, "-k", "not commands_of_a_page"]):
        answer = subprocess.run(
            [*python, *words], cwd=sdist, env=environment, capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stdout
