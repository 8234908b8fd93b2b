"""The output of `report --json`, as types; see `documents`."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict


class Estimate(TypedDict):
    """A mean of n values, the half-width of its interval, and p for "it is 0"."""

    mean: float | None
    n: int
    sd: float | None
    half_width: float | None
    p: float | None


class Mean(TypedDict):
    """A metric over the runs of one configuration."""

    mean: float | None
    sd: float | None
    half_width: float | None


class Configuration(TypedDict):
    """A row of the report's table, best first."""

    place: int
    values: dict[str, str | None]
    num_ok: int
    num_runs: int
    seeds: list[int]
    metrics: dict[str, Mean]
    num_parameters: float | None
    macs: float | None
    fit_seconds: float | None
    samples_per_second: float | None
    command: str


class Effect(TypedDict):
    """The effect of one value of a key compared with the key's first value."""

    key: str
    level: str
    base: str
    verdict: Literal["better", "worse", "unclear", "unknown"]
    estimate: Estimate
    num_pairs: int
    cost_ratios: dict[str, float]
    sentence: str


class Interaction(TypedDict):
    """An effect that differs when `given` has `other_level`; `effects` holds both.

    There is a `sentence` if the difference is more than chance.
    """

    key: str
    level: str
    base: str
    given: str
    other_level: str
    other_base: str
    effects: tuple[float, float]
    is_clear: bool
    estimate: Estimate
    num_fours: int
    sentence: str | None


class Finalist(TypedDict):
    """One of the best trials; `difference` is the trial minus the winner."""

    values: dict[str, str]
    num_seeds: int
    verdict: Literal["winner", "better", "worse", "equal", "open"]
    difference: Estimate | None


class Confirmed(TypedDict):
    """The winner of a search; `metrics` come from new `seeds`, which no trial or choice used.

    `outcome`: alone if no other was confirmed, clear if it is better than all others, tied if it
    is within the margin, otherwise open.
    """

    values: dict[str, str]
    outcome: Literal["alone", "clear", "tied", "open"]
    seeds: list[int]
    metrics: dict[str, Mean]
    finalists: list[Finalist]


class Unfinished(TypedDict):
    """Runs that did not finish, with the reason that they share."""

    status: str
    reason: str | None
    runs: list[str]


class DataSection(TypedDict):
    """The runs on one data set."""

    data: str
    metric: str | None
    direction: Literal["max", "min"] | None
    num_runs: int
    num_ok: int
    num_images: int | None
    configurations: list[Configuration]
    effects: list[Effect]
    interactions: list[Interaction]
    confirmed: Confirmed | None
    sentences: list[str]
    unfinished: list[Unfinished]


class Report(TypedDict):
    """`convscape report`."""

    schema: str
    folder: str
    files: list[str]
    sections: list[DataSection]
    notes: list[str]
