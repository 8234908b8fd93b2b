"""The parts of a run, built from its config: data module, model, training arguments."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from convscape import models
from convscape.base import machine
from convscape.base.errors import ConfigError
from convscape.base.parts import check_target, find
from convscape.base.quick_lightning import pl
from convscape.base.values import counted
from convscape.config.networks import CNNConfig, OwnModelConfig
from convscape.data import custom
from convscape.data.cache import ImageSet
from convscape.data.module import ImageDataModule, steps_per_epoch
from convscape.training.throughput import steps_per_execution

if TYPE_CHECKING:
    from convscape.config.schema import Config


def data_module(config: Config, image_set: ImageSet, macs: int | None) -> ImageDataModule:
    """The splits and batches of a config; `macs` of the network decide the steps per call."""
    data = config.data
    steps: int | None = None
    is_foreign = has_own_training(config)
    if is_foreign:
        steps = 1  # its training step takes one batch
    elif config.trainer.steps_per_execution != "auto":
        steps = config.trainer.steps_per_execution
    elif macs is not None:
        kind = machine.device_kind(config.trainer.device)
        steps = steps_per_execution(macs, data.batch_size, kind)
    mean, std = normalization(config, image_set)
    changes = custom.functions("data.augment.own", data.augment.own, config.allow_packages)
    return ImageDataModule(
        image_set,
        val_size=data.val_size,
        train_size=data.train_size,
        split_seed=data.split_seed,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        augment=data.augment.model_dump() | {"own": changes},
        seed=config.seed,
        steps_per_execution=steps or 1,
        num_steps=config.trainer.max_steps,
        mean=mean,
        std=std,
        normalize=is_foreign,
        config=data.model_dump(exclude_unset=True),
    )


def normalization(config: Config, image_set: ImageSet) -> tuple[list[float], list[float]]:
    """Mean and std per channel: the config's, or those of the train images."""
    mean = config.data.mean if config.data.mean is not None else list(image_set.mean)
    # a channel that is the same everywhere has no deviation to divide by
    std = config.data.std if config.data.std is not None else [s or 1.0 for s in image_set.std]
    channels = image_set.train_images.shape[1]
    for key, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ConfigError(
                f"data.{key}={values} has {counted(len(values), 'entry', 'entries')} for "
                f"{counted(channels, 'channel')}; allowed: one for each, or null to compute them"
            )
    return mean, std


def build_model(config: Config, image_set: ImageSet, data: ImageDataModule) -> pl.LightningModule:
    """The model of a config: `CNN`, `MLP`, `Sequential`, or a class of the user's.

    Raises:
        ConfigError: if the user's class cannot be found or built.
    """
    training = training_arguments(config, image_set, data)
    input_shape = list(image_set.train_images.shape[1:])
    num_classes = len(image_set.classes)
    model = config.model
    if isinstance(model, OwnModelConfig):
        return build_own(model, config.allow_packages, input_shape, num_classes, training)
    arguments = model.knobs | {"init": model.init, "training": training}
    if isinstance(model, CNNConfig):
        arguments["first_layer"] = model.first_layer
    return model_class(model.target)(input_shape, num_classes, **arguments)


def training_arguments(
    config: Config, image_set: ImageSet, data: ImageDataModule
) -> dict[str, Any]:
    """Everything about a model but its network, as `ImageClassifier.set_training` takes it."""
    mean, std = normalization(config, image_set)
    per_epoch = steps_per_epoch(data.num_train_images, data.batch_size)
    total = max_epochs_of(config, data) * per_epoch
    if config.trainer.max_steps is not None:
        total = min(total, config.trainer.max_steps)
    training = {
        "mean": mean,
        "std": std,
        "classes": list(image_set.classes),
        "optimizer": config.optimizer.model_dump(),
        "schedule": {
            **config.scheduler.model_dump(),
            "steps_per_epoch": per_epoch,
            "total_steps": total,
        },
        "gradient_clip_norm": config.trainer.gradient_clip_norm,
    }
    if not isinstance(config.model, OwnModelConfig):
        training |= {"loss": config.model.loss, "label_smoothing": config.model.label_smoothing}
    return training


def model_class(target: str) -> Any:
    """The class of this project that `model._target_` names."""
    return models.MODELS[target.rpartition(".")[2]]


def own_class(model: OwnModelConfig, allow_packages: list[str]) -> type[torch.nn.Module]:
    """The user's class, from a package that the user allowed.

    Raises:
        ConfigError: if it is not allowed, not there, or no torch module.
    """
    check_target(model.target, allow_packages)
    found = find("model._target_", model.target, allow_packages)
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise ConfigError(
            f"model._target_={model.target} is not a class; allowed: a torch.nn.Module or a "
            "LightningModule"
        )
    return found


def build_own(
    model: OwnModelConfig,
    allow_packages: list[str],
    input_shape: list[int],
    num_classes: int,
    training: dict[str, Any],
) -> pl.LightningModule:
    """The user's module; it gets `input_shape` and `num_classes` if it asks for them.

    Raises:
        ConfigError: if the class cannot be found or does not take the arguments.
    """
    found = own_class(model, allow_packages)
    offered = {"input_shape": input_shape, "num_classes": num_classes}
    wanted = inspect.signature(found).parameters
    # class Mine(CNN) with __init__(self, **knobs) hands them on
    takes_all = issubclass(found, models.PlannedClassifier) and models.takes_keywords(wanted)
    arguments = {k: v for k, v in offered.items() if takes_all or k in wanted} | model.arguments
    try:
        inspect.signature(found).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"model: {model.target} {error}") from None
    module = found(**arguments)
    if isinstance(module, models.ImageClassifier):
        tell(module, training)
        return module
    if isinstance(module, pl.LightningModule):
        return module
    return models.ImageClassifier(module, **training)


def tell(model: models.ImageClassifier, training: dict[str, Any]) -> None:
    """Set how a model is trained; its loss is its own where the config has none."""
    loss: dict[str, Any] = {"loss": model.loss_name, "label_smoothing": model.label_smoothing}
    model.set_training(**loss | training)
    if isinstance(model, models.PlannedClassifier):
        model.hparams["training"] = loss | training  # what its checkpoints are built from


def has_own_training(config: Config) -> bool:
    """Whether the model is a LightningModule that brings its own training step and optimiser."""
    if not isinstance(config.model, OwnModelConfig):
        return False
    found = own_class(config.model, config.allow_packages)
    return issubclass(found, pl.LightningModule) and not issubclass(found, models.ImageClassifier)


def max_epochs_of(config: Config, data: ImageDataModule) -> int:
    """Epochs to train: as asked for, or what `max_steps` needs."""
    trainer = config.trainer
    per_epoch = steps_per_epoch(data.num_train_images, data.batch_size)
    for_steps = -(-trainer.max_steps // per_epoch) if trainer.max_steps else None
    limits = [limit for limit in (trainer.max_epochs, for_steps) if limit is not None]
    return min(limits)
