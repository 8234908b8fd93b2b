"""The average of the weights, the mirrored test images and soft labels, in whole runs."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import convscape
from convscape.models.losses import loss_of
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.trained.evaluate import evaluate
from convscape.trained.export import export
from convscape.trained.predict import predictions
from convscape.training.build import build_model, data_module
from tests.test_config import checked

FEW = [
    *("model.channels=[4]", "model.batch_norm=true", "data.train_size=96", "data.val_size=60"),
    *("data.batch_size=32", "trainer.max_epochs=3", "trainer.precision=fp32", "trainer.threads=1"),
    *("data.augment.mixup=0.5", "data.augment.cutmix=1", "optimizer.lr=0.01"),
    *("trainer.ema=0.8", "trainer.monitor=null", "trainer.progress=off", "visual=off"),
    "trainer.test_flip=true",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return convscape.train(*FEW, f"output_dir={tmp_path_factory.mktemp('average')}")


@pytest.fixture(scope="module")
def by_hand():
    """Weights and their average after the same steps, in a loop of one's own."""
    run = ResolvedRun(checked(*FEW))
    torch.manual_seed(run.config.seed)
    data, model = data_module(run), build_model(run)
    optimizer, average, step = model.configure_optimizers(), copy.deepcopy(model), 0
    for epoch in range(3):
        for images, labels in data.batches("train", epoch):
            for group in optimizer.param_groups:
                group["lr"] = model.learning_rate(step)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            step += 1
            decay = min(0.8, (1 + step) / (10 + step))
            weights = model.state_dict()
            for name, mean in average.state_dict().items():
                now = weights[name]
                mean.copy_(mean * decay + now * (1 - decay) if now.is_floating_point() else now)
    return data, model, average.eval()


def test_what_a_run_keeps_is_the_average_of_a_loop_of_ones_own(trained, by_hand):
    _, model, average = by_hand
    folder = RunFolder(trained.path)
    for path in (folder.best_checkpoint, folder.last_checkpoint):
        checkpoint = torch.load(path, weights_only=True)
        for name, expected in average.state_dict().items():
            torch.testing.assert_close(checkpoint["state_dict"][name], expected)
        other = checkpoint["callbacks"]["WeightAverage"]["other"]
        for name, tensor in other.items():
            torch.testing.assert_close(tensor, model.state_dict()[name])
        assert {*dict(model.named_parameters())} < {*other}


def test_the_average_is_what_is_validated_tested_and_evaluated(trained, by_hand):
    data, _, average = by_hand
    images, labels = data.tensors("val")
    with torch.no_grad():
        logits = average(images)
    loss = F.cross_entropy(logits, labels.long()).item()
    assert trained.metrics["val/loss"] == pytest.approx(loss, rel=1e-4)
    assert evaluate(trained, "val").loss == pytest.approx(loss, rel=1e-4)


def test_a_test_image_is_answered_together_with_its_mirror_image(trained, by_hand):
    data, _, average = by_hand
    images, labels = data.tensors("test")
    with torch.no_grad():
        plain, mirrored = average(images), average(torch.flip(images, [3]))
    losses = [F.cross_entropy(v, labels.long()).item() for v in (plain, (plain + mirrored) / 2)]
    assert trained.metrics["test/loss"] == pytest.approx(losses[1], rel=1e-4)
    assert abs(losses[0] - losses[1]) > 0.01
    evaluation = evaluate(trained, "test")
    assert (evaluation.flip, evaluation.loss) == (True, pytest.approx(losses[1], rel=1e-4))
    assert not evaluate(trained, "val").flip
    mirrored_too = evaluate(trained, "val", flip=True)
    assert "together with its mirror image" in str(mirrored_too)
    assert mirrored_too.loss != evaluate(trained, "val").loss


def test_several_steps_in_a_call_average_as_single_ones(trained, tmp_path):
    again = convscape.train(*FEW, "trainer.steps_per_execution=1", f"output_dir={tmp_path}")
    assert again.metrics == trained.metrics


def test_train_acc_counts_the_class_with_the_larger_share(trained):
    row = trained.history.iloc[0]
    assert 0 <= row["train/acc"] < 1
    images, labels = next(trained.data.batches("train", 0))
    assert labels.shape == (32, 10)
    torch.testing.assert_close(labels.sum(1), torch.ones(32))
    assert images.dtype == torch.uint8


LOGITS = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
SHARES = torch.tensor([[0.3, 0.7, 0], [1, 0, 0], [0, 0.5, 0.5], [0.1, 0, 0.9], [0, 1, 0]])


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ("cross_entropy", -(LOGITS.log_softmax(1) * SHARES).sum(1).mean()),
        ("logits_mse", ((LOGITS - SHARES) ** 2).mean()),
        ("softmax_mse", ((LOGITS.softmax(1) - SHARES) ** 2).mean()),
        (
            {"_target_": "torch.nn.CrossEntropyLoss"},
            -(LOGITS.log_softmax(1) * SHARES).sum(1).mean(),
        ),
        ({"_target_": "torch.nn.L1Loss"}, (LOGITS - SHARES).abs().mean()),
    ],
)
def test_losses_of_soft_labels_are_those_of_the_formulas(described, expected):
    torch.testing.assert_close(loss_of(described)(LOGITS, SHARES), expected)


@pytest.mark.parametrize("described", [{"_target_": "torch.nn.MultiMarginLoss"}])
def test_a_loss_of_class_ids_refuses_soft_labels_in_one_sentence(described):
    with pytest.raises(ValueError, match=r"MultiMarginLoss takes class ids .*mixup and cutmix"):
        loss_of(described)(LOGITS, SHARES)
    loss_of(described)(LOGITS, SHARES.argmax(1))


def test_an_own_loss_that_reads_soft_labels_otherwise_than_ids_is_refused():
    wrong, right = (
        {"_target_": f"tests.own_parts.{name}"} for name in ("first_share", "of_shares")
    )
    packages = ["tests"]
    with pytest.raises(ValueError, match=r"for one-hot labels it gives .*, for their class ids "):
        loss_of(wrong, allow_packages=packages)(LOGITS, SHARES)
    found = loss_of(right, allow_packages=packages)(LOGITS, SHARES)
    torch.testing.assert_close(found, F.cross_entropy(LOGITS, SHARES))


def test_what_answers_with_the_average_says_so(trained, tmp_path):
    answer = evaluate(trained, "val")
    assert ", with the averaged weights (trainer.ema=0.8)\n" in str(answer)
    assert answer.as_dict()["weights"] == "averaged"
    picture = tmp_path / "one.npy"
    np.save(picture, trained.data.tensors("test", slice(1))[0][0].numpy())
    _, table, errors = predictions(trained, [picture], top=1, invert=False)
    exported = str(export(trained, "torch_export", tmp_path / "model.pt2"))
    assert not errors
    for said in (table, exported):
        assert said.endswith(
            "with the averaged weights (trainer.ema=0.8)\neach image alone; test/acc averages it "
            "with its mirror image (trainer.test_flip)"
        )
    plain = dataclasses.replace(trained, config=checked(*FEW, "trainer.ema=null"))
    assert not plain.weights
    assert evaluate(plain, "val").as_dict()["weights"] == "trained"
    assert len(plain.remarks) == 1
