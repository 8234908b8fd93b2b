"""`train`: one run from its config to its result, the one path that every launcher takes."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from convscape import models
from convscape.base import machine
from convscape.base.errors import CannotWrite, ConfigError, Stopped, is_about_the_disk
from convscape.base.parts import line_of
from convscape.base.quick_lightning import LightningEnvironment, overrides, pl
from convscape.base.terminal import say
from convscape.config.metrics import check_logged
from convscape.config.networks import OwnModelConfig
from convscape.runs import data as run_data
from convscape.runs.folder import FolderIsGone, RunFolder, local_rank, new_result
from convscape.runs.obstacles import in_place_of_files
from convscape.training import conditions, diary, loggers
from convscape.training.average import WeightAverage
from convscape.training.build import (
    build_callbacks,
    build_metrics,
    build_model,
    data_module,
    tell,
    training_arguments,
)
from convscape.training.callbacks import Recorder, StopOnSignal
from convscape.training.checkpoints import (
    AtomicCheckpointIO,
    is_begun,
    read_checkpoint,
    to_go_on_from,
)
from convscape.training.compiling import compile_model
from convscape.training.epochs import EpochKeeper
from convscape.training.measure import measured, size_of
from convscape.training.memory import advice_on_memory, is_out_of_memory
from convscape.training.pictures import TensorBoardPictures
from convscape.training.predictions import AnswerKeeper
from convscape.training.processes import (
    OwnThreads,
    WholeBatchGradients,
    check_batch_norm,
    check_shares,
)
from convscape.training.progress import Progress
from convscape.training.transfer import begin_with
from convscape.training.watch import watches_of

if TYPE_CHECKING:
    from convscape.config.schema import Config
    from convscape.data.module import ImageDataModule
    from convscape.runs.resolved import ResolvedRun
    from convscape.runs.result import Result

OnEpoch = Callable[[dict[str, float]], None]

logger = logging.getLogger("convscape")

BATCH_HOOKS = tuple(
    f"on_{phase}_batch_{end}"
    for phase in ("train", "validation", "test")
    for end in ("start", "end")
)


@machine.without_cuda_probing()
@machine.collecting_garbage()
def train(
    run: ResolvedRun,
    path: Path,
    on_epoch: OnEpoch | None = None,
    model: models.ImageClassifier | None = None,
) -> Result:
    """Train, test and record one run in the folder `path`, continuing from its last checkpoint.

    `on_epoch` is called with each epoch's history row once it is saved, and may raise `Stopped`.
    `model` is trained instead of the one that the config describes and builds from its seed;
    training starts from its current weights, which result.json records as environment.weights.

    Every ending except a mistake in the input is a `Result` with its status.

    Raises:
        ConfigError: if the input is wrong, before anything is trained.
        DataError: if the data set is missing or damaged.
    """
    config = run.config
    loggers.check_installed(config.logger)
    machine.check_device(config.trainer.device, config.trainer.devices)
    folder = RunFolder(path)
    start = time.perf_counter()
    if (obstacle := in_place_of_files(folder)) is not None:
        raise ConfigError(obstacle)
    _check_images(run, folder)
    free_bytes = 0
    is_ours = local_rank() == 0  # DDP's other processes leave config and result to the first
    result = folder.begin(run) if is_ours else new_result(run)
    result.environment = conditions.environment(config) | conditions.of_weights(model)
    trackers: list[pl.loggers.Logger] = []
    with StopOnSignal(folder) as stop, diary.kept(folder):
        try:
            with stop.at_once():
                free_bytes = machine.free_memory(str(run.device))
                _record_data(result, run)
                if is_ours:
                    folder.write(result)
                trackers += loggers.build(config, folder, result)
                session = _prepared(run, folder, result, trackers, [stop], on_epoch, model)
                result.seconds["setup"] = time.perf_counter() - start
                conditions.say_what_others_use(run, result)
                session.fit()
                session.test()
            result.status = "ok"
        except ConfigError:
            raise
        # whatever it was, a sweep continues
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
            record_error(result, error, path, config.allow_packages)
            if result.status == "out_of_memory":
                assert result.error is not None
                result.error["message"] += f"; {advice_on_memory(run, free_bytes)}"
        finally:
            _end(trackers, result, path)
        result.peak_memory_bytes = machine.peak_memory(str(run.device))
        if is_ours:
            _write(folder, result)
            diary.end(result, path)
    return result


def _end(trackers: list[pl.loggers.Logger], result: Result, path: Path) -> None:
    try:
        loggers.end(trackers, result)
    except OSError as error:
        record_error(result, error, path)


def _check_images(run: ResolvedRun, folder: RunFolder) -> None:
    """Load the data of a run that has begun, before anything is written.

    Raises:
        ConfigError: if they are not the ones that it was trained on.
    """
    if is_begun(folder):
        run.image_set = run_data.load_images(run.config)  # its message knows that they were there
        way_out = "; restore those it was trained on, or train a new run"
        run_data.check_same(run.image_set, folder.read_result(), way_out=way_out)


def _record_data(result: Result, run: ResolvedRun) -> None:
    """Record what later commands compare their data with, or use in their place."""
    mean, std = run.normalization
    result.data_checksum = run.image_set.checksum
    result.dataset = {
        "classes": run.classes,
        "image_shape": list(run.image_shape),
        "mean": mean,
        "std": std,
    }
    if run.image_set.stretch is not None:
        result.dataset["stretch"] = list(run.image_set.stretch)


def record_error(
    result: Result, error: BaseException, path: Path, packages: Iterable[str] = ()
) -> Result:
    """Record how the run ended, with the line in the user's `packages` where it did."""
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
        assert result.error is not None
        result.error["message"] += line_of(error, packages)
        logger.error("%s", result.status, exc_info=error)
    return result


def _write(folder: RunFolder, result: Result) -> None:
    """Record how the run ended; if that fails it has not ended, and can be resumed."""
    try:
        folder.write(result)
    except OSError as error:
        record_error(result, error, folder.path)


@dataclass
class _Session:
    """A run ready to train: from the first step, or from its `last` checkpoint."""

    run: ResolvedRun
    folder: RunFolder
    result: Result
    model: pl.LightningModule
    data: ImageDataModule
    trainer: pl.Trainer
    recorder: Recorder
    keeper: AnswerKeeper
    progress: Progress
    last: Path | None

    def fit(self) -> None:
        """Train to the end."""
        result, loggers_, last = self.result, self.trainer.loggers, self.last
        if last is None and self.run.config.parent is not None:
            raise ConfigError(
                f"the checkpoints of {self.folder.path} are lost, and with them the state it "
                "continued from; give resume=<the run before it> again"
            )
        is_new = last is None or (
            result.parent is not None
            and read_checkpoint(last)["global_step"] == result.parent["steps"]
        )
        if self.trainer.is_global_zero:
            loggers.begin(loggers_, self.run.config, result.overrides, is_new=is_new)
            diary.begin(result, self.data, last, run_data.describe(self.run.config))
        try:
            with _timed(result, "fit"), machine.flushing_denormals(), warnings.catch_warnings():
                # about a subclass's schedules: only then is the metric they watch known
                warnings.filterwarnings("ignore", "The lr scheduler dict contains the key")
                self.trainer.fit(self.model, self.data, ckpt_path=last, weights_only=True)
        finally:
            self.progress.close()
            self._read_history()

    def _read_history(self) -> None:
        """Read the metrics of the chosen epoch, and the speed over all epochs."""
        history, result = self.recorder.history, self.result
        result.epochs = len(history)
        result.global_step = self.trainer.global_step
        if not history or self.recorder.best_epoch is None:
            return
        result.best_epoch = self.recorder.best_epoch
        chosen = history[self.recorder.best_epoch - 1]
        result.metrics = {key: value for key, value in chosen.items() if "/" in key}
        seconds = sum(row["train_seconds"] for row in history)
        num_images = len(history) * self.data.num_train_images
        result.samples_per_second = round(num_images / seconds, 1)

    def test(self) -> None:
        """Evaluate the chosen checkpoint on the test split, once."""
        best = self.folder.best_checkpoint
        self.result.checkpoint = best.relative_to(self.folder.path).as_posix()
        with _timed(self.result, "test"):
            self.trainer.test(
                self.model, self.data, ckpt_path=best, verbose=False, weights_only=True
            )
        logged = self.trainer.callback_metrics.items()
        tested = {key: float(value) for key, value in logged if key.startswith("test/")}
        self.result.metrics |= tested
        if isinstance(self.model, models.ImageClassifier):  # a user's module has Lightning log it
            for tracker in self.trainer.loggers:
                tracker.log_metrics(tested, step=self.result.global_step)
        if self.trainer.is_global_zero:
            checksum, num_val = self.run.image_set.checksum, len(self.data.indices["val"])
            self.keeper.write(self.folder, checksum, num_val)


def _prepared(
    run: ResolvedRun,
    folder: RunFolder,
    result: Result,
    trackers: list[pl.loggers.Logger],
    callbacks: list[pl.Callback],
    on_epoch: OnEpoch | None,
    given: models.ImageClassifier | None,
) -> _Session:
    config, trainer = run.config, run.config.trainer
    if isinstance(config.model, OwnModelConfig) and config.model.is_of_torchvision:
        size_of(config)  # its message says which images the network takes
    conditions.set_for(run)
    named = build_callbacks(run, folder.path)
    looks_at_batches = any(overrides(each, BATCH_HOOKS) for each in named)
    if looks_at_batches and trainer.steps_per_execution == "auto":
        run.steps_per_execution = 1
    data = data_module(run, steps_per_execution=run.steps_per_execution, single=looks_at_batches)
    model, last = _checked_model(run, data, result, given), to_go_on_from(folder)
    freezing = begin_with(run, folder, model, result, is_new=last is None)
    _check_monitor(run, folder, model)
    progress = Progress(trainer.progress, run.max_epochs, run.monitor)
    reports = [progress.report] if on_epoch is None else [progress.report, on_epoch]
    keeper = AnswerKeeper(len(run.classes), is_compiled=trainer.compile)
    recorder = Recorder(folder, run.monitor, trainer.early_stopping, reports, keeper.choose)
    average = [] if trainer.ema is None else [WeightAverage(trainer.ema)]
    callbacks = [*average, keeper, recorder, *callbacks, progress, OwnThreads()]
    callbacks += [WholeBatchGradients(), *freezing, *watches_of(run, folder.path), *named]
    callbacks += [EpochKeeper(folder)] * trainer.keep_epochs
    if config.visual != "off" and config.logger.tensorboard is not None:
        callbacks.append(TensorBoardPictures(config.visual, config))
    lightning = pl.Trainer(
        accelerator=run.device.kind,
        devices=trainer.devices if run.device.index is None else [run.device.index],
        precision="bf16-mixed" if run.uses_bf16 else "32-true",
        max_epochs=run.max_epochs,
        callbacks=callbacks,
        # not SLURM's environment: a sweep's job is one process that starts its own helpers
        plugins=[AtomicCheckpointIO(folder), LightningEnvironment()],
        logger=trackers,
        default_root_dir=folder.path,
        enable_progress_bar=any(isinstance(c, pl.callbacks.ProgressBar) for c in named),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=None if len(data.indices["val"]) else 0,
        log_every_n_steps=1,
        deterministic=trainer.deterministic,
        sync_batchnorm=trainer.devices > 1,
        gradient_clip_val=_clip_norm_for_lightning(config, model),
    )
    result.environment["precision"] = str(lightning.precision)
    result.environment["device"] = str(lightning.strategy.root_device)
    if trainer.compile:
        compile_model(model, run)
    return _Session(run, folder, result, model, data, lightning, recorder, keeper, progress, last)


def _checked_model(
    run: ResolvedRun,
    data: ImageDataModule,
    result: Result,
    given: models.ImageClassifier | None,
) -> pl.LightningModule:
    """The model to train, built or `given`; what only the model knows goes into `result`.

    Raises:
        ConfigError: if it cannot be trained by that many processes, or it cannot be tested.
    """
    devices = run.config.trainer.devices
    check_shares(data.num_train_images, data.batch_size, devices)
    if given is None:
        model = build_model(run)
    else:
        if run.config.init_from.run is not None:
            raise ConfigError(
                f"init_from={run.config.init_from.run}: the given model has its own weights; leave "
                "out init_from, or the model"
            )
        model = given
        tell(given, training_arguments(run), run.config.allow_packages)
    if isinstance(model, models.PlannedClassifier) and result.macs is None:  # a subclass of one
        result.macs, result.receptive_field = model.plan.macs, list(model.plan.receptive_field)
    if type(model).test_step is pl.LightningModule.test_step:
        raise ConfigError(
            f"model._target_: {type(model).__name__} has no test_step; add one that logs the test "
            "results, or one that only returns"
        )
    if isinstance(model, models.ImageClassifier):
        config = run.config
        model.test_flip = config.trainer.test_flip
        model.measure(build_metrics(config.metrics, len(run.classes), config.allow_packages))
    elif run.config.metrics:
        raise ConfigError(
            f"metrics: {type(model).__name__} logs what it measures itself, and ignores them; "
            "leave them out"
        )
    if isinstance(model, models.ImageClassifier) and result.macs is None:
        result.macs = measured(model.network, run.image_shape, len(run.classes)).macs
    check_batch_norm(model, devices, run.device.kind)
    if result.num_parameters is None:
        result.num_parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return model


def _check_monitor(run: ResolvedRun, folder: RunFolder, model: pl.LightningModule) -> None:
    """Warn of, or refuse, a run that has no metric to choose the best epoch by."""
    if run.monitor is None and run.config.choice is None:
        _say_no_validation(run.config, is_new=not folder.history_file.is_file())
    if type(model) in (models.ImageClassifier, *models.MODELS.values()):  # a subclass may log more
        check_logged(run.monitor, run.config.added_metrics)


def _clip_norm_for_lightning(config: Config, model: pl.LightningModule) -> float | None:
    """The norm that Lightning clips to for a user's module; our own models clip by themselves.

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


def _say_no_validation(config: Config, is_new: bool) -> None:
    """Say which weights are kept if data.val_size is a share of less than one image.

    Raises:
        ConfigError: if a new run should stop early.
    """
    trainer, words = config.trainer, f"data.val_size={config.data.val_size} is less than one image"
    if trainer.early_stopping is not None and is_new:
        raise ConfigError(
            f"trainer.early_stopping={trainer.early_stopping}: {words} to validate on; raise it, "
            "or set trainer.monitor=train/loss"
        )
    if trainer.progress != "off":
        say(f"{words}: the weights of the last epoch are kept", file=sys.stderr)


@contextmanager
def _timed(result: Result, phase: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    result.seconds[phase] = round(time.perf_counter() - start, 3)
