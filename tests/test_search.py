"""Optuna over the same configs, with real workers on a real shared study."""

import json
import os
import shutil
import sqlite3
import textwrap

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from convscape.cli import CONFIG_DIR
from tests.conftest import PATIENCE_S, TINY, wait_for

SMALL = [*TINY[1:], "search.trials=6", "search.sampler_seed=1", "name=small"]


@pytest.fixture
def space(monkeypatch, tmp_path):
    """A preset with narrow networks, one in three of them impossible."""
    # a folder for each process of pytest, where no other test looks for presets
    file = CONFIG_DIR / "search" / f"of_tests_{os.getpid()}" / "narrow.yaml"
    file.parent.mkdir()
    text = """
        trials: 6
        objectives: [val/acc]
        storage: null
        sampler: tpe
        prune: false
        sampler_seed: 1
        space:
          model:
            kernel_size: {choices: [3, 5, 29]}
            channels: {choices: ["[2]", "[4]"]}
          optimizer.lr: {low: 0.001, high: 0.02, log: true}
    """
    file.write_text(textwrap.dedent(text))
    yield f"search={file.parent.name}/narrow"
    shutil.rmtree(file.parent)


def study_of(tmp_path, name="small"):
    file = tmp_path / "outputs" / "searches" / name / "study.db"
    return optuna.load_study(study_name=name, storage=f"sqlite:///{file}")


def folders(tmp_path, name="small"):
    return [f.parent for f in (tmp_path / "outputs/searches" / name).glob("*/result.json")]


def states(study):
    return [trial.state.name for trial in study.trials]


def test_a_search_makes_its_trials_and_the_same_command_does_no_more(command, tmp_path, space):
    answer = command("search", space, *SMALL)
    assert answer.code == 0, answer.err
    study = study_of(tmp_path)
    assert states(study).count("COMPLETE") == 6
    impossible = [t for t in study.trials if "impossible" in t.user_attrs]
    assert len(impossible) == len(study.trials) - 6 > 0
    assert "a 29x29 kernel does not fit" in impossible[0].user_attrs["impossible"]
    assert f"6 trained, 0 pruned, {len(impossible)} impossible" in answer.out
    again = command("search", space, *SMALL)
    assert again.code == 0
    assert len(study_of(tmp_path).trials) == len(study.trials)


def test_a_trial_is_an_ordinary_run_with_the_value_it_reports(command, tmp_path, space):
    command("search", space, *SMALL)
    by_folder = {
        t.user_attrs["folder"]: t for t in study_of(tmp_path).trials if t.state.name == "COMPLETE"
    }
    for folder in folders(tmp_path):
        result = json.loads((folder / "result.json").read_text())
        trial = by_folder[str(folder.relative_to(tmp_path))]
        assert result["status"] == "ok"
        assert trial.value == result["metrics"]["val/acc"]
        assert result["config"]["optimizer"]["lr"] == pytest.approx(trial.params["optimizer.lr"])


def test_a_search_ends_with_a_report_that_has_optunas_figures(command, tmp_path, space):
    command("search", space, *SMALL)
    page = (tmp_path / "outputs" / "searches" / "small" / "report.html").read_text()
    assert "Which keys matter to val/acc" in page
    assert "Two keys at once." in page
    assert "rank correlation" in page or "lr" in page


def test_bad_trials_are_pruned_and_saved(command, tmp_path, space):
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


@pytest.mark.slow
def test_two_objectives_give_a_front(command, tmp_path, space):
    answer = command("search", space, *SMALL, "search.objectives=[val/acc,macs]")
    assert answer.code == 0, answer.err
    assert "no other is better in both:" in answer.out
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


def test_two_workers_started_at_once_share_a_study(start, tmp_path, space):
    workers = [start("search", space, *SMALL, "search.sampler_seed=null") for _ in range(2)]
    outs = [worker.communicate(timeout=PATIENCE_S) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outs
    study = study_of(tmp_path)
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    assert 6 <= len(done) <= 7  # both may begin the last one
    assert "RUNNING" not in states(study)
    assert len({t.user_attrs["folder"] for t in done}) == len(folders(tmp_path))


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
            "networks in a row were impossible",
        ),
        (["search.objectives=[val/accuracy]"], "search.objectives.0=val/accuracy"),
        (["search.trials=0"], "search.trials=0: allowed: 1 or more"),
        (["search.trails=3"], "did you mean 'search.trials'?; allowed: search.trials, search.obj"),
        (["search.storage=nonsense"], "search.storage=nonsense cannot be used"),
        (
            ["search.storage=sqlite:////nowhere/at/all/study.db"],
            "search.storage=sqlite:////nowhere/at/all/study.db cannot be used",
        ),
    ],
)
def test_a_users_mistake_is_one_sentence(command, tmp_path, arguments, words):
    answer = command("search", *TINY[1:], *arguments)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    assert not list(tmp_path.glob("outputs/searches/*/*/checkpoints"))


def test_an_unreachable_database_is_named_without_its_password(command):
    url = "postgresql://me:secret@127.0.0.1:1/study"
    answer = command("search", *SMALL, f"search.storage={url}")
    assert answer.code == 2
    assert "postgresql://me:***@127.0.0.1:1/study cannot be used" in answer.err
    assert "secret" not in answer.err


def test_a_name_in_use_by_a_search_for_something_else_is_refused(command, tmp_path, space):
    assert command("search", space, *SMALL, "search.trials=1").code == 0
    answer = command("search", space, *SMALL, "search.objectives=[val/loss]")
    assert (answer.code, "is in use by a search for val/acc" in answer.err) == (2, True)


def test_the_study_is_a_file_that_other_tools_read(command, tmp_path, space):
    assert command("search", space, *SMALL, "search.trials=1").code == 0
    with sqlite3.connect(tmp_path / "outputs/searches/small/study.db") as database:
        assert database.execute("select study_name from studies").fetchall() == [("small",)]
    database.close()
