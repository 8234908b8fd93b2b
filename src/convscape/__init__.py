"""A laboratory for image classifiers: describe, train, sweep, see what changed.

    import convscape

    data = convscape.data_module("digits", batch_size=64)
    model = convscape.CNN.for_data(data, channels=[16, 32], kernel_size=5)
    run = convscape.train("trainer.max_epochs=3", model=model, data=data)
    run.metrics["test/acc"]

Everything here is loaded when it is first used, so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscape import inside, kernels, probes
    from convscape.api import data_module, plan, train, train_sweep
    from convscape.cache import DataError
    from convscape.data import ImageDataModule
    from convscape.errors import ConfigError, RunFailed
    from convscape.geometry import InfeasibleGeometry, Plan
    from convscape.models import CNN, MLP, ImageClassifier, Sequential
    from convscape.results import load_sweep
    from convscape.trained import TrainedRun, evaluate, load_run, predict

# TensorBoard's switch to do without TensorFlow. It would import it where it is installed, which
# takes seconds, and aborts: its LLVM and that of torch's Triton do not bear each other.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))

__all__ = [
    "CNN",
    "MLP",
    "ConfigError",
    "DataError",
    "ImageClassifier",
    "ImageDataModule",
    "InfeasibleGeometry",
    "Plan",
    "RunFailed",
    "Sequential",
    "TrainedRun",
    "data_module",
    "evaluate",
    "inside",
    "kernels",
    "load_run",
    "load_sweep",
    "plan",
    "predict",
    "probes",
    "train",
    "train_sweep",
]

_HOMES = {
    "api": ("data_module", "plan", "train", "train_sweep"),
    "cache": ("DataError",),
    "data": ("ImageDataModule",),
    "errors": ("ConfigError", "RunFailed"),
    "geometry": ("InfeasibleGeometry", "Plan"),
    "models": ("CNN", "MLP", "ImageClassifier", "Sequential"),
    "results": ("load_sweep",),
    "trained": ("TrainedRun", "evaluate", "load_run", "predict"),
}


def __getattr__(name: str) -> Any:
    if name in ("inside", "kernels", "probes"):
        return import_module(f"convscape.{name}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"convscape.{home}"), name)
    raise AttributeError(f"module 'convscape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
