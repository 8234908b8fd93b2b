"""What TensorBoard's HParams tab shows: the keys that differ, and the results.

Without an "experiment summary" TensorBoard takes every scalar for a metric, learning rate and speed
included. With one in several runs it uses any of them for all, so each run's has the columns of the
others too: the keys of every network, optimiser and schedule.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

from convscape.base.values import typed_value
from convscape.config import schedulers
from convscape.config.metrics import MONITOR, Metric
from convscape.config.networks import CNNConfig, MLPConfig
from convscape.config.optimizers import OPTIMIZERS
from convscape.config.schema import Config
from convscape.runs.fingerprint import fingerprint, flat_config
from convscape.runs.result import Result
from convscape.runs.words import KEYS_OF_SWEEP
from convscape.training.events import tag

COSTS = {"num_parameters": "parameters", "macs": "MACs"}
SCHEDULES = (
    schedulers.ConstantConfig,
    schedulers.StepConfig,
    schedulers.MultiStepConfig,
    schedulers.CosineConfig,
    schedulers.OneCycleConfig,
)


def hyperparameters(
    config: Config, overrides: Iterable[str]
) -> dict[str, bool | int | float | str]:
    """What was chosen: the network, how it learns, and what was typed, but not the seed."""
    typed = _typed(overrides)
    return {
        key: value if isinstance(value, bool | int | float | str) else typed_value(value)
        for key, value in flat_config(config.model_dump(by_alias=True))
        if key == "data" or key.startswith(("model", "optimizer", "scheduler")) or key in typed
    }


def trial_id(config: Config) -> str:
    """The same for runs that differ only in the seed: TensorBoard shows their mean in one row."""
    return fingerprint(config.model_copy(update={"seed": 0}))


def begin_session(writer: Any, config: Config, overrides: list[str]) -> None:
    """Tell the tab what was chosen and which columns exist."""
    chosen = hyperparameters(config, overrides)
    # those with several values in a sweep; otherwise what was typed may differ between runs
    differing = set(os.environ.get(KEYS_OF_SWEEP, "").split()) or _typed(overrides)
    keys = {key: _type_of(value) for key, value in (_of_other_runs() | chosen).items()}
    monitor = config.trainer.monitor
    names = list(dict.fromkeys([monitor or MONITOR, Metric(monitor or MONITOR).on_test]))
    names += [name for name in (MONITOR, Metric(MONITOR).on_test, *COSTS) if name not in names]
    experiment = api_pb2.Experiment(
        # no key lists its values: rows of later runs with other values would be hidden
        hparam_infos=[
            api_pb2.HParamInfo(name=key, type=keys[key], differs=key in differing)
            for key in sorted(keys, key=lambda key: (key not in differing, key not in chosen, key))
        ],
        metric_infos=[
            api_pb2.MetricInfo(
                name=api_pb2.MetricName(tag=result_tag(name)), display_name=COSTS.get(name, name)
            )
            for name in names
        ],
    )
    writer.add_summary(_summary(metadata.EXPERIMENT_TAG, experiment=experiment))
    writer.add_summary(summary_v2.hparams_pb(chosen, trial_id=trial_id(config)))


def end_session(writer: Any, result: Result) -> None:
    """Tell the tab the results: for validation those of the chosen epoch, as in result.json."""
    found = {**result.metrics, "num_parameters": result.num_parameters, "macs": result.macs}
    for name, value in found.items():
        if value is not None and Metric(name).split not in ("train", "test"):  # test is there
            writer.add_scalar(result_tag(name), value, result.global_step)
    end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS, end_time_secs=time.time())
    writer.add_summary(_summary(metadata.SESSION_END_INFO_TAG, session_end_info=end))


def result_tag(name: str) -> str:
    """The tag of a metric's value at the chosen epoch, and of a cost."""
    return tag(name) if Metric(name).split == "test" else f"result/{name}"


def _typed(overrides: Iterable[str]) -> set[str]:
    return {override.lstrip("+").partition("=")[0] for override in overrides} - {"seed"}


def _of_other_runs() -> dict[str, Any]:
    """The keys that other runs may have, each with its default."""
    sections = {
        "model": (CNNConfig, MLPConfig),
        "optimizer": OPTIMIZERS.values(),
        "scheduler": SCHEDULES,
    }
    return {
        f"{section}.{field.alias or name}": field.default
        for section, classes in sections.items()
        for each in classes
        for name, field in each.model_fields.items()
        if name not in ("target", "name")
    }


def _type_of(value: Any) -> Any:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_FLOAT64 if isinstance(value, int | float) else api_pb2.DATA_TYPE_STRING


def _summary(name: str, **content: Any) -> Summary:
    data = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**content))
    value = Summary.Value(tag=name, metadata=data, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])
