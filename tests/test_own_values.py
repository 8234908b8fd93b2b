"""Data of one's own that are no photographs: many channels, and other numbers than bytes."""

import json
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from convscape.data import arrays, items, pictures
from convscape.data.augment import Augment
from convscape.data.cache import DataError
from convscape.data.custom import load_own
from convscape.data.variants import ChangeConfig, apply_variant
from convscape.drawing import sheets
from convscape.runs.folder import RunFolder
from convscape.trained.load import load_run
from tests.dying import train_apart
from tests.own_data import bands
from tests.test_resume import assert_equal_runs
from tests.test_resume_own import points

BANDS = [
    "data=own",
    "data._target_=tests.own_data.bands",
    "allow_packages=[tests]",
    "data.batch_size=32",
    "data.augment={shift: 1, rotate: 5, contrast: 0.1, brightness: 0.1, cutout: 2}",
    "model.channels=[4]",
    "trainer.max_epochs=6",
    "trainer.threads=1",
    "trainer.progress=off",
    "visual=full",
]


def own(tmp_path, arguments=None, target="tests.own_data.bands", **more):
    places = {"root": "", "cache_dir": tmp_path}
    return load_own(target, arguments or {}, ["tests"], **places, **more)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Six channels of floats, trained and stopped once on the way."""
    folder = tmp_path_factory.mktemp("bands")
    assert train_apart(BANDS, folder, "epoch", 2) is None
    assert train_apart(BANDS, folder) == "ok"
    return folder


def test_six_channels_of_floats_go_on_bit_for_bit(tmp_path, run):
    assert train_apart(BANDS, tmp_path) == "ok"
    assert_equal_runs(RunFolder(run), RunFolder(tmp_path))
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"]["test/acc"] > 0.8
    # one tenth of what there is between the least value and the largest, which are a byte apart
    assert result["dataset"]["stretch"] == pytest.approx([-1, 100], rel=1e-5)
    assert {"view/training_images", "view/filters/first_layer"} <= {
        t for t, _ in points(RunFolder(run))
    }


def test_six_channels_of_floats_are_asked(command, run, tmp_path):
    allowed = ["--allow-packages", "tests"]
    images, _ = bands()
    np.save(tmp_path / "some.npy", images[0])
    np.save(tmp_path / "small.npy", images[0, :, :5])
    Image.new("RGB", (12, 12)).save(tmp_path / "photograph.png")
    assert command("evaluate", run, *allowed).code == 0
    for words in (["0"], [tmp_path / "some.npy"]):
        assert command("explain", run, *words, "--out", tmp_path / "page.html", *allowed).code == 0
        page = (tmp_path / "page.html").read_text()
        assert '"seen":"of 6 channels 1 to 3 as red, green and blue"' in page
    for probe in ("occlude", "canvas"):
        assert command("probe", run, probe, *allowed).code == 0
    answer = command("predict", run, tmp_path / "some.npy", "--json", *allowed)
    (one,) = json.loads(answer.out)
    assert one["fitted"] == "float32 6x12x12, values of -1 to 1.55 as 0 to 255"
    trained = load_run(run, ["tests"])
    train = trained.image_set.train_images
    (place,) = (i for i, image in enumerate(train) if np.allclose(image, (images[0] + 1) * 100))
    expected = trained.logits(torch.from_numpy(train[place : place + 1])).softmax(1).max()
    assert one["probability"] == pytest.approx(float(expected), rel=1e-4)
    answer = command("predict", run, tmp_path / "small.npy", tmp_path / "photograph.png", *allowed)
    assert answer.code == 2
    assert "holds float32 (6, 5, 12); allowed: finite numbers (6, 12, 12)" in answer.err
    assert "a picture has one channel or three, and the network takes 6" in answer.err


def test_an_export_of_floats_takes_floats(command, run, tmp_path):
    path = tmp_path / "model.pt2"
    words = ["--format", "torch_export", "--out", path, "--allow-packages", "tests"]
    answer = command("export", run, *words)
    assert answer.code == 0, answer.err
    trained = load_run(run, ["tests"])
    images = trained.data.tensors("test")[0][:3]
    assert images.dtype == torch.float32
    logits = torch.export.load(path).module()(images)
    torch.testing.assert_close(logits, trained.logits(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int16", "uint16", "int64"])
def test_numbers_of_any_kind_are_the_bytes_they_are_a_line_away_from(tmp_path, kind):
    """The values of the data set are 0 to 255, times a unit and from an offset."""
    whole = own(tmp_path, {"kind": "uint8"})
    other = own(tmp_path, {"kind": kind, "unit": 0.25, "offset": 3.0})
    assert (whole.stretch, whole.train_images.dtype) == (None, np.uint8)
    assert other.train_images.dtype == other.test_images.dtype == np.float32
    for split in ("train", "test"):
        of_bytes, others = (getattr(each, f"{split}_images") for each in (whole, other))
        np.testing.assert_allclose(others, of_bytes, atol=1e-3)
    np.testing.assert_allclose(other.mean, whole.mean, rtol=1e-5)
    np.testing.assert_allclose(other.std, whole.std, rtol=1e-5)
    assert (whole.test_labels == other.test_labels).all()
    assert whole.checksum != other.checksum


def test_the_least_and_the_largest_are_those_of_the_train_images(tmp_path):
    """Test images are taken by the same line, also where they reach beyond."""
    image_set = own(tmp_path, target="tests.test_own_values.brighter")
    assert image_set.stretch == (10.0, 25.5)
    assert (image_set.train_images.min(), image_set.train_images.max()) == (0, 255)
    assert image_set.test_images.max() == pytest.approx((40 - 10) * 25.5)
    assert image_set.std[1] == 0  # all its values are alike: no rounding makes a deviation of that
    assert image_set.normalization()[1][1] == 1


def brighter():
    train = np.linspace(10, 20, 4 * 2 * 9).reshape(4, 2, 3, 3)
    train[:, 1] = 11.1
    train[0, 0, 0, 0], train[3, 0, 2, 2] = 10, 20
    return train, [0, 1, 0, 1], np.full((2, 2, 3, 3), 40.0), [0, 1]


def test_other_data_are_taken_by_the_line_of_the_run(run):
    """Those twice as far apart are the same images, seen with twice the contrast."""
    config = (run / "config.yaml").read_text()
    before = load_run(run, ["tests"]).image_set
    (run / "config.yaml").write_text(config.replace("arguments: {}", "arguments: {unit: 0.02}"))
    other = load_run(run, ["tests"], other_data=True).image_set
    (run / "config.yaml").write_text(config)
    assert other.checksum != before.checksum
    assert other.stretch == before.stretch
    np.testing.assert_allclose(other.train_images, 2 * before.train_images, atol=1e-3)
    np.testing.assert_allclose(other.test_images, 2 * before.test_images, atol=1e-3)


def test_any_channels_are_resized_and_three_made_grey(tmp_path):
    arguments = {"num_bands": 3, "kind": "uint8"}
    six = own(tmp_path, {"kind": "uint8"}, image_size="6x8")
    floats = own(tmp_path, {"unit": 1, "offset": 0.0}, image_size="6x8")
    assert six.image_shape == floats.image_shape == (6, 6, 8)
    np.testing.assert_allclose(floats.train_images, six.train_images, atol=1)
    grey = own(tmp_path, arguments, channels=1)
    grey_floats = own(tmp_path, {"num_bands": 3, "unit": 1, "offset": 0.0}, channels=1)
    assert grey.image_shape == (1, 12, 12)
    np.testing.assert_allclose(grey_floats.train_images, grey.train_images, atol=1)
    colour = pictures.resized(np.ones((2, 1, 4, 4), np.float32), (3, 4, 4))
    assert (colour == np.ones((2, 3, 4, 4))).all()
    with pytest.raises(DataError, match=r"data.channels=3: the images .* have 6; allowed: null"):
        own(tmp_path, channels=3)


def test_floats_are_changed_as_bytes_are_but_neither_rounded_nor_cut():
    images = torch.randint(0, 256, (20, 6, 9, 9), dtype=torch.uint8)

    def changed(images, **augment):
        return Augment(**augment)(images, torch.Generator().manual_seed(0))

    for moved in ({"shift": 2}, {"flip": True}, {"cutout": 3}):
        assert torch.equal(changed(images.float(), **moved), changed(images, **moved).float())
    for painted in ({"brightness": 0.5}, {"contrast": 0.5}, {"rotate": 20}):
        floats = changed(images.float(), **painted)
        assert (floats != floats.round()).any()
        assert torch.equal(floats.round().clamp(0, 255), changed(images, **painted).float())
    assert changed(images.float(), brightness=0.5).max() > 255


def test_the_questions_that_change_a_data_set_take_floats(tmp_path):
    plain = own(tmp_path)
    change = ChangeConfig(permute=1, canvas=20, clutter=1, shuffle_labels=None)
    changed = apply_variant(plain, change)
    assert (changed.image_shape, changed.train_images.dtype) == ((6, 20, 20), np.float32)
    values = changed.train_images.astype(np.float64) / 255
    np.testing.assert_allclose(changed.mean, values.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(changed.std, values.std((0, 2, 3)), rtol=1e-6)


def test_of_many_channels_the_first_are_seen_and_that_is_said():
    six, two = np.full((1, 6, 2, 2), 300.4, np.float32), np.zeros((1, 2, 2, 2), np.uint8)
    assert (sheets.viewable(six) == np.full((1, 3, 2, 2), 255)).all()
    assert sheets.viewable(two).shape == (1, 1, 2, 2)
    assert sheets.which_channels(2) == "; of 2 channels 1"
    assert sheets.which_channels(1) == sheets.which_channels(3) == ""


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 64, 64, 13), "try images.transpose(0, 3, 1, 2)"),
        ((8, 100, 90, 4), "try images.transpose(0, 3, 1, 2)"),
        ((8, 65, 4, 4), "which has 65 channels"),
        ((8, 4, 3, 3), None),
        ((8, 64, 9, 9), None),
    ],
)
def test_channels_that_stand_last_are_told_from_many(shape, words):
    advice = arrays._advice(np.zeros(shape))
    assert advice == "" if words is None else words in advice


def test_a_mapped_array_is_split_without_a_copy_of_it(tmp_path):
    shape = (20_000, 1, 32, 32)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)
    images[:] = np.arange(20_000, dtype=np.int64)[:, None, None, None] % 251
    given = {"train": items.Given(images, np.arange(20_000) % 10)}
    source = arrays.Source("data._target_=mine.load", "returned")
    tracemalloc.start()
    try:
        checked = arrays.checked(source, given, 0.2, use_val=False)
        contents = arrays.contents(checked, source, None, None)
        name = arrays.digest(checked)
        pixels = np.concatenate([some[:, 0, 0, 0].copy() for some, _ in contents.train])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < images.nbytes * 0.7
    test_pixels = np.concatenate([some[:, 0, 0, 0] for some, _ in contents.test])
    assert (len(pixels), len(test_pixels)) == (16_000, 4_000)
    together = np.sort(np.concatenate([pixels, test_pixels]))
    assert (together == np.sort(images[:, 0, 0, 0])).all()
    plain = arrays.checked(
        source, {"train": items.Given(np.array(images), np.arange(20_000) % 10)}, 0.2, False
    )
    assert name == arrays.digest(plain)
