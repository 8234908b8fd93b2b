"""Types, bounds and meaning of every config key. Defaults stand in conf/*.yaml alone. No torch.

`check` turns the plain dict that Hydra composed into a `Config`, or raises `ConfigError` with one
sentence per mistake: the key, the value, what is allowed and the closest match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticKnownError

from convscape import geometry, metrics
from convscape.errors import ConfigError, NotAllowed
from convscape.geometry import ACTIVATIONS, NamedLayer, Plan
from convscape.losses import in_full
from convscape.optimizers import OPTIMIZERS, AnyOptimizer, OptimizerConfig
from convscape.sections import Fraction, NotNegative, Positive, Section, Seed
from convscape.sequential import LayerError, kind_of, sequential_layers, whole_layers
from convscape.values import (
    LARGEST,
    boolean,
    device,
    hint,
    integer,
    mistake,
    probability,
    shortened,
)

if TYPE_CHECKING:
    from convscape.cache import ImageSet

# --- kinds of values --------------------------------------------------------------------------


def _each(check: Callable[[Any], Any]) -> AfterValidator:
    """Apply `check` to a value, or to each entry of a list with one per block; keep the value."""

    def apply(value: Any) -> Any:
        if value == []:
            raise ValueError("the list is empty; allowed: one value, or one per block")
        for entry in value if isinstance(value, list) else [value]:
            check(entry)
        return value

    return AfterValidator(apply)


Sizes = Annotated[Any, _each(geometry.parse_size)]
OptionalSizes = Annotated[Any, _each(geometry.parse_optional_size)]
Paddings = Annotated[Any, _each(geometry.parse_padding)]
Groups = Annotated[Any, _each(integer)]
Flags = Annotated[Any, _each(boolean)]
Probabilities = Annotated[Any, _each(probability)]
Activations = Annotated[Any, _each(geometry.activation)]
Device = Annotated[str, AfterValidator(device)]
PoolKinds = Annotated[Any, _each(geometry.pooling_kind)]


# --- model ------------------------------------------------------------------------------------

Loss = Annotated[
    Literal["cross_entropy", "mse", "logits_mse", "softmax_mse"], AfterValidator(in_full)
]
Init = Literal["default", "glorot_uniform", "kaiming_normal", "dirac"]


class CNNConfig(Section):
    """Blocks of conv, pool, dropout; a head; dense layers. A list gives one value per block."""

    target: Literal["convscape.models.CNN"] = Field(alias="_target_")
    channels: Annotated[list[Positive], Field(min_length=1)]
    kernel_size: Sizes
    stride: Sizes
    padding: Paddings
    dilation: Sizes
    groups: Groups
    pool: PoolKinds
    pool_size: Sizes
    pool_stride: OptionalSizes
    pool_padding: Paddings
    pool_ceil_mode: Flags
    batch_norm: Flags
    activation: Activations
    dropout: Probabilities
    head: Literal["flatten", "global_avg", "global_max"]
    dense: list[Positive]
    dense_dropout: Fraction
    output_layer: geometry.OutputLayer = "dense"
    init: Init
    first_layer: Literal["learned", "random", "designed"]
    loss: Loss
    label_smoothing: Fraction

    def named_layers(self, num_classes: int) -> list[NamedLayer]:
        """The network as a list of layers."""
        return geometry.cnn_layers(num_classes, **self.knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that shape the network, as `geometry.cnn_layers` takes them."""
        return self.model_dump(exclude={"target", "init", "first_layer", "loss", "label_smoothing"})

    @property
    def title(self) -> str:
        """A short name for run folders: cnn_k5_s2_same."""
        parts = (self.kernel_size, self.stride, self.padding)
        kernel, stride, padding = (
            "-".join(map(str, part)) if isinstance(part, list) else str(part) for part in parts
        )
        return f"cnn_k{kernel}_s{stride}_{'p' * padding[0].isdigit()}{padding}"


class MLPConfig(Section):
    """Dense layers on the flattened pixels; without hidden layers, softmax regression."""

    target: Literal["convscape.models.MLP"] = Field(alias="_target_")
    hidden: list[Positive]
    activation: Literal[ACTIVATIONS]  # type: ignore[valid-type]
    dropout: Fraction
    batch_norm: bool
    init: Init
    loss: Loss
    label_smoothing: Fraction

    def named_layers(self, num_classes: int) -> list[NamedLayer]:
        """The network as a list of layers."""
        return geometry.mlp_layers(num_classes, **self.knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that shape the network, as `geometry.mlp_layers` takes them."""
        return self.model_dump(exclude={"target", "init", "loss", "label_smoothing"})

    @property
    def title(self) -> str:
        """A short name for run folders: mlp_512-512."""
        return "mlp_" + ("-".join(map(str, self.hidden)) or "softmax")


class SequentialConfig(Section):
    """One layer after the other, as in `sequential.whole_layers`, and an output layer."""

    target: Literal["convscape.models.Sequential"] = Field(alias="_target_")
    layers: Annotated[Any, BeforeValidator(whole_layers)]
    output_layer: geometry.OutputLayer = "dense"
    init: Init
    loss: Loss
    label_smoothing: Fraction

    def named_layers(self, num_classes: int) -> list[NamedLayer]:
        """The network as a list of layers."""
        return sequential_layers(num_classes, **self.knobs)

    @property
    def knobs(self) -> dict[str, Any]:
        """The keys that shape the network, as `sequential.sequential_layers` takes them."""
        return {"layers": self.layers, "output_layer": self.output_layer}

    @property
    def title(self) -> str:
        """A short name for run folders, of the layers that learn: seq_conv32-conv64-dense128."""
        widths = (
            f"{kind_of(name)}{width}"
            for name, values in self.layers.items()
            if (width := values.get("channels") or values.get("units"))
        )
        return "seq_" + ("-".join(widths) or "softmax")


class OwnModelConfig(BaseModel):
    """A class of the user's: any nn.Module or LightningModule of a package in `allow_packages`."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)
    target: str = Field(alias="_target_")

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for the class."""
        return dict(self.model_extra or {})

    @property
    def title(self) -> str:
        """A short name for run folders."""
        return self.target.rpartition(".")[2].lower()


def _model_kind(value: Any) -> str:
    target = value.get("_target_") if isinstance(value, dict) else getattr(value, "target", None)
    package, _, name = str(target).rpartition(".")
    is_ours = package == "convscape.models" and name in ("CNN", "MLP", "Sequential")
    return name.lower() if is_ours else "own"


ModelConfig = Annotated[
    Annotated[CNNConfig, Tag("cnn")]
    | Annotated[MLPConfig, Tag("mlp")]
    | Annotated[SequentialConfig, Tag("sequential")]
    | Annotated[OwnModelConfig, Tag("own")],
    Discriminator(_model_kind),
]


# --- data -------------------------------------------------------------------------------------


class AugmentConfig(Section):
    """Random changes of every training image, drawn for each image on its own.

    `own` names functions of the user's, in packages of `allow_packages`.
    """

    shift: Annotated[int, Field(ge=0, le=LARGEST)]
    flip: bool
    rotate: Annotated[float, Field(ge=0, le=180)]
    cutout: Annotated[int, Field(ge=0, le=LARGEST)]
    brightness: Fraction
    contrast: Fraction
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


class ChangeConfig(Section):
    """What is done to all images of a set before anything else, see `scenes`."""

    permute: Seed | None
    canvas: Annotated[int, Field(ge=1, le=4096)] | None
    clutter: Annotated[int, Field(ge=0, le=1000)]
    placement: Literal["once", "each_epoch", "center"] = "once"
    shuffle_labels: Seed | None


def _known_data_set(name: Any) -> Any:
    from convscape.datasets import DATASETS

    known = (*DATASETS, "own")
    if name not in known:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(known)})
    return name


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
    batch_size: Positive
    eval_batch_size: Positive
    augment: AugmentConfig
    change: ChangeConfig
    epochs: Positive
    on_unreadable: Literal["error", "skip"] = "error"
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2


# --- schedule, trainer ------------------------------------------------------------------------


class ConstantConfig(Section):
    """The same learning rate throughout."""

    name: Literal["constant"]
    warmup_epochs: NotNegative


class StepConfig(Section):
    """Times `gamma` every `step_epochs` epochs."""

    name: Literal["step"]
    warmup_epochs: NotNegative
    step_epochs: Positive
    gamma: Annotated[float, Field(gt=0)]


class MultiStepConfig(Section):
    """Times `gamma` at each of `milestones` (epochs)."""

    name: Literal["multistep"]
    warmup_epochs: NotNegative
    milestones: list[Positive]
    gamma: Annotated[float, Field(gt=0)]


class CosineConfig(Section):
    """Half a cosine from lr down to lr * `final_fraction`."""

    name: Literal["cosine"]
    warmup_epochs: NotNegative
    final_fraction: Fraction


class OneCycleConfig(Section):
    """Cosine up from lr / `div_factor` to lr, and down to lr / `final_div_factor`."""

    name: Literal["one_cycle"]
    warmup_fraction: Annotated[float, Field(gt=0, lt=1)]
    div_factor: Annotated[float, Field(ge=1)]
    final_div_factor: Annotated[float, Field(ge=1)]


SchedulerConfig = Annotated[
    ConstantConfig | StepConfig | MultiStepConfig | CosineConfig | OneCycleConfig,
    Discriminator("name"),
]


class TrainerConfig(Section):
    """How long, where and how exactly to train."""

    max_epochs: Positive | None
    max_steps: Positive | None
    monitor: str | None = metrics.MONITOR
    monitor_mode: Literal["auto", "max", "min"] = "auto"
    early_stopping: Positive | None
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None
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
        # so that it is the same run, and the same fingerprint
        known = metrics.METRICS.get(str(keys.get("monitor"))) if isinstance(keys, dict) else None
        if known is not None and keys.get("monitor_mode") == known.direction:
            return keys | {"monitor_mode": "auto"}
        return keys


# --- loggers ----------------------------------------------------------------------------------


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
    """Where the metrics go: those that are there are used, several at once."""

    tensorboard: TensorBoardConfig | None = None
    csv: CsvConfig | None = None
    wandb: WandbConfig | None = None
    mlflow: MlflowConfig | None = None


# --- the whole --------------------------------------------------------------------------------


class Config(Section):
    """One run: everything that `train` needs."""

    data: DataConfig
    model: ModelConfig
    optimizer: AnyOptimizer
    scheduler: SchedulerConfig
    trainer: TrainerConfig
    logger: LoggerConfig = LoggerConfig()
    visual: Literal["off", "light", "full"]
    seed: Seed
    name: str | None
    output_dir: str
    resume: str | None
    retry: bool
    fail_fast: bool
    extend: bool
    allow_packages: list[str]

    @cached_property
    def monitor(self) -> metrics.Metric | None:
        """What checkpoints are chosen by; None: the last epoch is.

        Raises:
            ConfigError: if it is none to choose by.
        """
        return metrics.monitor(self.trainer.monitor, self.trainer.monitor_mode)

    @property
    def choice(self) -> str | None:
        """What stands in for the best epoch where no validation says which it is."""
        if self.monitor is None:
            return "trainer.monitor=null: the weights of the last epoch are kept"
        if self.data.val_size == 0 and self.monitor.split == "val":
            return "data.val_size=0: without validation the weights of the last epoch are kept"
        return None

    @cached_property
    def image_shape(self) -> tuple[tuple[int, int, int], int]:
        """Shape (C, H, W) of an image and the number of classes, from the data set's facts."""
        from convscape.datasets import image_shape
        from convscape.scenes import changed_shape

        data = self.data
        if data.name == "own":
            image_set = self._own_images()
            _, *size = image_set.train_images.shape
            shape, num_classes = (size[0], size[1], size[2]), len(image_set.classes)
        else:
            shape, num_classes = image_shape(
                data.name, root=data.root, image_size=data.image_size, channels=data.channels
            )
        return changed_shape(shape, data.change), num_classes

    def _own_images(self) -> ImageSet:
        """What the user's function returns."""
        from convscape.own import load_own

        data = self.data
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
        )

    def content_digest(self) -> str | None:
        """A hash of the images, for data sets whose name does not say what is in them."""
        from convscape.datasets import folder_digest

        match self.data.name:
            case "image_folder":
                return folder_digest(self.data.root, use_val=self.data.val_size is None)
            case "own":
                return self._own_images().checksum
        return None

    def load_images(self) -> ImageSet:
        """The data set, from its cache or its source.

        Raises:
            DataError: if it is missing or damaged.
        """
        from convscape.datasets import load_images
        from convscape.scenes import changed

        data = self.data
        if data.name == "own":
            return changed(self._own_images(), data.change)
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
        return changed(image_set, data.change)

    @cached_property
    def layers(self) -> list[NamedLayer] | None:
        """The network as a list of layers; None for a model of the user's own."""
        if isinstance(self.model, OwnModelConfig):
            return None
        return self.model.named_layers(self.image_shape[1])

    def plan(self) -> Plan | None:
        """Shapes, parameters and MACs; None for a model of the user's own.

        Raises:
            InfeasibleGeometry: if the network cannot exist.
        """
        return None if self.layers is None else _plan(tuple(self.layers), *self.image_shape)


_plan = lru_cache(geometry.plan_layers)  # runs that differ in the seed share it


def check(composed: dict[str, Any]) -> Config:
    """The typed config of one run.

    Raises:
        ConfigError: one line for every mistake.
    """
    try:
        config = Config.model_validate(composed)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error.errors(), composed))) from None
    if config.trainer.max_epochs is None and config.trainer.max_steps is None:
        raise ConfigError("trainer.max_epochs and trainer.max_steps are both null; set one of them")
    if ":" in config.trainer.device and config.trainer.devices > 1:
        raise ConfigError(
            f"trainer.device={config.trainer.device} is one, and trainer.devices="
            f"{config.trainer.devices}; allowed: trainer.device=cuda"
        )
    if isinstance(config.model, OwnModelConfig):
        check_target(config.model.target, config.allow_packages)
    else:
        _check_blocks(config.model)
        metrics.check_logged(config.monitor)
    if config.data.name == "own":
        check_own("data._target_", config.data.target or "???", config.allow_packages)
    for target in config.data.augment.own:
        check_own("data.augment.own", target, config.allow_packages)
    if config.name is not None and not re.fullmatch(r"[\w][\w.-]{0,99}", config.name, re.ASCII):
        raise ConfigError(
            f"name={config.name!r} cannot name a folder; allowed: up to 100 letters, digits, "
            "'_', '-' and '.', beginning with a letter, digit or '_'"
        )
    _check_secrets(config.logger)
    return _with_val_size(config)


def _with_val_size(config: Config) -> Config:
    """Say how many images validation takes out of train, where no folder holds those for it.

    Raises:
        ConfigError: if that is left to data that have no such folder.
    """
    from convscape.datasets import VAL_FRACTION, has_val_folder

    data = config.data
    if data.val_size is not None or (data.name == "image_folder" and has_val_folder(data.root)):
        return config
    if data.name != "image_folder":
        raise ConfigError(
            f"data.val_size=null: data={data.name} has no images of its own for validation; "
            "allowed: a number of images, or a fraction below 1"
        )
    if not Path(data.root).expanduser().is_dir():
        return config  # moved: what it was is not known, and not needed
    return config.model_copy(update={"data": data.model_copy(update={"val_size": VAL_FRACTION})})


def check_arguments(section: type[Section], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of a constructor as `check` refuses the keys of `section`.

    Keys that are left out have the constructor's defaults; tuples are as good as lists.

    Raises:
        ConfigError: one line for every mistake.
    """
    allowed = [k for k in section.model_fields if k not in ("target", "loss", "label_smoothing")]
    for key in arguments:
        if key not in allowed:
            raise ConfigError(
                f"{key}: there is no such argument; allowed: {', '.join(allowed)}"
                f"{hint(key, allowed)}"
            )
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    try:
        section.model_validate(plain)
    except ValidationError as error:
        mistakes = [each for each in error.errors() if each["type"] != "missing"]
        if mistakes:
            raise ConfigError("\n".join(_sentences(mistakes, plain))) from None


def _check_secrets(logger: LoggerConfig) -> None:
    """Refuse what must not be written into a run folder, and do not repeat it."""
    uri = logger.mlflow.tracking_uri if logger.mlflow is not None else None
    if uri is not None and ("?" in uri or "@" in uri.partition("://")[2].partition("/")[0]):
        raise ConfigError(
            "logger.mlflow.tracking_uri holds a user, password or token, and the run folder would "
            "keep it; leave it out of the address and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or the whole address as MLFLOW_TRACKING_URI"
        )


def check_target(target: str, allow_packages: Iterable[str]) -> None:
    """Refuse a class outside the packages that the user allowed on the command line.

    Raises:
        ConfigError: naming the key that allows one's own package.
    """
    if target == "???":
        raise ConfigError("model._target_ is not set; write model._target_=<package>.<Class>")
    package = target.partition(".")[0]
    if package not in allow_packages:
        ours = "none of convscape.models.CNN, .MLP and .Sequential, nor in an allowed package"
        raise NotAllowed(f"model._target_={target!r} is {ours}", package)


def check_own(key: str, target: str, allow_packages: Iterable[str]) -> None:
    """Refuse a function outside the packages that the user allowed on the command line.

    Raises:
        ConfigError: naming the key that allows one's own package.
    """
    package, _, name = target.partition(".")
    if target == "???" or not name:
        raise ConfigError(f"{key}={target}: allowed: a function of yours, <package>.<function>")
    if package not in allow_packages:
        raise NotAllowed(f"{key}={target} is not in an allowed package", package)


def _check_blocks(model: CNNConfig | MLPConfig | SequentialConfig) -> None:
    try:
        model.named_layers(num_classes=1)
    except ValueError as error:
        raise ConfigError(f"model.{error}") from None


MOST_MISTAKES = 50  # that are told; a list may hold thousands of wrong entries


def _sentences(errors: Sequence[Any], composed: dict[str, Any]) -> list[str]:
    """One for each mistake: what the branches of a union allow is said together."""
    allowed: dict[str, list[str]] = {}
    for each in errors[:MOST_MISTAKES]:
        head, _, tail = _sentence(each, composed).partition(": allowed: ")
        allowed.setdefault(head, []).append(tail)
    sentences = [
        shortened(": allowed: ".join([head, ", ".join(tails)] if tails[0] else [head]))
        for head, tails in allowed.items()
    ]
    more = [f"and more, {len(errors) - MOST_MISTAKES}"] if len(errors) > MOST_MISTAKES else []
    return sentences + more


def _sentence(error: Any, composed: dict[str, Any]) -> str:
    """One of pydantic's errors as a person would put it."""
    path = [part for part in error["loc"] if part not in _BRANCHES]
    key = shortened(".".join(str(part) for part in path), 200)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            known = _known_keys(path[:-1], composed)
            return (
                f"{key}: there is no such key; allowed: {', '.join(known)}{hint(path[-1], known)}"
            )
        case "missing":
            return f"{key}: the key is missing; it has no default outside conf/"
        case "union_tag_invalid":
            allowed = str(context["expected_tags"]).replace("'", "")
            matched = hint(context["tag"], allowed.split(", "))
            return f"{key}.name={context['tag']}: allowed: {allowed}{matched}"
        case "value_error" if isinstance(context["error"], LayerError):
            return ".".join([*path[:-1], str(context["error"])])
        case _:
            return mistake(key, error)


# Where pydantic's path names the branch of a union that it tried: nothing that a user wrote.
_BRANCHES = {
    "cnn", "mlp", "sequential", "own", "constant", "step", "multistep", "cosine", "one_cycle",
    "constrained-int", "literal['auto']", "literal[1,3]", "int", "float", "str",
}  # fmt: skip


def _known_keys(path: list[Any], composed: dict[str, Any]) -> list[str]:
    """Keys of the section at `path`, as its class declares them."""
    section: Any = Config
    node: Any = composed
    for part in path:
        node = node[part]
        section = _section_class(section.model_fields[part].annotation, node)
    return [field.alias or key for key, field in section.model_fields.items()]


def _section_class(annotation: Any, node: Any) -> Any:
    """The class of the union `annotation` that fits `node`, by target or name."""
    if annotation is OptimizerConfig:
        return OPTIMIZERS[node["name"]]
    options = getattr(annotation, "__args__", None)
    if options is None:
        return annotation
    options = [option for option in options if option is not type(None)]
    if len(options) == 1:
        return options[0]
    for option in options:
        section = getattr(option, "__origin__", option)
        tag = section.model_fields.get("target") or section.model_fields.get("name")
        if (node.get("_target_") or node.get("name")) in getattr(tag.annotation, "__args__", ()):
            return section
    return options[-1]
