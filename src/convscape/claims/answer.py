"""What came out of a claim: runs, findings, verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from convscape.claims.claim import Labels, Mode, Verdict
from convscape.config.schema import Config


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    labels: Labels
    config: Config
    overrides: list[str]
    fingerprint: str


@dataclass
class Finding:
    """A statement with its effect: the mean difference over the seeds, and its interval."""

    says: str
    metric: str
    effect: float
    low: float | None
    high: float | None
    n: int
    expect: str
    by: float
    verdict: Verdict


@dataclass
class ClaimResult:
    """What `answer.json` holds; the numbers of arms are means over seeds with half an interval."""

    claim: str
    question: str
    says: str
    mode: Mode
    verdict: Verdict
    findings: list[Finding]
    arms: list[dict[str, Any]]
    budget: str
    command: str
    seconds: float
    unfinished: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
