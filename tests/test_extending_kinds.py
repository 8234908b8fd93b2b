"""A part of each kind is added from outside, without a line changed, and trained with."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from convscape import geometry
from convscape.base.errors import ConfigError
from convscape.config.metrics import METRICS
from convscape.config.optimizers import OPTIMIZERS
from convscape.models import modules
from convscape.models.networks import Sequential
from convscape.trained.explain import write_page
from convscape.trained.load import TrainedRun

from .test_explain import open_page, shown_numbers
from .test_sequential import SMALL


@pytest.fixture(scope="module")
def toys():
    """The parts of tests/toy_parts.py, for this file alone."""
    registries = [
        geometry.LAYER_KINDS,
        geometry.POOLINGS,
        modules.MODULES,
        modules.POOLS,
        OPTIMIZERS,
        METRICS,
    ]
    before = [dict(registry) for registry in registries]
    # importing it registers its parts: also when this file's tests come to a process in two turns
    sys.modules.pop("tests.toy_parts", None)
    yield importlib.import_module("tests.toy_parts")
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_a_pooling_without_a_module_is_one_sentence(toys, command):
    geometry.POOLINGS["nowhere"] = geometry.POOLINGS["rms"]
    try:
        answer = command("train", *SMALL, "+model.layers.pool2.kind=nowhere")
    finally:
        del geometry.POOLINGS["nowhere"]
    assert (answer.code, "give it one in" in answer.err) == (2, True), answer.err


def test_a_kind_of_layer_and_a_pooling_are_trained_explained_and_evaluated(toys, command, tmp_path):
    own = ["+model.layers.scale1=0.25", "+model.layers.pool2.kind=rms", "+model.layers.dense1=8"]
    planned = command("plan", *SMALL, *own)
    assert re.search(r"scale1 +scale +6x5x5 +6 +150 +10\n", planned.out), planned.out
    assert "rms pool 2x2" in planned.out
    answer = command("train", *SMALL, *own, "visual=off")
    assert answer.code == 0, answer.err
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    factors = weights["network.scale1.factors"]
    assert ((factors - 0.25).abs() > 1e-4).all()  # it has learned
    result = json.loads((run / "result.json").read_text("utf-8"))
    evaluation = json.loads(command("evaluate", run, "--json").out)
    assert evaluation["test/acc"] == pytest.approx(result["metrics"]["test/acc"], abs=0.01)
    assert result["num_parameters"] == sum(each.numel() for each in weights.values())
    assert command("explain", run, 3).code == 0


def test_the_numbers_are_those_of_torch(toys):
    model = Sequential((1, 9, 9), 3, layers=[{"scale": 0.5}, {"pool": {"size": 3, "kind": "rms"}}])
    images = torch.rand(2, 1, 9, 9)
    expected = F.lp_pool2d(images / 2, 2, 3) / 3  # the root of a sum, not of a mean
    torch.testing.assert_close(model.network.pool1(model.network.scale1(images)), expected)


def test_a_kind_of_layer_without_a_module_is_one_sentence(toys, monkeypatch):
    monkeypatch.delitem(modules.MODULES, toys.Scale)
    with pytest.raises(
        ConfigError, match=r"^layer scale1: Scale has no module; .*MODULES\[Scale\]"
    ):
        Sequential((1, 9, 9), 3, layers=[{"scale": 0.5}])


def test_the_page_shows_the_maps_of_kinds_that_it_does_not_know(toys, browser, tmp_path):
    written = [{"scale": 0.5}, {"pool": {"size": 3, "kind": "rms"}}]
    model = Sequential((1, 9, 9), 3, layers=written, training={"classes": list("abc")})
    image = torch.randint(0, 256, (1, 9, 9), dtype=torch.uint8)
    write_page(TrainedRun(Path("a run"), None, model), image, "an image", 1, tmp_path / "page.html")
    page, complaints, _ = open_page(browser, tmp_path / "page.html")
    assert page.evaluate("LAYERS.map(l => l.name).join()") == "input,scale1,pool1,flatten,output"
    for layer, values in ((1, image[0] / 255 / 2), (2, None)):
        page.evaluate(f"choose({layer}, 0, 1, 2)")
        assert "is not known here" in page.locator("#detail").inner_text()
        if values is not None:
            assert shown_numbers(page)["result"] == pytest.approx(float(values[1, 2]), abs=1e-6)
    assert page.locator("#detail table.cells td").count() == 9  # what the window of pool1 saw
    assert complaints == []


def test_mistakes_are_sentences_as_with_the_others(toys, command):
    wrong = command("plan", "model=sequential", "+model.layers.scalee=1")
    assert (wrong.code, "did you mean 'scale'?" in wrong.err) == (2, True)
    wrong = command("plan", "model=sequential", "+model.layers.scale1.begin=0.5")
    assert "model.layers.scale1.begin: there is no such key; allowed: start" in wrong.err
    wrong = command("plan", "model=cnn", "model.pool=rmss")
    assert "did you mean 'rms'?" in wrong.err
    wrong = command("plan", "model=cnn", "model.pool=rms", "model.pool_size=99")
    assert "pool: a 99x99 rms pool at stride 99 does not fit its 26x26 input" in wrong.err


def test_an_optimiser_a_data_set_and_a_metric_are_trained_with(toys, command, tmp_path):
    own = ["data=own", "data._target_=tests.toy_parts.stripes", "allow_packages=[tests]"]
    own += ["data.val_size=60", "~optimizer", "+optimizer={name: sign, lr: 0.002, shrink: 0.0}"]
    network = ["model=own", "model._target_=tests.toy_parts.Sure", "+model.channels=[4]"]
    network += [
        "trainer.monitor=val/sureness",
        "trainer.max_epochs=3",
        "trainer.threads=1",
        "visual=off",
    ]
    answer = command("train", *own, *network)
    assert answer.code == 0, answer.err
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    result = json.loads((run / "result.json").read_text("utf-8"))
    assert result["config"]["optimizer"] == {"name": "sign", "lr": 0.002, "shrink": 0.0}
    assert result["metrics"]["test/acc"] > 0.9
    assert 0.5 < result["metrics"]["val/sureness"] <= 1  # whose direction nobody had to say
    wrong = command("plan", *own[:-1], "+optimizer={name: sign, lr: 0.1, shrink: 1.5}")
    assert (wrong.code, wrong.err) == (2, "error: optimizer.shrink=1.5: allowed: less than 1\n")
    wrong = command("plan", *own[:-1], "+optimizer={name: sign, lr: 0.1, shrnk: 0.5}")
    assert "optimizer.shrnk: there is no such key; allowed: name, lr, shrink" in wrong.err


def test_a_step_of_the_optimiser_is_one_of_lr_along_the_sign(toys):
    from convscape.models.networks import MLP

    training = {"optimizer": {"name": "sign", "lr": 0.5, "shrink": 0.0}}
    model = MLP((1, 2, 2), 2, hidden=[], training=training)
    before = model.network.output.bias.detach().clone()
    model.loss(model(torch.full((1, 1, 2, 2), 255.0)), torch.tensor([1])).backward()
    model.configure_optimizers().step()
    torch.testing.assert_close(model.network.output.bias - before, torch.tensor([-0.5, 0.5]))
