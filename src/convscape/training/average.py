"""The exponential moving average of the weights: trainer.ema."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from convscape.base.quick_lightning import pl


class WeightAverage(pl.Callback):
    """Averages the weights after each optimiser step, and shows the average.

    The model holds the average wherever it is looked at: during validation, in the pictures, in the
    checkpoints of whole epochs and after training. While it learns it holds the weights that the
    optimiser moves. This must be the first callback.

    Both the parameters and the batch-norm statistics are averaged, as in timm: the statistics of
    one set of weights do not fit another. Lightning's own callback expects one step per call of
    `training_step`: it counts the calls, and a run stopped during validation would save the two
    sets the wrong way round.

    - `decay`: how much of the average a step keeps, once there have been enough steps; early on it
      is (1 + t) / (10 + t) after t steps, so a short training forgets its random start
      (https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._num_updates = 0
        self._is_shown = False  # whether the model holds the average, and `_other` the weights
        self._other: dict[str, Tensor] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start from the weights as they are, or continue with those of a checkpoint."""
        own = _averaged(pl_module)
        for name, tensor in own.items():
            other = torch.empty_like(tensor)
            self._other[name] = other.copy_(self._other.get(name, tensor).detach())
        # with several optimisers, the last one ends a step
        trainer.optimizers[-1].register_step_post_hook(lambda *_: self._update(own))

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Give the optimiser its weights back."""
        self._show(pl_module, False)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == "fit":
            self._show(pl_module, True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the average even if nothing is validated."""
        self._show(pl_module, True)

    def state_dict(self) -> dict[str, Any]:
        """Whichever set of weights the model does not hold, for the checkpoint."""
        return {
            "num_updates": self._num_updates,
            "is_shown": self._is_shown,
            "other": {name: tensor.clone() for name, tensor in self._other.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint, whose model is loaded as it was saved."""
        self._num_updates = state_dict["num_updates"]
        self._is_shown = state_dict["is_shown"]
        self._other = dict(state_dict["other"])

    def _update(self, own: dict[str, Tensor]) -> None:
        self._num_updates += 1
        decay = min(self.decay, (1 + self._num_updates) / (10 + self._num_updates))
        averages = [self._other[name] for name in own]
        get_ema_multi_avg_fn(decay)(averages, list(own.values()), self._num_updates)

    @torch.no_grad()
    def _show(self, module: pl.LightningModule, is_shown: bool) -> None:
        """Swap the values, not the tensors: the optimiser knows its tensors by identity."""
        if self._is_shown is is_shown:
            return
        self._is_shown = is_shown
        for name, tensor in _averaged(module).items():
            before = tensor.clone()
            tensor.copy_(self._other[name])
            self._other[name].copy_(before)


def _averaged(module: torch.nn.Module) -> dict[str, Tensor]:
    """The floating-point tensors that a checkpoint holds of it, each once."""
    saved = module.state_dict().keys()
    named = chain(module.named_parameters(), module.named_buffers())
    return {name: t for name, t in named if name in saved and t.is_floating_point()}
