"""What TensorBoard shows of a run besides its curves: the HParams tab and a custom layout."""

from __future__ import annotations

import time
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

from convscape.config import Config
from convscape.runs import fingerprint, flat_config, typed_value

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
    _file_writer(writer).add_summary(summary_v2.hparams_pb(chosen, trial_id=trial_id(config)))
    writer.add_custom_scalars(LAYOUT)


def end_session(writer: Any) -> None:
    """Tell the HParams tab that the run came to its end."""
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    value = Summary.Value(
        tag=metadata.SESSION_END_INFO_TAG, metadata=data, tensor=metadata.NULL_TENSOR
    )
    _file_writer(writer).add_summary(Summary(value=[value]))


def _file_writer(writer: Any) -> Any:
    return writer._get_file_writer()
