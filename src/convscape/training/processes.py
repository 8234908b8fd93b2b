"""Several processes (DDP) that train as one: each takes its share of every batch.

The result does not depend on their number, except for rounding and dropout's random draws.
"""

# no `from __future__ import annotations`: torch compares a communication hook's with classes

import torch
import torch.distributed as dist
from torch import nn

from convscape.base.errors import ConfigError
from convscape.base.quick_lightning import pl
from convscape.data.module import TrainLoader


class WholeBatchGradients(pl.callbacks.Callback):
    """Makes gradients the mean over the whole batch, even if its shares are unequal."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Weight each process's gradients, instead of DDP's mean over processes."""
        if isinstance(trainer.strategy.model, nn.parallel.DistributedDataParallel):
            loader: TrainLoader = trainer.train_dataloader  # type: ignore[assignment]
            trainer.strategy.model.register_comm_hook(loader, _sum_of_shares)


class OwnThreads(pl.callbacks.Callback):
    """Keeps each process's number of threads as it was when this was made.

    Lightning sets its own once the processes run: all cores divided among them, ignoring the run's.
    """

    def __init__(self) -> None:
        self._num_threads = torch.get_num_threads()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore it for training and for testing: each starts the processes, or joins them."""
        torch.set_num_threads(self._num_threads)


def _sum_of_shares(
    loader: TrainLoader, bucket: dist.GradBucket
) -> torch.futures.Future[torch.Tensor]:
    gradients = bucket.buffer().mul_(loader.share)
    work = dist.all_reduce(gradients, async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def check_shares(num_images: int, batch_size: int, devices: int) -> None:
    """Refuse batches that leave a process without an image.

    Raises:
        ConfigError: naming the nearest batch size that works.
    """

    def smallest(size: int) -> int:
        return num_images % size or size

    if smallest(batch_size) >= devices:
        return
    sizes = sorted(range(devices, num_images + 1), key=lambda size: abs(size - batch_size))
    fits = next((size for size in sizes if smallest(size) >= devices), None)
    advice = "trainer.devices=1" if fits is None else f"data.batch_size={fits}"
    raise ConfigError(
        f"trainer.devices={devices} divides every batch, and with data.batch_size={batch_size} the "
        f"smallest of the {num_images:,} training images' batches has {smallest(batch_size)}; "
        f"try {advice}"
    )


def check_batch_norm(model: nn.Module, devices: int, kind: str) -> None:
    """Refuse batch norm on several CPU processes, where torch cannot share its statistics.

    Raises:
        ConfigError: saying what works.
    """
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    has_batch_norm = any(isinstance(module, kinds) for module in model.modules())
    if devices > 1 and kind == "cpu" and has_batch_norm:
        raise ConfigError(
            f"trainer.devices={devices} cannot share the statistics of batch norm on the CPU, and "
            "the result would depend on the number of processes; trainer.devices=1 uses all cores"
        )
