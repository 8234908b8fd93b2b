"""Keys that a config sets and its run never reads: refused, naming what ignores them. No torch.

A key at its default is harmless. Torch is imported only to check whether a user's class has its own
optimiser, and only if the config's would then be ignored.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from convscape.base.errors import ConfigError
from convscape.base.shared import once_for_each
from convscape.base.values import typed_value, value_at
from convscape.config.directory import CONFIG_DIR, choices, values_in
from convscape.config.metrics import MONITOR
from convscape.config.networks import CNNConfig, MLPConfig, OwnModelConfig
from convscape.config.schema import Config

ValuesOf = Callable[[str], dict[str, Any]]  # the values of a file of conf/, by its name

_POOL = ("pool_size", "pool_stride", "pool_padding", "pool_ceil_mode")
_OF_GRIDS = {"name": None, "retry": False, "fail_fast": False, "extend": False, "until": None}
_MIXING = ("data.augment.mixup", "data.augment.cutmix")
_MOST_KNOWN = 1000  # configs of a grid, of some kB each
_TRAINING = (
    *("optimizer", "scheduler", "loss", "trainer.steps_per_execution", "trainer.test_flip"),
    *_MIXING,
)


def refuse_unread(config: Config, *, is_alone: bool = False) -> None:
    """Refuse keys that a run sets and does not read.

    - `is_alone`: it is not a run of a sweep or search.

    Raises:
        ConfigError: one line for each key.
    """
    found = _unread(config, _file)
    if is_alone:
        set_keys = {key: getattr(config, key) for key in _OF_GRIDS}
        found |= {
            key: f"{key}={typed_value(value)}: this is one run, and only a sweep reads it; "
            "sweep with -m, or leave it out"
            for key, value in set_keys.items()
            if value != _OF_GRIDS[key]
        }
    if found:
        raise ConfigError("\n".join(found.values()))


class UnreadInGrid:
    """Keys that the runs of a grid set and do not read, as runs are added one by one."""

    def __init__(self) -> None:
        self._unread: dict[str, str] = {}
        self._num_unread: Counter[str] = Counter()
        self._num_runs = 0
        self._values_of = cache(_file)  # for this grid: the next may find different files
        self._known: dict[tuple[Any, ...], tuple[Config, dict[str, str]]] = {}

    def add(self, config: Config) -> None:
        """Take a run into account."""
        # runs that differ in the seed share their sections
        key = tuple(
            [
                id(value) if isinstance(value, BaseModel) else repr(value)
                for name, value in config
                if name != "seed"
            ]
        )
        if key not in self._known:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = config, _unread(config, self._values_of)
        _, found = self._known[key]
        self._unread |= found
        self._num_unread.update(found.keys())
        self._num_runs += 1

    def refuse(self, swept: Collection[str] = ()) -> None:
        """Refuse keys that no run reads, and keys swept for runs that do not read them.

        Runs that are equal layer by layer, as without pooling, are trained once and do no harm.

        Raises:
            ConfigError: one line for each key.
        """
        wrong = [
            sentence
            for key, sentence in self._unread.items()
            if self._num_unread[key] == self._num_runs
            or (key in swept and not key.startswith("model."))
        ]
        if wrong:
            raise ConfigError("\n".join(wrong))


def refuse_unread_space(config: Config, space: Collection[str]) -> None:
    """Refuse to search over keys that the trials, of which `config` is one, do not read.

    Raises:
        ConfigError: naming the key.
    """
    ignored = {key: who for key, who in _ignored(config) if not key.startswith("model.")}
    if isinstance(config.model, OwnModelConfig):
        ignored |= _ignored_by_class(config)
    for key in space:
        for other, who in ignored.items():
            if f"{key}.".startswith(f"{other}."):
                raise ConfigError(f"search.space.{key}: {who}; take it out of the space")


def _unread(config: Config, values_of: ValuesOf) -> dict[str, str]:
    """Keys that are set and not read, each with the message that refuses it."""
    values = {name: _dumped(v) if isinstance(v, BaseModel) else v for name, v in config}
    found = {}
    for key, who in _ignored(config):
        value, default = value_at(values, key), _default(key, config, values_of)
        if value != default:
            found[key] = f"{key}={typed_value(value)}: {who}; leave it out"
    if isinstance(config.model, OwnModelConfig):
        changed = {part: dict(_changed(part, values, config, values_of)) for part in _TRAINING}
        ignored = _ignored_by_class(config) if any(changed.values()) else {}
        for part, who in ignored.items():
            for key, value in changed[part].items():
                found[key] = f"{key}={typed_value(value)}: {who}; leave it out"
    return found


@once_for_each
def _dumped(section: BaseModel) -> dict[str, Any]:
    return section.model_dump(by_alias=True)


def _ignored(config: Config) -> Iterator[tuple[str, str]]:
    """Keys that a run does not read, whatever their values, and what ignores them."""
    data, model = config.data, config.model
    yield "parent", "a run that continues another one gets it from resume=<run folder>"
    if data.is_brought or data.name in ("digits", "image_folder"):
        yield "data.download", f"data={data.name} has nothing to download"
    if not data.is_brought and data.name != "image_folder":
        yield "data.test_fraction", f"data={data.name} has its own test images"
    if data.name not in ("image_folder", "csv"):
        yield "data.on_unreadable", f"data={data.name} reads no picture files"
    if data.name != "csv":
        for key in ("labels", "test_labels", "image_column", "label_column", "split_column"):
            yield f"data.{key}", f"data={data.name} reads no table; data=csv does"
    if data.name != "own":
        yield "data._target_", f"data={data.name} calls no function; data=own does"
        yield "data.arguments", f"data={data.name} calls no function; data=own does"
    if data.val_size == 0 and config.monitor is not None and config.monitor.split == "val":
        where = "data.val_size=0 leaves no image to validate on"
        if config.monitor.name != MONITOR:
            yield "trainer.monitor", where
        yield "trainer.early_stopping", f"{where}; trainer.monitor=train/loss needs none"
    if config.init_from.run is None:
        words = "init_from=null loads nothing; init_from=<run folder> does"
        yield "init_from.layers", words
        if config.trainer.freeze == "loaded":
            yield "trainer.freeze", words
    if config.trainer.freeze is None:
        yield "trainer.freeze_epochs", "trainer.freeze=null freezes nothing"
    elif (config.trainer.freeze_epochs or 0) >= (config.trainer.max_epochs or math.inf):
        yield (
            "trainer.freeze_epochs",
            f"trainer.max_epochs={config.trainer.max_epochs} is not longer than that",
        )
    if config.monitor is None:
        yield "trainer.early_stopping", "trainer.monitor=null names nothing that could get better"
    if config.logger.tensorboard is None and config.visual == "full":
        yield "visual", "its pictures go to TensorBoard, which is not among the loggers"
    if isinstance(model, CNNConfig):
        pools = model.pool if isinstance(model.pool, list) else [model.pool]
        if set(pools) == {"none"}:
            yield from ((f"model.{key}", "model.pool=none pools nothing") for key in _POOL)
        if not model.dense:
            yield "model.dense_dropout", "model.dense=[] has no layer to drop from"
    if config.loss.target is not None and not isinstance(model, OwnModelConfig):
        for key in ("model.loss", "model.label_smoothing"):
            yield key, f"loss._target_={config.loss.target} is the loss"
    if isinstance(model, MLPConfig) and not model.hidden:
        words = "model.hidden=[] has no hidden layer"
        yield from ((f"model.{key}", words) for key in ("activation", "dropout", "batch_norm"))


def _ignored_by_class(config: Config) -> dict[str, str]:
    """Keys that a user's class sets itself, and what ignores them; imports torch."""
    from convscape.training.build import has_own_training, made_by_class

    assert isinstance(config.model, OwnModelConfig)
    target = config.model.target
    if has_own_training(config):
        words = f"{target} is a LightningModule with its own training, and ignores it"
        mixing = f"the training_step of {target} is given class ids, and can mix the images itself"
        return dict.fromkeys(_TRAINING, words) | dict.fromkeys(_MIXING, mixing)
    made = {
        "loss": "loss",
        "optimizer": "configure_optimizers",
        "trainer.test_flip": "test_step",
    }
    return {
        part: f"{target}.{method} decides that, and ignores this"
        for part, method in made.items()
        if made_by_class(config, method)
    }


def _changed(
    part: str, values: Mapping[str, Any], config: Config, values_of: ValuesOf
) -> Iterator[tuple[str, Any]]:
    """Keys of a section, or the one key, that are not at their default."""
    value, default = value_at(values, part), _default(part, config, values_of)
    if not isinstance(value, dict):
        is_so_anyway = part == "trainer.steps_per_execution" and value == 1
        if value != default and not is_so_anyway:
            yield part, value
    elif value.get("name") != default.get("name"):
        yield part, value.get("name", value.get("_target_"))
    else:
        yield from ((f"{part}.{k}", v) for k, v in value.items() if v != default.get(k))


def _default(key: str, config: Config, values_of: ValuesOf) -> Any:
    """The default value of a key, from conf/ or from its class."""
    section, _, leaf = key.partition(".")
    if section == "data":
        if leaf.startswith("augment."):
            return type(config.data.augment).model_fields[leaf.partition(".")[2]].default
        fields = type(config.data).model_fields
        return False if leaf == "download" else fields[leaf.strip("_")].default
    files = {
        "optimizer": "optimizer/adam",
        "scheduler": "scheduler/one_cycle",
        "trainer": "trainer/default",
        "loss": "train",
        "model": f"model/{'mlp' if isinstance(config.model, MLPConfig) else 'cnn'}",
        "visual": "train",
    }
    if section not in files:
        default = Config.model_fields[section].default
        return getattr(default, leaf) if leaf else default
    defaults = values_of(files[section])
    return defaults if section in ("optimizer", "scheduler") else defaults[leaf or section]


def _file(name: str) -> dict[str, Any]:
    """The values of a file of conf/, overlaid with the user's own file of that name."""
    group, _, choice = name.rpartition("/")
    own = choices(group)[choice] if group else CONFIG_DIR / f"{name}.yaml"
    return _values_in(CONFIG_DIR / f"{name}.yaml") | _values_in(own)


_values_in = cache(values_in)
