"""Lays the user's own conf/ over the package's, whenever Hydra composes from the package's.

Every program that uses Hydra imports this, so nothing of convscape is imported before it is known
that convscape is asking.
"""

import sys
from pathlib import Path

from hydra._internal.core_plugins import file_config_source  # the class would register once more
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError


class OwnPlace(SearchPathPlugin):
    """Puts the user's folder before the package's; other programs are not affected."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder if the main configs are convscape's."""
        main = next((each for each in search_path.get_path() if each.provider == "main"), None)
        if main is None or "convscape.config.directory" not in sys.modules:
            return
        from convscape.config.directory import CONFIG_DIR, is_named, own_place

        if Path(main.path.removeprefix("file://")) == CONFIG_DIR and (place := own_place()):
            provider = "named" if is_named() else "own"  # only a named folder is trusted
            search_path.prepend(provider, f"{OwnConfigs.scheme()}://{place}", anchor="main")


class OwnConfigs(file_config_source.FileConfigSource):
    """The choices in a user's folder; it cannot replace train.yaml or Hydra's own groups."""

    @staticmethod
    def scheme() -> str:
        """The scheme of a user's folder in Hydra's search path."""
        return "convscape"

    def is_group(self, config_path: str) -> bool:
        """Whether the folder exists."""
        return not _is_hydras(config_path) and super().is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        """Whether the file exists, in an allowed folder."""
        is_choice = "/" in config_path.strip("/") and not _is_hydras(config_path)
        return is_choice and super().is_config(config_path)

    def load_config(self, config_path: str) -> ConfigResult:
        """The config in a file.

        Raises:
            ConfigError: if it cannot be read, says what only a trusted file may say, or says it in
                the wrong place.
        """
        from convscape.base.errors import ConfigError
        from convscape.config.own_files import refuse_misplaced, refuse_untrusted

        file = Path(self.path, self._normalize_file_name(config_path))
        try:
            result = super().load_config(config_path)
            plain = OmegaConf.to_container(result.config, resolve=False)
        except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
            raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
        package = result.header.get("package") or ""
        refuse_untrusted(file, plain, package)
        refuse_misplaced(file, plain, package)
        return result


def _is_hydras(config_path: str) -> bool:
    return Path(config_path.strip("/")).parts[:1] == ("hydra",)
