"""Sweeps: plan the whole grid by geometry alone, launch what is missing, sum up. No torch.

A run is found by its fingerprint, so the same command again finishes what is missing, and two
processes or machines on one folder share the work: each run is taken under a lock.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import math
import os
import pickle
import re
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from convscape import files, obstacles
from convscape.cli import hand_on, say
from convscape.config import Config, OwnModelConfig, check
from convscape.errors import CannotWrite, ConfigError, code_of_stop, stopped_by
from convscape.geometry import InfeasibleGeometry, Plan, format_size, format_table
from convscape.hydra_errors import explain
from convscape.hydra_insides import Override, RangeSweep, parse_overrides
from convscape.losses import BEFORE, IN_FULL, spelled
from convscape.machine import available_cores, check_device
from convscape.runs import (
    Result,
    RunFolder,
    RunIsBusy,
    Status,
    fingerprint,
    new_result,
    output_folder,
    run_name,
)
from convscape.unread import UnreadInGrid

Compose = Callable[[list[str]], DictConfig]
Launch = Callable[[Sequence[Sequence[str]], int], Any]

# What steers a sweep but does not say what is in it.
_STEERING = (
    "retry", "fail_fast", "extend", "output_dir", "allow_packages", "trainer.progress",
    "trainer.threads", "trainer.device", "data.root", "data.cache_dir", "data.download",
    "logger",
)  # fmt: skip
MOST_RUNS = 100_000  # of a grid, which is planned before the first run
FAILURES = ("failed", "diverged", "out_of_memory")
ON_THIS_MACHINE = ("basic", "joblib")  # launchers; what those of a cluster find there is not known


@dataclass(frozen=True)
class PlannedRun:
    """One cell and seed of the grid; `reason` says why it cannot exist.

    `plan` is None for an impossible network, and for one of the user's own.
    """

    overrides: tuple[str, ...]
    name: str
    fingerprint: str
    plan: Plan | None = None
    reason: str | None = None


@dataclass
class SweepPlan:
    """All runs of a sweep; `duplicates` are equal in meaning to one that is there.

    - `keys`: those with several values.
    """

    runs: list[PlannedRun]
    keys: list[str]
    data_configs: dict[str, Config] = field(default_factory=dict)
    own_models: dict[str, OwnModelConfig] = field(default_factory=dict)
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
            values = {_key(o): o.partition("=")[2] for o in run.overrides}
            rows.setdefault(tuple(values[key] for key in keys), []).append(run)
        reasons = list(dict.fromkeys(run.reason for run in self.runs if run.reason is not None))
        header = (*_leaves(keys), "runs", "outputs", "parameters", "MACs")
        header += ("receptive field", "possible")
        table = [header, *((*values, *_row(runs, reasons)) for values, runs in rows.items())]
        numbers = [len(keys), len(keys) + 2, len(keys) + 3]
        notes = [f"[{number}] {reason}" for number, reason in enumerate(reasons, 1)]
        return "\n".join([format_table(table, right_aligned=numbers), *notes])


def _leaves(keys: list[str]) -> list[str]:
    """kernel_size for model.kernel_size, where that is clear."""
    leaves = [key.rpartition(".")[2] for key in keys]
    return [k if leaves.count(leaf) > 1 else leaf for k, leaf in zip(keys, leaves, strict=True)]


def _row(runs: list[PlannedRun], reasons: list[str]) -> tuple[str, ...]:
    """What there is to say of runs that differ only in the seed."""
    plan, reason = runs[0].plan, runs[0].reason
    if plan is None:
        possible = "yes" if reason is None else f"no [{reasons.index(reason) + 1}]"
        return str(len(runs)), "", "", "", "", possible
    return (
        str(len(runs)),
        " > ".join("x".join(map(str, row.output_shape)) for row in plan.stages),
        f"{plan.num_parameters:,}",
        f"{plan.macs:,}",
        format_size(plan.receptive_field),
        "yes",
    )


def refuse_grid(overrides: Sequence[str], remedy: str | None = None) -> None:
    """Refuse a preset of a sweep where a single run is trained, which would be its first default.

    - `remedy`: how to train the grid, by default from the shell.

    Raises:
        ConfigError: saying how to train it.
    """
    for override in overrides:
        if _key(override) == "sweep" and not override.endswith("=null"):
            command = shlex.join(["python", "scripts/train.py", "-m", *overrides])
            raise ConfigError(
                f"{override} is a grid of many runs; to train them: {remedy or command}"
            )


# --- planning ---------------------------------------------------------------------------------


def shared_config(arguments: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """What `arguments` say of all runs, Hydra's own keys included, and a preset's values.

    Hydra is initialised by the caller.
    """
    from hydra import compose

    parsed = parse_overrides(arguments)
    for override in parsed:
        _check_steering(override)
    single = [str(p.input_line) for p in parsed if not p.is_sweep_override()]
    cfg = compose("train", single, return_hydra_config=True)
    return cfg, dict(cfg.hydra.sweeper.params or {})


def plan_sweep(arguments: list[str], params: Mapping[str, Any], compose: Compose) -> SweepPlan:
    """Every run of the grid that `arguments` (as typed) and a preset's `params` span.

    Composes one config per combination of config groups and sets all other values directly, so
    that ten thousand runs take seconds.

    Raises:
        ConfigError: if a value is one that no run can use, or nothing is left to run.
    """
    typed = {_key(argument) for argument in arguments}
    preset = [f"{key}={value}" for key, value in params.items() if key not in typed]
    choices = _choices([*preset, *arguments])
    composer = Composer(compose)
    plan = SweepPlan([], [_key(values[0]) for values in choices if len(values) > 1])
    unread = UnreadInGrid()
    seen: set[str] = set()
    for overrides in itertools.product(*choices):
        config = check(composer.config(overrides))
        if config.trainer.devices > 1:
            raise ConfigError(
                "trainer.devices must be 1 in a sweep: its runs are the parallel part"
            )
        unread.add(config, map(_key, overrides))
        digest = fingerprint(config)
        if digest in seen:
            plan.duplicates += 1
            continue
        seen.add(digest)
        name = run_name(config, list(overrides), digest)
        plan.runs.append(_planned(config, overrides, name, digest))
        plan.data_configs.setdefault(config.data.model_dump_json(), config)
        if isinstance(config.model, OwnModelConfig):
            plan.own_models[config.model.target] = config.model
        if plan.runs[-1].reason is not None:
            plan.infeasible_configs[digest] = config
    if not plan.runs:
        raise ConfigError("the sweep is empty: one of its keys has no value")
    unread.refuse(plan.keys)
    return plan


def _planned(config: Config, overrides: tuple[str, ...], name: str, digest: str) -> PlannedRun:
    try:
        plan = config.plan()
    except InfeasibleGeometry as error:
        return PlannedRun(overrides, name, digest, reason=str(error))
    return PlannedRun(overrides, name, digest, plan)


def _key(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


def _is_steering(key: str) -> bool:
    return key in (*_STEERING, "name", "sweep", "resume") or key.startswith(("hydra", "logger."))


def _check_steering(override: Override) -> None:
    """Refuse several values of a key that says nothing of what is trained."""
    if override.is_sweep_override() and _is_steering(override.key_or_group):
        raise ConfigError(
            f"{override.input_line}: it says where or how all runs of a sweep happen, so it "
            "takes one value; for several, type a command for each"
        )


def _choices(arguments: list[str]) -> list[list[str]]:
    """For each argument its values, each as an override of its own; a later one wins."""
    choices: dict[str, list[str]] = {}
    for override in parse_overrides(arguments):
        key = override.get_key_element()
        _check_steering(override)
        if not override.is_sweep_override():
            choices[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            _check_length(override)
            choices[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise ConfigError(
                f"{override.input_line}: a sweep takes a list of values, range() or choice(); "
                "to search an interval use scripts/search.py"
            )
    num_runs = math.prod(len(values) for values in choices.values())
    if num_runs > MOST_RUNS:
        raise ConfigError(f"the grid has {num_runs:,} runs; allowed: up to {MOST_RUNS:,}")
    return list(choices.values())


def _check_length(override: Override) -> None:
    """Refuse range(1,1000000000) before it is written out."""
    value = override.value()
    if not isinstance(value, RangeSweep):
        return
    assert value.start is not None
    assert value.stop is not None
    if abs(value.stop - value.start) > MOST_RUNS * abs(value.step):
        raise ConfigError(f"{override.input_line} has too many values; allowed: {MOST_RUNS:,}")


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

    References to other keys (trainer.max_epochs: ${data.epochs}) follow what is set;
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


# --- running ----------------------------------------------------------------------------------


def run_sweep(
    cfg: DictConfig,
    params: Mapping[str, Any],
    arguments: list[str],
    compose: Compose,
    launch: Launch,
) -> int:
    """Plan, launch what is missing, sum up; returns the exit code.

    Raises:
        ConfigError: before anything trains, if the input is wrong.
    """
    if cfg.resume is not None:
        raise ConfigError("resume is for single runs; the same command again finishes a sweep")
    plan = plan_sweep(arguments, params, compose)
    folder = folder_of_sweep(cfg, arguments)
    name = folder.name
    _claim(folder, name, params, arguments, cfg.extend)
    files.remove(folder / _STOP, within=folder)
    states = _settled(folder)
    missing = [run for run in plan.runs if _is_missing(states.get(run.fingerprint), cfg.retry)]
    blocked = obstacles.in_sweep(folder, (run.fingerprint for run in missing))
    missing = [run for run in missing if run.fingerprint not in blocked]
    states |= _record_infeasible(plan, folder, missing)
    todo = [run for run in missing if run.reason is None]
    todo.sort(key=lambda run: run.fingerprint in states)  # what ended badly before comes last
    say(*overview(plan, folder, num_todo=len(todo)))
    code_of_end: int | None = None
    if todo:
        prepare(plan.data_configs.values(), plan.own_models.values(), list(cfg.allow_packages))
        if cfg.hydra.runtime.choices["hydra/launcher"] in ON_THIS_MACHINE:
            check_device(cfg.trainer.device)
        os.environ[_PROGRESS] = f"{len(todo)} {time.monotonic()}"
        extra = [f"name={name}", *_for_all_runs(cfg)]
        with _stopping_workers(folder) as received:
            for first, batch in _batches(todo, states):
                try:
                    launch([[*run.overrides, *extra] for run in batch], first)
                except SweepStopped as stop:
                    say(f"error: {stop}", file=sys.stderr)
                    code_of_end = 1
                except (KeyboardInterrupt, SystemExit) as stop:
                    code_of_end = code_of_stop(stop)
                except Exception as error:  # noqa: BLE001  a worker was killed, no scheduler
                    problem = f"{_launcher(cfg)}: {type(error).__name__}: {_first_line(error)}"
                    if not received and find_results(folder) == states:
                        raise ConfigError(f"{problem}; no run was begun") from None
                    say(*([] if received else [problem]), file=sys.stderr)
                if received or code_of_end is not None:
                    break
        if received:
            code_of_end = code_of_stop(stopped_by(received[0]))
        states = _settled(folder)
    results = [states[run.fingerprint] for run in plan.runs if run.fingerprint in states]
    if code_of_end is None and any(result.status == "ok" for result in results):
        from convscape.report import write_report

        try:
            say(*write_report([folder]).lines)
        except ConfigError as error:  # the runs are done all the same
            say(f"no report: {error}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001  nothing in it may cost the sweep its exit code
            say(f"no report: {type(error).__name__}: {_first_line(error)}", file=sys.stderr)
    say(*summary(plan, results, folder, list(blocked.values())))
    return sweep_exit_code(plan, results) if code_of_end is None else code_of_end


def folder_of_sweep(cfg: DictConfig, arguments: list[str]) -> Path:
    """Where the runs of a sweep are; one without a name has that of its grid."""
    return output_folder(cfg.output_dir) / "sweeps" / (cfg.name or f"sweep-{_digest(arguments)}")


def _batches(
    todo: Sequence[PlannedRun], states: Mapping[str, Result]
) -> Iterator[tuple[int, list[PlannedRun]]]:
    """What is launched together, with the number of its first run.

    Those whose process has died, with nothing saved, come last and one by one: what kills its
    process takes a pool of workers along, and what else runs there is not to die of it twice.
    """
    died = [
        run
        for run in todo
        if (result := states.get(run.fingerprint)) is not None
        and result.error is not None
        and result.error["type"] == ProcessLookupError.__name__
        and result.attempts
    ]
    others = [run for run in todo if run not in died]
    if others:
        yield 0, others
    for number, run in enumerate(died, len(others)):
        yield number, [run]


class SweepStopped(KeyboardInterrupt):
    """No run of the sweep can go on. As of Ctrl-C, no launcher takes it for the error of one."""


def stop_of(result: Result) -> KeyboardInterrupt:
    """What an interrupted run means to the runs after it, to be raised."""
    assert result.error is not None
    is_about_the_disk = result.error["type"] == CannotWrite.__name__
    return (SweepStopped if is_about_the_disk else KeyboardInterrupt)(result.error["message"])


@contextmanager
def _stopping_workers(folder: Path) -> Iterator[list[int]]:
    """Hand a signal on to the workers of this process, and let their runs be saved."""
    received: list[int] = []
    # not the one of fail_fast: another process that shares the sweep goes on
    file = (folder / f".stopped-{socket.gethostname()}-{os.getpid()}").absolute()
    os.environ[_STOP_OF_PARENT] = str(file)

    def stop(signum: int, frame: Any) -> None:
        if signum in received:
            os._exit(128 + signum)
        received.append(signum)
        with suppress(OSError):
            files.append(file, within=file.parent).close()
        if not hand_on(signum):
            raise KeyboardInterrupt(stopped_by(signum))

    is_main = threading.current_thread() is threading.main_thread()  # only that one may
    signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield received
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        with suppress(OSError):
            files.remove(file, within=file.parent)


def run_in_sweep(config: Config, overrides: list[str], number: int) -> None:
    """Run `number`, counted from 0, of a sweep, in whatever process a launcher has put it."""
    assert config.name is not None
    folder = Path(config.output_dir) / "sweeps" / config.name
    if (folder / _STOP).exists() or _is_stopped():
        return
    try:
        result = train_if_missing(config, folder, _chosen(overrides))
    except CannotWrite as error:
        raise SweepStopped(str(error)) from None
    except files.NotInside as error:  # a launcher would keep it to itself
        say(f"error: {error}", file=sys.stderr)
        return
    if result is None:
        return
    done, left = _progress(number + 1)
    say(line(result, done, left))
    if result.status in FAILURES and config.fail_fast:
        files.append(folder / _STOP, within=folder).close()
    if result.status == "interrupted":
        stop = stop_of(result)
        # of a signal the sweep knows, and waits for its workers
        if isinstance(stop, SweepStopped) or not _is_stopped():
            raise stop


def train_if_missing(config: Config, folder: Path, overrides: list[str]) -> Result | None:
    """Train the run of a sweep `folder`, or go on with it; None if it is done or another's."""
    path = path_of_run(config, folder, overrides)
    run = RunFolder(path, within=folder)
    try:
        with run.held():
            before = run.read_result()
            if not _is_missing(before, config.retry):
                return None
            if before is not None and before.status in FAILURES:
                shutil.rmtree(run.best_checkpoint.parent, ignore_errors=True)  # begin anew
                files.remove(run.history_file, within=path)
            from convscape.training import train

            try:
                return train(config, path, overrides)
            except ConfigError as error:  # what only this run has wrong, as its own data.val_size
                is_impossible = isinstance(error, InfeasibleGeometry)  # a child of CNN
                status: Status = "infeasible" if is_impossible else "failed"
                return _recorded(run, config, overrides, status, error)
    except RunIsBusy:
        return None


def path_of_run(config: Config, folder: Path, overrides: list[str]) -> Path:
    """Where in a sweep `folder` a run is, or will be."""
    digest = fingerprint(config)
    return next(folder.glob(f"*-{digest}"), folder / run_name(config, overrides, digest))


_STOP = ".stopped-by-fail-fast"
_STOP_OF_PARENT = "CONVSCAPE_SWEEP_STOP"  # the file by which workers learn that they are to stop
_PROGRESS = "CONVSCAPE_SWEEP_PROGRESS"  # runs to do and when they began, for the lines of the runs


def _is_stopped() -> bool:
    """Whether the process that launched this one was told to stop, or this one itself was."""
    return Path(os.environ.get(_STOP_OF_PARENT, "")).is_file()


def _is_missing(result: Result | None, retry: bool) -> bool:
    """Whether a run is still to be done; one that says "running" may be a dead process's."""
    if result is None or result.status in ("running", "interrupted"):
        return True
    return retry and result.status in FAILURES


def find_results(folder: Path) -> dict[str, Result]:
    """The result of each run in a sweep folder, by fingerprint."""
    results = (RunFolder(path.parent).read_result() for path in folder.glob("*/result.json"))
    return {result.fingerprint: result for result in results if result is not None}


def prepare(
    configs: Iterable[Config], own_models: Iterable[OwnModelConfig], allow_packages: list[str]
) -> None:
    """Load each data set and own class once, before all runs: a mistake shows, a cache is built.

    Raises:
        ConfigError: if one of them cannot be used.
    """
    from convscape.loggers import check_installed
    from convscape.run_data import describe
    from convscape.training import data_module, own_class

    configs = list(configs)
    say(*dict.fromkeys(ln for config in configs for ln in describe(config)))
    for config in configs:
        check_installed(config.logger)
        data_module(config, config.load_images(), macs=None)
    for model in own_models:
        own_class(model, allow_packages)


def _settled(folder: Path) -> dict[str, Result]:
    """All results; a run that says "running" and whose process is dead is "interrupted".

    If that happened twice without a checkpoint in between, it "failed": it would happen again.
    """
    states = find_results(folder)
    for path in folder.glob("*/result.json"):
        run = RunFolder(path.parent, within=folder)
        result = run.read_result()
        if result is None or result.status != "running":
            continue
        with suppress(ConfigError, OSError), run.held():
            if run.num_epochs() > result.epochs:
                result.attempts = 0
            result.fail(
                "failed" if result.attempts > 1 else "interrupted",
                ProcessLookupError("its process ended without a word: killed, or out of memory"),
            )
            states[result.fingerprint] = result
            run.write(result)
    return states


def _record_infeasible(
    plan: SweepPlan, folder: Path, missing: list[PlannedRun]
) -> dict[str, Result]:
    """Give each impossible one of the `missing` runs its folder and result, and return these."""
    states = {}
    for run in missing:
        if run.reason is not None:
            states[run.fingerprint] = _recorded(
                RunFolder(folder / run.name),
                plan.infeasible_configs[run.fingerprint],
                _chosen(run.overrides),
                "infeasible",
                InfeasibleGeometry(run.reason),
            )
    return states


def _chosen(overrides: Iterable[str]) -> list[str]:
    """Those that say what is trained, and not where and how."""
    return [o for o in overrides if _key(o) not in (*_STEERING, "name", "sweep")]


def _recorded(
    folder: RunFolder, config: Config, overrides: list[str], status: Status, error: ConfigError
) -> Result:
    """Write the result of a run that never began."""
    result = new_result(config, overrides)
    result.fail(status, error)
    folder.create(result)
    return result


def _claim(
    folder: Path, name: str, params: Mapping[str, Any], arguments: list[str], extend: bool
) -> None:
    """Note what the sweep is, or refuse a name that another sweep has.

    Raises:
        ConfigError: saying what differs.
    """
    definition = definition_of(arguments, params)
    file = folder / "sweep.yaml"
    try:
        lock = files.lock(folder / ".lock", within=folder)
        with lock:  # another may be started at the same moment
            if file.is_file() and not extend:
                check_same("sweep", name, _read_definition(file), definition)
            text = yaml.safe_dump(definition, sort_keys=False)
            files.write_whole(file, text, within=folder)
    except OSError as error:
        raise CannotWrite(folder, error) from None


def definition_of(arguments: Iterable[str], params: Mapping[str, Any]) -> dict[str, str]:
    """What the arguments and a preset's values say of what is trained, by key."""
    typed = {key: str(value) for key, value in params.items()}
    typed |= {_key(a): a.partition("=")[2] for a in arguments}
    if loss := typed.get("model.loss"):
        typed["model.loss"] = spelled(loss, IN_FULL)
    return {key: value for key, value in typed.items() if not _is_steering(key)}


def check_same(
    kind: str, name: str, before: Mapping[str, Any], now: Mapping[str, str], can_extend: bool = True
) -> None:
    """Refuse a name that another sweep or search has.

    Raises:
        ConfigError: saying what differs.
    """
    changes = [
        f"{key} was {before.get(key, 'not set')} and is now {now.get(key, 'not set')}"
        for key in {**before, **now}
        if before.get(key) != now.get(key)
    ]
    if changes:
        way_out = "choose another name" + ", or add to it with extend=true" * can_extend
        raise ConfigError(
            f"name={name} is in use by another {kind}: {'; '.join(changes)}; {way_out}"
        )


def _read_definition(file: Path) -> dict[str, Any]:
    try:
        definition = files.read_yaml(file)
    except ValueError:
        definition = None
    if not isinstance(definition, dict):
        raise ConfigError(f"{file} is damaged; delete it, and the same command notes it anew")
    if isinstance(loss := definition.get("model.loss"), str):
        definition["model.loss"] = spelled(loss, BEFORE)
    return definition


def _digest(arguments: list[str]) -> str:
    text = "\n".join(sorted(a for a in arguments if _key(a) not in _STEERING))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _for_all_runs(cfg: DictConfig) -> list[str]:
    """Overrides that suit every run of a sweep to where it happens."""
    extra = quiet(cfg)
    # joblib's processes share the cores: two threads for one core make both crawl
    num_jobs = cfg.hydra.launcher.get("n_jobs")
    if num_jobs is not None and cfg.trainer.threads is None:
        cores = available_cores()
        jobs = num_jobs if num_jobs > 0 else max(1, cores + 1 + num_jobs)
        extra.append(f"trainer.threads={max(1, cores // jobs)}")
    return extra


def quiet(cfg: DictConfig) -> list[str]:
    """Where there is no terminal the line of each run is enough."""
    is_wanted = cfg.trainer.progress != "auto" or sys.stderr.isatty()
    return [] if is_wanted else ["trainer.progress=off"]


def _launcher(cfg: DictConfig) -> str:
    """As it was chosen: hydra/launcher=joblib."""
    return f"hydra/launcher={cfg.hydra.runtime.choices['hydra/launcher']}"


# --- what a person reads ----------------------------------------------------------------------


def overview(plan: SweepPlan, folder: Path, num_todo: int) -> list[str]:
    """The sweep in a few lines, before it starts."""
    impossible = len(plan.runs) - len(plan.feasible)
    lines = [f"sweep {folder}: {len(plan.runs)} runs, {impossible} impossible, {num_todo} to do"]
    lines += duplicates(plan)
    choices = dict.fromkeys(config.choice for config in plan.data_configs.values())
    lines += [f"  {choice}" for choice in choices if choice is not None]
    reasons = Counter(run.reason for run in plan.runs if run.reason is not None)
    lines += [f"  impossible ({count}x): {reason}" for reason, count in reasons.items()]
    return lines


def duplicates(plan: SweepPlan) -> list[str]:
    """What is left out of the grid, in words."""
    if not plan.duplicates:
        return []
    return [f"{plan.duplicates} more are equal in meaning to one of these and run once"]


def line(result: Result, done: str, left: str = "") -> str:
    """A finished run of a sweep in one line: `done` of all before it, the time left behind it."""
    words = [done, f"{result.run:<40}", f"{result.status:<8}"]
    if result.status == "ok":
        chosen_by = result.monitor
        if chosen_by is not None and chosen_by.name in result.metrics:
            words.append(f"{chosen_by.name} {chosen_by.written(result.metrics[chosen_by.name])}")
        words.append(f"{sum(result.seconds.values()):.1f} s")
    elif result.error is not None:
        words.append(short_error(result))
    return "  ".join([*words, left]).rstrip()


def short_error(result: Result) -> str:
    """What ended a run, in a line."""
    assert result.error is not None
    return f"{result.error['type']}: {_first_line(result.error['message'])}"


def _first_line(message: Any) -> str:
    """The beginning of a message, for a table."""
    line = next(iter(str(message).splitlines()), "")
    return line if len(line) <= 120 else f"{line[:117]}..."


def _progress(number: int) -> tuple[str, str]:
    """As in "[3/36]" and "about 5 min left", as far as this process can know."""
    if _PROGRESS not in os.environ:
        return f"[{number}]", ""
    total, start = os.environ[_PROGRESS].split()
    left = (time.monotonic() - float(start)) / number * (int(total) - number)
    if number < 3 or number == int(total):
        return f"[{number}/{total}]", ""
    return (
        f"[{number}/{total}]",
        f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left",
    )


def summary(plan: SweepPlan, results: list[Result], folder: Path, blocked: list[str]) -> list[str]:
    """Counts per status, what failed, what is in the way of runs, and how to finish the rest."""
    counts = Counter(result.status for result in results)
    unfinished = len(plan.runs) - len(results)
    words = [f"{count} {status}" for status, count in counts.items()]
    words += [f"{unfinished} not begun"] if unfinished else []
    lines = [f"sweep {folder}: {', '.join(words)}"]
    for result in results:
        if result.status in FAILURES:
            lines.append(f"  {result.status}: {result.run}: {short_error(result)}")
    lines += [f"  in the way of a run: {obstacle}" for obstacle in blocked]
    if unfinished or counts["interrupted"]:
        first = "once nothing is in the way, " * bool(blocked)
        lines.append(f"{first}the same command again finishes the rest")
    if counts.keys() & set(FAILURES):
        lines.append("the same command with retry=true trains the failed ones once more")
    return lines


def sweep_exit_code(plan: SweepPlan, results: list[Result]) -> int:
    """0 if every run is ok, impossible, or another process is still working on it; else 1."""
    is_well = {"ok", "infeasible", "running"} >= {result.status for result in results}
    return 0 if is_well and len(results) == len(plan.runs) else 1
