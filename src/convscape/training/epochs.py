"""The weights of each epoch, kept next to the checkpoints: trainer.keep_epochs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from convscape.base.files import make_folder, write_atomic
from convscape.base.quick_lightning import pl
from convscape.runs.folder import RunFolder
from convscape.training.checkpoints import sealed

LARGEST = torch.finfo(torch.float16).max


class EpochKeeper(pl.Callback):
    """Writes the weights at the beginning, as epoch 0, and after each epoch, in float16.

    It runs before the checkpoint is written, so a resumed run lacks no epoch; repeated epochs are
    written again.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights that the run starts with."""
        if trainer.is_global_zero and trainer.global_step == 0:
            self._keep(pl_module, 0, 0)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights after the epoch."""
        if trainer.is_global_zero:
            self._keep(pl_module, trainer.current_epoch + 1, trainer.global_step)

    def _keep(self, pl_module: pl.LightningModule, epoch: int, step: int) -> None:
        state = {name: _small(values) for name, values in pl_module.state_dict().items()}
        content: dict[str, Any] = {"state_dict": state, "epoch": epoch, "global_step": step}
        make_folder(self.folder.epochs_folder, within=self.folder.path)
        path = self.folder.epoch_file(epoch)
        write_atomic(path, sealed(content), within=self.folder.path)


def _small(values: Tensor) -> Tensor:
    """Floating-point values in half precision; values beyond its range become its largest."""
    values = values.detach()
    return values.clamp(-LARGEST, LARGEST).half().cpu() if values.is_floating_point() else values
