"""How a run ended, in words and as an exit code."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import distribution
from convscape.base.distribution import command_name
from convscape.base.errors import CannotWrite, ConfigError, code_of_stop
from convscape.runs.latest import LATEST, named

if TYPE_CHECKING:
    from convscape.runs.result import Result

KEYS_OF_SWEEP = "CONVSCAPE_SWEEP_KEYS"  # keys with several values, for the runs of a sweep


def exit_code(result: Result) -> int:
    """The exit code of a single run: if interrupted, it tells by what."""
    from convscape.runs.result import EXIT_CODES

    if result.status == "interrupted":
        assert result.error is not None
        is_about_the_disk = result.error["type"] == CannotWrite.__name__
        return 1 if is_about_the_disk else code_of_stop(result.error["message"])
    return EXIT_CODES[result.status]


def no_choice(result: Result) -> str | None:
    """A note if no epoch was better than another; anything is better than NaN."""
    by = result.monitor
    if by is None or not math.isnan(result.metrics.get(by.name, 0.0)):
        return None
    return (
        f"{by.name} was NaN in every epoch and chose none of them: epoch {result.best_epoch} was "
        "kept; trainer.monitor=null keeps the last"
    )


def _next(result: Result, path: Path) -> list[str]:
    """The commands to use after a run; the newest one can be called `latest`."""
    home, is_latest = path.parent, False
    with suppress(ConfigError):  # a run in a user's own folder
        is_latest = named(home / LATEST) == path
    run = LATEST if is_latest and home == Path("outputs", "runs") else str(path)
    if is_latest and run != LATEST:
        run = str(home / LATEST)
    commands = [command_on(run, verb, result.config) for verb in ("evaluate", "explain")]
    if result.config.get("logger", {}).get("tensorboard") is not None:
        commands = [*open_board(home), *commands]
    return in_a_column("next:", commands)


def command_on(run: str | Path, verb: str, config: Mapping[str, Any]) -> str:
    """A command that takes a run, and allows it the user's packages that its config allowed."""
    words = [f"resume={run}" if verb == "train" else str(run)]
    if packages := config.get("allow_packages"):
        is_override = verb in ("train", "doctor")
        words += [allow(packages)] if is_override else ["--allow-packages", *packages]
    return f"{command_name(verb)} {shlex.join(words)}"


def allow(packages: Iterable[str]) -> str:
    """The override that allows packages."""
    return f"allow_packages=[{','.join(packages)}]"


def open_board(folder: Path) -> list[str]:
    """The command that opens TensorBoard, and the tabs that nobody finds by chance."""
    program = "tensorboard"
    if not distribution.IS_CHECKOUT and shutil.which(program) is None:  # a venv of convscape alone
        program = f"{shlex.quote(sys.executable)} -m tensorboard.main"
    command = f"{program} --host 127.0.0.1 --logdir {shlex.quote(str(folder))}"
    return [command, "  all runs: its Convscape tab; train next to val: Custom Scalars"]


def in_a_column(title: str, lines: Sequence[str]) -> list[str]:
    """Lines one below the other, next to a title."""
    return [f"{title if not place else '':<13}{each}" for place, each in enumerate(lines)]


def _kept_epochs(path: Path) -> list[str]:
    """What trainer.keep_epochs has left in a run folder, and its size."""
    from convscape.runs.folder import RunFolder

    sizes = [file.stat().st_size for file in RunFolder(path).epochs_folder.glob("*.ckpt")]
    words = f"weights of each epoch, {sum(sizes) / 1e6:.2g} MB in checkpoints/epochs"
    return [f"kept:        {words}"] if sizes else []


def summary(result: Result, path: Path) -> list[str]:
    """What the user reads after a run."""
    from convscape.config.metrics import metric

    match result.status:
        case "ok":
            metrics, seconds = result.metrics, result.seconds.get("fit", 0.0)
            by = result.monitor
            chosen_by = [] if by is None else [by.on_test, by.name]
            names = dict.fromkeys([*chosen_by, "test/acc", "val/acc"])
            words = [
                *(
                    f"{name.replace('/', ' ')} {metric(name).written(metrics[name])}"
                    for name in names
                    if name in metrics
                ),
                f"epoch {result.best_epoch} of {result.epochs}",
                f"{seconds:.1f} s",
            ]
            if result.samples_per_second:
                words.append(f"{result.samples_per_second:,.0f} images/s")
            lines = [", ".join(words), f"run folder:  {path}"]
            if (nothing := no_choice(result)) is not None:
                lines.insert(1, nothing)
            return [*lines, *_kept_epochs(path), *_next(result, path)]
        case "interrupted":
            assert result.error is not None
            return [
                f"interrupted after epoch {result.epochs}: {result.error['message']}",
                f"to continue:  {command_on(path, 'train', result.config)}",
            ]
        case _:
            what = f"{result.status}: {result.why}"
            log = path / "run.log"
            return [what, f"more in {log}"] if log.is_file() else [what]
