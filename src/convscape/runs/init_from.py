"""The weights that a run starts with: where and what they are. Torch only to read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from convscape.base import files
from convscape.base.errors import ConfigError
from convscape.config.schema import Config, InitFromConfig
from convscape.runs.latest import named
from convscape.runs.result import BEST_CHECKPOINT, RESULT_FILE, Result

if TYPE_CHECKING:
    from convscape.base.weights import Weights

_ALLOWED = "the folder of a run that has trained for an epoch, or a file of weights"


def with_checksum(config: Config) -> Config:
    """The config with the checksum of the weights that its run starts with, if any.

    Raises:
        ConfigError: if they are missing or cannot be read.
    """
    init_from = config.init_from
    if init_from.run is None or init_from.checksum is not None:
        return config
    # a name such as `latest` will mean another run tomorrow
    place = named(init_from.run, key="init_from", allowed=_ALLOWED)
    known = init_from.model_copy(update={"run": str(place)})
    known = known.model_copy(update={"checksum": weights_of(known).checksum})
    return config.model_copy(update={"init_from": known})


def weights_of(init_from: InitFromConfig) -> Weights:
    """The named weights, with the classes that their run recorded.

    Raises:
        ConfigError: if they are missing, cannot be read, or have changed.
    """
    from convscape.base.weights import read_weights

    assert init_from.run is not None
    place = Path(init_from.run).expanduser()
    path = place / BEST_CHECKPOINT if place.is_dir() else place
    try:
        if not path.is_file():
            missing = f"it has no {BEST_CHECKPOINT}" if place.is_dir() else "there is no such file"
            raise ConfigError(missing)
        weights = read_weights(path)
    except ConfigError as error:
        raise ConfigError(
            f"init_from={init_from.run}: {str(error).removeprefix(f'{place} ')}; allowed: the "
            "folder of a run that has trained for an epoch, or a file of weights"
            f"{_near(place)}"
        ) from None
    if place.is_dir() and not weights.classes:
        weights = replace(weights, classes=_classes(place / RESULT_FILE))
    if init_from.checksum not in (None, weights.checksum):
        raise ConfigError(
            f"init_from={init_from.run}: the weights are not those that the run started with: "
            f"then checksum {init_from.checksum}, now {weights.checksum}"
        )
    return weights


def _near(place: Path) -> str:
    """`; did you mean outputs/runs/<run>?`, if a run is above or below a place that is none."""
    folder = place if place.is_dir() else place.parent
    found = [path for path in folder.parents if (path / BEST_CHECKPOINT).is_file()][:1]
    if place.is_dir() and not found:
        for depth in ("*", "*/*", "*/*/*"):
            below = [path for path in place.glob(f"{depth}/{BEST_CHECKPOINT}") if path.is_file()]
            found += [path.parents[1] for path in below]
        found.sort(key=lambda run: (run / BEST_CHECKPOINT).stat().st_mtime, reverse=True)
    elif (folder / BEST_CHECKPOINT).is_file():
        found = [folder]
    return f"; did you mean {str(found[0])!r}?" if found else ""


def _classes(file: Path) -> list[str]:
    try:
        return list(Result.from_json(files.read_bytes(file)).dataset.get("classes", ()))
    except (OSError, ValueError):
        return []
