"""The end of a search: its best trials trained again, on seeds that no trial used.

The best trial is also the luckiest one. Each confirmation is an ordinary run in the search's
`confirmed` folder, so it resumes where it was stopped, and workers share it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from optuna.trial import FrozenTrial, TrialState

from convscape.base import files
from convscape.base.errors import CannotWrite
from convscape.base.terminal import say, wrapped
from convscape.base.values import counted
from convscape.reports.confirmed import FOLDER, NOTE, Search, decides
from convscape.reports.verdicts import seed_by_seed
from convscape.runs import obstacles
from convscape.runs.folder import FAILURES
from convscape.runs.progress import ToDo, note_to_do
from convscape.sweeps import live
from convscape.sweeps.database import next_of_database
from convscape.sweeps.launching import wait_for_others
from convscape.sweeps.run import (
    SweepStopped,
    find_results,
    stop_of,
    train_if_missing,
)
from convscape.sweeps.study import WORKER
from convscape.sweeps.words import line

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.confirmed import Arm
    from convscape.runs.resolved import ResolvedRun
    from convscape.sweeps.search_config import SearchConfig
    from convscape.sweeps.study import SharedStudy

# the run of a trial's values with a seed
Resolve = Callable[[dict[str, Any], int], "ResolvedRun"]


def note_search(folder: Path, search: SearchConfig, objectives: Sequence[Metric]) -> None:
    """Write what the search is for into its folder, where a report finds it.

    Raises:
        CannotWrite: if it cannot be written.
    """
    note = {
        "objectives": {objective.name: objective.direction for objective in objectives},
        "keys": list(search.space),
        "margin": search.confirm.margin,
    }
    with files.explained(folder):
        files.write_atomic(folder / NOTE, files.as_yaml(note), within=folder)


class Confirmation:
    """What is left to do once the trials are done.

    - `seed`: the seed of all trials.
    """

    def __init__(
        self, search: SearchConfig, objective: Metric, folder: Path, seed: int, resolve: Resolve
    ) -> None:
        self.settings = search.confirm
        self.search = Search(folder, objective, tuple(search.space), search.confirm.margin)
        self.folder, self._seed, self._resolve = folder / FOLDER, seed, resolve
        self._values: dict[Arm, dict[str, Any]] = {}
        self._words = ""  # said before the next run

    def work(self, trials: Iterable[FrozenTrial], style: str = "off") -> None:
        """Train what is missing, sharing with other workers, until the winner is known.

        - `style`: trainer.progress.

        Raises:
            KeyboardInterrupt: if a run was interrupted; `SweepStopped` if none can continue.
        """
        best = self._best(trials)
        if not best:
            return
        with files.explained(self.folder.parent):
            files.make_folder(self.folder, within=self.folder.parent)
        with live.table(self.folder, style, has_answer=False, has_lines=False):
            self._race(best)

    def _race(self, best: Sequence[Arm]) -> None:
        budget = self.settings.budget
        if len(best) > 1:
            most = f" to {budget.most}" * (budget.most > budget.least)
            self._words = (
                f"the best {len(best)} trials on {budget.least}{most} fresh seeds each"
                + ", until the winner is clear" * bool(most)
            )
            seeds = list(itertools.islice(self._fresh(True), budget.most))

            def train(arms: Collection[Arm], places: Sequence[int]) -> bool:
                self._train([(arm, seeds[place]) for place in places for arm in arms])
                return True

            seed_by_seed(best, budget, train, self._unsettled)
        winner = self.search.confirmed.winner if len(best) > 1 else best[0]
        if winner is not None:
            count = counted(budget.least, "more seed")
            self._words = f"the winner on {count} that chose nothing: {self.search.label(winner)}"
            last = itertools.islice(self._fresh(False), budget.least)
            self._train([(winner, seed) for seed in last])

    def _best(self, trials: Iterable[FrozenTrial]) -> list[Arm]:
        """The best distinct trials, and those that were confirmed before."""
        self._values.clear()
        done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        sign = -1 if self.search.objective.higher_is_better else 1
        before = set(self.search.confirmed.arms)
        found: list[Arm] = []
        for trial in sorted(done, key=lambda trial: (sign * trial.values[0], trial.number)):
            arm = self._arm_of(trial.params)
            is_wanted = len(found) < self.settings.best or arm in before
            if arm not in self._values and is_wanted:
                self._values[arm] = trial.params
                found.append(arm)
            if len(found) >= self.settings.best and before <= self._values.keys():
                break
        return found

    def _arm_of(self, values: dict[str, Any]) -> Arm:
        config = self._resolve(values, self._seed).config
        return self.search.arm_of(config.model_dump(by_alias=True))

    def _fresh(self, deciding: bool) -> Iterator[int]:
        return (s for s in itertools.count() if decides(s) is deciding and s != self._seed)

    def _unsettled(self) -> list[Arm]:
        confirmed = self.search.confirmed
        arms = confirmed.arms
        return [arms[place] for place in confirmed.race.unsettled() if arms[place] in self._values]

    def _train(self, wanted: Sequence[tuple[Arm, int]]) -> None:
        """Train all of these runs, or wait for the workers that have them."""
        runs = {
            run.fingerprint: (run, seed)
            for arm, seed in wanted
            for run in [self._resolve(self._values[arm], seed)]
        }
        if self._words and self._missing(runs):
            say(*wrapped(self._words))
            self._words = ""
        with suppress(CannotWrite):  # the next run says so too
            note_to_do(self.folder, ToDo(time.time(), dict.fromkeys(runs), is_open=True))
        todo = list(runs)  # finished runs are left alone; with retry=true these have failed
        while todo:
            if blocked := obstacles.in_sweep(self.folder, todo):
                reason = next(iter(blocked.values()))
                raise SweepStopped(f"in the way of a run: {reason}; then the same command again")
            for fingerprint in todo:
                self._train_one(*runs[fingerprint])
            for number in wait_for_others(self.folder, todo):
                say(f"waiting for {counted(number, 'run')} in other processes")
            todo = self._missing(runs)

    def _missing(self, fingerprints: Collection[str]) -> list[str]:
        results = find_results(self.folder)
        done = {f for f, result in results.items() if result.status in ("ok", *FAILURES)}
        return [each for each in fingerprints if each not in done]

    def _train_one(self, run: ResolvedRun, seed: int) -> None:
        try:
            result = train_if_missing(run, self.folder)
        except CannotWrite as error:
            raise SweepStopped(str(error)) from None
        if result is None:  # another worker has it
            return
        say(line(result, f"[seed {seed}]"))
        if result.status == "interrupted":
            raise stop_of(result)

    def num_failed(self) -> int:
        """Runs that did not finish."""
        return sum(r.status in FAILURES for r in find_results(self.folder).values())

    @property
    def place(self) -> str:
        """Where its runs are, for those who do not see the folder."""
        return f"{socket.gethostname()}:{self.folder.resolve()}"

    def found(self) -> Found:
        """What came out, for those who do not see the folder."""
        if self.search.confirmed.has_answer:
            told = self.search.confirmed.sentences(None)
            words = " ".join([*told, f"Confirmed by another worker, in {self.place}."])
        else:
            words = f"The confirmation failed in {self.place}: repeat the command there with "
            words += "retry=true."
        return Found(words, self.num_failed())

    @property
    def has_begun(self) -> bool:
        """Whether a run of it is in the folder."""
        return bool(find_results(self.folder))

    def digest(self, trials: Iterable[FrozenTrial], measured: Mapping[str, str]) -> str:
        """A hash of what is confirmed: other trials or more seeds need a new confirmation.

        - `measured`: what the trials are; a study made anew under an old name has others.
        """
        complete = (trial for trial in trials if trial.state == TrialState.COMPLETE)
        done = [(trial.number, trial.params, trial.values) for trial in complete]
        text = json.dumps(
            [done, dict(measured), self.search.objective.name, self.settings.model_dump()],
            default=str,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def note_here(self, name: str, what: str) -> None:
        """Note in the folder what was `BEGUN` or `DONE` in it, by its digest."""
        files.write_atomic(self.folder / name, what, within=self.folder)

    def is_here(self, name: str, what: str) -> bool:
        """Whether it was: by this worker, or by one that shares the folder."""
        try:
            return files.read_bytes(self.folder / name) == what.encode()
        except OSError:
            return False


class Found(NamedTuple):
    """What a confirmation in another folder has found, in words, and how many runs failed there."""

    words: str
    num_failed: int


BEGUN, DONE = ".begun", ".done"  # of a search on a database: files with a digest
# of a turn: the digest, what came out, and the folder that it was stopped in
_WHAT, _WORDS, _LEFT = "what", "words", "left"


def confirm_once(
    confirmation: Confirmation, shared: SharedStudy, style: str, retry: bool
) -> Found | None:
    """Confirm the best trials, each run once; what another worker found, if it was done elsewhere.

    Workers that see one folder share the runs by its locks. Of others on a database one confirms,
    and the rest wait for what it says, or take over if it dies. If it is stopped, its folder has a
    part of the runs: there the same command continues them, and elsewhere only with `retry`.

    Raises:
        KeyboardInterrupt: as `Confirmation.work`.
    """
    turns, best_of = shared.turns("confirmed"), shared.trials()

    def work() -> None:
        confirmation.work(best_of, style)

    if turns is None:
        work()
        return None
    what, is_waiting = confirmation.digest(best_of, shared.measured), False
    takes_over = retry or confirmation.is_here(BEGUN, what)

    def done(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        mine = [trial for trial in trials if trial.user_attrs.get(_WHAT) == what]
        complete = [trial for trial in mine if trial.state == TrialState.COMPLETE]
        is_free = all(trial.state.is_finished() for trial in trials)
        left = [trial for trial in mine if _LEFT in trial.user_attrs]
        return complete or (left[-1:] if is_free and not takes_over else [])

    def join(running: Sequence[FrozenTrial]) -> None:
        nonlocal is_waiting
        if any(shared.is_here(trial) for trial in running):
            work()
        elif not is_waiting:
            is_waiting = True
            say("waiting for another worker, which confirms the best trials")

    while (turn := next_of_database(turns.study, 1, done, join)) is not None:
        with turns.held(turn):
            turns.note(turn, _WHAT, what)
            turns.note(turn, WORKER, shared.worker)
            try:
                work()
            except BaseException:
                if confirmation.has_begun:
                    confirmation.note_here(BEGUN, what)
                    turns.note(turn, _LEFT, confirmation.place)
                    turns.tell(turn, state=TrialState.FAIL)
                raise
            confirmation.note_here(DONE, what)
            found = confirmation.found()
            turns.note(turn, _WORDS, found.words)
            turns.tell(turn, [found.num_failed])
    if confirmation.is_here(DONE, what):
        work()  # what is missing, if it was made to fail or removed
        return None
    return _found_elsewhere(done(turns.trials())[-1])


def _found_elsewhere(turn: FrozenTrial) -> Found:
    """What a worker in another folder found, or where it was stopped."""
    if turn.state == TrialState.COMPLETE:
        return Found(turn.user_attrs[_WORDS], round(turn.values[0]))
    words = f"The confirmation was stopped in {turn.user_attrs[_LEFT]}: the same command there "
    return Found(words + "continues it, and with retry=true another one begins here.", 1)
