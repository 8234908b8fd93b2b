"""What a page shows of a folder's runs, as plain JSON: runs, configurations, the answer.

One document for two pages: the file that a report writes, and the tab in TensorBoard. Numbers are
rounded to six digits, and a column is a list, so ten thousand runs take two megabytes.
"""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convscape.config import metrics
from convscape.reports.cells import level_text, text_of
from convscape.reports.figures import (
    COST_TITLES,
    configuration_label,
    curves,
    pairs_of_keys,
    short_names,
)
from convscape.reports.sentences import change_in_words, effect_sentence
from convscape.reports.statistics import level_means, pair_means, pareto_front
from convscape.runs.folder import RunFolder
from convscape.runs.progress import Pace

if TYPE_CHECKING:
    import pandas as pd

    from convscape.config.metrics import Metric
    from convscape.reports.results import Reading, SweptKey
    from convscape.reports.section import Section
    from convscape.runs.result import Result

MAX_COMMANDS = 1000  # for configurations; results.csv has all
INTERVALS = (
    "Intervals are only over seeds, on the images that were used here; other images would widen "
    "them. Those in words and of the differences hold jointly in 95 of 100 reports, and p below "
    "0.05 says the same; each of the others holds on its own (95 %, Student's t)."
)
# a run's columns other than its keys and metrics, with their titles
_FACTS = {
    "num_parameters": "parameters",
    "macs": "MACs",
    "seconds/fit": "fit (s)",
    "samples_per_second": "images/s",
    "peak_memory_bytes": "memory (bytes)",
    "best_epoch": "best epoch",
}


def document(
    title: str,
    sections: Sequence[Section],
    reading: Reading,
    beside: Path,
    notes: Sequence[str] = (),
    claim: Mapping[str, Any] | None = None,
    pictures: Sequence[tuple[str, Path]] = (),
) -> dict[str, Any]:
    """Everything that a page needs, as numbers, texts, lists and dicts.

    - `beside`: the folder that paths of runs are written relative to.
    - `claim`: what the page opens with instead of the runs' own question: "question", "says",
      "verdict", "budget", and for each of its "findings" the same and numbers.
    - `pictures`: PNG files with captions, for the top of the page.
    """
    results = {str(path): result for path, result in reading.runs}
    return {
        "title": title,
        "intervals": INTERVALS,
        "notes": list(notes),
        "claim": claim,
        "pictures": [{"caption": words, "source": _inlined(path)} for words, path in pictures],
        "sections": [_section(section, results, beside) for section in sections],
    }


def _section(section: Section, results: dict[str, Result], beside: Path) -> dict[str, Any]:
    table = section.table
    names = short_names(table.by)
    runs = [results[folder] for folder in table.frame["folder"]]
    return {
        "data": table.data,
        "metric": metric_facts(section.metric) if section.metric.name else None,
        "ranking": section.ranking,
        "question": question(section),
        "verdict": verdict(section),
        "sentences": section.sentences,
        "cost": cost(section),
        "keys": [
            {"name": key.name, "title": name, "words": key.words} | _values(key)
            for key, name in zip(table.by, names, strict=True)
        ],
        "metrics": [metric_facts(metrics.metric(name)) for name in section.metric_order()],
        "facts": [
            {"name": name, "title": words, "digits": 1 if name.startswith("seconds/") else None}
            for name, words in _FACTS.items()
        ],
        "runs": _runs(section, runs, beside),
        "configurations": _configurations(section),
        "effects": [_effect(section, effect) for effect in section.comparisons.effects],
        "levels": list(_levels(section)),
        "pairs": list(_pairs(section)),
        "curves": _curves(section),
        "unfinished": section.unfinished(),
        "origins": section.origins(),
        "figures": [f"figures/{path.stem}" for path in section.figures.values()],
    }


def _values(key: SweptKey) -> dict[str, list[str]]:
    """The values of a key, and how they are shown if they have more digits than that."""
    shown = [level_text(level) for level in key.levels]
    levels = {"levels": list(key.levels)}
    return levels if shown == levels["levels"] else levels | {"shown": shown}


def metric_facts(metric: Metric) -> dict[str, Any]:
    return {
        "name": metric.name,
        "title": metric.title,
        "scale": metric.scale,
        "unit": metric.unit,
        "digits": metric.digits,
        "direction": metric.direction,
        "split": metric.split,
    }


# --- the answer in words --------------------------------------------------------------------------


def question(section: Section) -> str:
    """The question that the runs answer."""
    if section.confirmed is not None:
        return f"Which network is the best by {section.metric.name} on {section.table.data}?"
    words = [key.words for key in section.table.by if key.name != "seed"]
    what = section.metric.name or "the result"
    if not words:
        return f"How good is one configuration on {section.table.data}?"
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"What {'does' if len(words) == 1 else 'do'} {listed} change in {what}?"


def verdict(section: Section) -> dict[str, str]:
    """The one sentence that matters most, and its kind: clear, open or none.

    It states the largest difference that can be told from chance.
    """
    if section.confirmed is not None and section.winner:
        kind = "open" if section.confirmed.race.outcome == "open" else "clear"
        return {"kind": kind, "words": " ".join(section.winner)}
    effects = section.comparisons.effects
    clear = [each for each in effects if each.is_clear]
    if clear:
        largest = max(clear, key=lambda each: abs(each.estimate.mean))
        sentence = effect_sentence(largest, section.metric, section.num_images)
        more = len(clear) - 1
        is_ = "is" if more == 1 else "are"
        after = (
            f" {more} of the other {len(effects) - 1} differences {is_} clear too." if more else ""
        )
        return {"kind": "clear", "words": sentence[:1].upper() + sentence[1:] + after}
    compared = [each.estimate.n for each in effects if each.estimate.p is not None]
    if compared:
        none = "the one difference is not" if len(effects) == 1 else "none of the differences is"
        words = f"Nothing can be told from chance: {none} clear over {max(compared)} seeds."
        return {"kind": "open", "words": words}
    return {"kind": "none", "words": section.sentences[0]}


def cost(section: Section) -> dict[str, Any]:
    """How many runs finished, and how long they were trained."""
    frame = section.table.frame
    columns = [name for name in frame if name.startswith("seconds/")]
    seconds = float(np.nansum(frame[columns].to_numpy(float))) if columns else 0.0
    return {
        "runs": len(frame),
        "statuses": {str(k): int(v) for k, v in frame["status"].value_counts().items()},
        "seeds": int(section.num_seeds),
        "seconds": number(seconds),
    }


# --- as a table -----------------------------------------------------------------------------------


def _runs(section: Section, results: Sequence[Result], beside: Path) -> dict[str, Any]:
    frame = section.table.frame
    folders = [Path(os.path.relpath(folder, beside)).as_posix() for folder in frame["folder"]]
    paces = [
        Pace.of(RunFolder(Path(folder)), result)
        for folder, result in zip(frame["folder"], results, strict=True)
    ]
    return {
        "run": frame["run"].tolist(),
        "folder": folders,
        "status": frame["status"].tolist(),
        "reason": [None if text != text else text for text in frame["reason"]],
        "seed": frame["seed"].tolist(),
        "epochs": [pace.epochs for pace in paces],
        "planned": [pace.planned for pace in paces],
        "left": [number(pace.left_s) for pace in paces],
        "checkpoint": [int(result.checkpoint is not None) for result in results],
        "receptive_field": [
            None if r.receptive_field is None else "x".join(map(str, r.receptive_field))
            for r in results
        ],
        "keys": {key.name: _codes(frame[key.name]) for key in section.table.by},
        "numbers": _numbers(frame, [*section.metric_order(), *_FACTS]),
    }


def _configurations(section: Section) -> dict[str, Any]:
    shown, table = section.configurations, section.table
    names = [name for name in section.metric_order() if name in shown]
    widths = {name: shown[f"{name}/half_width"] for name in names if f"{name}/half_width" in shown}
    place = {label: i for i, label in enumerate(table.frame.index)}
    commands = [line for _, line in section.commands()] if len(shown) <= MAX_COMMANDS else []
    fronts = {}
    if section.metric.name in shown:
        values = section.metric.scale * shown[section.metric.name]
        better = values if section.metric.higher_is_better else -values
        for name in COST_TITLES:
            if name in shown and name != section.metric.name and shown[name].notna().any():
                on_front = pareto_front(shown[name], better)
                fronts[name] = [int(i) for i in np.flatnonzero(on_front)]
    return {
        "rows": [[place[label] for label in rows] for rows in shown["rows"]] if len(shown) else [],
        "n": [int(n) for n in shown["n"]],
        "num_runs": [int(n) for n in shown["num_runs"]],
        "label": [configuration_label(table.by, row) for _, row in shown.iterrows()],
        "keys": {key.name: _codes(shown[key.name]) for key in table.by},
        "numbers": _numbers(shown, [*names, *_FACTS]),
        "half_widths": {name: numbers(values) for name, values in widths.items()},
        "commands": commands,
        "fronts": fronts,
    }


def _codes(column: pd.Series) -> list[int]:
    """The index of each value among the levels of its key; -1 for none."""
    return [int(code) for code in column.cat.codes]


def _numbers(frame: pd.DataFrame, names: Iterable[str]) -> dict[str, list[float | None]]:
    found = {name: numbers(frame[name]) for name in names if name in frame}
    return {name: v for name, v in found.items() if any(each is not None for each in v)}


def numbers(values: Iterable[Any]) -> list[float | None]:
    """Numbers as JSON can hold them: six digits; None if missing."""
    return [number(value) for value in values]


def number(value: Any) -> float | None:
    """A number as JSON can hold it: six digits; None if missing, an integer if whole."""
    if value is None or not isinstance(value, (int, float, np.number)):
        return None
    value = float(value)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else float(f"{value:.6g}")


# --- as pictures ----------------------------------------------------------------------------------


def _effect(section: Section, effect: Any) -> dict[str, Any]:
    estimate = effect.estimate
    return {
        "key": effect.key.name,
        "words": change_in_words(effect),
        "level": effect.level,
        "base": effect.base,
        "mean": number(estimate.mean),
        "half_width": number(estimate.half_width),
        "is_clear": bool(effect.is_clear),
        "is_better": bool((estimate.mean > 0) == section.metric.higher_is_better),
        "sentence": effect_sentence(effect, section.metric, section.num_images),
    }


def _levels(section: Section) -> Iterator[dict[str, Any]]:
    """Balanced means of the metric at each key's values."""
    table, metric = section.table, section.metric
    if metric.name not in table.ok:
        return
    for place, key in enumerate(table.by):
        if key.is_continuous or len(key.levels) < 2:
            continue
        means = level_means(table, metric, key)
        yield {
            "key": place,
            "means": numbers(each.mean for each in means),
            "half_widths": numbers(each.half_width for each in means),
        }


def _pairs(section: Section) -> Iterator[dict[str, Any]]:
    """A heat map for each pair of keys; `missing` says why runs are missing from a cell."""
    table, metric = section.table, section.metric
    if metric.name not in table.ok:
        return
    places = {key.name: place for place, key in enumerate(table.by)}
    bad = table.frame[table.frame["status"] != "ok"]
    for key, other in pairs_of_keys(table):
        reasons: dict[tuple[str, str], str] = {}
        columns = [bad[name] for name in (key.name, other.name, "status", "reason")]
        for a, b, status, reason in zip(*columns, strict=True):
            reasons.setdefault((a, b), f"{status}: {text_of(reason)}")
        grid = pair_means(table, metric, key, other)
        yield {
            "keys": [places[key.name], places[other.name]],
            "values": [numbers(row) for row in grid.to_numpy(float)],
            "missing": [[reasons.get((a, b)) for b in other.levels] for a in key.levels],
        }


def _curves(section: Section) -> dict[str, Any] | None:
    found = curves(section.table, section.configurations, section.metric)
    if found is None:
        return None
    metric, lines = found
    shown = [
        {"place": line.place - 1} | {n: numbers(getattr(line, n)) for n in ("mean", "low", "high")}
        for line in lines
    ]
    return {"metric": metric_facts(metric), "lines": shown} if shown else None


def _inlined(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
