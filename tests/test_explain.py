"""The page of scripts/explain.py, opened from disk in a real browser, against torch."""

import re
import time
from pathlib import Path

import pytest
import torch

from convscape.base.errors import ConfigError
from convscape.models.classifier import ImageClassifier
from convscape.models.networks import CNN, MLP, Sequential
from convscape.trained import explain
from convscape.trained.load import TrainedRun, load_run

from .conftest import TINY

CLASSES = [f"class {i}" for i in range(7)]
MEAN, STD = [0.3, 0.5, 0.4], [0.2, 0.3, 0.25]
NETWORKS = {
    "plain": {"channels": [5, 6], "kernel_size": 3, "dense": [9]},
    "odd": {
        "channels": [4, 6, 8],
        "kernel_size": ["3x5", 2, 3],
        "stride": [2, 1, 1],
        "padding": ["same", "1", "same"],
        "dilation": [1, 2, 1],
        "groups": [1, 2, 2],
        "pool": ["none", "avg", "max"],
        "pool_size": [2, 3, 2],
        "pool_stride": [2, 2, 1],
        "pool_padding": ["valid", "same", "valid"],
        "batch_norm": True,
        "activation": ["tanh", "leaky_relu", "relu"],
        "dropout": 0.2,
        "head": "global_avg",
    },
    "around": {
        "channels": [4, 5, 6],
        "kernel_size": [3, "3x5", 3],
        "stride": [1, 2, 1],
        "padding": "circular",
        "pool": ["avg", "max", "aps"],
        "pool_size": 2,
        "pool_stride": [2, 1, 2],
        "pool_padding": "circular",
    },
    "smooth": {
        "channels": [3, 4],
        "padding": "same",
        "pool": ["blur", "aps"],
        "pool_size": [2, "2x3"],
        "pool_stride": [2, "2x3"],
        "pool_padding": ["same", 1],
    },
    "sampled": {"channels": [96, 130], "pool": "none", "head": "global_max"},
    "residual": {
        "layers": [
            {"conv": {"channels": 6, "padding": "same"}},
            {"residual": [{"conv": {"channels": 6, "padding": "same"}}, "batch_norm"]},
            {"pool": 2},
            {
                "residual": {
                    "layers": [
                        {"conv": {"channels": 70, "stride": 2, "padding": 1, "activation": "relu"}},
                        {"residual": [{"conv": {"channels": 70, "padding": "same"}}]},
                    ],
                    "activation": "tanh",
                }
            },
            {
                "residual": {
                    "layers": [{"conv": {"channels": 5, "stride": "1x2", "padding": "same"}}],
                    "shortcut": "projection",
                }
            },
            {"dense": 8},
            {"residual": [{"dense": {"units": 9, "activation": "relu"}}, {"dense": 11}]},
        ]
    },
    "layers": {
        "layers": [
            *({"pool": 2}, {"conv": {"channels": 5, "activation": "relu"}}, {"pool": 2}),
            *("batch_norm", {"conv": 7}, {"activation": "tanh"}, {"dense": 8}, "batch_norm"),
        ]
    },
}
KINDS = {"layers": Sequential, "residual": Sequential}


def random_model(kind, shape, **knobs):
    """A network with random weights, batch-norm statistics too."""
    torch.manual_seed(1)
    training = {"mean": MEAN[: shape[0]], "std": STD[: shape[0]], "classes": CLASSES}
    model = kind(shape, len(CLASSES), training=training, **knobs)
    for name, values in [*model.named_parameters(), *model.named_buffers()]:
        is_blur = name.endswith("pool.kernel")  # which no training changes
        if name.startswith("network") and values.is_floating_point() and not is_blur:
            values.data = torch.rand_like(values) - (0 if "var" in name else 0.5)
    return model.eval()


def outputs_of(model, image):
    """What each layer gives, with torch alone, in the order of the page: a sum behind its terms."""
    found = {"input": model.normalize(image[None])}

    def through(rows, values):
        for row in rows:
            for branch in row.branches:
                through(branch, values)
            values = found[row.name] = model.network.get_submodule(row.name)(values)
        return values

    with torch.no_grad():
        through(model.plan.layers, found["input"])
    return found


def open_page(browser, path, **options):
    """The page without a network, and what it complained of."""
    page = browser.new_page(offline=True, **options)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    start = time.monotonic()
    page.goto(Path(path).as_uri())
    return page, complaints, time.monotonic() - start


def shown_numbers(page):
    """Numbers of the panel by their place in the sum."""
    cells = page.locator("#detail .sum td[id]").all()
    return {c.get_attribute("id"): float(c.get_attribute("data-value")) for c in cells}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_random_cnn_shows_torchs_numbers(name, browser, tmp_path):
    model = random_model(KINDS.get(name, CNN), (3, 20, 24), **NETWORKS[name])
    image = torch.randint(0, 256, (3, 20, 24), dtype=torch.uint8)
    run = TrainedRun(Path("a run"), None, model)
    explain.write_page(run, image, "an image", 3, tmp_path / "page.html")
    page, complaints, _ = open_page(browser, tmp_path / "page.html")
    expected = outputs_of(model, image)
    for index, (layer, values) in enumerate(expected.items()):
        facts = page.evaluate(f"({{shown: LAYERS[{index}].shown, name: LAYERS[{index}].name}})")
        assert facts["name"] == layer
        position = len(facts["shown"]) // 2
        unit = (facts["shown"][position],)
        place = (0, 0)
        if values.ndim == 4:
            place = values.shape[2] - 1, values.shape[3] // 2  # at the border, where padding is
            unit = (*unit, *place)
        page.evaluate(f"choose({index}, {position}, {place[0]}, {place[1]})")
        numbers = shown_numbers(page)
        truth = float(values[0][unit])
        assert numbers["result"] == pytest.approx(truth, abs=1e-5), layer
        if "sum" in numbers:
            parts = sum(numbers.get(part, 0) for part in ("sum", "rest", "bias"))
            assert parts == pytest.approx(truth, abs=1e-4)
        if "term0" in numbers:
            assert numbers["term0"] + numbers["term1"] == pytest.approx(truth, abs=1e-5)
        if layer.endswith(".conv") and "rest" not in numbers:
            assert page.locator("#detail select option").count() >= 1
    row = page.locator("#softmax tr").nth(1).locator("td").all()
    probabilities = expected[model.plan.layers[-1].name].softmax(1)[0]
    assert float(row[2].get_attribute("data-value")) == pytest.approx(
        float(probabilities.max()), abs=1e-6
    )
    assert not complaints


def test_a_sum_names_its_terms_and_shows_them(browser, tmp_path):
    model = random_model(Sequential, (3, 20, 24), **NETWORKS["residual"])
    image = torch.randint(0, 256, (3, 20, 24), dtype=torch.uint8)
    run = TrainedRun(Path("a run"), None, model)
    explain.write_page(run, image, "an image", None, tmp_path / "page.html")
    page, complaints, _ = open_page(browser, tmp_path / "page.html")
    outputs = outputs_of(model, image)
    terms = {
        "residual1": ("residual1.batch_norm1", "conv1"),
        "residual2": ("residual2.residual1", "residual2.shortcut"),
        "residual2.residual1": ("residual2.residual1.conv1", "residual2.conv1_activation"),
        "residual3": ("residual3.conv1", "residual3.shortcut.batch_norm"),
        "residual4": ("residual4.dense2", "residual4.shortcut"),
    }
    names = page.evaluate("LAYERS.map(layer => layer.name)")
    for name, (first, second) in terms.items():
        section = page.get_by_label(name, exact=True)
        assert f"adds {first} and {second}" in section.text_content()
        page.evaluate(f"choose({names.index(name)}, 3, 0, 0)")
        channel = page.evaluate(f"LAYERS[{names.index(name)}].shown[3]")
        numbers = shown_numbers(page)
        for term, source in (("term0", first), ("term1", second)):
            expected = outputs[source][0, channel].flatten()[0]
            assert numbers[term] == pytest.approx(float(expected), abs=1e-5), (name, source)
    assert "takes pool1" in page.get_by_label("residual2.shortcut", exact=True).text_content()
    assert not complaints


def test_sums_are_complete_where_all_maps_are_shown(browser, tmp_path):
    model = random_model(CNN, (1, 12, 12), channels=[3, 4], padding="same")
    image = torch.randint(0, 256, (1, 12, 12), dtype=torch.uint8)
    run = TrainedRun(Path("a run"), None, model)
    explain.write_page(run, image, "an image", None, tmp_path / "page.html")
    page, _, _ = open_page(browser, tmp_path / "page.html")
    before = outputs_of(model, image)["block1.pool"]
    weight = model.network.block2.conv.weight
    index = [layer["name"] for layer in page.evaluate("DATA.layers.map(l => ({name: l.name}))")]
    page.evaluate(f"choose({index.index('block2.conv')}, 2, 0, 0)")
    assert "rest" not in shown_numbers(page)
    for option in page.locator("#detail select option").all():
        channel = int(re.search(r"input map (\d+)", option.text_content())[1]) - 1
        page.locator("#detail select").select_option(option.get_attribute("value"))
        tables = page.locator("#detail .cells").all()
        cells = [
            [float(td.get_attribute("data-value") or 0) for td in table.locator("td").all()]
            for table in tables
        ]
        patch = torch.zeros(3, 3)
        patch[1:, 1:] = before[0, channel, :2, :2]
        for got, want in zip(
            cells, (patch, weight[2, channel], patch * weight[2, channel]), strict=True
        ):
            assert got == pytest.approx(want.flatten().tolist(), abs=1e-6)


def test_a_trained_run_is_explained_by_mouse_and_keyboard(command, browser, tmp_path):
    assert command("train", *TINY, "trainer.max_epochs=1", "visual=off").code == 0
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    loaded = load_run(run)
    image = explain.choose_image(loaded, "3", "test")
    explain.write_page(loaded, image.image, image.name, image.label, run / "explain.html")
    size = (run / "explain.html").stat().st_size
    page, complaints, seconds = open_page(browser, run / "explain.html")
    assert size < 5e6
    assert seconds < 30
    page.get_by_label("block1.conv, map 2 of").click(position={"x": 30, "y": 20})
    assert page.locator("#summary").text_content().startswith("block1.conv, map 2, row")
    assert page.locator("#seen").is_visible()
    before = page.locator("#summary").text_content()
    page.keyboard.press("ArrowRight")
    assert page.locator("#summary").text_content() != before
    page.keyboard.press("n")
    assert "block1.conv, map 3" in page.locator("#summary").text_content()
    page.get_by_label("block1.pool, map 1 of").click()
    assert "the largest of 4" in page.locator("#detail").text_content()
    page.get_by_label("flatten, number 1 of").click()
    assert "map 1, row 1, column 1" in page.locator("#detail").text_content()
    page.get_by_label("output, class 4 of").click()  # the digit, as predict says it
    assert page.locator("#summary").text_content().startswith("output, class 4:")
    assert "largest products" in page.locator("#detail").text_content()
    assert not complaints


def test_an_mlp_is_explained_with_its_weights_as_images(browser, tmp_path):
    model = random_model(MLP, (3, 8, 8), hidden=[140, 5], batch_norm=True, dropout=0.1)
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    run = TrainedRun(Path("a run"), None, model)
    explain.write_page(run, image, "</script><b>", 0, tmp_path / "page.html")
    page, complaints, _ = open_page(browser, tmp_path / "page.html")
    expected = outputs_of(model, image)
    for index, (layer, values) in enumerate(expected.items()):
        if values.ndim == 2:
            shown = page.evaluate(f"LAYERS[{index}].shown")
            page.evaluate(f"choose({index}, {len(shown) - 1}, 0, 0)")
            result = shown_numbers(page)["result"]
            assert result == pytest.approx(float(values[0, shown[-1]]), abs=1e-5), layer
    page.get_by_label("hidden1.dense, number 1 of").click()
    assert page.locator("#detail canvas").count() == 3
    assert "128 of 140 numbers" in page.locator("#layers").text_content()
    assert page.locator("#title").text_content() == "a run: </script><b>"
    assert not complaints


def test_wrong_input_is_one_sentence(command, tmp_path):
    assert command("train", *TINY, "trainer.max_epochs=1", "visual=off").code == 0
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    answer = command("explain", run, 99999)
    assert (answer.code, answer.err) == (
        2,
        "error: there is no image 99999 in the test split: it has 359\n",
    )
    assert "there is no image -1 in the test split" in command("explain", run, -1).err
    assert "there is no picture 'nowhere'" in command("explain", run, "nowhere").err
    assert (
        "config.yaml' is not a picture; allowed: "
        in command("explain", run, run / "config.yaml").err
    )
    assert command("explain", tmp_path, 1).code == 2
    own = TrainedRun(run, None, ImageClassifier(torch.nn.Flatten()))
    with pytest.raises(ConfigError, match="the network answers N images with"):
        explain.explanation(own, torch.zeros(1, 8, 8, dtype=torch.uint8), "", None)
