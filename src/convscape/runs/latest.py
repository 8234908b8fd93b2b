"""`latest`, wherever a run or a sweep is named: the newest one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError

LATEST = "latest"


def named(
    place: str | Path,
    kind: Literal["runs", "sweeps"] = "runs",
    *,
    key: str = "",
    allowed: str | None = None,
) -> Path:
    """The folder that a user names, with `latest` standing for the newest one in its place.

    `latest` alone means outputs/runs/latest, or for `kind` "sweeps" outputs/sweeps/latest. A folder
    that really has this name is used as it is.

    - `key`, `allowed`: what the place is given for, and what may be given, for the message.

    Raises:
        ConfigError: if it does not exist, with the closest name that does.
    """
    path = Path(place)
    if os.path.lexists(path.expanduser()):
        return path
    if path.name != LATEST:
        example = "<date>-<time>-<run>" if kind == "runs" else "<sweep>"
        allowed = allowed or f"a folder such as outputs/{kind}/{example}, or latest"
        missing = f"{key}={path}: there is no such file" if key else f"there is no {path}"
        raise ConfigError(f"{missing}; allowed: {allowed}{_closest(path, kind)}")
    home = path.parent if path.parent != Path() else Path("outputs", kind)
    runs = {file.parent: file.stat().st_mtime for file in _configs(home)}
    if not runs:
        begin = command_name("train") + (" -m ... name=<sweep>" if home.name == "sweeps" else "")
        raise ConfigError(f"{home} holds no run, so there is no {path}; begin one: {begin}")
    # of two in the same second, the later name, which begins with the time
    newest = max(runs, key=lambda run: (runs[run], run.name))
    return home / newest.relative_to(home).parts[0]


def _closest(path: Path, kind: str) -> str:
    """`; did you mean 'latest'?` or another that `path` may have meant, if one is close."""
    there = {LATEST: str(path.with_name(LATEST))}
    for home in (Path("outputs", kind), path.parent):
        names = sorted(os.listdir(home)) if home.is_dir() else []
        there |= {name: str(home / name) for name in names if not name.startswith(".")}
    if path.name in there:  # only the place is wrong
        return f"; did you mean {there[path.name]!r}?"
    near = get_close_matches(path.name[:200], there, n=1)
    return f"; did you mean {there[near[0]]!r}?" if near else ""


def _configs(home: Path) -> Iterator[Path]:
    """The config file, which every run has from its start, of runs in a folder and its sweeps."""
    for pattern in ("*/config.yaml", "*/*/config.yaml"):
        yield from (file for file in home.glob(pattern) if file.is_file())
