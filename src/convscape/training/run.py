"""`train`: one run from its config to its result, the one path that every launcher takes."""

from __future__ import annotations

import logging
import platform
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convscape import models
from convscape.base import machine
from convscape.base.errors import CannotWrite, ConfigError, Stopped, is_about_the_disk
from convscape.base.quick_lightning import LightningEnvironment, pl
from convscape.base.terminal import say
from convscape.config.metrics import check_logged
from convscape.data.cache import ImageSet
from convscape.runs import data as run_data
from convscape.runs.folder import FolderIsGone, RunFolder, local_rank, new_result
from convscape.runs.obstacles import in_place_of_files
from convscape.training import diary, loggers
from convscape.training.build import (
    build_model,
    data_module,
    max_epochs_of,
    normalization,
    tell,
    training_arguments,
)
from convscape.training.callbacks import AtomicCheckpointIO, Progress, Recorder, StopOnSignal
from convscape.training.checkpoints import is_begun, to_go_on_from
from convscape.training.memory import advice_on_memory, is_out_of_memory, uses_bf16
from convscape.training.pictures import TensorBoardPictures
from convscape.training.processes import WholeBatchGradients, check_batch_norm, check_shares

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.config.schema import Config
    from convscape.data.module import ImageDataModule
    from convscape.runs.result import Result


logger = logging.getLogger("convscape")


@machine.without_cuda_probing()
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
    image_set = _checked_images(config, folder)
    free_bytes = 0
    is_ours = local_rank() == 0  # DDP's helpers leave config and result to the first process
    result = folder.begin(config, overrides) if is_ours else new_result(config, overrides)
    result.environment = environment(config) | ({"weights": "given"} if model is not None else {})
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
                    config, folder, image_set, result, trackers, stop, start, on_epoch, model
                )
            result.status = "ok"
        except ConfigError:
            raise
        # whatever it was, a sweep goes on
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
            _record_error(result, error, path)
            if result.status == "out_of_memory":
                assert result.error is not None
                result.error["message"] += f"; {advice_on_memory(config, free_bytes)}"
        finally:
            _end(trackers, result, path)
        result.peak_memory_bytes = machine.peak_memory()
        if is_ours:
            _write(folder, result)
            diary.end(result, path)
    return result


def _end(trackers: list[pl.loggers.Logger], result: Result, path: Path) -> None:
    try:
        loggers.end(trackers, result.status)
    except OSError as error:
        _record_error(result, error, path)


def _checked_images(config: Config, folder: RunFolder) -> ImageSet | None:
    """The data of a run that is begun, before anything is written; None for a new one.

    Raises:
        ConfigError: if they are not those that it was trained on.
    """
    if not is_begun(folder):
        return None
    image_set = run_data.load_images(config)
    way_out = "; bring back those it was trained on, or train a new run"
    run_data.check_same(image_set, folder.read_result(), way_out=way_out)
    return image_set


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
    if isinstance(error, Stopped | KeyboardInterrupt):
        result.fail("interrupted", error)
    elif isinstance(error, models.Diverged):
        result.fail("diverged", error)
    elif not path.is_dir():
        result.fail("failed", FolderIsGone(path))
    elif isinstance(error, OSError) and is_about_the_disk(error):
        result.fail("interrupted", CannotWrite(path, error))
    elif is_out_of_memory(error):
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
    model = _checked_model(config, image_set, data, result, given)
    monitor = _monitor(config, folder, data, model)
    max_epochs = max_epochs_of(config, data)
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
        plugins=[AtomicCheckpointIO(folder), LightningEnvironment()],
        logger=trackers,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if len(data.indices["val"]) else 0,
        log_every_n_steps=1,
        deterministic=config.trainer.deterministic,
        sync_batchnorm=config.trainer.devices > 1,
        gradient_clip_val=_clip_norm_for_lightning(config, model),
    )
    result.environment["precision"] = str(trainer.precision)
    result.environment["device"] = str(trainer.strategy.root_device)
    if config.trainer.compile:
        model.network.compile() if isinstance(model, models.ImageClassifier) else model.compile()
    last = to_go_on_from(folder)
    if trainer.is_global_zero:
        loggers.begin(trackers, config, result.overrides, is_new=last is None)
        diary.begin(result, data, last, run_data.describe(config))
    result.seconds["setup"] = time.perf_counter() - start
    try:
        _timed(result, "fit", lambda: trainer.fit(model, data, ckpt_path=last, weights_only=True))
    finally:
        progress.close()
        _read_history(result, recorder, trainer, data)
    _test(trainer, model, data, folder, result)


def _test(
    trainer: pl.Trainer,
    model: pl.LightningModule,
    data: ImageDataModule,
    folder: RunFolder,
    result: Result,
) -> None:
    """Read the test split once, on the chosen checkpoint."""
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
        for tracker in trainer.loggers:
            tracker.log_metrics(tested, step=result.global_step)


def _checked_model(
    config: Config,
    image_set: ImageSet,
    data: ImageDataModule,
    result: Result,
    given: models.ImageClassifier | None,
) -> pl.LightningModule:
    """The model to train, built or `given`; what only it knows of itself goes into `result`.

    Raises:
        ConfigError: if as many processes as were asked for cannot train it, or it cannot be tested.
    """
    devices = config.trainer.devices
    check_shares(data.num_train_images, data.batch_size, devices)
    if given is None:
        model = build_model(config, image_set, data)
    else:
        model = given
        tell(given, training_arguments(config, image_set, data))
    if isinstance(model, models.PlannedClassifier) and result.macs is None:  # a child of one
        result.macs, result.receptive_field = model.plan.macs, list(model.plan.receptive_field)
    if type(model).test_step is pl.LightningModule.test_step:
        raise ConfigError(
            f"model._target_: {type(model).__name__} has no test_step; add one that logs what the "
            "test images say, or one that only returns"
        )
    check_batch_norm(model, devices, machine.device_kind(config.trainer.device))
    if result.num_parameters is None:
        result.num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return model


def _monitor(
    config: Config, folder: RunFolder, data: ImageDataModule, model: pl.LightningModule
) -> Metric | None:
    """What chooses the best epoch; None, which is the last one, where there is nothing to ask."""
    monitor = monitor_with(data, config.monitor)
    if monitor is None and config.choice is None:
        _say_no_validation(config, is_new=not folder.history_file.is_file())
    if type(model) in (models.ImageClassifier, *models.MODELS.values()):  # a child may log more
        check_logged(monitor)
    return monitor


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
