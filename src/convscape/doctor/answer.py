"""What the doctor says: plain values (`base.documents.Doctor`), and words that fit the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convscape.base.terminal import format_table, wrapped
from convscape.base.values import counted

if TYPE_CHECKING:
    from convscape.doctor.case import Case
    from convscape.doctor.examine import Diagnosis
    from convscape.doctor.finding import Finding
    from convscape.doctor.trials import Trial


def as_document(diagnosis: Diagnosis, subject: str, *, is_run: bool) -> dict[str, Any]:
    """Every finding, with the short trainings that it rests on."""
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
    rules = counted(diagnosis.num_rules, "rule")
    head = f"{counted(len(findings), 'finding')} of {rules}, in {diagnosis.seconds:.1f} s"
    lines = wrapped(f"{head}; most important first")
    for number, finding in enumerate(findings, 1):
        lines += ["", *_finding(number, finding, case)]
    return lines + _notes(diagnosis)


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
    yield from wrapped(f"{number}. {finding.says[0].upper()}{finding.says[1:]} ({finding.rule})")
    yield from _labelled("measured", finding.measured)
    yield from _labelled("why", finding.why)
    if finding.mend is not None:
        yield from _labelled("try", " ".join(finding.words))
    if finding.advice:
        yield from _labelled("or" if finding.mend is not None else "do", finding.advice)
    if finding.goes_too:
        yield from _labelled(
            "also", f"with it this is gone too: {'; '.join(each.says for each in finding.goes_too)}"
        )
    if finding.before is None or finding.after is None:
        return
    rows = [("tried", "loss", "right", "each class alike")]
    for name, trial in (("as it is", finding.before), ("with it", finding.after)):
        loss = f"{trial.loss:.3g}" if trial.is_finite else "not finite"
        rows.append((name, loss, f"{100 * trial.acc:.1f} %", f"{100 * trial.macro_acc:.1f} %"))
    yield from (f"   {line}" for line in format_table(rows, (1, 2, 3)).splitlines())
    seconds = finding.before.seconds + finding.after.seconds
    images = f"{case.trial.num_images:,} {'validation' if case.held_out == 'val' else 'train'}"
    steps = counted(finding.after.steps, "step")
    yield from wrapped(f"{steps} each, {images} images, {seconds:.1f} s", "   ", "   ")


def _labelled(label: str, text: str) -> list[str]:
    head = f"   {label + ':':<10}"
    return wrapped(text, head, " " * len(head))
