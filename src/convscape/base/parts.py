"""What a config may name: classes and functions of packages that the user allowed."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from convscape.base.errors import ConfigError, NotAllowed
from convscape.base.values import hint


def check_target(target: str, allow_packages: Iterable[str]) -> None:
    """Refuse a class outside the packages that the user allowed on the command line.

    Raises:
        ConfigError: naming the key that allows one's own package.
    """
    if target == "???":
        raise ConfigError("model._target_ is not set; write model._target_=<package>.<Class>")
    package = target.partition(".")[0]
    if package not in allow_packages:
        ours = "none of convscape.models.CNN, .MLP and .Sequential, nor in an allowed package"
        raise NotAllowed(f"model._target_={target!r} is {ours}", package)


def check_own(key: str, target: str, allow_packages: Iterable[str]) -> None:
    """Refuse a function outside the packages that the user allowed on the command line.

    Raises:
        ConfigError: naming the key that allows one's own package.
    """
    package, _, name = target.partition(".")
    if target == "???" or not name:
        raise ConfigError(f"{key}={target}: allowed: a function of yours, <package>.<function>")
    if package not in allow_packages:
        raise NotAllowed(f"{key}={target} is not in an allowed package", package)


def find_class(
    key: str, target: str, home: str, base: type, allow_packages: Sequence[str]
) -> type[Any]:
    """The class that `target` names: one of `home`, or of a package that the user allowed.

    - `home`: the module that is trusted, with what is below it.
    - `base`: what the class must be a child of.

    Raises:
        ConfigError: if it is not allowed, not there, or of another kind.
    """
    package = home.partition(".")[0]
    if target.partition(".")[0] == package:
        found = _imported(key, target)
        is_at_home = f"{getattr(found, '__module__', '')}.".startswith(f"{home}.")
    else:
        found, is_at_home = find(key, target, allow_packages), True
    if not (is_at_home and inspect.isclass(found) and issubclass(found, base)):
        raise ConfigError(
            f"{key}={target}: allowed: a class of {home}, or a {base.__name__} of a package in "
            "allow_packages"
        )
    return found


def find(key: str, target: str, allow_packages: Sequence[str]) -> Any:
    """What `target` names (mypackage.load), from a package that the user allowed.

    Raises:
        ConfigError: if it is not allowed or not there.
    """
    check_own(key, target, allow_packages)
    if os.getcwd() not in sys.path:  # where the user's packages are looked for last: here
        sys.path.append(os.getcwd())
    return _imported(key, target)


def _imported(key: str, target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        found = importlib.import_module(module)
        return getattr(found, name)
    except AttributeError as error:
        raise ConfigError(f"{key}={target}: {error}{hint(name, dir(found))}") from None
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{key}={target}: {error}") from None
