"""The usual reasons why a training learns nothing, reported as they happen: one line each."""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from convscape.base.quick_lightning import pl
from convscape.base.terminal import say
from convscape.models import ImageClassifier
from convscape.models.inside import modes_kept
from convscape.runs.words import command_on

if TYPE_CHECKING:
    from convscape.config.schema import Config
    from convscape.runs.resolved import ResolvedRun

logger = logging.getLogger("convscape")

STUCK_EPOCHS, STUCK_STEPS = 3, 100  # this long without beating a guess
STUCK = 0.98  # of the loss of guessing: a loss below has learned something
THROWN = 3.0  # times the loss of guessing, in an epoch after the first
NUM_IMAGES = 32  # of the first validation batch, in which units are looked at
DEAD = 0.9  # of the units of a layer


def watches_of(run: ResolvedRun, path: Path) -> list[Watch]:
    """The callbacks that watch a run in the folder `path`, if it should be watched."""
    trainer = run.config.trainer
    if not trainer.watch:
        return []
    guess = guessing_loss(run.config, len(run.classes))
    doctor = command_on(path, "doctor", {"allow_packages": run.config.allow_packages})
    return [Watch(doctor, guess, is_quiet=trainer.progress == "off", is_compiled=trainer.compile)]


def guessing_loss(config: Config, num_classes: int) -> float | None:
    """Mean loss of uniform guesses, ln(classes); None if the loss is not cross-entropy."""
    named = getattr(config.model, "loss", "cross_entropy")
    if config.loss.target not in (None, "torch.nn.CrossEntropyLoss"):
        return None
    return float(np.log(num_classes)) if named == "cross_entropy" else None


class Watch(pl.callbacks.Checkpoint):
    """Warns once each: a loss no better than guessing, or far worse; nearly all ReLUs at 0.

    It reads what an epoch has logged anyway, and looks on while the first batch is validated. It
    never changes a number of the run. A subclass of `Checkpoint`, because Lightning calls those
    after the module has logged its epoch.

    - `doctor`: the command that examines the run; `guess`: `guessing_loss` of the run.
    - `is_quiet`: notes it only in run.log.
    - `is_compiled`: the network is compiled, and looking inside would compile it again.
    """

    def __init__(
        self, doctor: str, guess: float | None, *, is_quiet: bool = False, is_compiled: bool = False
    ) -> None:
        self.doctor, self.guess = doctor, guess
        self.is_quiet, self.is_compiled = is_quiet, is_compiled
        self._said: set[str] = set()
        self._relus: ReLUs | None = None

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        *_: Any,
    ) -> None:
        """Begin to look at the units in the first batch that is validated."""
        if self._relus is None and self._looks_inside(trainer, pl_module):
            self._relus = ReLUs(pl_module)

    def on_validation_batch_end(self, *_: Any) -> None:
        """Look at no batch but the first: another one with hooks costs more than none."""
        if self._relus is not None:
            self._relus.let_go()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at what the epoch has logged, and after the first one at dead units."""
        if not trainer.is_global_zero:
            return
        loss = float(trainer.callback_metrics.get("train/loss", math.nan))
        self._look_at(loss, trainer.current_epoch + 1, trainer.global_step)
        if not self._looks_inside(trainer, pl_module):
            return
        if self._relus is None:  # nothing is validated
            images, _ = trainer.datamodule.tensors("train", slice(NUM_IMAGES))  # type: ignore[attr-defined]
            self._relus = _seen(pl_module, images.to(pl_module.device))
        layer, share = self._relus.deadest
        if share > DEAD:
            self._say("dead", f"{100 * share:.0f} % of the ReLUs of {layer} are 0 for every image")

    def _looks_inside(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        """Whether it is the first epoch of a network that may be looked at."""
        is_ours = isinstance(module, ImageClassifier) and not self.is_compiled
        return is_ours and trainer.is_global_zero and not trainer.current_epoch

    def _look_at(self, loss: float, epoch: int, step: int) -> None:
        guess = self.guess
        if guess is None or not guess > 0:
            return
        if epoch > 1 and loss > THROWN * guess:
            self._say("thrown", f"after {epoch} epochs the loss is {loss:.3g}, and {guess:.2f} is "
                      "guessing: a smaller optimizer.lr may help")  # fmt: skip
        is_long = epoch >= STUCK_EPOCHS and step >= STUCK_STEPS
        if is_long and loss > STUCK * guess:
            self._say(
                "stuck", f"after {epoch} epochs the loss is {loss:.2f}, and {guess:.2f} is guessing"
            )

    def _say(self, rule: str, sentence: str) -> None:
        if rule in self._said:
            return
        self._said.add(rule)
        line = f"{sentence}; {self.doctor} says why"
        logger.warning("%s", line)
        if not self.is_quiet:
            say(line, file=sys.stderr)


class ReLUs:
    """Sees, until `let_go`, which units of a network are 0 for all images of a batch."""

    def __init__(self, model: nn.Module) -> None:
        self._dead = {"": 0.0}
        self._handles = [
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: self._dead.update(
                    {name: share_of_dead(output[:NUM_IMAGES])}
                )
            )
            for name, module in model.named_modules()
            if isinstance(module, nn.ReLU)
        ]

    def let_go(self) -> None:
        """See no more."""
        while self._handles:
            self._handles.pop().remove()

    @property
    def deadest(self) -> tuple[str, float]:
        """The layer with the largest share of such units, and that share."""
        layer = max(self._dead, key=lambda name: self._dead[name])
        return layer.removeprefix("network."), self._dead[layer]


@torch.no_grad()
def _seen(model: nn.Module, images: Tensor) -> ReLUs:
    """The units in evaluation mode, which draws no random numbers and updates no statistics."""
    relus = ReLUs(model)
    try:
        with modes_kept(model):
            model.eval()
            model(images)
    finally:
        relus.let_go()
    return relus


def share_of_dead(output: Tensor) -> float:
    """The share of units of a ReLU's output (N, C, ...) that are 0 for the whole batch."""
    most = output.detach().transpose(0, 1).flatten(1).amax(1)
    return float((most <= 0).float().mean())
