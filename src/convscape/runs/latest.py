"""`latest`, wherever a run or a sweep is named: the newest one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError

LATEST = "latest"


def named(place: str | Path, kind: Literal["runs", "sweeps"] = "runs") -> Path:
    """The folder that a user names, with `latest` standing for the newest one in its place.

    `latest` alone means outputs/runs/latest, or for `kind` "sweeps" outputs/sweeps/latest. A folder
    that really has this name is used as it is.

    Raises:
        ConfigError: if there is nothing yet.
    """
    path = Path(place)
    if path.name != LATEST or os.path.lexists(path):
        return path
    home = path.parent if path.parent != Path() else Path("outputs", kind)
    runs = {file.parent: file.stat().st_mtime for file in _configs(home)}
    if not runs:
        begin = command_name("train") + (" -m ... name=<sweep>" if home.name == "sweeps" else "")
        raise ConfigError(f"{home} holds no run, so there is no {path}; begin one: {begin}")
    # of two in the same second, the later name, which begins with the time
    newest = max(runs, key=lambda run: (runs[run], run.name))
    return home / newest.relative_to(home).parts[0]


def _configs(home: Path) -> Iterator[Path]:
    """The config file, which every run has from its start, of runs in a folder and its sweeps."""
    for pattern in ("*/config.yaml", "*/*/config.yaml"):
        yield from (file for file in home.glob(pattern) if file.is_file())
