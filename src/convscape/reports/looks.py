"""A sweep folder's record of the looks at it, and how much of the 5 % each may spend.

Adding seeds until something is clear finds effects too often, even where there are none. So the
first look at all planned runs may spend four fifths of the 5 %, and all others share the rest in a
series whose sum is finite (alpha spending, as Lan and DeMets 1983,
https://doi.org/10.1093/biomet/70.3.659, without a known end). The same question about the same runs
is the same look. A sweep of until=verdict has intervals for any number of looks.

Claims work the same way: each set of arms, with what they are trained on, has its own series.
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
UNFINISHED = ("running", "interrupted")
_UNTIL = "until=verdict"


def look_at(folders: Sequence[Path], asked: Sequence[tuple[RunTable, Metric]]) -> Look:
    """This look at the runs of `folders`, recorded in each; failing to record it is not an error.

    The folder of a single run remembers nothing.
    """
    if not any(_is_question(table, metric) for table, metric in asked):
        return ALONE
    note = _of_tables(asked)
    sweeps = [folder for folder in folders if not RunFolder(folder).result_file.exists()]
    found = [_remembered(folder, note) for folder in sweeps]
    if all(typed_order(folder).get("until") == "verdict" for folder in folders):
        return AT_ANY_TIME
    return min(found, key=lambda look: look.share, default=ALONE)


def watch(folders: Sequence[Path], asked: Sequence[tuple[RunTable, Metric]]) -> Look:
    """The look of someone watching runs come in, which is recorded nowhere.

    What a report has said about exactly these runs may be repeated; all else holds at any time.
    """
    if not any(_is_question(table, metric) for table, metric in asked):
        return ALONE
    digest = _of_tables(asked)["digest"]
    sweeps = [folder for folder in folders if not RunFolder(folder).result_file.exists()]
    for folder in sweeps:
        if digest not in [each["digest"] for each in _read(folder)]:
            return AT_ANY_TIME
    return look_at(folders, asked)


def look_at_claim(
    folder: Path, question: str, found: Sequence[Any], num_runs: int, *, is_complete: bool
) -> Look:
    """This look at the runs of a claim, recorded in its folder.

    - `question`: names the arms, whatever their seeds; looks at other arms do not count.
    - `found`: the values by which its statements are judged.
    """
    note = _note(found, num_runs, is_complete) | {"question": question}
    before = _read(folder, question)
    if before and before[0]["digest"] == _UNTIL:
        return AT_ANY_TIME
    return _remembered(folder, note)


def look_until_settled(folder: Path, question: str) -> Look:
    """The look of a claim that adds seed after seed: all of its looks are one entry.

    It may spend all of the 5 % if it is the first, otherwise what is left for its position.
    """
    note = _stamped(0, is_complete=False) | {"digest": _UNTIL, "question": question}
    look = _remembered(folder, note)
    return AT_ANY_TIME if look.number == 1 else Look(None, look.share)


def _is_question(table: RunTable, metric: Metric) -> bool:
    """Whether its report has a comparison with an interval."""
    ok = table.ok
    if metric.name not in ok:
        return False
    ok = ok[ok[metric.name].notna()]
    keys = [key for key in table.by if not key.is_continuous]
    return ok["seed"].nunique() > 1 and any(ok[key.name].nunique() > 1 for key in keys)


def _of_tables(asked: Sequence[tuple[RunTable, Metric]]) -> dict[str, Any]:
    """The look of a report."""
    what = []
    for table, metric in asked:
        ok = table.ok
        values = ok[metric.name] if metric.name in ok else ok["seed"]
        rows = sorted(zip(ok["run"], map(repr, values.astype(float)), strict=True))
        what.append([table.data, metric.name, [key.name for key in table.by], rows])
    frames = [table.frame for table, _ in asked]
    is_complete = not any(frame["status"].isin(UNFINISHED).any() for frame in frames)
    note = _note(what, sum(len(table.ok) for table, _ in asked), is_complete)
    return note | {"asked": [each[:3] for each in what]}


def _note(what: Sequence[Any], num_runs: int, is_complete: bool) -> dict[str, Any]:
    """A look as recorded: which runs existed, and what was asked."""
    digest = hashlib.sha256(json.dumps(what).encode(errors="replace")).hexdigest()[:16]
    return _stamped(num_runs, is_complete) | {"digest": digest}


def _stamped(num_runs: int, is_complete: bool) -> dict[str, Any]:
    time = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"time": time, "runs": num_runs, "is_complete": is_complete}


def _remembered(folder: Path, note: dict[str, Any]) -> Look:
    """The look of `note` among those at a folder, recorded there if new."""
    before = _read(folder, note.get("question"))
    digests = [each["digest"] for each in before]
    if note["digest"] not in digests:
        before.append(note)
        digests.append(note["digest"])
        with suppress(OSError, ConfigError), files.append(folder / FILE, within=folder) as file:
            file.write(f"{json.dumps(note)}\n".encode(errors="replace"))
    return nth_look([each["is_complete"] for each in before], digests.index(note["digest"]))


def nth_look(are_complete: Sequence[bool], place: int) -> Look:
    """The look at `place` of a series; `are_complete` says which looks found all runs finished."""
    planned = list(are_complete).index(True) if any(are_complete) else len(are_complete)
    if place == planned:
        return Look(place + 1, PLANNED_SHARE)
    number = place + 1 - (planned < place)
    return Look(place + 1, (1 - PLANNED_SHARE) / (number * (number + 1)))


def _read(folder: Path, question: str | None = None) -> list[dict[str, Any]]:
    """All looks at a folder in order; lines that are not ours are ignored.

    - `question`: a claim's question; None for the looks of reports.
    """
    try:
        lines = files.read_bytes(folder / FILE).splitlines()
    except FileNotFoundError:
        return []
    except (OSError, ValueError):  # somebody looked, nobody knows how often
        return [{"digest": "", "is_complete": True}]
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        with suppress(ValueError):
            note = files.plain_json(line)
            if not isinstance(note, dict) or note.get("question") != question:
                continue
            if isinstance(note.get("digest"), str):
                note["is_complete"] = note.get("is_complete") is True
                found.setdefault(note["digest"], note)
    return list(found.values())
