"""Two runs beside each other, as a user compares them."""

import json
import shutil

import numpy as np
import pytest
from scipy.stats import ttest_rel

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
    assert len(answer.out.splitlines()) <= 10


def test_two_runs_are_compared_image_by_image(command, runs, tmp_path):
    paths = runs / "3" / "seed0", runs / "5" / "seed0"
    answer = command("compare", *paths, "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    first, second = (read_answers(path).splits["test"] for path in paths)
    assert found["differences"] == ["model.kernel_size: 3 -> 5"]
    assert found["difference"] == pytest.approx(second.acc - first.acc)
    assert found["mcnemar"]["only_first"] == (first.correct & ~second.correct).sum()
    assert sorted(found["flipped"]) == np.flatnonzero(first.correct != second.correct).tolist()
    low, high = found["interval_over_images"]
    assert low < found["difference"] < high
    answer = command("compare", *paths)
    page = (tmp_path / "outputs/compare/compare.html").read_text()
    assert page.count("<img ") == 2
    assert "model.kernel_size: 3 -&gt; 5" in page


def test_two_folders_of_seeds_are_compared_over_seeds(command, runs):
    answer = command("compare", runs / "3", runs / "5", "--json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    accs = [
        [read_answers(runs / kernel / f"seed{seed}").splits["test"].acc for seed in (0, 1)]
        for kernel in ("3", "5")
    ]
    assert found["shared_seeds"] == [0, 1]
    assert found["mcnemar"] is None
    assert found["over_seeds"]["p"] == pytest.approx(ttest_rel(*accs).pvalue)
    assert "over 2 shared seeds" in command("compare", runs / "3", runs / "5").out


def test_other_images_several_configurations_and_old_runs_are_refused(command, runs, tmp_path):
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
    mixed = tmp_path / "mixed"
    for kernel in ("3", "5"):
        shutil.copytree(runs / kernel / "seed0", mixed / kernel)
    answer = command("compare", mixed, one)
    assert (answer.code, "differ in model.kernel_size" in answer.err) == (2, True), answer.err
