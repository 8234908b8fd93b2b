"""The arithmetic of the living page in a real browser, against torch."""

import base64
import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from convscape.base.errors import ConfigError
from convscape.geometry.kinds import ACTIVATIONS
from convscape.geometry.layers import POOLINGS, Activation, Pool
from convscape.living.document import KINDS, document, network, obstacle
from convscape.living.page import html, write_page
from convscape.models.networks import CNN, MLP, Sequential
from convscape.trained.load import TrainedRun, load_run

from .conftest import TINY
from .drawn_networks import drawn
from .test_explain import outputs_of

NUM_NETWORKS = 40
NUM_IMAGES = 100
CLOSE = 1e-4  # of the largest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained run."""
    from tests.dying import train_apart

    path = tmp_path_factory.mktemp("living")
    assert train_apart([*TINY, "visual=off"], path) == "ok"
    return load_run(path)


@pytest.fixture(scope="module")
def values(run):
    """Its document, as the page reads it."""
    return json.loads(json.dumps(document(run)))


@pytest.fixture(scope="module")
def networks():
    return [drawn(seed) for seed in range(NUM_NETWORKS)]


def digits(channels):
    """Test images (N, C, 16, 14) uint8: digits, in colour each channel another part of them."""
    small = load_digits().images[-NUM_IMAGES:] * (255 / 16)
    large = np.kron(small, np.ones((2, 2)))[:, :, 1:-1]
    shifted = [np.roll(large, 2 * c, 2) * (1 - 0.2 * c) for c in range(channels)]
    return torch.from_numpy(np.stack(shifted, 1).astype(np.uint8))


def test_the_drawn_networks_hold_every_kind_there_is(networks):
    layers = [row.layer for model in networks for row in model.plan.all_layers]
    assert {type(layer) for layer in layers} == set(KINDS)
    assert {type(model) for model in networks} == {CNN, MLP, Sequential}
    assert {model.plan.input_shape[0] for model in networks} == {1, 3}
    named = {layer.name for layer in layers if isinstance(layer, Activation)}
    assert named == {*ACTIVATIONS} - {"none"}
    pools = [layer for layer in layers if isinstance(layer, Pool)]
    assert {layer.kind for layer in pools} == set(POOLINGS)
    assert any(layer.ceil_mode and layer.kind in ("max", "avg") for layer in pools)
    slides = [layer for layer in layers if hasattr(layer, "padding")]
    assert {str(layer.padding) for layer in slides} >= {"valid", "same", "circular", "(1, 1)"}
    assert any(getattr(layer, "groups", 1) > 1 for layer in layers)
    assert any(max(getattr(layer, "dilation", (1,))) > 1 for layer in layers)


@pytest.mark.long
def test_every_layer_of_drawn_networks_gives_what_torch_gives(networks, browser):
    page = browser.new_page()
    page.add_script_tag(content=(files("convscape.living") / "static/engine.js").read_text())
    differences = []
    for model in networks:
        images = digits(model.plan.input_shape[0])
        found = page.evaluate(
            """([found, text]) => {
                const { engine } = convscape;
                const network = engine.build(found), images = engine.bytes(text);
                const size = found.input.reduce((a, b) => a * b), all = [];
                for (let i = 0; i < images.length; i += size)
                    all.push(network.run(images.subarray(i, i + size)));
                return {
                    logits: all.map((layers) => Array.from(layers[network.last].values)),
                    names: all[0].map(({layer}) => layer.name),
                    shapes: all[0].map(({shape}) => shape),
                    layers: all[0].map(({values}) => Array.from(values)),
                };
            }""",
            [network(model), base64.b64encode(images.numpy().tobytes()).decode()],
        )
        with torch.no_grad():
            logits = model(images)
        differences.append(relative(found["logits"], logits))
        expected = outputs_of(model, images[0])
        assert found["names"] == [row.name for row in model.plan.all_layers]
        for name, shape, values in zip(
            found["names"], found["shapes"], found["layers"], strict=True
        ):
            assert [*expected[name].shape[1:], 1, 1][:3] == shape
            assert relative(values, expected[name].flatten()) < CLOSE, name
    print(f"largest differences: {sorted(differences)[-5:]}")  # noqa: T201
    assert max(differences) < CLOSE


def relative(found, expected):
    """The largest difference, as a part of the largest value."""
    return float((torch.tensor(found) - expected).abs().max() / expected.abs().max())


def opened(browser, path, values):
    """The page of a document, and what it complains of."""
    path.write_text(html(values), "utf-8")
    page = browser.new_page(offline=True)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    return page, complaints


def test_a_run_answers_in_the_page_as_in_torch(run, values, browser, tmp_path):
    page, complaints = opened(browser, tmp_path / "page.html", values)
    places = values["images"]["places"]
    images, _ = run.data.tensors("test")
    logits = page.evaluate(
        "all => all.map(pixels => convscape.predict(Uint8Array.from(pixels)))",
        images[places].flatten(1).tolist(),
    )
    assert relative(logits, run.logits(images[places])) < CLOSE
    assert page.evaluate("convscape.classes") == run.classes
    with pytest.raises(Exception, match="3 pixels; allowed: 1 x 28 x 28, one channel after the"):
        page.evaluate("convscape.predict(new Uint8Array(3))")
    page.evaluate("convscape.state.set({pixels: null}); convscape.state.flush()")
    assert page.evaluate("convscape.state.get().probabilities") is None
    assert not complaints


def test_its_images_are_of_every_class_with_the_mistakes_first(run, values):
    images = values["images"]
    labels, predicted = torch.tensor(images["labels"]), torch.tensor(images["predicted"])
    assert labels.bincount().tolist() == [10] * 10
    answers = run.logits(run.data.tensors("test")[0]).argmax(1)
    assert answers[images["places"]].tolist() == images["predicted"]
    all_labels = run.data.labels("test")
    for label in range(10):
        wrong = (predicted != labels)[labels == label].tolist()
        assert wrong == sorted(wrong, reverse=True)
        all_wrong = int((answers != all_labels)[all_labels == label].sum())
        assert sum(wrong) == min(all_wrong, 10)


def test_the_default_cnn_is_light_and_follows_a_slider(values, browser, tmp_path):
    model = CNN((1, 28, 28), 10, channels=[32, 64])
    page, complaints = opened(browser, tmp_path / "page.html", values | network(model))
    assert (tmp_path / "page.html").stat().st_size < 1.5e6
    times = page.evaluate(
        """() => Array.from({length: 50}, (_, i) => {
            const {pixels} = convscape.state.get();
            convscape.state.set({pixels: Uint8Array.from(pixels, (_, j) => pixels[(j + i) % 784])});
            convscape.state.flush();
            return convscape.state.get().milliseconds;
        })"""
    )
    assert sorted(times)[25] < 30
    assert not complaints


def test_names_are_text_and_the_page_runs_and_fetches_nothing_else(values, browser, tmp_path):
    hostile = "</script><script>window.taken = 1</script><img src=x onerror='window.taken = 2'>"
    names = {key: hostile for key in ("title", "run", "words", "data")}
    chosen = values["images"]["pixels"][: 784 // 3 * 4] + "AA=="
    changed = {
        **names,
        "classes": [hostile] * 10,
        "chosen": {"pixels": chosen, "name": hostile, "label": 3},
    }
    page, complaints = opened(browser, tmp_path / "page.html", values | changed)
    assert page.locator("#title").text_content() == hostile
    assert page.title() == hostile
    assert not complaints
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.taken = 3";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.taken = 4'>");
        }"""
    )
    refused = page.evaluate("() => fetch('data:text/plain,1').then(() => 'got', () => 'refused')")
    assert refused == "refused"
    assert page.evaluate("window.taken") is None
    assert all("Content Security Policy" in complaint for complaint in complaints)


def test_weights_that_are_no_numbers_leave_the_page_alive(run, browser, tmp_path, values):
    model = CNN((1, 28, 28), 10, channels=[2])
    with torch.no_grad():
        model.network.output.weight[3] = float("nan")
        model.network.output.bias[4] = float("inf")
    model.shift.fill_(float("inf"))
    page, complaints = opened(browser, tmp_path / "page.html", values | network(model))
    assert page.evaluate("Number.isNaN(convscape.state.get().logits[3])")
    assert page.locator("#failure").is_hidden()
    assert not complaints


def test_what_no_page_computes_is_said(run, monkeypatch):
    assert obstacle(run) is None
    own = replace(run, model=torch.nn.Flatten())
    assert obstacle(own) == "only the code of Flatten says what it computes"
    for limit, words in (
        ("MACS", "MACs for one image"),
        ("PARAMETERS", "parameters"),
        ("ACTIVATIONS", "activations"),
        ("LAYERS", "layers"),
        ("CLASSES", "classes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"convscape.living.document.MAX_{limit}", 4)
            assert obstacle(run).endswith(f" {words}, and a page can compute up to 4")
    model = CNN((1, 28, 28), 10, channels=[2])
    torch.nn.utils.parametrizations.weight_norm(model.network.block1.conv)
    assert obstacle(replace(run, model=model)).startswith("layer block1.conv (conv 3x3) is of a")


def test_without_its_data_a_run_has_a_page_without_images(run, browser, tmp_path):
    lost = load_run(run.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainedRun, "image_set", property(lambda self: refuse()))
        lines = write_page(lost, tmp_path / "page.html")
        assert lines[1] == "no test images in it: there is no such data"
    page = browser.new_page(offline=True)
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("#failure").is_hidden()
    assert page.evaluate("convscape.predict(new Uint8Array(784)).length") == 10


def refuse():
    raise ConfigError("there is no such data")
