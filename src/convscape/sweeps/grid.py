"""The grid of a sweep, planned from geometry alone."""

from __future__ import annotations

import itertools
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError
from convscape.base.shared import once_for_each
from convscape.base.terminal import format_table, wrapped
from convscape.config.check import Known, check
from convscape.config.compose import Composer
from convscape.config.hydra_insides import Override, RangeSweep, parse_overrides, with_own
from convscape.config.kinds import seed_range
from convscape.config.networks import OwnModelConfig
from convscape.config.schema import Config
from convscape.config.typed import refuse_misread, refused_in_grid
from convscape.geometry.plan import Plan
from convscape.geometry.window import InfeasibleGeometry, format_size
from convscape.runs.data import check_splits
from convscape.runs.progress import work
from convscape.runs.resolved import ResolvedRun
from convscape.training.unread import UnreadInGrid

if TYPE_CHECKING:
    from convscape.base.sections import Section
    from convscape.config.compose import Compose
    from convscape.training.measure import Size


# What controls a sweep without saying what is in it.
EXECUTION_KEYS = (
    "retry", "fail_fast", "extend", "output_dir", "allow_packages", "trainer.progress",
    "trainer.threads", "trainer.device", "data.root", "data.cache_dir", "data.download",
    "logger", "margin", "seeds",
)  # fmt: skip
UNTIL_KEYS = ("until", "margin", "seeds")  # how long until=verdict continues
MAX_RUNS = 100_000  # in a grid, which is planned before the first run


@dataclass(frozen=True)
class PlannedRun:
    """One cell and seed of the grid; `reason` says why it cannot exist.

    `plan` is None for an impossible network, and for one named by `_target_`, which only has its
    `size`. `work`: see `runs.progress.work`.
    """

    overrides: tuple[str, ...]
    name: str
    fingerprint: str
    plan: Plan | None = None
    reason: str | None = None
    size: Size | None = None
    work: float | None = None


@dataclass
class SweepPlan:
    """All runs of a sweep; `duplicates` counts those left out because they equal another.

    - `keys`: those with several values.
    - `data_configs`, `part_configs`: one for each data set, and for each choice of named parts.
    """

    runs: list[PlannedRun]
    keys: list[str]
    data_configs: dict[str, Config] = field(default_factory=dict)
    part_configs: dict[Any, Config] = field(default_factory=dict)
    infeasible_configs: dict[str, Config] = field(default_factory=dict)
    duplicates: int = 0

    @property
    def feasible(self) -> list[PlannedRun]:
        """The runs that can exist."""
        return [run for run in self.runs if run.reason is None]

    def __str__(self) -> str:
        """A row per configuration, in the order of the grid."""
        keys = [key for key in self.keys if key != "seed"]
        rows: dict[tuple[str, ...], list[PlannedRun]] = {}
        for run in self.runs:
            values = {key_of(o): o.partition("=")[2] for o in run.overrides}
            rows.setdefault(tuple(values[key] for key in keys), []).append(run)
        reasons = list(dict.fromkeys(run.reason for run in self.runs if run.reason is not None))
        header = (*_leaves(keys), "runs", "outputs", "parameters", "MACs")
        header += ("receptive field", "possible")
        table = [header, *((*values, *_row(runs, reasons)) for values, runs in rows.items())]
        numbers = [len(keys), len(keys) + 2, len(keys) + 3]
        notes = [f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)]
        first = len(keys) + 1  # outputs, followed by parameters, MACs, the receptive field
        droppable = [first, first + 3, first + 2, first + 1]
        notes = [line for note in notes for line in wrapped(note)]
        return "\n".join([format_table(table, numbers, droppable), *notes])


def _leaves(keys: list[str]) -> list[str]:
    """Short keys, kernel_size for model.kernel_size, where they are unambiguous."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return [k if leaves.count(leaf) > 1 else leaf for k, leaf in zip(keys, leaves, strict=True)]


def _row(runs: list[PlannedRun], reasons: list[str]) -> tuple[str, ...]:
    """The table's cells for runs that differ only in the seed."""
    plan, reason = runs[0].plan, runs[0].reason
    if plan is None:
        possible = "yes" if reason is None else f"no [{reasons.index(reason) + 1}]"
        size = runs[0].size
        macs = size.macs if size is not None else None
        counts = ("" if size is None else f"{size.num_parameters:,}", f"{macs:,}" if macs else "")
        return str(len(runs)), "", *counts, "", possible
    return str(len(runs)), *_described(plan), "yes"


@once_for_each
def _described(plan: Plan) -> tuple[str, ...]:
    return (
        " > ".join("x".join(map(str, row.output_shape)) for row in plan.stages),
        f"{plan.num_parameters:,}",
        f"{plan.macs:,}",
        format_size(plan.receptive_field),
    )


def refuse_grid(overrides: Sequence[str], remedy: str | None = None) -> None:
    """Refuse a sweep's preset in a single run, which would train its first default.

    - `remedy`: how to train the grid, by default from the shell.

    Raises:
        ConfigError: saying how to train it.
    """
    for override in overrides:
        if key_of(override) == "sweep" and not override.endswith("=null"):
            command = f"{command_name('train')} {shlex.join(['-m', *overrides])}"
            raise ConfigError(
                f"{override} is a grid of many runs; to train them: {remedy or command}"
            )


def shared_config(arguments: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """What `arguments` say about all runs, including Hydra's own keys, and a preset's values.

    The caller initialises Hydra.
    """
    from hydra import compose

    parsed = parse_overrides(arguments)
    for override in parsed:
        _check_execution_keys(override)
    single = [str(p.input_line) for p in parsed if not p.is_sweep_override()]
    cfg = compose("train", with_own(single), return_hydra_config=True)
    return cfg, dict(cfg.hydra.sweeper.params or {})


def plan_sweep(
    arguments: list[str], params: Mapping[str, Any], compose: Compose, *, is_sweep: bool = True
) -> SweepPlan:
    """Every run of the grid that `arguments` (as typed) and a preset's `params` span.

    Composes one config per combination of config groups and sets all other values directly, so ten
    thousand runs take seconds.

    - `is_sweep`: whether it is a sweep even with a single run.

    Raises:
        ConfigError: if no run can use a value, or nothing is left to run.
    """
    refuse_misread(arguments)
    arguments = _with_seeds(arguments)
    typed = {key_of(argument) for argument in arguments}
    preset = [f"{key}={value}" for key, value in params.items() if key not in typed]
    choices = _choices(with_own([*preset, *arguments]))
    composer = Composer(compose)
    plan = SweepPlan([], [key_of(values[0]) for values in choices if len(values) > 1])
    unread = UnreadInGrid()
    seen: set[str] = set()
    known: dict[int, Known] = {}
    is_sweep = is_sweep or any(len(values) > 1 for values in choices)
    for overrides in itertools.product(*choices):
        try:
            config = check(composer.config(overrides), known)
        except ConfigError as error:
            raise ConfigError(refused_in_grid(error, overrides, arguments)) from None
        if config.trainer.devices > 1 and is_sweep:
            raise ConfigError("trainer.devices must be 1 in a sweep: its runs are parallel")
        unread.add(config)
        run = ResolvedRun(config, overrides)
        if run.fingerprint in seen:
            plan.duplicates += 1
            continue
        seen.add(run.fingerprint)
        plan.runs.append(_planned(run))
        if plan.data_configs.setdefault(_json_of(config.data), config) is config:
            check_splits(config)
        named = tuple((key, part.target) for _, key, part in config.parts())
        plan.part_configs.setdefault(named, config)
        if plan.runs[-1].reason is not None:
            plan.infeasible_configs[run.fingerprint] = config
    if not plan.runs:
        raise ConfigError("the sweep is empty: one of its keys has no value")
    unread.refuse(plan.keys)
    return plan


def _with_seeds(arguments: Sequence[str]) -> list[str]:
    """The arguments of a sweep; those of until=verdict span all the seeds that it may need.

    Raises:
        ConfigError: if they name seeds themselves, or `seeds` is not a range.
    """
    typed = {key_of(a): a.partition("=")[2] for a in arguments}
    if typed.get("until", "null") == "null":
        return list(arguments)
    if "seed" in typed:
        raise ConfigError(
            f"seed={typed['seed']}: until=verdict counts the seeds itself, from 0; leave it out, "
            "and say seeds=3..30 for at least 3 and at most 30"
        )
    text = typed.get("seeds", Config.model_fields["seeds"].default)
    try:
        _, most = seed_range(text)
    except ValueError as error:
        raise ConfigError(f"seeds={text}: {error}") from None
    return [*arguments, f"seed=range({most})"]


def work_of(config: Config, macs: int | None) -> float | None:
    """What a run's time is proportional to, see `runs.progress.work`."""
    return work({"data": _values(config.data), "trainer": _values(config.trainer)}, macs)


@once_for_each
def _values(section: Section) -> dict[str, Any]:
    return section.model_dump()


def _planned(run: ResolvedRun) -> PlannedRun:
    overrides = tuple(o for o in run.overrides if key_of(o) not in UNTIL_KEYS)
    try:
        model = run.config.model
        if isinstance(model, OwnModelConfig) and model.is_of_torchvision:
            from convscape.training.measure import size_of  # torch

            size = size_of(run.config)
            done = work_of(run.config, size.macs)
            return PlannedRun(overrides, run.name, run.fingerprint, size=size, work=done)
        done = work_of(run.config, None if run.plan is None else run.plan.macs)
        return PlannedRun(overrides, run.name, run.fingerprint, run.plan, work=done)
    except InfeasibleGeometry as error:
        return PlannedRun(overrides, run.name, run.fingerprint, reason=str(error))


@once_for_each
def _json_of(section: Section) -> str:
    return section.model_dump_json()


def key_of(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


def chosen(overrides: Iterable[str]) -> list[str]:
    """The overrides that say what is trained, not where and how."""
    return [o for o in overrides if key_of(o) not in (*EXECUTION_KEYS, "name", "sweep")]


def is_execution_key(key: str) -> bool:
    return key in (*EXECUTION_KEYS, "name", "sweep", "resume") or key.startswith(
        ("hydra", "logger.")
    )


def _check_execution_keys(override: Override) -> None:
    """Refuse several values of a key that does not affect what is trained."""
    key = override.key_or_group
    if override.is_sweep_override() and (is_execution_key(key) or key in UNTIL_KEYS):
        raise ConfigError(
            f"{override.input_line}: it applies to all runs of a sweep, so it takes one value; for "
            "several, type a command for each"
        )


def _choices(arguments: list[str]) -> list[list[str]]:
    """For each argument its values, each as a separate override; later arguments win."""
    choices: dict[str, list[str]] = {}
    for override in parse_overrides(arguments):
        key = override.get_key_element()
        _check_execution_keys(override)
        if not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            _check_length(override)
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(
                f"{override.input_line}: a sweep takes a list of values, range() or choice(); "
                f"to search an interval use {command_name('search')}"
            )
    num_runs = math.prod(len(values) for values in choices.values())
    if num_runs > MAX_RUNS:
        raise ConfigError(f"the grid has {num_runs:,} runs; allowed: up to {MAX_RUNS:,}")
    return list(choices.values())


def _check_length(override: Override) -> None:
    """Refuse range(1,1000000000) before expanding it."""
    value = override.value()
    if not isinstance(value, RangeSweep):
        return
    assert value.start is not None
    assert value.stop is not None
    if abs(value.stop - value.start) > MAX_RUNS * abs(value.step):
        raise ConfigError(f"{override.input_line} has too many values; allowed: {MAX_RUNS:,}")
