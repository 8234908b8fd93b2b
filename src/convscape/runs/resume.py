"""The run to go on with, from its folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.terminal import say
from convscape.base.values import shortened
from convscape.runs.folder import RunFolder
from convscape.runs.latest import named
from convscape.runs.resolved import ResolvedRun


@contextmanager
def held_to_go_on(folder: RunFolder) -> Iterator[Path]:
    """The folder of a run that goes on, held.

    Raises:
        RunIsBusy: if a living process holds it.
        CannotWrite: if it cannot be written to, before the run has begun anew.
    """
    try:
        with folder.held() as path:
            yield path
    except CannotWrite as error:
        if error.path != folder.path:  # as of the data's cache
            raise
        raise CannotWrite(folder.path, error.error, None) from None


def _forget_servers(stored: dict[str, Any], allow_packages: list[str]) -> None:
    """A folder, which may be a stranger's, does not say to whom the run is told, or as whom."""
    loggers = stored.get("logger")
    for name, key, instead in (("mlflow", "tracking_uri", None), ("wandb", "mode", "offline")):
        section = loggers.get(name) if isinstance(loggers, dict) else None
        if not isinstance(section, dict) or name in allow_packages:
            continue
        value = section.get(key, instead)
        section[key] = instead
        if value != instead:
            say(
                f"logger.{name}.{key}={shortened(str(value), 100)} is the run folder's word, and "
                f"left out; allow_packages=[{name}] takes it",
                file=sys.stderr,
            )


def resumed(composed: dict[str, Any], overrides: list[str]) -> tuple[ResolvedRun, Path]:
    """The run to go on with, as it was typed when it began, and its folder.

    Where its data are now may be said anew; the run folder then keeps that.

    Raises:
        ConfigError: if it is no run, is asked to change, or its data are gone.
    """
    from convscape.config.check import check
    from convscape.runs.data import check_there, take_places, with_places

    kept = r"(resume|allow_packages|data\.root|data\.cache_dir)="
    changes = [o for o in overrides if not re.match(kept, o)]
    if changes:
        raise ConfigError(
            f"resume goes on with that run's own config; leave out {' '.join(changes)}"
        )
    folder = RunFolder(named(composed["resume"]))
    _, places = take_places([o for o in overrides if o.startswith("data.")])
    stored = with_places(folder.read_config(), places)
    # a tracking library may write there: a stranger's run does not say where that is
    stored_place = Path(str(stored.get("output_dir"))).resolve()
    if not folder.path.resolve().is_relative_to(stored_place):
        stored["output_dir"] = composed["output_dir"]
    _forget_servers(stored, composed["allow_packages"])
    # which packages may be imported is never taken from a folder, which may be a stranger's
    config = check(stored | {"allow_packages": composed["allow_packages"]})
    result = folder.read_result()
    if result is None or result.status != "ok":
        check_there(config)
    return ResolvedRun(config, result.overrides if result else []), folder.path
