"""How far a sweep is: its time left, and the table that a terminal shows."""

import io
import os
import re
import sys
import time

import pytest
from rich.console import Console

from convscape.runs.folder import RunFolder
from convscape.runs.progress import NOTE, ToDo, note_to_do, progress, read_to_do, work
from convscape.runs.result import Result
from convscape.sweeps.live import TimeLeft, _View
from convscape.sweeps.words import NUM_RUNS, counter

from .conftest import TINY
from .fake_runs import finished_run, write_run
from .test_config import composed

BEGAN = 1_000_000.0


@pytest.fixture(scope="module")
def base():
    return composed()


def written(folder, base, number, macs, began, ended=None, epochs=0, now=None):
    """A run of 10 epochs that began and ended then, in seconds; one that lasts has a history."""
    result = finished_run(base, {}, number, 0.9, number)
    result.config["trainer"] = {"max_epochs": 10}
    result.macs, result.metrics = macs, {"val/acc": 0.9}
    if ended is None:
        result.status, result.metrics, result.epochs = "running", {}, 0
    else:
        result.seconds = {"fit": ended - began}
    path = folder / f"run-{result.fingerprint}"
    write_run(path, result)
    run = RunFolder(path)
    if ended is None:
        rows = [f"{epoch},0.{70 + epoch}" for epoch in range(1, epochs + 1)]
        run.history_file.write_text("\n".join(["epoch,val/acc", *rows, ""]))
        os.utime(run.history_file, (now, now))
    os.utime(run.config_file, (began, began))
    os.utime(run.result_file, (ended or began, ended or began))
    return path, result


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_at_half_time_what_is_left_is_known_within_a_fifth(tmp_path, base, at_a_time):
    """Runs of a cost that rises from first to last, and two seconds between them."""
    macs = [10**6 * (1 + number // 4) for number in range(24)]
    lengths = [2 + each / 10**6 for each in macs]
    free, spans = [BEGAN + 8.0] * at_a_time, []  # eight seconds until the first one begins
    for length in lengths:
        began = min(free)
        free[free.index(began)] = began + length + 2
        spans.append((began, began + length))
    end = max(ended for _, ended in spans)
    now = (BEGAN + end) / 2
    runs, works = [], {}
    for number, ((began, ended), each) in enumerate(zip(spans, macs, strict=True)):
        works[f"{number:08x}"] = work({"trainer": {"max_epochs": 10}}, each)
        if ended <= now:
            runs.append(written(tmp_path, base, number, each, began, ended))
        elif began < now:
            done = int(10 * (now - began) / (ended - began))
            runs.append(written(tmp_path, base, number, each, began, None, done, now))
    note_to_do(tmp_path, ToDo(BEGAN, works))
    found = progress(tmp_path, runs, now)
    assert found.total == 24
    assert found.counts["running"] == at_a_time
    assert found.left_s == pytest.approx(end - now, rel=0.2)
    assert progress(tmp_path, runs, now + 3600).left_s is None  # nobody works on it any more


def test_what_is_to_be_done_once_more_has_not_begun(tmp_path, base):
    runs = [written(tmp_path, base, 0, 10, BEGAN - 9, BEGAN - 5)]
    runs += [written(tmp_path, base, 1, 10, BEGAN + 1, BEGAN + 5)]
    note_to_do(tmp_path, ToDo(BEGAN, {"00000000": 1.0, "00000001": 1.0, "00000002": None}))
    found = progress(tmp_path, runs, BEGAN + 6)
    assert (found.total, found.done, found.todo) == (3, 1, 2)
    assert found.counts == {"ok": 1}


def test_trials_whose_values_nobody_knows_yet_count_as_much_as_those_that_are_done(tmp_path, base):
    runs = [written(tmp_path, base, 0, 10, BEGAN - 9, BEGAN - 5)]  # of the search as it was before
    runs += [written(tmp_path, base, n, 10, BEGAN + 4 * n - 4, BEGAN + 4 * n) for n in (1, 2, 3)]
    runs += [written(tmp_path, base, 4, 10, BEGAN + 12, None, 5, BEGAN + 14)]
    note_to_do(tmp_path, ToDo(BEGAN, more=10))
    assert read_to_do(tmp_path).more == 10
    found = progress(tmp_path, runs, BEGAN + 14)
    assert (found.total, found.done, found.todo) == (11, 4, 6)
    assert found.left_s == pytest.approx(26, rel=0.2)  # half of one, and six


def test_the_line_of_a_run_and_the_table_estimate_the_time_left_alike(tmp_path, base):
    now = time.time()
    for number in (0, 1, 2):
        written(tmp_path, base, number, 10, now - 300 + 100 * number, now - 200 + 100 * number)
    note_to_do(tmp_path, ToDo(now - 300, {f"{n:08x}": None for n in range(6)}))
    screen = Console(file=io.StringIO(), width=80)
    screen.print(_View(tmp_path, screen, has_answer=False).drawn())
    left = TimeLeft(tmp_path)()
    assert left in screen.file.getvalue()
    assert re.fullmatch(r"about [4-6] min left", left)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"since": 1, "work": 3}', '{"since": NaN, "work": {}, "is_open": false}',
     '{"since": 1, "work": {"a": -1}, "is_open": false}', "[" * 10_000],
)  # fmt: skip
def test_a_note_that_is_none_of_ours_is_none(tmp_path, text):
    (tmp_path / NOTE).write_text(text)
    assert read_to_do(tmp_path) == ToDo()


def test_the_table_says_what_runs_what_is_best_and_what_failed(tmp_path, base):
    now = time.time()
    written(tmp_path, base, 0, 10, now - 50, now - 40)
    written(tmp_path, base, 1, 10, now - 30, None, 3, now - 3)
    failed = Result("run2", "00000002", config=dict(base))
    failed.fail("failed", ValueError("a sentence that is longer than any terminal " * 5))
    write_run(tmp_path / "run-00000002", failed)
    note_to_do(tmp_path, ToDo(now - 60, {f"{n:08x}": None for n in range(5)}))
    screen = Console(file=io.StringIO(), width=80)
    screen.print(_View(tmp_path, screen, has_answer=False).drawn())
    lines = screen.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "2 of 5 runs" in text
    assert "1 ok, 1 running, 1 failed, 2 to do" in text
    assert "running run1 epoch 3/10 val/acc 73.00 %" in text
    assert "best run0 val/acc 90.00 %" in text
    assert "failed run2 ValueError: a sentence" in text


def test_the_counters_of_a_sweep_have_one_width(monkeypatch):
    monkeypatch.delenv(NUM_RUNS, raising=False)
    assert [counter(number, 14) for number in (9, 10)] == ["[ 9/14]", "[10/14]"]
    assert counter(3) == "[3]"


def test_a_sweep_at_a_terminal_draws_one_table_and_prints_its_lines(command, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    answer = command("train", "-m", "name=s", "model.kernel_size=3,5", *TINY)
    assert answer.code == 0, answer.err
    assert [line[:5] for line in answer.out.splitlines() if " ok " in line] == ["[1/2]", "[2/2]"]
    assert "of 2 runs" in answer.err
    assert "epoch 1/2" in answer.err or "to do" in answer.err
    assert set(read_to_do(tmp_path / "outputs" / "sweeps" / "s").work) == {
        path.name.rpartition("-")[2] for path in (tmp_path / "outputs/sweeps/s").glob("cnn*")
    }
