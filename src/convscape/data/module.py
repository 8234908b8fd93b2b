"""`ImageDataModule`: a data set as one uint8 tensor on the device, its splits and its batches.

The order of an epoch is a function of (seed, epoch) and the random numbers of a step are a
function of (seed, step): a run that stops anywhere and resumes sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from convscape.base import machine
from convscape.base.quick_lightning import pl
from convscape.data.ahead import Ahead, reads_ahead
from convscape.data.augment import Augment
from convscape.data.cache import ImageSet, Scene
from convscape.data.canvases import Canvases
from convscape.data.pixels import standardized
from convscape.data.splits import VAL_FRACTION, split, steps_per_epoch, taken_for_validation

Batch = tuple[Tensor, Tensor]


class Steps:
    """The batches of several optimiser steps; each is gathered when it is needed."""

    def __init__(self, loader: TrainLoader, order: Tensor, first: int, last: int) -> None:
        self._loader, self._order, self._range = loader, order, range(first, last)

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[Batch]:
        for index in self._range:
            yield self._loader.batch(self._order, index)


class TrainLoader:
    """Shuffled, augmented batches of `images` (N, C, H, W) and `labels`, as `Steps` per item.

    - `indices`: which of the images to train on.
    - `device`: where the batches go; the images may be too large to fit there.
    - `num_steps`: of the whole training; items after these are empty, so that every epoch has the
      same number of items.
    - `scene`: `images` are its objects, which are placed on new canvases in each epoch.
    - `ahead`: is told which images come next, see `data.ahead`.
    - `num_classes`: of the soft labels (N, num_classes) of mixed images.
    - `rank`, `world_size`: this process takes every `world_size`-th image of every batch. All
      processes take the same steps and draw the same augmentation, however many there are.

    `share` is this process's part of the latest batch, 0..1.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        *,
        device: torch.device,
        batch_size: int,
        augment: Augment,
        seed: int,
        num_classes: int = 0,
        steps_per_item: int = 1,
        num_steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        scene: Scene | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.images, self.labels, self.indices = images, labels, indices
        self.ahead = ahead
        self.device = device
        self.canvases = None if scene is None else Canvases(scene, images)
        self.batch_size, self.augment, self.seed = batch_size, augment, seed
        self.num_classes = num_classes
        self.steps_per_item, self.num_steps = steps_per_item, num_steps
        self.rank, self.world_size = rank, world_size
        self.share = 1 / world_size
        self.epoch = 0
        self._items_done = 0
        self.sampler = self  # Lightning calls `sampler.set_epoch` before each epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of one pass over the images; the last batch may be smaller."""
        return steps_per_epoch(len(self.indices), self.batch_size)

    def __len__(self) -> int:
        return -(-self.steps_per_epoch // self.steps_per_item)

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch, counted from 0; seeds what is drawn before its first step."""
        self.epoch = epoch
        _seed_generators(_mix(self.seed, epoch, 0), self.device)

    def __iter__(self) -> Iterator[Steps]:
        first_item, self._items_done = self._items_done, 0
        order = self._order()
        last_step = self.steps_per_epoch
        if self.num_steps is not None:
            last_step = min(last_step, self.num_steps - self.epoch * self.steps_per_epoch)
        for item in range(first_item, len(self)):
            first = item * self.steps_per_item
            # before the yield: Lightning does not ask for more than len(self) items
            self._items_done = (item + 1) % len(self)
            yield Steps(self, order, first, min(first + self.steps_per_item, last_step))

    def _order(self) -> Tensor:
        """Indices of all images in the order of this epoch."""
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch, 1))
        order = self.indices[torch.randperm(len(self.indices), generator=generator)]
        return order.to(self.images.device)

    def batch(self, order: Tensor, index: int) -> Batch:
        """Batch `index` of this epoch, or this process's share of it."""
        images, labels = self._whole_batch(order, index)
        if self.world_size == 1:
            return images, labels
        if self.rank:  # the network's random numbers must differ
            step = self.epoch * self.steps_per_epoch + index
            _seed_generators(_mix(self.seed, step, 2 + self.rank), self.device)
        mine = slice(self.rank, None, self.world_size)
        self.share = len(labels[mine]) / len(labels)
        return images[mine], labels[mine]

    def _whole_batch(self, order: Tensor, index: int) -> Batch:
        """Batch `index` of this epoch; seeds every random number of its optimiser step."""
        step = self.epoch * self.steps_per_epoch + index
        _seed_generators(_mix(self.seed, step, 2), self.device)
        chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
        if self.ahead is not None:
            self.ahead.of_batch(order, index, self.batch_size)
        # index_select takes a quarter of the time of images[chosen]
        if self.canvases is None:
            images = machine.moved(self.images.index_select(0, chosen), self.device)
        else:
            images = self.canvases.draw(_mix(self.seed, self.epoch, 0), chosen, self.device)
        labels = machine.moved(self.labels.index_select(0, chosen), self.device)
        images = self.augment(images)
        if not self.augment.mixes:
            return images, labels
        return self.augment.mix(images, labels, self.num_classes)

    def first_batch(self) -> Batch:
        """All images and labels of this epoch's first step, as trained on."""
        return self._whole_batch(self._order(), 0)

    def state_dict(self) -> dict[str, int]:
        """The position in this epoch, for a checkpoint within it."""
        return {"items_done": self._items_done, "steps_per_item": self.steps_per_item}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue where `state_dict` was taken."""
        self.steps_per_item = state["steps_per_item"]
        self._items_done = state["items_done"]


class EvalLoader:
    """Batches of the images (N, C, H, W) at `indices`, in order.

    Each process goes through all of them, so every metric covers the whole split in any process.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        *,
        device: torch.device,
        batch_size: int,
        ahead: Ahead | None = None,
    ) -> None:
        self.images, self.labels, self.ahead = images, labels, ahead
        self.indices = indices.to(images.device)
        self.device, self.batch_size = device, batch_size

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for index, chosen in enumerate(self.indices.split(self.batch_size)):
            if self.ahead is not None:
                self.ahead.of_batch(self.indices, index, self.batch_size)
            images, labels = (t.index_select(0, chosen) for t in (self.images, self.labels))
            yield images.to(self.device), labels.to(self.device)


class ImageDataModule(pl.LightningDataModule):
    """MNIST, CIFAR, the bundled digits or a folder of pictures, as uint8 tensors on the device.

    Validation images are taken from train, stratified, with their own `split_seed`; the official
    test split is left as it is.

    - `val_size`: a number of images, or a fraction of the train images; None for the set's own
      split for validation, or `VAL_FRACTION` if it has none.
    - `fold`: which part of this size is used for validation, counted from 0.
    - `train_size`: how many of the remaining train images to use; None for all.
    - `augment`: arguments of `Augment`.
    - `mean`, `std`: per channel, of pixels scaled to 0..1; None for those of the train images.
    - `single`: the training loader yields batches (images, labels) instead of `Steps`.
    - `normalize`: for the user's own LightningModule: images are floats with mean 0 and standard
      deviation 1; `ImageClassifier` takes uint8 images.
    - `config`: the data section of a config that describes these settings, if there is one.

    `batches` is for your own training loop.

    Raises:
        DataError: if the splits ask for more images than there are.
    """

    def __init__(
        self,
        image_set: ImageSet,
        *,
        val_size: int | float | None = VAL_FRACTION,
        train_size: int | None = None,
        split_seed: int = 0,
        fold: int = 0,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        augment: Mapping[str, Any] | None = None,
        seed: int = 0,
        steps_per_execution: int = 1,
        num_steps: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        single: bool = False,
        normalize: bool = False,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.image_set = image_set
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.augment = Augment(**(augment or {}))
        self.seed = seed
        self.steps_per_execution = steps_per_execution
        self.num_steps = num_steps
        self.mean, self.std = image_set.normalization(mean, std)
        self.single, self.normalize = single, normalize
        self.config = None if config is None else dict(config)
        self._has_val = val_size is None and image_set.val_labels is not None
        taken = taken_for_validation(image_set.val_labels is not None, val_size, fold)
        train_indices, val_indices = split(
            image_set.train_labels, taken, train_size, split_seed, fold
        )
        if self._has_val:
            assert image_set.val_labels is not None
            val_indices = np.arange(len(image_set.val_labels))
        self.indices = {
            "train": torch.from_numpy(train_indices),
            "val": torch.from_numpy(val_indices),
            "test": torch.arange(len(image_set.test_labels)),
        }
        self._on_device: dict[str, Batch] = {}

    @property
    def num_train_images(self) -> int:
        """The number of images in one epoch."""
        return len(self.indices["train"])

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The batch itself if `single`, as floats if `normalize`."""
        if self.single and isinstance(batch, Steps):
            batch = next(iter(batch), None)
        if batch is None or not self.normalize:  # None: after the last of `num_steps`
            return batch
        images, labels = batch
        return standardized(images, self.mean, self.std), labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return self.image_set.image_shape

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the labels."""
        return list(self.image_set.classes)

    def batches(
        self, split: str = "train", epoch: int = 0, device: str | torch.device = "cpu"
    ) -> Iterator[Batch]:
        """Images (N, C, H, W) uint8 and labels (N,) of a split on `device`, for your own loop.

        "train" is shuffled and augmented differently in each `epoch`, counted from 0. Mixed images
        have soft labels (N, num_classes), which torch's cross_entropy takes. Every batch seeds
        torch's random numbers from (seed, step), as in a run.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self.indices:
            raise ValueError(f"split={split}: allowed: {', '.join(self.indices)}")
        device = torch.device(device)
        if split != "train":
            yield from self._eval_loader(split, device)
            return
        loader = self._train_loader(device)
        loader.set_epoch(epoch)
        for steps in loader:
            yield from steps

    def labels(self, split: str) -> Tensor:
        """Labels (N,) of "train", "val" or "test"."""
        return self._whole(split)[1][self.indices[split]]

    def tensors(self, split: str, chosen: Tensor | slice = slice(None)) -> Batch:
        """Images (N, C, H, W) uint8 and labels (N,) of a split: all, or those at `chosen`."""
        images, labels = self._whole(split)
        indices = self.indices[split][chosen]
        return images[indices], labels[indices]

    def _whole(self, split: str) -> Batch:
        """All images of the file that `split` comes from; memory-mapped, not read."""
        whole = self._source(split)
        images, labels = (
            getattr(self.image_set, f"{whole}_{kind}") for kind in ("images", "labels")
        )
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _source(self, split: str) -> str:
        """The split of the data set that `split` comes from."""
        return "train" if split == "val" and not self._has_val else split

    def _resident(self, split: str, device: torch.device) -> Batch:
        """`_whole` on the device, moved there once, if that leaves half of its memory free."""
        source = self._source(split)
        if source not in self._on_device:
            images, labels = self._whole(split)
            is_apart = device.type in ("cuda", "mps")
            if is_apart and images.nbytes < machine.free_memory(str(device)) / 2:
                images, labels = images.to(device), labels.to(device)
            self._on_device[source] = images, labels
        return self._on_device[source]

    def train_dataloader(self) -> TrainLoader:
        """Items of `steps_per_execution` shuffled and augmented batches."""
        assert self.trainer is not None
        trainer = self.trainer
        device = trainer.strategy.root_device
        return self._train_loader(device, rank=trainer.global_rank, world_size=trainer.world_size)

    def _train_loader(
        self, device: torch.device, rank: int = 0, world_size: int = 1
    ) -> TrainLoader:
        images, labels = self._resident("train", device)
        scene = self.image_set.scene
        if scene is not None:
            images = torch.from_numpy(scene.objects).to(images.device)
        return TrainLoader(
            images,
            labels,
            self.indices["train"],
            device=device,
            batch_size=self.batch_size,
            augment=self.augment,
            seed=self.seed,
            num_classes=len(self.image_set.classes),
            steps_per_item=self.steps_per_execution,
            num_steps=self.num_steps,
            rank=rank,
            world_size=world_size,
            scene=scene,
            ahead=self._ahead("train", images),
        )

    def _eval_dataloader(self, split: str) -> EvalLoader:
        assert self.trainer is not None
        return self._eval_loader(split, self.trainer.strategy.root_device)

    def _eval_loader(self, split: str, device: torch.device) -> EvalLoader:
        images, labels = self._resident(split, device)
        return EvalLoader(
            images,
            labels,
            self.indices[split],
            device=device,
            batch_size=self.eval_batch_size,
            ahead=self._ahead(split, images),
        )

    def _ahead(self, split: str, images: Tensor) -> Ahead | None:
        """The reader to tell which of a split's `images` come next, if one is needed."""
        whole = getattr(self.image_set, f"{self._source(split)}_images")
        return reads_ahead(whole) if images.device.type == "cpu" else None

    def val_dataloader(self) -> EvalLoader:
        """The validation images in order."""
        return self._eval_dataloader("val")

    def test_dataloader(self) -> EvalLoader:
        """The official test images in order; random numbers for them depend on the seed."""
        assert self.trainer is not None
        _seed_generators(_mix(self.seed, 0, 0), self.trainer.strategy.root_device)
        return self._eval_dataloader("test")


def _seed_generators(seed: int, device: torch.device) -> None:
    """Seed the CPU and `device`: torch.manual_seed takes a millisecond without a GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _mix(seed: int, counter: int, stream: int) -> int:
    """A 64-bit seed from three numbers: SplitMix64, https://doi.org/10.1145/2714064.2660195."""
    state = seed
    for number in (counter, stream):
        state = (state + 0x9E3779B97F4A7C15 * (number + 1)) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        state ^= state >> 31
    return state
