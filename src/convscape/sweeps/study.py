"""The study that a search's workers share: what it is, whose turn it is, what is finished.

A trial is finished if its outcome was recorded, and running if its worker is alive; otherwise the
next worker takes it over. Workers of a study in a file see each other in the search's folder: each
locks its own file there while it is alive. Those of a database server may share nothing else: there
Optuna's heartbeat shows who is alive, and puts the trial of a dead worker back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import Timeout
from optuna.distributions import BaseDistribution, check_distribution_compatibility
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from convscape.base.distribution import install
from convscape.base.errors import ConfigError
from convscape.base.files import lock, refuse_links, remove
from convscape.base.terminal import say
from convscape.base.values import typed_value
from convscape.sweeps.database import (
    SURPLUS,
    beating,
    database,
    next_of_database,
    no_warnings,
    patiently,
    patiently_created,
    put_back,
    retried,
)
from convscape.sweeps.definition import check_same

IMPOSSIBLE = "impossible"  # attribute of a trial: why its network cannot exist
WORKER = "worker"  # attribute of a trial: the file that its worker locks
_PUT_BACK = "put_back"  # in older studies: a trial that is repeated under another number
_TOO_LATE = "trial {} was given to another worker, because this one seemed to be dead"
# What may differ in a search that extends an earlier one of the same name. How and on what trials
# are measured may not: a best trial has to be one among equals.
_EXTENSIBLE = ("search.space.", "search.sampler", "search.prune")


class SharedStudy:
    """Optuna's study of a search in `folder`, as one of its workers sees it.

    - `has_heartbeat`: its storage is a server, which may be all that its workers share.
    """

    def __init__(
        self,
        study: optuna.Study,
        folder: Path,
        space: Mapping[str, BaseDistribution],
        has_heartbeat: bool,
    ) -> None:
        self.study, self.folder, self.space = study, folder, space
        self._has_heartbeat = has_heartbeat
        self.worker = f".worker-{uuid4().hex}"
        self._file = folder / self.worker

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the trials that this worker was given as its own for as long as this lasts."""
        with lock(self._file, within=self.folder):
            try:
                yield
            finally:
                remove(self._file, within=self.folder)

    @contextmanager
    def held(self, trial: optuna.Trial) -> Iterator[None]:
        """Show the other workers, for as long as this lasts, that this one is alive.

        If it is interrupted, the next worker gets the trial; if it was presumed dead anyway,
        another worker has the trial, and the first answer counts.
        """
        with beating(self.study, trial) if self._has_heartbeat else nullcontext():
            try:
                yield
            except UpdateFinishedTrialError:
                say(_TOO_LATE.format(trial.number))
            except BaseException:
                if self._has_heartbeat:
                    put_back(self.study, trial)
                raise

    def next_trial(self, num_wanted: int) -> optuna.Trial | None:
        """A trial left by a dead worker, or else a new one; None if enough are done or running.

        One worker at a time checks and takes, so together they run exactly `num_wanted`. With a
        database, None means that enough are done: it waits for those running elsewhere, since their
        workers may have died a moment ago.
        """
        if self._has_heartbeat:
            return next_of_database(self.study, num_wanted, finished)
        with lock(self.folder / ".study.lock", within=self.folder):
            living = _living(self.folder)
            trials = self.trials()  # after checking who may still finish one
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            left = [trial for trial in running if trial.user_attrs.get(WORKER) not in living]
            if len(finished(trials)) + len(running) - len(left) >= num_wanted:
                return None
            trial = optuna.Trial(self.study, left[0]._trial_id) if left else self.study.ask()
            trial.set_user_attr(WORKER, self.worker)
            return trial

    def turns(self, what: str) -> SharedStudy | None:
        """A study of who does `what`, as trials; None where the locks of the folder tell that."""
        if not self._has_heartbeat:
            return None
        settings: dict[str, Any] = {"storage": self.study._storage, "load_if_exists": True}
        name = f"{self.study.study_name} {what}"
        study = patiently(lambda: optuna.create_study(study_name=name, **settings))
        return SharedStudy(study, self.folder, {}, has_heartbeat=True)

    @property
    def measured(self) -> dict[str, str]:
        """What its trials are: the part of its definition that `extend` may not change."""
        definition = patiently(lambda: self.study.user_attrs)["definition"]
        return {k: v for k, v in sorted(definition.items()) if not k.startswith(_EXTENSIBLE)}

    def is_here(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a trial sees the folder of this one, and is at work in it."""
        return trial.user_attrs.get(WORKER) in _living(self.folder)

    def is_running(self) -> bool:
        """Whether a live worker is working on a trial."""
        living = _living(self.folder)
        return any(
            trial.state == TrialState.RUNNING and trial.user_attrs.get(WORKER) in living
            for trial in self.trials()
        )

    def values(self, trial: optuna.Trial) -> dict[str, Any]:
        """A value for each key of the space: those the trial already has, and new ones."""
        return {
            key: patiently(partial(trial._suggest, key, among)) for key, among in self.space.items()
        }

    def note(self, trial: optuna.Trial, key: str, value: str) -> None:
        """Store an attribute of a trial."""
        patiently(lambda: trial.set_user_attr(key, value))

    def report(self, trial: optuna.Trial, value: float, epoch: int) -> None:
        """Record an intermediate value; if the storage refuses it, only that value is lost."""
        with suppress(UpdateFinishedTrialError, StorageInternalError, DBAPIError):
            trial.report(value, epoch)

    def is_hopeless(self, trial: optuna.Trial) -> bool:
        """Whether the pruner would end it; a database that does not answer prunes nothing."""
        with suppress(StorageInternalError, DBAPIError):
            return trial.should_prune()
        return False

    def tell(
        self,
        trial: optuna.Trial,
        values: Sequence[float] | None = None,
        state: TrialState | None = None,
    ) -> None:
        """Record the outcome of a trial: its values, or that it was pruned or failed.

        Raises:
            UpdateFinishedTrialError: if this worker was presumed dead meanwhile; see `held`.
        """
        if self.trials()[trial.number].state.is_finished():
            raise UpdateFinishedTrialError
        # a database that stopped before it could answer may have noted it all the same
        told = patiently(lambda: self.study.tell(trial, values, state, skip_if_finished=True))
        is_lost = state != TrialState.FAIL and not any(map(math.isnan, values or ()))
        if told.state == TrialState.FAIL and (is_lost or trial.number in retried(self.trials())):
            raise UpdateFinishedTrialError  # another worker has put it back meanwhile

    def trials(self) -> list[FrozenTrial]:
        """All trials in their current state."""
        return patiently(lambda: self.study.get_trials(deepcopy=False))


def _living(folder: Path) -> set[str]:
    """The live workers of the search, by the names of their files."""
    return {path.name for path in folder.glob(".worker-*") if _is_held(path)}


def _is_held(file: Path) -> bool:
    try:
        with lock(file, within=file.parent).acquire(timeout=0):
            remove(file, within=file.parent)
            return False
    except Timeout:
        return True


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Finished trials: trained to the end, pruned or failed, but not impossible ones."""
    left_out, again = {IMPOSSIBLE, SURPLUS, _PUT_BACK}, retried(trials)
    return [
        trial
        for trial in trials
        if trial.state.is_finished()
        and not left_out & {*trial.user_attrs}
        and trial.number not in again
    ]


def open_study(
    folder: Path,
    url: str | None,
    directions: Sequence[StudyDirection],
    sampler: optuna.samplers.BaseSampler,
    pruner: optuna.pruners.BasePruner,
    definition: Mapping[str, str],
    space: Mapping[str, BaseDistribution],
    objectives: Sequence[str],
    extend: bool,
) -> SharedStudy:
    """The study named after its folder; the first worker creates it, under a lock.

    - `url`: of the storage; None for a file in the folder.
    - `definition`: what the search is, compared by `check_same`; `extend` may change some of it.

    Raises:
        ConfigError: if the storage cannot be used, or the study belongs to another search.
    """
    has_heartbeat = url is not None and not url.startswith(("journal:", "sqlite"))
    url = url or f"sqlite:///{folder / 'study.db'}"
    beside = [folder / f"study.db{end}" for end in ("", "-journal", "-wal", "-shm")]
    refuse_links(*beside, within=folder)
    with lock(folder / ".study.lock", within=folder):
        try:
            storage = patiently_created(lambda: _storage(url, has_heartbeat))
            settings: dict[str, Any] = {
                **{"study_name": folder.name, "storage": storage, "directions": directions},
                **{"sampler": sampler, "pruner": pruner, "load_if_exists": True},
            }
            study = optuna.create_study(**settings)
            is_in_use = has_heartbeat or bool(_living(folder))  # unknown for a database
            if study.user_attrs and not is_in_use and _is_unused(study):
                # a mistake in its space was refused, and may be corrected under the same name
                optuna.delete_study(study_name=folder.name, storage=storage)
                study = optuna.create_study(**settings)
        except Exception as error:  # noqa: BLE001  each database has its own errors
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            if isinstance(error, ImportError) and url.startswith("postgres"):
                reason = f"its driver is not installed; {install('postgres')}"
            raise ConfigError(
                f"search.storage={url} cannot be used: {reason}"  # printed without its password
            ) from None
        _check(study, definition, space, extend)
        study.set_user_attr("definition", dict(definition))
        with no_warnings():
            study.set_metric_names(list(objectives))  # for Optuna's figures and dashboard
    return SharedStudy(study, folder, space, has_heartbeat)


def _is_unused(study: optuna.Study) -> bool:
    """Whether nothing but impossible networks was ever started in it."""
    trials = study.get_trials(deepcopy=False)
    return not finished(trials) and all(trial.state.is_finished() for trial in trials)


def _storage(url: str, has_heartbeat: bool) -> optuna.storages.BaseStorage:
    if url.startswith("journal:"):
        return optuna.storages.JournalStorage(JournalFileBackend(url.removeprefix("journal:")))
    if has_heartbeat:
        return database(url)
    # no connection is left open: Python 3.13 warns of those
    engine = {"connect_args": {"timeout": 60}, "poolclass": NullPool}
    return optuna.storages.RDBStorage(url, engine_kwargs=engine)


def _check(
    study: optuna.Study,
    definition: Mapping[str, str],
    space: Mapping[str, BaseDistribution],
    extend: bool,
) -> None:
    """Refuse a study that belongs to another search.

    Raises:
        ConfigError: saying what differs.
    """
    before = study.user_attrs.get("definition")
    if before is None:  # new, or from before definitions were stored
        objectives = study.user_attrs.get("objectives")
        before = dict(definition)
        before |= {} if objectives is None else {"search.objectives": typed_value(objectives)}
    is_extension = all(
        before.get(key) == definition.get(key) or key.startswith(_EXTENSIBLE)
        for key in {*before, *definition}
    )
    if not (extend and is_extension):
        check_same("search", study.study_name, before, definition, can_extend=is_extension)
    for trial in study.get_trials(deepcopy=False):
        for key, distribution in trial.distributions.items():
            try:
                check_distribution_compatibility(distribution, space.get(key, distribution))
            except ValueError:
                raise ConfigError(
                    f"search.space.{key}: extend=true can add keys and move low and high, but "
                    f"Optuna keeps the choices and the scale of name={study.study_name}; "
                    "choose another name"
                ) from None
