"""Where the configs are, and Hydra set up for them. Hydra is imported when it is first used.

The user's own conf/ lies over the package's: if a file is in both, the user's counts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import distribution
from convscape.base.errors import ConfigError
from convscape.base.files import read_yaml

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_DIR = distribution.folder("conf")
VARIABLE = "CONVSCAPE_CONF"  # environment variable: the folder of --config-dir


@contextmanager
def composing() -> Iterator[Callable[[list[str]], DictConfig]]:
    """A function that composes a config from overrides, whatever else uses Hydra here."""
    import hydra

    from convscape.config.hydra_insides import composed_once, with_own, without_hydra

    with (
        composed_once(),
        without_hydra(),
        hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"),
    ):
        yield lambda overrides: hydra.compose("train", with_own(overrides))


def own_place() -> Path | None:
    """The folder of the user's own choices: the named one, otherwise conf/ in the working folder.

    Raises:
        ConfigError: if the named folder does not exist.
    """
    place = Path(os.environ.get(VARIABLE) or "conf")
    if not place.is_dir():
        if is_named():
            raise ConfigError(
                f"{VARIABLE}={place}: there is no such folder; unset it, or name the folder that "
                "holds your model/, experiment/ ..."
            )
        return None
    is_packaged = CONFIG_DIR.is_dir() and place.samefile(CONFIG_DIR)
    return None if is_packaged else place.absolute()


def is_named() -> bool:
    """Whether the user has named the folder, and so trusts it, or it is merely there."""
    return bool(os.environ.get(VARIABLE))


def choices(group: str) -> dict[str, Path]:
    """The file of each choice of a group (model, data ...), by name."""
    found: dict[str, Path] = {}
    for place in filter(None, (CONFIG_DIR, _own_place_of(group))):
        found |= {file.stem: file for file in (place / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def values_in(file: Path) -> dict[str, Any]:
    """The content of a choice's file; empty if it is wrong, which Hydra reports when it is used."""
    try:
        plain = read_yaml(file)
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def groups() -> list[str]:
    """Every group, without Hydra's own."""
    return sorted(f.name for f in CONFIG_DIR.iterdir() if f.is_dir() and f.name != "hydra")


def groups_with(choice: str) -> list[str]:
    """The groups that have a choice of this name."""
    return [group for group in groups() if choice in choices(group)]


def _own_place_of(group: str) -> Path | None:
    """The user's folder for a group; None for Hydra's groups (hydra_plugins/convscape_conf)."""
    return None if group.partition("/")[0] == "hydra" else own_place()
