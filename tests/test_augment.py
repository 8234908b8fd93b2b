import time

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from convscape.data.augment import (
    Augment,
    brightened,
    contrasted,
    cut_out,
    flipped,
    rotated,
    shifted,
)


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, 7, 10), dtype=torch.uint8, generator=seeded(0))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def shift_by_slicing(image, down, right):
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[:, y, x] = image[:, y - down, x - right]
    return result


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_each_image_is_shifted_by_its_own_amount(images, memory_format):
    down = torch.tensor([0, 3, -3, 1, -2, 0])
    right = torch.tensor([0, -3, 3, 2, 0, -1])
    result = shifted(images.contiguous(memory_format=memory_format), down, right, most=3)
    for image, d, r, after in zip(images, down.tolist(), right.tolist(), result, strict=True):
        assert torch.equal(after, shift_by_slicing(image, d, r))


def test_shift_beyond_the_image_leaves_black(images):
    far = torch.full((6,), 12)
    assert not shifted(images, far, far, most=12).any()


def test_only_the_chosen_images_are_flipped(images):
    choice = torch.tensor([True, False, True, True, False, False])
    result = flipped(images, choice)
    for image, chosen, after in zip(images, choice, result, strict=True):
        assert torch.equal(after, torch.flip(image, [2]) if chosen else image)


def test_rotation_is_that_of_torchvision(images):
    degrees = torch.tensor([0.0, 90.0, -30.0, 17.5, 180.0, 5.0])
    result = rotated(images, degrees)
    for image, angle, after in zip(images, degrees.tolist(), result, strict=True):
        expected = reference.rotate(image, angle, InterpolationMode.BILINEAR)
        # float32 sums in another order may round to the neighbouring byte
        assert (after.int() - expected.int()).abs().max() <= 1


def test_brightness_is_that_of_torchvision(images):
    factors = [0.5, 1.0, 1.5, 0.25, 2.0, 0.0]
    result = brightened(images, torch.tensor(factors))
    for image, factor, after in zip(images, factors, result, strict=True):
        # torchvision cuts fractions off, this rounds them
        expected = reference.adjust_brightness(image, factor)
        assert (after.int() - expected.int()).abs().max() <= 1


def test_contrast_of_a_grey_image_is_that_of_torchvision(images):
    grey = images[:, :1]
    factors = [0.5, 1.0, 1.5, 0.25, 2.0, 0.0]
    result = contrasted(grey, torch.tensor(factors))
    for image, factor, after in zip(grey, factors, result, strict=True):
        expected = reference.adjust_contrast(image, factor)
        assert (after.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_cutout_blackens_a_clipped_square(images, side):
    images = images.clamp(min=1)
    rows, columns = torch.tensor([0, 6, 3, 3, 0, 6]), torch.tensor([0, 9, 5, 0, 9, 4])
    result = cut_out(images, rows, columns, side)
    for image, row, column, after in zip(
        images, rows.tolist(), columns.tolist(), result, strict=True
    ):
        expected = image.clone()
        top, left = row - side // 2, column - side // 2
        expected[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = 0
        assert torch.equal(after, expected)


def test_every_image_gets_its_own_draw():
    dot = torch.zeros(512, 1, 9, 9, dtype=torch.uint8)
    dot[:, :, 4, 4] = 255
    moved = Augment(shift=2)(dot, seeded(0))
    places = moved.flatten(1).argmax(1)
    counts = torch.bincount(places, minlength=81)
    assert (moved.flatten(1).sum(1) == 255).all()
    assert set(counts.nonzero().flatten().tolist()) == {
        9 * y + x for y in range(2, 7) for x in range(2, 7)
    }
    assert counts.max() < 512 / 25 * 2.5


def test_half_of_the_images_are_flipped():
    images = torch.tensor([1, 2], dtype=torch.uint8).expand(1000, 1, 1, 2)
    swapped = (Augment(flip=True)(images, seeded(0))[:, 0, 0, 0] == 2).float().mean()
    assert 0.45 < swapped < 0.55


def test_neutral_settings_return_the_very_same_tensor(images):
    assert Augment()(images) is images


def test_the_input_is_never_changed(images):
    before = images.clone()
    everything = Augment(shift=2, flip=True, rotate=20, cutout=3, brightness=0.4, contrast=0.4)
    after = everything(images, seeded(0))
    assert torch.equal(images, before)
    assert after.dtype == torch.uint8
    assert after.shape == images.shape
    assert not torch.equal(after, images)


def test_the_same_generator_state_gives_the_same_images(images):
    augment = Augment(shift=2, flip=True, rotate=20, cutout=3, brightness=0.4, contrast=0.4)
    assert torch.equal(augment(images, seeded(3)), augment(images, seeded(3)))
    assert not torch.equal(augment(images, seeded(3)), augment(images, seeded(4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cpu_generator_gives_the_same_images_on_the_gpu(images):
    augment = Augment(shift=2, flip=True, cutout=3)
    on_gpu = augment(images.cuda(), seeded(3))
    assert on_gpu.is_cuda
    assert torch.equal(on_gpu.cpu(), augment(images, seeded(3)))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("shift", -1, "0 or more"),
        ("shift", 1.5, "whole number"),
        ("shift", True, "whole number"),
        ("flip", 1, "true or false"),
        ("rotate", 181, "0 to 180"),
        ("rotate", float("nan"), "0 to 180"),
        ("cutout", "3", "whole number"),
        ("brightness", 1.2, "0 to 1"),
        ("contrast", -0.1, "0 to 1"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(key, value, allowed):
    with pytest.raises(ValueError, match=rf"augment\.{key}={value!r}; allowed: .*{allowed}"):
        Augment(**{key: value})


@pytest.mark.slow
def test_shift_and_flip_of_a_batch_take_less_than_a_millisecond():
    images = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8)
    augment, threads = Augment(shift=4, flip=True), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for _ in range(100):
            started = time.perf_counter()
            augment(images)
            seconds.append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(threads)
    assert sorted(seconds)[50] < 1e-3
