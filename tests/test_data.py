import numpy as np
import pytest
import torch

from convscape.base.errors import ConfigError
from convscape.data.augment import Augment
from convscape.data.cache import DataError, ImageSet
from convscape.data.module import EvalLoader, ImageDataModule, TrainLoader
from convscape.data.splits import split, steps_per_epoch
from convscape.training.processes import check_batch_norm, check_shares

CPU = torch.device("cpu")
LABELS = np.repeat(np.arange(5), [10, 20, 30, 40, 100])


def numbered(num_images):
    """Images of one pixel that holds the image's number."""
    return torch.arange(num_images, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(num_images)


def loader(num_images=50, batch_size=8, **options):
    images, labels = numbered(num_images)
    arguments = {"device": CPU, "batch_size": batch_size, "augment": Augment(), "seed": 3}
    return TrainLoader(images, labels, torch.arange(num_images), **arguments | options)


def numbers(items):
    return [label for item in items for _, labels in item for label in labels.tolist()]


def test_validation_has_every_classs_share():
    train, val = split(LABELS, 20, None, split_seed=0)
    assert np.bincount(LABELS[val]).tolist() == [1, 2, 3, 4, 10]
    assert len(train) == 180
    assert not set(train) & set(val)


def test_a_train_subset_has_every_classs_share():
    train, _ = split(LABELS, 0, 20, split_seed=0)
    assert np.bincount(LABELS[train]).tolist() == [1, 2, 3, 4, 10]


def test_the_split_is_fixed_by_its_own_seed():
    first, second = split(LABELS, 20, None, 0)[1], split(LABELS, 20, None, 0)[1]
    assert first.tolist() == second.tolist()
    assert first.tolist() != split(LABELS, 20, None, 1)[1].tolist()


def test_the_validation_images_do_not_depend_on_the_train_size():
    assert split(LABELS, 20, None, 0)[1].tolist() == split(LABELS, 20, 50, 0)[1].tolist()


def test_a_fraction_is_of_the_train_images():
    assert len(split(LABELS, 0.25, None, 0)[1]) == 50


@pytest.mark.parametrize(("val_size", "train_size"), [(200, None), (150, 60), (0, 201)])
def test_more_images_than_there_are_are_refused(val_size, train_size):
    with pytest.raises(DataError, match="the train split has 200"):
        split(LABELS, val_size, train_size, 0)


def test_an_epoch_has_every_image_once():
    assert sorted(numbers(loader())) == list(range(50))


def test_the_order_is_a_function_of_seed_and_epoch():
    one, other = loader(), loader()
    first = numbers(one)
    one.set_epoch(1)
    second = numbers(one)
    assert first != second
    other.set_epoch(1)
    assert numbers(other) == second
    assert numbers(loader(seed=4)) != first


def test_bundling_steps_changes_neither_batches_nor_random_numbers():
    def draws(steps_per_item):
        return [
            (labels.tolist(), torch.rand(1).item())
            for item in loader(steps_per_item=steps_per_item)
            for _, labels in item
        ]

    assert draws(1) == draws(3) == draws(100)


def test_a_loader_goes_on_within_an_epoch():
    whole, broken, resumed = (loader(steps_per_item=2) for _ in range(3))
    expected = numbers(whole)
    iterator = iter(broken)
    before = numbers([next(iterator), next(iterator)])
    resumed.load_state_dict(broken.state_dict())
    assert before + numbers(resumed) == expected
    resumed.set_epoch(1)
    whole.set_epoch(1)
    assert numbers(resumed) == numbers(whole)


def test_processes_share_every_batch_as_one_process_would_see_it():
    """The last batch has 3 images; each is moved as where there is one process."""
    options = {"augment": Augment(shift=3, cutout=2), "num_images": 51, "steps_per_item": 3}
    images = torch.arange(51 * 36, dtype=torch.int64).remainder(256).to(torch.uint8)

    def batches(**more):
        one = loader(**options, **more)
        one.images = images.view(51, 1, 6, 6)
        one.set_epoch(1)
        return [(*batch, one.share) for item in one for batch in item]

    whole = batches()
    shares = [batches(rank=rank, world_size=2) for rank in range(2)]
    assert [len(labels) for _, labels, _ in whole] == [8] * 6 + [3]
    for (pixels, labels, _), *parts in zip(whole, *shares, strict=True):
        for rank, (mine, my_labels, share) in enumerate(parts):
            assert torch.equal(mine, pixels[rank::2])
            assert torch.equal(my_labels, labels[rank::2])
            assert share == len(my_labels) / len(labels)


def test_a_batch_that_has_no_image_for_a_process_is_refused_with_one_that_has():
    check_shares(51, 8, 3)
    for num_images, batch_size, devices, fits in ((51, 25, 2, 24), (9, 8, 3, 9), (8, 1, 2, 2)):
        with pytest.raises(ConfigError, match=rf"try data\.batch_size={fits}"):
            check_shares(num_images, batch_size, devices)
        check_shares(num_images, fits, devices)
    with pytest.raises(ConfigError, match=r"has 1; try trainer\.devices=1"):
        check_shares(1, 8, 2)


def test_batch_norm_over_processes_on_the_cpu_is_refused():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    check_batch_norm(network, 1, "cpu")
    check_batch_norm(network, 2, "cuda")
    check_batch_norm(network[0], 2, "cpu")
    with pytest.raises(ConfigError, match=r"trainer\.devices=2 cannot share"):
        check_batch_norm(network, 2, "cpu")


def test_training_stops_within_an_epoch_after_num_steps():
    limited = loader(num_steps=9, steps_per_item=2)  # 7 steps are an epoch
    assert [len(item) for item in limited] == [2, 2, 2, 1]
    limited.set_epoch(1)
    assert [len(item) for item in limited] == [2, 0, 0, 0]


def test_augmentation_draws_anew_for_each_epoch_and_the_same_for_a_repeat():
    def first_batch(epoch):
        images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(8, 1, 16, 16)
        one = TrainLoader(
            images,
            torch.zeros(8),
            torch.arange(8),
            device=CPU,
            batch_size=8,
            augment=Augment(shift=4),
            seed=0,
        )
        one.set_epoch(epoch)
        return next(iter(next(iter(one))))[0]

    assert torch.equal(first_batch(0), first_batch(0))
    assert not torch.equal(first_batch(0), first_batch(1))


def test_evaluation_is_in_order():
    images, labels = numbered(10)
    options = {"device": CPU, "batch_size": 3}
    everything = EvalLoader(images, labels, torch.arange(10), **options)
    assert [batch.tolist() for _, batch in everything] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_steps_of_an_epoch_are_rounded_up():
    assert steps_per_epoch(50, 8) == 7
    assert steps_per_epoch(48, 8) == 6


def test_the_official_test_split_is_left_as_it_is():
    rng = np.random.default_rng(0)
    image_set = ImageSet(
        name="noise",
        classes=tuple("abcde"),
        train_images=rng.integers(0, 256, (200, 1, 4, 4), dtype=np.uint8),
        train_labels=LABELS.astype(np.int64),
        test_images=rng.integers(0, 256, (20, 1, 4, 4), dtype=np.uint8),
        test_labels=np.arange(20) % 5,
        mean=(0.5,),
        std=(0.5,),
        checksum="0",
    )
    data = ImageDataModule(image_set, val_size=20, train_size=50)
    images, labels = data.tensors("test")
    assert np.array_equal(images.numpy(), image_set.test_images)
    assert np.array_equal(labels.numpy(), image_set.test_labels)
    assert {split: len(data.tensors(split)[0]) for split in ("train", "val")} == {
        "train": 50,
        "val": 20,
    }
