"""Configs in the folders of earlier runs: what they name differently from today."""

from __future__ import annotations

from typing import Any

from convscape.config.losses import read_as_before


def read_config_as_before(config: dict[str, Any]) -> None:
    """Translate the config of a run folder, which may be a stranger's, into today's words."""
    data = config.get("data")
    if isinstance(data, dict):
        data.pop("epochs", None)  # trainer.max_epochs if it was not set
    model = config.get("model")
    target = model.get("_target_") if isinstance(model, dict) else None
    if isinstance(target, str) and target.startswith("convscape.models."):
        read_as_before(model)  # the user's own model keeps its words
