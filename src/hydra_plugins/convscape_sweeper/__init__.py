"""Lets Hydra's --multirun go through convscape.sweep, with any of Hydra's launchers."""

import sys
from collections.abc import Mapping
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, open_dict


class ConvscapeSweeper(Sweeper):
    """Plans the grid, launches missing runs, sums up; `params` are a preset's values."""

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self.params = dict(params or {})

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what Hydra passes."""
        self._config, self._loader = config, hydra_context.config_loader
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep that `arguments` describe; exits with its code."""
        from convscape.sweeps.run import run_sweep

        config_name = self._config.hydra.job.config_name

        def compose(overrides: list[str]) -> DictConfig:
            cfg = self._loader.load_configuration(config_name, overrides, RunMode.RUN)
            with open_dict(cfg):
                del cfg["hydra"]
            return cfg

        sys.exit(run_sweep(self._config, self.params, arguments, compose, self._launcher.launch))
