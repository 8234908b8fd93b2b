"""`train`: one run from its config to its result, the one path that every launcher takes."""

from __future__ import annotations

import inspect
import logging
import platform
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convscape import diary, loggers, machine, models, own, run_data
from convscape.callbacks import Progress, Recorder, StopOnSignal, WholeFileCheckpointIO
from convscape.checkpoints import is_begun, to_go_on_from
from convscape.cli import say, summary
from convscape.config import CNNConfig, Config, OwnModelConfig, check_target
from convscape.data import ImageDataModule, steps_per_epoch
from convscape.datasets import ImageSet
from convscape.errors import CannotWrite, ConfigError, Stopped, is_about_the_disk
from convscape.geometry import Plan
from convscape.metrics import Metric, check_logged
from convscape.obstacles import in_place_of_files
from convscape.processes import WholeBatchGradients, check_batch_norm, check_shares
from convscape.quick_lightning import LightningEnvironment, pl
from convscape.runs import (
    FolderIsGone,
    Result,
    RunFolder,
    helper_rank,
    new_result,
)
from convscape.tensorboard_pictures import TensorBoardPictures
from convscape.throughput import gains_from_bf16, steps_per_execution

logger = logging.getLogger("convscape")


@machine.settling_cuda()
@machine.collecting_garbage()
def train(
    config: Config,
    path: Path,
    overrides: list[str],
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    model: models.ImageClassifier | None = None,
) -> Result:
    """Train, test and record one run in the folder `path`, going on from its last checkpoint.

    `on_epoch` gets each epoch's row of the history once it is saved, and may raise `Stopped`.
    `model` is trained in place of the one that the config says and builds from its seed; the
    weights go on from what they are, which result.json tells as environment.weights.

    Every ending but a mistake in the input is a `Result` with its status.

    Raises:
        ConfigError: if the input is wrong, before anything is trained.
        DataError: if the data set is missing or damaged.
    """
    loggers.check_installed(config.logger)
    machine.check_device(config.trainer.device, config.trainer.devices)
    folder = RunFolder(path)
    start = time.perf_counter()
    if (obstacle := in_place_of_files(folder)) is not None:
        raise ConfigError(obstacle)
    image_set: ImageSet | None = None
    if is_begun(folder):  # refused before anything is written
        image_set = run_data.load_images(config)
        way_out = "; bring back those it was trained on, or train a new run"
        run_data.check_same(image_set, folder.read_result(), way_out=way_out)
    free_bytes = 0
    is_ours = helper_rank() == 0  # DDP's helpers leave config and result to the first process
    result = folder.begin(config, overrides) if is_ours else new_result(config, overrides)
    result.environment = environment(config)
    if model is not None:
        result.environment["weights"] = "given"
    trackers: list[pl.loggers.Logger] = []
    with StopOnSignal(folder) as stop, diary.kept(folder):
        try:
            with stop.at_once():
                free_bytes = machine.free_memory(_device(config))
                image_set = image_set or config.load_images()
                _record_data(result, config, image_set)
                if is_ours:
                    folder.write(result)
                trackers += loggers.build(config, folder, result)
                _fit_and_test(
                    *(config, folder, image_set, result, trackers),
                    *(stop, start, on_epoch, model),
                )
            result.status = "ok"
        except (Stopped, KeyboardInterrupt) as error:
            result.fail("interrupted", error)
        except models.Diverged as error:
            result.fail("diverged", error)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it was, a sweep goes on
            _record_error(result, error, path)
            if result.status == "out_of_memory":
                assert result.error is not None
                result.error["message"] += f"; {advice_on_memory(config, free_bytes)}"
        finally:
            try:
                loggers.end(trackers, result.status)
            except OSError as error:
                _record_error(result, error, path)
        result.peak_memory_bytes = machine.peak_memory()
        if is_ours:
            _write(folder, result)
            logger.info("%s", "ok: " * (result.status == "ok") + summary(result, path)[0])
    return result


def _record_data(result: Result, config: Config, image_set: ImageSet) -> None:
    """What a later command compares its data with, and does without them."""
    mean, std = normalization(config, image_set)
    result.data_checksum = image_set.checksum
    result.dataset = {
        "classes": list(image_set.classes),
        "image_shape": list(image_set.train_images.shape[1:]),
        "mean": mean,
        "std": std,
    }


def _record_error(result: Result, error: BaseException, path: Path) -> None:
    if not path.is_dir():
        result.fail("failed", FolderIsGone(path))
    elif isinstance(error, OSError) and is_about_the_disk(error):
        result.fail("interrupted", CannotWrite(path, error))
    elif _is_out_of_memory(error):
        result.fail("out_of_memory", error)
        logger.error("%s", result.status, exc_info=error)
    else:
        result.fail("failed", error)
        logger.error("%s", result.status, exc_info=error)


def _write(folder: RunFolder, result: Result) -> None:
    """Record how the run ended; where that fails it has not ended, and can go on."""
    try:
        folder.write(result)
    except OSError as error:
        _record_error(result, error, folder.path)


def _fit_and_test(
    config: Config,
    folder: RunFolder,
    image_set: ImageSet,
    result: Result,
    trackers: list[pl.loggers.Logger],
    stop: StopOnSignal,
    start: float,
    on_epoch: Callable[[dict[str, float]], None] | None,
    given: models.ImageClassifier | None,
) -> None:
    _set_process_state(config)
    data = data_module(config, image_set, result.macs)
    kind, devices = machine.device_kind(config.trainer.device), config.trainer.devices
    check_shares(data.num_train_images, data.batch_size, devices)
    if given is None:
        model = build_model(config, image_set, data)
    else:
        model = given
        _tell(given, training_arguments(config, image_set, data))
    if isinstance(model, models.PlannedClassifier) and result.macs is None:  # a child of one
        result.macs, result.receptive_field = model.plan.macs, list(model.plan.receptive_field)
    check_batch_norm(model, devices, kind)
    if result.num_parameters is None:
        result.num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    max_epochs = _max_epochs(config, data)
    monitor = monitor_with(data, config.monitor)
    if monitor is None and config.choice is None:
        _say_no_validation(config, is_new=not folder.history_file.is_file())
    if type(model) in (models.ImageClassifier, *models.OURS.values()):  # a child may log more
        check_logged(monitor)
    progress = Progress(config.trainer.progress, max_epochs, monitor)
    reports = [progress.report] if on_epoch is None else [progress.report, on_epoch]
    recorder = Recorder(folder, monitor, config.trainer.early_stopping, reports)
    callbacks: list[pl.Callback] = [recorder, stop, progress, WholeBatchGradients()]
    if config.visual != "off" and config.logger.tensorboard is not None:
        callbacks.append(TensorBoardPictures(config.visual, config))
    trainer = pl.Trainer(
        accelerator=config.trainer.device.partition(":")[0],
        devices=_devices(config),
        precision="bf16-mixed" if uses_bf16(config, config.plan()) else "32-true",
        max_epochs=max_epochs,
        callbacks=callbacks,
        # not SLURM's environment: a job of a sweep is one process that starts its own helpers
        plugins=[WholeFileCheckpointIO(folder), LightningEnvironment()],
        logger=trackers,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if len(data.indices["val"]) else 0,
        log_every_n_steps=1,
        deterministic=config.trainer.deterministic,
        sync_batchnorm=devices > 1,
        gradient_clip_val=_clip_norm_for_lightning(config, model),
    )
    result.environment["precision"] = str(trainer.precision)
    result.environment["device"] = str(trainer.strategy.root_device)
    if config.trainer.compile:
        model.network.compile() if isinstance(model, models.ImageClassifier) else model.compile()
    last = to_go_on_from(folder)
    if trainer.is_global_zero:
        loggers.begin(trackers, config, result.overrides, is_new=last is None)
        diary.begin(result, data, last)
    result.seconds["setup"] = time.perf_counter() - start
    try:
        _timed(result, "fit", lambda: trainer.fit(model, data, ckpt_path=last, weights_only=True))
    finally:
        progress.close()
        _read_history(result, recorder, trainer, data)
    best = folder.best_checkpoint
    result.checkpoint = str(best.relative_to(folder.path))
    _timed(
        result,
        "test",
        lambda: trainer.test(model, data, ckpt_path=best, verbose=False, weights_only=True),
    )
    tested = _plain_numbers(trainer.callback_metrics)
    result.metrics |= tested
    if isinstance(model, models.ImageClassifier):  # another's module has Lightning log it
        for tracker in trackers:
            tracker.log_metrics(tested, step=result.global_step)


def _clip_norm_for_lightning(config: Config, model: pl.LightningModule) -> float | None:
    """What Lightning clips for a module of the user's; ours do it themselves.

    Raises:
        ConfigError: if the module takes its optimiser's steps itself.
    """
    norm = config.trainer.gradient_clip_norm
    if norm is None or isinstance(model, models.ImageClassifier):
        return None
    if not model.automatic_optimization:
        raise ConfigError(
            f"trainer.gradient_clip_norm={norm:g}: {type(model).__name__} takes its optimiser's "
            "steps itself (automatic_optimization is False), and ignores it; leave it out"
        )
    return norm


def monitor_with(data: ImageDataModule, asked: Metric | None) -> Metric | None:
    """What chooses the best epoch; None, which is the last one, where no image validates it."""
    has_validation = len(data.indices["val"]) > 0
    return asked if asked is None or asked.split != "val" or has_validation else None


def _say_no_validation(config: Config, is_new: bool) -> None:
    """Say what is kept where data.val_size is a share that is not one image.

    Raises:
        ConfigError: if a new run is to stop early.
    """
    trainer, words = config.trainer, f"data.val_size={config.data.val_size} is not one image"
    if trainer.early_stopping is not None and is_new:
        raise ConfigError(
            f"trainer.early_stopping={trainer.early_stopping}: {words} to validate on; raise it, "
            "or set trainer.monitor=train/loss"
        )
    if trainer.progress != "off":
        say(f"{words}: the weights of the last epoch are kept", file=sys.stderr)


def _timed(result: Result, phase: str, work: Any) -> None:
    start = time.perf_counter()
    work()
    result.seconds[phase] = round(time.perf_counter() - start, 3)


def _read_history(
    result: Result, recorder: Recorder, trainer: pl.Trainer, data: ImageDataModule
) -> None:
    """Metrics of the chosen epoch, and the speed of all."""
    history = recorder.history
    result.epochs = len(history)
    result.global_step = trainer.global_step
    if not history or recorder.best_epoch is None:
        return
    result.best_epoch = recorder.best_epoch
    chosen = history[recorder.best_epoch - 1]
    result.metrics = {key: value for key, value in chosen.items() if "/" in key}
    seconds = sum(row["train_seconds"] for row in history)
    result.samples_per_second = round(len(history) * data.num_train_images / seconds, 1)


def _plain_numbers(metrics: Any) -> dict[str, float]:
    return {key: float(value) for key, value in metrics.items() if key.startswith("test/")}


# --- the parts of a run -----------------------------------------------------------------------


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
    changes = own.functions("data.augment.own", data.augment.own, config.allow_packages)
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
                f"data.{key}={values} has {len(values)} entries; allowed: one for each of the "
                f"{channels} channels, or null to compute them"
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
    return ours(model.target)(input_shape, num_classes, **arguments)


def training_arguments(
    config: Config, image_set: ImageSet, data: ImageDataModule
) -> dict[str, Any]:
    """Everything about a model but its network, as `ImageClassifier.set_training` takes it."""
    mean, std = normalization(config, image_set)
    per_epoch = steps_per_epoch(data.num_train_images, data.batch_size)
    total = _max_epochs(config, data) * per_epoch
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


def ours(target: str) -> Any:
    """The class of this project that `model._target_` names."""
    return models.OURS[target.rpartition(".")[2]]


def own_class(model: OwnModelConfig, allow_packages: list[str]) -> type[torch.nn.Module]:
    """The user's class, from a package that the user allowed.

    Raises:
        ConfigError: if it is not allowed, not there, or no torch module.
    """
    check_target(model.target, allow_packages)
    found = own.find("model._target_", model.target, allow_packages)
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
        _tell(module, training)
        return module
    if isinstance(module, pl.LightningModule):
        return module
    return models.ImageClassifier(module, **training)


def _tell(model: models.ImageClassifier, training: dict[str, Any]) -> None:
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


def _max_epochs(config: Config, data: ImageDataModule) -> int:
    """Epochs to train: as asked for, or what `max_steps` needs."""
    trainer = config.trainer
    per_epoch = steps_per_epoch(data.num_train_images, data.batch_size)
    for_steps = -(-trainer.max_steps // per_epoch) if trainer.max_steps else None
    limits = [limit for limit in (trainer.max_epochs, for_steps) if limit is not None]
    return min(limits)


# --- the process ------------------------------------------------------------------------------


def _set_process_state(config: Config) -> None:
    """Everything that a run before in this process could have left behind."""
    torch.set_num_threads(config.trainer.threads or machine.available_cores())
    torch.use_deterministic_algorithms(config.trainer.deterministic)
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)
    random.seed(config.seed)
    machine.keep_freed_memory()
    machine.give_freed_memory_back()
    machine.reset_peak_memory()


def _device(config: Config) -> str:
    asked = config.trainer.device
    return machine.device_kind(asked) if asked == "auto" else asked


def _devices(config: Config) -> Any:
    _, _, index = config.trainer.device.partition(":")
    return [int(index)] if index else config.trainer.devices


def uses_bf16(config: Config, plan: Plan | None) -> bool:
    """Whether a run computes in bfloat16; `plan` is its network's.

    `auto` does where the hardware computes in it itself and the network is large enough to gain.
    """
    asked = config.trainer.precision
    if asked != "auto":
        return asked == "bf16"
    device = config.trainer.device
    is_large = plan is None or gains_from_bf16(plan.macs, machine.device_kind(device))
    return is_large and machine.has_native_bf16(device)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # oneDNN, C++ and a library that cannot be mapped say it in their own words
    words = ("can't allocate memory", "bad_alloc", "Cannot allocate memory", "could not create a")
    return isinstance(error, RuntimeError | OSError) and any(w in str(error) for w in words)


# Of a training step in fp32 and in bf16: measured 4.7 to 5.8 and 2.3 to 3.1 for six CNNs with
# batches of 512 on the CPU, by the growth of VmHWM; an MLP took 7.4 in fp32
BYTES_PER_ACTIVATION = (5.2, 2.8)
BYTES_PER_PARAMETER = 16  # itself, its gradient, and two numbers that Adam keeps


def training_bytes(plan: Plan, batch_size: int, in_bf16: bool) -> int:
    """An estimate of what batches of that size take; it may be a third too low or too high."""
    per_image = plan.num_activations * BYTES_PER_ACTIVATION[in_bf16]
    return round(per_image * batch_size + plan.num_parameters * BYTES_PER_PARAMETER)


def advice_on_memory(config: Config, free_bytes: int) -> str:
    """How much was needed, and the batch size that would fit."""
    plan, asked = config.plan(), config.data.batch_size
    in_bf16 = uses_bf16(config, plan)
    if plan is None:
        return "a smaller data.batch_size or data.eval_batch_size takes less"
    needed = training_bytes(plan, asked, in_bf16)
    words = (
        f"batches of {asked:,} take {_in_mib(needed)} by estimate, "
        f"and {_in_mib(free_bytes)} were free"
    )
    sizes = [asked >> shift for shift in range(1, asked.bit_length())]
    fits = [n for n in sizes if training_bytes(plan, n, in_bf16) < 0.7 * free_bytes]
    if needed < 0.7 * free_bytes:
        return f"{words}; what else takes memory is data.eval_batch_size"
    return f"{words}; " + (f"data.batch_size={fits[0]} would fit" if fits else "none would fit")


def _in_mib(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"


def environment(config: Config) -> dict[str, Any]:
    """Versions, hardware and commit that a result came from."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__.partition("+")[0],
        "lightning": pl.__version__,
        "device": config.trainer.device,
        "cpu": machine.cpu_name(),
        "threads": config.trainer.threads or machine.available_cores(),
        "precision": config.trainer.precision,
        **machine.git_state(),
    }
