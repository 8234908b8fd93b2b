"""The parts of a run, built from its config: data module, model, training arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from convscape import models
from convscape.base.errors import ConfigError
from convscape.base.parts import check_target, find, find_class
from convscape.base.quick_lightning import pl
from convscape.base.values import counted
from convscape.config.networks import CNNConfig, OwnModelConfig
from convscape.data import custom
from convscape.data.module import ImageDataModule

if TYPE_CHECKING:
    from torchmetrics import Metric

    from convscape.base.sections import Part
    from convscape.config.schema import Config
    from convscape.runs.resolved import ResolvedRun


def data_module(run: ResolvedRun, *, steps_per_execution: int = 1) -> ImageDataModule:
    """The splits and batches of a run.

    - `steps_per_execution`: how many batches an item of its training loader holds; always one for
      a LightningModule of the user's, whose training step takes one.
    """
    config, data = run.config, run.config.data
    is_foreign = has_own_training(config)
    mean, std = run.normalization
    changes = custom.functions("data.augment.own", data.augment.own, config.allow_packages)
    return ImageDataModule(
        run.image_set,
        val_size=data.val_size,
        train_size=data.train_size,
        split_seed=data.split_seed,
        batch_size=data.batch_size,
        eval_batch_size=data.eval_batch_size,
        augment=data.augment.model_dump() | {"own": changes},
        seed=config.seed,
        steps_per_execution=1 if is_foreign else steps_per_execution,
        num_steps=config.trainer.max_steps,
        mean=mean,
        std=std,
        normalize=is_foreign,
        config=data.model_dump(exclude_unset=True, by_alias=True),
    )


def build_metrics(
    parts: Mapping[str, Part], num_classes: int, allow_packages: Sequence[str]
) -> dict[str, Metric]:
    """What is measured besides loss and accuracy: torchmetrics of (probabilities, labels).

    Of what is not said, torchmetrics gets `task="multiclass"`, `num_classes` and
    `average="macro"`, the mean over classes: without it precision, recall and F1 are all equal to
    the accuracy.

    Raises:
        ConfigError: if there is no such class, it does not take the arguments, or it gives no
            single number.
    """
    if not parts:
        return {}
    from torchmetrics import Metric  # takes a second

    built = {}
    probabilities, labels = torch.eye(num_classes), torch.arange(num_classes)
    for name, part in parts.items():
        key = f"metrics.{name}._target_"
        home = "torchmetrics.classification"
        found = find_class(key, part.target, home, Metric, allow_packages)
        takes = inspect.signature(found.__new__).parameters
        takes = takes if "task" in takes else inspect.signature(found).parameters
        offered = {"task": "multiclass", "num_classes": num_classes, "average": "macro"}
        arguments = {k: v for k, v in offered.items() if k in takes} | part.arguments
        try:
            built[name] = found(**arguments)
            value = built[name](probabilities, labels)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ConfigError(f"metrics.{name}: {part.target}: {error}") from None
        if not (isinstance(value, torch.Tensor) and value.ndim == 0):
            gives = f"{counted(len(value), 'number')}" if isinstance(value, torch.Tensor) else value
            raise ConfigError(f"metrics.{name}: {part.target} gives {gives}; allowed: a single one")
        built[name].reset()
    return built


def build_model(run: ResolvedRun) -> pl.LightningModule:
    """The model of a run: `CNN`, `MLP`, `Sequential`, or a class of the user's.

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
    return model_class(model.target)(list(run.image_shape), len(run.classes), **arguments)


def training_arguments(run: ResolvedRun) -> dict[str, Any]:
    """Everything about a model but its network, as `ImageClassifier.set_training` takes it."""
    config = run.config
    mean, std = run.normalization
    training = {
        "mean": mean,
        "std": std,
        "classes": run.classes,
        "optimizer": config.optimizer.model_dump(),
        "schedule": {
            **config.scheduler.model_dump(),
            "steps_per_epoch": run.steps_per_epoch,
            "total_steps": run.total_steps,
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
    input_shape: Sequence[int],
    num_classes: int,
    training: dict[str, Any],
) -> pl.LightningModule:
    """The user's module; it gets `input_shape` and `num_classes` if it asks for them.

    Raises:
        ConfigError: if the class cannot be found or does not take the arguments.
    """
    found = own_class(model, allow_packages)
    offered = {"input_shape": list(input_shape), "num_classes": num_classes}
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
