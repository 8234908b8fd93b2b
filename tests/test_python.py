"""The package as a library: what `import convscape` gives, and what it does with mistakes."""

import inspect
import re
import runpy
import subprocess
import sys
import typing
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from torch import nn

import convscape
from convscape.config.check import check
from convscape.config.directory import CONFIG_DIR
from convscape.config.networks import CNNConfig
from convscape.data.module import ImageDataModule
from convscape.geometry.kinds import NamedLayer
from convscape.geometry.layers import Conv
from convscape.geometry.networks import CNNKnobs, cnn_layers
from convscape.geometry.plan import plan_layers
from convscape.models import inside
from convscape.models.classifier import ImageClassifier
from convscape.runs.fingerprint import fingerprint

from .conftest import ROOT

QUICK = ("trainer.max_epochs=1", "trainer.threads=1", "trainer.progress=off", "visual=off")
FEW = {"train_size": 300, "val_size": 100}


@pytest.fixture
def data():
    return convscape.data_module("digits", **FEW)


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


# --- the package ------------------------------------------------------------------------------


def test_importing_it_loads_nothing_heavy(tmp_path):
    code = """
import sys, convscape
heavy = {"torch", "lightning", "hydra", "omegaconf", "pandas", "numpy", "pydantic", "yaml"}
print(sorted(heavy & set(sys.modules)), sorted(convscape.__all__) == dir(convscape))
"""
    command = [sys.executable, "-c", code]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    assert answer.stdout.strip() == "[] True"


@pytest.mark.parametrize("name", convscape.__all__)
def test_every_public_name_is_there_and_documented(name):
    assert inspect.getdoc(getattr(convscape, name))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'tran'"):
        convscape.tran  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "src" / "convscape" / "py.typed").is_file()


@pytest.mark.parametrize("kind", ["CNN", "MLP", "Sequential"])
def test_constructors_have_the_defaults_of_the_yaml(kind):
    section = yaml.safe_load((CONFIG_DIR / "model" / f"{kind.lower()}.yaml").read_text("utf-8"))
    makers = [getattr(convscape, kind).__init__] + [cnn_layers] * (kind == "CNN")
    parameters = {k: p for maker in makers for k, p in inspect.signature(maker).parameters.items()}
    defaults = {k: p.default for k, p in parameters.items() if k in section}
    for key, default in defaults.items():
        if default is not inspect.Parameter.empty:
            plain = list(default) if isinstance(default, tuple) else default
            assert plain == section[key], key
    assert section.keys() - defaults.keys() == {"_target_", "loss", "label_smoothing"}


def test_the_knobs_of_a_cnn_are_typed_completely():
    knobs = set(inspect.signature(cnn_layers).parameters) - {"num_classes", "channels"}
    assert set(typing.get_type_hints(CNNKnobs)) == knobs
    config = set(CNNConfig.model_fields) - {"target", "channels", "init", "first_layer"}
    assert config - {"loss", "label_smoothing"} == knobs


# --- sweeps -----------------------------------------------------------------------------------


def test_a_sweep_from_python_is_that_of_the_shell_and_repeats_nothing(command, capsys):
    words = ("model.channels=[2]", "data.train_size=300", "data.val_size=100", *QUICK)
    grid = ("model.kernel_size=3,29", "seed=range(2)")
    runs = convscape.train_sweep(*grid, *words, name="kernels")
    assert runs["status"].value_counts().to_dict() == {"ok": 2, "infeasible": 2}
    assert runs[runs["status"] == "ok"]["model.kernel_size"].tolist() == ["3", "3"]
    assert "4 runs, 2 impossible, 2 to do" in capsys.readouterr().out
    assert "0 to do" in command("train", "-m", *grid, *words, "name=kernels").out
    pd.testing.assert_frame_equal(convscape.train_sweep(*grid, *words, name="kernels"), runs)
    assert "2 impossible, 0 to do" in capsys.readouterr().out
    assert len(convscape.load_sweep("outputs/sweeps/kernels")) == 4


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.kernal_size=3,5"], "did you mean 'model.kernel_size'"),
        (["model.stride=0,1"], "model.stride"),
        (["hydra/launcher=joblib"], "hydra/launcher=joblib: in Python a sweep"),
        (["name=other"], "name=other: in Python"),
        (["resume=outputs/runs/x"], "resume is for single runs"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_sentence_and_trains_nothing(overrides, sentence, tmp_path):
    with pytest.raises(convscape.ConfigError, match=sentence):
        convscape.train_sweep(*overrides, name="mistake")
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_can_be_trained_beside_the_main_thread():
    words = ("model.channels=[2]", "data.train_size=300", "data.val_size=100", *QUICK)
    with ThreadPoolExecutor() as pool:
        runs = pool.submit(convscape.train_sweep, "seed=0,1", *words, name="aside").result()
    assert runs["status"].tolist() == ["ok", "ok"]


# --- inside a network -------------------------------------------------------------------------


def test_feature_maps_are_what_the_next_block_gets_and_filters_are_copies(data):
    model = convscape.CNN.for_data(data, channels=[2, 3]).eval()
    images, _ = data.tensors("val", slice(4))
    maps = inside.feature_maps(model, images)
    assert [*maps] == ["block1", "block2"]
    expected = model.network.block1(model.normalize(images))
    torch.testing.assert_close(maps["block1"], expected)
    torch.testing.assert_close(maps["block2"], model.network.block2(expected))
    filters = inside.first_filters(model)
    assert torch.equal(filters, model.network.block1.conv.weight)
    filters.zero_()
    assert model.network.block1.conv.weight.any()


def test_the_filters_of_an_mlp_have_the_shape_of_the_image(data):
    model = convscape.MLP.for_data(data, hidden=[5])
    assert inside.first_filters(model).shape == (5, 1, 28, 28)
    assert inside.first_filters(model, limit=2).shape == (2, 1, 28, 28)
    assert inside.first_filters(nn.ReLU()) is None


# --- networks ---------------------------------------------------------------------------------


def test_a_model_prints_its_layers_and_keeps_its_repr():
    model = convscape.CNN((1, 28, 28), 10, channels=[32, 64])
    assert "34,826" in str(model)
    assert "block2.conv" in str(model)
    assert repr(model).startswith("CNN(\n  (network): Sequential(")
    assert model._repr_html_().count("<tr>") == 2 + len(model.plan.layers)
    assert repr(model.plan) == str(model.plan)


def test_the_table_of_a_notebook_is_escaped():
    plan = plan_layers([NamedLayer("<b>&", Conv(2, (1, 1), stride=(2, 2)))], (1, 4, 4))
    page = plan._repr_html_()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert "the stride is larger than the window" in page


def test_a_model_that_fits_data_takes_its_normalisation(data):
    model = convscape.MLP.for_data(data, hidden=[5], training={"loss": "mse"})
    assert model.plan.input_shape == (1, 28, 28)
    assert model.classes == data.classes
    assert model.loss_name == "logits_mse"
    images, _ = next(data.batches("val"))
    expected = (images / 255 - data.mean[0]) / data.std[0]
    torch.testing.assert_close(model.normalize(images), expected)


def test_tuples_are_as_good_as_lists():
    model = convscape.CNN((1, 28, 28), 10, channels=(4, 8), kernel_size=(3, "3x5"), dense=(9,))
    assert (
        model.plan
        == convscape.CNN([1, 28, 28], 10, channels=[4, 8], kernel_size=[3, "3x5"], dense=[9]).plan
    )


# --- data and your own training loop ---------------------------------------------------------


def test_a_data_module_is_that_of_the_config(data):
    assert len(data.labels("train")) == 300
    assert data.batch_size == check(composed("data=digits")).data.batch_size
    other = convscape.data_module("digits", batch_size=50, augment={"shift": 2}, seed=3, **FEW)
    assert (other.batch_size, other.augment.shift, other.augment.flip) == (50, 2, False)
    sizes = [len(labels) for _, labels in other.batches("train")]
    assert sizes == [50] * 6


def test_batches_are_those_of_a_run(data):
    (one, _), (again, _) = next(data.batches("train", 1)), next(data.batches("train", 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, next(data.batches("train", 0))[0])
    tested = torch.cat([labels for _, labels in data.batches("test")])
    assert torch.equal(tested, data.labels("test"))
    with pytest.raises(ValueError, match="split=tset: allowed: train, val, test"):
        next(data.batches("tset"))


def test_the_plain_loop_learns_with_neither_trainer_nor_config(capsys):
    source = (ROOT / "examples" / "plain_loop.py").read_text("utf-8")
    assert not re.search("hydra|lightning|pl\\.", source)
    runpy.run_path(str(ROOT / "examples" / "plain_loop.py"))
    out = capsys.readouterr().out
    assert "block1.conv" in out
    assert float(out.split()[-1]) > 0.9


def test_a_model_has_an_optimiser_without_a_config():
    model = convscape.MLP((1, 8, 8), 3, hidden=[4])
    (group,) = model.configure_optimizers().param_groups
    assert group["lr"] == model.learning_rate(1000) == 0.001
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
    model = convscape.MLP((1, 8, 8), 3, hidden=[4], training={"optimizer": sgd})
    assert isinstance(model.configure_optimizers(), torch.optim.SGD)


# --- runs -------------------------------------------------------------------------------------


def composed(*overrides):
    from convscape.api import compose as composed_in_python

    return composed_in_python(*overrides)


def test_overrides_train_what_the_shell_would():
    overrides = ("model.channels=[4]", "data.train_size=300", "data.val_size=100", *QUICK)
    run = convscape.train(*overrides)
    assert run.path.parent.as_posix() == "outputs/runs"
    assert run.result.fingerprint == fingerprint(check(composed(*overrides)))
    assert run.result.overrides == list(overrides)
    assert run.metrics["test/acc"] == pytest.approx(convscape.evaluate(run).acc, abs=1e-6)
    assert len(run.history) == 1
    loaded = convscape.load_run(run.path)
    images, _ = loaded.data.tensors("test", slice(20))
    assert torch.equal(loaded.logits(images), run.logits(images))
    assert str(run.path) in repr(run)
    again = convscape.train(f"resume={run.path}")  # finished: nothing is trained
    assert again.metrics == run.metrics


def test_objects_train_in_the_same_way_and_leave_a_whole_run_folder(data):
    layers = [{"conv": {"channels": 4, "activation": "relu"}}, {"pool": 2}]
    optimizer = {"name": "sgd", "lr": 0.05, "momentum": 0.8}
    model = convscape.Sequential.for_data(
        data, layers=layers, training={"optimizer": optimizer, "gradient_clip_norm": 2.0}
    )
    before = model.network.conv1.weight.clone()
    run = convscape.train(*QUICK, model=model, data=data)
    assert run.model is model
    assert not torch.equal(model.network.conv1.weight, before)
    assert run.result.status == "ok"
    assert run.result.environment["weights"] == "given"
    assert run.config.optimizer.momentum == 0.8
    assert run.config.trainer.gradient_clip_norm == 2.0
    assert run.config.data.train_size == 300
    loaded = convscape.load_run(run.path)
    for one, other in zip(loaded.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)
    # the words that are recorded lead to the same config from the shell
    assert fingerprint(check(composed(*run.result.overrides))) == run.result.fingerprint


def test_a_given_model_goes_on_from_its_weights(data):
    model = convscape.MLP.for_data(data, hidden=[])
    still = "optimizer.lr=1e-12"
    with torch.no_grad():
        model.network.output.weight.fill_(0.5)
    convscape.train(*QUICK, still, model=model, data=data)
    torch.testing.assert_close(model.network.output.weight, torch.full((10, 784), 0.5))


def test_the_order_of_the_images_is_that_of_the_data_modules_seed():
    data = convscape.data_module("digits", seed=5, **FEW)
    run = convscape.train(*QUICK, "model.channels=[2]", data=data)
    assert run.config.seed == 5
    assert convscape.train(*QUICK, "seed=6", "model.channels=[2]", data=data).config.seed == 6


def test_runs_are_a_table_of_pandas(data):
    for channels in (2, 4):
        convscape.train(*QUICK, f"model.channels=[{channels}]", data=data)
    table = convscape.load_sweep("outputs/runs")
    assert isinstance(table, pd.DataFrame)
    assert set(table["model.channels"]) == {"[2]", "[4]"}
    assert table["test/acc"].between(0, 1).all()
    assert set(table["data"]) == {"digits"}


def test_a_run_that_diverges_raises_with_its_folder(data):
    with pytest.raises(convscape.RunFailed, match=r"^diverged: .* more in .*run\.log") as error:
        convscape.train(
            *QUICK, "model.channels=[2]", "optimizer=sgd", "optimizer.lr=1e30", data=data
        )
    assert (error.value.path / "result.json").is_file()


def test_probes_and_kernels_are_at_hand(data):
    run = convscape.train(*QUICK, "model.channels=[2]", data=data)
    assert "permute/acc" in convscape.probes.ask(run, "permute", num_images=20)["numbers"]
    assert convscape.kernels.KERNELS["box_blur"].sum() == pytest.approx(1)


# --- plans ------------------------------------------------------------------------------------


def test_a_plan_is_the_table_of_the_shell():
    assert convscape.plan("data=mnist").num_parameters == 34_826
    with pytest.raises(convscape.InfeasibleGeometry, match="block 1: a 30x30 kernel"):
        convscape.plan("model.kernel_size=30")


def test_another_use_of_hydra_is_left_alone(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        convscape.plan("model=mlp")
        with pytest.raises(convscape.ConfigError):
            convscape.plan("model.kernal_size=3")
        assert compose("mine").a == 1


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"kernal_size": 3}, "kernal_size: there is no such argument; allowed: channels"),
        ({"kernel_size": "abc"}, "kernel_size=abc: 'abc' is not a size; allowed: an integer"),
        ({"activation": "rely"}, "did you mean 'relu'?"),
        ({"pool": "maxx"}, "did you mean 'max'?"),
        ({"init": "glorot"}, "did you mean 'glorot_uniform'?"),
        ({"channels": 8}, "channels=8: allowed: a list, such as [32,64]"),
        ({"kernel_size": [3, 3]}, "kernel_size=[3, 3] has 2 entries for 1 block"),
        ({"kernel_size": 29}, "block 1: a 29x29 kernel does not fit its 28x28 input"),
        ({"training": {"loss": "crossentropy"}}, "did you mean 'cross_entropy'?"),
        ({"training": {"optimizer": {"name": "adm", "lr": 1}}}, "did you mean 'adam'?"),
    ],
)
def test_a_wrong_argument_of_a_network_is_one_sentence(mistake, words):
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        convscape.CNN((1, 28, 28), 10, **{"channels": [8], **mistake})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("mnis", {}, "data=mnis: there is no such choice"),
        ("digits", {"batchsize": 3}, "data.batchsize: there is no such key"),
        ("digits", {"batch_size": "many"}, "data.batch_size=many: allowed: an integer"),
        ("digits", {"augment": {"shft": 1}}, "did you mean 'shift'?"),
        ("digits", {"val_size": 5000}, "data.val_size=5000"),
        ("image_folder", {"root": "nowhere"}, "nowhere"),
    ],
)
def test_a_wrong_argument_of_a_data_module_is_one_sentence(name, settings, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        convscape.data_module(name, **settings)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.kernal_size=3"], "did you mean 'model.kernel_size'?"),
        (["model.kernel_size=3,5"], "several values are a sweep"),
        (["kernel_size"], "cannot read kernel_size; an override looks like"),
        (["resume=nowhere"], "resume=nowhere: there is no such file"),
        (["trainer.devices=2"], "trainer.devices must be 1 in Python"),
        (["model.kernel_size=30"], "block 1: a 30x30 kernel"),
        (["data.val_size=5000"], "data.val_size=5000"),
    ],
)
def test_a_wrong_override_is_one_sentence_and_leaves_no_folder(overrides, words, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)):
        convscape.train(*overrides)
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_objects_that_do_not_go_together_are_refused(data):
    model = convscape.CNN((3, 32, 32), 10, channels=[2])
    wrong = [
        (
            {"model": model, "data": data},
            [],
            "takes images of 3x32x32 and 10 classes, and data=dig",
        ),
        ({"model": model}, ["model=mlp"], "model=mlp: the model is given as an object"),
        (
            {"data": data},
            ["data.batch_size=3"],
            "data.batch_size=3: the data is given as an object",
        ),
        ({"data": data}, ["resume=somewhere"], "resume continues with that run's own"),
        ({"model": ImageClassifier(nn.Flatten())}, [], "is not a convscape.CNN, MLP or Seq"),
        ({"data": ImageDataModule(data.image_set)}, [], "no config describes this data module"),
    ]
    for objects, overrides, words in wrong:
        with pytest.raises(convscape.ConfigError, match=re.escape(words)):
            convscape.train(*overrides, **objects)


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(convscape.ConfigError, match="is not a run folder"):
        convscape.load_run(tmp_path)
    with pytest.raises(convscape.ConfigError, match="holds no run folders"):
        convscape.load_sweep(tmp_path)
