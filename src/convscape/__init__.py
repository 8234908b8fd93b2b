"""A laboratory for image classifiers: describe, train, sweep, see what changed.

    import convscape

    data = convscape.data_module("digits", batch_size=64)
    model = convscape.CNN.for_data(data, channels=[16, 32], kernel_size=5)
    run = convscape.train("trainer.max_epochs=3", model=model, data=data)
    run.metrics["test/acc"]

Everything here is loaded on first use, so importing the package costs nothing.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscape.api import data_module, diagnose, plan, train, train_sweep
    from convscape.base.errors import ConfigError, RunFailed
    from convscape.data.cache import DataError
    from convscape.data.module import ImageDataModule
    from convscape.drawing import kernels
    from convscape.geometry.plan import Plan
    from convscape.geometry.window import InfeasibleGeometry
    from convscape.models import inside
    from convscape.models.classifier import ImageClassifier
    from convscape.models.networks import CNN, MLP, Sequential
    from convscape.reports.results import load_sweep
    from convscape.trained import probes
    from convscape.trained.evaluate import evaluate
    from convscape.trained.load import TrainedRun, load_run
    from convscape.trained.predict import predict

__version__ = "0.1.0"

# TensorBoard's switch to do without TensorFlow. It would import it if installed, which takes
# seconds and then aborts: its LLVM and that of torch's Triton do not get along.
sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))

# How often torch's threads check for work before they sleep; GNU OpenMP reads it when torch is
# imported. With OpenMP's default, two threads on cores that other processes want too train at a
# tenth to a quarter of the speed of one; with 1,000 they are at least as fast as one, see
# docs/speed.md. A user's own setting is kept.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

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
    "diagnose",
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
    "api": ("data_module", "diagnose", "plan", "train", "train_sweep"),
    "base.errors": ("ConfigError", "RunFailed"),
    "data.cache": ("DataError",),
    "data.module": ("ImageDataModule",),
    "geometry.plan": ("Plan",),
    "geometry.window": ("InfeasibleGeometry",),
    "models.classifier": ("ImageClassifier",),
    "models.networks": ("CNN", "MLP", "Sequential"),
    "reports.results": ("load_sweep",),
    "trained.evaluate": ("evaluate",),
    "trained.load": ("TrainedRun", "load_run"),
    "trained.predict": ("predict",),
}
_MODULES = {
    "inside": "models.inside",
    "kernels": "drawing.kernels",
    "probes": "trained.probes",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"convscape.{_MODULES[name]}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"convscape.{home}"), name)
    raise AttributeError(f"module 'convscape' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
