"""From the shell to the code: Hydra's errors as one sentence, and what the commands print."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convscape.config import Config, ConfigError, check, hint
from convscape.geometry import InfeasibleGeometry
from convscape.runs import EXIT_CODES, Result, RunFolder, new_run_path, run_name

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"


def say(*lines: str) -> None:
    """Print to the terminal."""
    print(*lines, sep="\n", flush=True)  # noqa: T201


def run_hydra(task: Callable[[DictConfig], None], config_name: str) -> NoReturn:
    """Run `task` on the config that the command line asks for, and exit with its code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us and not to the terminal

    def guarded(cfg: DictConfig) -> None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            task(cfg)
        else:  # Hydra prints a line of its own for an exception that leaves a task
            run_command(lambda: task(cfg))

    command = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)
    run_command(command(guarded))


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Run `command` and exit; a user's mistake is one sentence on stderr and exit code 2."""
    try:
        code = command() or 0
    except (ConfigError, InfeasibleGeometry) as error:
        code = _refuse(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        code = _refuse(_explain(error))
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _refuse(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)  # noqa: T201
    return 2


# --- scripts/train.py -------------------------------------------------------------------------


def train_task(cfg: DictConfig) -> None:
    """One run of scripts/train.py; exits with the code of its status."""
    overrides = list(HydraConfig.get().overrides.task)
    composed: Any = OmegaConf.to_container(cfg, resolve=True)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        from convscape.sweep import run_in_sweep

        run_in_sweep(check(composed), overrides)
        return
    if composed["resume"] is not None:
        config, path, overrides = _resumed(composed, overrides)
    else:
        config = check(composed)
        path = new_run_path(Path(config.output_dir), run_name(config, overrides))
    plan = config.plan()
    say(*([str(plan), *plan.remarks] if plan is not None else []))
    from convscape.train import train  # torch and lightning, once the input is known to be right

    result = train(config, path, overrides)
    say(*summary(result, path))
    sys.exit(exit_code(result))


def _resumed(composed: dict[str, Any], overrides: list[str]) -> tuple[Config, Path, list[str]]:
    """The config and folder of the run to go on with.

    Raises:
        ConfigError: if it is no run, or is asked to change.
    """
    changes = [o for o in overrides if not re.match(r"(resume|allow_packages)=", o)]
    if changes:
        raise ConfigError(
            f"resume goes on with that run's own config; leave out {' '.join(changes)}"
        )
    folder = RunFolder(Path(composed["resume"]))
    # which packages may be imported is never taken from a folder, which may be a stranger's
    stored = folder.read_config() | {"allow_packages": composed["allow_packages"]}
    result = folder.read_result()
    return check(stored), folder.path, result.overrides if result else []


def exit_code(result: Result) -> int:
    """The exit code of a run on its own: SIGTERM's, where that was what interrupted it."""
    if result.error is not None and result.error["message"].endswith("SIGTERM"):
        return 143
    return EXIT_CODES[result.status]


def summary(result: Result, path: Path) -> list[str]:
    """What a person reads after a run."""
    match result.status:
        case "ok":
            metrics, seconds = result.metrics, result.seconds["fit"]
            accuracies = [
                f"{split} acc {100 * metrics[f'{split}/acc']:.2f} %"
                for split in ("test", "val")
                if f"{split}/acc" in metrics
            ]
            words = [
                *accuracies,
                f"epoch {result.best_epoch} of {result.epochs}",
                f"{seconds:.1f} s",
            ]
            if result.samples_per_second:
                words.append(f"{result.samples_per_second:,.0f} images/s")
            logdir = shlex.quote(str(path))
            return [
                ", ".join(words),
                f"run folder:  {path}",
                f"look at it:  tensorboard --host 127.0.0.1 --logdir {logdir}",
            ]
        case "interrupted":
            command = f"python scripts/train.py resume={shlex.quote(str(path))}"
            return [f"interrupted after epoch {result.epochs}; to go on:", f"  {command}"]
        case _:
            assert result.error is not None
            return [
                f"{result.status}: {result.error['type']}: {result.error['message']}",
                f"more in {path / 'run.log'}",
            ]


# --- Hydra's errors ---------------------------------------------------------------------------


def _explain(error: Exception) -> str:
    """One of Hydra's or OmegaConf's errors as a person would put it."""
    text = str(error)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        allowed = ", ".join(error.options) + hint(choice, error.options)
        return f"{group}={choice}: there is no such choice; allowed: {allowed}"
    if isinstance(error, OverrideParseException):
        reason = text.removeprefix(f"Error parsing override '{error.override}'\n").splitlines()[0]
        return f"cannot read {error.override!r}: {reason}; an override looks like key=value"
    if match := re.match(r"Ambiguous value for argument '(.*?)=(.*)'", text):
        key, values = match.groups()
        return (
            f"{key}={values}: several values are a sweep, add -m; or write a list: {key}=[{values}]"
        )
    if match := re.match(r"Could not (?:override|delete from config\.) '(.*?)'", text):
        return unknown_key(match[1].partition("=")[0])
    if match := re.match(r"Could not append to config. An item is already at '(.*?)'", text):
        return f"{match[1]} is there already; write {match[1]}=... without the +"
    if match := re.match(r"Multiple values for (.*?)\.", text):
        return f"{match[1]} is chosen twice; write {match[1]}=... without the +"
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def unknown_key(key: str) -> str:
    """What is wrong with `key`, and which one was probably meant."""
    known = _known_keys()
    matched = hint(key, known)
    section = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    if not siblings:
        siblings = [k for k in known if "." not in k]
    return f"{key}: there is no such key{matched}; allowed: {', '.join(siblings)}"


def _known_keys() -> list[str]:
    """Every key of the config that the command line's choices (model=mlp, ...) make."""
    choices = [a for a in sys.argv[1:] if re.fullmatch(r"[\w/]+=\w+", a)]
    for overrides in (choices, []):
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            try:
                composed: Any = OmegaConf.to_container(hydra.compose("train", overrides))
            except HydraException:
                continue
            return list(_flat(composed))
    return []


def _flat(node: dict[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in node.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
