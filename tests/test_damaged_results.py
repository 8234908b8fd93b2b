"""Results, histories and notes of a sweep that are damaged or a stranger's: a line for each."""

import copy
import json
import random
import shutil

import pytest

from convscape import api
from convscape.reports.page import write_report
from convscape.reports.results import load_sweep, read_runs
from convscape.runs.folder import RunFolder
from convscape.sweeps.states import find_results
from convscape.trained.answers import read_answer
from convscape.trained.probe_figures import draw_probe
from convscape.trained.probes import ask_and_keep
from tests.conftest import TINY

NUM_BATCHES = 15
RUNS, NUM_WHOLE = 24, 3
SPOILT = range(NUM_WHOLE, RUNS)  # 315 in all, and 15 notes of sweeps


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A real sweep of three runs of one epoch."""
    outputs = tmp_path_factory.mktemp("sweep") / "outputs"
    words = [*TINY, "trainer.max_epochs=1", "visual=off", "trainer.progress=off", "seed=0"]
    api.train_sweep(*words, f"output_dir={outputs}", "model.kernel_size=2,3,4", name="real")
    return outputs / "sweeps" / "real"


VALUES = [
    *(None, True, -1, 0, 3.5, 10**400, -(10**19), 2**63, float("nan"), float("inf"), -float("inf")),
    *("", "x", "\ud800", "a\nb\x1b[2J", "²", "1e999", "$\\frac{$", "x" * 300_000, "3" * 5000),
    *([], [None], [[1, [2]]], {}, {"x": {"y": 1}}, {"": None}, [1, 2], ["a"], [float("nan")] * 2),
    *(json.loads("[" * 60 + "]" * 60), {"a": [{"b": "c"}]}, ["x"] * 10_000),
]


def paths_in(node, path=()):
    """The place of every value in nested lists and dicts."""
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in entries:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths_in(value, (*path, key))


def changed_json(dice, content):
    """One value at a random place replaced, dropped or added."""
    document = json.loads(content)
    *path, leaf = dice.choice(list(paths_in(document)))
    node = document
    for key in path:
        node = node[key]
    way = dice.random()
    if way < 0.1:
        del node[leaf]
    elif way < 0.2 and isinstance(node, dict):
        node[dice.choice(["x", "status", "run", "model.channels", ""])] = dice.choice(VALUES)
    else:
        node[leaf] = copy.deepcopy(dice.choice(VALUES))
    return json.dumps(document).encode()


def changed_csv(dice, content):
    lines = content.decode().splitlines()
    cells = lines[1].split(",")
    way = dice.randrange(6)
    if way == 0:
        cells = cells[: dice.randrange(len(cells))]
    elif way == 1:
        cells.append("more")
    else:
        values = ["", "x", "nan", "inf", "-1e400", "9" * 140_000, '"', "\0", "1_0", "٣"]
        cells[dice.randrange(len(cells))] = dice.choice(values)
    if way == 2:
        lines[0] = lines[0][: dice.randrange(len(lines[0]))]
    return "\n".join([lines[0], ",".join(cells), *lines[1:]]).encode("utf-8", "surrogatepass")


def changed_yaml(dice, content):
    values = ["&a [*a]", "!!python/name:os.system", "[[[", "x" * 300_000, "1" + ":30" * 100_000]
    values += ["{a: b}", "null", "\0", "- 1", "2001-01-01", "!!binary x", "~", "[2,3,4]", "'"]
    return f"model.kernel_size: {dice.choice(values)}\n{dice.choice(values)}: 1\n".encode()


def changed_bytes(dice, content):
    place = dice.randrange(len(content))
    return dice.choice(
        [
            b"",
            content[:place],
            content[:place] + bytes([dice.randrange(256)]) + content[place + 1 :],
            content.decode().encode("utf-16"),
            b"\xff" + content,
            content * 2,
            b"[" * 100_000,
            b" " * 2**20 + content,
        ]
    )


CHANGES = {
    "result.json": [changed_json, changed_json, changed_json, changed_bytes],
    "history.csv": [changed_csv, changed_csv, changed_bytes],
    "sweep.yaml": [changed_yaml, changed_bytes],
    "probe": [changed_json, changed_json, changed_json, changed_bytes],
}


def spoil(dice, file, name):
    """Damage a file in one of the ways for its kind."""
    if dice.random() < 0.03:
        file.unlink()
        file.mkdir()
    else:
        file.write_bytes(dice.choice(CHANGES[name])(dice, file.read_bytes()))


@pytest.mark.parametrize("batch", range(NUM_BATCHES))
def test_a_damaged_run_is_one_noted_line_and_the_report_goes_on(
    finished, tmp_path, monkeypatch, batch
):
    dice = random.Random(batch)
    originals = sorted(path.parent for path in finished.glob("*/result.json"))
    folder = tmp_path / "sweep"
    for number in range(RUNS):
        run = RunFolder(folder / f"run{number:02d}")
        old = originals[number % len(originals)]
        shutil.copytree(old, run.path, ignore=shutil.ignore_patterns("*.ckpt", "events*"))
        document = json.loads(run.result_file.read_text()) | {"fingerprint": f"{number:08x}"}
        run.result_file.write_text(json.dumps(document))
        if number >= NUM_WHOLE:
            name = dice.choice(["result.json", "result.json", "history.csv"])
            spoil(dice, run.path / name, name)
    shutil.copy(finished / "sweep.yaml", folder)
    spoil(dice, folder / "sweep.yaml", "sweep.yaml")
    if batch % 7:  # rendering takes its time
        monkeypatch.setattr("convscape.reports.figures.save", lambda *_: None)
        monkeypatch.setattr("convscape.reports.page.html", lambda *_: "")
    report = write_report([folder])
    reading = read_runs([folder])
    notes = [line for line in report.lines if line.startswith("left out")]
    assert len(notes) == len(set(notes)) <= 11
    if len(notes) < 11:
        for path, reason in reading.unreadable:
            assert notes.count(f"left out: {path}: {reason}") == 1
    assert len(reading.runs) + reading.num_duplicates + len(reading.unreadable) == RUNS
    assert {path.name for path, _ in reading.unreadable} <= {f"run{n:02d}" for n in SPOILT}
    assert NUM_WHOLE <= len(load_sweep(folder)) == len(reading.runs)
    assert len(find_results(folder)) == len(reading.runs)
    for line in report.lines[1:]:
        assert "\n" not in line or line.count("\n") < RUNS + 5
        assert len(line) < 5000


PROBES = {
    "shift": {"max": 2, "step": 2},
    "permute": {},
    "canvas": {"sides": (28, 14)},
    "occlude": {"size": 14, "step": 14, "shown": 2},
    "prune": {"fractions": (0, 0.5)},
}
NUM_DAMAGED = 100  # kept answers of each probe


@pytest.mark.parametrize("probe", PROBES)
def test_a_damaged_answer_of_a_probe_is_measured_anew(finished, tmp_path, command, probe):
    path = min(finished.glob("*/checkpoints")).parent
    settings = PROBES[probe]
    whole = ask_and_keep(path, probe, 20, "test", out=tmp_path / "out", **settings)
    file = tmp_path / "out" / f"{probe}.json"
    content = file.read_bytes()
    wanted = json.loads(content)["wanted"]
    assert read_answer(file, wanted) == json.loads(content)
    dice, num_refused, num_drawn = random.Random(probe), 0, 0
    for _ in range(NUM_DAMAGED):
        file.write_bytes(dice.choice(CHANGES["probe"])(dice, content))
        if (kept := read_answer(file, wanted)) is None:
            num_refused += 1
        else:  # it may say anything that this probe could have found
            assert {*kept["numbers"]} == {*whole["numbers"]}
            assert all(-1 <= number <= 1 for number in kept["numbers"].values())
            if num_drawn < 4:  # drawing takes its time
                draw_probe(probe, {"arm": [kept]}, tmp_path / "figures")
                num_drawn += 1
    assert num_refused > NUM_DAMAGED // 2
    words = [
        f"{k}={v}".strip("()").replace("=(", "=").replace(" ", "") for k, v in settings.items()
    ]
    asked = ["probe", path, probe, "--images", 20, "--out", tmp_path / "out", *words]
    file.write_bytes(content)
    answer = command(*asked)
    assert (answer.code, answer.err) == (0, "")
    document = json.loads(content)
    nested = document | {"numbers": {name: [0.5] for name in document["numbers"]}}
    for damaged in (json.dumps(nested).encode(), b"[" * 100_000):
        file.write_bytes(damaged)
        assert command(*asked) == answer


def test_a_sweep_outlives_its_report(command, monkeypatch):
    """Whatever is wrong with it."""

    def fail(*_):
        raise ZeroDivisionError("a mistake\nof ours")

    monkeypatch.setattr("convscape.reports.page.write_report", fail)
    answer = command("train", "-m", *TINY, "trainer.max_epochs=1", "visual=off", "seed=0", "name=x")
    assert answer.code == 0
    assert answer.err == "no report: ZeroDivisionError: a mistake\n"
    assert "sweep outputs/sweeps/x: 1 ok" in answer.out
