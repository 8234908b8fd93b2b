"""Links at every name that a real run and a real sweep leave: no command writes through one."""

import hashlib
import json
import logging
import re
import shutil
import traceback
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from convscape import api
from convscape.runs.folder import RunFolder, new_result
from convscape.runs.resolved import ResolvedRun
from convscape.runs.resume import resumed
from convscape.trained import explain, export, probe_figures, probes
from convscape.training.diary import kept
from tests.conftest import ROOT, TINY
from tests.test_config import checked, composed

RUN = [*TINY, "trainer.max_epochs=1", "visual=full", "logger=[tensorboard,csv]", "seed=0,1"]
SWEEP = Path("outputs", "sweeps", "theirs")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of two runs of one epoch, and the same with a second epoch and all else there is."""
    outputs = tmp_path_factory.mktemp("finished") / "outputs"
    api.train_sweep(*RUN, f"output_dir={outputs}", "trainer.progress=off", name="theirs")
    before = outputs / "sweeps" / "theirs"
    for path in runs(before):
        go_on_with(RunFolder(path))
    after = Path(shutil.copytree(before, outputs / "after"))
    for path in runs(after):
        run = api.train(f"resume={path}")
        one = explain.choose_image(run, "3", "test")
        explain.write_page(run, one.image, one.name, one.label, path / "explain.html")
        export.export(run, "safetensors")
        answer = probes.ask_and_keep(path, "prune", 50, "test")
        probe_figures.draw_probe("prune", {"x": [answer]}, path / "probes", path)
    return before, after


def runs(sweep):
    return sorted(file.parent for file in sweep.glob("*/config.yaml"))


def everything(folder):
    """Every file and folder below `folder`, the files with their content and time."""
    return {
        path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        if path.is_file()
        else None
        for path in sorted(folder.rglob("*"))
    }


def by_a_file(path, other):
    path.symlink_to(other)


def by_a_hard_link(path, other):
    path.hardlink_to(other)


@pytest.fixture
def spoilt(finished, tmp_path):
    """Put links into a copy of the sweep at every name that its second epoch writes to.

    Returns the sweep, the folder that the links lead to, and how many they are.
    """

    def spoil(link, is_wanted):
        outside = Path(shutil.copytree(finished[1], tmp_path / "outside"))
        folder = Path(shutil.copytree(finished[0], tmp_path / SWEEP))
        for old in [p for p in folder.rglob("*") if p.is_file()]:  # what is gone on from
            shutil.copy2(old, outside / old.relative_to(folder))
        wanted = [p for p in sorted(outside.rglob("*")) if is_wanted(p)]
        wanted = [p for p in wanted if p.parent not in wanted]
        for other in wanted:
            path = folder / other.relative_to(outside)
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            link(path, other)
        return folder, outside, len(wanted)

    return spoil


def go_on_with(run):
    """Change a finished run into one that was stopped before its second epoch."""
    config = run.read_config()
    config["trainer"]["max_epochs"] = 2
    run.config_file.write_text(yaml.safe_dump(config))
    document = json.loads(run.result_file.read_text())
    document |= {"status": "interrupted", "error": {"type": "x", "message": "y"}}
    run.result_file.write_text(json.dumps(document))


def until_it_works(command, words, folder, outside):
    """Give the command again and again, each time with the link mended that it has named."""
    before = everything(outside)
    refused = []
    while len(refused) < 40:
        answer = command(*words)
        assert everything(outside) == before, (words, refused)
        assert "Traceback" not in answer.out + answer.err
        named = re.search(r"(\S+) is (?:a link|a hard link|no folder)", answer.err + answer.out)
        if named is None:
            assert answer.code == 0 or "-m" in words, answer  # one run has another config
            return refused
        path = folder.parents[2] / named[1]
        assert path.is_relative_to(folder)
        path.unlink()
        original = outside / path.relative_to(folder)
        (shutil.copytree if original.is_dir() else shutil.copy2)(original, path)
        refused.append(path.relative_to(folder).as_posix())
    raise AssertionError(refused)


RESUME, REPORT = ("train", "resume=RUN"), ("report", "SWEEP")
GRID = ("train", "-m", *RUN, "name=theirs", "retry=true")
APPENDED = ("run.log", "tfevents", ".lock")
OTHERS = [
    ("evaluate", "RUN"),
    ("explain", "RUN", "3"),
    ("probe", "RUN", "prune", "--images", "60"),
    ("export", "RUN", "--format", "safetensors"),
]


@pytest.mark.parametrize(
    ("link", "is_wanted", "commands", "expected"),
    [
        (
            by_a_file,
            Path.is_file,
            [*OTHERS, RESUME, REPORT, GRID],
            ("run.log", "tfevents", ".lock"),
        ),
        (by_a_hard_link, Path.is_file, [RESUME, GRID], ("run.log", "tfevents", ".lock")),
        (
            by_a_file,
            lambda path: path.is_dir() and not (path / "config.yaml").is_file(),
            [*OTHERS[1:], RESUME, REPORT],
            ("checkpoints", "figures", "probes", "/00006"),
        ),
        (by_a_file, lambda path: (path / "config.yaml").is_file(), [REPORT, GRID], ("cnn",)),
    ],
    ids=["files", "hard links", "folders", "runs"],
)
def test_no_command_writes_through_a_link(command, spoilt, link, is_wanted, commands, expected):
    folder, outside, num_links = spoilt(link, is_wanted)
    (path, _) = runs(outside)
    place = {"RUN": str(SWEEP / path.name), "SWEEP": str(SWEEP)}
    refused = []
    for words in commands:
        words = [re.sub("RUN|SWEEP", lambda match: place[match[0]], word) for word in words]
        refused += until_it_works(command, words, folder, outside)
    assert num_links >= len(refused) > 0
    with FileLock(outside / "probe") as probe:
        pass
    if not Path(probe.lock_file).exists():  # filelock 3 removes the file of a lock it releases
        expected = [name for name in expected if name != ".lock"]
    for name in expected:
        assert any(name in each for each in refused), (name, refused)


@pytest.mark.parametrize(("stored", "kept"), [("outputs", True), ("..", True), ("/theirs", False)])
def test_a_resumed_run_says_where_outputs_are_only_if_it_lies_there(
    tmp_path, monkeypatch, stored, kept
):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Path("outputs") / "runs" / "theirs")
    folder.create(new_result(ResolvedRun(checked(*TINY, f"output_dir={stored}"))))
    run = resumed(composed(f"resume={folder.path}", "output_dir=mine"), []).run
    assert run.config.output_dir == (stored if kept else "mine")


WRITES = re.compile(
    r"\.(write_text|write_bytes|touch|unlink|mkdir|rename|symlink_to|hardlink_to|truncate)\("
    r"|os\.(replace|remove|makedirs|link|symlink)\(|shutil\.(copy|move)|FileLock\("
    r"|open\([^)]*[\"'][rb]*[wax+]"
)
OUTSIDE = {  # what writes elsewhere than into a run or sweep folder
    "files.py", "cache.py", "downloads.py", "numbers.py",
    "machine.py",  # /proc/self/clear_refs
    "folder.py",  # makes new run folders
    "completion.py",  # into the home folder, whose startup files may well be links
    "project.py",  # lays a project into an empty folder that the user names
}  # fmt: skip


def test_every_writer_goes_through_files():
    for file in (ROOT / "src").rglob("*.py"):
        if file.name not in OUTSIDE:
            assert not WRITES.search(file.read_text("utf-8")), file
    folder = ROOT / "src" / "convscape" / "runs" / "folder.py"
    assert len(WRITES.findall(folder.read_text("utf-8"))) == 1


def test_nothing_that_a_file_holds_begins_a_line_of_the_run_log(tmp_path):
    folder = RunFolder(tmp_path)
    evil = "x\nimport pwned\r\x1b[2J\u2028"
    logger = logging.getLogger("convscape")
    with kept(folder):
        logger.warning("weights %s", evil)
        logging.getLogger("py.warnings").warning("%s", evil)
        try:
            raise RuntimeError(evil) from KeyError(evil)
        except RuntimeError:
            logger.error("%s", traceback.format_exc())
    text = folder.log_file.read_text()
    stamped = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")
    assert all(stamped.match(line) or line.startswith("    ") for line in text.splitlines()), text
    assert not set(text) & set("\r\x1b\u2028"), text
    assert r"\x1b[2J" in text


@pytest.mark.parametrize("name", [".study.lock", "study.db", "study.db-journal"])
def test_a_search_opens_no_link(command, tmp_path, name):
    pytest.importorskip("optuna")
    folder = tmp_path / "outputs" / "searches" / "theirs"
    folder.mkdir(parents=True)
    (tmp_path / "victim").write_text("kept")
    (folder / name).symlink_to(tmp_path / "victim")
    answer = command("search", "name=theirs", "search.trials=1")
    assert (answer.code, f"{name} is a link" in answer.err) == (2, True)
    assert (tmp_path / "victim").read_text() == "kept"
