"""What happens around training: checkpoints and history, the progress bar, stopping on a signal."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from convscape.cli import say
from convscape.errors import Stopped
from convscape.quick_lightning import pl
from convscape.runs import CHOSEN_BY, RunFolder, write_whole

SCHEDULERS = (signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(Stopped):
    """The run was asked to stop by a signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum


class WholeFileCheckpointIO(pl.plugins.TorchCheckpointIO):
    """A checkpoint is written beside its place and renamed: what is there is always whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`."""
        path = Path(path)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        try:
            super().save_checkpoint(checkpoint, temporary, storage_options)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


class Recorder(pl.callbacks.Checkpoint):
    """Keeps the history and the checkpoints `last` and `best` (highest val/acc, earliest first).

    A child of `Checkpoint`, since Lightning calls those after the module has logged its epoch.
    `best.ckpt` is a second name of that epoch's `last.ckpt`, so nothing is written twice.
    """

    def __init__(self, folder: RunFolder, *reports: Callable[[dict[str, float]], None]) -> None:
        self.folder = folder
        self.reports = reports
        self.history: list[dict[str, float]] = []
        self.best_epoch: int | None = None
        self._train_seconds = 0.0  # of the epoch so far, without validation
        self._clock = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Start the clock."""
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Stop the clock."""
        self._train_seconds += time.perf_counter() - self._clock

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's row and checkpoints."""
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        seconds, self._train_seconds = self._train_seconds, 0.0
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **metrics,
            "train_seconds": seconds,
        }
        self.history.append(row)
        rate = trainer.datamodule.num_train_images / seconds  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            logger.log_metrics({"samples_per_second": rate}, step=trainer.global_step)
        is_best = self._is_best(metrics.get(CHOSEN_BY))
        if is_best:
            self.best_epoch = trainer.current_epoch + 1
        trainer.save_checkpoint(self.folder.last_checkpoint)
        if trainer.is_global_zero:
            if is_best:
                _second_name(self.folder.last_checkpoint, self.folder.best_checkpoint)
            write_whole(self.folder.history_file, _as_csv(self.history))
            for report in self.reports:
                report(row)

    def _is_best(self, value: float | None) -> bool:
        if value is None or self.best_epoch is None:
            return True
        return value > self.history[self.best_epoch - 1][CHOSEN_BY]

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "train_seconds": self._train_seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.history = state_dict["history"]
        self.best_epoch = state_dict["best_epoch"]
        self._train_seconds = state_dict["train_seconds"]


def _second_name(path: Path, name: Path) -> None:
    """Let `name` stand for what `path` is now, whole at every moment."""
    temporary = name.with_name(f".{name.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        os.link(path, temporary)
    except OSError:  # no hard links on this file system
        shutil.copyfile(path, temporary)
    os.replace(temporary, name)


def _as_csv(rows: list[dict[str, float]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[-1]), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class StopOnSignal(pl.callbacks.Callback):
    """Turns Ctrl-C and SIGTERM into a checkpoint and `Interrupted`; a second one ends at once.

    Used as a context around the whole run. Within an epoch it waits for the end of the current
    `training_step` call, a fraction of a second; during validation for the end of the epoch.
    SIGUSR1 and SIGUSR2 are a scheduler's, where its launcher listens for them: they stop the run
    in the same way and are then handed on, so that the launcher can put the job back in the queue.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.received: int | None = None
        self._training = False
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
        if self.received in SCHEDULERS:
            signal.raise_signal(self.received)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.received is not None:
            os._exit(128 + signum)
        self.received = signum
        if not self._training:
            raise Interrupted(signum)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on wait for a good moment; Lightning has just put its own handlers in place."""
        for signum in self._previous:
            signal.signal(signum, self._handle)
        self._training = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Save within the epoch, unless it is complete but for its validation."""
        if self.received is not None and not trainer.is_last_batch:
            trainer.save_checkpoint(self.folder.last_checkpoint)
            raise Interrupted(self.received)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch before was saved at its end."""
        if self.received is not None:
            raise Interrupted(self.received)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """All epochs are saved; what is left is the test."""
        self._training = False
        if self.received is not None:
            raise Interrupted(self.received)


class Progress(pl.callbacks.Callback):
    """A bar with loss, accuracy and time left on a terminal; a line per epoch elsewhere.

    It redraws at most five times a second, from within the training loop, and reads no metric
    from the device for it.
    """

    def __init__(self, style: str, max_epochs: int) -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "lines"
        self.style = style
        self.max_epochs = max_epochs
        self._bar: Any = None
        self._next_draw = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the bar."""
        if self.style != "bar" or not trainer.is_global_zero:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        total = self.max_epochs * int(trainer.num_training_batches)
        epoch = f"{trainer.current_epoch + 1}/{self.max_epochs}"
        self._task = self._bar.add_task("", total=total, epoch=epoch, metrics="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Move the bar, now and then."""
        if self._bar is not None and time.monotonic() > self._next_draw:
            self._next_draw = time.monotonic() + 0.2
            done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
            epoch = f"{trainer.current_epoch + 1}/{self.max_epochs}"
            self._bar.update(self._task, completed=done, epoch=epoch, refresh=True)

    def report(self, row: dict[str, float]) -> None:
        """Show an epoch's metrics."""
        if self._bar is not None:
            words = in_words(row, ("train/loss", CHOSEN_BY))
            self._bar.update(self._task, metrics="  ".join(words), refresh=True)
        elif self.style == "lines":
            say(epoch_line(row, self.max_epochs), file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def epoch_line(row: dict[str, float], max_epochs: int) -> str:
    """An epoch in one line."""
    epoch = f"epoch {int(row['epoch']):>{len(str(max_epochs))}}/{max_epochs}"
    metrics = in_words(row, ("train/loss", "train/acc", "val/loss", "val/acc"))
    return "  ".join([epoch, *metrics, f"{row['train_seconds']:.1f} s"])


def in_words(row: dict[str, float], metrics: Sequence[str]) -> list[str]:
    """Losses and accuracies (in percent), as far as the row has them."""
    return [
        f"{metric} {100 * row[metric]:5.2f} %" if "acc" in metric else f"{metric} {row[metric]:.4f}"
        for metric in metrics
        if metric in row
    ]
