"""Changed data sets: what is moved stays what it was, and nothing else changes."""

import hashlib
import json

import numpy as np
import pytest

from convscape.base.errors import ConfigError, Stopped
from convscape.data.cache import ImageSet
from convscape.data.module import ImageDataModule
from convscape.data.variants import (
    ChangeConfig,
    apply_variant,
    border_brightness,
    on_canvas,
    permuted,
    variant_shape,
)
from convscape.runs.resolved import ResolvedRun
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked
from tests.test_resume import bits


def image_set(num=50, channels=1, height=6, width=5):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (num, channels, height, width), dtype=np.uint8)
    labels = np.arange(num) % 3
    return ImageSet(
        *("noise", ("a", "b", "c"), images, labels, images[:10], labels[:10]),
        *((0.5,) * channels, (0.2,) * channels, "sum"),
    )


def change(**settings):
    nothing = {"permute": None, "canvas": None, "clutter": 0, "shuffle_labels": None}
    return ChangeConfig(**nothing | settings)


def test_one_order_of_the_pixels_holds_for_all_images_and_channels():
    images = image_set(channels=3).train_images
    after = permuted(images, seed=4)
    numbers = np.arange(30, dtype=np.uint8).reshape(1, 1, 6, 5)
    order = permuted(numbers, seed=4).ravel()
    np.testing.assert_array_equal(after.reshape(50, 3, 30), images.reshape(50, 3, 30)[..., order])
    assert sorted(order) == list(range(30))
    assert (permuted(images, seed=5) != after).any()


def test_each_image_lies_whole_on_its_canvas():
    images = image_set(channels=3).train_images
    canvases = on_canvas(images, 9, 0, np.random.default_rng(1))
    corners = set()
    for image, canvas in zip(images, canvases, strict=True):
        rows, columns = (np.flatnonzero(canvas.any(axis=(0, axis))) for axis in (2, 1))
        corners.add((rows[0], columns[0]))
        np.testing.assert_array_equal(
            canvas[:, rows[0] : rows[0] + 6, columns[0] : columns[0] + 5], image
        )
        assert canvas.sum() == image.sum()
    assert len(corners) > 10


def test_clutter_only_adds():
    images = image_set(height=6, width=6).train_images
    plain = on_canvas(images, 12, 0, np.random.default_rng(1))
    strewn = on_canvas(images, 12, 5, np.random.default_rng(1))
    assert (strewn > 0).sum() > 1.2 * (plain > 0).sum()


def test_a_changed_set_knows_its_mean_and_its_checksum():
    before = image_set(channels=3)
    after = apply_variant(before, change(canvas=8, permute=1))
    pixels = after.train_images / 255
    np.testing.assert_allclose(after.mean, pixels.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(after.std, pixels.std(axis=(0, 2, 3)))
    assert after.test_images.shape == (10, 3, 8, 8)
    assert after.checksum not in (before.checksum, apply_variant(before, change(canvas=8)).checksum)
    assert apply_variant(before, change()) is before
    again = apply_variant(before, change(canvas=8, permute=1))
    np.testing.assert_array_equal(again.train_images, after.train_images)


def test_shuffled_labels_are_the_same_labels_for_other_images():
    before = image_set()
    after = apply_variant(before, change(shuffle_labels=0))
    assert sorted(after.train_labels) == sorted(before.train_labels)
    assert (after.train_labels != before.train_labels).any()
    assert after.train_images is before.train_images


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"canvas": 27}, "data.change.canvas=27 is smaller than the image, 28x28"),
        ({"clutter": 3}, "data.change.clutter=3 needs a canvas"),
    ],
)
def test_what_cannot_be_is_one_sentence(settings, words):
    with pytest.raises(ConfigError, match=words):
        variant_shape((1, 28, 28), change(**settings))


def test_the_ground_is_black_or_not():
    black = image_set()
    black.train_images[:, :, [0, -1]] = 0
    black.train_images[:, :, :, [0, -1]] = 0
    assert border_brightness(black) == 0
    assert border_brightness(image_set()) > 0.4


# --- where an image lies ----------------------------------------------------------------------


def drawn(epoch=0, seed=0, batch_size=7, **settings):
    """The training images of an epoch by their number, which is their label."""
    before = image_set(channels=3)
    numbered = np.arange(50)
    before = ImageSet(
        *("noise", tuple(map(str, range(50))), before.train_images, numbered),
        *(before.test_images, numbered[:10], before.mean, before.std, "sum"),
    )
    after = apply_variant(before, change(**{"canvas": 9, "placement": "each_epoch"} | settings))
    data = ImageDataModule(after, val_size=0, batch_size=batch_size, seed=seed)
    batches = list(data.batches("train", epoch))
    canvases = {int(n): i.numpy() for images, labels in batches for i, n in zip(images, labels)}  # noqa: B905
    return before, data, np.stack([canvases[number] for number in range(50)])


def corners(canvases):
    return [
        tuple(int(np.flatnonzero(canvas.any(axis=(0, axis)))[0]) for axis in (2, 1))
        for canvas in canvases
    ]


def test_places_are_drawn_anew_for_each_epoch_from_seed_and_image_alone():
    before, data, first = drawn()
    for image, canvas, (top, left) in zip(before.train_images, first, corners(first), strict=True):
        np.testing.assert_array_equal(canvas[:, top : top + 6, left : left + 5], image)
        assert canvas.sum() == image.sum()
    everywhere = {place for epoch in range(8) for place in corners(drawn(epoch)[2])}
    assert everywhere == {(top, left) for top in range(4) for left in range(5)}
    np.testing.assert_array_equal(drawn(batch_size=50)[2], first)
    for other in ({"epoch": 1}, {"seed": 1}):
        moved = np.not_equal(corners(drawn(**other)[2]), corners(first)).any(axis=1)
        assert moved.sum() > 35
    # all that is not trained on lies where it lay
    once = apply_variant(before, change(canvas=9))
    np.testing.assert_array_equal(data.tensors("test")[0], once.test_images)
    np.testing.assert_array_equal(data.tensors("train")[0], once.train_images)


def test_clutter_and_a_new_order_of_the_pixels_go_with_it():
    plain, strewn = drawn()[2], drawn(clutter=4)[2]
    assert (strewn > 0).sum() > 1.05 * (plain > 0).sum()
    _, _, shuffled = drawn(clutter=4, permute=3)
    np.testing.assert_array_equal(shuffled, permuted(strewn, 3))


def test_an_image_may_lie_in_the_middle():
    before = image_set(channels=3)
    after = apply_variant(before, change(canvas=10, placement="center"))
    np.testing.assert_array_equal(after.train_images[:, :, 2:8, 2:7], before.train_images)
    assert after.train_images.sum() == before.train_images.sum()


@pytest.mark.parametrize("placement", ["each_epoch", "center"])
def test_a_place_needs_a_canvas(placement):
    with pytest.raises(ConfigError, match=f"placement={placement} needs a canvas"):
        variant_shape((1, 8, 8), change(placement=placement))


def test_the_checksum_of_what_there_was_before_there_was_a_choice_stays():
    words = ["sum", {"permute": None, "canvas": 8, "clutter": 0, "shuffle_labels": 2}]
    expected = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]
    assert apply_variant(image_set(), change(canvas=8, shuffle_labels=2)).checksum == expected


def test_a_run_that_was_stopped_finds_the_images_where_they_would_have_been(tmp_path):
    words = [*TINY, "data.change.canvas=32", "data.change.placement=each_epoch", "visual=off"]
    config = checked(*words, "data.change.clutter=2", "logger=[]", "trainer.progress=off")

    def stop(row):
        raise Stopped("enough")

    assert train(ResolvedRun(config), tmp_path / "whole").status == "ok"
    assert train(ResolvedRun(config), tmp_path / "half", on_epoch=stop).status == "interrupted"
    assert train(ResolvedRun(config), tmp_path / "half").status == "ok"
    one, two = (bits(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "half"))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[key], two[key]) for key in one)
