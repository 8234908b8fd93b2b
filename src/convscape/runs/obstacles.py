"""What blocks a run in its folder, when only the user can know whether it is needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from convscape.runs.folder import RunFolder


def in_place_of_files(run: RunFolder) -> str | None:
    """A folder in place of one of the run's files, or the reverse, and the way out."""
    folders = [run.path, run.best_checkpoint.parent, run.epochs_folder]
    files = [run.config_file, run.result_file, run.history_file, run.log_file]
    files += [run.predictions_file, run.best_checkpoint, run.last_checkpoint]
    for path in folders:
        if path.exists() and not path.is_dir():
            return f"{path} is a file where a folder belongs; move it away"
    for path in files:
        if path.is_dir():
            return f"{path} is a folder where a file belongs; move it away"
    return None


def in_sweep(folder: Path, fingerprints: Iterable[str]) -> dict[str, str]:
    """What is in the way of runs of a sweep `folder`, by fingerprint, and the way out."""
    wanted = set(fingerprints)
    found = {}
    for path in sorted(folder.iterdir()):
        digest = path.name.rpartition("-")[2]
        if digest not in wanted:
            continue
        if (obstacle := of_run(RunFolder(path), digest)) is not None:
            found[digest] = obstacle
    return found


def of_run(run: RunFolder, fingerprint: str) -> str | None:
    """What is in the way of one run, and the way out."""
    if (obstacle := in_place_of_files(run)) is not None:
        return obstacle
    result = run.read_result()
    if result is not None and result.fingerprint != fingerprint:
        return (
            f"{run.result_file} belongs to another run, {result.fingerprint}; move {run.path} away"
        )
    return None
