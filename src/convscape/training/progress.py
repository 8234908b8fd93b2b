"""What a person sees of a run while it trains: a bar, or a line per epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from convscape.base import notebook
from convscape.base.quick_lightning import num_batches_done, pl
from convscape.base.terminal import columns, say
from convscape.config.metrics import EPOCH_METRICS, Metric, metric

logger = logging.getLogger("convscape")


class _TerminalBar:
    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=Console(stderr=True),
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("", total=total, epoch="", metrics="")
        self._progress.start()

    def show(self, done: int, epoch: str, metrics: str) -> None:
        self._progress.update(
            self._task, completed=done, epoch=epoch, metrics=metrics, refresh=True
        )

    def stop(self) -> None:
        self._progress.stop()


class _NotebookBar:
    def __init__(self, total: int) -> None:
        self._total, self._start = total, time.monotonic()
        self._first: int | None = None  # a resumed run does not begin at 0
        self._shown = notebook.Shown()

    def show(self, done: int, epoch: str, metrics: str) -> None:
        words = f"epoch {epoch}  {metrics}"
        if self._first is None:
            self._first = done
        elif done > self._first:
            pace = (time.monotonic() - self._start) / (done - self._first)
            words += f"  {pace * (self._total - done):.0f} s left"
        self._shown.replace(notebook.bar(done / self._total, words))

    def stop(self) -> None:
        self._shown.replace("")


class Progress(pl.callbacks.Callback):
    """A bar with loss, accuracy and time left on a terminal or in a notebook; otherwise lines.

    It redraws at most five times a second, from within the training loop, and reads no metric from
    the device to do so.
    """

    def __init__(self, style: str, max_epochs: int, monitor: Metric | None) -> None:
        if style == "auto":
            style = "bar" if notebook.is_here() or sys.stderr.isatty() else "lines"
        self.style = style
        self.max_epochs = max_epochs
        self.monitor = [] if monitor is None else [monitor.name]
        self._bar: _TerminalBar | _NotebookBar | None = None
        self._done, self._epoch, self._metrics = 0, "", ""
        self._next_draw = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the bar."""
        if self.style != "bar" or not trainer.is_global_zero:
            return
        total = self.max_epochs * int(trainer.num_training_batches)
        self._bar = (_NotebookBar if notebook.is_here() else _TerminalBar)(total)
        self._note(trainer)
        self._draw()

    def _note(self, trainer: pl.Trainer) -> None:
        self._done = num_batches_done(trainer)
        self._epoch = f"{trainer.current_epoch + 1}/{self.max_epochs}"

    def _draw(self) -> None:
        if self._bar is not None:
            self._bar.show(self._done, self._epoch, self._metrics)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Move the bar, now and then."""
        if self._bar is not None:
            self._note(trainer)  # even if this batch is not drawn: the end of an epoch is
            if time.monotonic() > self._next_draw:
                self._next_draw = time.monotonic() + 0.2
                self._draw()

    def report(self, row: dict[str, float]) -> None:
        """Show an epoch's metrics, and note them in the run's diary."""
        line = epoch_line(row, self.max_epochs, self.monitor)
        logger.info("%s", line)
        self._metrics = "  ".join(in_words(row, ["train/loss", *self.monitor]))
        if self._bar is not None:
            self._draw()
        elif self.style == "lines":
            say(line, file=sys.stderr)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def epoch_line(row: dict[str, float], max_epochs: int, monitor: Sequence[str] = ()) -> str:
    """One line for an epoch."""
    epoch = f"epoch {int(row['epoch']):>{len(str(max_epochs))}}/{max_epochs}"
    names, width = list(dict.fromkeys([*EPOCH_METRICS, *monitor])), columns()
    for left_out in ("", "train/acc", "val/loss", "train/loss"):
        names = [name for name in names if name != left_out or name in monitor]
        line = "  ".join([epoch, *in_words(row, names), f"{row['train_seconds']:.1f} s"])
        if width is None or len(line) <= width:
            break
    return line


def in_words(row: dict[str, float], names: Iterable[str]) -> list[str]:
    """The metrics that the row has, formatted."""
    known = [metric(name) for name in names if name in row]
    # " 9.50 %" is as wide as "98.61 %"
    return [f"{m.name} {m.number(row[m.name]):>5} {m.unit}".rstrip() for m in known]
