"""Configs that Hydra composes once per choice of groups, so that ten thousand runs take seconds."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from convscape.base.errors import ConfigError
from convscape.config.hydra_insides import parse_overrides
from convscape.config.sentences import explain

Compose = Callable[[list[str]], DictConfig]


class Composer:
    """Turns the overrides of a run into its config, with one Hydra composition per group choice.

    If a section of two runs is equal, they share one dict, which nobody may change.
    """

    def __init__(self, compose: Compose) -> None:
        self._compose = compose
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._values: dict[str, _Value | None] = {}

    def config(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The composed and resolved config, as plain values."""
        values = [self._value(o) for o in overrides]
        choices = tuple(o for o, value in zip(overrides, values, strict=True) if value is None)
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
        return base.with_values([value for value in values if value is not None])

    def _value(self, override: str) -> _Value | None:
        """The value that it sets; None if it chooses a group, or adds or removes a key."""
        if override not in self._values:
            value = None
            if _sets_plain_value(override):
                (parsed,) = parse_overrides([override])
                value = _Value(override, parsed.key_or_group.split("."), parsed.value())
            self._values[override] = value
        return self._values[override]


def _sets_plain_value(override: str) -> bool:
    """Whether it sets a value (model.stride=2), and does not choose, add or remove."""
    key = override.partition("=")[0]
    return (
        ("." in key or key == "seed")
        and key.replace(".", "").isidentifier()
        and "$" not in override
    )


class _Value(NamedTuple):
    """What an argument of the command line sets, and where."""

    word: str
    path: list[str]
    value: Any


class _Base:
    """A composed config in which values can be set without Hydra.

    References to other keys (min_lr: ${optimizer.lr}) follow the values that are set;
    `is_simple` is false if an interpolation does more than that.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self._config: dict[str, Any] = {
            str(key): value for key, value in _plain(cfg, resolve=True).items()
        }
        self._pickled = {key: pickle.dumps(value) for key, value in self._config.items()}
        self._sections: dict[tuple[str, ...], Any] = {}  # by name and text
        # of a section with references: where they are, and their text
        self._references: dict[str, list[tuple[list[str], list[str]]]] = {}
        self.is_simple = True
        for path, text in _interpolations(_plain(cfg, resolve=False)):
            match = re.fullmatch(r"\$\{([A-Za-z_][\w.]*)\}", text)
            if match and _IN_LIST not in path:
                self._references.setdefault(path[0], []).append((path, match[1].split(".")))
            elif not re.fullmatch(r"\$\{oc\.env:[^${}]*\}", text):
                self.is_simple = False
        for name, references in self._references.items():
            others = {target[0] for _, target in references} - {name}
            self.is_simple &= others.isdisjoint(self._references)

    def with_values(self, values: Iterable[_Value]) -> dict[str, Any]:
        """The config with `values` set at their paths."""
        own: dict[str, list[_Value]] = {}
        for value in values:
            own.setdefault(value.path[0], []).append(value)
        config = self._config.copy()
        # sections that refer to others are set last
        for name in sorted({*own, *self._references}, key=self._references.__contains__):
            references = self._references.get(name, [])
            read = {name, *(target[0] for _, target in references)}
            key = (name, *(v.word for section in sorted(read) for v in own.get(section, ())))
            if key not in self._sections:
                if len(self._sections) >= _MAX_SECTIONS:
                    self._sections.clear()
                config[name] = pickle.loads(self._pickled[name])  # fast to copy
                _set(config, own.get(name, []), references)
                self._sections[key] = config[name]
            config[name] = self._sections[key]
        return config


_MAX_SECTIONS = 10_000  # of up to 2 kB each


def _set(
    config: dict[str, Any], values: list[_Value], references: list[tuple[list[str], list[str]]]
) -> None:
    for _, path, value in values:
        section = _parent(config, path)
        section[path[-1]] = _merged(section.get(path[-1]), value)
    own = [value.path for value in values]
    for path, target in references:
        if path not in own:
            _parent(config, path)[path[-1]] = _parent(config, target)[target[-1]]


def _plain(cfg: DictConfig, resolve: bool) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(cfg, resolve=resolve)
    return plain


_IN_LIST = ""  # ends a path: no key has this name


def _interpolations(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[list[str], str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _interpolations(value, (*path, str(key)))
    elif isinstance(node, list):
        for value in node:
            yield from _interpolations(value, (*path, _IN_LIST))
    elif isinstance(node, str) and "${" in node:
        yield list(path), node


def _merged(before: Any, value: Any) -> Any:
    """Set a value as Hydra does: a mapping changes only the keys that it names."""
    if not (isinstance(before, dict) and isinstance(value, dict)):
        return copy.deepcopy(value)
    return before | {key: _merged(before.get(key), entry) for key, entry in value.items()}


def _parent(config: dict[str, Any], path: list[str]) -> dict[str, Any]:
    for part in path[:-1]:
        config = config[part]
    return config
