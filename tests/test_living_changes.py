"""The network changed by hand in a real browser, against torch changed in the same way."""

import numpy as np
import pytest
import torch

from convscape.living.page import write_page
from convscape.trained.load import load_run
from tests.dying import train_apart

FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
LOGITS = "convscape.state.get().logits"
WORDS = ["data=digits", "visual=off", "trainer.max_epochs=3", "trainer.threads=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("changes")
    assert train_apart([*WORDS, "model.channels=[4,8]"], path) == "ok"
    return load_run(path)


@pytest.fixture(scope="module")
def opened(run, _browser, tmp_path_factory):
    """One page for all tests of this file."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(run, path)
    for page in opened_page(path, _browser):
        page.locator("#changes summary").click()
        yield page


def opened_page(path, browser):
    """The page of a run; no complaint may be left at the end."""
    page = browser.new_page(offline=True, reduced_motion="reduce")
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    page.evaluate(FRAMES)
    yield page
    assert complaints == []


@pytest.fixture
def page(opened):
    """The page with the run's own weights, and the first map of the first layer chosen."""
    if (reset := opened.get_by_role("button", name="Reset").last).is_enabled():
        reset.click()
    choose(opened, 0, 0)
    return opened


def choose(page, layer, unit_map):
    """Choose a map of a layer with weights, by the selects."""
    page.get_by_label("layer", exact=True).select_option(index=layer)
    page.evaluate(FRAMES)
    page.get_by_label("map", exact=True).select_option(index=unit_map)
    page.evaluate(FRAMES)


def logits(page):
    page.evaluate(FRAMES)
    return page.evaluate(LOGITS)


@torch.no_grad()
def torchs(run, page):
    """What torch answers to what the page's network is given."""
    pixels = page.evaluate("Array.from(convscape.state.get().pixels)")
    image = torch.tensor(pixels, dtype=torch.uint8).reshape(1, *run.image_shape)
    return pytest.approx(run.model(image)[0].tolist(), rel=1e-4, abs=1e-3)


@torch.no_grad()
def right_of_the_page(run, page):
    """How many of the page's test images torch's network has right."""
    places = page.evaluate("convscape.document.images.places")
    images, labels = run.data.tensors("test", torch.tensor(places))
    return int((run.model(images).argmax(1) == labels).sum())


def score(page):
    for _ in range(200):
        page.wait_for_timeout(20)
        if found := page.evaluate("convscape.state.get().score"):
            return found["right"]
    raise AssertionError("the test images were not counted")


@pytest.fixture
def weights(run):
    """The tensors of torch's network, which are what they were after a test."""
    before = {name: values.clone() for name, values in run.model.state_dict().items()}
    yield run.model.state_dict()
    run.model.load_state_dict(before)


def test_what_is_typed_into_a_kernel_is_computed_and_counted(page, run, weights):
    own = logits(page)
    assert own == torchs(run, page)
    choose(page, 1, 5)
    page.get_by_label("the map that the kernel reads").select_option(index=2)
    page.evaluate(FRAMES)
    page.get_by_label("row 1, column 3").fill("-4.5")
    page.get_by_label("bias", exact=True).fill("2")
    weights["network.block2.conv.weight"][5, 2, 0, 2] = -4.5
    weights["network.block2.conv.bias"][5] = 2
    assert logits(page) == torchs(run, page)
    assert score(page) == right_of_the_page(run, page)
    assert "changed in block2.conv" in page.locator("#changes summary").inner_text()
    assert "was not measured" in page.locator("#answer .sure").inner_text()
    page.get_by_role("button", name="Reset").last.click()
    assert logits(page) == own
    assert "changed in" not in page.locator("#changes summary").inner_text()


def test_a_map_that_is_off_gives_its_readers_zeros(page, run):
    own = logits(page)
    choose(page, 0, 2)
    page.locator("#changes").get_by_label("off", exact=True).check()
    hook = run.model.network.block1.activation.register_forward_hook(
        lambda _, __, out: out.index_fill(1, torch.tensor([2]), 0)
    )
    try:
        assert logits(page) == torchs(run, page)
    finally:
        hook.remove()
    page.locator("#changes").get_by_label("off", exact=True).uncheck()
    assert logits(page) == own


def test_shuffled_weights_are_the_same_numbers_in_another_order(page, run, weights):
    weight = (
        "Array.from(convscape.network.layers.find(l => l.name === 'block2.conv').tensors.weight)"
    )
    choose(page, 1, 0)
    own = page.evaluate(weight)
    page.get_by_role("button", name="Shuffle its weights").click()
    found = page.evaluate(weight)
    assert found != own
    assert sorted(found) == sorted(own)
    shape = weights["network.block2.conv.weight"].shape
    weights["network.block2.conv.weight"].copy_(torch.tensor(found).reshape(shape))
    assert logits(page) == torchs(run, page)
    assert score(page) == right_of_the_page(run, page)


def test_noise_has_the_deviation_that_is_asked_for_and_goes_away(page):
    noise = page.get_by_label("noise, in standard deviations of the weights")
    all_weights = (
        "convscape.network.layers.filter(convscape.weights.isWeighted)"
        ".map(l => Array.from(l.tensors.weight))"
    )
    own = page.evaluate(all_weights)
    page.get_by_label("in all layers").check()
    noise.fill("0.5")
    for before, after in zip(own, page.evaluate(all_weights), strict=True):
        share = np.std(np.subtract(after, before)) / np.std(before)
        assert share == pytest.approx(0.5, rel=4 / np.sqrt(2 * len(before)))
    noise.fill("0")
    page.get_by_label("in all layers").uncheck()
    assert page.evaluate(all_weights) == own


def test_a_classic_kernel_is_put_into_the_first_layer_by_keyboard(page, run, weights):
    classic = page.get_by_label("a classic kernel for this map")
    classic.focus()
    page.keyboard.type("sharpen")
    size = weights["network.block1.conv.weight"].shape[-1]
    kernel = torch.zeros(size, size)
    at = (size - 3) // 2
    kernel[at : at + 3, at : at + 3] = torch.tensor([[0, -1, 0], [-1, 5, -1], [0, -1, 0]])
    weights["network.block1.conv.weight"][0, 0] = kernel
    assert logits(page) == torchs(run, page)
    choose(page, 1, 0)
    assert not classic.is_visible()
