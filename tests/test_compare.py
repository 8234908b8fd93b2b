"""Two runs beside each other, as a user compares them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_ind, ttest_ind_from_stats, ttest_rel

from convscape.reports.comparison import unpaired
from convscape.runs.folder import RunFolder
from convscape.runs.predictions import Answers, Predictions, read_answers, write_answers
from convscape.runs.resolved import ResolvedRun
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Kernels of 3 and 5 with two seeds each: <kernel>/seed<seed>."""
    folder = tmp_path_factory.mktemp("runs")
    for kernel in (3, 5):
        for seed in (0, 1):
            words = [*TINY, f"model.kernel_size={kernel}", f"seed={seed}", "visual=off"]
            run = ResolvedRun(checked(*words), words)
            assert train(run, folder / str(kernel) / f"seed{seed}").status == "ok"
    return folder


def test_a_run_and_its_copy_are_equal(command, runs, tmp_path):
    shutil.copytree(runs / "3" / "seed0", tmp_path / "copy")
    answer = command("compare", runs / "3" / "seed0", tmp_path / "copy")
    assert answer.code == 0, answer.err
    assert "verdict: equal" in answer.out
    assert "differ in: nothing that matters" in answer.out
    assert len(answer.out.partition("page:")[0].splitlines()) <= 10
    assert max(map(len, answer.out.splitlines()[3:7])) <= 80


def test_two_runs_are_compared_image_by_image(command, runs, tmp_path):
    paths = runs / "3" / "seed0", runs / "5" / "seed0"
    answer = command("compare", *paths, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    first, second = (read_answers(path).splits["test"] for path in paths)
    assert found["differences"] == [{"key": "model.kernel_size", "a": "3", "b": "5"}]
    assert (found["metric"], found["split"], found["test"]) == ("test/acc", "test", "images")
    assert found["difference"] == pytest.approx(second.acc - first.acc)
    assert found["mcnemar"]["only_first"] == (first.correct & ~second.correct).sum()
    assert sorted(found["flipped"]) == np.flatnonzero(first.correct != second.correct).tolist()
    low, high = found["interval_over_images"]
    assert low < found["difference"] < high
    answer = command("compare", *paths)
    assert "not loaded" not in answer.out
    page = (tmp_path / "outputs/compare/compare.html").read_text()
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        *("What differs", "Learning curves", "Images that flipped", "Filters", "Confidence")
    ]
    assert page.count("<img ") == 5
    assert "<td>model.kernel_size</td><td>3</td><td>5</td>" in page


def test_two_folders_of_seeds_are_compared_over_seeds(command, runs):
    answer = command("compare", runs / "3", runs / "5", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    accs = [
        [read_answers(runs / kernel / f"seed{seed}").splits["test"].acc for seed in (0, 1)]
        for kernel in ("3", "5")
    ]
    assert (found["a"]["seeds"], found["test"]) == ([0, 1], "paired seeds")
    assert found["mcnemar"] is None
    assert found["over_seeds"]["p"] == pytest.approx(ttest_rel(*accs).pvalue)
    assert "over 2 shared seeds" in command("compare", runs / "3", runs / "5").out


def test_other_images_and_old_runs_are_refused(command, runs, tmp_path):
    one, other = runs / "3" / "seed0", tmp_path / "other"
    shutil.copytree(one, other)
    folder = RunFolder(other)
    result = json.loads(folder.result_file.read_text())
    folder.predictions_file.unlink()
    answer = command("compare", one, other)
    assert (answer.code, "scripts/evaluate.py" in answer.err) == (2, True), answer.err
    kept = read_answers(one).splits
    write_answers(folder, Answers(kept, "of others"))
    folder.result_file.write_text(json.dumps(result | {"data_checksum": "of others"}))
    answer = command("compare", one, other)
    assert (answer.code, "not tested on the same images" in answer.err) == (2, True), answer.err
    test = vars(kept["test"])
    short = Predictions(**{name: values[:-1] for name, values in test.items()})
    write_answers(folder, Answers({"test": short}, result["data_checksum"]))
    folder.result_file.write_text(json.dumps(result))
    answer = command("compare", one, other)
    assert (answer.code, "not on the same images" in answer.err) == (2, True), answer.err


def test_latest_is_named_by_its_folder(command, runs, tmp_path):
    shutil.copytree(runs / "5" / "seed0", tmp_path / "outputs/runs/newest")
    answer = command("compare", runs / "3" / "seed0", "latest")
    assert answer.code == 0, answer.err
    assert f"B: {Path('outputs/runs/newest')}\n" in answer.out


@pytest.fixture(scope="module")
def mixed(runs, tmp_path_factory):
    """The four runs in one folder, as a sweep leaves them."""
    folder = tmp_path_factory.mktemp("mixed")
    for path in runs.glob("*/seed*"):
        shutil.copytree(path, folder / f"{path.parent.name}-{path.name}")
    return folder


def test_a_configuration_is_chosen_in_a_mixed_folder(command, runs, mixed):
    expected = json.loads(command("compare", runs / "3", runs / "5", "--json").out)
    for key in ("kernel_size", "model.kernel_size"):
        answer = command("compare", f"{mixed}:{key}=3", f"{mixed}:{key}=5", "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        for group in (found["a"], found["b"], expected["a"], expected["b"]):
            group.pop("name", None)
        assert found == expected
    one = command("compare", f"{mixed}:kernel_size=3,seed=1", runs / "3" / "seed1")
    assert "verdict: equal: every answer" in one.out


def test_a_choice_that_is_wrong_or_missing_is_refused_with_one_that_works(command, mixed):
    answer = command("compare", mixed, mixed)
    assert (answer.code, "differ in model.kernel_size (3, 5)" in answer.err) == (2, True)
    (choice,) = re.findall("as in '(.*)'", answer.err)
    assert command("compare", choice, choice, "--json").code == 0
    for typed, said in {
        "kernal_size=3": "did you mean 'kernel_size'?",
        "kernel_size=4": "allowed: 3, 5",
        "kernel_size=3,5": "'5' is not <key>=<value>",
    }.items():
        answer = command("compare", f"{mixed}:{typed}", mixed)
        assert (answer.code, said in answer.err) == (2, True), answer.err


def test_other_metrics_and_the_validation_images_are_compared(command, runs):
    found = {
        name: json.loads(command("compare", runs / "3", runs / "5", "--json", "--metric", name).out)
        for name in ("val/acc", "test/loss", "macs")
    }
    numbers = [
        [RunFolder(runs / kernel / f"seed{seed}").read_result().metrics for seed in (0, 1)]
        for kernel in ("3", "5")
    ]
    for name in ("val/acc", "test/loss"):
        values = [[each[name] for each in own] for own in numbers]
        assert found[name]["p"] == pytest.approx(ttest_rel(*values).pvalue)
        assert found[name]["b"]["mean"] == pytest.approx(np.mean(values[1]))
    assert found["val/acc"]["num_images"] == 100
    assert found["val/acc"]["interval_over_images"] is not None
    assert found["test/loss"]["interval_over_images"] is None
    assert (found["macs"]["verdict"], found["macs"]["direction"]) == ("worse", "min")
    answer = command("compare", runs / "3", runs / "5", "--metric", "test/los")
    assert (answer.code, "did you mean 'test/loss'?" in answer.err) == (2, True), answer.err


def test_a_run_is_compared_with_the_seeds_of_another_and_of_its_own(command, runs):
    found = json.loads(command("compare", runs / "3", runs / "5" / "seed1", "--json").out)
    assert (found["test"], found["a"]["seeds"], found["b"]["seeds"]) == (
        "unpaired seeds",
        [0, 1],
        [1],
    )
    accs = [read_answers(runs / "3" / f"seed{seed}").splits["test"].acc for seed in (0, 1)]
    one = read_answers(runs / "5" / "seed1").splits["test"].acc
    assert found["difference"] == pytest.approx(one - np.mean(accs))
    expected = ttest_ind_from_stats(np.mean(accs), np.std(accs, ddof=1), 2, one, 0, 1).pvalue
    assert found["p"] == pytest.approx(expected)
    own = command("compare", runs / "3", runs / "3" / "seed1")
    assert "verdict: equal: the runs of one are among those of the other" in own.out


def test_seeds_that_are_not_shared_are_compared_by_welchs_test():
    first, second = [0.91, 0.93, 0.92, 0.95], [0.97, 0.96, 0.99]
    found = unpaired(first, second)
    truth = ttest_ind(second, first, equal_var=False)
    assert found.p == pytest.approx(truth.pvalue)
    assert found.mean - found.half_width == pytest.approx(truth.confidence_interval().low)
    assert unpaired([0.9, 0.9], [0.8]).p is None
