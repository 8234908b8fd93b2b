"""The parts of a run, built from its config: data module, model, training arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from convscape import models
from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.base.files import refuse_links_below
from convscape.base.quick_lightning import pl
from convscape.base.values import counted, hint, typed_value
from convscape.config.networks import CNNConfig, OwnModelConfig
from convscape.config.schedulers import OwnSchedulerConfig
from convscape.data import custom
from convscape.data.module import ImageDataModule
from convscape.models.losses import balanced

if TYPE_CHECKING:
    from torchmetrics import Metric

    from convscape.base.sections import Part
    from convscape.config.schema import Config
    from convscape.runs.resolved import ResolvedRun


def data_module(
    run: ResolvedRun, *, steps_per_execution: int = 1, single: bool = False
) -> ImageDataModule:
    """The splits and batches of a run.

    - `steps_per_execution`: how many batches an item of its training loader holds; always one for a
      user's LightningModule, whose training step takes one.
    - `single`: an item is the batch itself, for callbacks that inspect it.
    """
    config, data = run.config, run.config.data
    is_foreign = has_own_training(config)
    mean, std = run.normalization
    changes = custom.functions(data.augment.own, config.allow_packages)
    return ImageDataModule(
        run.image_set,
        val_size=data.val_size,
        train_size=data.train_size,
        split_seed=data.split_seed,
        fold=data.fold,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        augment=data.augment.model_dump() | {"own": changes},
        seed=config.seed,
        steps_per_execution=1 if single or is_foreign else steps_per_execution,
        num_steps=config.trainer.max_steps,
        mean=mean,
        std=std,
        single=single or is_foreign,
        normalize=is_foreign,
        config=data.model_dump(exclude_unset=True, by_alias=True),
    )


def build_metrics(
    named: Mapping[str, Part], num_classes: int, allow_packages: Sequence[str]
) -> dict[str, Metric]:
    """What is measured besides loss and accuracy: torchmetrics of (probabilities, labels).

    Unless they are given, torchmetrics gets `task="multiclass"`, `num_classes` and
    `average="macro"`, the mean over classes: without it precision, recall and F1 all equal the
    accuracy.

    Raises:
        ConfigError: if there is no such class, it does not take the arguments, or it does not give
            a single number.
    """
    if not named:
        return {}
    built = {}
    probabilities, labels = torch.eye(num_classes), torch.arange(num_classes)
    offered = {"task": "multiclass", "num_classes": num_classes, "average": "macro"}
    for name, part in named.items():
        key = f"metrics.{name}._target_"
        built[name] = parts.build("metrics", key, part, allow_packages, offered=offered)
        try:
            value = built[name](probabilities, labels)
        except Exception as error:  # noqa: BLE001  a user's metric may raise anything
            place = parts.line_of(error, [part.target.partition(".")[0]])
            raise ConfigError(
                f"metrics.{name}: {part.target}: {parts.told(error)}{place}"
            ) from None
        if not (isinstance(value, torch.Tensor) and value.ndim == 0):
            gives = f"{counted(len(value), 'number')}" if isinstance(value, torch.Tensor) else value
            raise ConfigError(f"metrics.{name}: {part.target} gives {gives}; allowed: a single one")
        built[name].reset()
    return built


def build_callbacks(run: ResolvedRun, folder: Path) -> list[pl.Callback]:
    """The callbacks that `callbacks` names; Lightning's write their files in the run `folder`.

    Raises:
        ConfigError: if there is no such class, or it does not take the arguments.
    """
    packages = run.config.allow_packages
    refuse_links_below(folder / "callbacks", within=folder)
    return [
        parts.build(
            *("callbacks", f"callbacks.{name}._target_", part, packages),
            folder=folder / "callbacks" / name,
        )
        for name, part in run.config.callbacks.items()
    ]


def build_model(run: ResolvedRun) -> pl.LightningModule:
    """The model of a run: `CNN`, `MLP`, `Sequential`, or a user's class.

    Raises:
        ConfigError: if the user's class cannot be found or built.
    """
    training = training_arguments(run)
    model, packages = run.config.model, run.config.allow_packages
    if isinstance(model, OwnModelConfig):
        return build_own(model, packages, run.image_shape, len(run.classes), training)
    arguments = model.knobs | {"init": model.init, "training": training}
    if isinstance(model, CNNConfig):
        arguments["first_layer"] = model.first_layer
    built: models.PlannedClassifier = model_class(model.target)(
        list(run.image_shape), len(run.classes), **arguments
    )
    built.allow_packages = packages
    return built


def training_arguments(run: ResolvedRun) -> dict[str, Any]:
    """Everything about a model except its network, as `ImageClassifier.set_training` takes it."""
    config = run.config
    mean, std = run.normalization
    training: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "classes": run.classes,
        "optimizer": config.optimizer.model_dump(by_alias=True),
        "schedule": schedule_arguments(run),
        "gradient_clip_norm": config.trainer.gradient_clip_norm,
    }
    if not isinstance(config.model, OwnModelConfig):
        training |= {"loss": config.model.loss, "label_smoothing": config.model.label_smoothing}
    if (loss := config.loss.described) is not None:
        training["loss"] = loss
    if config.loss.class_weights is not None:
        training["class_weights"] = _class_weights(run)
    return training


def schedule_arguments(run: ResolvedRun) -> dict[str, Any]:
    """The learning rates of a run, as `ImageClassifier` takes its schedule."""
    config = run.config
    schedule = config.scheduler.model_dump(by_alias=True)
    schedule |= {"steps_per_epoch": run.steps_per_epoch, "total_steps": run.total_steps}
    if config.parent is not None and config.parent.new_schedule:
        schedule["first_step"] = config.parent.steps
    if isinstance(config.scheduler, OwnSchedulerConfig) and run.monitor is not None:
        schedule |= {"monitor": run.monitor.name, "monitor_mode": run.monitor.direction}
    return schedule


def _class_weights(run: ResolvedRun) -> list[float]:
    """One weight per class, from the training images.

    Raises:
        ConfigError: if there is not one per class.
    """
    asked, num_classes = run.config.loss.class_weights, len(run.classes)
    if asked == "balanced":
        labels = torch.from_numpy(run.image_set.train_labels[run.train_indices]).long()
        return balanced(labels, num_classes)
    assert isinstance(asked, list)
    if len(asked) != num_classes or not any(asked):
        raise ConfigError(
            f"loss.class_weights={typed_value(asked)}: allowed: balanced, or {num_classes} "
            f"numbers, one per class: {', '.join(run.classes)}, not all 0"
        )
    return asked


def model_class(target: str) -> Any:
    """The class of this project that `model._target_` names."""
    return models.MODELS[target.rpartition(".")[2]]


def build_own(
    model: OwnModelConfig,
    allow_packages: Sequence[str],
    input_shape: Sequence[int],
    num_classes: int,
    training: dict[str, Any],
) -> pl.LightningModule:
    """The user's module, or one of torchvision's, ready to be trained.

    Raises:
        ConfigError: if it cannot be found or does not take the arguments.
    """
    module = own_module(model, allow_packages, input_shape, num_classes)
    if isinstance(module, models.ImageClassifier):
        tell(module, training, allow_packages)
        return module
    if isinstance(module, pl.LightningModule):
        return module
    classifier = models.ImageClassifier(module, **training)
    classifier.allow_packages = allow_packages
    return classifier


def own_module(
    model: OwnModelConfig,
    allow_packages: Sequence[str],
    input_shape: Sequence[int],
    num_classes: int,
) -> torch.nn.Module:
    """What `model._target_` makes; it gets `input_shape` and `num_classes` if it asks for them.

    Raises:
        ConfigError: if it cannot be found or does not take the arguments.
    """
    key = "model._target_"
    found = parts.find("model", key, model.target, allow_packages)
    facts: dict[str, Any] = {"input_shape": list(input_shape), "num_classes": num_classes}
    wanted = parts.parameters(found)
    if parts.is_of_torchvision(found):
        _check_name(model)
        given = {"num_classes": num_classes}  # which each of them passes on
    elif parts.is_class(found, models.PlannedClassifier) and models.takes_keywords(wanted):
        given = facts  # as class Mine(CNN) with __init__(self, **knobs) does
    else:
        given = {name: fact for name, fact in facts.items() if name in wanted}
    built: torch.nn.Module = parts.build("model", key, model, allow_packages, given=given)
    return built


def _check_name(model: OwnModelConfig) -> None:
    from torchvision import models as ready

    known = ready.list_models(module=ready)
    if model.target.endswith(".get_model") and (name := model.arguments.get("name")) not in known:
        raise ConfigError(
            f"model.name={name}: allowed: one of torchvision's classification networks, such as "
            f"resnet18, mobilenet_v3_small, vgg11_bn{hint(name, known)}"
        )


def tell(
    model: models.ImageClassifier, training: dict[str, Any], allow_packages: Sequence[str]
) -> None:
    """Set how a model is trained; it uses its own loss if the config has none."""
    loss: dict[str, Any] = {"loss": model.described_loss, "label_smoothing": model.label_smoothing}
    model.set_training(**loss | training)
    model.allow_packages = allow_packages
    if isinstance(model, models.PlannedClassifier):
        model.hparams["training"] = loss | training  # what its checkpoints are built from


def has_own_training(config: Config) -> bool:
    """Whether the model is a LightningModule with its own training step and optimiser."""
    found = _own_class(config)
    return is_lightning(config) and not parts.is_class(found, models.ImageClassifier)


def is_lightning(config: Config) -> bool:
    """Whether the model is a user's LightningModule."""
    return parts.is_class(_own_class(config), pl.LightningModule)


def _own_class(config: Config) -> Any:
    if not isinstance(config.model, OwnModelConfig):
        return None
    return parts.find("model", "model._target_", config.model.target, config.allow_packages)


def made_by_class(config: Config, method: str) -> bool:
    """Whether a subclass of `ImageClassifier` has its own `method` that does not call ours."""
    assert isinstance(config.model, OwnModelConfig)
    found = parts.find("model", "model._target_", config.model.target, config.allow_packages)
    if not parts.is_class(found, models.ImageClassifier):
        return False
    own = getattr(found, method)
    if own is getattr(models.ImageClassifier, method):
        return False
    reads = {method, "optimizer_arguments", "described_loss", "learning_rate"}
    return not reads.intersection(own.__code__.co_names)


def find_parts(config: Config) -> None:
    """Look up everything that a config names, to find what is missing before training starts.

    Raises:
        ConfigError: if something is missing or of the wrong kind.
    """
    for door, key, part in config.parts():
        found = parts.find(door, key, part.target, config.allow_packages)
        if door in ("optimizer", "scheduler"):
            parts.check_names(key, part.target, found, part.arguments, 1)
