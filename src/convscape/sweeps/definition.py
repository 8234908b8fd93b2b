"""What a sweep is, kept in its folder, so a name stands for one sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from convscape.base import files
from convscape.base.errors import CannotWrite, ConfigError
from convscape.config.losses import BEFORE, IN_FULL, spelled
from convscape.sweeps.grid import EXECUTION_KEYS, is_execution_key, key_of

NOTE = "sweep.yaml"  # in a sweep's folder


def reserve_name(
    folder: Path, name: str, params: Mapping[str, Any], arguments: list[str], extend: bool
) -> None:
    """Record what the sweep is, or refuse a name that another sweep has.

    Raises:
        ConfigError: saying what differs.
    """
    definition = definition_of(arguments, params)
    file = folder / NOTE
    try:
        lock = files.lock(folder / ".lock", within=folder)
        with lock:  # another one may start at the same moment
            if file.is_file():
                before = _read_definition(file)
                _check_until(name, before.get("until"), definition.get("until"))
                if not extend:
                    check_same("sweep", name, before, definition)
            text = files.as_yaml(definition)
            files.write_atomic(file, text, within=folder)
    except OSError as error:
        raise CannotWrite(folder, error) from None


def _check_until(name: str, before: Any, now: str | None) -> None:
    """Refuse to mix a fixed number of seeds with seeds added until something is clear.

    Raises:
        ConfigError: saying how to continue.
    """
    if before == now:
        return
    if before is not None:
        raise ConfigError(
            f"name={name} is a sweep of until={before}, whose intervals rely on it; "
            f"continue with until={before} and more seeds, as seeds=3..60, or choose another name"
        )
    raise ConfigError(
        f"name={name} is a sweep with a fixed number of seeds; choose another name for "
        f"until={now}, or leave it out"
    )


def definition_of(arguments: Iterable[str], params: Mapping[str, Any]) -> dict[str, str]:
    """What the arguments and a preset's values say about what is trained, by key."""
    typed = {key: str(value) for key, value in params.items()}
    typed |= {key_of(a): a.partition("=")[2] for a in arguments}
    if loss := typed.get("model.loss"):
        typed["model.loss"] = spelled(loss, IN_FULL)
    return {key: value for key, value in typed.items() if not is_execution_key(key)}


def check_same(
    kind: str, name: str, before: Mapping[str, Any], now: Mapping[str, str], can_extend: bool = True
) -> None:
    """Refuse a name that another sweep or search has.

    Raises:
        ConfigError: saying what differs.
    """
    changes = [
        f"{key} was {before.get(key, 'not set')} and is now {now.get(key, 'not set')}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if changes:
        way_out = "choose another name" + ", or add to it with extend=true" * can_extend
        raise ConfigError(
            f"name={name} is in use by another {kind}: {'; '.join(changes)}; {way_out}"
        )


def _read_definition(file: Path) -> dict[str, Any]:
    try:
        definition = files.read_yaml(file)
    except ValueError:
        definition = None
    if not isinstance(definition, dict):
        raise ConfigError(f"{file} is damaged; delete it, and the same command records it again")
    if isinstance(loss := definition.get("model.loss"), str):
        definition["model.loss"] = spelled(loss, BEFORE)
    return definition


def digest_of(arguments: list[str]) -> str:
    text = "\n".join(sorted(a for a in arguments if key_of(a) not in EXECUTION_KEYS))
    return hashlib.sha256(text.encode()).hexdigest()[:8]
