"""Sweeps: plan the whole grid by geometry alone, launch what is missing, sum up. No torch.

A run is found by its fingerprint, so the same command again finishes what is missing, and two
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
from convscape.sweeps.words import NUM_RUNS, first_line, line, overview, place, summary

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
    """Plan, launch what is missing, sum up; returns the exit code.

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
    """The runs of a sweep in its folder, trained wave after wave.

    - `code`: the exit code, once the sweep cannot go on.
    - `blocked`: by fingerprint, what is in the way of a run.
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
        """Of those that have one."""
        return [self._states[run.fingerprint] for run in runs if run.fingerprint in self._states]

    def to_do(self, runs: Iterable[PlannedRun]) -> list[PlannedRun]:
        """Those to be trained; impossible ones get their result, what ended badly comes last."""
        missing = [r for r in runs if is_missing(self._states.get(r.fingerprint), self.cfg.retry)]
        self.blocked |= obstacles.in_sweep(self.folder, (run.fingerprint for run in missing))
        missing = [run for run in missing if run.fingerprint not in self.blocked]
        self._states |= _record_infeasible(self.plan, self.folder, missing)
        todo = [run for run in missing if run.reason is None]
        return sorted(todo, key=lambda run: run.fingerprint in self._states)

    def elsewhere(self, runs: Iterable[PlannedRun]) -> set[str]:
        """Those that other processes are working on, by fingerprint."""
        return busy(self.folder, (run.fingerprint for run in runs))

    def seed_by_seed(self, comparing: Comparing) -> list[PlannedRun]:
        """Train until every comparison is settled; the runs that were asked for."""
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
        """Train those that are missing."""
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
        if cfg.until is None:  # else nobody knows how many there will be
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
        """Say what went wrong in workers.

        Raises:
            ConfigError: if nothing came of the whole batch: the same command would not either.
        """
        launcher = f"hydra/launcher={launcher_of(self.cfg)}"
        is_known = launcher_of(self.cfg) in ON_THIS_MACHINE  # it has said all there is to say
        if (
            (problems or not is_known)
            and find_results(self.folder) == self._states
            and not (self.folder / _STOP).exists()
            and not busy(self.folder, (run.fingerprint for run in batch))
        ):
            reason = "; ".join(problems[:3]) or f"it came back, and {where_to_look(self.cfg)}"
            raise ConfigError(f"{launcher}: {reason}; no run was started")
        say(*(f"{launcher}: {problem}" for problem in problems), file=sys.stderr)

    def _wait_for_others(self, runs: Sequence[PlannedRun]) -> None:
        """Until the runs that other processes have begun are done there."""
        try:
            for number in wait_for_others(self.folder, [run.fingerprint for run in runs]):
                say(f"waiting for {counted(number, 'run')} in other processes")
        except KeyboardInterrupt as stop:
            self.code = code_of_stop(stop)


def _say_report(folder: Path) -> None:
    """Write the report; whatever is wrong with it costs neither the runs nor the exit code."""
    from convscape.reports.page import write_report

    try:
        say(*write_report([folder]).lines)
    except ConfigError as error:
        say(f"no report: {error}", file=sys.stderr)
    except Exception as error:  # noqa: BLE001
        say(f"no report: {type(error).__name__}: {first_line(error)}", file=sys.stderr)


def folder_of_sweep(cfg: DictConfig, arguments: list[str]) -> Path:
    """Where the runs of a sweep are; one without a name has that of its grid."""
    return output_folder(cfg.output_dir) / "sweeps" / (cfg.name or f"sweep-{digest_of(arguments)}")


class SweepStopped(KeyboardInterrupt):
    """No run of the sweep can go on. As of Ctrl-C, no launcher takes it for the error of one."""


def stop_of(result: Result) -> KeyboardInterrupt:
    """What an interrupted run means to the runs after it, to be raised."""
    assert result.error is not None
    is_about_the_disk = result.error["type"] == CannotWrite.__name__
    return (SweepStopped if is_about_the_disk else KeyboardInterrupt)(result.error["message"])


@contextmanager
def _stopping_workers(folder: Path, do_jobs_go_on: bool) -> Iterator[list[int]]:
    """Hand a signal on to the workers of this process, and let their runs be saved.

    - `do_jobs_go_on`: the workers are jobs, of which the launcher knows what becomes of them.
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

    is_main = threading.current_thread() is threading.main_thread()  # only that one may
    signals = (signal.SIGINT, signal.SIGTERM) if is_main else ()
    # not the file of fail_fast: another process that shares the sweep goes on
    with stop_file(folder) as tell_workers:
        before = {signum: signal.signal(signum, stop) for signum in signals}
        try:
            yield received
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)


def say_line(result: Result, done: str, left: str) -> None:
    if not live.is_here():  # then the table does
        say(line(result, done, left))


def run_in_sweep(
    config: Config,
    overrides: list[str],
    number: int,
    tell: Callable[[Result, str, str], None] = say_line,
) -> None:
    """Run `number`, counted from 0, of a sweep, in whatever process a launcher has put it.

    - `tell`: gets its result, how many of how many that was, and the time left.
    """
    assert config.name is not None
    folder = Path(config.output_dir) / "sweeps" / config.name
    if (folder / _STOP).exists() or is_told_to_stop():
        return
    if not (folder / NOTE).is_file():  # which was written before any run was launched
        raise not_seen(folder)
    try:
        result = train_if_missing(ResolvedRun(config, chosen(overrides)), folder)
    except CannotWrite as error:
        raise SweepStopped(str(error)) from None
    except files.NotInside as error:  # a launcher would keep it to itself
        say(f"error: {error}", file=sys.stderr)
        return
    if result is None:
        return
    tell(result, place(number + 1), "" if live.is_here() else live.time_left_of(folder)())
    if result.status in FAILURES and config.fail_fast:
        files.append(folder / _STOP, within=folder).close()
    if result.status == "interrupted":
        stop = stop_of(result)
        # of a signal the sweep knows, and waits for its workers
        if isinstance(stop, SweepStopped) or not is_told_to_stop():
            raise stop


def train_if_missing(run: ResolvedRun, folder: Path) -> Result | None:
    """Train the run of a sweep `folder`, or go on with it; None if it is done or another's."""
    path = path_of_run(run, folder)
    run_folder = RunFolder(path, within=folder)
    try:
        with run_folder.held():
            before = run_folder.read_result()
            if not is_missing(before, run.config.retry):
                return None
            if before is not None and before.status in FAILURES:
                with files.explained(path):  # begin anew
                    files.remove_folder(run_folder.best_checkpoint.parent, within=path)
                    for file in (run_folder.history_file, run_folder.predictions_file):
                        files.remove(file, within=path)
            from convscape.training.run import record_error, train

            try:
                return train(run, path)
            except ConfigError as error:  # what only this run has wrong, as its own data.val_size
                status: Status = "infeasible" if isinstance(error, InfeasibleGeometry) else "failed"
                return never_begun(run_folder, run, status, error)
            except Exception as error:  # noqa: BLE001 # before its training, which notes its own
                result = record_error(new_result(run), error, path, run.config.allow_packages)
                run_folder.create(result)
                return result
    except RunIsBusy:
        return None


def path_of_run(run: ResolvedRun, folder: Path) -> Path:
    """Where in a sweep `folder` a run is, or will be."""
    return next(folder.glob(f"*-{run.fingerprint}"), folder / run.name)


_STOP = ".stopped-by-fail-fast"


def prepare(configs: Iterable[Config], part_configs: Iterable[Config]) -> None:
    """Load each data set and named part once, before all runs: a mistake shows, a cache is built.

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
    """Give each impossible one of the `missing` runs its folder and result, and return these."""
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
    """Overrides that suit every run of a sweep to where it happens."""
    # a line for each run, or the table of all of them, is enough
    extra = ["trainer.progress=off"] if cfg.trainer.progress == "auto" else []
    if launcher_of(cfg) not in ON_THIS_MACHINE:
        extra.append("hydra.sweep.dir=.")  # else Hydra makes it, on a node that does not see it too
    # joblib's processes share the cores: two threads for one core make both crawl
    if cfg.hydra.launcher.get("n_jobs") is not None and cfg.trainer.threads is None:
        extra.append(f"trainer.threads={num_threads(None, num_at_once(cfg))}")
    return extra


def sweep_exit_code(runs: Sequence[PlannedRun], results: list[Result]) -> int:
    """0 if every run is ok, impossible, or another process is still working on it; else 1."""
    is_well = {"ok", "infeasible", "running"} >= {result.status for result in results}
    return 0 if is_well and len(results) == len(runs) else 1
