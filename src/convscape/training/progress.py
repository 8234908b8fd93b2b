"""What a person sees of a run while it trains: a bar, or a line per epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from convscape.base.quick_lightning import num_batches_done, pl
from convscape.base.terminal import say
from convscape.config.metrics import EPOCH_METRICS, Metric, metric

logger = logging.getLogger("convscape")


class Progress(pl.callbacks.Callback):
    """A bar with loss, accuracy and time left on a terminal; a line per epoch elsewhere.

    It redraws at most five times a second, from within the training loop, and reads no metric
    from the device for it.
    """

    def __init__(self, style: str, max_epochs: int, monitor: Metric | None) -> None:
        if style == "auto":
            style = "bar" if sys.stderr.isatty() else "lines"
        self.style = style
        self.max_epochs = max_epochs
        self.monitor = [] if monitor is None else [monitor.name]
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
            done = num_batches_done(trainer)
            epoch = f"{trainer.current_epoch + 1}/{self.max_epochs}"
            self._bar.update(self._task, completed=done, epoch=epoch, refresh=True)

    def report(self, row: dict[str, float]) -> None:
        """Show an epoch's metrics, and note them in the run's diary."""
        line = epoch_line(row, self.max_epochs, self.monitor)
        logger.info("%s", line)
        if self._bar is not None:
            words = in_words(row, ["train/loss", *self.monitor])
            self._bar.update(self._task, metrics="  ".join(words), refresh=True)
        elif self.style == "lines":
            say(line, file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def epoch_line(row: dict[str, float], max_epochs: int, monitor: Sequence[str] = ()) -> str:
    """An epoch in one line."""
    epoch = f"epoch {int(row['epoch']):>{len(str(max_epochs))}}/{max_epochs}"
    metrics = in_words(row, dict.fromkeys([*EPOCH_METRICS, *monitor]))
    return "  ".join([epoch, *metrics, f"{row['train_seconds']:.1f} s"])


def in_words(row: dict[str, float], names: Iterable[str]) -> list[str]:
    """Metrics as they are written, as far as the row has them."""
    known = [metric(name) for name in names if name in row]
    # " 9.50 %" is as wide as "98.61 %"
    return [f"{m.name} {m.number(row[m.name]):>5} {m.unit}".rstrip() for m in known]
