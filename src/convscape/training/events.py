"""The event files that TensorBoard reads: how they are written, and the names in them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event

from convscape.base import files
from convscape.base.quick_lightning import pl, rank_zero_experiment
from convscape.config.metrics import Metric
from convscape.training.records import record
from convscape.training.torch_insides import SummaryWriter

PREFIX = "events.out.tfevents."


class EventFile:
    """Writes events immediately and whole.

    TensorBoard's own writer has a thread that holds events back for up to two minutes: a kill loses
    them, and a full disk goes unnoticed.
    """

    def __init__(self, folder: Path) -> None:
        stamps = [int(path.name.removeprefix(PREFIX)[:10]) for path in event_files(folder)]
        # TensorBoard reads files in the order of their names, and the clock may have been set back
        stamp = max([int(time.time()), *(last + 1 for last in stamps)])
        self._folder = folder
        self._path = folder / f"{PREFIX}{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = files.append(self._path, within=folder, is_new=True)
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def get_logdir(self) -> str:
        """The folder, which torch asks for."""
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        """Write one."""
        self._file.write(record(event.SerializeToString()))

    def flush(self) -> None:
        """Do nothing: everything is already written."""

    def close(self) -> None:
        """No more comes."""
        self._file.close()


class EventLogger(pl.loggers.TensorBoardLogger):
    """Lightning's logger, writing to the run folder with `EventFile`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False)
        self._writer: SummaryWriter | None = None
        self._folder = folder

    @property
    def log_dir(self) -> str:
        """The run folder as it is: Lightning would replace $NAME by the environment variable."""
        return str(self._folder)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write `metrics` of the optimiser step `step`, each under its `tag`."""
        super().log_metrics({tag(name): value for name, value in metrics.items()}, step)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Torch's `SummaryWriter`, made when it is first asked for."""
        if self._writer is None:
            self._writer = SummaryWriter(self.log_dir, EventFile(Path(self.log_dir)))
        return self._writer

    def finalize(self, status: str) -> None:
        """Do nothing: Lightning calls it after training, and the test is still to come."""

    def close(self) -> None:
        """No more comes."""
        if self._writer is not None:
            self._writer.close()

    def save(self) -> None:
        """Do nothing: Lightning would add a file of hyper-parameters that it does not know."""


def event_files(folder: Path) -> list[Path]:
    """A run's event files, oldest first."""
    return sorted(folder.glob(f"{PREFIX}{'[0-9]' * 10}.*"))


def sizes(folder: Path) -> dict[str, int]:
    """How long each event file is now, for `truncate_events`."""
    return {path.name: path.stat().st_size for path in event_files(folder)}


def truncate_events(paths: list[Path], sizes: Mapping[str, int], folder: Path) -> None:
    """Cut off what was written after `sizes`: it is about to be written again.

    Raises:
        NotInside: if one of them is a link out of `folder`.
    """
    for path in paths:
        if path.name not in sizes:
            files.remove(path, within=folder)
        elif path.stat().st_size > sizes[path.name]:
            files.cut(path, sizes[path.name], within=folder)


def copy_points(source: Path, folder: Path, sizes: Mapping[str, int]) -> None:
    """Copy event files up to their `sizes` into another run's folder, without hyper-parameters.

    That run has its own, and TensorBoard shows those that come first.
    """
    for path in event_files(source):
        if path.name not in sizes or path.is_symlink():
            continue
        content, place = path.read_bytes()[: sizes[path.name]], 0
        with files.append(folder / path.name, within=folder, is_new=True) as file:
            while place < len(content):
                # a length and its checksum, the event and its checksum
                length = int.from_bytes(content[place : place + 8], "little")
                record = content[place : (place := place + length + 16)]
                values = Event.FromString(record[12:-4]).summary.value
                if not any(value.tag.startswith(_OF_ONE_RUN) for value in values):
                    file.write(record)


_OF_ONE_RUN = ("_hparams_/", "custom_scalars__config__", "result/")


def tag(name: str) -> str:
    """The tag of a metric: acc/val for val/acc, which puts both curves next to each other.

    TensorBoard sorts tags by name: acc and loss come before lr, the result, the speed and the
    pictures, whose tags begin with "view".
    """
    split = Metric(name).split
    if split is None:
        return name
    return f"result/{name}" if split == "test" else f"{name.removeprefix(f'{split}/')}/{split}"


def add_layout(writer: Any, added_metrics: Iterable[str]) -> None:
    """The Custom Scalars tab: training and validation in one chart.

    - `added_metrics`: metrics that are logged besides accuracy and loss.
    """
    leaves = dict.fromkeys(name.partition("/")[2] for name in added_metrics)
    titles = {"acc": "accuracy"} | dict.fromkeys(leaves, "") | {"loss": "loss"}
    charts = {
        title or leaf: ["Multiline", [tag(f"train/{leaf}"), tag(f"val/{leaf}")]]
        for leaf, title in titles.items()
    }
    writer.add_custom_scalars({"training": charts | {"learning rate": ["Multiline", ["lr"]]}})
