"""The states of the runs in a sweep's folder, and which are still to do. No torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from convscape.base.errors import ConfigError
from convscape.runs.folder import FAILURES, RunFolder

if TYPE_CHECKING:
    from convscape.runs.result import Result


def is_missing(result: Result | None, retry: bool) -> bool:
    """Whether a run is still to do; one that says "running" may belong to a dead process."""
    if result is None or result.status in ("running", "interrupted"):
        return True
    return retry and result.status in FAILURES


def find_results(folder: Path) -> dict[str, Result]:
    """The result of each run in a sweep folder, by fingerprint."""
    results = (RunFolder(path.parent).read_result() for path in folder.glob("*/result.json"))
    return {result.fingerprint: result for result in results if result is not None}


def settled(folder: Path) -> dict[str, Result]:
    """All results; a run that says "running" but whose process is dead is "interrupted".

    If that happened twice with no checkpoint in between, it "failed": it would happen again.
    """
    states = find_results(folder)
    for path in folder.glob("*/result.json"):
        run = RunFolder(path.parent, within=folder)
        result = run.read_result()
        if result is None or result.status != "running":
            continue
        with suppress(ConfigError, OSError), run.held():
            if run.num_epochs() > result.epochs:
                result.attempts = 0
            result.fail(
                "failed" if result.attempts > 1 else "interrupted",
                ProcessLookupError("its process ended without a message: killed, or out of memory"),
            )
            states[result.fingerprint] = result
            run.write(result)
    return states
