"""What of a config matters to the result, as eight hex digits and as key-value pairs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from convscape.config.losses import BEFORE, LossConfig
from convscape.config.networks import OwnModelConfig
from convscape.config.schema import Config, InitFromConfig
from convscape.geometry.kinds import all_layers
from convscape.geometry.layers import Conv

SECTIONS = (
    "data", "model", "loss", "optimizer", "scheduler", "trainer", "metrics", "callbacks",
    "init_from", "parent",
)  # fmt: skip
# Where a run happens and what it shows, but not what comes out of it.
FINGERPRINT_EXCLUDES = {
    "data": ("root", "cache_dir", "download", "eval_batch_size"),
    "trainer": (
        *("device", "devices", "threads", "steps_per_execution", "compile", "progress"),
        *("keep_epochs", "watch"),
    ),
}
# What a table is called, and how it is read: the fingerprint has its content instead.
TABLE_KEYS = ("labels", "test_labels", "image_column", "label_column", "split_column")
# Keys that earlier runs did not have. At the default of their class, which is what those runs
# meant, it is as if there were no such key.
ADDED_LATER = (
    *("data.target", "data.arguments", "data.augment.own", "data.change.placement"),
    *("trainer.monitor", "trainer.monitor_mode", "trainer.freeze", "trainer.freeze_epochs"),
    *("data.fold", "trainer.ema", "trainer.test_flip"),
    *(f"data.augment.{key}" for key in ("rand_augment", "random_erasing", "mixup", "cutmix")),
    *(f"data.{key}" for key in TABLE_KEYS),
)


def fingerprint(config: Config) -> str:
    """Eight hex digits of all that matters to the result: model, data, optimiser, length, seed.

    Networks that are equal layer by layer are equal here, however they were written.
    """
    matter = config.model_dump(include={"data", "optimizer", "scheduler", "trainer", "seed"})
    for section, keys in FINGERPRINT_EXCLUDES.items():
        for key in keys:
            matter[section].pop(key)
    for key in ADDED_LATER:
        *path, leaf = key.split(".")
        described: Any = config
        values = matter
        for part in path:
            described, values = getattr(described, part), values[part]
        if values[leaf] == type(described).model_fields[leaf].default:
            del values[leaf]
    for section in ("metrics", "callbacks"):
        if named := getattr(config, section):
            matter[section] = {name: part.model_dump() for name, part in named.items()}
    if config.loss != LossConfig():
        matter["loss"] = config.loss.model_dump()
    if config.init_from.run is not None:
        matter["init_from"] = config.init_from.model_dump(exclude={"run"})
    if config.parent is not None:
        matter["parent"] = config.parent.model_dump()
    if (content := config.content_digest()) is not None:
        matter["data"]["content"] = content
        for key in TABLE_KEYS:
            matter["data"].pop(key, None)
    model = config.model
    if isinstance(model, OwnModelConfig):
        matter["model"] = _canonical(model.model_dump())
    else:
        layers = config.layers
        assert layers is not None
        matter["model"] = [str(named.layer) for named in layers]
        loss = "mse" if model.loss == BEFORE["mse"] else model.loss  # as it was called at first
        matter["model"] += [model.init, loss, model.label_smoothing]
        if any(isinstance(layer, Conv) for layer in all_layers(layers)):
            matter["model"].append(getattr(model, "first_layer", "learned"))
    return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()[:8]


def _canonical(value: Any) -> Any:
    """1.0 and 1 as one: equal in meaning is equal in the fingerprint."""
    if isinstance(value, dict):
        return {key: _canonical(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(entry) for entry in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# Keys that say what a section is: the command line calls them by the section.
_HEADS = {
    "optimizer.name": "optimizer",
    "scheduler.name": "scheduler",
    "data.name": "data",
    "init_from.run": "init_from",
}


def flat_config(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a stored config that matters to the result: model, model.stride, optimizer.lr.

    The seed is not among them: runs that differ only in it belong together.
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
    """A stored config with the keys that it is too old to have, at what it meant."""
    completed = _copied(config)  # `copy.deepcopy` takes ten times as long, for each of all runs
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
    """Of each key that was added later: the sections around it, its name, its default."""
    found = []
    for key in ADDED_LATER:
        *path, leaf = key.split(".")
        section: Any = Config
        for part in path:
            section = section.model_fields[part].annotation
        field = section.model_fields[leaf]
        found.append((path, field.alias or leaf, field.default))
    return tuple(found)
