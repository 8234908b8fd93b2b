"""Networks that end in their own 1x1 convolution and global pool: All-CNN, Network in Network."""

import pytest
import torch

import convscape
from convscape.config.check import check
from convscape.runs.fingerprint import fingerprint
from tests.conftest import TINY
from tests.test_config import checked

# All-CNN-C of Springenberg et al. 2015, table 1, https://arxiv.org/abs/1412.6806
ALL_CNN_C = (
    "data=cifar10",
    "model=cnn",
    "model.channels=[96,96,96,192,192,192,192,192,10]",
    "model.kernel_size=[3,3,3,3,3,3,3,1,1]",
    "model.stride=[1,1,2,1,1,2,1,1,1]",
    "model.padding=same",
    "model.pool=none",
    "model.head=global_avg",
    "model.output_layer=none",
)
LAYERS = "{conv1:{channels:6,activation:relu},conv2:{channels:10,kernel_size:1},global_pool:avg}"
ENDS_ITSELF = ("model=sequential", "~model.layers", f"+model.layers={LAYERS}")


def test_all_cnn_has_its_published_number_of_parameters():
    plan = checked(*ALL_CNN_C).plan()
    assert plan.num_parameters == 1_369_738
    assert plan.layers[-1].output_shape == (10,)


def test_both_ways_to_write_it_are_one_network():
    knobs = ("model.channels=[6,10]", "model.kernel_size=[3,1]", "model.activation=[relu,none]")
    one = checked(*knobs, "model.pool=none", "model.head=global_avg", "model.output_layer=none")
    other = checked(*ENDS_ITSELF, "model.output_layer=none")
    assert fingerprint(one) == fingerprint(other) != fingerprint(checked(*ENDS_ITSELF))


def test_a_config_without_the_key_has_an_output_layer():
    composed = checked(*ENDS_ITSELF).model_dump(by_alias=True)
    del composed["model"]["output_layer"]
    assert fingerprint(check(composed)) == fingerprint(checked(*ENDS_ITSELF))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+model.layers.conv2.stride=1", "model.layers.conv2.channels=9"], "ends in 9 numbers"),
        (["~model.layers.global_pool"], "ends in 10x26x26 numbers (layer conv2)"),
        (["data=cifar100"], "the data have 100 classes; try 100 channels"),
    ],
)
def test_another_number_than_that_of_the_classes_is_refused(command, overrides, words):
    answer = command("plan", *ENDS_ITSELF, "model.output_layer=none", *overrides)
    assert (answer.code, words in answer.err) == (2, True), answer.err
    assert command("plan", *ENDS_ITSELF, *overrides, "model.output_layer=dense").code == 0


def test_it_is_trained_explained_and_exported(command, tmp_path):
    words = [*ENDS_ITSELF, "model.output_layer=none", *TINY[1:], "logger=csv"]
    run = convscape.train(*words, f"output_dir={tmp_path}")
    assert run.model.network[-1].kind == "avg"
    assert command("explain", run.path, "0").code == 0
    assert command("evaluate", run.path).code == 0
    assert command("export", run.path, "--format", "torch_export").code == 0
    images = run.data.tensors("test", torch.arange(5))[0]
    exported = torch.export.load(run.path / "model.pt2").module()
    torch.testing.assert_close(exported(images), run.logits(images), rtol=1e-3, atol=1e-4)


def test_it_is_built_in_python():
    layers = [{"conv": {"channels": 10, "kernel_size": 1}}, "global_pool"]
    model = convscape.Sequential((1, 8, 8), 10, layers=layers, output_layer="none")
    assert model.plan.num_parameters == 20
    with pytest.raises(convscape.InfeasibleGeometry, match="ends in 10 numbers"):
        convscape.Sequential((1, 8, 8), 7, layers=layers, output_layer="none")
