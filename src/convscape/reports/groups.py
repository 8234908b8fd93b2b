"""The runs of one configuration, selected in a folder: what a comparison compares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from convscape.base.errors import ConfigError
from convscape.base.values import hint, typed_value
from convscape.config.metrics import Metric
from convscape.reports.results import Reading, read_runs, tables
from convscape.runs.fingerprint import flat_config, with_later_keys
from convscape.runs.latest import named
from convscape.runs.predictions import Predictions, read_answers
from convscape.runs.result import Result
from convscape.runs.words import command_on

Split = Literal["val", "test"]
COSTS = ("num_parameters", "macs", "samples_per_second", "peak_memory_bytes")
IMAGES = {"val": "validation", "test": "test"}
_CHOICE = re.compile(r"(?P<folder>.*?):(?P<choice>[A-Za-z_][\w.]*=.*)", re.DOTALL)


@dataclass(frozen=True)
class Group:
    """The finished runs of one configuration, by seed.

    - `name`: its folder, and the values that chose among the runs in it.
    - `answers`: on the images of a split.
    """

    name: str
    folders: dict[int, Path]
    results: dict[int, Result]
    answers: dict[int, Predictions]

    @property
    def seeds(self) -> list[int]:
        """In order."""
        return sorted(self.results)

    @property
    def first(self) -> Result:
        """The result with the lowest seed; the others differ only in the seed."""
        return self.results[self.seeds[0]]

    @property
    def config(self) -> dict[str, Any]:
        """What matters to the result, except the seed."""
        return config_of(self.first)

    def numbers(self, metric: Metric) -> dict[int, float]:
        """The metric of each run.

        Raises:
            ConfigError: if a run has no such number.
        """
        found = {}
        for seed, result in self.results.items():
            numbers = numbers_of(result)
            if metric.name not in numbers:
                raise ConfigError(
                    f"--metric {metric.name}: {self.folders[seed]} has no such number; allowed: "
                    f"{', '.join(sorted(numbers))}{hint(metric.name, numbers)}"
                )
            found[seed] = numbers[metric.name]
        return found


def config_of(result: Result) -> dict[str, Any]:
    """Every key that matters to the result, except the seed."""
    return dict(flat_config(with_later_keys(result.config)))


def numbers_of(result: Result) -> dict[str, float]:
    """Everything that is measured of a run: metrics, costs, speed."""
    costs = {name: getattr(result, name) for name in COSTS}
    times = {f"seconds/{phase}": value for phase, value in result.seconds.items()}
    numbers = result.metrics | costs | times
    return {name: float(value) for name, value in numbers.items() if value is not None}


def read_group(typed: str, split: Split = "test") -> Group:
    """The run in a folder, or the seeds of one configuration in the folder of a sweep.

    - `typed`: a folder, or <folder>:<key>=<value>,... if its runs differ in more than the seed.

    Raises:
        ConfigError: if several configurations are left, or a run has no answers image by image.
    """
    folder, choice = parse_choice(typed)
    reading = read_runs([folder])
    reading.runs = [(path, each) for path, each in reading.runs if each.status == "ok"]
    if not reading.runs:
        raise ConfigError(f"{folder} has no finished run; allowed: a folder that has one")
    for key, value in choice.items():
        reading.runs = _chosen(reading, typed, key, value)
    _refuse_several(reading, folder, choice)
    folders = {each.seed: path for path, each in reading.runs}
    results = {each.seed: each for _, each in reading.runs}
    answers = {seed: _answers(path, results[seed], split) for seed, path in folders.items()}
    chosen = ",".join(f"{key}={value}" for key, value in choice.items())
    name = f"{folder}:{chosen}" if choice else str(folder)  # which run `latest` is now
    return Group(name, folders, results, answers)


def parse_choice(typed: str) -> tuple[Path, dict[str, str]]:
    """A folder, and the values that choose among its runs: runs:lr=0.1,hidden=[32,32].

    Raises:
        ConfigError: if a part of the choice is not key=value.
    """
    match = _CHOICE.fullmatch(typed)
    if match is None or Path(typed).exists():
        return named(typed), {}
    parts = re.findall(r"(?:\[[^\]]*\]|\{[^}]*\}|[^,\[{])+", match["choice"])
    for part in parts:
        if "=" not in part:
            raise ConfigError(f"{typed}: {part!r} is not <key>=<value>; a list is written [32,64]")
    pairs = (part.split("=", 1) for part in parts)
    return named(match["folder"] or "."), {key.strip(): value.strip() for key, value in pairs}


def _chosen(reading: Reading, typed: str, key: str, value: str) -> list[tuple[Path, Result]]:
    values = [_values(each) for _, each in reading.runs]
    names = {name for each in values for name in each}
    found = [name for name in names if name == key] or [
        name for name in names if name.rpartition(".")[2] == key
    ]
    if len(found) > 1:  # in_channels of several layers
        found = [n for n in found if len({each.get(n) for each in values}) > 1] or found
    if len(found) != 1:
        differing = {name for name in names if len({each.get(name) for each in values}) > 1}
        listed = ", ".join(sorted(found or differing))
        raise ConfigError(
            f"{typed}: {'more than one key is called' if found else 'no run has a key'} {key!r}; "
            f"allowed: {listed}{hint(key, [*names, *(n.rpartition('.')[2] for n in names)])}"
        )
    (name,) = found
    kept = [
        run
        for run, own in zip(reading.runs, values, strict=True)
        if name in own and _same(own[name], value)
    ]
    if not kept:
        known = sorted({each[name] for each in values if name in each})
        raise ConfigError(f"{typed}: no run with {name}={value} is left; allowed: {_few(known)}")
    return kept


def _values(result: Result) -> dict[str, str]:
    """Every key's value as typed, and the seed."""
    values = {key: typed_value(value) for key, value in config_of(result).items()}
    return values | {"seed": str(result.seed)}


def _same(value: str, typed: str) -> bool:
    try:
        return value == typed.replace(" ", "") or float(value) == float(typed)
    except ValueError:
        return False


def _few(values: Iterable[str]) -> str:
    shown = list(values)
    return ", ".join(shown[:10]) + (f", and {len(shown) - 10} more" if len(shown) > 10 else "")


def _refuse_several(reading: Reading, folder: Path, choice: Mapping[str, str]) -> None:
    """Refuse runs that differ in more than the seed.

    Raises:
        ConfigError: with a choice among them.
    """
    configs = [config_of(each) for _, each in reading.runs]
    if all(config == configs[0] for config in configs):
        return
    found = tables(reading)
    levels = {key.name: key.levels for table in found for key in table.keys}
    if len(found) > 1:
        levels = {"data": tuple(dict.fromkeys(str(config["data"]) for config in configs))} | levels
    levels.pop("seed", None)
    first = {name: typed_value(configs[0].get(name)) for name in levels}
    example = ",".join(f"{key}={value}" for key, value in {**choice, **first}.items())
    differing = "; ".join(f"{name} ({_few(values)})" for name, values in levels.items())
    raise ConfigError(
        f"{folder} holds runs that differ in {differing}; "
        f"choose among them, as in '{folder}:{example}'"
    )


def _answers(folder: Path, result: Result, split: Split) -> Predictions:
    found = read_answers(folder)
    if found is None:
        raise ConfigError(
            f"{folder} has no answers image by image; "
            f"{command_on(folder, 'evaluate', result.config)} writes them"
        )
    if split not in found.splits:
        raise ConfigError(f"{folder} has no answers on {IMAGES[split]} images")
    if result.data_checksum not in (None, found.data_checksum):
        raise ConfigError(f"{folder}: predictions.npz comes from different data than result.json")
    return found.splits[split]
