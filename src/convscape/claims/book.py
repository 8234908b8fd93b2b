"""Claims in words: the overview, one answer, and the book of all answers."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base.distribution import command_name
from convscape.base.files import write_atomic
from convscape.base.terminal import format_table, wrapped
from convscape.base.values import counted
from convscape.claims.claim import load, names
from convscape.config.metrics import metric
from convscape.reports.contrasts import ALONE
from convscape.reports.statistics import CONFIDENCE, estimate
from convscape.sweeps.run import path_of_run

if TYPE_CHECKING:
    from convscape.claims.answer import ClaimResult, Finding, Run
    from convscape.claims.claim import Budget, Claim, Labels, Mode
    from convscape.config.metrics import Metric
    from convscape.runs.result import Result


def table_of(claim: Claim, rows: Sequence[tuple[Run, dict[str, float]]]) -> list[dict[str, Any]]:
    """A row per arm: parameters, MACs, and each metric that a statement is about."""
    names = dict.fromkeys(["test/acc", *(statement.metric for statement in claim.statements)])
    table = []
    for labels, _ in claim.all_arms():
        mine = [numbers for run, numbers in rows if run.labels == labels]
        if not mine:
            continue
        row: dict[str, Any] = {"arm": title_of(labels), "n": len(mine)}
        row |= {cost: int(mine[0][cost]) for cost in ("num_parameters", "macs")}
        for name in names:
            values = [numbers[name] for numbers in mine if name in numbers]
            if values:  # a user's module may not log test/acc
                each = estimate(values)
                row[name] = {"mean": each.mean, "half_width": each.half_width}
        table.append(row)
    return table


def title_of(labels: Labels) -> str:
    if "arm" in labels:
        return labels["arm"]
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in labels.items())


def budget_in_words(claim: Claim, mode: Mode, runs: Sequence[Run]) -> str:
    """What every arm gets, and how long that takes."""
    data, trainer = runs[0].config.data, runs[0].config.trainer
    seeds = len({run.config.seed for run in runs})
    images = "all" if data.train_size is None else f"{data.train_size:,}"
    return (
        f"{len(runs)} runs ({len(runs) // seeds} arms x {counted(seeds, 'seed')}) on {images} "
        f"images of {data.name}, {counted(trainer.max_epochs or 0, 'epoch')} each; "
        f"{duration(claim, mode)} on two cores of an AMD EPYC"
    )


def duration(claim: Claim, mode: Mode) -> str:
    """Measured for the quick mode; for the full one scaled by its images."""
    seconds = claim.quick_seconds * (1 if mode == "quick" else _ratio(claim))
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def _ratio(claim: Claim) -> float:
    """How many times as many images the full mode trains on as the quick one."""

    def images(budget: Budget) -> float:
        given = dict(word.split("=", 1) for word in [*claim.base, *budget.overrides])
        size = given.get("data.train_size", "null")
        per_epoch = 55_000.0 if size == "null" else float(size)
        return per_epoch * float(given["trainer.max_epochs"]) * budget.seeds

    return images(claim.full) / images(claim.quick)


def in_words(answer: ClaimResult) -> list[str]:
    """Lines for the terminal: the arms, the findings and the verdict."""
    lines = [format_table(*table_cells(answer))]
    for found in answer.findings:
        lines += wrapped(f"{found.verdict}: {found.says}: {_amount(found)}")
    lines += [f"unfinished: {name}" for name in answer.unfinished]
    lines.append(f"{answer.claim}: {answer.verdict.upper()}")
    return lines


def table_cells(answer: ClaimResult) -> tuple[list[list[str]], list[int]]:
    """The table of arms as text, header first, and which columns hold numbers."""
    metrics = metrics_of(answer)
    header = ["arm", "parameters", "MACs", *[each.title for each in metrics]]
    rows = [header]
    for arm in answer.arms:
        row = [arm["arm"], f"{arm['num_parameters']:,}", f"{arm['macs']:,}"]
        for each in metrics:
            number = arm.get(each.name, {"mean": float("nan"), "half_width": None})
            text = each.number(number["mean"])
            if number["half_width"] is not None:
                text += f" ± {each.number(number['half_width'])}"
            row.append(text)
        rows.append(row)
    return rows, list(range(1, len(header)))


def metrics_of(answer: ClaimResult) -> list[Metric]:
    """The metrics that the table of arms shows besides costs."""
    return [metric(key) for key in dict.fromkeys(itertools.chain(*answer.arms)) if "/" in key]


def _amount(finding: Finding) -> str:
    measure = metric(finding.metric)
    scale, digits = measure.scale, measure.digits
    unit = " points" if measure.is_share else ""
    text = f"{finding.metric} {scale * finding.effect:+.{digits}f}"
    if finding.low is not None and finding.high is not None:
        text += f" ({scale * finding.low:+.{digits}f} to {scale * finding.high:+.{digits}f})"
    expected = {"lower": "at most -", "higher": "at least +", "equal": "within ±"}[finding.expect]
    look = "" if finding.look == ALONE.words else f", {finding.look}"
    return f"{text}{unit}, n = {finding.n}{look}; expected {expected}{scale * finding.by:g}"


def write_answer(
    answer: ClaimResult,
    claim: Claim,
    done: Sequence[tuple[Run, Result, list[dict[str, Any]]]],
    folder: Path,
) -> None:
    """Write answer.json, the probes' figures, and the report of the runs."""
    write_atomic(folder / "answer.json", json.dumps(asdict(answer), indent=1), within=folder)
    if not done:
        return
    from convscape.reports.page import write_report
    from convscape.trained.probe_figures import CAPTIONS, draw_arms, draw_probe

    arms = draw_arms(answer.arms, metrics_of(answer), folder / "figures", folder)
    pictures = [(CAPTIONS["arms"], arms)]
    for number, probe in enumerate(claim.probes):
        by_arm: dict[str, list[dict[str, Any]]] = {}
        for run, _, answers in done:
            by_arm.setdefault(title_of(run.labels), []).append(answers[number])
        path = draw_probe(probe["name"], by_arm, folder / "figures", folder)
        if path is not None:
            pictures.append((CAPTIONS[probe["name"]], path))
    paths = {path_of_run(run, folder): None for run, _, _ in done}
    write_report([folder], only=list(paths), claim=_first_screen(answer), pictures=pictures)


def _first_screen(answer: ClaimResult) -> dict[str, Any]:
    """What a claim's page opens with, see `board.document`."""
    from convscape.reports.board import metric_facts, number

    findings = [
        {
            **{"says": f.says, "verdict": f.verdict, "expect": f.expect, "words": _amount(f)},
            **{"mean": number(f.effect), "low": number(f.low), "high": number(f.high), "by": f.by},
            "metric": metric_facts(metric(f.metric)),
        }
        for f in answer.findings
    ]
    first = {"question": answer.question, "says": answer.says, "verdict": answer.verdict}
    return first | {"budget": answer.budget, "findings": findings}


def overview() -> str:
    """Every claim with its question and time, as a table."""
    claims = {name: load(name) for name in names()}
    rows = [("claim", "question", "quick", "full")]
    rows += [
        (name, claim.question, duration(claim, "quick"), duration(claim, "full"))
        for name, claim in claims.items()
    ]
    return format_table(rows)


def book(answers: Sequence[ClaimResult], figures: Mapping[str, Sequence[str]]) -> str:
    """All answers as Markdown; `figures` are links to pictures, by claim."""
    if not answers:
        return ""
    environment, modes = answers[0].environment, {answer.mode for answer in answers}
    command = "the commands below"
    if len(modes) == 1:
        command = f"`{command_name('claim')} all mode={answers[0].mode}`"
    lines = [
        "# The claims",
        "",
        f"Measured with {command} on {environment.get('cpu')}, torch "
        f"{environment.get('torch')}. Intervals are "
        f"{100 * CONFIDENCE:.0f} % intervals of Student's t over seeds; those of statements are "
        "wider, so that you can look again with more seeds. A verdict compares the interval "
        "with what was expected beforehand.",
        "",
        "| claim | verdict |",
        "|---|---|",
        *[f"| [{a.claim}](#{a.claim}): {a.says} | {a.verdict} |" for a in answers],
    ]
    for answer in answers:
        (header, *rows), _ = table_cells(answer)
        lines += ["", f"## {answer.claim}", "", f"{answer.question} {answer.says}", ""]
        lines += [f"{answer.budget}: `{answer.command}`", ""]
        lines += [f"- **{f.verdict}**: {f.says}: {_amount(f)}" for f in answer.findings]
        lines += ["", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        for picture in figures.get(answer.claim, ()):
            lines += ["", f"![{answer.claim}]({picture})"]
    return "\n".join([*lines, ""])


def write_book(answers: Sequence[ClaimResult], folder: Path) -> Path:
    """Write `book` of the answers as claims.md next to their folders, linking their figures."""
    figures = {}
    for answer in answers:
        names = ["arms", "shift", "prune", "occlude"]
        if load(answer.claim).grid:  # arms differ in more than one key
            names = ["main_effects"]
        paths = [folder / answer.claim / "figures" / f"{name}.png" for name in names]
        figures[answer.claim] = [p.relative_to(folder).as_posix() for p in paths if p.is_file()]
    path = folder / "claims.md"
    write_atomic(path, book(answers, figures), within=folder)
    return path
