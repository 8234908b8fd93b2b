"""A report as plain values, for programs that decide by it: see `base.documents.Report`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convscape.reports.sentences import effect_sentence

if TYPE_CHECKING:
    from convscape.reports.comparisons import Effect
    from convscape.reports.page import Report
    from convscape.reports.section import Section


def as_document(report: Report) -> dict[str, Any]:
    """Everything that the page says, and where it is."""
    figures = [path for section in report.sections for path in section.figures.values()]
    files = [report.folder / "report.html", report.folder / "results.csv", *figures]
    return {
        "folder": str(report.folder),
        "files": [str(path) for path in files],
        "sections": [_section(section) for section in report.sections],
        "notes": report.notes,
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "data": section.table.data,
        "metric": section.metric.name or None,
        "direction": section.metric.direction,
        "num_runs": len(section.table.frame),
        "num_ok": len(section.table.ok),
        "num_images": section.num_images,
        "configurations": list(_configurations(section)),
        "effects": [_effect(section, effect) for effect in section.comparisons.effects],
        "sentences": section.sentences,
        "unfinished": section.unfinished(),
    }


def _configurations(section: Section) -> Iterator[dict[str, Any]]:
    commands = dict(section.commands())
    for number, row in section.configurations.iterrows():
        runs = section.table.frame.loc[list(row["rows"])]
        metrics = [name for name in section.table.metrics if name in row]
        yield {
            "place": int(number),
            "values": {key.name: _text(row[key.name]) for key in section.table.by},
            "num_ok": int(row["n"]),
            "num_runs": int(row["num_runs"]),
            "seeds": sorted(int(seed) for seed in runs["seed"].unique()),
            "metrics": {
                name: {
                    "mean": float(row[name]),
                    "sd": float(row[f"{name}/sd"]),
                    "half_width": float(row[f"{name}/half_width"]),
                }
                for name in metrics
            },
            "num_parameters": float(row["num_parameters"]),
            "macs": float(row["macs"]),
            "fit_seconds": float(row["seconds/fit"]),
            "samples_per_second": float(row["samples_per_second"]),
            "command": commands[number],
        }


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)


def _effect(section: Section, effect: Effect) -> dict[str, Any]:
    estimate, metric = effect.estimate, section.metric
    if estimate.p is None:
        verdict = "unknown"
    elif not effect.is_clear:
        verdict = "unclear"
    else:
        verdict = "better" if (estimate.mean > 0) == metric.higher_is_better else "worse"
    return {
        "key": effect.key.name,
        "level": effect.level,
        "base": effect.base,
        "verdict": verdict,
        "estimate": {
            name: getattr(estimate, name) for name in ("mean", "n", "sd", "half_width", "p")
        },
        "num_pairs": effect.num_pairs,
        "cost_ratios": effect.ratios,
        "sentence": effect_sentence(effect, metric, section.num_images),
    }
