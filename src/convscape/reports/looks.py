"""What a sweep's folder remembers of the looks at it, and how much of the 5 % each may err.

Whoever adds seeds until something is clear finds it too often, also where there is nothing. So the
first look at all runs that were planned may err in four of five parts of the 5 %, and all others
share the rest in a series whose sum is finite (alpha spending, as Lan and DeMets 1983,
https://doi.org/10.1093/biomet/70.3.659, without a known end). The same question about the same
runs is the same look. A sweep of until=verdict has intervals for any number of looks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import files
from convscape.base.errors import ConfigError
from convscape.reports.contrasts import ALONE, AT_ANY_TIME, Look
from convscape.reports.results import typed_order
from convscape.runs.folder import RunFolder

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.results import RunTable

FILE = "looks.jsonl"
PLANNED_SHARE = 0.8
_UNFINISHED = ("running", "interrupted")


def look_at(folders: Sequence[Path], asked: Sequence[tuple[RunTable, Metric]]) -> Look:
    """This look at the runs of `folders`, which is noted in each; what cannot be noted is no error.

    The folder of a single run remembers nothing.
    """
    if not any(_is_question(table, metric) for table, metric in asked):
        return ALONE
    note = _note(asked)
    sweeps = [folder for folder in folders if not RunFolder(folder).result_file.exists()]
    found = [_remembered(folder, note) for folder in sweeps]
    if all(typed_order(folder).get("until") == "verdict" for folder in folders):
        return AT_ANY_TIME
    return min(found, key=lambda look: look.share, default=ALONE)


def watch(folders: Sequence[Path], asked: Sequence[tuple[RunTable, Metric]]) -> Look:
    """The look of whoever watches runs come in, which is noted nowhere.

    What a report has said of these very runs may be said again; all else holds at any time.
    """
    if not any(_is_question(table, metric) for table, metric in asked):
        return ALONE
    digest = _note(asked)["digest"]
    sweeps = [folder for folder in folders if not RunFolder(folder).result_file.exists()]
    for folder in sweeps:
        if digest not in [each["digest"] for each in _read(folder)]:
            return AT_ANY_TIME
    return look_at(folders, asked)


def _is_question(table: RunTable, metric: Metric) -> bool:
    """Whether a report of it has a comparison with an interval."""
    ok = table.ok
    if metric.name not in ok:
        return False
    ok = ok[ok[metric.name].notna()]
    keys = [key for key in table.by if not key.is_continuous]
    return ok["seed"].nunique() > 1 and any(ok[key.name].nunique() > 1 for key in keys)


def _note(asked: Sequence[tuple[RunTable, Metric]]) -> dict[str, Any]:
    """A look as it is kept: what was there, and what was asked."""
    what = []
    for table, metric in asked:
        ok = table.ok
        values = ok[metric.name] if metric.name in ok else ok["seed"]
        rows = sorted(zip(ok["run"], map(repr, values.astype(float)), strict=True))
        what.append([table.data, metric.name, [key.name for key in table.by], rows])
    frames = [table.frame for table, _ in asked]
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "runs": sum(len(table.ok) for table, _ in asked),
        "asked": [each[:3] for each in what],
        "is_complete": not any(frame["status"].isin(_UNFINISHED).any() for frame in frames),
        "digest": hashlib.sha256(json.dumps(what).encode(errors="replace")).hexdigest()[:16],
    }


def _remembered(folder: Path, note: dict[str, Any]) -> Look:
    """The look of `note` among those at a folder, where it is noted if it is new."""
    before = _read(folder)
    digests = [each["digest"] for each in before]
    if note["digest"] not in digests:
        before.append(note)
        digests.append(note["digest"])
        with suppress(OSError, ConfigError), files.append(folder / FILE, within=folder) as file:
            file.write(f"{json.dumps(note)}\n".encode(errors="replace"))
    return nth_look([each["is_complete"] for each in before], digests.index(note["digest"]))


def nth_look(are_complete: Sequence[bool], place: int) -> Look:
    """The look at `place` of a series, each of which found every run at its end or did not."""
    planned = list(are_complete).index(True) if any(are_complete) else len(are_complete)
    if place == planned:
        return Look(place + 1, PLANNED_SHARE)
    number = place + 1 - (planned < place)
    return Look(place + 1, (1 - PLANNED_SHARE) / (number * (number + 1)))


def _read(folder: Path) -> list[dict[str, Any]]:
    """All looks at a folder in their order; lines that are none of ours count as nothing."""
    try:
        lines = files.read_bytes(folder / FILE).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):  # somebody looked, but who knows how often
        return [{"digest": "", "is_complete": True}]
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        with suppress(ValueError):
            note = files.plain_json(line)
            if isinstance(note, dict) and isinstance(note.get("digest"), str):
                note["is_complete"] = note.get("is_complete") is True
                found.setdefault(note["digest"], note)
    return list(found.values())
