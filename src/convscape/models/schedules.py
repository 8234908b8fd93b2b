"""Learning rates as a function of the step alone, so nothing needs to be saved or restored."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import cos, pi


def lr_factor(
    step: int,
    *,
    name: str,
    steps_per_epoch: int,
    total_steps: int,
    first_step: int = 0,
    warmup_epochs: float = 0.0,
    step_epochs: int = 1,
    milestones: Sequence[int] = (),
    gamma: float = 0.1,
    final_fraction: float = 0.0,
    warmup_fraction: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> float:
    """The factor of the peak learning rate at `step`, counted from 0.

    "step" and "multistep" change between epochs, "cosine" and "one_cycle" at each step, as
    torch.optim.lr_scheduler does. With warm-up, the rate rises linearly for the first
    `warmup_epochs`, and the cosine begins after them. In a run that continues another one, all of
    this starts at `first_step`.

    Raises:
        ValueError: if `name` is unknown.
    """
    step, total_steps = max(step - first_step, 0), total_steps - first_step
    warmup = round(warmup_epochs * steps_per_epoch)
    if name != "one_cycle" and step < warmup:
        return (step + 1) / warmup
    epoch = step // steps_per_epoch
    match name:
        case "constant":
            return 1.0
        case "step":
            return gamma ** (epoch // step_epochs)
        case "multistep":
            return gamma ** bisect_right(sorted(milestones), epoch)
        case "cosine":
            progress = (step - warmup) / max(total_steps - warmup, 1)
            return final_fraction + (1 - final_fraction) * (1 + cos(pi * min(progress, 1.0))) / 2
        case "one_cycle":
            peak = max(warmup_fraction * total_steps - 1, 0)
            if step < peak:
                return _anneal(1 / div_factor, 1.0, step / peak)
            progress = (step - peak) / max(total_steps - 1 - peak, 1)
            return _anneal(1.0, 1 / (div_factor * final_div_factor), min(progress, 1.0))
    raise ValueError(f"scheduler {name!r}; allowed: constant, step, multistep, cosine, one_cycle")


def _anneal(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * (1 + cos(pi * progress)) / 2
