"""Sliding windows against torch, and the scripts kernels, window and pixels."""

import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

from convscape.base.errors import ConfigError
from convscape.data.pictures import read_photograph
from convscape.drawing.kernels import KERNELS, SlidingWindow, filtered, parse_kernel, parse_matrix
from convscape.drawing.numbers import film, read_matrix
from convscape.geometry.layers import Conv, Pool
from convscape.geometry.window import InfeasibleGeometry
from convscape.models import modules

PATCH, KERNEL = "9 4 1; 1 1 1; 1 2 1", "0 2 1; 4 1 0; 1 0 1"
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4))
PADDINGS = st.one_of(st.sampled_from(["valid", "same"]), st.tuples(*[st.integers(0, 2)] * 2))


def window(rows, columns, **knobs):
    settings = {"kernel": KERNEL, "pool": None, "pool_size": "2", "stride": None}
    settings |= {"padding": "valid", "dilation": "1", "flipped": False}
    return film(read_matrix(f"{rows}x{columns}", ""), **(settings | knobs)).window


def test_the_textbooks_example_gives_16():
    sliding = SlidingWindow(parse_matrix(PATCH), Conv(1, (3, 3), bias=False), parse_matrix(KERNEL))
    (step,) = sliding.steps()
    assert step.result == 16
    terms = "9*0 + 4*2 + 1*1 + 1*4 + 1*1 + 1*0 + 1*1 + 2*0 + 1*1 = 16"
    assert step.in_words() == terms


@pytest.mark.parametrize(
    ("knobs", "shape"),
    [({}, (5, 5)), ({"stride": "2"}, (3, 3)), ({"padding": "same"}, (7, 7))],
)
def test_the_textbooks_sizes(knobs, shape):
    assert window(7, 7, **knobs).output_shape == shape


@given(
    st.integers(1, 9), st.integers(1, 9), SIZES, SIZES, PADDINGS, SIZES, st.booleans(), st.data()
)
def test_a_convolution_step_by_step_equals_torch(
    height, width, kernel_size, stride, padding, dilation, flipped, data
):
    conv = Conv(1, kernel_size, stride, padding, dilation, bias=False)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    matrix, kernel = rng.normal(size=(height, width)), rng.normal(size=kernel_size)
    try:
        sliding = SlidingWindow(matrix, conv, kernel)
    except InfeasibleGeometry:
        assume(False)
    sliding = sliding.flipped if flipped else sliding
    module = modules.Conv2d(1, conv).double()
    weights = np.flip(kernel, (0, 1)).copy() if flipped else kernel
    module.weight.data = torch.from_numpy(weights)[None, None]
    expected = module(torch.from_numpy(matrix)[None, None])[0, 0].detach().numpy()
    np.testing.assert_allclose(sliding.output, expected, atol=1e-12)
    for step in sliding.steps():
        np.testing.assert_allclose(step.result, expected[step.row, step.column], atol=1e-12)


@given(st.integers(2, 9), SIZES, SIZES, st.sampled_from(["max", "avg"]), st.booleans())
def test_pooling_step_by_step_equals_torch(size, pool_size, stride, kind, is_same):
    pool = Pool(kind, pool_size, stride, "same" if is_same else "valid")
    matrix = np.random.default_rng(size).normal(size=(size, size))
    try:
        sliding = SlidingWindow(matrix, pool)
    except InfeasibleGeometry:
        assume(False)
    module = modules.MaxPool2d(pool) if kind == "max" else modules.AvgPool2d(pool)
    expected = module(torch.from_numpy(matrix)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(sliding.output, expected, atol=1e-12)


def test_filtered_pictures_equal_torch():
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 11), dtype=np.uint8)
    conv = Conv(1, (3, 3), (2, 1), "same", bias=False)
    for name, kernel in KERNELS.items():
        got = filtered(image, kernel, conv, flipped=False, signed=False)
        weights = torch.from_numpy(kernel)[None, None]
        # SAME at stride 2 over 9 rows pads one row on each side
        maps = F.conv2d(torch.from_numpy(image / 255)[:, None], weights, stride=(2, 1), padding=1)
        expected = (maps[:, 0].clamp(0, 1) * 255).round().numpy()
        np.testing.assert_allclose(got, expected, atol=1, err_msg=name)
    signed = filtered(image, KERNELS["sobel_x"], conv, flipped=False, signed=True)
    assert signed.min() < 128 < signed.max()
    assert (filtered(image, KERNELS["identity"], Conv(1, (3, 3), padding="same"), flipped=True,
                     signed=False) == image).all()  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("edge_detecton", "did you mean 'edge_detection'?"),
        ("edge", "did you mean 'edge_detection'?"),
        ("1 2; 3", "its rows have 2, 1 entries"),
        ("1 two; 3 4", "'two' is not a number"),
        ("1 nan; 3 4", "'nan' is not a number"),
        ("1 1/0; 3 4", "'1/0' is not a number"),
    ],
)
def test_a_wrong_kernel_is_one_sentence(text, words):
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        parse_kernel(text)


def test_kernels_have_names_and_fractions():
    assert parse_kernel("Edge detection").sum() == 0
    assert parse_kernel("1/9 1/9") == pytest.approx(np.array([[1 / 9, 1 / 9]]))


def test_the_sheet_of_kernels_shows_differences_of_neighbours(command, tmp_path):
    answer = command("kernels", "flower", "--kernel", "sharpen", "1 0; 0 -1", "--stride", "3")
    assert (answer.code, answer.err) == (0, "")
    assert "cross-correlation of flower, 640x427 with 2 kernels" in answer.out
    flower = np.pad(load_sample_image("flower.jpg").astype(int), ((0, 1), (0, 1), (0, 0)))
    expected = np.clip(flower[:-1:3, :-1:3] - flower[1::3, 1::3], 0, 255).astype(np.uint8)
    with Image.open(tmp_path / "outputs" / "kernels.png") as sheet:
        lines = [line.tobytes() for line in np.asarray(sheet.convert("RGB"))]
    (top,) = (y for y, line in enumerate(lines) if expected[0].tobytes() in line)
    assert all(row.tobytes() in line for row, line in zip(expected, lines[top:], strict=False))


def test_the_film_has_a_frame_for_each_position(command, tmp_path):
    answer = command("window", "7x7", "--stride", "2", "--frames", "frames")
    assert "7x7 gives 3x3" in answer.out
    with Image.open(tmp_path / "outputs" / "window.gif") as film_file:
        assert film_file.n_frames == 9
    assert len(list((tmp_path / "frames").iterdir())) == 9
    assert command("window").out.endswith("window.gif: 25 positions\n")
    with Image.open(tmp_path / "outputs" / "window.gif") as film_file:
        assert film_file.n_frames == 25  # a film, as the README promises
    assert command("window", PATCH).out.splitlines()[1].endswith("= 16")
    assert "9, 4, 1, 1: 9" in command("window", PATCH, "--pool", "max", "--stride", "1").out


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_the_film_can_be_an_mp4(command, tmp_path):
    assert command("window", "--out", "film.mp4").code == 0
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_digit_has_the_numbers_of_scikit_learn():
    """3 of 16 is 0.19: rounded, as those that networks are trained on."""
    image, _ = read_photograph("digit", 8)
    written = [float(f"{value / 255:.2f}") for value in image.flatten()]
    # half a unit of the last place, and half a step of a byte
    assert written == pytest.approx(load_digits().data[0] / 16, abs=0.005 + 0.5 / 255, rel=0)
    assert 0.19 in written


def test_pixels_of_grey_and_colour(command, tmp_path):
    assert "digit, 8x8, 64 numbers" in command("pixels").out
    with Image.open(tmp_path / "outputs" / "pixels.png") as sheet:
        grey = sheet.width
    answer = command("pixels", "china", "--size", "12")
    assert "640x427 scaled down to 12x8, 288 numbers" in answer.out
    with Image.open(tmp_path / "outputs" / "pixels.png") as sheet:
        assert sheet.width > 3 * grey


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("window", "2x2"), "a 3x3 kernel does not fit its 2x2 input"),
        (("window", "40x40"), "allowed: 28 a side"),
        (("window", "flower", "--patch", "7x7+999+0"), "does not lie within flower, 640x427"),
        (("window", "flower", "--patch", "7"), "height x width + top + left"),
        (("window", "--padding", "sane"), "--padding: 'sane' is not a padding"),
        (("window", "--fps", "0"), "allowed: more than 0"),
        (("pixels", "--size", "99"), "allowed: 2 to 28"),
        (("window", "7y7"), "there is no '7y7'; allowed: a size such as 7x7, a matrix such as"),
        (("pixels", "nothing.png"), "there is no picture 'nothing.png'; allowed: a picture file"),
        (("window", "7x7", "--strides", "2"), "did you mean '--stride'?; "),
        (("window", "--pool", "mean"), "(choose from"),
        (("compare", "latest"), "required: B; python scripts/compare.py --help shows"),
        (("kernels", "flowr"), "did you mean 'flower'?"),
        (("kernels", "--stride", "0"), "--stride: '0' is too small"),
    ],
)
def test_wrong_input_is_one_sentence(command, arguments, words):
    answer = command(*arguments)
    assert answer.code == 2
    assert words in answer.err
    assert answer.err.count("\n") == 1
