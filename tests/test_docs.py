"""Every command, code block, link and number of README.md and docs/, as it stands there.

Commands that would train for long are shortened, and all pages share one folder: what a page says
about `outputs/runs/<run>` is tried on the run before.
"""

import importlib.util
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convscape.geometry.window import parse_size
from tests.conftest import ROOT, TINY
from tests.dying import train_apart

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in PAGES}
EVERYTHING = "\n".join(TEXTS.values())
SCRIPTS = ROOT / "scripts"
MAX_WORDS_OF_README = 1100  # a first visit, not a manual
IS_FILE = re.compile(r"# ([\w/]+\.(?:py|yaml))\n")  # what a block that is one begins with

# no test downloads a data set: the digits have MNIST's size
SHORTER = {"data=mnist": "data=digits", "search.trials=20": "search.trials=2"}
SHORTER |= {"seeds=3..12": "seeds=2..2", "margin=1": "margin=99"}
SHORTER |= {"<image>": "17", "seed=range(3)": "seed=range(2)", "seed=range(6)": "seed=range(3)"}
ELSEWHERE = (
    "hydra/launcher=slurm",
    "hydra/launcher=ray_cluster",
    "mode=online",
    "tracking_uri=",
    "download=false",
)


def blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text):
    lines = [line for block in blocks(text, "bash") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines if not line.startswith("#")]


def is_refused(words):
    """Whether the page says that the command is an example of a mistake."""
    lines = [line for line in EVERYTHING.splitlines() if line.endswith("# refused")]
    return words in [shlex.split(line, comments=True) for line in lines]


def of_python(words):
    """Whether it is a script of ours, and one that a single machine without a server can run."""
    ours = words[0] == "python" and words[1].startswith("scripts/")
    return ours and not any(mark in word for word in words for mark in ELSEWHERE)


def shortened(words):
    """The script's name and arguments, for a network that trains in a second."""
    script, arguments = Path(words[1]).stem, [SHORTER.get(word, word) for word in words[2:]]
    if script in ("train", "search") and not any(
        word.startswith(("resume=", "--")) for word in arguments
    ):
        arguments += TINY[1:]
    if script == "search":
        arguments += ["search.confirm.best=0"]
    if script == "train" and "-m" in arguments:
        arguments += ["model.channels=[4,4]"]
        if "sweep=geometry" in arguments:
            arguments += ["model.kernel_size=3", "seed=0"]
    if script == "claim" and arguments != ["list"]:
        arguments += ["data=digits", *TINY[1:], "jobs=1"]
        arguments += ["seeds=2..2" if "until=verdict" in arguments else "seeds=1"]
    return script, arguments


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with some pictures and a run, where the commands of all pages are typed."""
    folder = tmp_path_factory.mktemp("workplace")
    assert train_apart(TINY, folder / "outputs" / "runs" / "first") == "ok"
    (folder / "pictures").mkdir()
    Image.new("RGB", (40, 30), "gray").save(folder / "pictures" / "one.png")
    for kind, grey in (("cats", 60), ("dogs", 200)):
        (folder / "photos" / kind).mkdir(parents=True)
        for number in range(300):
            picture = Image.new("L", (32, 32), grey + number % 20)
            picture.save(folder / "photos" / kind / f"{number}.png")
    names = [f"{kind}/{number},{kind}" for kind in ("cats", "dogs") for number in range(300)]
    (folder / "photos" / "labels.csv").write_text("\n".join(["id,label", *names]))
    (folder / "tables").mkdir()
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    for name in ("train", "test"):
        lines = [",".join([str(i % 2), *["9"] * 784]) for i in range(400)]
        (folder / "tables" / f"{name}.csv").write_text("\n".join([header, *lines]))
    images, labels = np.zeros((400, 28, 28, 3), np.uint8), np.arange(400)[:, None] % 2
    np.savez(folder / "tables" / "bloodmnist.npz", train_images=images, train_labels=labels,
             test_images=images, test_labels=labels)  # fmt: skip
    return folder


def write_files(text, folder):
    """Blocks that begin with `# path` are files; those of one file follow each other."""
    begun = set()
    for language in ("python", "yaml"):
        for block in blocks(text, language):
            if match := IS_FILE.match(block):
                path = folder / match[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a" if path in begun else "w") as file:
                    file.write(block)
                begun.add(path)


LONG = ("README.md", "docs/extending.md", "docs/how_to.md", "docs/tutorial.md")
WITH_COMMANDS = [
    pytest.param(page, marks=[pytest.mark.long] if page in LONG else [])
    for page, text in TEXTS.items()
    if commands(text)
]


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_the_commands_of_a_page_work_in_their_order(command, workplace, monkeypatch, page):
    monkeypatch.chdir(workplace)
    write_files(TEXTS[page], workplace)
    for typed in commands(TEXTS[page]):
        configs = (workplace / "outputs" / "runs").glob("*/config.yaml")
        runs = sorted(configs, key=lambda file: file.stat().st_mtime_ns)
        newest = str(runs[-1].parent.relative_to(workplace)) if runs else ""
        words = [word.replace("outputs/runs/<run>", newest) for word in typed]
        if words[0] == "tensorboard":
            assert (workplace / words[-1]).is_dir(), words
        if not of_python(words):
            continue
        script, arguments = shortened(words)
        answer = command(script, *arguments)
        said = f"{shlex.join(words)}\n{answer.out}\n{answer.err}"
        assert answer.code == (2 if is_refused(typed) else 0), said
    if page == "docs/how_to.md":  # its Python reads what its commands have left
        snippets = [block for block in blocks(TEXTS[page], "python") if not IS_FILE.match(block)]
        assert snippets
        for snippet in snippets:
            exec(compile(snippet, page, "exec"), {})


def test_bash_takes_every_command():
    presets = "\n".join(path.read_text("utf-8") for path in (ROOT / "conf").rglob("*.yaml"))
    shown = [
        line
        for text in TEXTS.values()
        for part in blocks(text, "bash")
        for line in part.splitlines()
    ]
    shown += re.findall(r"^# +(python scripts/.*?)(?:   .*)?$", presets, re.MULTILINE)
    shown += re.findall(r"`(python scripts/[^`]*)`", EVERYTHING)
    typed = re.sub(r"<[\w. ]+>", "run", "\n".join(shown))
    answer = subprocess.run(["bash", "-n"], input=typed, text=True, capture_output=True)
    assert not answer.stderr, answer.stderr


def test_every_script_is_shown():
    shown = {words[1] for text in TEXTS.values() for words in commands(text) if len(words) > 1}
    assert {f"scripts/{path.name}" for path in SCRIPTS.glob("*.py")} <= shown


def test_other_commands_name_what_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for text in TEXTS.values():
        for words in commands(text):
            if words[0] == "make":
                assert words[1] in targets, words
            if words[0] == "pip":
                assert words[:3] == ["pip", "install", "-e"], words


def test_the_extras_exist_and_are_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = set(re.findall(r"'\.\[(\w+)\]'", EVERYTHING))
    assert named == set(project["optional-dependencies"]) - {"bench"}  # make bench installs that


def test_every_choice_that_is_named_exists():
    for group, choice in re.findall(
        r"\b(data|model|optimizer|scheduler|logger|experiment|sweep|search)=(\w+)\b(?!\()",
        EVERYTHING,
    ):
        file = f"conf/{group}/{choice}.yaml"
        is_there = (ROOT / file).is_file() or (ROOT / "templates" / file).is_file()
        assert is_there or f"\n# {file}\n" in EVERYTHING, (group, choice)


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.is_file() or name == "docs/claims.md", target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}


def test_the_readme_is_short_and_opens_with_a_picture_and_two_commands():
    assert len(TEXTS["README.md"].split()) <= MAX_WORDS_OF_README
    screen = "\n".join(TEXTS["README.md"].splitlines()[:20])
    assert "](docs/" in screen
    assert [words[0] for words in commands(screen)] == ["make", ".venv/bin/python"]


def test_files_and_folders_of_the_tree_exist():
    tree = TEXTS["docs/architecture.md"].partition("## What is where")[2].split("```")[1]
    for name in re.findall(r"\b(\w+\.py)\b", tree):
        assert (ROOT / "src" / "convscape" / name).is_file(), name
    for name in re.findall(r"^(\w[\w/]*)/ ", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


# --- docs/reference.md ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made():
    pytest.importorskip("optuna", reason="needs pip install -e '.[search]'")
    spec = importlib.util.spec_from_file_location("made", ROOT / "docs" / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.page()


def test_the_reference_is_what_the_config_says(made):
    assert TEXTS["docs/reference.md"] == made, "run: python docs/make_reference.py"


def test_the_reference_explains_every_key(made):
    rows = [line.split(" | ") for line in made.splitlines() if line.startswith("| `")]
    assert len(rows) > 80
    for row in rows:
        assert all(cell.strip(" |") for cell in row), row


# --- docs/facts.md ----------------------------------------------------------------------------


def rows_under(heading):
    """Cells of the table under a heading of facts.md, without its head."""
    text = TEXTS["docs/facts.md"].partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_worked_padding_is_what_the_geometry_computes():
    from convscape.geometry.window import Window, output_size, pad_amounts

    rows = rows_under("Padding")
    assert len(rows) >= 7
    for row in rows:
        size, kernel, stride, same, before, after, valid = map(int, row)
        window = Window(kernel, stride, "same")
        assert (output_size(size, window), *pad_amounts(size, window)) == (same, before, after)
        assert output_size(size, Window(kernel, stride)) == valid


def test_the_networks_of_the_facts_are_counted_right():
    from tests.test_config import checked

    rows = rows_under("Parameters, MACs and receptive field")
    assert len(rows) >= 4
    for command_line, parameters, macs, field in rows:
        plan = checked(*shlex.split(command_line.strip("`"))).plan()
        assert f"{plan.num_parameters:,}" == parameters
        assert f"{plan.macs:,}" == macs
        assert plan.receptive_field == parse_size(field)
