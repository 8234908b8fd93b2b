"""What happens around training: checkpoints, history, and stopping on a signal."""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from convscape.base.errors import Stopped, stopped_by
from convscape.base.files import write_atomic
from convscape.base.quick_lightning import (
    callbacks_of,
    catch_up,
    log_epoch_now,
    overrides,
    pl,
    validate_again,
    validate_from_its_beginning,
)
from convscape.base.stopping import HAS_SIGNALS, is_told_to_stop
from convscape.config.metrics import Metric, not_logged
from convscape.models.classifier import ImageClassifier
from convscape.runs.folder import RunFolder
from convscape.training import events
from convscape.training.checkpoints import read_checkpoint

logger = logging.getLogger("convscape")

# Windows has neither
SCHEDULERS = tuple(getattr(signal, n) for n in ("SIGUSR1", "SIGUSR2") if hasattr(signal, n))


class Interrupted(Stopped):
    """The run was asked to stop by a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(stopped_by(signum))


class MonitorNotLogged(ValueError):
    """The metric that chooses the best epoch does not exist."""

    def __init__(self, monitor: str, logged: Iterable[str]) -> None:
        super().__init__(
            f"trainer.monitor={not_logged(monitor, logged)}; train a new run with one that is "
            "(trainer.monitor_mode=max or min says which way is better), or with "
            "trainer.monitor=null, which keeps the last epoch"
        )


class NothingLearned(ValueError):
    """The module gave Lightning no loss to learn from."""

    def __init__(self, module: pl.LightningModule) -> None:
        super().__init__(
            f"{type(module).__name__}.training_step returned no loss for any batch of the epoch, "
            "so nothing was learned; return the loss, or take the optimiser's steps yourself with "
            "automatic_optimization = False"
        )


class Recorder(pl.callbacks.Checkpoint):
    """Keeps the history, TensorBoard's curves and the checkpoints `last` and `best`.

    `best` is the epoch with the best `monitor`, the earliest of equals. `last.ckpt` is written
    last: everything it relies on is then on disk, and a kill before that only means that the epoch
    is repeated. A subclass of `Checkpoint`, because Lightning calls those after the module has
    logged its epoch.

    - `monitor`: the metric that decides; None: the last epoch is the best.
    - `patience`: stop after this many epochs without a better one.
    - `reports`: called with each epoch's row once it is saved.
    - `on_best`: called when this epoch is the best so far, before it is saved.
    """

    def __init__(
        self,
        folder: RunFolder,
        monitor: Metric | None,
        patience: int | None = None,
        reports: Sequence[Callable[[dict[str, float]], None]] = (),
        on_best: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder = folder
        self.monitor, self.patience = monitor, patience
        self.reports, self.on_best = reports, on_best
        self.history: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self._train_seconds = 0.0  # of the epoch so far, without validation
        self._clock = 0.0
        self._old_events = events.event_files(folder.path)
        self._event_sizes: dict[str, int] = {}
        self._logged: dict[str, torch.Tensor] = {}  # up to the epoch before
        self._is_resumed = False
        self._had_loss = False

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what came after the checkpoint that the run continues from."""
        if trainer.is_global_zero:
            events.truncate_events(self._old_events, self._event_sizes, self.folder.path)
            if self.history:
                self._write_history()
        trainer.should_stop = self._is_enough()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore what Lightning does not save."""
        if self._is_resumed:
            catch_up(trainer, pl_module, self._logged, len(self.history))

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Test the weights in the checkpoint, which every later command uses.

        A callback may have replaced them, as one that averages weights does.
        """
        if any(overrides(each, ["on_load_checkpoint"]) for each in callbacks_of(trainer)):
            pl_module.load_state_dict(read_checkpoint(self.folder.best_checkpoint)["state_dict"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Stop the clock."""
        self._train_seconds += time.perf_counter() - self._clock
        self._had_loss = self._had_loss or bool(outputs)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row, points and checkpoints.

        Raises:
            MonitorNotLogged: if the first epoch did not log the monitor.
            NothingLearned: if the first epoch had no loss.
        """
        if pl_module.automatic_optimization and not self._had_loss and not self.history:
            raise NothingLearned(pl_module)
        logged = dict(trainer.callback_metrics)
        # Lightning keeps what an earlier epoch logged: those are the same objects
        metrics = {k: float(v) for k, v in logged.items() if v is not self._logged.get(k)}
        self._logged = logged
        log_epoch_now(trainer)
        seconds, self._train_seconds = self._train_seconds, 0.0
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        # a module may log its own "epoch", counted from 0; resume relies on the run's
        row |= {key: value for key, value in metrics.items() if key not in row}
        row["train_seconds"] = seconds
        # a run of an earlier version may have rows without it
        if self.monitor is not None and self.monitor.name not in row and not self.history:
            raise MonitorNotLogged(self.monitor.name, metrics)
        self.history.append(row)
        is_best = self._is_best(row)
        if is_best:
            self.best_epoch = trainer.current_epoch + 1
            self.on_best()
        if trainer.is_global_zero:
            self._log_points(trainer, pl_module, row)
            self._write_history()
        if is_best:
            trainer.save_checkpoint(self.folder.best_checkpoint)
            if trainer.is_global_zero:  # a copy: one bad sector must not destroy both
                best = self.folder.best_checkpoint.read_bytes()
                write_atomic(self.folder.last_checkpoint, best, within=self.folder.path)
        else:
            trainer.save_checkpoint(self.folder.last_checkpoint)
        if trainer.is_global_zero:
            for report in self.reports:
                report(row)
        trainer.should_stop = trainer.should_stop or self._is_enough()

    def _log_points(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, row: dict[str, float]
    ) -> None:
        rate = trainer.datamodule.num_train_images / row["train_seconds"]  # type: ignore[attr-defined]
        points = {"samples_per_second": rate}
        if isinstance(pl_module, ImageClassifier):  # a user's module has Lightning log them
            points |= {key: value for key, value in row.items() if "/" in key or key == "lr"}
        for logger in trainer.loggers:
            logger.log_metrics(points, step=trainer.global_step)

    def _write_history(self) -> None:
        table = _as_csv(self.history)
        write_atomic(self.folder.history_file, table, within=self.folder.path)

    def _is_enough(self) -> bool:
        if self.patience is None or self.best_epoch is None:
            return False
        return len(self.history) - self.best_epoch >= self.patience

    def _is_best(self, row: dict[str, float]) -> bool:
        if self.monitor is None or self.best_epoch is None:
            return True
        best = self.history[self.best_epoch - 1].get(self.monitor.name, math.nan)
        if self.monitor.name not in row:
            return math.isnan(best)
        return self.monitor.is_better(row[self.monitor.name], best)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "train_seconds": self._train_seconds,
            "event_sizes": events.sizes(self.folder.path),
            "logged": {key: value.cpu() for key, value in self._logged.items()},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.history = state_dict["history"]
        self.best_epoch = state_dict["best_epoch"]
        self._train_seconds = state_dict["train_seconds"]
        self._event_sizes = state_dict["event_sizes"]
        self._logged = state_dict.get("logged", {})  # earlier versions did not save it
        self._is_resumed = True


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    # a module may log something only every other epoch; the time stays last
    columns = dict.fromkeys(key for row in rows for key in row if key != "train_seconds")
    writer = csv.DictWriter(text, fieldnames=[*columns, "train_seconds"], restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class StopOnSignal(pl.callbacks.Callback):
    """Turns Ctrl-C and SIGTERM into a checkpoint and `Interrupted`; a second signal kills the run.

    A context manager around the whole run. During training it waits for a good moment: the end of
    the current `training_step` call, a fraction of a second, or of a batch of validation images. An
    epoch of a user's LightningModule is repeated from its start: Lightning does not save what it
    has logged so far. At all other times, within `at_once`, it raises wherever the run is;
    unfinished work is then repeated. SIGUSR1 and SIGUSR2 come from a scheduler, if its launcher
    listens for them: they stop the run in the same way and are then passed on, so the launcher can
    requeue the job.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.received: list[int] = []
        self._raises = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            listening = [s for s in SCHEDULERS if callable(signal.getsignal(s))]
            for signum in (signal.SIGINT, signal.SIGTERM, *listening):
                self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self.received and self.received[0] in SCHEDULERS:
            signal.raise_signal(self.received[0])

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise `Interrupted` anywhere within, except while training; elsewhere only note it."""
        self._raises = True
        try:
            self._raise_if_received()
            yield
        finally:
            self._raises = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum in self.received:  # a terminal and a launcher may each send one
            os._exit(128 + signum)
        self.received.append(signum)
        if self._raises:
            raise Interrupted(self.received[0])

    def _is_to_stop(self) -> bool:
        if not (self.received or HAS_SIGNALS) and is_told_to_stop():
            self.received.append(signal.SIGINT)
        return bool(self.received)

    def _raise_if_received(self) -> None:
        if self._is_to_stop():
            raise Interrupted(self.received[0])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From now on wait for a good moment; Lightning has just installed its own handlers."""
        for signum in self._previous:
            signal.signal(signum, self._handle)
        self._raises = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Save within the epoch, unless only its validation is left."""
        if self._is_to_stop() and not trainer.is_last_batch:
            self._save(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that was stopped during validation restarts it, and the counting too."""
        if trainer.state.fn == "fit":
            validate_from_its_beginning(trainer)
            self.on_validation_batch_end(trainer)

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save with the epoch trained and its validation still to do."""
        if self._is_to_stop() and trainer.state.fn == "fit":
            validate_again(trainer)
            self._save(trainer)

    def on_test_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Raise again, in case a library took the first for an error of its own."""
        self._raise_if_received()

    def _save(self, trainer: pl.Trainer) -> None:
        if isinstance(trainer.lightning_module, ImageClassifier):
            trainer.save_checkpoint(self.folder.last_checkpoint)
        self._raise_if_received()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The previous epoch was saved at its end."""
        self._raise_if_received()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All epochs are saved; only the test is left."""
        self._raises = True
        self._raise_if_received()
