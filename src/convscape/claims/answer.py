"""The outcome of a claim: runs, findings, verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from convscape.claims.claim import Labels, Mode, Verdict
from convscape.config.schema import Config
from convscape.runs.resolved import ResolvedRun


class Run(ResolvedRun):
    """One arm with one seed; `labels` identify the arm."""

    def __init__(self, labels: Labels, config: Config, overrides: Sequence[str]) -> None:
        super().__init__(config, overrides)
        self.labels = labels


@dataclass
class Finding:
    """A statement with its effect: the mean difference over the seeds, and its interval.

    - `look`: the look that the interval is valid for, in words.
    """

    says: str
    metric: str
    effect: float
    low: float | None
    high: float | None
    n: int
    look: str
    expect: str
    by: float
    verdict: Verdict


@dataclass
class ClaimResult:
    """What `answer.json` holds; arms' numbers are means over seeds with half an interval."""

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
