"""predictions.npz: what a run answers image by image, and how a stranger's file is read."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from numpy.lib import format as npy

from convscape import models
from convscape.runs.folder import RunFolder
from convscape.runs.predictions import (
    Answers,
    Predictions,
    read_answers,
    write_answers,
)
from convscape.runs.resolved import ResolvedRun
from convscape.trained.evaluate import evaluate
from convscape.trained.load import load_run
from convscape.training.predictions import PredictionSums, as_predictions
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    overrides = [*TINY, "trainer.precision=fp32", "data.eval_batch_size=64"]
    assert train(ResolvedRun(checked(*overrides), overrides), path).status == "ok"
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of two images."""
    write_answers(RunFolder(tmp_path), Answers({"test": of_two()}, "abc"))
    return tmp_path


def of_two():
    """One right answer, 0.7 against 0.2, and one wrong, 0.1 against 0.6."""
    return Predictions(
        np.array([2, 0]), np.array([2, 1]), np.array([0.7, 0.1]), np.array([0.5, -0.5])
    )


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_run_keeps_what_its_chosen_checkpoint_answers(run_path, split):
    run = load_run(run_path)
    images, labels = run.data.tensors(split)
    with torch.inference_mode():
        probabilities = run.model(images).softmax(1).numpy()
    answers = read_answers(run_path)
    found = answers.splits[split]
    assert answers.data_checksum == run.image_set.checksum == run.result.data_checksum
    assert np.array_equal(found.labels, labels)
    assert np.array_equal(found.predicted, probabilities.argmax(1))
    assert found.acc == pytest.approx(run.metrics[f"{split}/acc"], abs=1e-12)
    rows = np.arange(len(labels))
    assert found.probability == pytest.approx(probabilities[rows, labels], abs=1e-5)
    assert found.confidence == pytest.approx(probabilities.max(1), abs=1e-5)
    probabilities[rows, labels] = -1
    assert found.margin == pytest.approx(found.probability - probabilities.max(1), abs=1e-5)


def test_the_file_takes_ten_bytes_an_image(run_path):
    num_images = sum(map(len, read_answers(run_path).splits.values()))
    assert RunFolder(run_path).predictions_file.stat().st_size < 10 * num_images + 3000


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path):
    words = [*TINY, "trainer.max_epochs=4", "trainer.monitor=val/loss", "trainer.precision=fp32"]
    # a learning rate at which the loss rises at last
    words += ["optimizer.lr=0.05", "scheduler=multistep", "scheduler.milestones=[2]"]
    words += ["scheduler.gamma=10"]
    result = train(ResolvedRun(checked(*words), words), tmp_path)
    assert result.best_epoch < result.epochs
    assert read_answers(tmp_path).splits["val"].acc == pytest.approx(result.metrics["val/acc"])


def test_without_validation_images_there_are_answers_on_the_test_alone(tmp_path):
    words = [*TINY, "data.val_size=0"]
    assert train(ResolvedRun(checked(*words), words), tmp_path).status == "ok"
    assert [*read_answers(tmp_path).splits] == ["test"]
    assert "no answers" not in RunFolder(tmp_path).log_file.read_text()


MODULE = '''
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy


class Lit(LightningModule):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))
        self(torch.zeros(1, 1, 28, 28))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        logits = self(batch[0])
        self.log("val/acc", (logits.argmax(1) == batch[1]).float().mean())

    test_step = lambda self, batch, batch_idx: self._tested(self(batch[0]), batch[1])

    def _tested(self, logits, labels):
        self.log("test/acc", (logits.argmax(1) == labels).float().mean())
        return cross_entropy(logits, labels)


class Softmax(Lit):
    def forward(self, images):
        return self.network(images).softmax(1)


class Hidden(Lit):
    """Its test goes around forward."""

    test_step = lambda self, batch, batch_idx: self._tested(self.network(batch[0]), batch[1])
'''


def train_module(name, tmp_path, monkeypatch):
    (tmp_path / "keptparts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    words = [*TINY[1:], "model=own", f"model._target_=keptparts.{name}"]
    words += ["allow_packages=[keptparts]", "trainer.precision=fp32"]
    path = tmp_path / name
    result = train(ResolvedRun(checked(*words), words), path)
    assert result.status == "ok", result.error
    return path, result


@pytest.mark.parametrize("name", ["Lit", "Softmax"])
def test_a_module_of_ones_own_is_heard_where_it_calls_itself(tmp_path, monkeypatch, name):
    path, result = train_module(name, tmp_path, monkeypatch)
    run = load_run(path, ["keptparts"])
    for split in ("val", "test"):
        found = read_answers(path).splits[split]
        assert found.acc == pytest.approx(result.metrics[f"{split}/acc"], abs=1e-6)
        logits = torch.cat([run.logits(run.data.tensors(split)[0])])
        probabilities = logits if name == "Softmax" else logits.softmax(1)
        assert found.confidence == pytest.approx(probabilities.amax(1).numpy(), abs=1e-5)


def test_a_module_that_cannot_be_heard_says_so_and_evaluate_asks_it(tmp_path, monkeypatch):
    path, result = train_module("Hidden", tmp_path, monkeypatch)
    assert [*read_answers(path).splits] == ["val"]
    told = RunFolder(path).log_file.read_text()
    assert "no answers on the test images: Hidden.test_step does not call self(images)" in told
    evaluate(load_run(path, ["keptparts"]), "test")
    found = read_answers(path).splits
    assert found["test"].acc == pytest.approx(result.metrics["test/acc"], abs=1e-6)


def test_evaluate_gives_an_old_run_its_answers(command, run_path, tmp_path):
    file = RunFolder(run_path).predictions_file
    kept = read_answers(run_path)
    for content in (None, b"no file of ours"):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        answer = command("evaluate", run_path, "--split", "val")
        assert answer.code == 0, answer.err
        found = read_answers(run_path)
        for split in ("val", "test"):
            assert np.array_equal(found.splits[split].predicted, kept.splits[split].predicted)
            assert found.splits[split].margin == pytest.approx(kept.splits[split].margin, abs=1e-5)


def test_evaluate_leaves_alone_what_is_there_and_what_is_not_finished(run_path):
    folder = RunFolder(run_path)
    before = folder.predictions_file.stat().st_mtime_ns
    evaluate(load_run(run_path), "test")
    assert folder.predictions_file.stat().st_mtime_ns == before
    content, result = folder.predictions_file.read_bytes(), folder.result_file.read_text()
    try:
        folder.predictions_file.unlink()
        folder.result_file.write_text(json.dumps(json.loads(result) | {"status": "running"}))
        evaluate(load_run(run_path), "test")
        assert not folder.predictions_file.exists()
    finally:
        folder.result_file.write_text(result)
        folder.predictions_file.write_bytes(content)


def test_equal_logits_of_few_bits_count_as_the_metrics_count_them():
    logits = torch.tensor([[1.0, 1.0, 0.0], [0.0, 2.0, 2.0]], dtype=torch.bfloat16)
    found = as_predictions(logits, torch.tensor([1, 1]), is_ours=True)
    assert found.predicted.tolist() == logits.argmax(1).tolist()
    assert found.margin.tolist() == [0, 0]
    assert found.wrong_part() is None


def test_batches_are_one_split():
    sums = PredictionSums()
    assert sums.whole() is None
    logits, labels = torch.randn(7, 5), torch.randint(5, (7,))
    for part in torch.arange(7).split(3):
        sums.add(logits[part], labels[part])
    expected = as_predictions(logits, labels, is_ours=True)
    for name, values in vars(sums.whole()).items():
        assert np.array_equal(values, getattr(expected, name))


def test_what_is_written_is_read(folder):
    found = read_answers(folder)
    assert found.data_checksum == "abc"
    for name, values in vars(of_two()).items():
        assert getattr(found.splits["test"], name) == pytest.approx(values)
    assert found.splits["test"].confidence == pytest.approx([0.7, 0.6])
    assert found.splits["test"].acc == 0.5


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("labels", np.array([2, 0, 1])),
        ("labels", np.array([[2, 0]])),
        ("labels", np.array([2, -1])),
        ("labels", np.array([2.0, 0.0])),
        ("predicted", np.array([2**40, 1])),
        ("probability", np.array([0.7, np.nan])),
        ("probability", np.array([0.7, 1.5])),
        ("margin", np.array([0.5, np.inf])),
        ("margin", np.array([-0.5, -0.5])),  # a right answer that is behind
        ("margin", np.array(["a", "b"])),
    ],
)
def test_arrays_that_are_no_answers_are_not_read(folder, name, values):
    arrays = vars(of_two()) | {name: values}
    with RunFolder(folder).predictions_file.open("wb") as file:
        np.savez(file, data_checksum="abc", **{f"test_{k}": v for k, v in arrays.items()})
    assert read_answers(folder) is None


class Ran(Exception):
    """A stranger's code."""


class Evil:
    def __reduce__(self):
        return exec, ("raise __import__('tests.test_predictions').test_predictions.Ran",)


def changed_file(folder, change):
    """The file with the members, as bytes, that `change` makes of its own."""
    path = RunFolder(folder).predictions_file
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


def with_header(shape, descr="|u1", content=b"\0\0"):
    stream = io.BytesIO()
    npy.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": descr})
    return stream.getvalue() + content


def pickled():
    stream = io.BytesIO()
    np.save(stream, np.array([Evil(), Evil()], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members.update({"test_labels.npy": pickled()}),
        lambda members: members.update({"test_labels.npy": with_header((2**50,))}),
        lambda members: members.update({"test_labels.npy": with_header((2**70,))}),
        lambda members: members.update({"test_labels.npy": with_header((-1,))}),
        lambda members: members.update({"test_labels.npy": with_header((2,), "<U500000000")}),
        lambda members: members.update({"test_labels.npy": b"\x93NUMPY\x01\x00\xff\xff"}),
        lambda members: members.update({"test_labels.npy": b""}),
        lambda members: members.update({"more.npy": with_header((2,))}),
        lambda members: members.update({"test_margin.npy": bytes(2**29)}),
        lambda members: members.pop("test_labels.npy"),
        lambda members: members.pop("data_checksum.npy"),
        lambda members: members.clear(),
    ],
)
def test_a_strangers_file_runs_nothing_and_is_bounded(folder, change):
    changed_file(folder, change)
    assert read_answers(folder) is None


def test_random_damage_is_never_more_than_no_answers(folder):
    path, dice = RunFolder(folder).predictions_file, np.random.default_rng(0)
    whole = path.read_bytes()
    for number in range(300):
        content = bytearray(whole)
        for place in dice.integers(len(content), size=dice.integers(1, 4)):
            content[place] = dice.integers(256)
        path.write_bytes(content[: dice.integers(1, len(content) + 1)] if number % 3 else content)
        read_answers(folder)  # no error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(RunFolder(tmp_path).predictions_file)
    assert read_answers(tmp_path) is None


class Silent(models.CNN):
    """Answers with something else than its logits."""

    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)


def test_a_child_whose_step_returns_no_logits_says_so(tmp_path):
    words = [*TINY[1:], "model=own", "model._target_=tests.test_predictions.Silent"]
    words += ["allow_packages=[tests]", "+model.channels=[4]", "visual=off"]
    assert train(ResolvedRun(checked(*words), words), tmp_path).status == "ok"
    assert [*read_answers(tmp_path).splits] == ["val"]
    told = RunFolder(tmp_path).log_file.read_text()
    assert "Silent.test_step does not return the logits of a batch" in told
