"""Configs composed by Hydra once per choice of groups, so that ten thousand runs take seconds."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from convscape.base.errors import ConfigError
from convscape.config.hydra_insides import parse_overrides
from convscape.config.sentences import explain

Compose = Callable[[list[str]], DictConfig]


class Composer:
    """Turns the overrides of a run into its config, with one Hydra composition per group choice."""

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._values: dict[str, tuple[list[str], Any]] = {}

    def config(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The composed and resolved config, as plain values."""
        choices = tuple(o for o in overrides if not _sets_plain_value(o))
        if choices not in self._bases:
            try:
                self._compose(list(overrides))  # Hydra checks that every key exists
            except HydraException as error:
                raise ConfigError(explain(error, overrides)) from None
            self._bases[choices] = _Base(self._compose(list(choices)))
        base = self._bases[choices]
        if not base.is_simple:
            resolved: Any = OmegaConf.to_container(self._compose(list(overrides)), resolve=True)
            return resolved
        values = [self._parsed(o) for o in overrides if o not in choices]
        return base.with_values(values)

    def _parsed(self, override: str) -> tuple[list[str], Any]:
        if override not in self._values:
            (parsed,) = parse_overrides([override])
            self._values[override] = parsed.key_or_group.split("."), parsed.value()
        return self._values[override]


def _sets_plain_value(override: str) -> bool:
    """Whether it sets a value (model.stride=2), and does not choose a group or add or remove."""
    key = override.partition("=")[0]
    return (
        ("." in key or key == "seed")
        and key.replace(".", "").isidentifier()
        and "$" not in override
    )


class _Base:
    """A composed config in which values can be set without Hydra.

    References to other keys (min_lr: ${optimizer.lr}) follow what is set;
    `is_simple` is false where an interpolation says more than that.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._config = pickle.dumps(OmegaConf.to_container(cfg, resolve=True))  # quick to copy
        self._references: list[tuple[list[str], list[str]]] = []
        self.is_simple = True
        for path, text in _interpolations(OmegaConf.to_container(cfg, resolve=False)):
            if match := re.fullmatch(r"\$\{([\w.]+)\}", text):
                self._references.append((path, match[1].split(".")))
            elif not re.fullmatch(r"\$\{oc\.env:[^${}]*\}", text):
                self.is_simple = False

    def with_values(self, values: Iterable[tuple[list[str], Any]]) -> dict[str, Any]:
        """A copy of the config with `values` set at their paths."""
        config: dict[str, Any] = pickle.loads(self._config)
        own = []
        for path, value in values:
            section = _parent(config, path)
            section[path[-1]] = _merged(section.get(path[-1]), value)
            own.append(path)
        for path, target in self._references:
            if path not in own:
                _parent(config, path)[path[-1]] = _parent(config, target)[target[-1]]
        return config


def _interpolations(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _interpolations(value, (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from _interpolations(value, path)
    elif isinstance(node, str) and "${" in node:
        yield list(path), node


def _merged(before: Any, value: Any) -> Any:
    """As Hydra sets a value: a mapping changes those keys that it names."""
    if not (isinstance(before, dict) and isinstance(value, dict)):
        return copy.deepcopy(value)
    return before | {key: _merged(before.get(key), entry) for key, entry in value.items()}


def _parent(config: dict[str, Any], path: list[str]) -> dict[str, Any]:
    for part in path[:-1]:
        config = config[part]
    return config
