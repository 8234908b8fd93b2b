"""Values, scripts and styles put safely into our HTML pages; nothing else runs there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup


def styled(style: str) -> str:
    """The style that all pages share, followed by `style`, which may override it."""
    return (files(__package__) / "page.css").read_text("utf-8") + style


def as_json(values: Any) -> Markup:
    """Plain values as JSON that is safe in a script element.

    Raises:
        ValueError: if a number is not finite, which JSON cannot express.
    """
    # "</script>" would end the script element, "<!--<script>" keep it from ending
    text = json.dumps(values, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def embedded(values: Any, scripts: Sequence[str], style: str) -> dict[str, Any]:
    """The variables of a template: values, scripts, a style, and a policy that allows only them."""
    style = styled(style)
    return {
        "data": as_json(values),
        "scripts": [Markup(script) for script in scripts],
        "style": Markup(style),
        "script_hashes": " ".join(map(_hash, scripts)),
        "style_hash": _hash(style),
    }


def _hash(text: str) -> str:
    """The source with which a Content-Security-Policy allows exactly this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
