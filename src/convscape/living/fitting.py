"""How a picture becomes what the network is given: facts for `static/fit.js`."""

from __future__ import annotations

from typing import Any

from convscape.trained.load import TrainedRun


def facts(run: TrainedRun) -> dict[str, Any]:
    """Plain values for the page: "kind", and what that kind needs."""
    return {"kind": "plain"}
