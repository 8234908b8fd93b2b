"""The doctor's answer: plain values (`base.documents.Doctor`), and words for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from convscape.base import notebook
from convscape.base.terminal import format_table, wrapped
from convscape.base.values import counted

if TYPE_CHECKING:
    from convscape.doctor.case import Case
    from convscape.doctor.examine import Diagnosis
    from convscape.doctor.finding import Finding
    from convscape.doctor.trials import Trial


@dataclass(frozen=True)
class Answer:
    """What the doctor says; it prints as in a terminal, and a notebook shows it with its tables.

    - `subject`: the words that were examined; `is_run`: whether they name a run.
    - `diagnosis`: all that was measured, with the network of each short training.
    """

    subject: str
    is_run: bool
    diagnosis: Diagnosis = field(repr=False)

    @property
    def findings(self) -> list[Finding]:
        """What was found, most important first; `words` of one are the overrides that mend it."""
        return self.diagnosis.findings

    @property
    def is_healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as `convscape doctor --json` prints them."""
        return as_document(self.diagnosis, self.subject, is_run=self.is_run)

    def __str__(self) -> str:
        return "\n".join(in_words(self.diagnosis))

    def _repr_html_(self) -> str:
        """The findings in a notebook."""
        diagnosis = self.diagnosis
        head = _healthy(diagnosis) if self.is_healthy else _head(diagnosis)
        parts = [f"<p>{escape(head)}</p>"]
        for finding in self.findings:
            facts = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>" for k, v in _facts(finding))
            parts.append(f"<li>{escape(_name(finding))}<dl>{facts}</dl>{_tried_html(finding)}</li>")
        if self.findings:
            parts[1:] = ["<ol>", *parts[1:], "</ol>"]
        notes = [f"<p>{escape(note)}</p>" for note in diagnosis.notes]
        return f"<div>{''.join([*parts, *notes])}</div>"


def as_document(diagnosis: Diagnosis, subject: str, *, is_run: bool) -> dict[str, Any]:
    """Every finding, with the short trainings behind it."""
    case = diagnosis.case
    return {
        "subject": subject,
        "is_run": is_run,
        "is_healthy": not diagnosis.findings,
        "trial": _trial(case.trial) if case.can_train else None,
        "findings": [
            {
                "rule": finding.rule,
                "says": finding.says,
                "measured": finding.measured,
                "why": finding.why,
                "mend": finding.words,
                "goes_too": [each.rule for each in finding.goes_too],
                "advice": finding.advice or None,
                "before": None if finding.before is None else _trial(finding.before),
                "after": None if finding.after is None else _trial(finding.after),
            }
            for finding in diagnosis.findings
        ],
        "notes": diagnosis.notes,
        "num_rules": diagnosis.num_rules,
        "seconds": diagnosis.seconds,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "steps": trial.steps,
        "is_finite": trial.is_finite,
        "first_loss": trial.first_loss,
        "loss": trial.loss,
        "acc": trial.acc,
        "macro_acc": trial.macro_acc,
        "train_acc": trial.train_acc,
        "seconds": trial.seconds,
    }


def in_words(diagnosis: Diagnosis) -> list[str]:
    """The same for people; a healthy training is one sentence."""
    case, findings = diagnosis.case, diagnosis.findings
    if not findings:
        return wrapped(_healthy(diagnosis)) + _notes(diagnosis)
    lines = wrapped(_head(diagnosis))
    for number, finding in enumerate(findings, 1):
        lines += ["", *_finding(number, finding, case)]
    return lines + _notes(diagnosis)


def _head(diagnosis: Diagnosis) -> str:
    rules = counted(diagnosis.num_rules, "rule")
    found = counted(len(diagnosis.findings), "finding")
    return f"{found} of {rules}, in {diagnosis.seconds:.1f} s; most important first"


def _healthy(diagnosis: Diagnosis) -> str:
    case, rules = diagnosis.case, counted(diagnosis.num_rules, "rule")
    if not case.can_train:
        return f"nothing found by {rules}"
    trial = case.trial
    images = f"{trial.num_images:,} {'validation' if case.held_out == 'val' else 'train'} images"
    guess = "" if trial.guessing_loss is None else f" (guessing: {trial.guessing_loss:.2f})"
    return (
        f"nothing found by {rules}: after {trial.steps} steps {100 * trial.acc:.1f} % of "
        f"{images} are right, with a loss of {trial.loss:.2f}{guess}"
    )


def _notes(diagnosis: Diagnosis) -> list[str]:
    return [line for note in diagnosis.notes for line in wrapped(note)]


def _finding(number: int, finding: Finding, case: Case) -> Iterator[str]:
    yield from wrapped(f"{number}. {_name(finding)}")
    for label, text in _facts(finding):
        yield from _labelled(label, text)
    if finding.before is None or finding.after is None:
        return
    table = format_table(_tried(finding.before, finding.after), (1, 2, 3))
    yield from (f"   {line}" for line in table.splitlines())
    seconds = finding.before.seconds + finding.after.seconds
    images = f"{case.trial.num_images:,} {'validation' if case.held_out == 'val' else 'train'}"
    steps = counted(finding.after.steps, "step")
    yield from wrapped(f"{steps} each, {images} images, {seconds:.1f} s", "   ", "   ")


def _name(finding: Finding) -> str:
    return f"{finding.says[0].upper()}{finding.says[1:]} ({finding.rule})"


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    """What is said of a finding, each with its label."""
    yield "measured", finding.measured
    yield "why", finding.why
    if finding.mend is not None:
        yield "try", " ".join(finding.words)
    if finding.advice:
        yield "or" if finding.mend is not None else "do", finding.advice
    if finding.goes_too:
        others = "; ".join(each.says for each in finding.goes_too)
        yield "also", f"this is fixed with it: {others}"


def _tried(before: Trial, after: Trial) -> list[tuple[str, ...]]:
    """Both short trainings, a row each below the head."""
    rows: list[tuple[str, ...]] = [("tried", "loss", "right", "each class alike")]
    for name, trial in (("as it is", before), ("with it", after)):
        loss = f"{trial.loss:.3g}" if trial.is_finite else "not finite"
        rows.append((name, loss, f"{100 * trial.acc:.1f} %", f"{100 * trial.macro_acc:.1f} %"))
    return rows


def _tried_html(finding: Finding) -> str:
    if finding.before is None or finding.after is None:
        return ""
    return notebook.table(_tried(finding.before, finding.after), (1, 2, 3))


def _labelled(label: str, text: str) -> list[str]:
    head = f"   {label + ':':<10}"
    return wrapped(text, head, " " * len(head))
