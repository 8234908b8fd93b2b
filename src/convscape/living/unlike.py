"""How unlike the training data an input is: facts for the page."""

from __future__ import annotations

from typing import Any

from convscape.trained.load import TrainedRun


def facts(run: TrainedRun) -> dict[str, Any]:
    """Plain values for the page."""
    return {}
