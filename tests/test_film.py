"""The page of a moving window in a real browser, against the arithmetic in NumPy."""

import numpy as np
import pytest

from convscape.drawing.kernels import SlidingWindow, conv_layer, parse_kernel, pool_layer
from convscape.drawing.numbers import read_matrix
from convscape.geometry.window import InfeasibleGeometry, Window, output_size
from convscape.living.film import write_film

MATRIX = read_matrix("7x7", "")


def opened(browser, path, window, **options):
    """Its page, where nothing moves, and what it complains of."""
    write_film(window, path, 50)
    page = browser.new_page(offline=True, reduced_motion="reduce", **options)
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    return page, complaints


def numbers(page, table):
    rows = page.locator(f"#{table} tr").all()
    return np.array(
        [[float(cell) for cell in row.locator("td").all_text_contents()] for row in rows]
    )


def conv(stride="1", padding="valid", dilation="1", kernel="sharpen"):
    weights = parse_kernel(kernel)
    return SlidingWindow(MATRIX, conv_layer(weights, stride, padding, dilation), weights)


@pytest.mark.parametrize(
    "window",
    [
        conv("2", "same"),
        conv("1x2", "0x1", "2x1"),
        conv(kernel="1 2; -3 4", padding="same"),
        SlidingWindow(MATRIX, pool_layer("max", "3", "2", "same")),
        SlidingWindow(MATRIX, pool_layer("avg", "2x3", None, "1")),
    ],
    ids=lambda window: window.layer.describe(),
)
def test_it_computes_what_numpy_computes(window, browser, tmp_path):
    page, complaints = opened(browser, tmp_path / "film.html", window)
    count = window.output.size
    page.locator("#place").fill(str(count - 1))
    assert page.locator("#player output").text_content() == f"position {count} of {count}"
    # as written, with four digits
    assert numbers(page, "output") == pytest.approx(window.output, rel=1e-3)
    read = page.locator("#input td.read").count()
    assert read == window.step(*(n - 1 for n in window.output_shape)).values.size
    assert not complaints


def test_the_controls_do_what_they_say(browser, tmp_path):
    page, complaints = opened(browser, tmp_path / "film.html", conv())
    page.get_by_label("padding").select_option("same")
    page.get_by_label("stride").select_option("2")
    assert (
        page.locator("#formula").text_content() == "7x7 gives 4x4: floor((7 + 2 - 3) / 2) + 1 = 4"
    )
    page.locator("#output").get_by_label("row 2, column 3").click()
    assert page.locator("#sum").text_content().endswith(f"= {conv('2', 'same').output[1, 2]:g}")
    page.keyboard.press("ArrowRight")
    assert page.locator("#player output").text_content() == "position 8 of 16"
    page.locator("#named").select_option("identity")
    page.get_by_label("kernel, row 2, column 2").fill("3")
    page.locator("#output").get_by_label("row 1, column 2").click()
    assert page.locator("#output td.now").text_content() == f"{3 * MATRIX[0, 2]:g}"
    page.get_by_label("what").select_option("max")
    assert page.locator("#kernel-section").is_hidden()
    assert page.locator("#sum").text_content().startswith("the largest of ")
    page.get_by_label("what").select_option("conv")
    page.get_by_label("padding").select_option("valid")
    page.get_by_label("dilation").select_option("3")
    assert (
        page.locator("#formula").text_content() == "7x7 gives 1x1: floor((7 + 0 - 7) / 2) + 1 = 1"
    )
    page.get_by_label("dilation").select_option("1")
    page.get_by_role("button", name="Play").click()
    page.get_by_text("position 2", exact=False).wait_for()  # 2, or 20 to 25: it goes around
    page.get_by_role("button", name="Pause").click()
    assert not complaints


def test_a_window_that_does_not_fit_is_said(browser, tmp_path):
    page, complaints = opened(browser, tmp_path / "film.html", conv(kernel="1 1 1 1 1"))
    page.get_by_label("dilation").select_option("2")
    words = page.locator("#formula").text_content()
    assert words.startswith("The window does not fit: ")
    assert "floor((7 + 0 - 9) / 1) + 1 = -1; make it smaller" in words
    page.get_by_label("padding").select_option("same")
    assert page.locator("#formula").text_content().startswith("7x7 gives 7x7")
    assert not complaints


def test_sizes_are_those_of_the_geometry(browser, tmp_path):
    page, _ = opened(browser, tmp_path / "film.html", conv())
    settings = [
        (size, kernel, stride, padding, dilation)
        for size in (3, 7, 12)
        for kernel in (1, 2, 3, 5, 9)
        for stride in (1, 2, 5)
        for padding in ("valid", "same", 2)
        for dilation in (1, 2, 4)
    ]
    answers = page.evaluate(
        "all => all.map(setting => convscape.film.outputSize(...setting))", settings
    )
    for (size, kernel, stride, padding, dilation), answer in zip(settings, answers, strict=True):
        try:
            expected = output_size(size, Window(kernel, stride, padding, dilation))
        except InfeasibleGeometry:
            assert answer < 1
        else:
            assert answer == expected


def test_the_command_writes_it(command, tmp_path):
    answer = command("window", "--html", "--padding", "same")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.endswith("window.html: 49 positions\n")
    assert (tmp_path / "outputs" / "window.html").stat().st_size < 100_000
    assert command("window", "--out", "film.html").code == 0
    assert "allowed: more than 0, .html" in command("window", "--html", "--out", "a.gif").err
