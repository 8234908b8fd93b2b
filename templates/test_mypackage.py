"""Tests of your own parts: pip install pytest, then python -m pytest in this folder."""

from pathlib import Path

import torch
from mypackage import Residual, WorstClass, bars, focal, speckle
from torch.nn.functional import cross_entropy

import convscape


def test_bars_are_images_with_a_word_for_each():
    images, labels = bars(num_images=50)
    assert images.shape == (50, 16, 16)
    assert set(labels) == {"lying", "standing"}
    rows, columns = images.max(axis=2).astype(int), images.max(axis=1).astype(int)
    is_lying = (rows > 100).sum(axis=1) < (columns > 100).sum(axis=1)
    assert (is_lying == (labels == "lying")).all()


def test_the_network_answers_for_each_class():
    assert Residual((3, 9, 8), num_classes=4)(torch.zeros(2, 3, 9, 8)).shape == (2, 4)


def test_speckles_are_white_and_few():
    speckled = speckle(torch.zeros(4, 1, 100, 100, dtype=torch.uint8))
    assert set(speckled.unique().tolist()) == {0, 255}
    assert 0.01 < (speckled == 255).float().mean() < 0.03


def test_the_focal_loss_is_cross_entropy_that_counts_less_what_is_right():
    logits, labels = torch.tensor([[4.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
    torch.testing.assert_close(focal(logits, labels, gamma=0), cross_entropy(logits, labels))
    right, wrong = (focal(logits[i : i + 1], labels[:1]) for i in (0, 1))
    assert right < 0.001 * cross_entropy(logits[:1], labels[:1])
    assert wrong > 0.5 * cross_entropy(logits[1:], labels[:1])


def test_the_worst_class_counts():
    metric = WorstClass(num_classes=3)
    metric.update(torch.eye(3)[[0, 0, 1, 0]], torch.tensor([0, 0, 1, 1]))
    assert metric.compute() == 0.5  # there was no image of class 2


def test_the_experiment_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)  # its conf/ is where the commands are typed
    run = convscape.train("experiment=mine", "allow_packages=[mypackage]", f"output_dir={tmp_path}")
    assert run.metrics["test/acc"] > 0.9
