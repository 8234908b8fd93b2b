"""A run that continues for longer, or with other learning rates: a new run, in its own folder.

If every step so far is also a step of the longer training, it is that training, bit for bit, and
has its fingerprint. Otherwise no single training gives this run: its config names its `parent`.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from convscape.base import files, parts
from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError
from convscape.base.files import explained
from convscape.base.values import counted
from convscape.config.networks import OwnModelConfig
from convscape.config.schedulers import OwnSchedulerConfig
from convscape.config.schema import Config, ParentConfig
from convscape.models.schedules import lr_factor
from convscape.runs import data as run_data
from convscape.runs.folder import RunFolder, fresh_run, new_result
from convscape.runs.resolved import ResolvedRun
from convscape.runs.resume import Resumed, held_to_go_on
from convscape.training import events
from convscape.training.build import has_own_training, is_lightning, schedule_arguments
from convscape.training.checkpoints import BROKEN, is_damaged, read_checkpoint
from convscape.training.unread import refuse_unread


@dataclass(frozen=True)
class Longer:
    """The `run` that continues, its new folder once `place` is entered, and both in `words`."""

    run: ResolvedRun
    place: AbstractContextManager[Path]
    words: str


@dataclass(frozen=True)
class _Done:
    """What the last checkpoint of a run contains; `rate` is the last learning rate."""

    epochs: int
    steps: int
    rate: float | None
    event_sizes: dict[str, int]


def longer(resumed: Resumed) -> Longer:
    """The run that continues from another one's last checkpoint.

    Raises:
        ConfigError: if that run has none, is already as long, or has learning rates that depend on
            its length and no schedule is given for the rest.
        DataError: if its data are missing or have changed.
    """
    assert resumed.before is not None
    folder, run = resumed.folder, resumed.run
    refuse_unread(run.config)
    before, result = ResolvedRun(resumed.before), folder.read_result()
    before.image_set = run.image_set = run_data.load_images(run.config)
    run_data.check_same(run.image_set, result, way_out="; restore those it was trained on")
    done = _done(folder, run)
    is_finished = result is not None and result.status == "ok"
    _check_length(before, run, done, is_finished)
    is_new_schedule = _rates(before.config) != _rates(run.config)
    if not is_new_schedule and not has_own_training(run.config):
        _check_rates(before, run, done)
    words = f"continues from {folder.path}, after {counted(done.epochs, 'epoch')}"
    why = _why_another(before, done)
    if is_new_schedule or why is not None:
        parent = ParentConfig(
            fingerprint=before.fingerprint, steps=done.steps, new_schedule=is_new_schedule
        )
        run = _with_parent(run, parent, [f"resume={folder.path}", *resumed.changes])
        words += ", as a separate run"
    if is_new_schedule:
        words += f": {_on_rates(run, done)}"
    else:
        words += f": {why}" if why else f", to the same bits as {_length(run)} from the beginning"
    return Longer(run, _place(run, folder, done, is_finished), words)


def _done(folder: RunFolder, run: ResolvedRun) -> _Done:
    last = folder.last_checkpoint
    what = "no checkpoint yet" if not last.is_file() else f"a damaged {last.name}"
    if not last.is_file() or is_damaged(last):
        raise ConfigError(f"{folder.path} has {what}; train from the start: {_anew(run)}")
    checkpoint = read_checkpoint(last)
    try:
        recorder, rate = checkpoint["callbacks"]["Recorder"], checkpoint.get("last_rate")
        sizes = {str(name): int(size) for name, size in recorder["event_sizes"].items()}
        steps = int(checkpoint["global_step"])
        return _Done(len(recorder["history"]), steps, None if rate is None else float(rate), sizes)
    except BROKEN:
        raise ConfigError(f"{last} cannot be read: it is not the checkpoint of a run") from None


def _anew(run: ResolvedRun) -> str:
    return f"{command_name('train')} {shlex.join(run.overrides)}"


def _check_length(before: ResolvedRun, run: ResolvedRun, done: _Done, is_finished: bool) -> None:
    """Refuse a length already reached, or before which a longer training would have stopped.

    Raises:
        ConfigError: saying what is allowed.
    """
    was, patience = before.config.trainer.early_stopping, run.config.trainer.early_stopping
    if patience is not None and (was is None or patience < was):
        raise ConfigError(
            f"trainer.early_stopping={patience}: the run may have passed where that stops; "
            f"allowed: null{'' if was is None else f', or at least {was}, as it was'}"
        )
    if run.total_steps < done.steps + is_finished:
        trainer, reached = run.config.trainer, {"max_epochs": done.epochs, "max_steps": done.steps}
        limits = {key: limit for key in reached if (limit := getattr(trainer, key)) is not None}
        more = {key: max(limit, reached[key] + 1) for key, limit in limits.items()}
        were, ask = (
            [f"trainer.{key}={limit}" for key, limit in each.items()] for each in (limits, more)
        )
        raise ConfigError(
            f"{' and '.join(were)}: the run has done {counted(done.epochs, 'epoch')}, "
            f"{counted(done.steps, 'step')}, already; ask for more, such as {' '.join(ask)}"
        )
    if is_finished and done.steps < before.total_steps and was is not None and patience == was:
        raise ConfigError(
            f"the run stopped early (trainer.early_stopping={was}), and so would a longer one; "
            f"add trainer.early_stopping=null or more than {was}"
        )


def _rates(config: Config) -> tuple[object, float]:
    return config.scheduler, config.optimizer.lr


def _check_rates(before: ResolvedRun, run: ResolvedRun, done: _Done) -> None:
    """Refuse to extend learning rates that depend on the length of the training.

    Raises:
        ConfigError: saying how to continue.
    """
    scheduler = run.config.scheduler
    one, other = schedule_arguments(before), schedule_arguments(run)
    if isinstance(scheduler, OwnSchedulerConfig):
        found = parts.find(
            "scheduler", "scheduler._target_", scheduler.target, run.config.allow_packages
        )
        of_length = {"T_max", "total_steps"} & parts.parameters(found).keys()
        is_same = of_length <= scheduler.arguments.keys() or before.total_steps == run.total_steps
        name = scheduler.target.rpartition(".")[2]
    else:
        steps = range(one.get("first_step", 0), done.steps)
        is_same = all(lr_factor(step, **one) == lr_factor(step, **other) for step in steps)
        name = scheduler.name
    if not is_same:
        raise ConfigError(
            f"{name} spreads the learning rates over the whole training: {_length(run)} would have "
            f"begun with others than {_length(before)}, so it cannot simply be extended. Choose a "
            "schedule for the rest, as a separate run: scheduler=cosine or scheduler=constant, "
            f"from optimizer.lr={run.config.optimizer.lr:g} or another; or train from the start: "
            f"{_anew(run)}"
        )


def _why_another(before: ResolvedRun, done: _Done) -> str | None:
    """Why a longer training might have had other bits so far, whatever its learning rates."""
    config = before.config
    unknown = "may have acted differently in a longer training"
    if config.callbacks:
        return f"{', '.join(part.target for part in config.callbacks.values())} {unknown}"
    if isinstance(config.model, OwnModelConfig) and is_lightning(config):
        return f"{config.model.target} {unknown}"
    if done.steps == before.total_steps and done.steps % before.steps_per_epoch:
        return f"trainer.max_steps={config.trainer.max_steps} cut epoch {done.epochs} short"
    return None


def _on_rates(run: ResolvedRun, done: _Done) -> str:
    scheduler = run.config.scheduler
    if isinstance(scheduler, OwnSchedulerConfig):
        raise ConfigError(
            f"scheduler._target_={scheduler.target}: allowed for the rest of a run: "
            "scheduler=constant, step, multistep, cosine or one_cycle"
        )
    was = "" if done.rate is None else f"was {done.rate:.3g} and "
    now = run.config.optimizer.lr * lr_factor(done.steps, **schedule_arguments(run))
    return f"the learning rate {was}continues at {now:.3g} (scheduler={scheduler.name})"


def _length(run: ResolvedRun) -> str:
    is_whole = run.total_steps == run.max_epochs * run.steps_per_epoch
    return counted(run.max_epochs, "epoch") if is_whole else counted(run.total_steps, "step")


def _with_parent(run: ResolvedRun, parent: ParentConfig, words: list[str]) -> ResolvedRun:
    child = ResolvedRun(run.config.model_copy(update={"parent": parent}), words)
    child.image_set = run.image_set
    return child


@contextmanager
def _place(run: ResolvedRun, parent: RunFolder, done: _Done, is_finished: bool) -> Iterator[Path]:
    """A new run folder, locked, with everything that the parent has reached."""
    with fresh_run(run) as path:
        # a finished one may be in a read-only place
        with nullcontext() if is_finished else held_to_go_on(parent), explained(path):
            _hand_on(run, parent, RunFolder(path), done)
        yield path


def _hand_on(run: ResolvedRun, parent: RunFolder, folder: RunFolder, done: _Done) -> None:
    path = folder.path
    files.make_folder(folder.last_checkpoint.parent, within=path)
    pairs = [(parent.last_checkpoint, folder.last_checkpoint)]
    pairs += [(parent.best_checkpoint, folder.best_checkpoint)] * parent.best_checkpoint.is_file()
    pairs += [
        (file, folder.epoch_file(n))
        for n in range(done.epochs + 1)
        if (file := parent.epoch_file(n)).is_file()
    ]
    if parent.epochs_folder.is_dir():
        files.make_folder(folder.epochs_folder, within=path)
    for source, target in pairs:
        files.write_atomic(target, source.read_bytes(), within=path)
    events.copy_points(parent.path, path, done.event_sizes)
    if (table := parent.path / "metrics.csv").is_file():
        rows = table.read_text("utf-8").splitlines(keepends=True)
        kept = "".join(row for row in rows if ",test/" not in row)
        files.write_atomic(path / table.name, kept, within=path)
    result, before = new_result(run), parent.read_result()
    if before is not None:
        result.data_checksum, result.dataset = before.data_checksum, before.dataset
        result.loaded = before.loaded
    run_name = parent.path.resolve().name
    result.parent = {"run": run_name, "epochs": done.epochs, "steps": done.steps}
    folder.create(result)
