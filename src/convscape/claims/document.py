"""Claims as plain values, for programs to act on: see `base.documents`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.claims.claim import load, names

if TYPE_CHECKING:
    from convscape.claims.answer import ClaimResult


def answers_document(answers: Mapping[Path, ClaimResult]) -> dict[str, Any]:
    """The answers with their folders."""
    return {"answers": [asdict(one) | {"folder": str(folder)} for folder, one in answers.items()]}


def claims_document() -> dict[str, Any]:
    """The existing claims."""
    claims = {name: load(name) for name in names()}
    return {
        "claims": [
            {"name": name, "question": claim.question, "quick_seconds": claim.quick_seconds}
            for name, claim in claims.items()
        ]
    }
