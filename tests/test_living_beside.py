"""Two networks on one page: the same image through both, in a real browser, against torch."""

import pytest
import torch

from convscape.living.page import write_page
from convscape.trained.load import load_run
from tests.conftest import TINY
from tests.dying import train_apart

from .test_living_changes import FRAMES, logits, opened_page, torchs

WORDS = [*TINY, "visual=off"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    found = {}
    for name, words in {
        "cnn": WORDS,
        "mlp": [word for word in WORDS if "channels" not in word] + ["model=mlp"],
        "small": [*WORDS, "data.image_size=6"],
    }.items():
        path = tmp_path_factory.mktemp("beside") / name
        assert train_apart(words, path) == "ok"
        found[name] = load_run(path)
    return found


@pytest.fixture(scope="module")
def page(runs, _browser, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(runs["cnn"], path, other=runs["mlp"])
    yield from opened_page(path, _browser)


def test_both_networks_answer_to_the_same_pixels_as_torch(runs, page):
    assert logits(page) == torchs(runs["cnn"], page)
    for index in (3, 14):
        page.locator(".thumbnails button").nth(index).click()
        page.evaluate(FRAMES)
        other = page.evaluate("convscape.beside.predict(convscape.state.get().pixels)")
        assert other == torchs(runs["mlp"], page)
        for number, name in enumerate(["cnn", "mlp"]):
            column = page.locator("#beside section").nth(number)
            assert column.locator("h3").inner_text() == name
            pixels = page.evaluate("Array.from(convscape.state.get().pixels)")
            image = torch.tensor(pixels, dtype=torch.uint8).reshape(1, *runs[name].image_shape)
            best = runs[name].model(image).argmax().item()
            assert column.locator(".verdict b").inner_text() == runs[name].classes[best]


def test_each_column_says_how_many_test_images_are_right(runs, page):
    places = page.evaluate("convscape.document.images.places")
    images, labels = runs["cnn"].data.tensors("test", torch.tensor(places))
    for number, name in enumerate(["cnn", "mlp"]):
        right = int((runs[name].model(images).argmax(1) == labels).sum())
        said = page.locator("#beside section").nth(number).locator(".hint").last.inner_text()
        assert said.startswith(f"{right} of the page's {len(places)} test images")


def test_runs_that_cannot_take_one_image_are_refused(runs, command):
    answer = command("explain", runs["cnn"].path, runs["small"].path)
    assert answer.code == 2
    assert "has images of 1x28x28, and" in answer.err
    assert "give two runs on the same data" in answer.err
    assert command("explain", runs["cnn"].path, runs["mlp"].path).code == 0
