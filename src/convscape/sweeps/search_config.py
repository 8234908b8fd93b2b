"""The configuration of a search: conf/search/*.yaml, checked. Needs Optuna, but no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import Field, ValidationError

from convscape.base.errors import ConfigError
from convscape.base.sections import Section
from convscape.base.values import hint, typed_value
from convscape.config.allowed import error_message
from convscape.config.kinds import SeedRange, seed_range
from convscape.config.metrics import EPOCH_METRICS, metric
from convscape.config.networks import OwnModelConfig
from convscape.reports.verdicts import Budget
from convscape.training.unread import refuse_unread, refuse_unread_space

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.config.schema import Config

COSTS = ("macs", "num_parameters")
OBJECTIVES = (*EPOCH_METRICS, *COSTS)  # and trainer.monitor


class Choices(Section):
    """A list of values; those Optuna cannot hold, such as a list of channels, become strings."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    @property
    def distribution(self) -> BaseDistribution:
        """The same to Optuna."""
        return CategoricalDistribution(self.choices)


class Range(Section):
    """All numbers from `low` to `high`; integers if both are."""

    low: int | float
    high: int | float
    log: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        """The same to Optuna."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


class ConfirmConfig(Section):
    """How the best trials are confirmed; a user's preset need not mention it."""

    best: Annotated[int, Field(ge=0, le=10)] = 3
    seeds: SeedRange = "4..8"
    margin: Annotated[float, Field(gt=0)] | None = None

    @property
    def budget(self) -> Budget:
        """The least and the most seeds of each trial."""
        return Budget(*seed_range(self.seeds))


class SearchConfig(Section):
    """conf/search/*.yaml, its space flat: key of the config -> values."""

    trials: Annotated[int, Field(ge=1)]
    objectives: Annotated[list[str], Field(min_length=1, max_length=2)]
    storage: str | None
    sampler: Literal["tpe", "random"]
    prune: bool
    sampler_seed: int | None
    confirm: ConfirmConfig = ConfirmConfig()
    space: Annotated[dict[str, Choices | Range], Field(min_length=1)]

    @property
    def prunes(self) -> bool:
        """Whether Optuna can prune: with one objective that changes from epoch to epoch."""
        first, *others = self.objectives
        return self.prune and not others and metric(first).split is not None

    @property
    def confirms(self) -> bool:
        """Whether the best trials are trained again: two objectives have no single winner."""
        first, *others = self.objectives
        return self.confirm.best > 0 and not others and first not in COSTS

    def definition(self) -> Iterator[tuple[str, str]]:
        """What makes it a different search, by key as typed."""
        for key in ("objectives", "sampler", "prune"):
            yield f"search.{key}", typed_value(getattr(self, key))
        for name, values in self.space.items():
            for key, value in values.model_dump().items():
                yield f"search.space.{name}.{key}", typed_value(value)


def checked_search(section: dict[str, Any]) -> SearchConfig:
    """The checked `search` section of a composed config.

    Raises:
        ConfigError: naming the key that is wrong.
    """
    section = {**section, "space": dict(_flat_space(section.get("space") or {}))}
    try:
        search = SearchConfig.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("Choices", "Range"))
        raise ConfigError(error_message(f"search.{key}", first)) from None
    for key, values in search.space.items():
        if isinstance(values, Range) and not values.low < values.high:
            raise ConfigError(f"search.space.{key}: low={values.low} is not below {values.high}")
        if isinstance(values, Range) and values.log and values.low <= 0:
            raise ConfigError(f"search.space.{key}: log=true needs a low above 0")
    if search.confirms and "seed" in search.space:
        raise ConfigError(
            "search.space.seed: the best trials are confirmed on seeds that no trial had; take it "
            "out of the space, or confirm nothing with search.confirm.best=0"
        )
    return search


def objectives_of(search: SearchConfig, config: Config) -> list[Metric]:
    """What a search is for.

    Raises:
        ConfigError: if an objective is not something every trial has.
    """
    known = {name: metric(name) for name in OBJECTIVES} | {
        name: added for name, added in config.added_metrics.items() if added.direction is not None
    }
    if config.monitor is not None:
        known = {config.monitor.name: config.monitor} | known
    for name in search.objectives:
        if name not in known:
            raise ConfigError(
                f"search.objectives={name}: allowed: {', '.join(known)}, or what trainer.monitor "
                f"says{hint(name, known)}"
            )
        if name == "macs" and isinstance(config.model, OwnModelConfig):
            raise ConfigError(
                "search.objectives=macs: they are not known for your own network; "
                "num_parameters are"
            )
    return [known[name] for name in search.objectives]


def refuse_without_effect(search: SearchConfig, config: Config, arguments: list[str]) -> None:
    """Refuse keys that the trials would not read, or would choose themselves.

    Raises:
        ConfigError: naming the key.
    """
    refuse_unread(config)
    refuse_unread_space(config, search.space)
    if config.until is not None:
        raise ConfigError(
            f"until={config.until}: only a sweep reads it; leave it out: search.confirm.seeds says "
            "how many seeds the best trials are trained with"
        )
    typed = {argument.lstrip("+~").partition("=")[0] for argument in arguments}
    if not search.confirms:
        for key in ("best", "seeds", "margin"):
            value = getattr(search.confirm, key)
            if f"search.confirm.{key}" in typed and (key != "best" or value):
                raise ConfigError(f"search.confirm.{key}={value}: {_why_not(search)}")
    for argument in arguments:
        if (key := argument.lstrip("+~").partition("=")[0]) in search.space:
            raise ConfigError(
                f"{argument}: the search chooses its values; leave it out, or take the key out of "
                f"the space with ~search.space.{key}"
            )


def _why_not(search: SearchConfig) -> str:
    if search.confirm.best == 0:
        return "search.confirm.best=0 confirms nothing; leave one of them out"
    if len(search.objectives) > 1:
        return "a search with two objectives has no single winner to confirm; leave it out"
    return f"{search.objectives[0]} is the same with every seed; leave it out"


_OF_VALUES = ("choices", "low", "high", "log")


def _flat_space(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is searched, by key; `optimizer` may have choices as well as keys below it."""
    for name, value in node.items():
        if not isinstance(value, dict):
            yield prefix + name, value
            continue
        own = {key: entry for key, entry in value.items() if key in _OF_VALUES}
        below = {key: entry for key, entry in value.items() if key not in _OF_VALUES}
        if own:
            yield prefix + name, own
        yield from _flat_space(below, f"{prefix}{name}.")
