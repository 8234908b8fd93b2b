"""One run from the command line to its folder, as a user sees it."""

import csv
import json
import os
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convscape.base import machine
from convscape.runs.resolved import ResolvedRun
from tests.conftest import PATIENCE_S, ROOT, TINY
from tests.test_config import checked

CONTRACT = {
    "run", "fingerprint", "status", "error", "config", "overrides", "seed", "num_parameters",
    "macs", "receptive_field", "metrics", "best_epoch", "epochs", "global_step", "seconds",
    "samples_per_second", "peak_memory_bytes", "checkpoint", "environment",
}  # fmt: skip


def only_run(tmp_path):
    (folder,) = (tmp_path / "outputs" / "runs").iterdir()
    return folder


def result_of(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_run_leaves_all_that_it_promises(command, tmp_path):
    answer = command("train", *TINY, "seed=3")
    assert answer.code == 0, answer.err
    folder = only_run(tmp_path)
    result = result_of(folder)
    assert set(result) >= CONTRACT
    assert (result["status"], result["error"], result["seed"]) == ("ok", None, 3)
    assert result["overrides"] == [*TINY, "seed=3"]
    assert (result["epochs"], result["global_step"]) == (2, 6)
    assert set(result["metrics"]) == {
        f"{split}/{name}" for split in ("train", "val", "test") for name in ("loss", "acc")
    }
    assert set(result["seconds"]) == {"setup", "fit", "test"}
    assert result["config"]["model"]["channels"] == [4]
    assert yaml.safe_load((folder / "config.yaml").read_text()) == result["config"]
    assert (folder / result["checkpoint"]).is_file()
    assert folder.name.endswith(result["run"])

    with (folder / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in history] == [1, 2]
    best = max(history, key=lambda row: float(row["val/acc"]))
    assert result["best_epoch"] == int(best["epoch"])
    assert result["metrics"]["val/acc"] == float(best["val/acc"])

    assert "block1.conv" in answer.out
    assert "--logdir outputs/runs\n" in answer.out
    assert "explain.py latest" in answer.out
    assert answer.err.count("epoch ") == 2  # no terminal: a line for each epoch


def test_tensorboard_gets_losses_accuracies_learning_rate_and_speed(command, tmp_path):
    command("train", *TINY)
    events = EventAccumulator(str(only_run(tmp_path)))
    events.Reload()
    expected = {"loss/train", "acc/train", "loss/val", "acc/val", "lr", "samples_per_second"}
    tags = set(events.Tags()["scalars"])
    assert expected | {"result/test/loss", "result/test/acc"} <= tags
    assert all(len(events.Scalars(tag)) == 2 for tag in expected)


def test_the_same_seed_gives_the_same_bits_and_another_one_does_not(command, tmp_path):
    for seed in (0, 0, 1):
        assert command("train", *TINY, f"seed={seed}", "model.dropout=0.2").code == 0
    results = [result_of(folder) for folder in (tmp_path / "outputs" / "runs").iterdir()]
    same = [result["metrics"] for result in results if result["seed"] == 0]
    (other,) = (result["metrics"] for result in results if result["seed"] == 1)
    assert same[0] == same[1] != other


def test_several_steps_per_call_change_nothing(command, tmp_path):
    for steps in (1, 2):
        command("train", *TINY, f"trainer.steps_per_execution={steps}", "data.augment.shift=2")
    one, other = (result_of(f) for f in (tmp_path / "outputs" / "runs").iterdir())
    assert one["metrics"] == other["metrics"]
    assert one["fingerprint"] == other["fingerprint"]


def test_max_steps_ends_the_training_within_an_epoch(command, tmp_path):
    overrides = [*TINY, "trainer.max_epochs=null", "trainer.max_steps=4"]
    assert command("train", *overrides, "trainer.steps_per_execution=3").code == 0
    result = result_of(only_run(tmp_path))
    assert (result["global_step"], result["epochs"]) == (4, 2)


def test_early_stopping_ends_after_epochs_without_a_gain(command, tmp_path):
    overrides = ["trainer.max_epochs=9", "trainer.early_stopping=1", "optimizer.lr=1e-12"]
    assert command("train", *TINY[:3], *overrides).code == 0
    result = result_of(only_run(tmp_path))
    assert (result["epochs"], result["best_epoch"]) == (2, 1)


def test_without_validation_images_the_last_checkpoints_are_kept(command, tmp_path):
    assert command("train", *TINY[:2], "data.val_size=0", "trainer.max_epochs=2").code == 0
    result = result_of(only_run(tmp_path))
    assert result["best_epoch"] == 2
    assert "val/acc" not in result["metrics"]


def test_a_loss_that_is_not_finite_ends_as_diverged(command, tmp_path):
    answer = command("train", *TINY, "optimizer=sgd", "optimizer.lr=1e30")
    assert answer.code == 1
    result = result_of(only_run(tmp_path))
    assert result["status"] == "diverged"
    assert "step" in result["error"]["message"]
    assert "smaller optimizer.lr" in answer.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.kernal_size=3"], "did you mean 'model.kernel_size'?"),
        (["+model.kernal_size=3"], "did you mean 'kernel_size'?"),
        (
            ["model=cn"],
            "resnet20, sequential, torchvision; did you mean 'cnn'?",
        ),
        (["model.kernel_size=29"], "block 1: a 29x29 kernel does not fit its 28x28 input"),
        (["model.kernel_size=3,5"], "add -m"),
        (["model.kernel_size"], "an override looks like key=value"),
        (["data=image_folder", "data.root=nowhere"], "there is no folder"),
        (["data=mnist", "data.download=false", "data.root=nowhere"], "nowhere"),
        (["data.val_size=5000"], "leaves no image to train on: the train split has 1,438"),
        (["data.train_size=5000"], "ask for 5,200 images, but the train split has 1,438"),
        (["trainer.device=mps"], "trainer.device=mps is not on this machine; allowed: auto, cpu"),
        (["data.mean=[0.1,0.2]"], "has 2 entries for 1 channel; allowed: one for each"),
        (["resume=nowhere"], "resume=nowhere: there is no such file"),
        (["resume=nowhere", "seed=3"], "leave out seed=3"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_exit_code_2(command, tmp_path, arguments, words):
    answer = command("train", *arguments)
    assert answer.code == 2
    assert words in answer.err, answer.err
    assert answer.err.startswith("error: ")
    assert "Traceback" not in answer.err
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_an_output_folder_that_cannot_be_written_is_one_sentence(command, tmp_path):
    (tmp_path / "file").write_text("")
    answer = command("train", *TINY, "output_dir=file")
    assert answer.code == 2
    assert "choose another place with output_dir" in answer.err


OWN = """
    import torch
    from convscape.base.quick_lightning import pl

    class Net(torch.nn.Sequential):
        def __init__(self, num_classes, width):
            layers = torch.nn.Linear(784, width), torch.nn.Linear(width, num_classes)
            super().__init__(torch.nn.Flatten(), *layers)

    class Raises(Net):
        def forward(self, images):
            if self.training:
                raise RuntimeError("on purpose")
            return super().forward(images)

    class Exits(Raises):
        def forward(self, images):
            if self.training:
                raise SystemExit(3)
            return super().forward(images)

    class Greedy(Net):
        def forward(self, images):
            torch.empty(2**60 if self.training else 1, dtype=torch.uint8)
            return super().forward(images)

    class Lit(pl.LightningModule):
        def __init__(self, num_classes):
            super().__init__()
            self.net = Net(num_classes, 8)

        def training_step(self, batch, batch_idx):
            images, labels = batch
            assert images.dtype == torch.float32
            loss = torch.nn.functional.cross_entropy(self.net(images), labels)
            self.log("train/loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

        def test_step(self, batch, batch_idx):
            self.log("test/acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def not_a_class():
        pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of the user's own."""
    (tmp_path / "mynets.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield ["model=own", "allow_packages=[mynets]", *TINY[1:]]
    sys.modules.pop("mynets", None)


class TestOwnModels:
    @pytest.mark.parametrize(
        "arguments",
        [["model._target_=mynets.Net", "+model.width=8"], ["model._target_=mynets.Lit"]],
    )
    def test_a_module_of_the_users_trains(self, command, own, tmp_path, arguments):
        answer = command("train", *own, *arguments)
        assert answer.code == 0, answer.out + answer.err
        result = result_of(only_run(tmp_path))
        assert result["num_parameters"] == 784 * 8 + 8 + 8 * 10 + 10
        assert result["metrics"]["test/acc"] > 0.3

    @pytest.mark.parametrize(
        ("name", "status", "kind"),
        [
            ("Raises", "failed", "RuntimeError"),
            ("Exits", "failed", "SystemExit"),
            ("Greedy", "out_of_memory", "RuntimeError"),
        ],
    )
    def test_however_it_ends_the_run_says_so(self, command, own, tmp_path, name, status, kind):
        answer = command("train", *own, f"model._target_=mynets.{name}", "+model.width=8")
        assert answer.code == 1
        folder = only_run(tmp_path)
        result = result_of(folder)
        assert (result["status"], result["error"]["type"]) == (status, kind)
        assert "Traceback" in (folder / "run.log").read_text()
        assert "Traceback" not in answer.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["model._target_=mynets.Nett"], "has no attribute 'Nett'"),
            (
                ["model._target_=mynets.not_a_class"],
                "gave a NoneType; allowed: a network",
            ),
            (["model._target_=mynets.Net"], "missing a required argument: 'width'"),
            (["model._target_=other.Net"], "add allow_packages=[other]"),
        ],
    )
    def test_a_wrong_target_is_one_sentence(self, command, own, tmp_path, arguments, words):
        answer = command("train", *own, *arguments)
        assert (answer.code, words in answer.err) == (2, True), answer.err


def test_a_stranger_cannot_have_code_run_by_a_run_folder(command, own, tmp_path):
    assert command("train", *own, "model._target_=mynets.Lit", "trainer.max_epochs=1").code == 0
    folder = only_run(tmp_path)
    (folder / "result.json").unlink()
    sys.modules.pop("mynets")
    assert "add allow_packages=[mynets]" in command("train", f"resume={folder}").err
    assert "mynets" not in sys.modules


def test_process_state_does_not_leak_from_run_to_run(command, tmp_path):
    command("train", *TINY, "trainer.deterministic=true", "trainer.threads=2")
    command("train", *TINY, "seed=5")
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 1


def test_help_answers_at_once_and_names_every_choice(start_fresh):
    resource = pytest.importorskip("resource", reason="Windows has none")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    out, _ = start_fresh("train", "--help").communicate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert "scripts/train.py -m sweep=geometry" in out
    assert "cifar10, cifar100, csv, digits" in out
    assert seconds < 1, seconds


def test_the_config_is_shown_without_torch(start_fresh):
    process = start_fresh("train", "--cfg", "job", "model=mlp", PYTHONPROFILEIMPORTTIME="1")
    out, imports = process.communicate()
    assert yaml.safe_load(out)["model"]["hidden"] == [512, 512]
    assert " hydra" in imports
    assert " torch" not in imports


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "accuracy"),
    [
        (["data=digits"], 0.975),
        (["data=mnist"], 0.990),
        (["data=mnist", "model=mlp", "model.hidden=[50,50]", "trainer.max_epochs=10"], 0.97),
    ],
)
def test_real_data_reach_their_accuracy(command, real_data, tmp_path, overrides, accuracy):
    assert command("train", *overrides, f"data.root={real_data}").code == 0
    assert result_of(only_run(tmp_path))["metrics"]["test/acc"] >= accuracy


def test_two_processes_come_to_the_result_of_one(start, command, tmp_path):
    """DDP on the CPU: the same images in each step, so the same gradients but for rounding.

    The last batch has five images, of which one process takes three.
    """
    common = ["data.train_size=261", "data.val_size=101", "trainer.max_epochs=2"]
    common += ["model.channels=[4]", "trainer.threads=1", "trainer.device=cpu", "optimizer=sgd"]
    common += ["trainer.precision=fp32", "data.augment.shift=1", "data.eval_batch_size=50"]
    common += ["data.batch_size=32", "trainer.ema=0.8", "data.augment.mixup=0.4"]
    common += ["data.augment.random_erasing=0.5", "data.augment.rand_augment=9"]
    process = start("train", *common, "trainer.devices=2", "output_dir=two")
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out + err
    assert out.count("run folder:") == 1
    assert command("train", *common, "output_dir=one").code == 0
    (two,), (one,) = (list(tmp_path.glob(f"{name}/runs/*")) for name in ("two", "one"))
    ours, theirs = (
        torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (two, one)
    )
    torch.testing.assert_close(ours["state_dict"], theirs["state_dict"], rtol=1e-5, atol=1e-6)
    weights, expected = (each["callbacks"]["WeightAverage"]["other"] for each in (ours, theirs))
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    ours, theirs = result_of(two), result_of(one)
    assert ours["fingerprint"] == theirs["fingerprint"]
    assert ours["global_step"] == theirs["global_step"] == 18
    assert ours["metrics"] == pytest.approx(theirs["metrics"], rel=1e-5)
    curves = []
    for folder in (two, one):
        with (folder / "history.csv").open() as file:
            rows = [{**row, "train_seconds": 0} for row in csv.DictReader(file)]
        curves.append([float(value) for row in rows for value in row.values()])
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


@pytest.mark.parametrize(
    ("overrides", "has_native", "expected"),
    [
        (["model=cnn"], True, True),
        (["model=cnn"], False, False),
        (["model=mlp", "model.hidden=[64]"], True, False),
        (["model=mlp", "model.hidden=[64]", "trainer.precision=bf16"], False, True),
        (["model=cnn", "trainer.precision=fp32"], True, False),
    ],
)
def test_automatic_precision_asks_the_hardware_and_the_size_of_the_network(
    overrides, has_native, expected, monkeypatch
):
    monkeypatch.setattr(machine, "has_native_bf16", lambda device: has_native)
    assert ResolvedRun(checked(*overrides)).uses_bf16 is expected


@pytest.fixture
def memory_group():
    """1.4 GB of memory in all, cached files included; skips where that cannot be had."""
    controller = Path("/sys/fs/cgroup/memory")
    group, limit = controller / f"convscape-{os.getpid()}", "memory.limit_in_bytes"
    if not controller.is_dir():  # version 2
        group, limit = controller.parent / group.name, "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text(str(MEMORY_LIMIT))
    except OSError as error:
        pytest.skip(f"needs a control group for memory, as root: {error}")
    yield group
    group.rmdir()


MEMORY_LIMIT = 1_400_000_000


@pytest.mark.slow
def test_a_folder_of_pictures_larger_than_memory_trains(memory_group, tmp_path):
    num_pictures = 2200  # of 3 x 512 x 512 bytes: 1.7 GB
    rng = np.random.default_rng(0)
    for name in "ab":
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        first = folder / "0.png"
        Image.fromarray(rng.integers(0, 255, (512, 512, 3), dtype=np.uint8)).save(first)
        for number in range(1, num_pictures // 2):
            os.link(first, folder / f"{number}.png")
    overrides = ["data=image_folder", "data.root=pictures", "data.image_size=512"]
    overrides += ["data.val_size=100", "data.batch_size=4", "data.eval_batch_size=4"]
    overrides += ["model=cnn", "model.channels=[2]", "model.stride=4", "model.head=global_avg"]
    overrides += ["trainer.max_epochs=1", "trainer.threads=1", "visual=off"]
    command = shlex.join([sys.executable, str(ROOT / "scripts" / "train.py"), *overrides])
    process = subprocess.run(
        ["sh", "-c", f"echo $$ > {memory_group}/cgroup.procs && exec {command}"],
        cwd=tmp_path,
        env={**os.environ, "CONVSCAPE_CACHE": "cache"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    cached = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert cached > MEMORY_LIMIT


@pytest.mark.parametrize("before", [None, "0"])
def test_without_a_gpu_a_run_does_not_look_for_one_in_each_step(before, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    with machine.without_cuda_probing():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == before  # a job started later may have a GPU
