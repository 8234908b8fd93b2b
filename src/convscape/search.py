"""Optuna over the same configs: each trial is an ordinary run in an ordinary folder.

Workers share a study in sqlite, PostgreSQL or a journal file; each is one process that asks for a
trial, trains it and tells what came out, until all workers together have made `trials` of them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf
from pydantic import Field, ValidationError

from convscape.cli import say
from convscape.config import Section, check
from convscape.errors import ConfigError, Stopped, code_of_stop
from convscape.geometry import InfeasibleGeometry, format_table
from convscape.runs import Result, RunFolder, RunIsBusy, fingerprint, run_name
from convscape.sweep import FAILURES, Compose, Composer, SweepStopped, quiet, stop_of
from convscape.values import mistake

try:
    import optuna
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState
except ImportError:
    raise ConfigError("scripts/search.py needs Optuna: pip install -e '.[search]'") from None

MAXIMIZE, MINIMIZE = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
DIRECTIONS = {
    "val/acc": MAXIMIZE,
    "val/loss": MINIMIZE,
    "macs": MINIMIZE,
    "num_parameters": MINIMIZE,
}
MOST_IMPOSSIBLE = 50  # in a row: then the space has no possible network
UNSTARTED_S = 600  # a trial without a folder after this many seconds has lost its worker


class Choices(Section):
    """A list of values; what Optuna cannot hold, as a list of channels, is written as a string."""

    choices: Annotated[list[bool | int | float | str | None], Field(min_length=1)]

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """One of them."""
        return trial.suggest_categorical(name, self.choices)


class Range(Section):
    """All numbers from `low` to `high`; integers where both are."""

    low: int | float
    high: int | float
    log: bool = False

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """One of them."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


class SearchConfig(Section):
    """conf/search/*.yaml, its space flat: key of the config -> values."""

    trials: Annotated[int, Field(ge=1)]
    objectives: Annotated[
        list[Literal["val/acc", "val/loss", "macs", "num_parameters"]],
        Field(min_length=1, max_length=2),
    ]
    storage: str | None
    sampler: Literal["tpe", "random"]
    prune: bool
    sampler_seed: int | None
    space: Annotated[dict[str, Choices | Range], Field(min_length=1)]


class Pruned(Stopped):
    """The trial is worse than the median of the others at the same epoch."""


def run_search(cfg: DictConfig, arguments: list[str], compose: Compose) -> int:
    """Work on the search that `cfg` describes until it is done; returns the exit code.

    Raises:
        ConfigError: if the space or the storage cannot be used.
    """
    composed: Any = OmegaConf.to_container(cfg, resolve=True)
    search = _checked(composed.pop("search"))
    if check(composed).name is None:
        raise ConfigError("name=null: a search needs a name, for its folder")
    folder = Path(cfg.output_dir) / "searches" / cfg.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write the folder {folder}: {error.strerror}") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(search, folder)
    worker = _Worker(search, study, folder, [*arguments, *quiet(cfg)], compose)
    code = 0
    try:
        worker.work()
    except SweepStopped as stop:
        code = 1
        say(f"error: {stop}", file=sys.stderr)
    except KeyboardInterrupt as stop:
        code = code_of_stop(stop)
        say("interrupted; the same command goes on")
    say(*_summary(search, study, folder))
    return code


def _checked(section: dict[str, Any]) -> SearchConfig:
    section = {**section, "space": dict(_flat_space(section.get("space") or {}))}
    try:
        search = SearchConfig.model_validate(section)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"] if part not in ("Choices", "Range"))
        raise ConfigError(mistake(f"search.{key}", first)) from None
    for key, values in search.space.items():
        if isinstance(values, Range) and not values.low < values.high:
            raise ConfigError(f"search.space.{key}: low={values.low} is not below {values.high}")
        if isinstance(values, Range) and values.log and values.low <= 0:
            raise ConfigError(f"search.space.{key}: log=true needs a low above 0")
    return search


def _flat_space(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and not {"choices", "low", "high"} & set(value):
            yield from _flat_space(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


# --- the study --------------------------------------------------------------------------------


def _study(search: SearchConfig, folder: Path) -> optuna.Study:
    """The study that all workers share; the first of them creates it, one at a time."""
    url = search.storage or f"sqlite:///{folder / 'study.db'}"
    sampler: optuna.samplers.BaseSampler = (
        optuna.samplers.TPESampler(seed=search.sampler_seed, constant_liar=True)
        if search.sampler == "tpe"
        else optuna.samplers.RandomSampler(seed=search.sampler_seed)
    )
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if search.prune and len(search.objectives) == 1:
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    with FileLock(folder / ".study.lock"):
        try:
            study = optuna.create_study(
                study_name=folder.name,
                storage=_storage(url),
                sampler=sampler,
                pruner=pruner,
                directions=[DIRECTIONS[objective] for objective in search.objectives],
                load_if_exists=True,
            )
        except Exception as error:  # noqa: BLE001  each database has its own errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"search.storage={url} cannot be used: {reason}"  # printed without its password
            ) from None
    objectives = study.user_attrs.get("objectives", search.objectives)
    if objectives != search.objectives:
        raise ConfigError(
            f"name={folder.name} is in use by a search for {', '.join(objectives)}; "
            "choose another name"
        )
    study.set_user_attr("objectives", search.objectives)
    return study


def _storage(url: str) -> optuna.storages.BaseStorage:
    if url.startswith("journal:"):
        return optuna.storages.JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    wait = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    return optuna.storages.RDBStorage(url, engine_kwargs=wait)


# --- a worker ---------------------------------------------------------------------------------


class _Worker:
    """One process that makes trials."""

    def __init__(
        self,
        search: SearchConfig,
        study: optuna.Study,
        folder: Path,
        arguments: list[str],
        compose: Compose,
    ) -> None:
        self.search, self.study, self.folder = search, study, folder
        self.arguments, self.composer = arguments, Composer(compose)

    def work(self) -> None:
        """Make trials until all workers together have made enough.

        Raises:
            KeyboardInterrupt: if a trial was interrupted; it is put back.
            ConfigError: if a value of the space makes no sense, or no network is possible.
        """
        num_impossible = 0
        while True:
            self._put_back_the_dead()
            if self._num_trials() >= self.search.trials:
                return
            trial = self.study.ask()
            num_impossible = 0 if self._make(trial) else num_impossible + 1
            if num_impossible == MOST_IMPOSSIBLE:
                raise ConfigError(f"{MOST_IMPOSSIBLE} networks in a row were impossible")

    def _num_trials(self) -> int:
        """Trials that are made or being made; impossible ones and those put back left out."""
        trials = self.study.get_trials(deepcopy=False)
        return sum(
            trial.state != TrialState.WAITING
            and not {"impossible", "put_back"} & set(trial.user_attrs)
            for trial in trials
        )

    def _make(self, trial: optuna.Trial) -> bool:
        """Train one trial; False if its network cannot exist."""
        chosen = [
            f"{key}={values.suggest(trial, key)}" for key, values in self.search.space.items()
        ]
        fixed = [a for a in self.arguments if not a.lstrip("+").startswith(("search", "name="))]
        try:
            config = check(self.composer.config([*fixed, *chosen]))
            config.plan()
        except InfeasibleGeometry as error:
            trial.set_user_attr("impossible", str(error))
            self.study.tell(trial, state=TrialState.PRUNED)
            return False
        except ConfigError as error:
            trial.set_user_attr("impossible", str(error))
            self.study.tell(trial, state=TrialState.FAIL)
            raise ConfigError(f"search.space: {error}") from None
        digest = fingerprint(config)
        overrides = [*fixed, *chosen]
        path = next(
            self.folder.glob(f"*-{digest}"), self.folder / run_name(config, overrides, digest)
        )
        try:
            with RunFolder(path).held():  # who has a folder that nobody holds is taken for dead
                trial.set_user_attr("folder", str(path))
                self._tell(trial, self._trained(trial, config, path, overrides))
        except RunIsBusy:  # another worker makes the same network
            self._put_back(trial)
        return True

    def _trained(
        self, trial: optuna.Trial, config: Any, path: Path, overrides: list[str]
    ) -> Result:
        before = RunFolder(path).read_result()
        if before is not None and before.status == "ok":
            return before
        if before is not None and before.status in FAILURES:
            shutil.rmtree(path / "checkpoints", ignore_errors=True)
        from convscape.training import train

        prunes = self.search.prune and len(self.search.objectives) == 1

        def on_epoch(row: dict[str, float]) -> None:
            if not prunes or row["epoch"] == config.trainer.max_epochs:
                return
            trial.report(row[self.search.objectives[0]], int(row["epoch"]))
            if trial.should_prune():
                raise Pruned(f"worse than the median of the others at epoch {row['epoch']:.0f}")

        return train(config, path, overrides, on_epoch)

    def _tell(self, trial: optuna.Trial, result: Result) -> None:
        values = {**result.metrics, "macs": result.macs, "num_parameters": result.num_parameters}
        if result.status == "ok":
            found = [float(values[objective] or 0) for objective in self.search.objectives]
            self.study.tell(trial, found)
            words = ", ".join(
                f"{name} {value:g}"
                for name, value in zip(self.search.objectives, found, strict=True)
            )
            say(f"[{self._num_trials()}/{self.search.trials}]  {result.run}  {words}")
            return
        assert result.error is not None
        say(f"[{self._num_trials()}/{self.search.trials}]  {result.run}  {_ending(result)}")
        if result.error["type"] == "Pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        elif result.status == "interrupted":
            self._put_back(trial)
            raise stop_of(result)
        else:
            self.study.tell(trial, state=TrialState.FAIL)

    def _put_back_the_dead(self) -> None:
        """Give trials of workers that are dead to whoever comes next."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = trial.user_attrs.get("folder")
            if folder is None:
                assert trial.datetime_start is not None
                age = datetime.now() - trial.datetime_start
                if age > timedelta(seconds=UNSTARTED_S):
                    self._put_back(trial)
                continue
            with suppress(RunIsBusy):
                with RunFolder(Path(folder)).held():
                    is_given_up = self._give_up(trial)
                if is_given_up:  # only now: whoever takes it up needs the folder
                    self.study.enqueue_trial(trial.params)

    def _put_back(self, trial: optuna.Trial | FrozenTrial) -> None:
        if self._give_up(trial):
            self.study.enqueue_trial(trial.params)

    def _give_up(self, trial: optuna.Trial | FrozenTrial) -> bool:
        """Mark a trial as failed; False if it was ended since it was looked up."""
        try:
            self.study._storage.set_trial_user_attr(trial._trial_id, "put_back", True)
        except UpdateFinishedTrialError:
            return False
        self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return True


def _ending(result: Result) -> str:
    assert result.error is not None
    if result.error["type"] == "Pruned":
        return f"pruned after epoch {result.epochs}"
    return f"{result.status}: {result.error['type']}: {result.error['message'].splitlines()[0]}"


# --- what a person reads ----------------------------------------------------------------------


def _summary(search: SearchConfig, study: optuna.Study, folder: Path) -> list[str]:
    """Counts, the best trials, and the report."""
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    impossible = sum("impossible" in trial.user_attrs for trial in trials)
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials) - impossible
    lines = [f"search {folder}: {len(done)} trained, {pruned} pruned, {impossible} impossible"]
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
    from convscape.report import write_report

    report = write_report([folder], extra=_plots(search, study))
    return [*lines, title, format_table(rows), report.lines[-1]]


def _plots(search: SearchConfig, study: optuna.Study) -> list[tuple[str, Any]]:
    """Optuna's own figures, as far as the trials allow."""
    from optuna import visualization as draw

    def target(trial: optuna.trial.FrozenTrial) -> float:
        return float(trial.values[0])

    name = search.objectives[0]
    one: dict[str, Any] = {"target": target, "target_name": name}
    fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)

    def importances() -> Any:
        return draw.plot_param_importances(study, fanova, **one)

    makers: list[tuple[str, Callable[[], Any]]] = [
        (f"Which keys matter to {name} (fANOVA).", importances),
        ("Each trial by its values.", lambda: draw.plot_slice(study, **one)),
    ]
    if len(search.space) > 1:
        keys = list(search.space)[-2:]
        makers.append(("Two keys at once.", lambda: draw.plot_contour(study, keys, **one)))
    if len(search.objectives) == 2:
        makers.append(
            (
                "What both objectives allow.",
                lambda: draw.plot_pareto_front(study, target_names=list(search.objectives)),
            )
        )
    figures = []
    for caption, make in makers:
        try:
            figures.append((caption, make()))
        except (RuntimeError, ValueError):  # too few trials for this one
            continue
    return figures
