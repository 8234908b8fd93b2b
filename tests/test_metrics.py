"""Which way is better: known from one table or asked for, and everywhere the same."""

import json
import sys
import textwrap

import pytest

from convscape.base.errors import ConfigError
from convscape.config.metrics import metric
from convscape.reports.results import read_runs, tables
from convscape.runs.fingerprint import fingerprint
from tests.conftest import TINY
from tests.fake_runs import write_runs
from tests.test_config import checked

OWN = """
    import torch
    from lightning.pytorch import LightningModule

    class Lit(LightningModule):
        '''Logs what `plan` says of each epoch.'''

        plan = (0.2, 0.9, 0.5)

        def __init__(self, num_classes):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, num_classes))

        def training_step(self, batch, batch_idx):
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train/loss", loss, on_epoch=True, on_step=False)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val/f1", self.plan[min(self.current_epoch, 2)])

        def test_step(self, batch, batch_idx):
            self.log("test/f1", self.plan[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    class Counting(Lit):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("epoch", float(self.current_epoch))

    class Blind(Lit):
        def validation_step(self, batch, batch_idx):
            self.log("val/acc", float("nan"))

    class Idle(Lit):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)

    class Silent(Lit):
        def training_step(self, batch, batch_idx):
            return torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

    class Untested(Lit):
        test_step = LightningModule.test_step
"""
LIT = ["model=own", "model._target_=f1parts.Lit", "allow_packages=[f1parts]", *TINY[1:3]]
LIT += ["trainer.threads=1", "trainer.max_epochs=3", "visual=off"]
ASKED = ["trainer.monitor=val/f1", "trainer.monitor_mode=max"]


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "f1parts.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("f1parts", None)


def result(tmp_path):
    (file,) = tmp_path.glob("outputs/runs/*/result.json")
    return json.loads(file.read_text())


def foreign_runs(folder, **trainer):
    """Runs that log val/f1 in the place of val/acc."""
    write_runs(folder, seeds=1, levels={"model.kernel_size": [3, 5, 7]})
    for file in folder.glob("*/result.json"):
        document = json.loads(file.read_text())
        acc = document["metrics"]["val/acc"]
        document["metrics"] = {"train/loss": 2 * acc, "val/f1": acc, "test/f1": acc}
        document["config"]["trainer"] |= trainer
        file.write_text(json.dumps(document))


def test_a_number_is_written_by_its_metric():
    assert metric("val/acc").written(0.98612) == "98.61 %"
    assert metric("shift/acc_4").written(0.5) == "50.00 %"
    assert metric("val/loss").written(0.12345) == "0.1235"
    assert metric("macs").number(2440960) == "2,440,960"
    assert metric("val/f1acc").written(0.77) == "0.7700"  # what a name ends in says nothing


def test_nothing_is_worse_than_nan():
    nan = float("nan")
    for name, better, worse in (("val/acc", 0.9, 0.1), ("val/loss", 0.1, 0.9)):
        assert metric(name).is_better(better, than=worse)
        assert not metric(name).is_better(worse, than=better)
        assert metric(name).is_better(worse, than=nan)
        assert not metric(name).is_better(nan, than=worse)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["trainer.monitor=val/f1"], "add trainer.monitor_mode=max or trainer.monitor_mode=min"),
        (["trainer.monitor=val/accu"], "did you mean 'val/acc'"),
        (["trainer.monitor=val/f1", "trainer.monitor_mode=max"], "allowed: train/loss, train/acc"),
        (["trainer.monitor=test/acc"], "the test images are not used to choose"),
        (["trainer.monitor_mode=min"], "val/acc is better the higher it is"),
    ],
)
def test_a_monitor_that_cannot_choose_is_refused(overrides, words):
    with pytest.raises(ConfigError) as error:
        checked(*overrides)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mode_that_says_nothing_new_is_the_same_run():
    one = fingerprint(checked())
    assert fingerprint(checked("trainer.monitor_mode=max", "trainer.monitor=val/acc")) == one
    assert fingerprint(checked("trainer.monitor=val/loss")) != one
    assert fingerprint(checked("trainer.monitor=val/loss")) == fingerprint(
        checked("trainer.monitor=val/loss", "trainer.monitor_mode=min")
    )


def test_the_monitor_of_ones_own_module_chooses_and_stops(command, own, tmp_path):
    answer = command("train", *LIT, *ASKED, "trainer.early_stopping=1")
    assert answer.code == 0, answer.err
    found = result(tmp_path)
    assert (found["best_epoch"], found["epochs"]) == (2, 3)
    assert found["metrics"]["val/f1"] == pytest.approx(0.9)
    assert "val/f1 0.9000" in answer.err
    assert "test f1 0.9000, val f1 0.9000" in answer.out
    answer = command("train", *LIT, ASKED[0], "trainer.monitor_mode=min", "output_dir=low")
    (file,) = tmp_path.glob("low/runs/*/result.json")
    assert json.loads(file.read_text())["best_epoch"] == 1


def test_a_monitor_that_is_not_logged_ends_the_first_epoch(command, own, tmp_path):
    answer = command("train", *LIT)
    assert answer.code == 1
    found = result(tmp_path)
    assert (found["status"], found["error"]["type"]) == ("failed", "MonitorNotLogged")
    assert "logged: train/loss, val/f1" in answer.out
    assert "Traceback" not in answer.err


def test_a_module_that_logs_nothing_is_told_how_to_train_all_the_same(command, own, tmp_path):
    words = [word.replace(".Lit", ".Silent") for word in LIT]
    answer = command("train", *words)
    assert "val/acc was not logged, and no other metric was; train a new run" in answer.out
    assert command("train", *words, "trainer.monitor=null").code == 0


@pytest.mark.filterwarnings("ignore:.*training_step.*returned.*None")
def test_a_training_step_without_a_loss_fails_as_it_learns_nothing(command, own, tmp_path):
    answer = command("train", *[word.replace(".Lit", ".Idle") for word in LIT], *ASKED)
    assert answer.code == 1
    found = result(tmp_path)
    assert (found["status"], found["error"]["type"]) == ("failed", "NothingLearned")
    assert "Idle.training_step returned no loss" in answer.out


def test_a_metric_named_epoch_does_not_count_the_epochs(command, own, tmp_path):
    words = [word.replace(".Lit", ".Counting") for word in LIT]
    answer = command("train", *words, *ASKED)
    assert answer.code == 0, answer.err
    (file,) = tmp_path.glob("outputs/runs/*/history.csv")
    assert [line.partition(",")[0] for line in file.read_text().splitlines()] == [
        *("epoch", "1", "2", "3")
    ]


def test_a_module_without_a_test_is_refused_before_it_trains(command, own, tmp_path):
    answer = command("train", *[word.replace(".Lit", ".Untested") for word in LIT], *ASKED)
    assert (answer.code, "Untested has no test_step" in answer.err) == (2, True), answer.err
    assert not list(tmp_path.glob("outputs/runs/*/history.csv"))


def test_an_accuracy_that_is_no_number_is_named_where_nothing_is_ranked(command, own, tmp_path):
    words = [word.replace(".Lit", ".Blind") for word in LIT]
    answer = command("train", *words)
    assert answer.code == 0
    said = "val/acc was NaN in every epoch and chose none of them: epoch 1 was kept"
    (log,) = tmp_path.glob("outputs/runs/*/run.log")
    assert said in answer.out
    assert said in log.read_text()
    lines = command("report", "outputs/runs").out
    assert "Not ranked: val/acc, which chose the best epochs, is not a number in any run" in lines


def test_without_a_monitor_the_last_epoch_is_kept(command, own, tmp_path):
    assert command("train", *LIT, "trainer.monitor=null").code == 0
    assert result(tmp_path)["best_epoch"] == 3


# --- ranking ----------------------------------------------------------------------------------


def test_a_foreign_metric_is_ranked_only_once_its_direction_is_said(command, tmp_path):
    foreign_runs(tmp_path / "sweep")
    answer = command("report", "sweep", "--rank", "val/f1")
    assert (answer.code, "--rank max:val/f1 or --rank min:val/f1" in answer.err) == (2, True)
    assert "kernel_size=7 with 0.9" in command("report", "sweep", "--rank", "max:val/f1").out
    assert "kernel_size=3 with 0.9" in command("report", "sweep", "--rank", "min:val/f1").out
    answer = command("report", "sweep", "--rank", "max:train/loss")
    assert (answer.code, "better the lower it is" in answer.err) == (2, True)


def test_what_chose_the_runs_ranks_them_and_else_nothing_does(command, tmp_path):
    foreign_runs(tmp_path / "unknown")
    answer = command("report", "unknown")
    assert answer.code == 0, answer.err
    assert "Not ranked" in answer.out
    assert "Best by" not in answer.out
    foreign_runs(tmp_path / "known", monitor="val/f1", monitor_mode="max")
    out = command("report", "known").out
    assert "Best by val/f1: kernel_size=7" in out
    assert "test/f1" in out


def test_a_page_names_the_images_that_it_ranks_by(command, tmp_path):
    write_runs(tmp_path / "sweep", seeds=1)
    for file in (tmp_path / "sweep").glob("*/result.json"):
        document = json.loads(file.read_text())
        acc = document["metrics"].pop("val/acc", None)
        if acc is not None:
            document["metrics"] = {"train/acc": acc, "train/loss": 1 - acc, "test/acc": acc}
        file.write_text(json.dumps(document))
    answer = command("report", "sweep")
    assert "Ranked by train/acc on the images that they were trained on" in answer.out
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert "validation" not in page.partition('id="document"')[2].partition("</script>")[0]


def test_runs_that_were_chosen_differently_are_told_of(command, tmp_path):
    write_runs(tmp_path / "sweep", seeds=2)
    for file in (tmp_path / "sweep").glob("*/result.json"):
        document = json.loads(file.read_text())
        document["config"]["trainer"]["monitor"] = ("val/acc", "val/loss")[document["seed"]]
        file.write_text(json.dumps(document))
    assert "were chosen by val/acc or val/loss" in command("report", "sweep").out


def test_a_run_of_before_is_of_one_sweep_with_a_new_one(tmp_path):
    write_runs(tmp_path, seeds=2)
    for file in list(tmp_path.glob("*/result.json"))[::2]:
        document = json.loads(file.read_text())
        for key in ("monitor", "monitor_mode"):
            del document["config"]["trainer"][key]
        file.write_text(json.dumps(document))
    (table,) = tables(read_runs([tmp_path]))
    assert {key.name for key in table.keys} == {
        "model.kernel_size",
        "model.stride",
        "model.padding",
    }
    assert [each.name for each in table.monitors] == ["val/acc"]
