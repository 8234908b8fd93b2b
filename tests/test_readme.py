"""Every command of the README, as it stands; only shortened where it would train for long."""

import re
import shlex
import tomllib

import pytest
from PIL import Image

from tests.conftest import ROOT, TINY

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(line, comments=True) for block in BLOCKS for line in block.splitlines() if line
]
# no test downloads a data set: the digits have MNIST's size
SHORTER = {"data=mnist": "data=digits", "search.trials=20": "search.trials=2"}


def test_every_script_and_every_way_to_choose_is_shown():
    shown = {words[1] for words in COMMANDS if words[0] == "python"}
    assert shown == {f"scripts/{path.name}" for path in (ROOT / "scripts").glob("*.py")}


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[0] not in ("python", "tensorboard")])
def test_commands_of_make_and_pip_name_what_exists(words):
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert words[:4] == ["pip", "install", "-e", words[3]]


def test_the_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert named == set(project["optional-dependencies"]) - {"bench"}  # make bench installs that


def test_the_commands_work_in_their_order(command, tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 30), "gray").save(tmp_path / "pictures" / "one.png")
    for words in COMMANDS:
        if words[0] not in ("python", "tensorboard"):
            continue
        runs = sorted((tmp_path / "outputs" / "runs").glob("*"))
        newest = str(runs[-1].relative_to(tmp_path)) if runs else ""
        words = [SHORTER.get(w, w).replace("outputs/runs/<run>", newest) for w in words]
        if words[0] == "tensorboard":
            assert (tmp_path / words[-1]).is_dir()
            continue
        script, arguments = words[1].removeprefix("scripts/").removesuffix(".py"), words[2:]
        if script in ("train", "search") and not arguments[0].startswith("resume="):
            arguments += TINY[1:]
        if script == "claim" and arguments != ["list"]:
            arguments += ["data=digits", *TINY[1:], "seeds=1", "jobs=1"]
        answer = command(script, *arguments)
        assert answer.code == 0, f"{shlex.join(words)}\n{answer.out}\n{answer.err}"


def test_files_and_folders_of_the_readme_exist():
    tree = README.partition("## What is where")[2].partition("```")[2].partition("```")[0]
    for name in re.findall(r"\b(\w+\.py)\b", tree):
        assert (ROOT / "src" / "convscape" / name).is_file(), name
    for name in re.findall(r"^(\w[\w/]*)/ ", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name
    for name in re.findall(r"\]\((docs/[\w.]+)\)", README):
        assert (ROOT / name).is_file(), name
