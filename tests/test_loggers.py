"""Each logger gets the same, changes nothing, keeps no secret, and may fail."""

import csv
import json
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convscape.base.errors import ConfigError
from convscape.base.terminal import say
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training import loggers
from convscape.training import run as training
from convscape.training.events import tag
from tests.conftest import PATIENCE_S, TINY
from tests.test_config import checked

ALL = "logger=[tensorboard,csv,wandb,mlflow]"
pytestmark = pytest.mark.filterwarnings("ignore:The ..noload.. loader")  # mlflow on sqlalchemy 2.1
SECRET = "c0ffee" * 7  # a key that looks like one


@pytest.fixture(autouse=True)
def libraries_keep_to_the_test(tmp_path, monkeypatch):
    for name in ("CACHE", "CONFIG", "DATA"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb-own"))
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    # wandb of a test before tells processes that are started here to write through its own
    monkeypatch.delenv("WANDB_SERVICE", raising=False)


@pytest.fixture
def libraries():
    pytest.importorskip("wandb", reason="needs pip install -e '.[wandb]'")
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason="needs pip install -e '.[mlflow]'")


def closed_port():
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def run_folders(tmp_path):
    return [RunFolder(path) for path in sorted((tmp_path / "outputs" / "runs").iterdir())]


def mlflow_runs(database):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("convscape")
    return client, client.search_runs([experiment.experiment_id])


def wandb_files(folder):
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def wandb_steps(path):
    """W&B's own step of each point in its file, which has the format of LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, steps, record, at = path.read_bytes(), [], b"", 7  # after the file's own header
    while at < len(content):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            found = Record.FromString(record)
            if found.WhichOneof("record_type") == "history":
                steps.append(found.history.step.num)
            record = b""
    return steps


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_all_get_the_same_and_change_neither_result_nor_fingerprint(
    start, start_fresh, libraries, tmp_path
):
    words = ["model.dropout=0.2", "data.augment.shift=1", "trainer.progress=off", *TINY]
    process = start("train", ALL, *words)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, ""), out + err
    process = start_fresh("train", "logger=[]", *words, PYTHONPROFILEIMPORTTIME="1")
    out, imports = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "tensorboard --" in out) == (0, False), out + imports
    assert not re.search(r"\| +(wandb|mlflow|sqlalchemy)$", imports, re.MULTILINE)
    tracked, plain = run_folders(tmp_path)
    assert not list(plain.path.glob("events*"))

    ours, theirs = (json.loads(f.result_file.read_text()) for f in (tracked, plain))
    assert (ours["metrics"], ours["fingerprint"]) == (theirs["metrics"], theirs["fingerprint"])
    ours, theirs = (
        torch.load(f.last_checkpoint, weights_only=True)["state_dict"] for f in (tracked, plain)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)

    rows = table(tracked.path / "metrics.csv")
    last = {row["metric"]: float(row["value"]) for row in rows}
    assert {row["step"] for row in rows} == {"3", "6"}  # optimiser steps at the epochs' ends
    events = EventAccumulator(str(tracked.path))
    events.Reload()
    scalars = {each: events.Scalars(each) for each in events.Tags()["scalars"]}
    curves = {name: scalars[tag(name)] for name in last}
    assert {name: values[-1].value for name, values in curves.items()} == pytest.approx(last)
    assert [value.step for value in curves["val/acc"]] == [3, 6]
    _, (run,) = mlflow_runs(tmp_path / "outputs" / "mlflow.db")
    assert run.data.metrics == last
    assert run.info.status == "FINISHED"
    hparams = {row["name"]: row["value"] for row in table(tracked.path / "hparams.csv")}
    tags = {name: hparams.pop(name) for name in ("seed", "fingerprint")}
    assert run.data.params == hparams
    assert {"model.kernel_size", "optimizer.lr", "data.augment.shift"} <= set(hparams)
    assert tags.items() <= run.data.tags.items()
    (record,) = tracked.path.glob("wandb/offline-run-*/*.wandb")
    for word in (*last, *hparams, *tags):
        assert word.encode() in record.read_bytes(), word

    for path in (tmp_path / "outputs").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_a_run_that_goes_on_keeps_its_records(libraries, tmp_path, monkeypatch):
    words = [*TINY, ALL, "visual=off", "trainer.progress=off", f"output_dir={tmp_path}"]
    folder = RunFolder(tmp_path / "run")
    step, calls = training.models.ImageClassifier.training_step, []

    def stopping(self, *arguments):
        calls.append(None)
        if len(calls) == 2:  # the second epoch
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *arguments)

    monkeypatch.setattr(training.models.ImageClassifier, "training_step", stopping)
    assert training.train(ResolvedRun(checked(*words)), folder.path).status == "interrupted"
    ids = json.loads((folder.path / "loggers.json").read_text())
    _, (run,) = mlflow_runs(tmp_path / "mlflow.db")
    assert run.info.status == "KILLED"
    assert training.train(ResolvedRun(checked(*words)), folder.path).status == "ok"
    assert json.loads((folder.path / "loggers.json").read_text()) == ids
    client, (run,) = mlflow_runs(tmp_path / "mlflow.db")
    assert (run.info.run_id, run.info.status) == (ids["mlflow"], "FINISHED")
    history = client.get_metric_history(run.info.run_id, "val/acc")
    assert [metric.step for metric in history] == [3, 6]
    rows = table(folder.path / "metrics.csv")
    assert [row["step"] for row in rows if row["metric"] == "val/acc"] == ["3", "6"]
    assert {step for file in wandb_files(folder.path) for step in wandb_steps(file)} == {3, 6}
    assert all(ids["wandb"] in file.name for file in wandb_files(folder.path))


def test_runs_of_one_process_keep_apart(libraries, tmp_path):
    long = "x" * 1000
    for name in ("first", "second"):
        folder = RunFolder(tmp_path / name / "run")
        folder.path.mkdir(parents=True)
        config = checked("logger=[wandb,mlflow]", f"output_dir={tmp_path / name}")
        run = loggers.RunInfo(folder, name, "g", {"long": long}, {"seed": 0}, tmp_path / name)
        opened = [loggers.open_wandb(config.logger.wandb, run)]
        opened += [loggers.open_mlflow(config.logger.mlflow, run)]
        for each in opened:
            each.log_metrics({"val/acc": 0.5}, 7)
            each.finalize("success")
        assert os.environ.get("MLFLOW_TRACKING_URI") is None
        _, (stored,) = mlflow_runs(tmp_path / name / "mlflow.db")
        assert (stored.info.run_name, stored.data.params) == (name, {"long": long})
        (file,) = wandb_files(folder.path)
        assert wandb_steps(file) == [7]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mlflow", ["logger.mlflow.tracking_uri=http://127.0.0.1:{port}"]),
        ("wandb", ["logger.wandb.mode=online"]),
    ],
)
def test_a_server_that_is_away_costs_one_warning(
    command, libraries, tmp_path, monkeypatch, kind, words
):
    monkeypatch.setattr(loggers, "SERVER_TIMEOUT_S", 3)
    words = [word.format(port=closed_port()) for word in words]
    answer = command("train", *TINY, f"logger=[csv,{kind}]", *words)
    assert answer.code == 0, answer.err
    assert answer.err.count("warning") == 1
    assert f"warning: logger={kind} failed, the run continues without it: " in answer.err
    (folder,) = run_folders(tmp_path)
    assert json.loads(folder.result_file.read_text())["seconds"]["setup"] < 30
    assert "test/acc" in (folder.path / "metrics.csv").read_text()
    assert "logger=" in (folder.path / "run.log").read_text()


def test_a_server_that_goes_away_is_asked_no_more(capsys):
    asked = []

    class Far(DummyLogger):
        def log_metrics(self, metrics, step):
            asked.append(step)
            if step == 2:
                raise ConnectionError("no route to http://me:hidden@host/api")

        def finalize(self, status):
            asked.append(status)

    far = loggers.FailSafeLogger("far", Far)
    far.start()
    for step in range(1, 5):
        far.log_metrics({"val/acc": 0.5}, step)
    far.end("ok")
    assert asked == [1, 2]
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "http://me:***@host/api" in err
    assert "hidden" not in err


@pytest.mark.parametrize(
    "uri", ["http://me:hidden@host:5000", "postgresql://me:hidden@host/db", "http://h/?t=hidden"]
)
def test_an_address_with_a_password_is_refused_and_not_repeated(uri):
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as error:
        checked("logger=mlflow", f"logger.mlflow.tracking_uri='{uri}'")
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("arguments", [[], ["-m", "seed=0,1", "name=s"]])
def test_a_library_that_is_missing_is_named_with_its_extra(command, monkeypatch, arguments):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    answer = command("train", *arguments, *TINY, "logger=[csv,mlflow]")
    assert (answer.code, "pip install -e '.[mlflow]'" in answer.err) == (2, True), answer.err
    assert answer.err.count("\n") == 1
    assert not list(Path("outputs").glob("runs/*"))


def test_sweeps_and_repeats_take_any_logger(command, tmp_path):
    sweep = ["-m", "name=s", *TINY, "seed=0,1"]
    assert command("train", *sweep, "logger=[tensorboard,csv]").code == 0
    folders = list((tmp_path / "outputs" / "sweeps" / "s").glob("cnn*"))
    assert all((folder / "metrics.csv").is_file() for folder in folders)
    answer = command("train", *sweep, "logger=csv")
    assert answer.code == 0, answer.err
    assert "seed1" not in answer.err  # nothing is trained again


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["logger.wandb.project=x"], "not chosen; add logger=[tensorboard,wandb]"),
        (["logger=wandb", "logger.wandb.projekt=x"], "did you mean 'logger.wandb.project'?"),
        (["logger=wandb", "+logger.wandb.projekt=x"], "did you mean 'project'?"),
        (["logger=wandb", "logger.wandb.mode=on"], "allowed: offline, online"),
        (["logger=wandbb"], "did you mean 'wandb'?"),
    ],
)
def test_a_logger_that_is_mistyped_is_one_sentence(command, words, sentence):
    answer = command("train", *words)
    assert (answer.code, sentence in answer.err) == (2, True), answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("said", "printed"),
    [
        ("see https://t0ken@host/x", "see https://***@host/x"),
        ("postgresql://me:p@ss/w@host/x", "postgresql://me:***@host/x"),
        ("postgresql://me@host/x?password=secret", "postgresql://me@host/x?password=***"),
        ("ssh://git@host and a@b", "ssh://git@host and a@b"),
    ],
)
def test_no_secret_of_an_address_is_printed(said, printed, capsys):
    say(said)
    assert capsys.readouterr().out == f"{printed}\n"
