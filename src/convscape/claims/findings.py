"""What a claim's runs say about its statements: effects over seeds, verdicts from intervals."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convscape.claims.answer import Finding
from convscape.reports.contrasts import ALONE, Estimate, Look
from convscape.reports.looks import look_at_claim
from convscape.reports.statistics import estimate_at

if TYPE_CHECKING:
    from pathlib import Path

    from convscape.claims.answer import Run
    from convscape.claims.claim import Claim, Statement, Verdict

Rows = Sequence[tuple["Run", dict[str, float]]]  # each run with everything measured of it


def question_of(runs: Sequence[Run]) -> str:
    """A name for the arms and what they are trained on, whatever their seeds."""
    first = runs[0].config.seed
    arms = sorted({run.fingerprint for run in runs if run.config.seed == first})
    return hashlib.sha256(" ".join(arms).encode()).hexdigest()[:16]


def look_at(
    folder: Path, claim: Claim, runs: Sequence[Run], rows: Rows, *, is_complete: bool
) -> Look:
    """This look at a claim, recorded in its folder; a single seed cannot be judged.

    - `is_complete`: no run is still training.
    """
    found = [differences(each, rows) for each in claim.statements]
    if all(len(each) < 2 for each in found):
        return ALONE
    asked = [each.model_dump() for each in claim.statements]
    question = question_of(runs)
    return look_at_claim(folder, question, [asked, found], len(rows), is_complete=is_complete)


def findings_of(claim: Claim, rows: Rows, look: Look) -> list[Finding]:
    """The finding of each statement; with anytime-valid intervals, they all hold together."""
    if look.number is None:
        look = replace(look, share=look.share / len(claim.statements))
    return [_finding(statement, rows, look) for statement in claim.statements]


def differences(statement: Statement, rows: Rows) -> dict[int, float]:
    """Seed -> difference of the statement's two sides, averaged over the other keys."""

    def values(side: str | dict[str, Any]) -> dict[Any, float]:
        wanted = labels_of(side)
        found = {}
        for run, numbers in rows:
            if wanted.items() <= run.labels.items() and statement.metric in numbers:
                rest = tuple((k, v) for k, v in run.labels.items() if k not in wanted)
                found[run.config.seed, rest] = numbers[statement.metric]
        return found

    ours = values(statement.arm)
    others = dict.fromkeys(ours, 0.0) if statement.than is None else values(statement.than)
    by_seed: dict[int, list[float]] = {}
    for key in sorted(ours.keys() & others.keys()):
        by_seed.setdefault(key[0], []).append(ours[key] - others[key])
    return {seed: sum(each) / len(each) for seed, each in by_seed.items()}


def _finding(statement: Statement, rows: Rows, look: Look) -> Finding:
    means = list(differences(statement, rows).values())
    effect = Estimate(float("nan"), 0, look=look)
    if means:  # a network's costs are the same with every seed
        is_exact = statement.metric in ("num_parameters", "macs")
        effect = estimate_at(means, ALONE if is_exact else look)
    low, high = interval(effect)
    return Finding(
        *(statement.says, statement.metric, effect.mean, low, high, effect.n, effect.look.words),
        *(statement.expect, statement.by, verdict(statement.expect, statement.by, effect)),
    )


def labels_of(side: str | dict[str, Any]) -> dict[str, str]:
    """The labels of one side of a statement."""
    return {"arm": side} if isinstance(side, str) else {k: str(v) for k, v in side.items()}


def interval(effect: Estimate) -> tuple[float | None, float | None]:
    """Interval of the mean of two or more values; without width if all are equal."""
    has_no_end = effect.look.number is None and effect.half_width is None
    if effect.n < 2 or has_no_end:
        return None, None
    width = effect.half_width or 0.0
    return effect.mean - width, effect.mean + width


def verdict(expect: str, by: float, effect: Estimate) -> Verdict:
    """Supported if the whole interval is as expected, not supported if none of it is."""
    low, high = interval(effect)
    if low is None or high is None:
        return "undecided"
    if expect == "equal":
        if -by <= low and high <= by:
            return "supported"
        return "not supported" if low > by or high < -by else "undecided"
    if expect == "lower":
        low, high = -high, -low
    if low >= by:
        return "supported"
    return "not supported" if high < by else "undecided"


def overall(findings: Sequence[Finding]) -> Verdict:
    """A claim is supported if all of its statements are, and not supported if one is not."""
    verdicts = {finding.verdict for finding in findings}
    if verdicts == {"supported"}:
        return "supported"
    return "not supported" if "not supported" in verdicts else "undecided"
