"""Optimisers and schedules that a config names by `_target_`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.base.sections import Part

VAL_LOSS = "val/loss"  # what a schedule watches unless told otherwise


def named_optimizer(
    parameters: Iterable[nn.Parameter], described: Mapping[str, Any], allow_packages: Sequence[str]
) -> torch.optim.Optimizer:
    """Any optimiser of torch.optim, or a user's, for `parameters`.

    Raises:
        ConfigError: if it does not exist, does not take the arguments, or computes the loss itself,
            several times per step.
    """
    part = Part.model_validate(dict(described))
    learned = [each for each in parameters if each.requires_grad]
    built: torch.optim.Optimizer = parts.build(
        "optimizer", "optimizer._target_", part, allow_packages, learned
    )
    closure = inspect.signature(type(built).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"optimizer._target_={part.target} computes the loss itself, several times in each "
            "step; allowed: one that takes its step from the gradients"
        )
    return built


def monitors(configured: Any) -> list[str]:
    """The metrics watched by the schedules that a `configure_optimizers` returns.

    Lightning drops them if a module takes its steps itself, as `ImageClassifier` does.
    """
    schedules: Any = []
    if isinstance(configured, dict):
        schedules = [configured.get("lr_scheduler")]
    elif isinstance(configured, tuple) and len(configured) == 2:
        schedules = configured[1]
    known = (each if isinstance(each, dict) else {} for each in schedules)
    return [str(each.get("monitor", VAL_LOSS)) for each in known]


def named_schedule(
    optimizer: torch.optim.Optimizer, described: Mapping[str, Any], allow_packages: Sequence[str]
) -> dict[str, Any]:
    """One of torch's schedules or a user's, in Lightning's form.

    Unless they are given, it gets the length of the training in its own interval, the learning rate
    as its maximum, and the direction of the monitor.

    Raises:
        ConfigError: if it does not exist, or does not take the arguments.
    """
    known = dict(described)
    total, per_epoch = known.pop("total_steps", 1), known.pop("steps_per_epoch", 1)
    interval = known.pop("interval", "epoch")
    known.pop("monitor", None)
    length = total if interval == "step" else -(-total // per_epoch)
    offered = {
        "T_max": length,
        "total_steps": length,
        "max_lr": optimizer.param_groups[0]["lr"],
        "mode": known.pop("monitor_mode", "min"),
    }
    part, key = Part.model_validate(known), "scheduler._target_"
    built = parts.build("scheduler", key, part, allow_packages, optimizer, offered=offered)
    return {"scheduler": built, "interval": interval}
