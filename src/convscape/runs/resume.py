"""The run to resume, from its folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.terminal import say
from convscape.base.values import shortened, value_at
from convscape.config.schema import Config
from convscape.runs.fingerprint import FINGERPRINT_EXCLUDES
from convscape.runs.folder import RunFolder
from convscape.runs.latest import named
from convscape.runs.resolved import ResolvedRun


@contextmanager
def held_to_go_on(folder: RunFolder) -> Iterator[Path]:
    """The folder of a resumed run, locked.

    Raises:
        RunIsBusy: if a living process holds it.
        CannotWrite: if it cannot be written to, before the run has restarted.
    """
    try:
        with folder.held() as path:
            yield path
    except CannotWrite as error:
        if error.path != folder.path:  # such as the data cache
            raise
        raise CannotWrite(folder.path, error.error, None) from None


def _forget_servers(stored: dict[str, Any], allow_packages: list[str]) -> None:
    """Ignore the tracking servers and accounts named in a folder, which may be a stranger's."""
    loggers = stored.get("logger")
    for name, key, instead in (("mlflow", "tracking_uri", None), ("wandb", "mode", "offline")):
        section = loggers.get(name) if isinstance(loggers, dict) else None
        if not isinstance(section, dict) or name in allow_packages:
            continue
        value = section.get(key, instead)
        section[key] = instead
        if value != instead:
            say(
                f"logger.{name}.{key}={shortened(str(value), 100)} comes from the run folder, and "
                f"is ignored; allow_packages=[{name}] takes it",
                file=sys.stderr,
            )


# What a resumed run may be told: where and how it runs, ...
_PLACES = (
    "visual", "logger", *(f"{s}.{key}" for s, keys in FINGERPRINT_EXCLUDES.items() for key in keys)
)  # fmt: skip
# ... for how long, and with which learning rates: then it continues as a new run
LENGTH = ("trainer.max_epochs", "trainer.max_steps", "trainer.early_stopping")
_RATES = ("scheduler", "optimizer.lr")


@dataclass(frozen=True)
class Resumed:
    """The run to continue, and the `folder` where it is so far.

    - `before`: the folder's run, if this will be a new one in its own folder.
    - `changes`: the overrides that make it a new run.
    """

    run: ResolvedRun
    folder: RunFolder
    before: Config | None = None
    changes: tuple[str, ...] = ()


def resumed(composed: dict[str, Any], overrides: list[str]) -> Resumed:
    """The run to continue, with its original overrides and those given now.

    The place of its data may be given again, as may everything that does not affect its result; the
    run folder then records that.

    Raises:
        ConfigError: if it is not a run, would become a different one, or its data are missing.
    """
    from convscape.config.check import check, with_value
    from convscape.runs.data import check_there

    kept = {"resume", "allow_packages", "output_dir"}
    given = {key: o for o in overrides if (key := _key(o)) not in kept}
    allowed = (*_PLACES, *LENGTH, *_RATES)
    if refused := [o for key, o in given.items() if not _is_among(key, allowed)]:
        raise ConfigError(
            f"resume continues with that run's own config; leave out {' '.join(refused)}; allowed: "
            f"{', '.join((*LENGTH, *_RATES))}, and what does not affect the result, such as "
            "visual, logger, data.root, trainer.device"
        )
    folder = RunFolder(named(composed["resume"], key="resume"))
    stored = folder.read_config()
    # a tracking library may write there: a stranger's run must not decide where
    stored_place = Path(str(stored.get("output_dir"))).resolve()
    if not folder.path.resolve().is_relative_to(stored_place):
        stored["output_dir"] = composed["output_dir"]
    if not any(_is_among(key, ("logger",)) for key in given):
        _forget_servers(stored, composed["allow_packages"])
    # which packages may be imported is never taken from a folder, which may be a stranger's
    stored["allow_packages"] = composed["allow_packages"]
    before = config = check(stored)
    for key in given:
        whole = next((each for each in ("logger", "scheduler") if _is_among(key, (each,))), key)
        if isinstance(stored.get(section := whole.partition(".")[0]), dict) or section == whole:
            stored = with_value(stored, whole.split("."), value_at(composed, whole))
    if given:
        config = check(stored)
    result = folder.read_result()
    words = result.overrides if result else []
    if not _is_another(before, config):
        if any(_key(o) == "output_dir" for o in overrides):
            raise ConfigError(f"resume continues in {folder.path}; leave out output_dir")
        if result is None or result.status != "ok":
            check_there(config)
        return Resumed(ResolvedRun(config, words), folder)
    changes = [o for key, o in given.items() if _is_among(key, (*LENGTH, *_RATES))]
    words = [*(word for word in words if _key(word) not in given), *changes]
    # not a run of the sweep that it may come from
    config = config.model_copy(update={"output_dir": composed["output_dir"], "name": None})
    return Resumed(ResolvedRun(config, words), folder, before, tuple(changes))


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _is_among(key: str, keys: tuple[str, ...]) -> bool:
    """Whether `key` is one of `keys`, or below one."""
    return any(f"{key}.".startswith(f"{each}.") for each in keys)


def _is_another(before: Config, now: Config) -> bool:
    """Whether the length or the learning rates differ."""
    one, other = before.model_dump(), now.model_dump()
    return any(value_at(one, key) != value_at(other, key) for key in (*LENGTH, *_RATES))
