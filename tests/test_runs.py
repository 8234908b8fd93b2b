import json
import multiprocessing
import os
import re

import pytest
import yaml

from convscape.base.errors import ConfigError
from convscape.runs.fingerprint import fingerprint
from convscape.runs.folder import RunFolder, RunIsBusy, new_run_path
from convscape.runs.names import run_name
from convscape.runs.result import Result
from tests.test_config import checked


def digest(*overrides):
    return fingerprint(checked(*overrides))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.kernel_size=3", "model.kernel_size=3x3"),
        ("model.kernel_size=3", "model.kernel_size=[3,3]"),
        ("model.padding=1", "model.padding=1x1"),
        ("model.pool_stride=2", "model.pool_stride=null"),
        ("model.dropout=0", "model.dropout=[0.0,0]"),
        ("model.loss=mse", "model.loss=logits_mse"),
        ("optimizer.lr=1", "optimizer.lr=1.0"),
        ("data.root=data", "data.root=/elsewhere"),
        ("trainer.device=cpu", "trainer.device=auto"),
        ("trainer.threads=1", "trainer.threads=2"),
        ("trainer.progress=off", "trainer.progress=bar"),
        ("output_dir=outputs", "output_dir=/elsewhere"),
    ],
)
def test_what_is_equal_in_meaning_has_one_fingerprint(one, other):
    assert digest(one) == digest(other)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "model=mlp",
        "model.kernel_size=5",
        "model.padding=same",
        "model.dropout=0.5",
        "model.init=default",
        "model.loss=mse",
        "model.loss=softmax_mse",
        "optimizer=sgd",
        "optimizer.lr=0.1",
        "scheduler=cosine",
        "data=mnist",
        "data.batch_size=64",
        "data.split_seed=1",
        "data.augment.shift=2",
        "trainer.max_epochs=3",
        "trainer.gradient_clip_norm=1",
    ],
)
def test_what_matters_to_the_result_changes_the_fingerprint(override):
    assert digest(override) != digest()


def test_a_name_says_the_network_and_the_choices_that_matter():
    overrides = ["model.kernel_size=5", "optimizer.lr=0.01", "seed=3", "trainer.threads=1"]
    config = checked(*overrides)
    assert run_name(config, overrides, "3f9a1c2b") == "cnn_k5_s1_valid_lr0.01_seed3-3f9a1c2b"


@pytest.mark.parametrize(
    "override",
    ["model.channels=[8,16]", "model.kernel_size=[3,3x5]", "model.dense=[" + "100," * 60 + "1]"],
)
def test_a_name_is_a_short_file_name_that_hydra_and_tensorboard_take(override):
    name = run_name(checked(override), [override], "3f9a1c2b")
    assert len(name) <= 100
    assert not set(name) & set("=,[] /'\"")


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("optimizer.lr=0.01", "lr0.01"),
        ("optimizer.lr=1e+30", "lr1e30"),
        ("optimizer.lr=1e-30", "lr1e-30"),
        ("optimizer.lr=+0.5", "lr0.5"),
        ("optimizer.lr=1e-5", "lr1e-5"),
        ("optimizer.lr=1e5", "lr1e5"),
        ("optimizer.lr=0.00001", "lr1e-05"),
        ("optimizer.lr=123456.123456789", "lr123456.123456789"),
        ("optimizer.momentum=0.99999", "momentum0.99999"),
        ("optimizer.lr=0.0031240057812", "lr0.00312"),
        ("data.mean=[0.5,0.5]", "mean-0.5-0.5-"),
        ("data.mean=[0.5,-0.5]", "mean-0.5--0.5-"),
        ("data.mean=[-0.5,+0.5]", "mean--0.5-0.5-"),
        ("optimizer.weight_decay=1E+3", "wd1E3"),
    ],
)
def test_a_name_says_the_value(override, word):
    overrides = [override, "seed=3"]
    assert run_name(checked(), overrides, "3f9a1c2b") == f"cnn_k3_s1_valid_{word}_seed3-3f9a1c2b"


def test_a_name_says_only_the_last_value_of_a_key():
    overrides = ["trainer.max_epochs=1", "seed=3", "trainer.max_epochs=2"]
    assert run_name(checked(*overrides), overrides, "abc") == "cnn_k3_s1_valid_ep2_seed3-abc"


def test_no_value_is_cut_where_a_name_is_long():
    overrides = [f"data.augment.{'x' * 40}=1234567", "optimizer.lr=0.001", "data.crop=" + "9" * 30]
    name = run_name(checked(), overrides, "abc")
    assert name == f"cnn_k3_s1_valid_{'x' * 40}1234567_lr0.001-abc"
    entries = run_name(checked("model.dense=[" + "100," * 60 + "77]"), [], "abc")
    assert len(entries) <= 85
    assert set(re.findall(r"\d{2,}", entries.partition("valid")[2])) <= {"100"}


def test_two_runs_of_one_second_get_two_folders(tmp_path):
    assert len({new_run_path(tmp_path, "run") for _ in range(5)}) == 5


def test_a_result_is_read_as_it_was_written(tmp_path):
    folder = RunFolder(tmp_path)
    result = Result("cnn", "12345678", status="ok", metrics={"val/acc": 0.5})
    folder.write(result)
    assert folder.read_result() == result
    assert {"host", "process"}.isdisjoint(json.loads(folder.result_file.read_text()))


def test_a_running_run_says_where(tmp_path):
    RunFolder(tmp_path).write(Result("cnn", "12345678"))
    document = json.loads((tmp_path / "result.json").read_text())
    assert (document["status"], document["process"]) == ("running", os.getpid())


@pytest.mark.parametrize("content", ["", "{", '{"run": 3}', "[]", "\x00"])
def test_a_damaged_result_is_none(tmp_path, content):
    (tmp_path / "result.json").write_text(content)
    assert RunFolder(tmp_path).read_result() is None


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "is not a run folder"), ("a: [", "is damaged"), ("", "holds no keys")],
)
def test_what_is_not_a_run_is_refused(tmp_path, content, words):
    if content is not None:
        (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=words):
        RunFolder(tmp_path).read_config()


def test_a_config_is_kept_as_plain_values(tmp_path):
    config = checked().model_dump(by_alias=True)
    RunFolder(tmp_path / "run").create(Result("cnn", "12345678", config=config))
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text()) == config


def hold(path, ready, done):
    with RunFolder(path).held():
        ready.set()
        done.wait(60)


def test_a_run_belongs_to_one_living_process(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(RunIsBusy, match="another process"), RunFolder(tmp_path).held():
            pass
    finally:
        other.kill()  # a dead process holds nothing
        other.join()
    with RunFolder(tmp_path).held():
        pass


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="cannot write the folder"),
        RunFolder(tmp_path / "file" / "run").held(),
    ):
        pass
