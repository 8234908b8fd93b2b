"""A claim file of conf/claim/: statement, arms, budget."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from convscape.base.errors import ConfigError
from convscape.base.files import read_yaml
from convscape.base.sections import Section
from convscape.base.values import hint
from convscape.config.allowed import error_message
from convscape.config.directory import CONFIG_DIR, choices
from convscape.config.kinds import seed_range
from convscape.config.own_files import refuse_untrusted

Mode = Literal["quick", "full"]
Verdict = Literal["supported", "not supported", "undecided"]
Labels = dict[str, str]  # what identifies a run: its arm, or its cell of the grid
BLACK_GROUND = 0.2  # mean of the border, 0..1, up to which black moving in goes unnoticed


class Statement(Section):
    """`arm` is expected to be `by` lower or higher than `than`, or equal to it within `by`.

    An arm is given by name or by keys of the grid; without `than` it is compared with zero.
    """

    says: str
    metric: str
    arm: str | dict[str, Any]
    than: str | dict[str, Any] | None = None
    expect: Literal["lower", "higher", "equal"]
    by: Annotated[float, Field(gt=0)]


class Budget(Section):
    """What every arm gets in one mode."""

    seeds: Annotated[int, Field(ge=1)]
    overrides: list[str]


class Claim(Section):
    """A question, the networks that answer it, and what the textbook expects."""

    question: str
    claim: str
    needs_black_ground: bool = False
    base: list[str]
    arms: dict[str, list[str]] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    probes: list[dict[str, Any]] = Field(default_factory=list)
    statements: Annotated[list[Statement], Field(min_length=1)]
    quick: Budget
    full: Budget
    quick_seconds: float  # measured on two cores, see the README

    def budget(self, mode: Mode) -> Budget:
        """The budget of that mode."""
        return self.quick if mode == "quick" else self.full

    def all_arms(self) -> Iterator[tuple[Labels, list[str]]]:
        """The labels and the overrides of each arm."""
        for name, overrides in self.arms.items():
            yield {"arm": name}, overrides
        if self.grid:
            for values in itertools.product(*self.grid.values()):
                cell = {key: str(v) for key, v in zip(self.grid, values, strict=True)}
                yield cell, [f"{key}={value}" for key, value in cell.items()]


def names() -> list[str]:
    """Every claim."""
    return list(choices("claim"))


def load(name: str) -> Claim:
    """The claim of that name, or from a user's file.

    Raises:
        ConfigError: if it does not exist, or its file is wrong.
    """
    path = Path(name) if name.endswith(".yaml") else choices("claim").get(name)
    if path is None or not path.is_file():
        raise ConfigError(
            f"there is no claim {name!r}; allowed: list, all, {', '.join(names())}, "
            "or a file <claim>.yaml"
            f"{hint(name, names())}"
        )
    try:
        plain = read_yaml(path) or {}
        if not (name.endswith(".yaml") or path.is_relative_to(CONFIG_DIR)):
            refuse_untrusted(path, plain)
        return Claim.model_validate(plain)
    except ValidationError as error:
        mistakes = [error_message(".".join(map(str, each["loc"])), each) for each in error.errors()]
        raise ConfigError("\n".join(f"{path}: {each}" for each in mistakes)) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


def take_until(given: dict[str, str]) -> tuple[int, int] | None:
    """The least and the most seeds, if the words of a claim say until=verdict.

    - `given`: words by key; those used here are removed.

    Raises:
        ConfigError: if a value is wrong.
    """
    until = given.pop("until", "null")
    if until == "null":
        return None
    if until != "verdict":
        raise ConfigError(f"until={until}: allowed: verdict{hint(until, ['verdict'])}")
    seeds = given.pop("seeds", "3..30")
    try:
        return seed_range(seeds)
    except ValueError as error:
        raise ConfigError(f"seeds={seeds}: {error}") from None
