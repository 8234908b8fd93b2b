"""Optuna over the same configs, with real workers on a real shared study."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection

from convscape.config.directory import CONFIG_DIR
from convscape.runs.folder import RunFolder
from convscape.runs.progress import progress
from convscape.sweeps import database
from convscape.sweeps.study import _storage, open_study
from tests.conftest import PATIENCE_S, TINY, run_here, undrawn, wait_for

pytestmark = pytest.mark.usefixtures("without_figures")

SMALL = [*TINY[1:], "search.trials=6", "search.sampler_seed=1", "name=small", "visual=off"]


# takes trials, without training, until there are enough; given a word it is killed with one in hand
WORKER = """
    import os, signal, sys, time
    from pathlib import Path
    from optuna.distributions import FloatDistribution
    from optuna.samplers import RandomSampler
    from optuna.pruners import NopPruner
    from optuna.study import StudyDirection
    from convscape.sweeps.study import open_study

    folder, url, num_wanted, *words = sys.argv[1:]
    space = {"x": FloatDistribution(0, 1)}
    directions = [StudyDirection.MAXIMIZE]
    study = open_study(
        Path(folder), url, directions, RandomSampler(), NopPruner(), {}, space, ["x"], False
    )
    with study.at_work():
        while (trial := study.next_trial(int(num_wanted))) is not None:
            if words:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.02)
            study.tell(trial, [study.values(trial)["x"]])
"""


@pytest.fixture
def workers(tmp_path):
    """Start worker processes that do not train; wait for their exit codes."""
    script = tmp_path / "worker.py"
    script.write_text(textwrap.dedent(WORKER))

    def run(number, *arguments):
        words = [sys.executable, str(script), str(tmp_path), *map(str, arguments)]
        return [one.wait(PATIENCE_S) for one in [subprocess.Popen(words) for _ in range(number)]]

    return run


@contextmanager
def presets():
    """Write a preset, and return how a command line names it."""
    # a folder for each use, where no other test looks for presets
    folder = Path(tempfile.mkdtemp(prefix="of_tests_", dir=CONFIG_DIR / "search"))

    def write(name, space):
        head = "{trials: 6, objectives: [val/acc], storage: null, sampler: tpe, prune: false, "
        head += "confirm: {best: 0, seeds: 4..8, margin: null}, "
        (folder / f"{name}.yaml").write_text(f"{head}sampler_seed: 1, space: {space}}}")
        return f"search={folder.name}/{name}"

    yield write
    shutil.rmtree(folder)


@pytest.fixture
def preset():
    with presets() as write:
        yield write


# narrow networks, one in three of them impossible
NARROW = """{
    model: {kernel_size: {choices: [3, 5, 29]}, channels: {choices: ["[2]", "[4]"]}},
    optimizer.lr: {low: 0.001, high: 0.02, log: true},
}"""


@pytest.fixture
def space(preset):
    return preset("narrow", NARROW)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a search of six trials, what it said and its command; for tests that look."""
    folder = tmp_path_factory.mktemp("searched")
    with presets() as write, undrawn():
        words = ["search", write("narrow", NARROW), *SMALL]
        yield folder, run_here(folder, *words), words


def study_of(tmp_path, name="small"):
    file = tmp_path / "outputs" / "searches" / name / "study.db"
    return optuna.load_study(study_name=name, storage=_storage(f"sqlite:///{file}", False))


def folders(tmp_path, name="small"):
    return [f.parent for f in (tmp_path / "outputs/searches" / name).glob("*/result.json")]


def states(study):
    return [trial.state.name for trial in study.trials]


def test_a_search_makes_its_trials_and_the_same_command_does_no_more(searched):
    folder, answer, words = searched
    assert answer.code == 0, answer.err
    study = study_of(folder)
    assert states(study).count("COMPLETE") == 6
    impossible = [t for t in study.trials if "impossible" in t.user_attrs]
    assert len(impossible) == len(study.trials) - 6 > 0
    assert "a 29x29 kernel does not fit" in impossible[0].user_attrs["impossible"]
    assert f"6 trained, 0 pruned, {len(impossible)} impossible" in answer.out
    again = run_here(folder, *words)
    assert again.code == 0
    assert len(study_of(folder).trials) == len(study.trials)


def test_what_a_stopping_database_kept_without_an_answer_is_told_once(tmp_path, monkeypatch):
    one = {"x": FloatDistribution(0, 1)}, ["x"], False
    rest = [StudyDirection.MAXIMIZE], RandomSampler(), NopPruner(), {}, *one
    shared = open_study(tmp_path, None, *rest)
    keep = RDBStorage.set_trial_state_values
    monkeypatch.setattr(database, "_PAUSE_S", 0)

    def stops_after(step):
        def stopping(*arguments, **named):
            monkeypatch.setattr(RDBStorage, "set_trial_state_values", keep)
            step(*arguments, **named)
            raise StorageInternalError

        monkeypatch.setattr(RDBStorage, "set_trial_state_values", stopping)

    with shared.at_work():
        trial = shared.next_trial(1)
        stops_after(keep)
        shared.tell(trial, [0.5])
        assert [(each.state.name, each.value) for each in shared.trials()] == [("COMPLETE", 0.5)]
        trial = shared.next_trial(2)
        stops_after(lambda *_, **__: database.put_back(shared.study, trial))
        with pytest.raises(UpdateFinishedTrialError):  # another worker has it now
            shared.tell(trial, [0.5])
    assert states(shared.study) == ["COMPLETE", "FAIL", "WAITING"]


def test_a_trial_is_an_ordinary_run_with_the_value_it_reports(searched):
    place, *_ = searched
    by_folder = {
        t.user_attrs["folder"]: t for t in study_of(place).trials if t.state.name == "COMPLETE"
    }
    assert len(folders(place)) == 6
    for folder in folders(place):
        result = json.loads((folder / "result.json").read_text())
        trial = by_folder[str(folder.relative_to(place))]
        assert result["status"] == "ok"
        assert trial.value == result["metrics"]["val/acc"]
        assert result["config"]["optimizer"]["lr"] == pytest.approx(trial.params["optimizer.lr"])


@pytest.mark.parametrize("by", ["folder", "another run"])
def test_what_is_in_the_way_of_a_run_is_named_and_once_it_is_gone_the_search_goes_on(
    command, tmp_path, space, by
):
    words = ["search", space, *SMALL, "search.trials=1", "trainer.max_epochs=1"]
    assert command(*words).code == 0
    (path,) = folders(tmp_path)
    file = path / "result.json"
    content = file.read_text()
    file.unlink()
    if by == "folder":
        file.mkdir()
    else:
        file.write_text(content.replace(path.name.rpartition("-")[2], "01234567"))
    (path.parent / "study.db").unlink()
    answer = command(*words)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    says = "is a folder" if by == "folder" else "belongs to another run"
    assert f"error: in the way of a run: {file.relative_to(tmp_path)} {says}" in answer.err
    assert "1 not finished" in answer.out
    shutil.move(path, tmp_path / "away")
    assert command(*words).code == 0
    assert [each.name for each in folders(tmp_path)] == [path.name]


def test_a_search_ends_with_a_report_that_has_optunas_figures(searched):
    page = (searched[0] / "outputs" / "searches" / "small" / "report.html").read_text()
    assert "Too few trials finished to say which keys matter" in page
    assert "Two keys at once." in page
    assert "rank correlation" in page or "lr" in page


@pytest.mark.long
def test_bad_trials_are_pruned_and_saved(command, monkeypatch, tmp_path, space):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    answer = command(
        *("search", space, *SMALL, "search.prune=true", "search.trials=14"),
        *("trainer.max_epochs=6", "search.sampler=random"),
    )
    assert answer.code == 0, answer.err
    pruned = [t for t in study_of(tmp_path).trials if "folder" in t.user_attrs]
    pruned = [t for t in pruned if t.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        result = json.loads((tmp_path / trial.user_attrs["folder"] / "result.json").read_text())
        assert (result["status"], result["error"]["type"]) == ("interrupted", "Pruned")
        assert 2 <= result["epochs"] < 6
    # one table for all trials, and a line for each above it
    assert re.search(r"\d+ of 14 runs", answer.err)
    assert re.search(r"\d pruned", answer.err)
    assert answer.out.count("pruned after epoch") == len(pruned)
    lines = [line for line in answer.out.splitlines() if "outputs" not in line]
    assert max(map(len, lines)) <= 80, max(lines, key=len)


def test_a_network_that_was_tried_before_is_no_longer_to_do(command, tmp_path, preset):
    one = preset("few", "{model.channels: {choices: ['[2]', '[4]']}}")
    assert command("search", one, *SMALL, "search.trials=4").code == 0
    folder = tmp_path / "outputs" / "searches" / "small"
    assert len(study_of(tmp_path).trials) == 4
    assert len(folders(tmp_path)) == 2
    runs = [(path, RunFolder(path).read_result()) for path in folders(tmp_path)]
    assert progress(folder, runs).todo == 0


@pytest.mark.slow
def test_two_objectives_give_a_front(command, tmp_path, space):
    answer = command("search", space, *SMALL, "search.objectives=[val/acc,macs]")
    assert answer.code == 0, answer.err
    assert "no other trial is better in both:" in answer.out
    best = study_of(tmp_path).best_trials
    for one in best:
        for other in best:
            assert not (other.values[0] > one.values[0] and other.values[1] < one.values[1])


@pytest.mark.slow
def test_a_study_can_be_a_journal_file(command, tmp_path, space):
    storage = f"search.storage=journal:{tmp_path / 'study.log'}"
    assert command("search", space, *SMALL, storage).code == 0
    backend = JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name=None, storage=JournalStorage(backend))
    assert [t.state.name for t in study.trials].count("COMPLETE") == 6
    assert len(folders(tmp_path)) == 6


@pytest.mark.long
def test_two_workers_started_at_once_share_a_study(start, tmp_path, space):
    workers = [start("search", space, *SMALL, "search.sampler_seed=null") for _ in range(2)]
    outs = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outs
    study = study_of(tmp_path)
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert len(done) == 6
    assert "RUNNING" not in states(study)
    assert len({t.user_attrs["folder"] for t in done}) == len(folders(tmp_path))


@pytest.mark.long
@pytest.mark.parametrize("storage", ["sqlite:///{}/s.db", "journal:{}/s.log"])
def test_four_workers_make_as_many_trials_as_are_asked_for(workers, tmp_path, storage):
    url = storage.format(tmp_path)
    assert workers(4, url, 14) == [0] * 4
    study = optuna.load_study(study_name=tmp_path.name, storage=_storage(url, False))
    assert states(study) == ["COMPLETE"] * 14
    assert not list(tmp_path.glob(".worker-*"))


def test_a_trial_whose_worker_died_before_it_had_a_folder_is_made(workers, tmp_path):
    url = f"sqlite:///{tmp_path}/s.db"
    assert workers(1, url, 3, "die") == [-signal.SIGKILL]
    study = optuna.load_study(study_name=tmp_path.name, storage=_storage(url, False))
    study.ask()  # one that died before it had said who it is
    assert states(study) == ["RUNNING"] * 2
    assert workers(1, url, 3) == [0]
    assert states(study) == ["COMPLETE"] * 3
    assert sorted(study.trials[0].params) == ["x"]


def test_a_search_whose_trials_all_diverge_says_so_and_exits_with_one(command, tmp_path, preset):
    huge = preset("huge", "{optimizer.lr: {low: 1.0e+30, high: 1.0e+31}}")
    answer = command("search", huge, *SMALL, "search.trials=2", "optimizer=sgd")
    assert answer.code == 1, answer.err
    assert states(study_of(tmp_path)) == ["FAIL", "FAIL"]
    assert "0 trained, 0 pruned, 0 impossible, 2 failed" in answer.out
    assert answer.out.count("  diverged: cnn_k3") == 2
    again = command("search", huge, *SMALL, "search.trials=2", "optimizer=sgd")
    assert (again.code, len(study_of(tmp_path).trials)) == (1, 2)


def test_a_killed_workers_trial_is_finished_by_the_next_one(start, command, tmp_path, space):
    endless = [*SMALL[:1], *SMALL[2:], "trainer.max_epochs=40", "search.trials=2"]
    endless = [word for word in endless if word != "trainer.max_epochs=2"]
    worker = start("search", space, *endless)
    searches = tmp_path / "outputs" / "searches"
    wait_for(lambda: list(searches.glob("small/*/checkpoints/last.ckpt")), worker)
    worker.kill()
    worker.wait()
    assert "RUNNING" in states(study_of(tmp_path))
    answer = command("search", space, *endless)
    assert answer.code == 0, answer.err
    study = study_of(tmp_path)
    assert "RUNNING" not in states(study)
    assert states(study).count("COMPLETE") == 2
    assert {json.loads((f / "result.json").read_text())["status"] for f in folders(tmp_path)} == {
        "ok"
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search=geometri"], "did you mean 'geometry'?"),
        (["+search.space.model.kernal_size={choices:[3]}"], "model.kernal_size: there is no such"),
        (["+search.space.optimizer.lr={low:1,high:0.1}"], "low=1 is not below 0.1"),
        (["search.space.model.stride={choices:[0]}"], "model.stride=0: 0 is too small"),
        (
            [
                f"search.space.model.{key}"
                for key in ("kernel_size.choices=[40]", "padding.choices=[0]")
            ],
            "5 networks in a row were impossible",
        ),
        (["search.objectives=[val/accuracy]"], "search.objectives=val/accuracy"),
        (["search.trials=0"], "search.trials=0: allowed: 1 or more"),
        (["search.trails=3"], "did you mean 'search.trials'?; allowed: search.trials, search.obj"),
        (["search.storage=nonsense"], "search.storage=nonsense cannot be used"),
        (
            ["search.storage=sqlite:////nowhere/at/all/study.db"],
            "search.storage=sqlite:////nowhere/at/all/study.db cannot be used",
        ),
    ],
)
def test_a_users_mistake_is_one_sentence(command, monkeypatch, tmp_path, arguments, words):
    monkeypatch.setattr("convscape.sweeps.search.MAX_IMPOSSIBLE", 5)
    answer = command("search", *TINY[1:], *arguments)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    assert not list(tmp_path.glob("outputs/searches/*/*/checkpoints"))


def test_an_unreachable_database_is_named_without_its_password(command):
    url = "postgresql://me:secret@127.0.0.1:1/study"
    answer = command("search", *SMALL, f"search.storage={url}")
    assert answer.code == 2
    assert "postgresql://me:***@127.0.0.1:1/study cannot be used" in answer.err
    assert "secret" not in answer.err


def test_a_name_in_use_by_another_search_is_refused_with_the_difference(command, tmp_path, space):
    search = ("search", space, *SMALL[:3], *SMALL[4:], "search.trials=1")
    assert command(*search).code == 0
    kernels = "search.space.model.kernel_size.choices"
    for change, words in {
        "search.objectives=[val/loss]": "search.objectives was [val/acc] and is now [val/loss]",
        "data.val_size=99": "data.val_size was 100 and is now 99",
        "optimizer=sgd": "optimizer was not set and is now sgd",
        f"{kernels}=[3,5]": f"{kernels} was [3,5,29] and is now [3,5]",
        "search.sampler=random": "search.sampler was tpe and is now random",
    }.items():
        answer = command(*search, change)
        assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    for change in ("data.val_size=99", f"{kernels}=[3,5]"):  # not comparable; not in Optuna
        answer = command(*search, change, "extend=true")
        assert (answer.code, "choose another name" in answer.err) == (2, True), answer.err
        assert "or add to it" not in answer.err
    assert states(study_of(tmp_path)).count("COMPLETE") == len(folders(tmp_path)) == 1
    assert "RUNNING" not in states(study_of(tmp_path))


def test_a_search_goes_on_with_more_trials_and_with_extend_in_a_larger_space(
    command, tmp_path, preset
):
    rate = "optimizer.lr: {low: 0.001, high: 0.002}"
    small = preset("grows", f"{{{rate}}}")
    assert command("search", small, *SMALL, "search.trials=1").code == 0
    assert command("search", small, *SMALL, "search.trials=2").code == 0
    preset("grows", "{optimizer.lr: {low: 0.01, high: 0.02}, model.stride: {choices: [1, 2]}}")
    answer = command("search", small, *SMALL, "search.trials=3")
    assert answer.code == 2
    assert "search.space.optimizer.lr.low was 0.001 and is now 0.01" in answer.err
    assert "search.space.model.stride.choices was not set and is now [1,2]" in answer.err
    assert command("search", small, *SMALL, "search.trials=3", "extend=true").code == 0
    first, second, third = study_of(tmp_path).trials
    assert (len(first.params), len(second.params), len(third.params)) == (1, 1, 2)
    assert third.params["optimizer.lr"] >= 0.01


def test_what_is_refused_leaves_no_trial_and_no_claim_on_the_name(command, tmp_path, space):
    search = ("search", space, *SMALL[:3], *SMALL[4:], "search.trials=1")
    answer = command(*search, "data.val_size=5000")
    assert (answer.code, "the train split has 1,438" in answer.err) == (2, True), answer.err
    assert not study_of(tmp_path).trials
    assert command(*search).code == 0
    assert states(study_of(tmp_path)).count("COMPLETE") == 1


def test_the_study_is_a_file_that_other_tools_read(command, tmp_path, space):
    assert command("search", space, *SMALL, "search.trials=1").code == 0
    with sqlite3.connect(tmp_path / "outputs/searches/small/study.db") as database:
        assert database.execute("select study_name from studies").fetchall() == [("small",)]
    database.close()
