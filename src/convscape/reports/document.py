"""A report as plain values, for programs to act on: see `base.documents.Report`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from convscape.reports.sentences import effect_sentence, interaction_sentence

if TYPE_CHECKING:
    from convscape.reports.comparisons import Effect, Interaction
    from convscape.reports.confirmed import Confirmed
    from convscape.reports.contrasts import Estimate
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
        "interactions": [_interaction(section, each) for each in section.comparisons.interactions],
        "confirmed": _confirmed(section.confirmed),
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
        "estimate": _estimate(estimate),
        "num_pairs": effect.num_pairs,
        "cost_ratios": effect.ratios,
        "sentence": effect_sentence(effect, metric, section.num_images),
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {name: getattr(estimate, name) for name in ("mean", "n", "sd", "half_width", "p")}


def _interaction(section: Section, found: Interaction) -> dict[str, Any]:
    return {
        "key": found.key.name,
        "level": found.level,
        "base": found.base,
        "given": found.given.name,
        "other_level": found.other_level,
        "other_base": found.other_base,
        "effects": list(found.effects),
        "is_clear": found.is_clear,
        "estimate": _estimate(found.estimate),
        "num_fours": found.num_fours,
        "sentence": interaction_sentence(found, section.metric, section.num_images)
        if found.is_clear
        else None,
    }


def _confirmed(found: Confirmed | None) -> dict[str, Any] | None:
    """The winner of a search, by the runs that chose nothing; None if there are none yet."""
    if found is None or found.winner is None or not found.telling:
        return None
    keys, race, first = found.search.keys, found.race, found.arms.index(found.winner)
    told = {name: found.told(name) for result in found.telling for name in result.metrics}
    return {
        "values": dict(zip(keys, found.winner, strict=True)),
        "outcome": race.outcome,
        "seeds": sorted(result.seed for result in found.telling),
        "metrics": {
            name: {"mean": each.mean, "sd": each.sd, "half_width": each.half_width}
            for name, each in told.items()
            if each is not None
        },
        "finalists": [
            {
                "values": dict(zip(keys, arm, strict=True)),
                "num_seeds": found.num_deciding(arm),
                "verdict": "winner" if place == first else race.verdict(place, first),
                "difference": None if place == first else _estimate(race.difference(place, first)),
            }
            for place, arm in enumerate(found.arms)
        ],
    }
