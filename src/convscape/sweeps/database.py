"""A study on a database server, which may be all that its workers share.

A worker shows that it is alive every ten seconds, by Optuna's heartbeat. A trial that has been
silent for a minute is put back into the queue by Optuna's own callback, under a new number. All
times are the database's.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import optuna
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from convscape.base.terminal import say
from convscape.base.values import counted

SURPLUS = "surplus"  # a trial begun at the same moment as the last one wanted
_BEGUN = "begun"  # a trial's own number, once it has a heartbeat
INTERVAL_S = 10  # between two heartbeats
GRACE_S = 60  # of silence before a worker is presumed dead
_MAX_RETRY = 3  # attempts at a trial whose workers die
_PATIENCE_S = 120  # with a database that is restarting
_PAUSE_S = 2
# a server that is cut off without a word must not hold a query for minutes
_SIGNS_OF_LIFE = {"connect_timeout": 10, "keepalives_idle": 20, "tcp_user_timeout": 30_000}

Answer = TypeVar("Answer")


@contextmanager
def no_warnings() -> Iterator[None]:
    """Silence Optuna's warning: its heartbeat has been called experimental for years."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", "Heartbeat of storage")
        yield


def database(url: str) -> RDBStorage:
    """The storage at `url`, with a heartbeat."""
    # one connection per query: the database may restart, and has few connections
    engine: dict[str, Any] = {"poolclass": NullPool}
    scheme, colon, rest = url.partition(":")
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"  # SQLAlchemy's default is its predecessor
        engine["connect_args"] = _SIGNS_OF_LIFE
    with no_warnings():
        storage = RDBStorage(
            scheme + colon + rest,
            engine_kwargs=engine,
            heartbeat_interval=INTERVAL_S,
            grace_period=GRACE_S,
            heartbeat_stale_trial_callback=_retry(_MAX_RETRY),
        )
    if scheme.startswith("postgresql"):
        event.listen(storage.engine, "connect", _in_utc)
    return storage


def _in_utc(connection: Any, record: Any) -> None:
    """Set a new connection's time zone: Optuna compares times without their zones."""
    connection.execute("SET TIME ZONE 'UTC'")
    connection.commit()


def _retry(most: int | None) -> RetryHeartbeatStaleTrialCallback:
    with no_warnings():
        return RetryHeartbeatStaleTrialCallback(most, inherit_intermediate_values=True)


def retried(trials: Sequence[FrozenTrial]) -> set[int]:
    """The numbers of trials that were restarted under another number."""
    return {number for trial in trials for number in trial.system_attrs.get("retry_history", ())}


def put_back(study: optuna.Study, trial: optuna.Trial) -> None:
    """Release a trial immediately to the next worker."""
    with suppress(UpdateFinishedTrialError), no_warnings():
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        _retry(None)(study, study._storage.get_trial(trial._trial_id))


@contextmanager
def beating(study: optuna.Study, trial: optuna.Trial) -> Iterator[None]:
    """Tell the other workers, for as long as this lasts, that this one is alive."""
    storage: Any = study._storage  # Optuna's cache of an RDBStorage
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(INTERVAL_S):
            try:
                storage.record_heartbeat(trial._trial_id)
            except (DBAPIError, StorageInternalError):  # a missed beat
                _outage.note()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def next_of_database(
    study: optuna.Study,
    num_wanted: int,
    finished: Callable[[Sequence[FrozenTrial]], list[FrozenTrial]],
    meanwhile: Callable[[Sequence[FrozenTrial]], None] | None = None,
) -> optuna.Trial | None:
    """The next trial, one that was put back or a new one; None once there are enough.

    - `meanwhile`: what a worker does, again and again, while others have those that are left.

    No lock keeps the other workers out. The database gives out numbers in order; each worker asks
    for one and then checks which are below its own: the first `num_wanted` stay.
    """
    num_told, seen = 0, dict[int, float]()
    while True:
        _put_back_stale(study)
        trials = _trials(study)
        num_left = num_wanted - len(finished(trials))
        if num_left <= 0:
            return None
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        if len(running) < num_left:
            try:
                trial = _asked(study)
            except UpdateFinishedTrialError:  # it took so long that another worker left it out
                continue
            if _is_wanted(trial.number, num_wanted, _trials(study), finished):
                return trial
            _leave_out(study, trial._trial_id)
        elif meanwhile is not None:
            meanwhile(running)
        elif len(running) != num_told:
            num_told = len(running)
            say(f"waiting for {counted(num_told, 'trial')} of other workers")
        for each in running:
            # one without a heartbeat: its worker died right after asking
            if each.user_attrs.get(_BEGUN) != each.number:
                since = seen.setdefault(each.number, time.monotonic())
                if time.monotonic() - since > GRACE_S:
                    _leave_out(study, each._trial_id)
        time.sleep(_PAUSE_S)


class _Outage:
    """When the database last did not answer this process."""

    def __init__(self) -> None:
        self._last = -math.inf

    def note(self) -> None:
        """It does not answer now."""
        self._last = time.monotonic()

    @property
    def is_recent(self) -> bool:
        """Whether the other workers may not have had the time for a heartbeat since."""
        return time.monotonic() - self._last < 2 * INTERVAL_S


_outage = _Outage()


def _put_back_stale(study: optuna.Study) -> None:
    """Put the trials of dead workers back into the queue.

    After an outage every worker has been silent: the living ones are waited for.
    """
    if not _outage.is_recent:
        try:
            with no_warnings():
                fail_stale_trials(study)
        except (StorageInternalError, OperationalError):
            _outage.note()


def _trials(study: optuna.Study) -> list[FrozenTrial]:
    return patiently(lambda: study.get_trials(deepcopy=False))


def _asked(study: optuna.Study) -> optuna.Trial:
    """A trial that was put back, or a new one, with a heartbeat from now on."""
    storage: Any = study._storage
    with no_warnings():
        trial = patiently(study.ask)
    patiently(lambda: storage.record_heartbeat(trial._trial_id))
    patiently(lambda: trial.set_user_attr(_BEGUN, trial.number))
    return trial


def _leave_out(study: optuna.Study, trial_id: int) -> None:
    """End a trial that is not wanted."""
    storage = study._storage
    with suppress(UpdateFinishedTrialError):
        patiently(lambda: storage.set_trial_user_attr(trial_id, SURPLUS, True))
        patiently(lambda: storage.set_trial_state_values(trial_id, TrialState.FAIL))


def _is_wanted(
    number: int,
    num_wanted: int,
    trials: Sequence[FrozenTrial],
    finished: Callable[[Sequence[FrozenTrial]], list[FrozenTrial]],
) -> bool:
    """Whether too few trials with lower numbers are done or may still be."""
    made = {trial.number for trial in finished(trials)}
    made |= {trial.number for trial in trials if not trial.state.is_finished()}
    return sum(each < number for each in made) < num_wanted


def patiently(step: Callable[[], Answer]) -> Answer:
    """Call `step`, retrying while the database is unreachable."""
    deadline, is_first = time.monotonic() + _PATIENCE_S, True
    while True:
        try:
            return step()
        except (StorageInternalError, OperationalError):
            _outage.note()
            if time.monotonic() > deadline:
                raise
        if is_first:
            say(f"the database does not answer; retrying for {_PATIENCE_S} s")
            is_first = False
        time.sleep(_PAUSE_S)


def patiently_created(step: Callable[[], Answer]) -> Answer:
    """Call `step`, which creates the tables; if two do so at once, one fails and retries."""
    try:
        return step()
    except OperationalError:  # the database is unreachable
        raise
    except (DBAPIError, StorageInternalError):
        time.sleep(_PAUSE_S)
        return step()
