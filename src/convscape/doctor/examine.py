"""`examine`: run every rule, try every remedy, sort what remains by its worth."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from convscape.base.cores import num_threads
from convscape.base.errors import ConfigError
from convscape.doctor.case import Case
from convscape.doctor.finding import Finding, Mend
from convscape.doctor.rules import OF_IMAGES, OF_TRAINING, Rule
from convscape.doctor.trials import Trial, trial

TRIED = 3  # remedies per finding
SLOW = 0.1  # share of the loss that it has to fall by in the whole training
HELPS = 0.02  # at least this many more right answers, 0..1


@dataclass
class Diagnosis:
    """The findings, most important first; `notes` say what was not examined."""

    case: Case
    findings: list[Finding]
    num_rules: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def examine(case: Case, own: Sequence[Rule] = ()) -> Diagnosis:
    """Run every rule, including the user's `own`.

    Torch's random state and threads are restored afterwards.

    Raises:
        ConfigError: if there is nothing to examine.
    """
    start, notes = time.perf_counter(), []
    rules = [*OF_IMAGES, *OF_TRAINING, *own]
    with _left_as_it_was(case):
        if not case.can_train:
            rules = [*OF_IMAGES, *own]
            notes.append("its LightningModule trains itself: only the images were looked at")
        if case.config.trainer.freeze:
            notes.append("trainer.freeze is not part of the short trainings")
        found = []
        for rule in rules:
            finding = rule(case)
            if finding is None:
                continue
            finding.rule = rule.__name__
            if _hold(case, finding):
                found.append(finding)
        is_slow = case.can_train and case.expected_fall > SLOW * case.trial.first_loss
        if case.can_train and not case.learns and not is_slow and not _is_explained(found):
            found.append(_unexplained(case))
        found.sort(key=lambda finding: -max(finding.gain, finding.worth))
        found = _without_consequences(case, found)
    return Diagnosis(case, found, len(rules), time.perf_counter() - start, notes)


def _hold(case: Case, finding: Finding) -> bool:
    """Try the remedies of a finding and keep the best; returns whether the finding stands."""
    if not finding.mends or not case.can_train:
        return not finding.is_suspicion
    finding.before = case.trial
    tried: list[tuple[float, Mend, Trial]] = []
    for mend in finding.mends[:TRIED]:
        try:
            after = trial(case.with_values(mend), case.trial.steps)
        except ConfigError:  # not for this network: a kernel that does not fit
            continue
        tried.append((_score(after), mend, after))
        if after.learns and not case.learns:
            break
    if not tried:
        finding.before = None
        return not finding.is_suspicion
    score, finding.mend, finding.after = max(tried, key=lambda one: one[0])
    helps = score > _score(case.trial) + HELPS
    if finding.is_suspicion and case.learns:
        return helps and finding.after.learns
    return not finding.is_suspicion or (helps and finding.after.learns)


def _without_consequences(case: Case, found: list[Finding]) -> list[Finding]:
    """Note with the first finding each later one that its remedy removes too."""
    first = found[0] if found else None
    if first is None or first.mend is None or first.after is None or not first.after.learns:
        return found
    mended = case.with_values(first.mend)
    mended.trial = first.after
    by_name = {rule.__name__: rule for rule in OF_TRAINING}
    left = [first]
    for finding in found[1:]:
        rule = by_name.get(finding.rule)
        if rule is not None and rule(mended) is None:
            first.goes_too.append(finding)
        else:
            left.append(finding)
    return left


def _score(one: Trial) -> float:
    return one.score if one.is_finite else 0.0


def _is_explained(found: Sequence[Finding]) -> bool:
    return any(finding.after is None or finding.after.learns for finding in found)


def _unexplained(case: Case) -> Finding:
    return Finding(
        says="it does not learn, and no rule says why",
        measured=f"after {case.trial.steps} steps {100 * case.trial.score:.0f} % of the images are "
        "right, each class alike",
        why="a trial is short: some networks only begin to learn later",
        advice="train it for longer, or begin with a network that learns and change one thing",
        rule="does_not_learn",
    )


@contextmanager
def _left_as_it_was(case: Case) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads(case.config.trainer.threads))
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
