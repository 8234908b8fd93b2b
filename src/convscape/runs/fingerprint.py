"""The parts of a config that matter to the result, as eight hex digits and as key-value pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from convscape.base.shared import once_for_each
from convscape.config.losses import BEFORE, LossConfig
from convscape.config.networks import OwnModelConfig, layers_of
from convscape.config.schema import Config, InitFromConfig
from convscape.geometry.kinds import all_layers
from convscape.geometry.layers import Conv

if TYPE_CHECKING:
    from pydantic import BaseModel

    from convscape.config.networks import Network
    from convscape.config.schema import DataConfig, TrainerConfig

SECTIONS = (
    "data", "model", "loss", "optimizer", "scheduler", "trainer", "metrics", "callbacks",
    "init_from", "parent",
)  # fmt: skip
# Where a run happens and what it shows, but not its result.
FINGERPRINT_EXCLUDES = {
    "data": ("root", "cache_dir", "download", "eval_batch_size"),
    "trainer": (
        *("device", "devices", "threads", "steps_per_execution", "compile", "progress"),
        *("keep_epochs", "watch"),
    ),
}
# A table's name and how it is read: the fingerprint has its content instead.
TABLE_KEYS = ("labels", "test_labels", "image_column", "label_column", "split_column")
# Keys that earlier versions did not have. At their class's default, which is what earlier runs did,
# they are ignored.
ADDED_LATER = (
    *("data.target", "data.arguments", "data.augment.own", "data.change.placement"),
    *("trainer.monitor", "trainer.monitor_mode", "trainer.freeze", "trainer.freeze_epochs"),
    *("data.fold", "trainer.ema", "trainer.test_flip"),
    *(f"data.augment.{key}" for key in ("rand_augment", "random_erasing", "mixup", "cutmix")),
    *(f"data.{key}" for key in TABLE_KEYS),
)
_NO_LOSS = LossConfig()  # of the user's


def fingerprint(config: Config) -> str:
    """Eight hex digits of all that matters to the result: model, data, optimiser, length, seed.

    Networks that are equal layer by layer are equal here, however they were written.
    """
    matter = {
        "data": _data(config.data, config.content_digest() or ""),
        "optimizer": _json_of(config.optimizer),
        "scheduler": _json_of(config.scheduler),
        "trainer": _trainer(config.trainer),
        "seed": str(config.seed),
    }
    for section in ("metrics", "callbacks"):
        if named := getattr(config, section):
            parts = {name: part.model_dump() for name, part in named.items()}
            matter[section] = json.dumps(parts, sort_keys=True)
    if config.loss != _NO_LOSS:
        matter["loss"] = _json_of(config.loss)
    if config.init_from.run is not None:
        known = config.init_from.model_dump(exclude={"run"})
        matter["init_from"] = json.dumps(known, sort_keys=True)
    if config.parent is not None:
        matter["parent"] = _json_of(config.parent)
    model = config.model
    if isinstance(model, OwnModelConfig):
        matter["model"] = json.dumps(_canonical(model.model_dump()), sort_keys=True)
    else:
        matter["model"] = _network(model, config.image_shape[1])
    # as json.dumps(..., sort_keys=True) writes it, from pieces that runs of a grid share
    whole = ", ".join(f'"{section}": {matter[section]}' for section in sorted(matter))
    return hashlib.sha256(f"{{{whole}}}".encode()).hexdigest()[:8]


@once_for_each
def _json_of(section: BaseModel) -> str:
    return json.dumps(section.model_dump(), sort_keys=True)


@once_for_each
def _data(data: DataConfig, content: str) -> str:
    matter = _without_added("data", data, FINGERPRINT_EXCLUDES["data"])
    if content:
        matter["content"] = content
        for key in TABLE_KEYS:
            matter.pop(key, None)
    return json.dumps(matter, sort_keys=True)


@once_for_each
def _trainer(trainer: TrainerConfig) -> str:
    return json.dumps(
        _without_added("trainer", trainer, FINGERPRINT_EXCLUDES["trainer"]), sort_keys=True
    )


def _without_added(name: str, section: BaseModel, excluded: tuple[str, ...]) -> dict[str, Any]:
    """What matters of a section, without keys that were added later and say nothing."""
    matter = section.model_dump(exclude=set(excluded))
    for key in ADDED_LATER:
        first, *path, leaf = key.split(".")
        if first != name:
            continue
        described: Any = section
        values = matter
        for part in path:
            described, values = getattr(described, part), values[part]
        if values[leaf] == type(described).model_fields[leaf].default:
            del values[leaf]
    return matter


@once_for_each
def _network(model: Network, num_classes: int) -> str:
    layers = layers_of(model, num_classes)
    loss = "mse" if model.loss == BEFORE["mse"] else model.loss  # its original name
    matter: list[Any] = [str(named.layer) for named in layers]
    matter += [model.init, loss, model.label_smoothing]
    if any(isinstance(layer, Conv) for layer in all_layers(layers)):
        matter.append(getattr(model, "first_layer", "learned"))
    return json.dumps(matter, sort_keys=True)


def _canonical(value: Any) -> Any:
    """Make 1.0 and 1 the same: what means the same has the same fingerprint."""
    if isinstance(value, dict):
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# Keys that say what a section is: on the command line they have the section's name.
_HEADS = {
    "optimizer.name": "optimizer",
    "scheduler.name": "scheduler",
    "data.name": "data",
    "init_from.run": "init_from",
}


def flat_config(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a stored config that matters to the result: model, model.stride, optimizer.lr.

    The seed is left out: runs that differ only in it belong together.
    """
    for name, value in config.items():
        key = f"{prefix}{name}"
        section, _, leaf = key.partition(".")
        if section not in SECTIONS or leaf in FINGERPRINT_EXCLUDES.get(section, ()):
            continue
        if key == "parent" and isinstance(value, dict):
            yield key, f"{value.get('fingerprint')} after {value.get('steps')} steps"
        elif isinstance(value, dict):
            yield from flat_config(value, f"{key}.")
        elif key.endswith("._target_") and key != "data._target_":
            yield key.removesuffix("._target_"), value and str(value).rpartition(".")[2]
        else:
            yield _HEADS.get(key, key), value


def with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """A stored config with the keys added later, at the values that it implied."""
    # `copy.deepcopy` takes ten times as long, and this is done for every run
    completed = _copied(config)
    if "loss" not in completed:
        completed["loss"] = LossConfig().model_dump(by_alias=True)
    if "init_from" not in completed:
        completed["init_from"] = InitFromConfig().model_dump()
    completed.setdefault("parent", None)
    for path, name, default in _later_keys():
        values: Any = completed
        for part in path:
            values = values.get(part) if isinstance(values, dict) else None
        if isinstance(values, dict):
            values.setdefault(name, default)
    return completed


def _copied(section: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _copied(value) if isinstance(value, dict) else value
        for name, value in section.items()
    }


@cache
def _later_keys() -> tuple[tuple[list[str], str, Any], ...]:
    """For each key that was added later: the sections around it, its name, its default."""
    found = []
    for key in ADDED_LATER:
        *path, leaf = key.split(".")
        section: Any = Config
        for part in path:
            section = section.model_fields[part].annotation
        field = section.model_fields[leaf]
        found.append((path, field.alias or leaf, field.default))
    return tuple(found)
