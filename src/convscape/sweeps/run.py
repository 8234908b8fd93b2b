"""Sweeps: plan the whole grid from geometry alone, launch what is missing, sum up. No torch.

A run is found by its fingerprint, so repeating the command finishes what is missing, and two
processes or machines on one folder share the work: each run is taken under a lock.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from convscape.base import files
from convscape.base.cores import num_threads
from convscape.base.errors import CannotWrite, ConfigError, code_of_stop, stopped_by
from convscape.base.machine import check_device
from convscape.base.stopping import hand_on, is_told_to_stop, stop_file
from convscape.base.surroundings import not_seen
from convscape.base.terminal import say
from convscape.base.values import counted
from convscape.geometry.window import InfeasibleGeometry
from convscape.reports.verdicts import seed_by_seed
from convscape.runs import obstacles
from convscape.runs.folder import (
    FAILURES,
    RunFolder,
    RunIsBusy,
    never_begun,
    new_result,
    output_folder,
)
from convscape.runs.progress import ToDo, note_to_do
from convscape.runs.resolved import ResolvedRun
from convscape.runs.words import KEYS_OF_SWEEP
from convscape.sweeps import live
from convscape.sweeps.definition import NOTE, digest_of, reserve_name
from convscape.sweeps.grid import chosen, plan_sweep
from convscape.sweeps.launching import (
    ON_THIS_MACHINE,
    WITH_JOBS,
    batches,
    busy,
    errors_of,
    in_words,
    launcher_of,
    num_at_once,
    wait_for_others,
    where_to_look,
)
from convscape.sweeps.states import find_results, is_missing, settled
from convscape.sweeps.verdicts import Comparing
from convscape.sweeps.words import NUM_RUNS, counter, first_line, line, overview, summary

if TYPE_CHECKING:
    from convscape.config.compose import Compose
    from convscape.config.schema import Config
    from convscape.runs.result import Result, Status
    from convscape.sweeps.grid import PlannedRun, SweepPlan
    from convscape.sweeps.verdicts import Cell

Launch = Callable[[Sequence[Sequence[str]], int], Any]


def run_sweep(
    cfg: DictConfig,
    params: Mapping[str, Any],
    arguments: list[str],
    compose: Compose,
    launch: Launch,
    *,
    is_looked_at: bool = True,
) -> int:
    """Plan, launch what is missing, sum up; return the exit code.

    - `is_looked_at`: whether it ends with its report, which is a look (`reports.looks`).

    Raises:
        ConfigError: before anything trains, if the input is wrong.
    """
    if cfg.resume is not None:
        raise ConfigError("resume is for single runs; the same command again finishes a sweep")
    plan = plan_sweep(arguments, params, compose)
    folder = folder_of_sweep(cfg, arguments)
    name = folder.name
    reserve_name(folder, name, params, arguments, cfg.extend)
    files.remove(folder / _STOP, within=folder)
    state = _Sweep(cfg, folder, plan, launch, is_looked_at)
    config = next(iter(plan.data_configs.values()))
    if config.until is None:
        todo = state.to_do(plan.runs)
        elsewhere = state.elsewhere(todo)
        say(*overview(plan, folder, len(todo) - len(elsewhere), len(elsewhere)))
        state.train(plan.runs)
        wanted, comparing = plan.runs, None
    else:
        comparing = Comparing(plan, folder, config, num_at_once(cfg))
        wanted = state.seed_by_seed(comparing)
    results = state.results(wanted)
    if is_looked_at and state.code is None and any(r.status == "ok" for r in results):
        _say_report(folder)
        say(*(comparing.words(results) if comparing is not None else []))
    say(*summary(wanted, results, folder, list(state.blocked.values())))
    return sweep_exit_code(wanted, results) if state.code is None else state.code


class _Sweep:
    """The runs of a sweep in its folder, trained in waves.

    - `code`: the exit code, once the sweep cannot continue.
    - `blocked`: what is in the way of a run, by fingerprint.
    """

    def __init__(
        self, cfg: DictConfig, folder: Path, plan: SweepPlan, launch: Launch, is_looked_at: bool
    ) -> None:
        self.cfg, self.folder, self.plan, self._launch = cfg, folder, plan, launch
        self._is_looked_at = is_looked_at
        self.code: int | None = None
        self.blocked: dict[str, str] = {}
        self._states = settled(folder)
        self._num_begun = 0

    def results(self, runs: Iterable[PlannedRun]) -> list[Result]:
        """The results of those runs that have one."""
        return [self._states[run.fingerprint] for run in runs if run.fingerprint in self._states]

    def to_do(self, runs: Iterable[PlannedRun]) -> list[PlannedRun]:
        """The runs to train, those that ended badly last; impossible ones get their result."""
        missing = [r for r in runs if is_missing(self._states.get(r.fingerprint), self.cfg.retry)]
        self.blocked |= obstacles.in_sweep(self.folder, (run.fingerprint for run in missing))
        missing = [run for run in missing if run.fingerprint not in self.blocked]
        self._states |= _record_infeasible(self.plan, self.folder, missing)
        todo = [run for run in missing if run.reason is None]
        return sorted(todo, key=lambda run: run.fingerprint in self._states)

    def elsewhere(self, runs: Iterable[PlannedRun]) -> set[str]:
        """The fingerprints of runs that other processes are working on."""
        return busy(self.folder, (run.fingerprint for run in runs))

    def seed_by_seed(self, comparing: Comparing) -> list[PlannedRun]:
        """Train until every comparison is settled; return the runs that were needed."""
        wanted: list[PlannedRun] = []
        say(comparing.overview(self.folder))

        def train(cells: Collection[Cell], seeds: Sequence[int]) -> bool:
            runs = list(comparing.runs(cells, seeds))
            wanted.extend(runs)
            self.train(runs)
            return self.code is None and not (self.folder / _STOP).exists()

        seed_by_seed(comparing.cells, comparing.budget, train, comparing.unsettled)
        names = {run.fingerprint for run in wanted} | self._states.keys()
        return [run for run in self.plan.runs if run.fingerprint in names]

    def train(self, runs: Sequence[PlannedRun]) -> None:
        """Train the missing ones."""
        todo, cfg, folder = self.to_do(runs), self.cfg, self.folder
        if not todo:
            return
        elsewhere = self.elsewhere(todo)
        mine = [run for run in todo if run.fingerprint not in elsewhere]
        if mine and not self._num_begun:
            prepare(self.plan.data_configs.values(), self.plan.part_configs.values())
            if launcher_of(cfg) in ON_THIS_MACHINE:
                check_device(cfg.trainer.device)
        os.environ.pop(NUM_RUNS, None)
        if cfg.until is None:  # otherwise nobody knows how many there will be
            os.environ[NUM_RUNS] = str(len(mine))
            os.environ[KEYS_OF_SWEEP] = " ".join(self.plan.keys)
        extra = [f"name={folder.name}", *_for_all_runs(cfg)]
        works = {run.fingerprint: run.work for run in todo}
        note_to_do(folder, ToDo(time.time(), works, is_open=cfg.until is not None))
        table = live.table(folder, cfg.trainer.progress, has_answer=self._is_looked_at)
        do_jobs_go_on = launcher_of(cfg) in WITH_JOBS
        with table, _stopping_workers(folder, do_jobs_go_on) as received:
            for first, batch in batches(mine, self._states):
                jobs = [[*run.overrides, *extra] for run in batch]
                problems: list[str] = []
                try:
                    problems = errors_of(self._launch(jobs, self._num_begun + first))
                except SweepStopped as stop:
                    say(f"error: {stop}", file=sys.stderr)
                    self.code = 1
                except (KeyboardInterrupt, SystemExit) as stop:
                    self.code = code_of_stop(stop)
                except Exception as error:  # noqa: BLE001  a worker was killed, no scheduler
                    problems = [in_words(error)]
                if received or self.code is not None:
                    break
                self._refuse_if_none_began(batch, problems)
            else:
                self._wait_for_others(todo)
        if received:
            self.code = code_of_stop(stopped_by(received[0]))
        self._num_begun += len(mine)
        self._states = settled(folder)

    def _refuse_if_none_began(self, batch: Sequence[PlannedRun], problems: list[str]) -> None:
        """Report what went wrong in workers.

        Raises:
            ConfigError: if the whole batch achieved nothing: repeating the command would not
                either.
        """
        launcher = f"hydra/launcher={launcher_of(self.cfg)}"
        is_known = launcher_of(self.cfg) in ON_THIS_MACHINE  # it has already said everything
        if (
            (problems or not is_known)
            and find_results(self.folder) == self._states
            and not (self.folder / _STOP).exists()
            and not busy(self.folder, (run.fingerprint for run in batch))
        ):
            reason = "; ".join(problems[:3]) or f"it returned, and {where_to_look(self.cfg)}"
            raise ConfigError(f"{launcher}: {reason}; no run was started")
        say(*(f"{launcher}: {problem}" for problem in problems), file=sys.stderr)

    def _wait_for_others(self, runs: Sequence[PlannedRun]) -> None:
        """Wait for the runs that other processes have begun."""
        try:
            for number in wait_for_others(self.folder, [run.fingerprint for run in runs]):
                say(f"waiting for {counted(number, 'run')} in other processes")
        except KeyboardInterrupt as stop:
            self.code = code_of_stop(stop)


def _say_report(folder: Path) -> None:
    """Write the report; its errors affect neither the runs nor the exit code."""
    from convscape.reports.page import write_report

    try:
        say(*write_report([folder]).lines)
    except ConfigError as error:
        say(f"no report: {error}", file=sys.stderr)
    except Exception as error:  # noqa: BLE001
        say(f"no report: {type(error).__name__}: {first_line(error)}", file=sys.stderr)


def folder_of_sweep(cfg: DictConfig, arguments: list[str]) -> Path:
    """The folder of a sweep's runs; a sweep without a name is named after its grid."""
    return output_folder(cfg.output_dir) / "sweeps" / (cfg.name or f"sweep-{digest_of(arguments)}")


class SweepStopped(KeyboardInterrupt):
    """No run of the sweep can continue. As with Ctrl-C, no launcher takes it for a run's error."""


def stop_of(result: Result) -> KeyboardInterrupt:
    """The exception to raise for the runs after an interrupted one."""
    assert result.error is not None
    is_about_the_disk = result.error["type"] == CannotWrite.__name__
    return (SweepStopped if is_about_the_disk else KeyboardInterrupt)(result.error["message"])


@contextmanager
def _stopping_workers(folder: Path, do_jobs_go_on: bool) -> Iterator[list[int]]:
    """Pass a signal on to the workers of this process, and let them save their runs.

    - `do_jobs_go_on`: the workers are jobs, and the launcher handles what happens to them.
    """
    received: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        if signum in received:
            os._exit(128 + signum)
        received.append(signum)
        if not do_jobs_go_on:
            tell_workers()
        if not hand_on(signum):
            raise KeyboardInterrupt(stopped_by(signum))

    is_main = threading.current_thread() is threading.main_thread()  # only the main thread may
    signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    # not fail_fast's file: another process that shares the sweep continues
    with stop_file(folder) as tell_workers:
        before = {signum: signal.signal(signum, stop) for signum in signals}
        try:
            yield received
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def say_line(result: Result, done: str, left: str) -> None:
    if not live.is_here():  # otherwise the table does
        say(line(result, done, left))


def run_in_sweep(
    config: Config,
    overrides: list[str],
    number: int,
    tell: Callable[[Result, str, str], None] = say_line,
) -> None:
    """Train run `number`, counted from 0, of a sweep, in whichever process a launcher put it.

    - `tell`: called with its result, its place among all runs, and the time left.
    """
    assert config.name is not None
    folder = Path(config.output_dir) / "sweeps" / config.name
    if (folder / _STOP).exists() or is_told_to_stop():
        return
    if not (folder / NOTE).is_file():  # it was written before any run was launched
        raise not_seen(folder)
    try:
        result = train_if_missing(ResolvedRun(config, chosen(overrides)), folder)
    except CannotWrite as error:
        raise SweepStopped(str(error)) from None
    except files.NotInside as error:  # a launcher would not report it
        say(f"error: {error}", file=sys.stderr)
        return
    if result is None:
        return
    tell(result, counter(number + 1), "" if live.is_here() else live.time_left_of(folder)())
    if result.status in FAILURES and config.fail_fast:
        files.append(folder / _STOP, within=folder).close()
    if result.status == "interrupted":
        stop = stop_of(result)
        # the sweep knows of a signal, and waits for its workers
        if isinstance(stop, SweepStopped) or not is_told_to_stop():
            raise stop


def train_if_missing(run: ResolvedRun, folder: Path) -> Result | None:
    """Train or resume a run of a sweep `folder`; None if it is done or another process has it."""
    path = path_of_run(run, folder)
    run_folder = RunFolder(path, within=folder)
    try:
        with run_folder.held():
            before = run_folder.read_result()
            if not is_missing(before, run.config.retry):
                return None
            if before is not None and before.status in FAILURES:
                with files.explained(path):  # start over
                    files.remove_folder(run_folder.best_checkpoint.parent, within=path)
                    for file in (run_folder.history_file, run_folder.predictions_file):
                        files.remove(file, within=path)
            from convscape.training.run import record_error, train

            try:
                return train(run, path)
            except ConfigError as error:  # an error in this run alone, such as its data.val_size
                status: Status = "infeasible" if isinstance(error, InfeasibleGeometry) else "failed"
                return never_begun(run_folder, run, status, error)
            except Exception as error:  # noqa: BLE001 # before its training, which records its own
                result = record_error(new_result(run), error, path, run.config.allow_packages)
                run_folder.create(result)
                return result
    except RunIsBusy:
        return None


def path_of_run(run: ResolvedRun, folder: Path) -> Path:
    """Where a run is, or will be, in a sweep `folder`."""
    return next(folder.glob(f"*-{run.fingerprint}"), folder / run.name)


_STOP = ".stopped-by-fail-fast"


def prepare(configs: Iterable[Config], part_configs: Iterable[Config]) -> None:
    """Load each data set and named part once, before all runs: shows mistakes, builds the cache.

    Raises:
        ConfigError: if one of them cannot be used.
    """
    from convscape.runs.data import describe
    from convscape.training.build import data_module, find_parts
    from convscape.training.loggers import check_installed

    configs = list(configs)
    say(*dict.fromkeys(ln for config in configs for ln in describe(config)))
    for config in configs:
        check_installed(config.logger)
        data_module(ResolvedRun(config))
    for config in part_configs:
        find_parts(config)


def _record_infeasible(
    plan: SweepPlan, folder: Path, missing: list[PlannedRun]
) -> dict[str, Result]:
    """Give each impossible run among the `missing` its folder and result; return the results."""
    states = {}
    for run in missing:
        if run.reason is not None:
            states[run.fingerprint] = never_begun(
                RunFolder(folder / run.name),
                ResolvedRun(plan.infeasible_configs[run.fingerprint], chosen(run.overrides)),
                "infeasible",
                InfeasibleGeometry(run.reason),
            )
    return states


def _for_all_runs(cfg: DictConfig) -> list[str]:
    """Overrides that adapt every run of a sweep to where it runs."""
    # a line per run, or the table of all runs, is enough
    extra = ["trainer.progress=off"] if cfg.trainer.progress == "auto" else []
    if launcher_of(cfg) not in ON_THIS_MACHINE:
        extra.append("hydra.sweep.dir=.")  # otherwise Hydra creates it, on any node
    # joblib's processes share the cores: two threads on one core make both crawl
    if cfg.hydra.launcher.get("n_jobs") is not None and cfg.trainer.threads is None:
        extra.append(f"trainer.threads={num_threads(None, num_at_once(cfg))}")
    return extra


def sweep_exit_code(runs: Sequence[PlannedRun], results: list[Result]) -> int:
    """0 if every run is ok, impossible, or being worked on by another process; otherwise 1."""
    is_well = {"ok", "infeasible", "running"} >= {result.status for result in results}
    return 0 if is_well and len(results) == len(runs) else 1
