"""Where the configs are, and Hydra on them. Hydra is imported when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from convscape.base import distribution

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_DIR = distribution.folder("conf")


@contextmanager
def composing() -> Iterator[Callable[[list[str]], DictConfig]]:
    """What composes a config from overrides, whatever else uses Hydra in this process."""
    import hydra

    from convscape.config.hydra_insides import without_hydra

    with without_hydra(), hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        yield lambda overrides: hydra.compose("train", overrides)
