"""The event files that TensorBoard reads, and what it shows besides curves: HParams, a layout."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

from convscape.base import files
from convscape.base.quick_lightning import pl, rank_zero_experiment
from convscape.base.values import typed_value
from convscape.config.schema import Config
from convscape.runs.fingerprint import fingerprint, flat_config
from convscape.training.torch_insides import SummaryWriter

PREFIX = "events.out.tfevents."


class EventFile:
    """Writes events at once and whole.

    TensorBoard's own writer has a thread that holds back up to two minutes of events, which a kill
    loses, and in which a full disk goes unheard.
    """

    def __init__(self, folder: Path) -> None:
        stamps = [int(path.name.removeprefix(PREFIX)[:10]) for path in event_files(folder)]
        # TensorBoard reads files by name, and a clock may have been set back in between
        stamp = max([int(time.time()), *(last + 1 for last in stamps)])
        self._folder = folder
        self._path = folder / f"{PREFIX}{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = files.append(self._path, within=folder, is_new=True)
        self._records = RecordWriter(self._file)
        self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def get_logdir(self) -> str:
        """For torch, which asks for it."""
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        """Write one."""
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """All is written."""

    def close(self) -> None:
        """No more comes."""
        self._file.close()


class EventLogger(pl.loggers.TensorBoardLogger):
    """Lightning's logger, writing into the run folder with `EventFile`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, name="", version=folder.name, default_hp_metric=False)
        self._writer: SummaryWriter | None = None
        self._folder = folder

    @property
    def log_dir(self) -> str:
        """The run folder as it is: Lightning would put values of the environment for $NAME."""
        return str(self._folder)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Torch's `SummaryWriter`, made when it is first asked for."""
        if self._writer is None:
            self._writer = SummaryWriter(self.log_dir, EventFile(Path(self.log_dir)))
        return self._writer

    def finalize(self, status: str) -> None:
        """Lightning calls it after the training; the test is still to come."""

    def close(self) -> None:
        """No more comes."""
        if self._writer is not None:
            self._writer.close()

    def save(self) -> None:
        """All is written; Lightning would add a file of hyper-parameters that it does not know."""


def event_files(folder: Path) -> list[Path]:
    """Those of a run, the oldest first."""
    return sorted(folder.glob(f"{PREFIX}{'[0-9]' * 10}.*"))


def sizes(folder: Path) -> dict[str, int]:
    """How long each event file is now, for `truncate_events`."""
    return {path.name: path.stat().st_size for path in event_files(folder)}


def truncate_events(paths: list[Path], sizes: Mapping[str, int], folder: Path) -> None:
    """Take away what was written since `sizes`: it is about to be written again.

    Raises:
        NotInside: if one of them is a link out of `folder`.
    """
    for path in paths:
        if path.name not in sizes:
            files.remove(path, within=folder)
        elif path.stat().st_size > sizes[path.name]:
            files.cut(path, sizes[path.name], within=folder)


def copy_points(source: Path, folder: Path, sizes: Mapping[str, int]) -> None:
    """Copy event files up to their `sizes` into another run's folder, but for what is that run's.

    Its hyper-parameters are others, and TensorBoard shows those that come first.
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


_OF_ONE_RUN = ("_hparams_/", "custom_scalars__config__")

LAYOUT = {
    "training": {
        "loss": ["Multiline", ["train/loss", "val/loss"]],
        "accuracy": ["Multiline", ["train/acc", "val/acc"]],
        "learning rate": ["Multiline", ["lr"]],
    }
}


def hyperparameters(config: Config, overrides: list[str]) -> dict[str, bool | int | float | str]:
    """What was chosen: the network, how it learns, and what was typed; the seed is not among it."""
    typed = {override.lstrip("+").partition("=")[0] for override in overrides}
    return {
        key: value if isinstance(value, bool | int | float | str) else typed_value(value)
        for key, value in flat_config(config.model_dump(by_alias=True))
        if key == "data" or key.startswith(("model", "optimizer", "scheduler")) or key in typed
    }


def trial_id(config: Config) -> str:
    """The same for runs that differ only in the seed."""
    return fingerprint(config.model_copy(update={"seed": 0}))


def begin_session(writer: Any, config: Config, overrides: list[str]) -> None:
    """Tell the HParams tab the hyper-parameters.

    Runs that differ only in the seed have one trial id, so that TensorBoard shows their mean in one
    row. Columns are the union over all runs: nothing is declared beforehand, as a CNN and an MLP
    have different keys.
    """
    chosen = hyperparameters(config, overrides)
    writer.add_summary(summary_v2.hparams_pb(chosen, trial_id=trial_id(config)))
    writer.add_custom_scalars(LAYOUT)


def end_session(writer: Any) -> None:
    """Tell the HParams tab that the run came to its end."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR
    )
    writer.add_summary(Summary(value=[value]))
