"""Where the configs are, and Hydra on them. Hydra is imported when it is first used.

A conf/ of the user's own lies over that of the package: what both have is taken from the first.
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
VARIABLE = "CONVSCAPE_CONF"  # of the environment: the folder that --config-dir names


@contextmanager
def composing() -> Iterator[Callable[[list[str]], DictConfig]]:
    """What composes a config from overrides, whatever else uses Hydra in this process."""
    import hydra

    from convscape.config.hydra_insides import composed_once, with_own, without_hydra

    with (
        composed_once(),
        without_hydra(),
        hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"),
    ):
        yield lambda overrides: hydra.compose("train", with_own(overrides))


def own_place() -> Path | None:
    """The folder of the user's own choices: the named one, or else conf/ in the working folder.

    Raises:
        ConfigError: if the one that is named does not exist.
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
    """Whether the user has named the folder, and so trusts it, or only stands beside it."""
    return bool(os.environ.get(VARIABLE))


def choices(group: str) -> dict[str, Path]:
    """The file of each choice of a group (model, data ...), by name."""
    found: dict[str, Path] = {}
    for place in filter(None, (CONFIG_DIR, _own_place_of(group))):
        found |= {file.stem: file for file in (place / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def values_in(file: Path) -> dict[str, Any]:
    """What the file of a choice says; nothing of a wrong one, which Hydra names when it is used."""
    try:
        plain = read_yaml(file)
    except (OSError, ValueError):
        return {}
    return plain if isinstance(plain, dict) else {}


def groups() -> list[str]:
    """Every group, without those of Hydra itself."""
    return sorted(f.name for f in CONFIG_DIR.iterdir() if f.is_dir() and f.name != "hydra")


def groups_with(choice: str) -> list[str]:
    """The groups that have a choice of that name."""
    return [group for group in groups() if choice in choices(group)]


def _own_place_of(group: str) -> Path | None:
    """Nobody's own folder adds to Hydra's groups (hydra_plugins/convscape_conf)."""
    return None if group.partition("/")[0] == "hydra" else own_place()
