"""Types, bounds and meaning of every config key. Defaults are only in conf/*.yaml. No torch.

`check` turns the plain dict composed by Hydra into a `Config`, or raises `ConfigError` with one
sentence per mistake: the key, the value, what is allowed and the closest match.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticKnownError

from convscape import geometry
from convscape.base.sections import Fraction, Part, Positive, Section, Seed
from convscape.base.shared import once_for_each
from convscape.base.values import MAX_INTEGER
from convscape.config.kinds import Device, SeedRange
from convscape.config.losses import LossConfig
from convscape.config.metrics import METRICS, MONITOR, Metric, added_metrics, monitor_named
from convscape.config.networks import ModelConfig, OwnModelConfig, layers_of, plan_of
from convscape.config.optimizers import AnyOptimizer
from convscape.config.schedulers import SchedulerConfig
from convscape.data.variants import ChangeConfig

if TYPE_CHECKING:
    from convscape.data.cache import ImageSet
    from convscape.data.given import Wanted
    from convscape.geometry.kinds import NamedLayer
    from convscape.geometry.plan import Plan


class AugmentConfig(Section):
    """Random changes to every training image, drawn separately for each image.

    `own` names the user's functions, in packages of `allow_packages`.
    """

    shift: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    flip: bool
    rotate: Annotated[float, Field(ge=0, le=180)]
    cutout: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    brightness: Fraction
    contrast: Fraction
    rand_augment: Annotated[int, Field(ge=0, le=30)] = 0
    random_erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=100)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=100)] = 0.0
    own: list[str] = Field(default=[])


def _count_or_fraction(value: Any) -> Any:
    if value is None:
        return None
    valid = (type(value) is int and value >= 0) or (type(value) is float and 0 <= value < 1)
    if not valid:
        raise ValueError(
            f"{value!r} is not allowed; allowed: a number of images, or a fraction below 1"
        )
    return value


def _known_data_set(name: Any) -> Any:
    from convscape.data.datasets import DATASETS

    known = (*DATASETS, *FILES, "own")
    if name not in known:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(known)})
    return name


FILES = (
    "csv",
    "npz",
)  # the user's files; as with "own", their content is known once they are read


class DataConfig(Section):
    """A data set, its splits and its batches."""

    name: Annotated[str, BeforeValidator(_known_data_set)]
    target: str | None = Field(default=None, alias="_target_")
    arguments: dict[str, Any] = Field(default={})
    root: str
    cache_dir: str
    download: bool
    image_size: Annotated[Any, AfterValidator(lambda v: (geometry.parse_optional_size(v), v)[1])]
    channels: Literal[1, 3] | None
    mean: list[float] | None
    std: list[Annotated[float, Field(gt=0)]] | None
    val_size: Annotated[Any, BeforeValidator(_count_or_fraction)]
    train_size: Positive | None
    split_seed: Seed
    fold: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 0
    batch_size: Positive
    eval_batch_size: Positive
    augment: AugmentConfig
    change: ChangeConfig
    on_unreadable: Literal["error", "skip"] = "error"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    labels: str | None = None
    test_labels: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None

    @property
    def is_brought(self) -> bool:
        """Whether the shape and classes are known only after reading the data."""
        return self.name in (*FILES, "own")

    def wanted(self) -> Wanted:
        """Which of the user's files to read, and how."""
        from convscape.data.given import Wanted
        from convscape.data.tables import Columns

        columns = Columns(
            *(self.labels or "labels.csv", self.test_labels),
            *(self.image_column, self.label_column, self.split_column),
        )
        return Wanted(
            name=self.name,
            root=Path(self.root).expanduser(),
            image_size=self.image_size,
            channels=self.channels,
            test_fraction=self.test_fraction,
            on_unreadable=self.on_unreadable,
            use_val=self.val_size is None,
            columns=columns if self.name == "csv" else None,
        )


class TrainerConfig(Section):
    """How long, where and in what precision to train."""

    max_epochs: Positive | None
    max_steps: Positive | None
    monitor: str | None = MONITOR
    monitor_mode: Literal["auto", "max", "min"] = "auto"
    early_stopping: Positive | None
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None
    freeze: Annotated[list[str], Field(min_length=1)] | Literal["loaded"] | None = None
    freeze_epochs: Positive | None = None
    keep_epochs: bool = False
    watch: bool = True
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    test_flip: bool = False
    device: Device
    devices: Positive
    precision: Literal["auto", "fp32", "bf16"]
    threads: Annotated[int, Field(ge=1, le=1024)] | None
    steps_per_execution: Positive | Literal["auto"]
    deterministic: bool
    compile: bool
    progress: Literal["auto", "bar", "lines", "off"]

    @model_validator(mode="before")
    @classmethod
    def _mode_without_news_is_auto(cls, keys: Any) -> Any:
        # so that it is the same run with the same fingerprint
        known = METRICS.get(str(keys.get("monitor"))) if isinstance(keys, dict) else None
        if known is not None and keys.get("monitor_mode") == known.direction:
            return keys | {"monitor_mode": "auto"}
        return keys


class TensorBoardConfig(Section):
    """Event files in the run folder."""


class CsvConfig(Section):
    """metrics.csv and hparams.csv in the run folder."""


class WandbConfig(Section):
    """Weights & Biases."""

    project: str
    entity: str | None
    mode: Literal["offline", "online"]


class MlflowConfig(Section):
    """MLflow, on a server or in a file."""

    experiment: str
    tracking_uri: str | None


class LoggerConfig(Section):
    """Where the metrics go: all loggers that are set are used.

    Under names that the user chooses, `_target_` may name any Lightning logger or your own.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Part] = Field(init=False)

    tensorboard: TensorBoardConfig | None = None
    csv: CsvConfig | None = None
    wandb: WandbConfig | None = None
    mlflow: MlflowConfig | None = None

    @property
    def named(self) -> dict[str, Part]:
        """The loggers under names that the user chose."""
        return dict(self.__pydantic_extra__ or {})

    @model_validator(mode="before")
    @classmethod
    def _others_name_a_class(cls, keys: Any) -> Any:
        if not isinstance(keys, dict):
            return keys
        strange = {
            name: value
            for name, value in keys.items()
            if name not in cls.model_fields
            and not (isinstance(value, dict) and "_target_" in value)
        }
        if strange:
            raise ValidationError.from_exception_data(
                "logger",
                [
                    {"type": "extra_forbidden", "loc": (name,), "input": value}
                    for name, value in strange.items()
                ],
            )
        return keys


def _metric_name(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in ("loss", "acc"):
        raise ValueError(
            "allowed: small letters, digits and _, beginning with a letter, and not loss or acc, "
            "which are measured anyway"
        )
    return name


MetricName = Annotated[str, AfterValidator(_metric_name)]
PartName = Annotated[str, Field(pattern="^[A-Za-z][A-Za-z0-9_]*$")]


class InitFromConfig(Section):
    """The weights that a network starts with instead of those from `model.init`.

    - `run`: a run folder, or a file of weights; `layers`: which layers, by default all that fit.
    - `checksum`: of the weights, once they were read: it identifies them wherever they are stored.
    """

    run: str | None = None
    layers: Annotated[list[str], Field(min_length=1)] | None = None
    checksum: Annotated[str, Field(pattern="^[0-9a-f]{12}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _a_word_is_the_run(cls, value: Any) -> Any:
        return value if isinstance(value, dict | InitFromConfig) else {"run": value}


class ParentConfig(Section):
    """The run that another one continues, if no single training gives the same bits.

    - `fingerprint`: which run it is; `steps`: the optimiser steps it had taken.
    - `new_schedule`: whether the learning-rate schedule restarts after these.
    """

    fingerprint: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]
    steps: Annotated[int, Field(ge=0, le=MAX_INTEGER)]
    new_schedule: bool


class Config(Section):
    """One run: everything that `train` needs."""

    data: DataConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    optimizer: AnyOptimizer
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    init_from: InitFromConfig = InitFromConfig()
    metrics: dict[MetricName, Part] = Field(default={})
    callbacks: dict[PartName, Part] = Field(default={})
    logger: LoggerConfig = LoggerConfig()
    visual: Literal["off", "light", "full"]
    seed: Seed
    name: str | None
    output_dir: str
    resume: str | None
    retry: bool
    fail_fast: bool
    extend: bool
    until: Literal["verdict"] | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    seeds: SeedRange = "3..30"
    allow_packages: list[str]
    parent: ParentConfig | None = None  # written by resume=, never by a user

    @cached_property
    def monitor(self) -> Metric | None:
        """The metric that checkpoints are chosen by; None: the last epoch is chosen.

        Raises:
            ConfigError: if it cannot be used to choose.
        """
        trainer = self.trainer
        return monitor_named(trainer.monitor, trainer.monitor_mode, self.added_metrics)

    @cached_property
    def added_metrics(self) -> dict[str, Metric]:
        """The metrics besides loss and accuracy, by name: train/f1, val/f1, test/f1."""
        return added_metrics({leaf: part.target for leaf, part in self.metrics.items()})

    def parts(self) -> Iterator[tuple[str, str, Part]]:
        """The parts that are named by `_target_`, each with its door and its key."""
        named: dict[str, dict[str, Part]] = {
            "metrics": self.metrics, "callbacks": self.callbacks, "logger": self.logger.named
        }  # fmt: skip
        for door in ("model", "loss", "optimizer", "scheduler"):
            section = getattr(self, door)
            if isinstance(section, Part) and section.target is not None:
                yield door, f"{door}._target_", section
        for door, parts in named.items():
            for name, part in parts.items():
                yield door, f"{door}.{name}._target_", part

    @property
    def choice(self) -> str | None:
        """A sentence on what is kept instead of the best epoch, if there is no validation."""
        if self.monitor is None:
            return "trainer.monitor=null: the weights of the last epoch are kept"
        if self.data.val_size == 0 and self.monitor.split == "val":
            return "data.val_size=0: without validation the weights of the last epoch are kept"
        return None

    @cached_property
    def image_shape(self) -> tuple[tuple[int, int, int], int]:
        """Shape (C, H, W) of an image and the number of classes, from the data set's facts."""
        from convscape.data.variants import variant_shape

        data = self.data
        if data.is_brought:
            image_set = self._own_images()
            _, *size = image_set.train_images.shape
            shape, num_classes = (size[0], size[1], size[2]), len(image_set.classes)
        else:
            shape, num_classes = _shape_of_known(data)
        return variant_shape(shape, data.change), num_classes

    def _own_images(self) -> ImageSet:
        """The images from the user's function, data set or files."""
        from convscape.data.custom import load_own
        from convscape.data.given import load_given

        data = self.data
        if data.name != "own":
            return load_given(data.wanted(), data.cache_dir)
        assert data.target is not None
        return load_own(
            data.target,
            data.arguments,
            self.allow_packages,
            root=data.root,
            cache_dir=data.cache_dir,
            image_size=data.image_size,
            channels=data.channels,
            test_fraction=data.test_fraction,
            use_val=data.val_size is None,
        )

    def content_digest(self) -> str | None:
        """A hash of the images, for data sets whose name does not say what is in them."""
        if self.data.name == "image_folder":
            return _digest_of_folder(self.data)
        return self._own_images().checksum if self.data.is_brought else None

    def load_images(self) -> ImageSet:
        """The data set, from its cache or its source.

        Raises:
            DataError: if it is missing or damaged.
        """
        from convscape.data.datasets import load_images
        from convscape.data.variants import apply_variant

        data = self.data
        if data.is_brought:
            return apply_variant(self._own_images(), data.change)
        image_set = load_images(
            data.name,
            root=data.root,
            cache_dir=data.cache_dir,
            image_size=data.image_size,
            channels=data.channels,
            download=data.download,
            on_unreadable=data.on_unreadable,
            test_fraction=data.test_fraction,
            use_val=data.val_size is None,
        )
        return apply_variant(image_set, data.change)

    @cached_property
    def layers(self) -> list[NamedLayer] | None:
        """The network as a list of layers; None for the user's own model."""
        if isinstance(self.model, OwnModelConfig):
            return None
        return layers_of(self.model, self.image_shape[1])

    def plan(self) -> Plan | None:
        """Shapes, parameters and MACs; None for the user's own model.

        Raises:
            InfeasibleGeometry: if the network cannot exist.
        """
        if isinstance(self.model, OwnModelConfig):
            return None
        return plan_of(self.model, *self.image_shape)


@once_for_each
def _shape_of_known(data: DataConfig) -> tuple[tuple[int, int, int], int]:
    from convscape.data.datasets import image_shape

    return image_shape(
        data.name, root=data.root, image_size=data.image_size, channels=data.channels
    )


@once_for_each
def _digest_of_folder(data: DataConfig) -> str:
    from convscape.data.datasets import folder_digest

    return folder_digest(data.root, use_val=data.val_size is None)


MAX_MISTAKES = 50  # mistakes that are reported; a list may hold thousands of wrong entries
