"""The parts of Hydra that we use but are not public: its parser of overrides, options and state.

pyproject.toml bounds hydra-core for this; tests/test_insides.py says which part has changed.
"""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import JobRuntime
from hydra.initialize import get_gh_backup, restore_gh_from_backup
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

__all__ = ["Override", "RangeSweep", "composed_once", "options", "parse_overrides", "without_hydra"]


def options() -> list[str]:
    """The options that Hydra's command line takes: --multirun, -m, --cfg ..."""
    return list(get_args_parser()._option_string_actions)


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """The overrides of a command line, as Hydra reads them.

    Raises:
        OverrideParseException: Hydra's, if it cannot read them.
    """
    return _parser().parse_overrides(list(words))


@cache
def _parser() -> OverridesParser:
    """One for all: it inspects the signatures of its functions each time it is created."""
    return OverridesParser.create()


def with_own(words: Sequence[str]) -> list[str]:
    """Overrides of a command line; naming a part also chooses the section that it needs.

    optimizer._target_=torch.optim.NAdam implies optimizer=own, which has no other optimiser's keys.
    With init_from.layers=[...], init_from=<run> is the key `run` of the same section.
    """
    if any(re.match(r"\+*init_from\.", word) for word in words):
        words = [re.sub(r"^(\+*)init_from=", r"\1init_from.run=", word) for word in words]
    named = [m[1] for word in words if (m := re.match(rf"\+*({'|'.join(_OWN)})\._target_=", word))]
    chosen = {word.lstrip("+").partition("=")[0] for word in words}
    return [*(f"{group}=own" for group in dict.fromkeys(named) if group not in chosen), *words]


_OWN = ("data", "model", "optimizer", "scheduler")


@contextmanager
def without_hydra() -> Iterator[None]:
    """Inside, Hydra is not initialised and can be; afterwards its state is as before."""
    before = get_gh_backup()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        restore_gh_from_backup(before)


@contextmanager
def composed_once() -> Iterator[None]:
    """If Hydra is initialised inside, it merges the files of a choice of groups only once."""
    module: Any = hydra._internal.hydra
    before, module.ConfigLoaderImpl = module.ConfigLoaderImpl, _Loader
    try:
        yield
    finally:
        module.ConfigLoaderImpl = before


class _Loader(ConfigLoaderImpl):
    """Hydra's loader, but it reads and merges the files of a choice of groups once per process.

    That takes nearly all of the 0.1 s of a composition, and a command composes several times: for
    its mode, for the plan, for each run. Values are set in a copy, as Hydra does after merging.
    """

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        parsed = parse_overrides(overrides)
        stamps = self._stamps()
        if stamps is None or any(o.get_key_element().startswith(_EARLY) for o in parsed):
            return super()._load_configuration_impl(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        fixed = [o for o in parsed if not o.is_sweep_override()]
        values = [o for o in fixed if not self._chooses(o)]
        choices = tuple(str(o.input_line) for o in fixed if self._chooses(o))
        key = config_name, choices, run_mode, JobRuntime.instance().get("name"), stamps
        if key not in _composed:
            base = super()._load_configuration_impl(
                config_name, list(choices), run_mode, from_shell, validate_sweep_overrides=False
            )
            if len(_composed) >= _MAX_COMPOSED:
                _composed.clear()
            _composed[key] = _pickled(base)
        kept = _composed[key]
        if kept is None:
            return super()._load_configuration_impl(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        cfg: DictConfig = pickle.loads(kept)
        self._apply_overrides_to_config(values, cfg)
        _tell(cfg, parsed)
        return cfg

    def _chooses(self, override: Override) -> bool:
        """Whether it chooses a file instead of setting a value: Hydra's own rule."""
        return self.repository.group_exists(override.key_or_group) and not isinstance(
            override.value(), dict
        )

    def _stamps(self) -> tuple[Any, ...] | None:
        """The state of the files, by their names, times and sizes; None if unknown."""
        stamps: list[Any] = [hydra.version.getbase()]
        for source in self.get_sources():
            stamps.append((source.scheme(), source.path, source.provider))
            if source.scheme() in ("pkg", "structured"):
                continue
            try:
                for entry in _entries(source.path):
                    if len(stamps) > _MAX_FILES or entry.is_symlink():
                        return None
                    state = entry.stat()
                    stamps.append((entry.path, state.st_mtime_ns, state.st_ctime_ns, state.st_size))
            except OSError:  # just removed, or not readable; Hydra may not need it
                return None
        return tuple(stamps)


_composed: dict[Any, bytes | None] = {}
_MAX_COMPOSED = 200  # of 20 kB each
_MAX_FILES = 1000  # files to watch; the package has 80
# changes how Hydra composes, or is set by Hydra itself
_EARLY = ("hydra.searchpath", "hydra.runtime", "hydra.overrides")


def _pickled(cfg: DictConfig) -> bytes | None:
    """The config as bytes, fast to copy; None if it has a class that its module no longer knows.

    Hydra imports its plug-ins twice; then a launcher's config has the class of the first import.
    """
    try:
        return pickle.dumps(cfg)
    except pickle.PicklingError:
        return None


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder."""
    if not os.path.isdir(folder):
        return
    with os.scandir(folder) as found:
        for entry in found:
            yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _entries(entry.path)


def _tell(cfg: DictConfig, overrides: Sequence[Override]) -> None:
    """Let a config know what it was composed for, as Hydra does."""
    words: dict[bool, list[str]] = {True: [], False: []}
    for override in overrides:
        words[override.is_hydra_override()].append(str(override.input_line))
    cfg.hydra.overrides.hydra, cfg.hydra.overrides.task = words[True], words[False]
    with open_dict(cfg.hydra):
        for name in cfg.hydra.job.env_copy:
            cfg.hydra.job.env_set[name] = os.environ[name]
    cfg.hydra.runtime.cwd = os.getcwd()
    rules = cfg.hydra.job.config.override_dirname
    cfg.hydra.job.override_dirname = get_overrides_dirname(
        overrides=[o for o in overrides if not o.is_hydra_override()],
        kv_sep=rules.kv_sep,
        item_sep=rules.item_sep,
        exclude_keys=rules.exclude_keys,
    )
