import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from convscape.base.quick_lightning import pl
from convscape.base.throughput import gains_from_bf16, steps_per_execution
from convscape.models.classifier import Diverged, ImageClassifier
from convscape.models.networks import CNN, MLP
from convscape.models.sums import MetricSums

TRAINING = {"mean": [0.2], "std": [0.5], "classes": list("0123456789")}


def cnn(**knobs):
    torch.manual_seed(0)
    return CNN([1, 28, 28], 10, training=TRAINING, **{"channels": [4, 8], **knobs})


def random_batch(num_images=6, num_classes=10):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (num_images, 1, 28, 28), generator=generator, dtype=torch.uint8)
    return images, torch.randint(0, num_classes, (num_images,), generator=generator)


def test_pixels_are_normalised_as_torchvision_does():
    from torchvision.transforms import functional as tv

    images, _ = random_batch()
    expected = torch.stack([tv.normalize(i / 255, [0.2], [0.5]) for i in images])
    torch.testing.assert_close(cnn().normalize(images), expected)


def test_softmax_regression_is_an_mlp_without_hidden_layers():
    model = MLP([1, 28, 28], 10, hidden=[], training=TRAINING)
    images, _ = random_batch()
    expected = model.normalize(images).flatten(1) @ model.network.output.weight.T
    torch.testing.assert_close(model(images), expected + model.network.output.bias)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "softmax_mse"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_class_ids_and_one_hot_labels_give_the_same_loss(loss, smoothing):
    model = ImageClassifier(nn.Identity(), loss=loss, label_smoothing=smoothing)
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1, 2, 2])
    torch.testing.assert_close(
        model.loss(logits, labels), model.loss(logits, F.one_hot(labels, 4).float())
    )


def test_losses_are_their_formulas():
    logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
    p = logits.softmax(1)[0]
    smooth = torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)  # 0.3 smoothing over 3 classes
    entropy = ImageClassifier(nn.Identity(), label_smoothing=0.3).loss(logits, torch.tensor([0]))
    assert entropy.item() == pytest.approx(-(smooth * p.log()).sum().item())
    for loss, outputs in (("mse", logits[0]), ("logits_mse", logits[0]), ("softmax_mse", p)):
        squared = ImageClassifier(nn.Identity(), loss=loss, label_smoothing=0.3)
        assert squared.loss(logits, torch.tensor([0])).item() == pytest.approx(
            ((outputs - smooth) ** 2).mean().item()
        )


def test_soft_labels_are_taken_as_they_are():
    model = ImageClassifier(nn.Identity())
    logits = torch.randn(1, 3, generator=torch.Generator().manual_seed(0))
    soft = torch.tensor([[0.5, 0.25, 0.25]])
    torch.testing.assert_close(model.loss(logits, soft), -(soft * logits.log_softmax(1)).sum())


def test_a_checkpoint_loads_in_a_fresh_process_with_weights_only(tmp_path):
    model = cnn(kernel_size=[3, "3x5"], batch_norm=True).eval()
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    images, _ = random_batch()
    torch.save({"images": images, "logits": model(images)}, tmp_path / "expected.pt")
    code = """
import sys, torch
from convscape.models import CNN
model = CNN.load_from_checkpoint(sys.argv[1], weights_only=True, map_location="cpu").eval()
expected = torch.load(sys.argv[2], weights_only=True)
assert torch.equal(model(expected["images"]), expected["logits"])
assert model.classes == list("0123456789")
"""
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.ckpt", tmp_path / "expected.pt"], check=True
    )


def test_a_model_takes_the_steps_of_a_plain_loop():
    """Four steps with clipping and a schedule, beside the same written by hand with torch."""
    schedule = {"name": "cosine", "steps_per_epoch": 4, "total_steps": 4}
    model = CNN(
        [1, 28, 28],
        10,
        channels=[4],
        training={
            **TRAINING,
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
            "schedule": schedule,
            "gradient_clip_norm": 0.5,
        },
    )
    by_hand = CNN([1, 28, 28], 10, channels=[4], training=TRAINING)
    by_hand.load_state_dict(model.state_dict())
    batches = [random_batch(8), random_batch(8)] * 2
    fit(model, batches, steps_per_call=3)

    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    for images, labels in batches:
        optimizer.zero_grad()
        F.cross_entropy(by_hand(images), labels).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        optimizer.step()
        scheduler.step()
    for ours, theirs in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert model.trainer.global_step == 4


class Calls:
    """What each call of training_step gets, as a loader (Lightning takes a list for several)."""

    def __init__(self, calls):
        self.calls = calls

    def __len__(self):
        return len(self.calls)

    def __iter__(self):
        return iter(self.calls)


def fit(model, batches, steps_per_call):
    """Train one epoch on `batches`, several in each call of training_step."""
    calls = [batches[i : i + steps_per_call] for i in range(0, len(batches), steps_per_call)]
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(model, Calls(calls), Calls([]))
    return trainer


def sgd(lr):
    return {
        "optimizer": {"name": "sgd", "lr": lr},
        "schedule": {"name": "constant", "steps_per_epoch": 4, "total_steps": 4},
    }


def test_the_epochs_metrics_are_means_over_images():
    """A step of 2 and one of 6 images: the mean is over the 8 images and not over the steps."""
    model = MLP([1, 28, 28], 10, hidden=[], training={**TRAINING, **sgd(1e-12)})
    batches = [random_batch(2), random_batch(6)]
    with torch.no_grad():
        losses = [
            F.cross_entropy(model(images), labels, reduction="none") for images, labels in batches
        ]
        hits = [(model(images).argmax(1) == labels) for images, labels in batches]
    trainer = fit(model, batches, steps_per_call=2)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        torch.cat(losses).mean().item(), rel=1e-5
    )
    assert float(trainer.callback_metrics["train/acc"]) == torch.cat(hits).double().mean()


def test_a_loss_that_is_not_finite_stops_the_run_at_its_step():
    model = MLP([1, 28, 28], 10, hidden=[4], training={**TRAINING, **sgd(1e30)})
    with pytest.raises(Diverged, match=r"at step [23] \(learning rate 1e\+30\)"):
        fit(model, [random_batch(4)] * 4, steps_per_call=4)


def test_sums_survive_a_checkpoint():
    sums, other = MetricSums(), MetricSums()
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    sums.add([torch.tensor(0.5)], [logits], [torch.tensor([0, 0])])
    other.load_state_dict(sums.state_dict())
    other.add([torch.tensor(0.1)], [logits[:1]], [torch.tensor([[0.9, 0.1]])])
    assert other.totals().tolist() == pytest.approx([1.1, 2, 3])
    assert other.num_batches == 2


def test_sums_find_the_first_step_that_is_not_finite():
    sums = MetricSums()
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    sums.add([torch.tensor(1.0)] * 2, [logits] * 2, [labels] * 2)
    assert sums.first_not_finite() is None
    sums.add([torch.tensor(1.0), torch.tensor(float("inf"))], [logits] * 2, [labels] * 2)
    assert sums.first_not_finite() == 3


class CountingChecks(TorchFunctionMode):
    """Counts the losses that are looked at."""

    num_losses = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.isfinite:
            self.num_losses += args[0].numel()
        return function(*args, **(kwargs or {}))


def test_each_loss_is_looked_at_once():
    sums, checks = MetricSums(), CountingChecks()
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    with checks:
        for _ in range(50):
            sums.add([torch.tensor(1.0)] * 2, [logits] * 2, [labels] * 2)
            assert sums.first_not_finite() is None
    assert checks.num_losses == 100


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
def test_large_steps_are_not_bundled(kind):
    assert steps_per_execution(10**9, 4096, kind) == 1
    assert steps_per_execution(1000, 32, kind) == 50


def test_a_gpu_takes_more_steps_in_a_call_than_a_cpu():
    macs, batch_size = 2_440_960, 128  # the default CNN on MNIST
    assert steps_per_execution(macs, batch_size, "cpu") < 10
    assert steps_per_execution(macs, batch_size, "cuda") == 50


def test_where_bf16_begins_to_gain_is_another_network_on_a_gpu():
    assert [gains_from_bf16(200_000, kind) for kind in ("cpu", "cuda")] == [True, False]
    assert [gains_from_bf16(2_000_000, kind) for kind in ("cpu", "cuda")] == [True, True]
