"""Data sets of one's own: bands of satellites, and what gives one image at a time."""

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
    random_split,
)

NUM_IMAGES = 240


def bands(num_bands=6, unit=0.01, offset=-1.0, kind="float32"):
    """Images (N, bands, 12, 12) whose last band is brighter in one half, and which half."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 100, (NUM_IMAGES, num_bands, 12, 12))
    labels = rng.integers(0, 2, NUM_IMAGES)
    images[labels == 0, -1, :6] += 155
    images[labels == 1, -1, 6:] += 155
    images[0, 0, 0, :2] = 0, 255
    values = images * unit + offset if np.dtype(kind).kind == "f" else images
    return values.astype(kind), labels


class Halves(Dataset):
    """Pairs (image, label), whose labels have names; the image as it is taken by `form`."""

    classes = ("upper", "lower")

    def __init__(self, form, num_bands=3):
        self.images, self.labels = bands(num_bands, kind="uint8")
        self.form = form

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.form(self.images[index]), int(self.labels[index])


def tensors(num_bands=3):
    return Halves(torch.from_numpy, num_bands)


def pictures():
    """As torchvision gives them: PIL."""
    return Halves(lambda image: Image.fromarray(image.transpose(1, 2, 0)))


def two():
    """A pair: train and test."""
    return tensors(), Subset(tensors(), range(100))


def dicts():
    """Splits of dicts, as Hugging Face gives them; the images are (H, W, C)."""
    whole = Halves(lambda image: image.transpose(1, 2, 0))
    rows = [{"img": image, "labels": label} for image, label in whole]
    return {"train": Rows(rows[:160]), "validation": Rows(rows[160:200]), "test": Rows(rows[200:])}


class Rows:
    """Neither a list nor of torch."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def unlike():
    """Pictures of several sizes, some of them grey."""
    sizes = [(12, 12), (12, 12), (20, 14), (9, 9)]
    pictures = [Image.new("RGB" if i % 3 else "L", sizes[i % 4], i) for i in range(40)]
    return [(picture, "odd" if i % 2 else "even") for i, picture in enumerate(pictures)]


def flipping():
    return Halves(lambda image: torch.from_numpy(image).flip(1 + int(torch.rand(1) < 0.5)))


def breaking():
    def form(image):
        raise OSError("the disk is gone")

    return Halves(form)


class Triples(Halves):
    def __getitem__(self, index):
        return *super().__getitem__(index), "and more"


def triples():
    return Triples(torch.from_numpy)


class Holed(Halves):
    """Unknown numbers are unlike each other, and no random augmentation."""

    def __getitem__(self, index):
        return torch.full((3, 4, 4), float("nan")), self.labels[index]


def holed():
    return Holed(None)


class OneHot(Halves):
    def __getitem__(self, index):
        return torch.from_numpy(self.images[index]), torch.eye(2)[self.labels[index]]


def one_hot():
    return OneHot(None)


class Paths(Halves):
    def __getitem__(self, index):
        return f"{index}.png", self.labels[index]


def paths():
    return Paths(None)


INSTANCE = tensors()


class Module(LightningDataModule):
    """Draws its splits, as many do."""

    def __init__(self, batch_size=50, drop_last=True):
        super().__init__()
        self.options = {"batch_size": batch_size, "drop_last": drop_last}
        self.is_prepared = False

    def prepare_data(self):
        self.is_prepared = True

    def setup(self, stage):
        assert self.is_prepared
        if stage == "fit":
            self.train, self.val, self.test = random_split(tensors(), [160, 40, 40])

    def train_dataloader(self):
        return DataLoader(self.train, shuffle=True, **self.options)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=7)

    def test_dataloader(self):
        return DataLoader(self.test, batch_size=100)


class TrainAlone(LightningDataModule):
    """Its loader is no DataLoader: batches of dicts, one after the other."""

    def train_dataloader(self):
        return Batches()


class Batches:
    def __iter__(self):
        images, labels = bands(1)
        for start in range(0, NUM_IMAGES, 10):
            some = slice(start, start + 10)
            yield {"pixel_values": torch.from_numpy(images[some]), "label": labels[some]}


class Streams(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(Stream(), batch_size=16)


class Stream(IterableDataset):
    def __iter__(self):
        yield from tensors()


class Two(Module):
    def val_dataloader(self):
        return [super().val_dataloader()] * 2


class Weighted(Module):
    def train_dataloader(self):
        sampler = WeightedRandomSampler([1.0] * 160, 100)
        return DataLoader(self.train, sampler=sampler, batch_size=10)


class Chosen(Module):
    """Trains on the images of one data set that its sampler names."""

    def train_dataloader(self):
        return DataLoader(tensors(), sampler=SubsetRandomSampler([5, 3, *range(20, 80)]))


class Flipping(Module):
    def train_dataloader(self):
        return DataLoader(flipping(), batch_size=10)


class Breaking(Module):
    def setup(self, stage):
        raise OSError("the disk is gone")
