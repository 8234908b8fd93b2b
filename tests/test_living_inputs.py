"""What the living page's network is given: drawn, dropped, chosen and changed in a real browser."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from convscape.data.pictures import read_picture
from convscape.data.variants import on_canvas, permuted
from convscape.living import fitting, unlike
from convscape.living.page import write_page
from convscape.trained.load import load_run
from tests.conftest import wait_until
from tests.dying import train_apart
from tests.hands import DIGITS, ROUND, THREES

from .test_living_changes import FRAMES, opened_page

ANSWER = "convscape.state.get().logits?.reduce((best, v, i, all) => (v > all[best] ? i : best), 0)"
PIXELS = "Array.from(convscape.state.get().pixels ?? [])"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs")
    words = ["data=digits", "visual=off", "trainer.max_epochs=8", "trainer.threads=1"]
    assert train_apart(words, path) == "ok"
    return load_run(path)


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(run, path)
    return path


@pytest.fixture
def page(written, browser):
    yield from opened_page(written, browser)


def draw(page, drawn):
    """Draw with the mouse, and return the class of the answer."""
    page.get_by_role("button", name="Clear").click()
    box = page.locator("canvas.pad").bounding_box()
    # the pad has 280 pixels, a hand's square 100
    set_range(page.get_by_role("slider", name="pen"), round(2.8 * drawn.pen))
    for stroke in drawn.path(2):
        for place, (x, y) in enumerate(stroke):
            page.mouse.move(box["x"] + x * box["width"] / 100, box["y"] + y * box["height"] / 100)
            if place == 0:
                page.mouse.down()
        page.mouse.up()
    page.evaluate(FRAMES)
    return page.evaluate(ANSWER)


def set_range(slider, value):
    slider.evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def slide(page, key, value):
    set_range(page.locator(f"input[data-key={key}]"), value)
    page.evaluate(FRAMES)
    return np.array(page.evaluate(PIXELS)).reshape(28, 28)


def wrong(page, hands):
    """Those that the network takes for others."""
    answers = [(one, draw(page, one)) for one in hands]
    return [(one.digit, one.hand, answer) for one, answer in answers if answer != one.digit]


def drop(page, picture):
    """Drop a picture (H, W) or (H, W, C) on the page."""
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "png")
    page.evaluate(
        """async bytes => {
          const files = new DataTransfer();
          files.items.add(new File([Uint8Array.from(bytes)], "picture.png", {type: "image/png"}));
          const event = new DragEvent("drop", {dataTransfer: files, cancelable: true});
          const before = convscape.state.get().pixels;
          document.dispatchEvent(event);
          for (let wait = 0; wait < 200 && convscape.state.get().pixels === before; wait++)
            await new Promise(done => setTimeout(done, 20));
        }""",
        list(data.getvalue()),
    )


def paper(drawn, side=200):
    """A drawing (side, side) in black on white."""
    image = Image.new("L", (side, side), "white")
    brush = ImageDraw.Draw(image)
    for stroke in drawn.path():
        places = [(x * side / 100, y * side / 100) for x, y in stroke]
        brush.line(places, fill="black", width=round(drawn.pen * side / 100), joint="curve")
    return np.asarray(image)


@pytest.mark.long
def test_drawn_digits_are_recognised(page):
    missed = wrong(page, [*THREES[2::6], *DIGITS[1::4]])
    assert len(missed) <= 1, missed


@pytest.mark.slow
def test_forty_drawn_digits_are_recognised_by_a_network_of_mnist(
    browser, tmp_path, real_data, record_property
):
    path = tmp_path / "run"
    words = ["data=mnist", f"data.root={real_data}", "data.train_size=20000", "visual=off"]
    assert train_apart([*words, "trainer.max_epochs=3"], path) == "ok"
    write_page(load_run(path), tmp_path / "page.html")
    pages = opened_page(tmp_path / "page.html", browser)
    page = next(pages)
    for name, hands in (("threes", THREES), ("digits", DIGITS)):
        missed = wrong(page, hands)
        record_property(name, len(hands) - len(missed))
        assert len(missed) <= 2, missed
    page.get_by_role("checkbox", name="fitted like the training data").uncheck()
    unfitted = wrong(page, [*THREES, *DIGITS])
    record_property("unfitted", 40 - len(unfitted))
    assert len(unfitted) > 4  # which is why they are fitted
    assert next(pages, None) is None  # no complaint


def test_an_empty_pad_gets_no_answer_and_undo_takes_back_a_stroke(page):
    draw(page, ROUND)
    once = page.evaluate(PIXELS)
    box = page.locator("canvas.pad").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + 60, box["y"] + 5)
    page.mouse.up()
    page.evaluate(FRAMES)
    assert page.evaluate(PIXELS) != once
    page.get_by_role("button", name="Undo").click()
    page.evaluate(FRAMES)
    assert page.evaluate(PIXELS) == once
    page.get_by_role("button", name="Undo").click()
    page.evaluate(FRAMES)
    assert page.evaluate("convscape.state.get().pixels") is None
    assert page.evaluate("convscape.state.get().logits") is None
    assert "no answer" in page.locator("#inputs [role=status]").text_content()


def test_a_dropped_picture_is_the_same_dark_on_light_and_light_on_dark(page):
    drop(page, paper(ROUND))
    swapped = page.get_by_role("checkbox", name="dark and light swapped")
    assert swapped.is_checked()
    dark = page.evaluate(PIXELS)
    assert page.evaluate(ANSWER) == 3
    drop(page, 255 - paper(ROUND))
    assert not swapped.is_checked()
    assert np.abs(np.subtract(page.evaluate(PIXELS), dark)).max() <= 1
    swapped.check()
    page.evaluate(FRAMES)
    assert page.evaluate(PIXELS) != dark


def test_a_photograph_in_uneven_light_is_read(page):
    shade = np.linspace(230, 110, 200)[:, None] + np.linspace(0, 20, 200)
    noise = np.random.default_rng(0).normal(0, 4, (200, 200))
    photograph = np.where(paper(ROUND) < 128, 0.35 * shade, shade) + noise
    drop(page, photograph.clip(0, 255).astype(np.uint8))
    assert page.evaluate(ANSWER) == 3


def test_what_is_no_picture_is_refused_in_a_sentence(page):
    page.set_input_files(
        "input[type=file]", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    )
    wait_until(page, "document.querySelector('#inputs [role=alert]').textContent")
    text = page.locator("#inputs [role=alert]").text_content()
    assert text.startswith("a.txt is not a picture that this browser can read")


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 20, 30), (3, 50, 40)])
def test_other_data_are_read_as_predict_does(page, tmp_path, shape):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (61, 83, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "picture.png")
    expected = read_picture(tmp_path / "picture.png", shape)
    rgba = np.concatenate([picture, np.full((61, 83, 1), 255, np.uint8)], 2)
    facts = {**fitting.PLAIN, "base": shape, "canvas": None, "order": None, "brightness": 0.5}
    found = page.evaluate(
        "([rgba, facts]) => Array.from("
        "convscape.fit.given({width: 83, height: 61, rgba}, facts).pixels)",
        [rgba.flatten().tolist(), facts],
    )
    assert np.abs(np.reshape(found, shape) - expected.astype(int)).max() <= 1


def test_permuted_pixels_and_canvases_are_those_of_the_run(page, run, monkeypatch):
    facts = fitting.facts(run)
    config = run.config
    change = config.data.change.model_copy(update={"permute": 3, "canvas": 40})
    config = config.model_copy(update={"data": config.data.model_copy(update={"change": change})})
    changed = replace(run, config=config)
    changed.__dict__["image_set"] = run.image_set
    monkeypatch.setattr(type(run), "image_shape", property(lambda self: (1, 40, 40)))
    new = fitting.facts(changed)
    grey = paper(ROUND, 100)
    rgba = np.stack([grey, grey, grey, np.full_like(grey, 255)], 2).flatten().tolist()
    script = (
        "([rgba, facts]) => Array.from(convscape.fit.permuted("
        "convscape.fit.given({width: 100, height: 100, rgba}, facts).pixels, facts))"
    )
    before, after = (page.evaluate(script, [rgba, one]) for one in (facts, new))
    image = np.array(before, np.uint8).reshape(1, 1, 28, 28)
    canvas = on_canvas(image, 40, 0, np.random.default_rng(0), is_centered=True)
    np.testing.assert_array_equal(permuted(canvas, 3).flatten(), after)
    back = page.evaluate(
        "([pixels, facts]) => Array.from(convscape.fit.unpermuted(pixels, facts))", [after, new]
    )
    np.testing.assert_array_equal(back, canvas.flatten())


def test_each_slider_does_what_it_says_and_reset_brings_the_image_back(page, run):
    page.locator(".thumbnails button").first.click()
    page.evaluate(FRAMES)
    image = np.array(page.evaluate(PIXELS)).reshape(28, 28)
    moved = np.roll(image, 3, 1)
    moved[:, :3] = 0
    np.testing.assert_array_equal(slide(page, "across", 3), moved)
    slide(page, "across", 0)
    moved = np.roll(image, -2, 0)
    moved[-2:] = 0
    np.testing.assert_array_equal(slide(page, "down", -2), moved)
    slide(page, "down", 0)
    np.testing.assert_array_equal(slide(page, "turn", 90), np.rot90(image, -1))
    slide(page, "turn", 0)
    assert slide(page, "scale", 0.5).sum() == pytest.approx(image.sum() / 4, rel=0.1)
    slide(page, "scale", 1)
    np.testing.assert_allclose(slide(page, "brightness", 0.5), image / 2, atol=0.51)
    slide(page, "brightness", 1)
    noisy = slide(page, "noise", 40)
    is_inside = (image > 100) & (image < 155)
    assert 25 < (noisy - image)[is_inside].std() < 55
    slide(page, "noise", 0)
    soft = slide(page, "blur", 2)
    expected = gaussian_filter(image.astype(float), 2, mode="nearest", truncate=3)
    np.testing.assert_allclose(soft, expected, atol=0.51)
    slide(page, "blur", 0)
    slide(page, "squareAcross", 10)
    covered = slide(page, "square", 8)
    assert (covered[10:18, 6:14] == round(255 * run.brightness)).all()
    assert (covered == image).sum() >= 28 * 28 - 64
    page.get_by_role("button", name="Reset").click()
    page.evaluate(FRAMES)
    np.testing.assert_array_equal(np.array(page.evaluate(PIXELS)).reshape(28, 28), image)


def test_play_draws_the_probability_of_each_class_as_it_goes(page, run):
    page.locator(".thumbnails button").first.click()
    page.get_by_role("button", name="Play: move it across").click()
    text = page.locator(".curve figcaption").text_content()
    page.evaluate(FRAMES)
    pixels = torch.tensor(page.evaluate(PIXELS), dtype=torch.uint8).view(1, 1, 28, 28)
    expected = []
    for right in range(-14, 15):
        moved = torch.zeros_like(pixels)
        a, b = max(0, right), min(28, 28 + right)
        moved[..., a:b] = pixels[..., a - right : b - right]
        expected.append(int(run.logits(moved).argmax()))
    changes = [n for n in range(1, 29) if expected[n] != expected[n - 1]]
    starts = [0, *changes]
    spans = [
        f"{expected[start]} from {start - 14} to {end - 15}"
        for start, end in zip(starts, [*changes, 29], strict=True)
    ]
    assert text == f"{'; '.join(spans)} px"


def test_all_is_reached_by_keys(page):
    page.locator(".thumbnails button[tabindex='0']").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.evaluate(FRAMES)
    assert page.evaluate("convscape.state.get().label") == 1
    page.get_by_role("button", name="Clear").click()
    page.locator("canvas.pad").focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press(" ")
    for _ in range(12):
        page.keyboard.press("ArrowDown")
    page.evaluate(FRAMES)
    assert sum(page.evaluate(PIXELS)) > 0
    unnamed = page.evaluate(
        "[...document.querySelectorAll('#inputs button, #inputs input:not([hidden])')].filter("
        "e => !(e.textContent || e.ariaLabel || e.title || e.labels?.[0]?.textContent)).length"
    )
    assert unnamed == 0


def distances(page, images):
    """Those that the page measures of images (N, 1, 28, 28), by the threshold."""
    return np.array(
        page.evaluate(
            """all => all.map(one => {
              const pixels = Uint8Array.from(one);
              const activations = convscape.network.run(pixels);
              return convscape.unlike.distance({pixels, activations})
                / convscape.document.unlike.measure.threshold;
            })""",
            images.flatten(1).tolist(),
        )
    )


def test_noise_is_called_unlike_the_data_and_few_test_images_are(page, run):
    images, _ = run.data.tensors("test")
    found = distances(page, images)
    # 1 in 100 is the stated rate: 9 of 359 or more would come up in 3 of 1,000 draws
    assert (found > 1).sum() < 9
    noise = torch.randint(256, (40, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    assert (distances(page, noise) > 1).mean() > 0.9
    page.locator(".thumbnails button").first.click()
    page.evaluate(FRAMES)
    assert "Unlike anything" not in page.locator("#answer").text_content()
    slide(page, "noise", 128)
    assert "Unlike anything it was trained on" in page.locator("#answer").text_content()


def test_the_page_measures_as_python_does(page, run):
    model = run.model
    place, dense = unlike._output(model)
    train, _, labels = unlike._answers(run, model, (place, dense), "train")
    val, _, _ = unlike._answers(run, model, (place, dense), "val")
    expected = unlike.Measure(train, labels, len(run.classes)).distances(val)
    images, _ = run.data.tensors("val")
    found = distances(page, images[:20])
    threshold = page.evaluate("convscape.document.unlike.measure.threshold")
    np.testing.assert_allclose(found * threshold, expected[:20], rtol=1e-4)
    assert (expected > threshold).mean() <= unlike.FALSE_ALARMS


def test_how_sure_it_is_stands_beside_how_often_it_was_right(run):
    found = unlike.facts(run)["sure"]
    images, labels = run.data.tensors("val")
    probabilities = run.logits(images).softmax(1)
    assert sum(count for count, _ in found) == len(labels)
    assert sum(right for _, right in found) == int((probabilities.argmax(1) == labels).sum())
    assert found[-1][0] == int((probabilities.max(1).values >= unlike.LEVELS[-1]).sum())
