"""What an HTML page of ours holds: values and scripts that it can neither leave nor add to."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup


def styled(style: str) -> str:
    """A style sheet behind what all pages share, of which it may say otherwise."""
    return (files(__package__) / "page.css").read_text("utf-8") + style


def as_json(values: Any) -> Markup:
    """Plain values as JSON that may stand in a script element.

    Raises:
        ValueError: if a number is not finite, which JSON has no word for.
    """
    # "</script>" would end the script element, "<!--<script>" keep it from ending
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def embedded(values: Any, scripts: Sequence[str], style: str) -> dict[str, Any]:
    """What a template takes for values, scripts and a style, and for a policy of these alone."""
    style = styled(style)
    return {
        "data": as_json(values),
        "scripts": [Markup(script) for script in scripts],
        "style": Markup(style),
        "script_hashes": " ".join(map(_hash, scripts)),
        "style_hash": _hash(style),
    }


def _hash(text: str) -> str:
    """As a Content-Security-Policy allows what stands in the page, and nothing else."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
