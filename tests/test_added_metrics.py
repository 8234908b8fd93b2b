"""`metrics` of the config: what is measured besides loss and accuracy."""

import json
import signal

import pytest
import torch
import torchmetrics.classification
from sklearn.metrics import f1_score, roc_auc_score

from convscape.base.errors import ConfigError
from convscape.config.metrics import TORCHMETRICS, metric, monitor_of
from convscape.runs.fingerprint import fingerprint
from convscape.runs.resolved import ResolvedRun
from convscape.trained.load import load_run
from convscape.training.build import build_metrics
from convscape.training.run import train
from tests.test_config import checked

ADDED = ["+metrics.f1._target_=torchmetrics.F1Score", "+metrics.auc._target_=torchmetrics.AUROC"]
WORDS = [
    *("model=mlp", "model.hidden=[16]", "data.train_size=300", "data.image_size=8", "visual=off"),
    *("trainer.max_epochs=3", "trainer.progress=off", "trainer.steps_per_execution=1"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("added") / "run"
    words = [*WORDS, *ADDED, "trainer.monitor=val/f1"]
    assert train(ResolvedRun(checked(*words), words), path).status == "ok"
    return path


def test_they_are_what_scikit_learn_measures_and_stand_wherever_accuracy_does(run, command):
    result = json.loads((run / "result.json").read_text())
    trained = load_run(run)
    images, labels = trained.data.tensors("test")
    logits = trained.logits(images)
    truth = {
        "test/f1": f1_score(labels, logits.argmax(1), average="macro"),
        "test/auc": roc_auc_score(labels, logits.softmax(1), multi_class="ovr"),
    }
    answer = command("evaluate", run, "--json")
    assert answer.code == 0, answer.err
    for found in (result["metrics"], json.loads(answer.out)):
        assert {name: found[name] for name in truth} == pytest.approx(truth, abs=1e-5)
    assert f"f1 {truth['test/f1']:.4f}" in command("evaluate", run).out
    history = trained.history
    assert {"train/f1", "val/f1", "train/auc", "val/auc"} <= set(history)
    assert result["best_epoch"] == history["val/f1"].argmax() + 1


def test_without_them_nothing_is_measured_and_nothing_else_changes(run, tmp_path):
    assert train(ResolvedRun(checked(*WORDS)), tmp_path).status == "ok"
    few, more = load_run(tmp_path).history, load_run(run).history
    assert not {"train/f1", "val/f1"} & set(few)
    for name in ("train/loss", "val/loss", "train/acc", "val/acc"):
        assert few[name].tolist() == more[name].tolist()
    assert fingerprint(checked(*WORDS)) != fingerprint(checked(*WORDS, *ADDED))


def test_a_stop_within_an_epoch_loses_none_of_what_they_have_counted(run, tmp_path, monkeypatch):
    words = [*WORDS, *ADDED, "trainer.monitor=val/f1"]
    num_calls = 0

    def stop(self, original=torch.optim.Adam.step):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 5:  # in the second epoch of three steps
            signal.raise_signal(signal.SIGTERM)
        return original(self)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", stop)
        assert train(ResolvedRun(checked(*words), words), tmp_path).status == "interrupted"
    assert train(ResolvedRun(checked(*words), words), tmp_path).status == "ok"
    went_on, whole = load_run(tmp_path).history, load_run(run).history
    columns = [name for name in whole if name != "train_seconds"]
    assert went_on[columns].equals(whole[columns])


def test_a_report_ranks_by_what_the_runs_were_chosen_by(run, command, tmp_path):
    answer = command(
        *("train", "-m", *WORDS, *ADDED, "trainer.monitor=val/f1", "name=f1"),
        *("optimizer.lr=0.002,1e-6", "trainer.max_epochs=1", f"output_dir={tmp_path}"),
    )
    assert answer.code == 0, answer.err
    assert "Best by val/f1: lr=0.002 with" in answer.out
    page = (tmp_path / "sweeps" / "f1" / "report.html").read_text("utf-8")
    assert "val/f1" in page
    assert "test/f1" in page


def test_the_directions_are_torchmetrics_own():
    for name, direction in TORCHMETRICS.items():
        found = getattr(torchmetrics.classification, f"Multiclass{name}").higher_is_better
        assert found in (None, direction == "max"), name
    config = {"trainer": {"monitor": "val/e"}, "metrics": {"e": {"_target_": "x.CalibrationError"}}}
    assert monitor_of(config).direction == "min"
    assert metric("val/e").direction is None


HOSTILE = [
    "os.system",
    "torchmetrics.os.system",
    "torchmetrics.Metric",
    "torchmetrics.metric.torch.load",
    "torchmetrics.classification.stat_scores.torch.load",
    "torchmetrics.utilities.imports.sys.exit",
    "torchmetrics.MetricCollection",
    "torchmetrics.functional.accuracy",
    "torchmetrics.MeanSquaredError",
    "torchmetrics",
    ".",
]


@pytest.mark.parametrize("target", HOSTILE)
def test_only_classes_of_torchmetrics_for_images_are_built(target):
    with pytest.raises(ConfigError, match=r"metrics\.x\._target_="):
        build_metrics(checked(f"+metrics.x._target_={target}").metrics, 10, [])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+metrics.f1._target_=torchmetrics.F1score"], "did you mean 'F1Score'?"),
        ([ADDED[0], "+metrics.f1.average=none"], "gives 10 numbers; allowed: a single one"),
        ([ADDED[0], "+metrics.f1.avrage=micro"], "Unexpected keyword arguments: `avrage`"),
        (["+metrics.f1._target_=torchmetrics.ConfusionMatrix"], "allowed: a single one"),
    ],
)
def test_a_metric_that_cannot_be_is_told_before_anything_is_trained(words, said):
    with pytest.raises(ConfigError) as caught:
        build_metrics(checked(*words).metrics, 10, [])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["+metrics.acc._target_=torchmetrics.F1Score"], "metrics.acc: allowed: small letters"),
        (["trainer.monitor=val/f2", *ADDED, "trainer.monitor_mode=max"], "val/f1, train/auc"),
        (["trainer.monitor=test/f1", *ADDED], "the test images are not used to choose"),
    ],
)
def test_a_name_that_cannot_be_is_refused(words, said):
    with pytest.raises(ConfigError, match=r"allowed|whether") as caught:
        checked(*words)
    assert said in str(caught.value)


def test_without_the_plus_it_is_told(command):
    answer = command("plan", ADDED[0].removeprefix("+"))
    assert (answer.code, f"write {ADDED[0]}" in answer.err) == (2, True)
