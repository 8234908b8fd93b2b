"""What a config may name by `_target_`, and the one function that builds it.

Each key that takes a part is a door: it has a trusted home, and a class that the part must be.
Parts from the home are built without asking; everything else must come from a package that the
user allowed on the command line. A run folder, which may be a stranger's, allows nothing.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convscape.base.errors import ConfigError, NotAllowed
from convscape.base.values import hint, shortened


@dataclass(frozen=True)
class Door:
    """What a key of the config may name.

    - `noun`: what the part is called in a sentence, with its article.
    - `base`: full name of the class that it must inherit from; None: it is a function.
    - `home`: the module whose classes are trusted, with its submodules; None: there is none.
    - `written`: the module under which they are written, if it is not `home`.
    - `functions`: whether a function is allowed too: one of the user's, or one in the list of
      models of `home`.
    - `objects`: whether an existing object is allowed too.
    - `names`: the trusted names of the home; None: every class that inherits from `base`.
    - `writes`: whether it may write files. Trusted parts write in the run folder only.
    """

    noun: str
    base: str | None
    home: str | None = None
    written: str | None = None
    functions: bool = False
    writes: bool = False
    objects: bool = False
    names: tuple[str, ...] | None = None

    def trusts(self, target: str) -> bool:
        """Whether `target` may be built without asking."""
        is_one = self.names is None or target.rpartition(".")[2] in self.names
        return is_one and self.is_home_of(target)

    @property
    def allowed(self) -> str:
        """What may be named, in words."""
        home = self.written or self.home
        at_home = [f"{self.noun} of {home} ({home}.<Name>)"] if home else []
        return ", or ".join([*at_home, f"{'one' if at_home else self.noun} of an allowed package"])

    def is_home_of(self, target: str) -> bool:
        """Whether `target` names anything in the trusted home."""
        homes = [home for home in (self.home, self.written) if home is not None]
        return any(target.startswith(f"{home}.") for home in homes)


# without SpikeDetection, which writes where a checkpoint says, and without those that search for
# attributes by name and set them
_CALLBACKS = (
    "DeviceStatsMonitor", "EarlyStopping", "EMAWeightAveraging", "GradientAccumulationScheduler",
    "LearningRateMonitor", "ModelCheckpoint", "ModelPruning", "ModelSummary",
    "OnExceptionCheckpoint", "RichModelSummary", "RichProgressBar", "StochasticWeightAveraging",
    "TQDMProgressBar", "ThroughputMonitor", "Timer", "WeightAveraging",
)  # fmt: skip

DOORS = {
    "model": Door("a network", "torch.nn.Module", "torchvision.models", functions=True),
    "loss": Door(
        "a loss", "torch.nn.Module", "torch.nn.modules.loss", written="torch.nn", functions=True
    ),
    "optimizer": Door("an optimiser", "torch.optim.Optimizer", "torch.optim"),
    "scheduler": Door(
        "a schedule", "torch.optim.lr_scheduler.LRScheduler", "torch.optim.lr_scheduler"
    ),
    "metrics": Door(
        "a metric", "torchmetrics.Metric", "torchmetrics.classification", written="torchmetrics"
    ),
    "callbacks": Door(
        "a callback",
        "lightning.pytorch.Callback",
        "lightning.pytorch.callbacks",
        writes=True,
        names=_CALLBACKS,
    ),
    "logger": Door(
        "a logger",
        "lightning.pytorch.loggers.Logger",
        "lightning.pytorch.loggers",
        writes=True,
        names=("CSVLogger", "TensorBoardLogger"),  # the others send data to servers
    ),
    "data": Door("a function or data set", None, functions=True, objects=True),
    "augment": Door("a function", None, functions=True),
    "rules": Door("a function", None, functions=True),
}


_WEIGHTS = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")
_MOVED = {"pytorch_lightning": "lightning.pytorch"}
_LIBRARIES = {str(door.home).partition(".")[0] for door in DOORS.values()}


# --- checks of the names alone: nothing is imported -----------------------------------------------


def check(
    door: str, key: str, target: Any, arguments: Mapping[str, Any], allow_packages: Iterable[str]
) -> None:
    """Refuse what the config may not name at `key`, or may not pass these `arguments`.

    Raises:
        ConfigError: saying what is allowed; `NotAllowed` if allowing a package would help.
    """
    kind = DOORS[door]
    if target == "???":
        raise ConfigError(f"{key} is not set; allowed: {kind.allowed}: <package>.<name>")
    if not _is_dotted(target):
        raise ConfigError(f"{key}={shortened(str(target), 200)}: allowed: {kind.allowed}")
    package, _, rest = target.partition(".")
    is_own = package in allow_packages
    if package in _MOVED and not is_own:
        raise ConfigError(f"{key}={target}: write {key}={_MOVED[package]}.{rest}")
    if not is_own and not kind.trusts(target):
        words = f"{key}={target}: allowed: {kind.allowed}"
        if kind.names is not None and kind.is_home_of(target):
            raise NotAllowed(f"{key}={target} may reach more than the run folder", package)
        if package in sys.stdlib_module_names:  # not a user's package
            raise ConfigError(words)
        raise NotAllowed(words, package)
    section = key.removesuffix("._target_")
    for name, value in _leaves(arguments, section):
        last = name.rpartition(".")[2]
        if re.fullmatch("_.*_", last):
            raise ConfigError(
                f"{name}: arguments are numbers, words, lists and sections of these, and none of "
                "them is built; leave it out"
            )
        if not isinstance(value, str | int | float | list | dict | None):
            raise ConfigError(
                f"{name} is a {type(value).__name__}; allowed: numbers, words, lists and sections "
                "(put a date or a time in quotes)"
            )
        if is_own:
            continue
        if door == "model" and last == "num_classes":
            raise ConfigError(f"{name}={value}: the data set knows its classes; leave it out")
        if last in _WEIGHTS and value not in (None, False):
            raise ConfigError(
                f"{name}={value}: no weights are downloaded; leave it out, and the network is "
                "trained from scratch"
            )
        if kind.writes and isinstance(value, str) and _is_place(value):
            raise ConfigError(
                f"{name}={shortened(value, 200)}: {target} writes inside the run folder only; "
                f"leave it out, or add allow_packages=[{package}] to let it write anywhere"
            )


def _is_dotted(target: Any) -> bool:
    """Whether it is <package>.<name>, without private names."""
    words = target.split(".") if isinstance(target, str) and len(target) < 500 else []
    return len(words) > 1 and all(
        word.isidentifier() and not word.startswith("_") and not keyword.iskeyword(word)
        for word in words
    )


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every key below `path`, and every entry of a list, with its value."""
    pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
    for key, value in pairs:
        name = f"{path}.{key}"
        yield name, value
        if isinstance(value, Mapping | list | tuple):
            yield from _leaves(value, name)


def _is_place(text: str) -> bool:
    """Whether it may lead out of the folder that it is relative to, or to a server."""
    text = text.strip()
    return (
        not text.isprintable()
        or text.startswith(("/", "~", "\\"))
        or re.search(r"\.\.|://|\\|\$|^[A-Za-z][\w+.-]*:", text) is not None
    )


# --- what is named ------------------------------------------------------------------------------


def find(
    door: str,
    key: str,
    target: str,
    allow_packages: Sequence[str],
    arguments: Mapping[str, Any] | None = None,
) -> Any:
    """The class or function that `target` names, to be called with `arguments`.

    Raises:
        ConfigError: if it is not allowed, does not exist, or is of another kind.
    """
    check(door, key, target, arguments or {}, allow_packages)
    kind = DOORS[door]
    is_own = target.partition(".")[0] in allow_packages
    module, _, name = target.rpartition(".")
    if not is_own and not (f"{module}." == f"{kind.written}." or _is_below(module, kind.home)):
        raise ConfigError(f"{key}={target}: allowed: {kind.allowed}")
    if is_own and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the user's packages may be here; looked for last
    found = _imported(key, module, name)
    fits = _fits(kind, found) and (is_own or _is_at_home(kind, found))
    if not fits:
        raise ConfigError(f"{key}={target} is {_what(kind, found)}; allowed: {kind.allowed}")
    return found


def _fits(kind: Door, found: Any) -> bool:
    if kind.objects:
        return True
    if inspect.isclass(found):
        return kind.base is None or issubclass(found, _base(kind))
    return kind.functions and callable(found)


def _is_at_home(kind: Door, found: Any) -> bool:
    """Whether it is defined in the trusted home, not merely imported there."""
    if not _is_below(getattr(found, "__module__", None), kind.home):
        return False
    return inspect.isclass(found) or is_of_torchvision(found)


def is_of_torchvision(found: Any) -> bool:
    """Whether it is a function that builds one of torchvision's classification networks."""
    if inspect.isclass(found) or not _is_below(found.__module__, "torchvision.models"):
        return False
    from torchvision import models

    if found is models.get_model:
        return True
    name = found.__name__
    return name in models.list_models(module=models) and models.get_model_builder(name) is found


def is_class(found: Any, base: type) -> bool:
    """Whether it is `base` or inherits from it."""
    return inspect.isclass(found) and issubclass(found, base)


def _is_below(module: Any, home: str | None) -> bool:
    return home is not None and f"{module}.".startswith(f"{home}.")


def _base(kind: Door) -> type[Any]:
    module, _, name = str(kind.base).rpartition(".")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def _what(kind: Door, found: Any) -> str:
    if inspect.isclass(found):
        is_other = kind.base is not None and not issubclass(found, _base(kind))
        return f"no {str(kind.base).rpartition('.')[2]}" if is_other else "not defined there"
    if callable(found):
        return "not one of its models" if kind.functions else "not a class"
    return "no function" if kind.functions and kind.base is None else "not a class"


def _imported(key: str, module: str, name: str) -> Any:
    try:
        found = importlib.import_module(module)
        return getattr(found, name)
    except AttributeError as error:
        close = hint(name, dir(found)) if "found" in locals() else ""
        raise ConfigError(f"{key}={module}.{name}: {error}{close}") from None
    except Exception as error:  # noqa: BLE001  a user's module may raise anything
        place = line_of(error, [module.partition(".")[0]])
        raise ConfigError(f"{key}={module}.{name}: {told(error)}{place}") from None


def told(error: BaseException) -> str:
    """An error in one line; Python's message for a missing name needs no type in front."""
    text = shortened(" ".join(str(error).split()), 500)
    is_clear = isinstance(error, ImportError | TypeError | ValueError) and bool(text)
    return text if is_clear else f"{type(error).__name__}: {text}"


def line_of(error: BaseException, packages: Iterable[str]) -> str:
    """` (file, line 7)` for the line in `packages` that an error came from, otherwise nothing."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}, line {error.lineno})"
    place = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package in packages and package not in _LIBRARIES:
            place = f" ({Path(frame.f_code.co_filename)}, line {number})"
    return place


# --- what is built ------------------------------------------------------------------------------


def build(
    door: str,
    key: str,
    part: Any,
    allow_packages: Sequence[str],
    *positional: Any,
    offered: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Any:
    """The part that a config names: a class or function, called with the config's arguments.

    - `part`: a `Part`: its target and its arguments.
    - `positional`: the first arguments, such as the parameters for an optimiser.
    - `offered`: keyword arguments passed if it accepts them and the config does not set them.
    - `given`: keyword arguments that are always passed, unless the config sets them.
    - `folder`: where it may write, if it is not the user's own.

    Raises:
        ConfigError: if it cannot be found, does not take the arguments, or is not what it must be.
    """
    found = find(door, key, part.target, allow_packages, part.arguments)
    takes = parameters(found)
    arguments = {k: v for k, v in (offered or {}).items() if k in takes}
    arguments |= {**(given or {}), **part.arguments}
    if folder is not None and part.target.partition(".")[0] not in allow_packages:
        arguments |= _places(takes, arguments, folder)
    built = call(key, part.target, found, positional, arguments)
    kind = DOORS[door]
    if kind.base is not None and not isinstance(built, _base(kind)):
        raise ConfigError(
            f"{key}={part.target} gave a {type(built).__name__}; allowed: {kind.allowed}"
        )
    return built


_PLACE = re.compile(r"(^|_)(dir|dirpath|directory|folder|root|path|file)$")


def _places(takes: Mapping[str, Any], arguments: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The folders and files that a part writes to, all inside `folder`."""
    places = {name for name in [*takes, *arguments] if _PLACE.search(name)}
    needed = ("save_dir", "dirpath")  # otherwise it would choose one
    return {
        name: str(folder / str(arguments.get(name) or ""))
        for name in places
        if name in arguments or name in needed
    }


def parameters(found: Any) -> Mapping[str, inspect.Parameter]:
    """What a class or function takes; for a class that returns another one, what that one takes."""
    made = vars(found).get("__new__") if inspect.isclass(found) else None
    takes = dict(inspect.signature(found if made is None else made.__func__).parameters)
    if made is not None:
        takes.pop("cls", None)
    return takes


def call(
    key: str, target: str, found: Any, positional: Sequence[Any], arguments: Mapping[str, Any]
) -> Any:
    """What `found` returns for the config's arguments.

    Raises:
        ConfigError: if it does not take them, or fails.
    """
    check_arguments(key, target, found, positional, arguments)
    try:
        return found(*positional, **arguments)
    except (ConfigError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001  so may a user's class
        place = line_of(error, [target.partition(".")[0]])
        section = key.removesuffix("._target_")
        raise ConfigError(f"{section}: {target}: {told(error)}{place}") from None


def check_names(
    key: str, target: str, found: Any, names: Iterable[str], num_positional: int = 0
) -> None:
    """Refuse arguments that `found` does not take; the first `num_positional` are not the config's.

    Raises:
        ConfigError: naming the argument, and those that are allowed.
    """
    takes = parameters(found)
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values())
    known = list(takes)[num_positional:]
    section = key.removesuffix("._target_")
    for name in names:
        if name not in known and not takes_any:
            raise ConfigError(
                f"{section}.{name}: {target} takes no such argument; allowed: "
                f"{', '.join(known) or 'none'}{hint(name, known)}"
            )


def check_arguments(
    key: str, target: str, found: Any, positional: Sequence[Any], arguments: Mapping[str, Any]
) -> None:
    """Refuse arguments that `found` does not take, and calls that lack what it needs.

    Raises:
        ConfigError: naming what is unexpected or missing.
    """
    check_names(key, target, found, arguments, len(positional))
    try:
        inspect.Signature(list(parameters(found).values())).bind(*positional, **arguments)
    except TypeError as error:
        section = key.removesuffix("._target_")
        raise ConfigError(f"{section}: {target}: {error}") from None
