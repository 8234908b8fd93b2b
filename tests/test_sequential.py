"""Networks written one layer after the other, from YAML to the page that explains them."""

import json

import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from convscape.base.errors import ConfigError
from convscape.base.values import typed_value
from convscape.config.check import check
from convscape.config.compose import Composer
from convscape.config.directory import CONFIG_DIR
from convscape.geometry.kinds import LAYER_KINDS
from convscape.geometry.networks import cnn_layers, mlp_layers
from convscape.geometry.sequential import sequential_layers, whole_layers
from convscape.models.networks import CNN, Sequential
from convscape.runs.fingerprint import fingerprint
from convscape.runs.names import run_name
from tests.test_config import initialised

SMALL = (
    "model=sequential",
    "model.layers.conv1.channels=4",
    "model.layers.conv2.channels=6",
    "data.train_size=300",
    "data.val_size=100",
    "trainer.max_epochs=1",
    "trainer.threads=1",
)


def composed(*overrides):
    with initialised():
        return OmegaConf.to_container(compose("train", list(overrides)), resolve=True)


def only_layers(named):
    return [layer for _, layer in named]


# --- what is written and what it means --------------------------------------------------------


def test_the_shipped_network_is_the_cnn_layer_by_layer():
    written = check(composed("model=sequential"))
    blocks = check(composed("model=cnn"))
    assert only_layers(written.layers) == only_layers(blocks.layers)
    assert fingerprint(written) == fingerprint(blocks)
    assert written.plan().num_parameters == 34_826


def test_a_network_of_dense_layers_is_the_mlp():
    written = sequential_layers(10, layers={"dense1": {"units": 50, "activation": "tanh"}})
    assert only_layers(written) == only_layers(mlp_layers(10, hidden=[50], activation="tanh"))
    config = composed("model=mlp", "model.hidden=[50]")
    sequential = dict(config["model"]) | {"_target_": "convscape.models.Sequential"}
    for key in ("hidden", "activation", "dropout", "batch_norm"):
        sequential.pop(key)
    layers = {"dense1": {"units": 50, "activation": "relu"}}
    same = check(config | {"model": sequential | {"layers": layers}})
    assert fingerprint(same) == fingerprint(check(config))


def test_every_knob_of_a_block_has_its_layer():
    blocks = cnn_layers(
        10,
        channels=[4, 8],
        kernel_size="3x5",
        stride=2,
        padding="same",
        dilation=[1, 1],
        groups=[1, 2],
        pool=["avg", "blur"],
        pool_size=3,
        pool_stride=1,
        pool_padding=1,
        batch_norm=True,
        dropout=0.2,
        head="global_max",
    )
    pool = {"size": 3, "stride": 1, "padding": 1}
    conv = {"kernel_size": "3x5", "stride": 2, "padding": "same", "bias": False}
    written = [
        *({"conv": {"channels": 4, **conv}}, "batch_norm", {"activation": "relu"}),
        *({"pool": {"kind": "avg", **pool}}, {"dropout": 0.2}),
        *({"conv": {"channels": 8, "groups": 2, **conv}}, "batch_norm", "activation"),
        *({"pool": {"kind": "blur", **pool}}, {"dropout": {"p": 0.2}}, {"global_pool": "max"}),
    ]
    assert only_layers(sequential_layers(10, layers=written)) == only_layers(blocks)


def test_a_list_is_numbered_kind_by_kind():
    whole = whole_layers([{"conv": 8}, "batch_norm", {"pool": 2}, {"conv": 16}, {"dense7": 5}])
    assert list(whole) == ["conv1", "batch_norm1", "pool1", "conv2", "dense7"]
    assert whole == whole_layers(
        {"conv1": 8, "batch_norm1": None, "pool1": {}, "conv2": {"channels": 16}, "dense7": 5}
    )


def test_flatten_is_inserted_where_nothing_else_makes_sense():
    without = sequential_layers(10, layers={"conv1": 8, "dense1": 20})
    with_it = sequential_layers(10, layers={"conv1": 8, "flatten": None, "dense1": 20})
    assert without == with_it
    assert [name for name, _ in without] == ["conv1", "flatten", "dense1", "output"]


def test_what_does_nothing_is_left_out():
    layers = {"conv1": 8, "activation1": "none", "pool1": {"kind": "none"}, "dropout1": 0}
    assert sequential_layers(10, layers=layers) == sequential_layers(10, layers={"conv1": 8})
    twice = {"flatten1": None, "dense1": 5, "flatten2": None}
    assert [name for name, _ in sequential_layers(10, layers=twice)] == [
        *("flatten1", "dense1", "output")
    ]


def test_the_file_lists_every_kind_key_and_default():
    text = (CONFIG_DIR / "model" / "sequential.yaml").read_text("utf-8")
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("#   ")}
    for name, kind in LAYER_KINDS.items():
        for key, what in kind.keys.items():
            shown = key if what.is_required else f"{key}: {typed_value(what.default)}"
            assert shown in lines[name], (name, shown)


# --- the network ------------------------------------------------------------------------------


def test_equal_layers_and_seed_give_equal_logits_and_gradients():
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    written = [{"conv": {"channels": 4, "activation": "relu"}}, {"pool": 2}] * 2
    models = []
    for kind, knobs in ((CNN, {"channels": [4, 4]}), (Sequential, {"layers": written})):
        torch.manual_seed(3)
        models.append(kind((1, 28, 28), 10, init="glorot_uniform", **knobs))
    logits = [model(images) for model in models]
    assert torch.equal(*logits)
    for each in logits:
        each.square().sum().backward()
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_pooling_runs_before_the_relu_and_the_numbers_are_those_of_torch():
    layers = {"conv1": {"channels": 3, "activation": "relu"}, "pool1": 2, "dense1": 6}
    model = Sequential((1, 12, 12), 4, layers=layers)
    names = [name for name, _ in model.network.named_children()]
    assert names[:3] == ["conv1", "pool1", "conv1_activation"]
    net = model.network
    plain = nn.Sequential(
        *(net.conv1, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), net.dense1, net.output)
    )
    images = torch.randint(0, 256, (2, 1, 12, 12), dtype=torch.uint8)
    torch.testing.assert_close(model(images), plain(images / 255))


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+model.layers.convv=3"], "no such kind of layer; allowed: conv, pool"),
        (["+model.layers.convv3=3"], "did you mean 'conv'?"),
        (["+model.layers.conv1.kernal_size=3"], "did you mean 'kernel_size'?"),
        (["model.layers.conv1.kernal_size=3"], "did you mean 'kernel_size'?"),
        (["model.layers.conv1.stride=2"], "+model.layers.conv1.stride=... adds it"),
        (["model.layers.conv3.stride=2"], "its layers are conv1, pool1, conv2, pool2"),
        (["model.layers.convv.stride=2"], "no such kind of layer"),
        (
            ["model.layers.conv1.kernel_size=abc"],
            "layers.conv1.kernel_size=abc: 'abc' is not a size",
        ),
        (["model.layers.conv1.channels=many"], "model.layers.conv1.channels=many: 'many'"),
        (["model.layers.conv1.activation=rely"], "did you mean 'relu'?"),
        (["+model.layers.dropout1=1"], "model.layers.dropout1.p=1: 1 is not a probability"),
        (["+model.layers.dense1={}"], "model.layers.dense1.units: the key is missing"),
        (["+model.layers.flatten=3"], "model.layers.flatten=3: flatten takes no value"),
        (["+model.layers.flatten=null", "+model.layers.conv3=4"], "put conv3 before flatten"),
        (["+model.layers.dense1=9", "+model.layers.pool3=2"], "put pool3 before dense1"),
        (["~model.layers", "+model.layers={}"], "model.layers is empty; allowed: one layer"),
        (["~model.layers", "+model.layers=[]"], "model.layers is empty; allowed: one layer"),
        (["~model.layers", "+model.layers=[conv]"], "model.layers.conv1.channels: the key is"),
        (["~model.layers", "+model.layers=[[conv,3]]"], "model.layers: entry 1 is ['conv', 3]"),
        (["model.layers=3"], "model.layers=3: allowed: a mapping of layers"),
        (["~model.layers"], "model.layers: the key is missing"),
        (
            ["model.layers.conv2.kernel_size=20"],
            "layer conv2: a 20x20 kernel does not fit its 13x13",
        ),
        (["model.layers.pool2.size=20"], "try size <= 11, padding=same or kind=none"),
        (["+model.layers.pool2.padding=2"], "padding <= 1, padding=same or kind=none"),
        (["+model.layers.conv2.groups=3"], "layer conv2: groups=3 must divide its 32 input"),
    ],
)
def test_a_mistake_is_one_sentence(command, overrides, words):
    answer = command("plan", "model=sequential", *overrides)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err
    assert answer.err.count("\n") == 1


def test_a_single_value_of_a_list_is_refused_with_the_remedy(command):
    listed = ["~model.layers", "+model.layers=[{conv: 4}]", "model.layers.conv1.channels=3"]
    answer = command("plan", "model=sequential", *listed)
    assert answer.code == 2
    assert "write them as a mapping" in answer.err


def test_a_layer_written_as_a_value_can_be_set_and_is_checked_in_python_too(command):
    layers = ["~model.layers", "+model.layers={conv1: 4, pool1: 2}"]
    assert command("plan", "model=sequential", *layers, "model.layers.pool1=3").code == 0
    with pytest.raises(ConfigError, match=r"^layers\.pool1\.size=0: 0 is too small"):
        Sequential((1, 28, 28), 10, layers={"pool1": 0})


# --- sweeps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "model.layers.conv1.kernel_size=5",
        "model.layers.conv1={channels:8}",
        "model.layers.conv1=16",
        "+model.layers.conv1.stride=2",
        "+model.layers.dense1=50",
        "~model.layers.pool2",
    ],
)
def test_a_sweep_sets_values_as_hydra_does(override):
    with initialised():
        composer = Composer(lambda overrides: compose("train", overrides))
        ours = composer.config(["model=sequential", override])
    assert check(ours) == check(composed("model=sequential", override))


def test_the_name_of_a_run_says_which_layers_value_was_chosen():
    overrides = ["model=sequential", "model.layers.conv1.kernel_size=5"]
    config = check(composed(*overrides))
    assert run_name(config, overrides, "abc") == "seq_conv32-conv64_conv1.kernel_size5-abc"


def test_a_sweep_is_trained_reported_and_planned(command, tmp_path):
    sweep = ["model.layers.conv1.kernel_size=3,5", "+model.layers.conv1.stride=1,2"]
    planned = command("plan", *SMALL, *sweep)
    assert "4 runs, 4 possible" in planned.out
    assert "4x26x26 > 4x13x13 > 6x11x11 > 6x5x5" in planned.out
    answer = command("train", "-m", *SMALL, *sweep, "visual=off", "name=layers")
    assert answer.code == 0, answer.err
    (header,) = [line for line in answer.out.splitlines() if "val/acc" in line and "runs" in line]
    assert header.split()[:2] == ["kernel_size", "stride"]
    table = (tmp_path / "outputs/sweeps/layers/results.csv").read_text("utf-8")
    assert "model.layers.conv1.kernel_size" in table.splitlines()[0]


# --- what else takes a run --------------------------------------------------------------------


def test_a_trained_network_is_evaluated_probed_explained_and_pictured(command, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    answer = command("train", *SMALL)
    assert answer.code == 0, answer.err
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    result = json.loads((run / "result.json").read_text("utf-8"))
    evaluation = json.loads(command("evaluate", run, "--json").out)
    assert evaluation["test/acc"] == pytest.approx(result["metrics"]["test/acc"], abs=0.01)
    assert command("explain", run, 3).code == 0
    assert "permute/acc" in command("probe", run, "permute", "--images", 50).out
    Image.new("L", (28, 28)).save(tmp_path / "black.png")
    assert "black.png" in command("predict", run, tmp_path / "black.png").out
    assert "finished" in command("train", f"resume={run}").out
    pictures = EventAccumulator(str(run), size_guidance={"images": 0}).Reload().Tags()["images"]
    assert {
        "view/feature_maps/conv1",
        "view/feature_maps/conv2",
        "view/filters/first_layer",
    } <= set(pictures)
