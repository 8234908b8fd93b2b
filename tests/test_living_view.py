"""The network on one screen and the steps behind a unit, in a real browser, against torch."""

import time

import pytest
import torch

from convscape.living import fitting
from convscape.living.document import _base64, layers_of
from convscape.living.page import html
from convscape.models.networks import CNN, MLP

from .conftest import PATIENCE_S
from .test_explain import CLASSES, KINDS, NETWORKS, open_page, outputs_of, random_model


def document_of(model, image):
    """A page's document of a network that no run has trained, open with an image."""
    plan, num_channels = model.plan, len(image)
    pixels = _base64(image.numpy())
    return {
        **{"title": "a network", "run": "a network", "words": "", "data": "noise"},
        "classes": CLASSES,
        "input": list(image.shape),
        "normalize": {
            "scale": model.scale.expand(num_channels, 1, 1).flatten().tolist(),
            "shift": model.shift.expand(num_channels, 1, 1).flatten().tolist(),
        },
        "layers": layers_of(plan.layers, model.network),
        "images": {"pixels": pixels, "labels": [3], "predicted": [3], "places": [0], "count": 1},
        "chosen": {"pixels": pixels, "name": "noise", "label": 3},
        "fitting": {
            **fitting.PLAIN,
            **{"base": list(image.shape), "canvas": None, "order": None},
            **{"brightness": 0.5, "ground": [0] * num_channels, "pictures": True},
        },
        "unlike": {"measure": None, "sure": None, "levels": []},
    }


class Living:
    """An opened page and the network in it."""

    def __init__(self, browser, path, model, image, **options):
        path.write_text(html(document_of(model, image)))
        self.page, self.complaints, _ = open_page(browser, path, **options)
        self.outputs = outputs_of(model, image)
        self.names = ["input", *(row.name for row in model.plan.all_layers)]

    def choose(self, name, *unit):
        place = [self.names.index(name) - 1, *unit, 0, 0][:4]
        selection = dict(zip(("layer", "map", "row", "column"), place, strict=True))
        self.page.evaluate(
            "s => convscape.state.set({selection: s}) ?? convscape.state.flush()", selection
        )

    def until(self, condition):
        """Wait until something holds; the page's policy forbids playwright's own way to."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.page.evaluate(condition):
            assert time.monotonic() < deadline, condition
            self.page.wait_for_timeout(20)

    def sums(self, card):
        """The numbers of a card's sum, the last its result."""
        cells = self.page.locator(f".card:has(h3:text('{card}')) .sum td").all()
        return [
            float(c.get_attribute("data-value")) for c in cells if c.get_attribute("data-value")
        ]


@pytest.fixture
def living(browser, tmp_path):
    """Open the page of a model and an image of noise."""

    def opened(model, **options):
        torch.manual_seed(2)
        image = torch.randint(0, 256, model.plan.input_shape, dtype=torch.uint8)
        return Living(browser, tmp_path / "page.html", model, image, **options)

    return opened


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_of_a_random_network_says_torchs_number(name, living):
    model = random_model(KINDS.get(name, CNN), (3, 20, 24), **NETWORKS[name])
    view = living(model)
    for layer, values in view.outputs.items():
        unit = (values.shape[1] // 2,)
        if values.ndim == 4:
            unit = (*unit, values.shape[2] - 1, values.shape[3] // 2)  # where padding is
        view.choose(layer, *unit)
        expected = pytest.approx(values[0][unit].item(), rel=1e-4, abs=1e-4)
        assert float(view.page.locator("#detail h2").get_attribute("data-value")) == expected
        if (row := next((r for r in model.plan.all_layers if r.name == layer), None)) is None:
            continue
        kind = type(row.layer).__name__
        if kind in ("Conv", "Dense", "Residual"):
            *terms, result = view.sums("adds up")
            assert sum(terms) == pytest.approx(result, rel=1e-4, abs=1e-4)
            assert result == expected
        if kind in ("Pool", "GlobalPool"):
            assert (
                view.sums("keeps" if row.layer.kind in ("max", "aps") else "the m")[-1] == expected
            )
    assert not view.complaints


def test_products_of_a_window_are_torchs_and_the_bars_are_the_maps(living):
    model = random_model(CNN, (1, 12, 12), channels=[3, 4], padding="same")
    view = living(model)
    view.choose("block2.conv", 2, 0, 3)
    before = torch.nn.functional.pad(view.outputs["block1.pool"][0], (1, 1, 1, 1))
    weight = model.network.block2.conv.weight[2]
    view.page.locator(".bars").focus()
    view.page.keyboard.press("Home")
    for channel in range(3):
        see, kernel, products = view.page.evaluate(
            "[...document.querySelectorAll('#detail .cells')].map("
            "t => [...t.querySelectorAll('td')].map(c => Number(c.dataset.value)))"
        )
        window = before[channel, 0:3, 3:6]
        assert see == pytest.approx(window.flatten().tolist(), abs=1e-5)
        assert kernel == pytest.approx(weight[channel].flatten().tolist(), abs=1e-5)
        assert products == pytest.approx((window * weight[channel]).flatten().tolist(), abs=1e-5)
        said = view.page.locator(".bars").get_attribute("aria-valuetext")
        assert said.startswith(f"map {channel + 1} adds")
        view.page.keyboard.press("ArrowRight")
    assert view.page.locator(".cells td.outside").count() == 3  # the row above the map


def test_links_lead_to_the_maps_that_are_read_with_their_weights(living):
    model = random_model(CNN, (3, 12, 12), channels=[4, 6], groups=[1, 2], padding="same")
    view = living(model)
    box = view.page.evaluate(
        """() => {
          const column = convscape.view.layout().columns[5];
          const tile = convscape.layout.tile(column, 4);
          const stage = document.querySelector('.over').getBoundingClientRect();
          return [stage.left + tile.x + tile.width / 2, stage.top + tile.y + tile.height / 2];
        }"""
    )
    view.page.mouse.move(*box)
    view.until("!document.querySelector('.lens').hidden")
    assert "block2.activation, map 5" in view.page.locator(".lens p").inner_text()
    links = view.page.evaluate(
        "convscape.view.links().map(l => [l.from.name, l.map, l.to.name, l.target, l.weight])"
    )
    weight = model.network.block2.conv.weight[4].sum((1, 2))  # of the second of two groups
    assert [link[:4] for link in links] == [
        ["block2.conv", 4, "block2.activation", 4],
        ["block1.pool", 2, "block2.conv", 4],
        ["block1.pool", 3, "block2.conv", 4],
    ]
    assert [link[4] for link in links[1:]] == pytest.approx(weight.tolist(), abs=1e-5)
    view.page.mouse.click(*box)
    view.until("convscape.state.get().selection?.map === 4")
    assert not view.complaints


def test_a_unit_is_reached_by_keyboard_and_its_window_slides_when_played(living):
    model = random_model(CNN, (1, 12, 12), channels=[3], kernel_size=3, stride=2)
    view = living(model)
    view.page.locator(".keys[data-node='1']").focus()
    view.page.keyboard.press("Home")
    view.page.keyboard.press("ArrowDown")
    option = view.page.locator(".keys[data-node='1'] [role=option]")
    assert option.get_attribute("aria-posinset") == "2"
    assert option.inner_text().startswith("map 2: strongest")
    view.page.keyboard.press("Enter")
    view.until("convscape.state.get().selection?.map === 1")
    view.choose("block1.conv", 1, 0, 0)
    view.page.locator(".made canvas").focus()
    view.page.keyboard.press("ArrowRight")
    view.page.keyboard.press("ArrowDown")
    view.until("document.querySelector('.made p').textContent === 'row 2, column 2'")
    assert view.page.evaluate(
        "convscape.steps.windowOf(convscape.graph.current,convscape.graph.current.nodes[1], 1, 1)"
    ) == {"top": 2, "left": 2, "height": 3, "width": 3}
    view.page.keyboard.press("Space")
    view.until("convscape.state.get().selection.row === 2")
    view.page.get_by_role("button", name="pause").click()
    view.page.keyboard.press("Escape")
    view.until("convscape.state.get().selection === null")
    assert not view.complaints


def test_the_answer_has_softmax_and_a_bar_opens_its_class(living):
    model = random_model(MLP, (1, 8, 8), hidden=[9])
    view = living(model)
    expected = view.outputs["output"].softmax(1)[0].tolist()
    bars = view.page.locator(".classes button")
    found = [float(bar.get_attribute("data-value")) for bar in bars.all()]
    assert found == pytest.approx(expected, abs=1e-5)
    view.page.locator(".softmax summary").click()
    rows = view.page.locator(".softmax tbody tr")
    rows.last.wait_for()
    assert rows.count() == len(CLASSES)
    assert float(rows.nth(2).locator("td").last.get_attribute("data-value")) == pytest.approx(
        expected[2], abs=1e-5
    )
    bars.nth(2).click()
    view.until("document.querySelector('#detail h2').textContent.includes('class class 2')")
    view.choose("hidden1.dense", 3)
    assert "unit 4" in view.page.locator("#detail h2").inner_text()
    assert not view.complaints


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_default_network_is_on_one_screen(living, scheme):
    model = random_model(CNN, (1, 28, 28), channels=[32, 64])
    view = living(model, viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    view.until("convscape.state.get().selection !== null")
    assert view.page.evaluate(
        "[document.documentElement, document.querySelector('.scroller')].every("
        "e => e.scrollHeight <= e.clientHeight && e.scrollWidth <= e.clientWidth)"
    )
    view.page.set_viewport_size({"width": 390, "height": 844})
    view.until("convscape.view.layout().isDown")
    assert view.page.evaluate("document.documentElement.scrollWidth") == 390
