"""Optuna over the same configs: each trial is an ordinary run in an ordinary folder.

Workers share a folder, and a study in sqlite, PostgreSQL or a journal file. Each is a process that
takes a trial, trains it and records the outcome, until they have done `trials` of them together.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState

from convscape.base.errors import CannotWrite, ConfigError, Stopped, code_of_stop
from convscape.base.files import explained, make_folder, remove_folder
from convscape.base.terminal import format_table, say, wrapped
from convscape.config.check import check
from convscape.config.compose import Composer
from convscape.config.metrics import not_logged
from convscape.geometry.window import InfeasibleGeometry
from convscape.reports.cells import level_text
from convscape.runs import obstacles
from convscape.runs.folder import FAILURES, RunFolder, output_folder
from convscape.runs.progress import ToDo, note_to_do, read_to_do
from convscape.runs.resolved import ResolvedRun
from convscape.sweeps import live
from convscape.sweeps.confirm import Confirmation, Found, confirm_once, note_search
from convscape.sweeps.definition import definition_of
from convscape.sweeps.grid import key_of
from convscape.sweeps.run import SweepStopped, path_of_run, prepare, stop_of
from convscape.sweeps.search_config import checked_search, objectives_of, refuse_without_effect
from convscape.sweeps.search_figures import draw_study
from convscape.sweeps.study import IMPOSSIBLE, finished, open_study
from convscape.sweeps.words import counter, fitted, short_error

if TYPE_CHECKING:
    from convscape.config.compose import Compose
    from convscape.config.metrics import Metric
    from convscape.runs.result import Result
    from convscape.sweeps.search_config import SearchConfig
    from convscape.sweeps.study import SharedStudy


MAXIMIZE, MINIMIZE = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
_PATIENCE_S = 1  # between two checks whether others have finished their trials
MAX_IMPOSSIBLE = 50  # in a row: then the space contains no possible network


class Pruned(Stopped):
    """The trial is worse than the median of the others at the same epoch."""


def run_search(cfg: DictConfig, arguments: list[str], compose: Compose) -> int:
    """Work on the search that `cfg` describes until it is done; returns the exit code.

    Raises:
        ConfigError: if the space or the storage cannot be used.
    """
    composed: Any = OmegaConf.to_container(cfg, resolve=True)
    search = checked_search(composed.pop("search"))
    config = check(composed)
    if config.name is None:
        raise ConfigError("name=null: a search needs a name, for its folder")
    if config.trainer.devices > 1:
        raise ConfigError(
            "trainer.devices must be 1 in a search, which is parallel by having several workers"
        )
    objectives = objectives_of(search, config)
    refuse_without_effect(search, config, arguments)
    if config.choice is not None:
        say(config.choice)
    folder = output_folder(cfg.output_dir) / "searches" / config.name
    try:
        make_folder(folder, within=folder)
    except OSError as error:
        raise ConfigError(f"cannot write the folder {folder}: {error.strerror}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    fixed = [a for a in arguments if not a.lstrip("+~").startswith(("search", "name="))]
    study = _study(cfg, search, objectives, folder, fixed)
    note_search(folder, search, objectives)
    num_left = search.trials - len(finished(study.trials()))
    if num_left > 0:
        prepare([config], [config])
    note_to_do(folder, ToDo(time.time(), more=max(0, num_left)))
    style = config.trainer.progress
    worker = _Worker(search, objectives, study, folder, [*fixed, *_quiet(cfg)], compose, style)
    confirmation = None
    if search.confirms:
        confirmation = Confirmation(search, objectives[0], folder, config.seed, worker.resolve)
    code, elsewhere = None, None
    try:
        elsewhere = worker.work(confirmation)
    except SweepStopped as stop:
        code = 1
        say(f"error: {stop}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        code = code_of_stop(stop)
        say("interrupted; the same command continues")
    failed = [t for t in finished(study.trials()) if t.state == TrialState.FAIL]
    say(*_summary(search, study, failed, folder, elsewhere))
    if elsewhere is not None:
        failed_seeds = elsewhere.num_failed
    else:
        failed_seeds = 0 if confirmation is None else confirmation.num_failed()
    is_well = not failed and not failed_seeds
    return int(not is_well) if code is None else code


def _quiet(cfg: DictConfig) -> list[str]:
    """Overrides to print only a line per run, or the table of all runs."""
    return ["trainer.progress=off"] if cfg.trainer.progress == "auto" else []


def _study(
    cfg: DictConfig,
    search: SearchConfig,
    objectives: list[Metric],
    folder: Path,
    typed: list[str],
) -> SharedStudy:
    """The study that all workers share."""
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=search.sampler_seed, constant_liar=True)
        if search.sampler == "tpe"
        else optuna.samplers.RandomSampler(seed=search.sampler_seed)
    )
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.prunes:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    return open_study(
        folder,
        search.storage,
        [MAXIMIZE if objective.higher_is_better else MINIMIZE for objective in objectives],
        sampler,
        pruner,
        definition=definition_of(typed, {}) | dict(search.definition()),
        space={key: values.distribution for key, values in search.space.items()},
        objectives=search.objectives,
        extend=cfg.extend,
    )


class _Worker:
    """One process that runs trials."""

    def __init__(
        self,
        search: SearchConfig,
        objectives: Sequence[Metric],
        study: SharedStudy,
        folder: Path,
        fixed: list[str],
        compose: Compose,
        style: str,
    ) -> None:
        self.search, self.objectives, self.study = search, objectives, study
        self.folder, self.style = folder, style
        self.fixed, self.composer = fixed, Composer(compose)

    def work(self, confirmation: Confirmation | None) -> Found | None:
        """Run trials until all workers together have done enough, and confirm the best.

        Returns what another worker found, if it confirmed them in a folder of its own.

        Raises:
            KeyboardInterrupt: if a trial was interrupted; the next worker takes it over.
            ConfigError: if a value of the space makes no sense, or no network is possible.
        """
        with self.study.at_work():
            with live.table(self.folder, self.style, has_answer=False, has_lines=False):
                self._make_trials()
                if confirmation is None:
                    return None
                while self.study.is_running():  # by other workers, one of which may die
                    time.sleep(_PATIENCE_S)
                    self._make_trials()
            retry = bool(self._fixed_config["retry"])
            return confirm_once(confirmation, self.study, self.style, retry)

    def _make_trials(self) -> None:
        num_impossible = 0
        while (trial := self.study.next_trial(self.search.trials)) is not None:
            with self.study.held(trial):
                num_impossible = 0 if self._make(trial) else num_impossible + 1
            if num_impossible == MAX_IMPOSSIBLE:
                raise ConfigError(f"{MAX_IMPOSSIBLE} networks in a row were impossible")

    @cached_property
    def _fixed_config(self) -> dict[str, Any]:
        """The config that all trials have in common."""
        return self.composer.config(self.fixed)

    def _plus(self, key: str) -> str:
        """A plus for an argument of a user's part that is in no file: it has to be added."""
        section: Any = self._fixed_config
        *path, leaf = key.split(".")
        for part in path:
            section = section.get(part, {}) if isinstance(section, dict) else {}
        named = isinstance(section, dict) and str(section.get("_target_"))
        is_own = named and not named.startswith(("None", "convscape.models."))
        return "+" if is_own and leaf not in section else ""

    def resolve(self, values: Mapping[str, Any], seed: int | None = None) -> ResolvedRun:
        """The run of a trial's values, with that `seed` if given.

        Raises:
            ConfigError: if no run can use them.
        """
        overrides = [*self.fixed, *(f"{self._plus(k)}{k}={value}" for k, value in values.items())]
        if seed is not None:
            overrides = [*(o for o in overrides if key_of(o) != "seed"), f"seed={seed}"]
        return ResolvedRun(check(self.composer.config(overrides)), overrides)

    def _make(self, trial: optuna.Trial) -> bool:
        """Train one trial; False if its network cannot exist."""
        try:
            run = self.resolve(self.study.values(trial))
            run.plan  # noqa: B018  raises
        except InfeasibleGeometry as error:
            self.study.note(trial, IMPOSSIBLE, str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            return False
        except ConfigError as error:
            self._refuse(trial, error)
        path = path_of_run(run, self.folder)
        self.study.note(trial, "folder", str(path))
        try:
            # another worker may be training the same network
            run_folder = RunFolder(path, within=self.folder)
            if (obstacle := obstacles.of_run(run_folder, run.fingerprint)) is not None:
                # the trial stays as it is, and the next worker takes it over
                raise SweepStopped(f"in the way of a run: {obstacle}; then the same command again")
            with run_folder.held(wait=True):
                result = self._trained(trial, run, path)
        except CannotWrite as error:
            raise SweepStopped(str(error)) from None
        except ConfigError as error:
            self._refuse(trial, error)
        self._tell(trial, result)
        return True

    def _refuse(self, trial: optuna.Trial, error: ConfigError) -> NoReturn:
        """End a trial whose values no run can use, and the search.

        Raises:
            ConfigError: always.
        """
        self.study.note(trial, IMPOSSIBLE, str(error))
        self.study.tell(trial, state=TrialState.FAIL)
        raise ConfigError(f"search.space: {error}") from None

    def _trained(self, trial: optuna.Trial, run: ResolvedRun, path: Path) -> Result:
        before = RunFolder(path).read_result()
        if before is not None and before.status == "ok":
            todo = read_to_do(self.folder)  # a trial whose network another run trained
            note_to_do(self.folder, replace(todo, more=max(0, todo.more - 1)))
            return before
        if before is not None and before.status in FAILURES:
            with explained(path):
                remove_folder(RunFolder(path).last_checkpoint.parent, within=path)
        from convscape.training.run import train

        reported = set(self.study.trials()[trial.number].intermediate_values)

        def on_epoch(row: dict[str, float]) -> None:
            epoch = int(row["epoch"])
            name = self.search.objectives[0]
            if len(self.search.objectives) > 1 or name not in row:  # Optuna takes only one
                return
            if epoch not in reported:  # reported by a worker that died before saving it
                self.study.report(trial, row[name], epoch)
            is_last = epoch == run.max_epochs
            if self.search.prunes and not is_last and self.study.is_hopeless(trial):
                raise Pruned(f"worse than the median of the others at epoch {epoch}")

        return train(run, path, on_epoch)

    def _tell(self, trial: optuna.Trial, result: Result) -> None:
        """Record the outcome.

        Raises:
            KeyboardInterrupt: if there is no outcome, because the run was interrupted.
            ConfigError: if it lacks the objective, as every other trial will.
        """
        if result.status == "ok":
            values = {
                **result.metrics,
                "macs": result.macs,
                "num_parameters": result.num_parameters,
            }
            known = {name: float(value) for name, value in values.items() if value is not None}
            missing = [name for name in self.search.objectives if name not in known]
            if missing:  # from a user's module, and no other trial will have it
                self.study.tell(trial, state=TrialState.FAIL)
                raise ConfigError(f"search.objectives={not_logged(missing[0], known)}")
            found = [known[objective] for objective in self.search.objectives]
            self.study.tell(trial, found)
            pairs = zip(self.objectives, found, strict=True)
            words = ", ".join(f"{each.name} {each.written(value)}" for each, value in pairs)
        elif result.error is not None and result.error["type"] == Pruned.__name__:
            self.study.tell(trial, state=TrialState.PRUNED)
            words = f"pruned after epoch {result.epochs}"
        elif result.status == "interrupted":
            raise stop_of(result)
        else:
            self.study.tell(trial, state=TrialState.FAIL)
            words = f"{result.status}: {short_error(result)}"
            if result.error is not None and result.error["type"] == "MonitorNotLogged":
                raise ConfigError(result.error["message"])
        num_finished = len(finished(self.study.trials()))
        say(fitted(counter(num_finished, self.search.trials), result.run, words))


def _summary(
    search: SearchConfig,
    shared: SharedStudy,
    failed: Sequence[FrozenTrial],
    folder: Path,
    elsewhere: Found | None,
) -> list[str]:
    """Counts, what failed, the best trials, and the report."""
    study, trials = shared.study, shared.trials()
    counts = Counter(trial.state for trial in trials)
    impossible = sum(IMPOSSIBLE in trial.user_attrs for trial in trials)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    pruned = sum(trial.state == TrialState.PRUNED for trial in finished(trials))
    words = [f"{len(done)} trained", f"{pruned} pruned", f"{impossible} impossible"]
    words += [f"{len(failed)} failed"] if failed else []
    words += [f"{n} not finished"] if (n := counts[TrialState.RUNNING]) else []
    lines = [f"search {folder}: {', '.join(words)}"]
    for trial in failed:
        result = RunFolder(Path(trial.user_attrs.get("folder", ""))).read_result()
        if result is not None and result.error is not None:
            lines.append(f"  {result.status}: {result.run}: {short_error(result)}")
    if not done:
        return lines
    from convscape.reports.page import write_report

    figures = draw_study(study, search.objectives, list(search.space))
    report = write_report([folder], extra=figures)
    confirmed = [line for section in report.sections for line in section.winner]
    if elsewhere is not None:
        confirmed = [elsewhere.words]  # this folder has at most a part of it
    title = "no other trial is better in both:"
    if len(search.objectives) == 1:
        title = f"the best of {len(finished(trials))} trials, and so the luckiest:"
    said = [line for sentence in confirmed for line in wrapped(sentence)]
    return [*lines, title, _best(search, study), *said, report.lines[-1]]


def _best(search: SearchConfig, study: optuna.Study) -> str:
    """The best trials as a table."""
    best = study.best_trials if len(search.objectives) > 1 else [study.best_trial]
    best = sorted({tuple(t.values): t for t in best}.values(), key=lambda t: t.values)
    rows = [(*search.objectives, *search.space)]
    rows += [
        (*(f"{v:g}" for v in t.values), *(level_text(t.params.get(key)) for key in search.space))
        for t in best
    ]
    return format_table(rows)
