"""Lightning as `pl`, imported in two thirds of the time, and the internals of it that we use.

The whole package imports Lightning from here. pyproject.toml bounds the versions of lightning and
lightning-utilities for it; tests/test_insides.py says which part a newer version has changed.

Lightning imports torchmetrics, which imports torchvision, SciPy and Matplotlib if it finds them,
for metrics that are not used here: see benchmarks/README.md.
While Lightning is being imported, they are reported as missing.
"""

import os
from collections.abc import Iterable
from functools import cache
from typing import Any

from lightning_utilities.core import imports
from torch import Tensor

os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")  # read by lightning when it is imported

_NOT_NEEDED = ("torchvision", "scipy", "matplotlib", "transformers")

_is_met = imports.RequirementCache.__bool__
_is_installed = imports.package_available


def _is_met_and_needed(requirement: Any) -> bool:
    named = requirement.requirement or requirement.module or ""
    return not named.startswith(_NOT_NEEDED) and _is_met(requirement)


def _is_installed_and_needed(name: str) -> bool:
    return name not in _NOT_NEEDED and _is_installed(name)


imports.RequirementCache.__bool__ = _is_met_and_needed  # type: ignore[method-assign, assignment]
imports.package_available = _is_installed_and_needed  # type: ignore[assignment]
try:
    import lightning.pytorch as pl
    from lightning.fabric.loggers.logger import rank_zero_experiment
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.fabric.utilities import registry
finally:
    imports.RequirementCache.__bool__ = _is_met  # type: ignore[method-assign]
    imports.package_available = _is_installed

# each Trainer asks for them, which reads the metadata of every installed package: 15 ms
registry.entry_points = cache(registry.entry_points)  # type: ignore[assignment]

__all__ = ["LightningEnvironment", "pl", "rank_zero_experiment"]


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """All callbacks; Lightning's class does not declare the attribute."""
    found: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return found


def overrides(part: pl.LightningModule | pl.Callback, hooks: Iterable[str]) -> bool:
    """Whether a module or a callback overrides one of `hooks`."""
    kind = pl.Callback if isinstance(part, pl.Callback) else pl.LightningModule
    return any(getattr(type(part), hook) is not getattr(kind, hook) for hook in hooks)


def count_steps(trainer: pl.Trainer, count: int) -> None:
    """Tell Lightning about steps that it did not see; its own wrapper doubles the loop's cost."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for counts in (progress.total, progress.current):
        counts.ready += count
        counts.completed += count


def num_batches_done(trainer: pl.Trainer) -> int:
    """Calls of `training_step` since training began, without the current one."""
    return trainer.fit_loop.epoch_loop.total_batch_idx + 1


def validate_from_its_beginning(trainer: pl.Trainer) -> None:
    """Restart the count of validation batches, including those in a checkpoint."""
    trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset()


def validate_again(trainer: pl.Trainer) -> None:
    """Let checkpoints say from now on: the epoch is trained, its validation is not done."""
    # what Lightning takes for a validation that was stopped in its first batch
    progress: Any = trainer.fit_loop.epoch_loop.val_loop.batch_progress
    progress.reset()
    progress.total.ready = progress.total.started = 1


# At the end of an epoch Lightning first asks for a checkpoint, then hands the epoch's metrics to
# the loggers and steps the schedulers that watch a metric. A kill in between would lose both.


def log_epoch_now(trainer: pl.Trainer) -> None:
    """Hand the training epoch's metrics to the loggers now; Lightning then finds none left."""
    connector, loop = trainer._logger_connector, trainer.fit_loop.epoch_loop
    connector.on_epoch_end()
    loop._batches_that_stepped -= 1  # as `on_advance_end` of the outer loop does
    connector.update_train_epoch_metrics()
    loop._batches_that_stepped += 1


def catch_up(
    trainer: pl.Trainer, module: pl.LightningModule, logged: dict[str, Tensor], num_epochs: int
) -> None:
    """Do what remained to be done after the checkpoint of epoch `num_epochs`.

    - `logged`: the metrics that callbacks saw at that point.
    """
    trainer.callback_metrics.update(logged)
    if not module.automatic_optimization:  # it has stepped them itself, before the checkpoint
        return
    for config in trainer.lr_scheduler_configs:
        is_due = config.interval == "epoch" and num_epochs % config.frequency == 0
        if config.reduce_on_plateau and is_due and config.monitor in logged:
            module.lr_scheduler_step(config.scheduler, logged[config.monitor])
