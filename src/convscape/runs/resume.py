"""The run to go on with, from its folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base.errors import ConfigError

if TYPE_CHECKING:
    from convscape.config.schema import Config


def resumed(composed: dict[str, Any], overrides: list[str]) -> tuple[Config, Path, list[str]]:
    """The config and folder of the run to go on with, and what was typed when it began.

    Where its data are now may be said anew; the run folder then keeps that.

    Raises:
        ConfigError: if it is no run, is asked to change, or its data are gone.
    """
    from convscape.config.check import check
    from convscape.runs.data import check_there, take_places, with_places
    from convscape.runs.folder import RunFolder

    kept = r"(resume|allow_packages|data\.root|data\.cache_dir)="
    changes = [o for o in overrides if not re.match(kept, o)]
    if changes:
        raise ConfigError(
            f"resume goes on with that run's own config; leave out {' '.join(changes)}"
        )
    folder = RunFolder(Path(composed["resume"]))
    _, places = take_places([o for o in overrides if o.startswith("data.")])
    stored = with_places(folder.read_config(), places)
    # a tracking library may write there: a stranger's run does not say where that is
    stored_place = Path(str(stored.get("output_dir"))).resolve()
    if not folder.path.resolve().is_relative_to(stored_place):
        stored["output_dir"] = composed["output_dir"]
    # which packages may be imported is never taken from a folder, which may be a stranger's
    config = check(stored | {"allow_packages": composed["allow_packages"]})
    result = folder.read_result()
    if result is None or result.status != "ok":
        check_there(config)
    return config, folder.path, result.overrides if result else []
