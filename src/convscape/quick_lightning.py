"""Lightning as `pl`, imported in two thirds of the time; everything here imports it from here.

Lightning imports torchmetrics, and that imports torchvision, SciPy and Matplotlib where it finds
them, for metrics that are not used here: see benchmarks/README.md.
While Lightning is imported, they are said to be missing.
"""

import os
from typing import Any

from lightning_utilities.core import imports

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
finally:
    imports.RequirementCache.__bool__ = _is_met  # type: ignore[method-assign]
    imports.package_available = _is_installed

__all__ = ["LightningEnvironment", "pl", "rank_zero_experiment"]
