"""Images made of two, noise in rectangles and RandAugment, each against a reference in torch."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode, v2

from convscape.data import augment as changes
from convscape.data.augment import Augment, erased, rectangles
from convscape.data.mixing import blended, mixed, pasted, shared
from convscape.data.rand_augment import (
    MOST,
    NUM_OPERATIONS,
    OPERATIONS,
    changed_by,
    rand_augmented,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(0, 256, (6, 3, 9, 12), dtype=torch.uint8, generator=seeded(0))


LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_mixup_of_each_image_is_the_formula_of_the_paper(images):
    torch.manual_seed(4)
    result, soft = mixed(images, LABELS, 5, mixup=0.4, cutmix=0)
    torch.manual_seed(4)
    partner = torch.randperm(6)
    torch.rand(6)
    own = torch.distributions.Beta(0.4, 0.4).sample((6,))
    one_hot = F.one_hot(LABELS, 5)
    for n, (other, share) in enumerate(zip(partner.tolist(), own.tolist(), strict=True)):
        expected = images[n] * share + images[other] * (1 - share)
        assert (result[n].double() - expected).abs().max() <= 0.501  # rounded to bytes
        torch.testing.assert_close(soft[n], one_hot[n] * share + one_hot[other] * (1 - share))
    assert len(set(own.tolist())) == 6


def test_the_shares_of_cutmix_are_those_of_the_pixels():
    """Each image is filled with its own number, so that its pixels can be counted."""
    num = 64
    labels = torch.arange(num)
    plain = labels.to(torch.uint8).view(num, 1, 1, 1).expand(num, 1, 13, 10)
    torch.manual_seed(1)
    result, soft = mixed(plain, labels, num, mixup=0, cutmix=1)
    counts = F.one_hot(result.flatten(1).long(), num).sum(1) / (13 * 10)
    torch.testing.assert_close(soft, counts)
    assert 0.6 < soft.diagonal().mean() < 0.8  # 0.68, where the whole box would be half
    for n, image in enumerate(result[:, 0]):
        rows, columns = (image != n).nonzero(as_tuple=True)
        if len(rows):
            box = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert (box == box[0, 0]).all()


def test_with_both_each_image_takes_one_at_even_odds():
    num = 400
    labels = torch.arange(num) % 2
    plain = (labels * 200).to(torch.uint8).view(num, 1, 1, 1).expand(num, 1, 8, 8)
    torch.manual_seed(0)
    result, soft = mixed(plain, labels, 2, mixup=1, cutmix=1)
    is_blended = ((result != 0) & (result != 200)).flatten(1).any(1)
    mixed_pairs = (soft.amax(1) < 1).sum()
    assert 0.35 < is_blended.sum() / mixed_pairs < 0.65
    torch.testing.assert_close(soft.sum(1), torch.ones(num))


def test_floats_are_blended_without_rounding():
    values = torch.rand(4, 1, 5, 5, generator=seeded(0))
    own = torch.tensor([0.0, 1.0, 0.3, 0.9])
    others = values.flip(0)
    share = own.view(4, 1, 1, 1)
    torch.testing.assert_close(blended(values, others, own), values * share + others * (1 - share))


def test_a_class_that_meets_itself_keeps_all_of_its_share():
    soft = shared(torch.tensor([2]), torch.tensor([2]), torch.tensor([0.3]), 3)
    torch.testing.assert_close(soft, torch.tensor([[0.0, 0.0, 1.0]]))


def test_a_pasted_rectangle_is_that_of_slicing(images):
    box = torch.tensor([[0, 2, 9, 4], [3, 9, 9, 4], [0, 5, 0, 2], [12, 7, 3, 9]])
    result = pasted(images[:4], images[2:], *box)
    for n, (top, bottom, left, right) in enumerate(box.T.tolist()):
        expected = images[n].clone()
        expected[:, top:bottom, left:right] = images[2 + n][:, top:bottom, left:right]
        assert torch.equal(result[n], expected)


def test_erased_rectangles_have_the_sizes_of_torchvisions():
    """Both draw thousands; areas and ratios are compared by their quantiles."""
    count, side = 3000, 32
    generator = seeded(0)
    top, bottom, left, right = rectangles(
        side,
        side,
        lambda low, high: torch.rand(count, 10, generator=generator) * (high - low) + low,
    )
    torch.manual_seed(0)
    reference, image = v2.RandomErasing(p=1), torch.zeros(1, side, side)
    theirs = [reference.make_params([image]) for _ in range(count)]
    kinds = {
        "area": ((bottom - top) * (right - left), [p["h"] * p["w"] for p in theirs]),
        "ratio": ((bottom - top) / (right - left), [p["h"] / p["w"] for p in theirs]),
        "top": (top, [p["i"] for p in theirs]),
        "left": (left, [p["j"] for p in theirs]),
    }
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    for ours, expected in kinds.values():
        one, other = (
            torch.as_tensor(v, dtype=torch.float32).quantile(levels) for v in (ours, expected)
        )
        torch.testing.assert_close(one, other, rtol=0.15, atol=1.0)
    assert (top >= 0).all()
    assert (bottom <= side).all()
    assert (right <= side).all()


def test_erasing_puts_noise_into_the_rectangles_of_the_chosen(images):
    box = torch.tensor([[1] * 6, [5] * 6, [2] * 6, [9] * 6])
    chosen = torch.tensor([True, False] * 3)
    noise = torch.rand(images.shape, generator=seeded(1))
    result = erased(images, chosen, *box, noise=noise)
    for n in range(6):
        expected = images[n].clone()
        if chosen[n]:
            expected[:, 1:5, 2:9] = (noise[n] * 256).to(torch.uint8)[:, 1:5, 2:9]
        assert torch.equal(result[n], expected)


def test_as_many_images_are_erased_as_were_asked_for():
    plain = torch.full((1000, 1, 16, 16), 7, dtype=torch.uint8)
    result = Augment(random_erasing=0.3)(plain, seeded(0))
    assert 0.25 < (result != 7).flatten(1).any(1).float().mean() < 0.35


# of torchvision's own table: its name, and the index of a magnitude
NAMES = {
    "auto_contrast": "AutoContrast",
    **{name: name.title().replace("_", "") for name in OPERATIONS if name != "auto_contrast"},
}


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "identity"])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_is_that_of_torchvision_at_every_strength(images, operation, channels):
    reference = v2.RandAugment()
    make, is_signed = reference._AUGMENTATION_SPACE[NAMES[operation]]
    magnitudes = make(31, *images.shape[2:])
    some = images[:, :channels]
    for index in (0, 1, 9, 14, 17, 30):
        for sign in (1, -1) if is_signed else (1,):
            magnitude = 0.0 if magnitudes is None else float(magnitudes[index]) * sign
            expected = reference._apply_image_or_video_transform(
                some, NAMES[operation], magnitude, interpolation=InterpolationMode.NEAREST, fill={}
            )
            ours = changed_by(operation, some, index, sign)
            # a factor in double precision may round to the neighbouring byte
            assert (ours.int() - expected.int()).abs().max() <= 1, (index, sign)


def test_every_image_draws_its_own_operations():
    image = torch.randint(0, 256, (1, 3, 12, 12), dtype=torch.uint8, generator=seeded(0))
    result = rand_augmented(image.expand(300, -1, -1, -1), 9, seeded(1))
    assert len(result.flatten(1).unique(dim=0)) > 100  # of 23 * 23 pairs, some of them alike
    assert torch.equal(result, rand_augmented(image.expand(300, -1, -1, -1), 9, seeded(1)))


def test_rand_augment_refuses_what_is_no_picture():
    with pytest.raises(ValueError, match=r"rand_augment: .*torch.float32 with 3 channels"):
        Augment(rand_augment=3)(torch.rand(2, 3, 4, 4))


def test_nothing_of_it_changes_its_input(images):
    before = images.clone()
    everything = Augment(rand_augment=9, random_erasing=1.0, mixup=0.5, cutmix=0.5)
    after, soft = everything.mix(everything(images, seeded(0)), LABELS, 4)
    assert torch.equal(images, before)
    assert (after.dtype, after.shape, soft.shape) == (images.dtype, images.shape, (6, 4))


@pytest.mark.parametrize(
    ("key", "value"),
    [("rand_augment", 31), ("rand_augment", 1.5), ("random_erasing", 2), ("mixup", -1)],
)
def test_a_bad_setting_is_named(key, value):
    with pytest.raises(ValueError, match=rf"augment\.{key}={value!r}; allowed: "):
        Augment(**{key: value})


def test_the_constants_are_those_of_torchvision():
    erasing, several = v2.RandomErasing(), v2.RandAugment()
    assert (erasing.scale, erasing.ratio) == (changes.ERASED_AREA, changes.ERASED_RATIO)
    assert (several.num_ops, several.num_magnitude_bins) == (NUM_OPERATIONS, MOST + 1)
