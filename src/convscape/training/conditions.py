"""The process that a run finds: set up for it, and recorded with its result."""

from __future__ import annotations

import platform
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convscape.base import cores, machine
from convscape.base.quick_lightning import pl
from convscape.base.terminal import say
from convscape.runs.folder import local_rank

if TYPE_CHECKING:
    from convscape.config.schema import Config, TrainerConfig
    from convscape.runs.resolved import ResolvedRun
    from convscape.runs.result import Result


def set_for(run: ResolvedRun) -> None:
    """Set everything that an earlier run in this process could have changed."""
    config = run.config
    torch.set_num_threads(_num_threads(config.trainer))
    torch.use_deterministic_algorithms(config.trainer.deterministic)
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)
    random.seed(config.seed)
    machine.keep_freed_memory()
    machine.give_freed_memory_back()
    machine.reset_peak_memory(str(run.device))


def environment(config: Config) -> dict[str, Any]:
    """Versions, hardware and commit behind a result, and how many cores others used."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "lightning": pl.__version__,
        "device": config.trainer.device,
        "cpu": machine.cpu_name(),
        "threads": _num_threads(config.trainer),
        "taken_cores": cores.others.cores(),
        "precision": config.trainer.precision,
        **machine.git_state(),
    }


def of_weights(given: pl.LightningModule | None) -> dict[str, str]:
    """What a result says about where its network came from, if not from its config."""
    return {} if given is None else {"weights": "given"}


def say_what_others_use(run: ResolvedRun, result: Result) -> None:
    """Tell the user if others leave too few cores, which makes training slower."""
    num_threads = result.environment["threads"] * run.config.trainer.devices
    words = cores.sentence(result.environment["taken_cores"], num_threads)
    is_seen = run.config.trainer.progress != "off" and local_rank() == 0
    if words is not None and is_seen and run.device.kind == "cpu":
        say(words, file=sys.stderr)


def _num_threads(trainer: TrainerConfig) -> int:
    return cores.num_threads(trainer.threads, trainer.devices)
