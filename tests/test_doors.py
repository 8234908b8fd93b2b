"""Parts of one's own and of the trusted homes: each is trained, stopped, swept, reported and used.

`WAYS` goes through every door at once, with a part of one's own in each, and with one of a trusted
home in each; what holds for all of them together is then what holds for each.
"""

import csv
import json
import sys

import numpy as np
import pandas
import pytest
import torch

import convscape
from convscape.base.errors import ConfigError
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.trained.load import load_run
from convscape.training.build import build_model
from convscape.training.run import train
from tests.dying import train_apart
from tests.test_config import checked
from tests.test_resume import assert_equal_runs

OWN = "allow_packages=[tests]"
SHORT = [
    *("data.train_size=150", "data.val_size=60", "data.batch_size=32", "trainer.max_epochs=3"),
    *("trainer.threads=1", "trainer.progress=off", "visual=off", OWN),
]
DIGITS = ["data=digits", "data.image_size=12"]
WAYS = {
    "own parts": [
        *("data._target_=tests.own_parts.bars", "data.augment.own=[tests.own_parts.speckle]"),
        *("model._target_=tests.own_parts.Net", "+model.width=4"),
        *("loss._target_=tests.own_parts.focal", "+loss.gamma=1.5"),
        *("optimizer._target_=tests.own_parts.Signs", "optimizer.lr=0.003"),
        *("scheduler._target_=tests.own_parts.Sawtooth", "scheduler.interval=step"),
        *("+metrics.sure._target_=tests.own_parts.Sure", "trainer.monitor=val/sure"),
        *("trainer.monitor_mode=max", "+callbacks.watch._target_=tests.own_parts.Watch"),
        *("+logger.lines._target_=tests.own_parts.Lines", "+logger.lines.path=lines.txt"),
    ],
    "trusted parts": [
        *(*DIGITS, "model=mlp", "model.hidden=[16]", "model.dropout=0.1"),
        *("loss._target_=torch.nn.MultiMarginLoss", "+loss.p=2", "loss.class_weights=balanced"),
        *("optimizer._target_=torch.optim.NAdam", "optimizer.lr=0.01"),
        *("scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "+scheduler.patience=0"),
        "+metrics.f1._target_=torchmetrics.F1Score",
        "+callbacks.timer._target_=lightning.pytorch.callbacks.Timer",
        "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping",
        *("+callbacks.stop.monitor=val/loss", "+callbacks.stop.patience=2"),
        "+callbacks.mean._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
        "+callbacks.mean.decay=0.8",
        "+logger.table._target_=lightning.pytorch.loggers.CSVLogger",
    ],
    "a child of CNN": [
        *(*DIGITS, "model._target_=tests.own_parts.Small", "+model.kernel_size=5"),
        "scheduler._target_=torch.optim.lr_scheduler.OneCycleLR",
        "scheduler.interval=step",
    ],
    "a child of ImageClassifier": [
        *(*DIGITS, "model._target_=tests.own_parts.Margins", "+model.margin=0.5"),
    ],
    "torchvision's": [
        *("model=torchvision", "model.name=mobilenet_v3_small", *DIGITS),
        *(
            "data.channels=3",
            "trainer.max_epochs=2",
            "trainer.precision=fp32",
        ),
    ],
}
SWEPT = {
    "own parts": ("loss.gamma", "1,2"),
    "trusted parts": ("optimizer._target_", "torch.optim.NAdam,torch.optim.RAdam"),
    "a child of CNN": ("model.kernel_size", "3,5"),
    "a child of ImageClassifier": ("model.margin", "0.5,1"),
    "torchvision's": ("model.name", "mobilenet_v3_small,mobilenet_v2"),
}


LONG = "torchvision's"  # networks of a hundred layers
EACH = [pytest.param(way, marks=[pytest.mark.long] if way == LONG else []) for way in WAYS]


@pytest.fixture(scope="module", params=EACH)
def way(request, tmp_path_factory):
    """Its name, its overrides, and a run that nobody stopped."""
    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        words = [*SHORT, *WAYS[request.param]]
        assert train_apart(words, path / "run") == "ok"
        yield request.param, words, RunFolder(path / "run")


# the first three epochs have five steps each
@pytest.mark.parametrize(("moment", "number"), [("step", 4), ("validation", 3), ("epoch", 2)])
def test_it_goes_on_bit_for_bit(way, tmp_path, monkeypatch, moment, number):
    _, words, whole = way
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run"
    assert train_apart(words, path, moment, number) is None
    assert train_apart(words, path) == "ok"
    assert_equal_runs(RunFolder(path), whole)


def test_it_is_swept_and_reported(way, command, tmp_path):
    name, words, _ = way
    key, values = SWEPT[name]
    others = [word for word in words if word.lstrip("+").partition("=")[0] != key]
    plus = "" if key in ("optimizer._target_", "model.name") else "+"
    short = "trainer.max_epochs=1"
    answer = command(
        "train", "-m", *others, short, f"{plus}{key}={values}", "seed=0,1", "name=grid"
    )
    assert answer.code == 0, answer.out + answer.err
    folder = tmp_path / "outputs" / "sweeps" / "grid"
    table = pandas.read_csv(folder / "results.csv")
    assert (table.status == "ok").all()
    column = key.removesuffix("._target_")
    wanted = [value.rpartition(".")[2] if column != key else value for value in values.split(",")]
    found = [f"{v:g}" if isinstance(v, float) else str(v) for v in table[column].unique()]
    assert sorted(found) == sorted(wanted)
    assert (folder / "report.html").is_file()
    again = command("train", "-m", *others, short, f"{plus}{key}={values}", "seed=0,1", "name=grid")
    assert again.code == 0
    assert len(list(folder.glob("*/result.json"))) == 4


def test_it_is_evaluated_and_exported(way, command):
    _, _, whole = way
    stored = json.loads(whole.result_file.read_text())["metrics"]
    allowed = ["--allow-packages", "tests"]
    answer = command("evaluate", whole.path, "--json", *allowed)
    assert answer.code == 0, answer.err
    measured = json.loads(answer.out)
    for name in {name for name in stored if name.startswith("test/")}:
        assert measured[name] == pytest.approx(stored[name], abs=1e-6), name
    answer = command("export", whole.path, "--format", "torch_export", *allowed)
    assert answer.code == 0, answer.err
    answer = command("explain", whole.path, 3, *allowed)
    assert answer.code == 0, answer.err


# --- what the parts did --------------------------------------------------------------------------


def rows(folder):
    with folder.history_file.open() as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def run_of(tmp_path, *words):
    words = [*SHORT, *DIGITS, "model=mlp", "model.hidden=[16]", *words]
    assert train(ResolvedRun(checked(*words), words), tmp_path / "run").status == "ok"
    return RunFolder(tmp_path / "run")


def test_a_callback_sees_batches_gradients_and_steps(tmp_path):
    folder = run_of(tmp_path, "+callbacks.watch._target_=tests.own_parts.Watch")
    state = torch.load(folder.last_checkpoint, weights_only=True)["callbacks"]["Watch"]
    assert (state["seen"], state["steps"]) == (3 * 150, 3 * 5)
    assert state["gradients"] > 0
    gradients = [row["val/gradients"] for row in rows(folder)]
    assert gradients == sorted(gradients)


def test_it_changes_nothing_that_it_only_watches(tmp_path):
    plain = rows(run_of(tmp_path / "plain"))
    watched = rows(run_of(tmp_path / "watched", "+callbacks.w._target_=tests.own_parts.Watch"))
    for one, other in zip(plain, watched, strict=True):
        assert {k: v for k, v in one.items() if k != "train_seconds"}.items() <= other.items()


def test_a_logger_of_ones_own_gets_every_epoch(tmp_path):
    lines = tmp_path / "lines.txt"
    words = ["+logger.l._target_=tests.own_parts.Lines", f"+logger.l.path={lines}"]
    run_of(tmp_path, *words)
    text = lines.read_text()
    assert text.startswith("hparams {")
    assert text.count("val/acc") == 3
    assert text.count("test/acc") == 1


def test_lightnings_loggers_write_into_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = run_of(tmp_path, "+logger.t._target_=lightning.pytorch.loggers.CSVLogger")
    (table,) = tmp_path.rglob("metrics.csv")
    assert table.is_relative_to(folder.path / "loggers" / "t")
    assert "val/acc" in table.read_text()


def test_a_schedule_of_torchs_sets_the_rate_as_in_torch(tmp_path):
    words = ["scheduler._target_=torch.optim.lr_scheduler.ExponentialLR", "+scheduler.gamma=0.5"]
    rates = [row["lr"] for row in rows(run_of(tmp_path, *words, "optimizer.lr=0.01"))]
    assert rates == pytest.approx([0.01, 0.005, 0.0025])


def test_a_child_that_makes_its_optimiser_keeps_its_rates(tmp_path):
    words = ["model._target_=tests.own_parts.Margins", "scheduler=constant"]
    words = [*SHORT, *DIGITS, *words]
    assert train(ResolvedRun(checked(*words), words), tmp_path / "run").status == "ok"
    folder = RunFolder(tmp_path / "run")
    # no epoch reaches the plateau's threshold
    assert [row["lr"] for row in rows(folder)] == pytest.approx([0.02, 0.002, 0.0002])
    (optimizer,) = torch.load(folder.last_checkpoint, weights_only=True)["optimizer_states"]
    body, head = (group["lr"] for group in optimizer["param_groups"])
    assert head == pytest.approx(5 * body)


def test_class_weights_are_those_of_scikit_learn(tmp_path):
    from sklearn.utils.class_weight import compute_class_weight

    words = [*SHORT, "data.val_size=0.3", "loss.class_weights=balanced"]
    run = ResolvedRun(checked(*words))
    labels = run.image_set.train_labels[run.train_indices]
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels)
    model = build_model(run)
    assert model.class_weights == pytest.approx(list(expected))
    logits, targets = torch.randn(20, 10), torch.arange(20) % 10
    weights = torch.tensor(expected, dtype=torch.float32)
    weighted = torch.nn.functional.cross_entropy(logits, targets, weight=weights)
    assert torch.equal(model.train().loss(logits, targets), weighted)
    plain = torch.nn.functional.cross_entropy(logits, targets)
    assert torch.equal(model.eval().loss(logits, targets), plain)


@pytest.mark.parametrize("name", ["BCEWithLogitsLoss", "MSELoss", "HuberLoss", "CrossEntropyLoss"])
def test_losses_of_torch_are_compared_with_what_they_take(tmp_path, name):
    run_of(tmp_path, f"loss._target_=torch.nn.{name}")


def test_models_of_ones_own_classes_are_handed_over_in_python(tmp_path, monkeypatch):
    from tests.own_parts import Margins, Small

    monkeypatch.chdir(tmp_path)
    data = convscape.data_module("digits", image_size=12, train_size=150, val_size=60)
    for model in (Small.for_data(data), Margins(data.image_shape, 10)):
        run = convscape.train(
            "trainer.max_epochs=1", "trainer.progress=off", model=model, data=data
        )
        assert run.result.status == "ok"
        assert load_run(run.path, ["tests"]).metrics == run.metrics


def test_losses_know_whether_they_make_probabilities(command, tmp_path):
    from convscape.models.losses import gives_probabilities

    for target, makes in (("torch.nn.MultiMarginLoss", False), ("torch.nn.CrossEntropyLoss", True)):
        model = convscape.MLP((1, 8, 8), 10, hidden=[4], training={"loss": {"_target_": target}})
        assert gives_probabilities(model) is makes


def test_a_module_that_nobody_can_ask_is_one_sentence(command, tmp_path):
    words = [*SHORT, *DIGITS, "model._target_=tests.own_parts.Silent"]
    assert train(ResolvedRun(checked(*words), words), tmp_path / "run").status == "ok"
    for script, *more in (["evaluate"], ["explain", 3], ["export", "--format", "torch_export"]):
        answer = command(script, tmp_path / "run", *more, "--allow-packages", "tests")
        assert (answer.code, "Silent has no forward" in answer.err) == (2, True), answer.err


@pytest.mark.long
def test_arguments_of_a_part_are_searched(command, tmp_path):
    words = ["search=learning", "name=s", "model=mlp", "model.hidden=[8]", "search.trials=2", OWN]
    space = "search.space={loss.gamma:{low:0.5,high:3.0}}"
    words += ["loss._target_=tests.own_parts.focal", "~search.space", f"+{space}"]
    answer = command("search", *words, *SHORT[:3], "trainer.max_epochs=1")
    assert answer.code == 0, answer.out + answer.err
    assert "2 trained" in answer.out
    assert "loss.gamma" in answer.out


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["loss._target_=tests.bad_parts.no_mean"], "gave a tensor (32,); allowed: one number"),
        (["loss._target_=tests.bad_parts.detached"], "cannot trace back to the logits"),
        (["loss._target_=tests.bad_parts.Learned"], "has its own weights to learn"),
        (["loss._target_=torch.nn.NLLLoss"], "allowed: torch.nn.CrossEntropyLoss"),
        (["loss._target_=torch.nn.MultiMarginLoss", "+loss.marginn=1"], "did you mean 'margin'?"),
        (["+loss.margin=1"], "loss.margin: for which loss?"),
        (["loss._target_=torch.nn.MSELoss", "loss.class_weights=balanced"], "takes no `weight`"),
        (["loss.class_weights=[1,2]"], "or 10 numbers, one per class"),
        (["model.loss=mse", "loss.class_weights=balanced"], "allowed: model.loss=cross_entropy"),
        (
            ["loss._target_=torch.nn.MSELoss", "model.loss=mse"],
            "model.loss=logits_mse: loss._target_=torch.nn.MSELoss is the loss; leave it out",
        ),
        (["optimizer._target_=torch.optim.LBFGS"], "computes the loss itself"),
        (["optimizer._target_=torch.optim.NAdamm"], "did you mean 'NAdam'?"),
        (["optimizer._target_=torch.optim.NAdam", "+optimizer.beta=1"], "allowed: lr, betas"),
        (["optimizer._target_=tests.own_parts.Net"], "is no Optimizer; allowed: an optimiser of"),
        (["optimizer._target_=tests.own_parts.focal"], "is not a class"),
        (["optimizer._target_=tests.bad_parts.Broken"], "ZeroDivisionError: division by zero ("),
        (["optimizer._target_=tests.bad_module.X"], "bad_module.py, line 3)"),
        (
            ["scheduler._target_=torch.optim.lr_scheduler.StepLR"],
            "missing a required argument: 'st",
        ),
        (["+callbacks.x._target_=torch.optim.SGD"], "allowed: a callback of lightning.pytorch"),
        (["model=torchvision"], "does not take images of 1x12x12; data.channels=3 works"),
        (
            ["model=torchvision", "data.channels=3", "model.name=resnet19"],
            "did you mean 'resnet18'?",
        ),
        (
            ["model._target_=tests.own_parts.Margins", "loss._target_=torch.nn.MSELoss"],
            "tests.own_parts.Margins.loss decides that, and ignores this; leave it out",
        ),
        (
            ["model._target_=tests.own_parts.Margins", "optimizer.lr=0.1"],
            "optimizer.lr=0.1: tests.own_parts.Margins.configure_optimizers decides that",
        ),
        (["model._target_=tests.own_modules.Lit", "loss._target_=torch.nn.MSELoss"], "ignores it"),
        (["+logger.tensorbord.x=1"], "logger.tensorbord: there is no such key"),
    ],
)
def test_a_part_that_is_wrong_is_one_sentence(command, words, sentence):
    answer = command("train", *SHORT, *DIGITS, *words)
    assert answer.code == 2, answer.out + answer.err
    assert sentence in answer.err, answer.err
    assert answer.err.startswith("error: ")


def test_a_part_that_fails_while_it_trains_is_named_with_its_line(command, tmp_path):
    answer = command("train", *SHORT, *DIGITS, "+callbacks.x._target_=tests.bad_parts.Falls")
    assert answer.code == 1
    assert "failed: RuntimeError: on purpose" in answer.out
    assert "bad_parts.py, line" in answer.out


def test_a_state_that_no_checkpoint_can_keep_is_told_at_once(command):
    answer = command("train", *SHORT, *DIGITS, "+callbacks.x._target_=tests.bad_parts.Hoards")
    assert answer.code == 1
    assert "cannot keep callbacks.Hoards.best, a float64; allowed in a state_dict" in answer.out


def test_a_wrong_part_shows_before_a_sweep_begins(command, tmp_path):
    words = ["optimizer._target_=torch.optim.NAdam,torch.optim.Nadam", "seed=0,1", "name=x"]
    answer = command("train", "-m", *SHORT, *DIGITS, *words)
    assert (answer.code, "did you mean 'NAdam'?" in answer.err) == (2, True), answer.err
    assert not list(tmp_path.rglob("result.json"))


def test_a_checkpoint_cannot_have_files_removed_elsewhere(tmp_path):
    from convscape.training.checkpoints import AtomicCheckpointIO

    precious = tmp_path / "precious"
    precious.write_text("x")
    (tmp_path / "run").mkdir()
    files = AtomicCheckpointIO(RunFolder(tmp_path / "run"))
    for path in (precious, tmp_path / "run" / ".." / "precious"):
        with pytest.raises(ConfigError, match="outside"):
            files.remove_checkpoint(path)
    assert precious.is_file()
    sys.modules.pop("tests.bad_module", None)
