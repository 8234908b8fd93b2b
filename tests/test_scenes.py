"""Changed data sets: what is moved stays what it was, and nothing else changes."""

import numpy as np
import pytest

from convscape.cache import ImageSet
from convscape.config import ChangeConfig
from convscape.errors import ConfigError
from convscape.scenes import border_brightness, changed, changed_shape, on_canvas, permuted


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
    after = changed(before, change(canvas=8, permute=1))
    pixels = after.train_images / 255
    np.testing.assert_allclose(after.mean, pixels.mean(axis=(0, 2, 3)))
    np.testing.assert_allclose(after.std, pixels.std(axis=(0, 2, 3)))
    assert after.test_images.shape == (10, 3, 8, 8)
    assert after.checksum not in (before.checksum, changed(before, change(canvas=8)).checksum)
    assert changed(before, change()) is before
    again = changed(before, change(canvas=8, permute=1))
    np.testing.assert_array_equal(again.train_images, after.train_images)


def test_shuffled_labels_are_the_same_labels_for_other_images():
    before = image_set()
    after = changed(before, change(shuffle_labels=0))
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
        changed_shape((1, 28, 28), change(**settings))


def test_the_ground_is_black_or_not():
    black = image_set()
    black.train_images[:, :, [0, -1]] = 0
    black.train_images[:, :, :, [0, -1]] = 0
    assert border_brightness(black) == 0
    assert border_brightness(image_set()) > 0.4
