"""Optuna over the same configs: each trial is an ordinary run in an ordinary folder.

Workers share a folder, and a study in sqlite, PostgreSQL or a journal file. Each is a process that
takes a trial, trains it and tells what came out, until all together have made `trials` of them.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, ValidationError

from convscape.base.errors import CannotWrite, ConfigError, Stopped, code_of_stop
from convscape.base.files import explained, make_folder, remove_folder
from convscape.base.sections import Section
from convscape.base.terminal import format_table, say
from convscape.base.values import hint, typed_value
from convscape.config.allowed import error_message
from convscape.config.check import check
from convscape.config.compose import Composer
from convscape.config.metrics import EPOCH_METRICS, metric, not_logged
from convscape.config.networks import OwnModelConfig
from convscape.geometry.window import InfeasibleGeometry
from convscape.runs import obstacles
from convscape.runs.folder import FAILURES, RunFolder, output_folder
from convscape.runs.resolved import ResolvedRun
from convscape.sweeps.definition import definition_of
from convscape.sweeps.run import SweepStopped, path_of_run, prepare, stop_of
from convscape.sweeps.search_figures import draw_study
from convscape.sweeps.study import IMPOSSIBLE, finished, open_study
from convscape.sweeps.words import short_error
from convscape.training.unread import refuse_unread, refuse_unread_space

if TYPE_CHECKING:
    from convscape.config.compose import Compose
    from convscape.config.metrics import Metric
    from convscape.config.schema import Config
    from convscape.runs.result import Result
    from convscape.sweeps.study import SharedStudy


MAXIMIZE, MINIMIZE = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
OBJECTIVES = (*EPOCH_METRICS, "macs", "num_parameters")  # and whatever trainer.monitor is
MAX_IMPOSSIBLE = 50  # in a row: then the space has no possible network


class Choices(Section):
    """A list of values; what Optuna cannot hold, as a list of channels, is written as a string."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    @property
    def distribution(self) -> BaseDistribution:
        """The same to Optuna."""
        return CategoricalDistribution(self.choices)


class Range(Section):
    """All numbers from `low` to `high`; integers where both are."""

    low: int | float
    high: int | float
    log: bool = False

    @property
    def distribution(self) -> BaseDistribution:
        """The same to Optuna."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)


class SearchConfig(Section):
    """conf/search/*.yaml, its space flat: key of the config -> values."""

    trials: Annotated[int, Field(ge=1)]
    objectives: Annotated[list[str], Field(min_length=1, max_length=2)]
    storage: str | None
    sampler: Literal["tpe", "random"]
    prune: bool
    sampler_seed: int | None
    space: Annotated[dict[str, Choices | Range], Field(min_length=1)]

    @property
    def prunes(self) -> bool:
        """Optuna can only where there is one objective, and it differs from epoch to epoch."""
        first, *others = self.objectives
        return self.prune and not others and metric(first).split is not None


class Pruned(Stopped):
    """The trial is worse than the median of the others at the same epoch."""


def run_search(cfg: DictConfig, arguments: list[str], compose: Compose) -> int:
    """Work on the search that `cfg` describes until it is done; returns the exit code.

    Raises:
        ConfigError: if the space or the storage cannot be used.
    """
    composed: Any = OmegaConf.to_container(cfg, resolve=True)
    search = _checked(composed.pop("search"))
    config = check(composed)
    if config.name is None:
        raise ConfigError("name=null: a search needs a name, for its folder")
    if config.trainer.devices > 1:
        raise ConfigError(
            "trainer.devices must be 1 in a search: its workers are the parallel part"
        )
    objectives = _objectives(search, config)
    _refuse_without_effect(search, config, arguments)
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
    if len(finished(study.trials())) < search.trials:
        prepare([config], [config])
    worker = _Worker(search, study, folder, [*fixed, *_quiet(cfg)], compose)
    code = None
    try:
        worker.work()
    except SweepStopped as stop:
        code = 1
        say(f"error: {stop}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        code = code_of_stop(stop)
        say("interrupted; the same command continues")
    failed = [t for t in finished(study.trials()) if t.state == TrialState.FAIL]
    say(*_summary(search, study, failed, folder))
    return int(bool(failed)) if code is None else code


def _quiet(cfg: DictConfig) -> list[str]:
    """Where there is no terminal the line of each run is enough."""
    is_wanted = cfg.trainer.progress != "auto" or sys.stderr.isatty()
    return [] if is_wanted else ["trainer.progress=off"]


def _checked(section: dict[str, Any]) -> SearchConfig:
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
    return search


def _objectives(search: SearchConfig, config: Config) -> list[Metric]:
    """What a search is for.

    Raises:
        ConfigError: if it is nothing that each trial has.
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
                "search.objectives=macs: of a network of your own they are not known; "
                "num_parameters are"
            )
    return [known[name] for name in search.objectives]


def _refuse_without_effect(search: SearchConfig, config: Config, arguments: list[str]) -> None:
    """Refuse what the trials would not read, or choose themselves.

    Raises:
        ConfigError: naming the key.
    """
    refuse_unread(config)
    refuse_unread_space(config, search.space)
    if config.until is not None:
        raise ConfigError(f"until={config.until}: only a sweep reads it; leave it out")
    for argument in arguments:
        if (key := argument.lstrip("+~").partition("=")[0]) in search.space:
            raise ConfigError(
                f"{argument}: the search tries values of its own for it; leave it out, or take "
                f"the key out of the space with ~search.space.{key}"
            )


_OF_VALUES = ("choices", "low", "high", "log")


def _flat_space(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What is searched, by its key; `optimizer` may have choices, and keys below it too."""
    for name, value in node.items():
        if not isinstance(value, dict):
            yield prefix + name, value
            continue
        own = {key: entry for key, entry in value.items() if key in _OF_VALUES}
        below = {key: entry for key, entry in value.items() if key not in _OF_VALUES}
        if own:
            yield prefix + name, own
        yield from _flat_space(below, f"{prefix}{name}.")


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
        definition=definition_of(typed, {}) | dict(_definition(search)),
        space={key: values.distribution for key, values in search.space.items()},
        extend=cfg.extend,
    )


def _definition(search: SearchConfig) -> Iterator[tuple[str, str]]:
    """What makes it another search, by key as it is typed."""
    for key in ("objectives", "sampler", "prune"):
        yield f"search.{key}", typed_value(getattr(search, key))
    for name, values in search.space.items():
        for key, value in values.model_dump().items():
            yield f"search.space.{name}.{key}", typed_value(value)


class _Worker:
    """One process that makes trials."""

    def __init__(
        self,
        search: SearchConfig,
        study: SharedStudy,
        folder: Path,
        fixed: list[str],
        compose: Compose,
    ) -> None:
        self.search, self.study, self.folder = search, study, folder
        self.fixed, self.composer = fixed, Composer(compose)

    def work(self) -> None:
        """Make trials until all workers together have made enough.

        Raises:
            KeyboardInterrupt: if a trial was interrupted; whoever comes next takes it up.
            ConfigError: if a value of the space makes no sense, or no network is possible.
        """
        num_impossible = 0
        with self.study.at_work():
            while (trial := self.study.next_trial(self.search.trials)) is not None:
                num_impossible = 0 if self._make(trial) else num_impossible + 1
                if num_impossible == MAX_IMPOSSIBLE:
                    raise ConfigError(f"{MAX_IMPOSSIBLE} networks in a row were impossible")

    @cached_property
    def _fixed_config(self) -> dict[str, Any]:
        """What all trials have in common."""
        return self.composer.config(self.fixed)

    def _plus(self, key: str) -> str:
        """Of an argument of a part of the user's that no file names: it is added."""
        section: Any = self._fixed_config
        *path, leaf = key.split(".")
        for part in path:
            section = section.get(part, {}) if isinstance(section, dict) else {}
        named = isinstance(section, dict) and str(section.get("_target_"))
        is_own = named and not named.startswith(("None", "convscape.models."))
        return "+" if is_own and leaf not in section else ""

    def _make(self, trial: optuna.Trial) -> bool:
        """Train one trial; False if its network cannot exist."""
        chosen = [f"{self._plus(k)}{k}={value}" for k, value in self.study.values(trial).items()]
        overrides = [*self.fixed, *chosen]
        try:
            config = check(self.composer.config(overrides))
            run = ResolvedRun(config, overrides)
            run.plan  # noqa: B018  raises
        except InfeasibleGeometry as error:
            trial.set_user_attr(IMPOSSIBLE, str(error))
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        except ConfigError as error:
            self._refuse(trial, error)
        path = path_of_run(run, self.folder)
        trial.set_user_attr("folder", str(path))
        try:
            # another worker may make the same network
            run_folder = RunFolder(path, within=self.folder)
            if (obstacle := obstacles.of_run(run_folder, run.fingerprint)) is not None:
                # the trial stays as it is, and whoever comes next takes it up
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
        """End a trial of values that no run can use, and the search.

        Raises:
            ConfigError: always.
        """
        trial.set_user_attr(IMPOSSIBLE, str(error))
        self.study.tell(trial, state=TrialState.FAIL)
        raise ConfigError(f"search.space: {error}") from None

    def _trained(self, trial: optuna.Trial, run: ResolvedRun, path: Path) -> Result:
        before = RunFolder(path).read_result()
        if before is not None and before.status == "ok":
            return before
        if before is not None and before.status in FAILURES:
            with explained(path):
                remove_folder(RunFolder(path).last_checkpoint.parent, within=path)
        from convscape.training.run import train

        reported = set(self.study.trials()[trial.number].intermediate_values)

        def on_epoch(row: dict[str, float]) -> None:
            epoch = int(row["epoch"])
            name = self.search.objectives[0]
            is_last = epoch == run.max_epochs
            if not self.search.prunes or is_last or name not in row:
                return
            if epoch not in reported:  # by a worker that died before it was saved
                trial.report(row[name], epoch)
            if trial.should_prune():
                raise Pruned(f"worse than the median of the others at epoch {epoch}")

        return train(run, path, on_epoch)

    def _tell(self, trial: optuna.Trial, result: Result) -> None:
        """Record what came out.

        Raises:
            KeyboardInterrupt: if nothing came out, since the run was interrupted.
            ConfigError: if it has not what the search is for, as no other trial will.
        """
        if result.status == "ok":
            values = {
                **result.metrics,
                "macs": result.macs,
                "num_parameters": result.num_parameters,
            }
            known = {name: float(value) for name, value in values.items() if value is not None}
            missing = [name for name in self.search.objectives if name not in known]
            if missing:  # of a module of the user's, and it will be in no other trial
                self.study.tell(trial, state=TrialState.FAIL)
                raise ConfigError(f"search.objectives={not_logged(missing[0], known)}")
            found = [known[objective] for objective in self.search.objectives]
            self.study.tell(trial, found)
            pairs = zip(self.search.objectives, found, strict=True)
            words = ", ".join(f"{name} {value:g}" for name, value in pairs)
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
        say(f"[{num_finished}/{self.search.trials}]  {result.run}  {words}")


def _summary(
    search: SearchConfig, shared: SharedStudy, failed: Sequence[FrozenTrial], folder: Path
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
    best = study.best_trials if len(search.objectives) > 1 else [study.best_trial]
    best = sorted({tuple(t.values): t for t in best}.values(), key=lambda t: t.values)
    rows = [(*search.objectives, *search.space)]
    rows += [
        (*(f"{v:g}" for v in t.values), *(f"{t.params.get(key, '')}" for key in search.space))
        for t in best
    ]
    title = "best:" if len(search.objectives) == 1 else "no other is better in both:"
    from convscape.reports.page import write_report

    report = write_report([folder], extra=draw_study(study, search.objectives, list(search.space)))
    return [*lines, title, format_table(rows), report.lines[-1]]
