"""What a config may name: classes and functions of packages that the user allowed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from convscape.base.errors import ConfigError, NotAllowed


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


def find(key: str, target: str, allow_packages: Sequence[str]) -> Any:
    """What `target` names (mypackage.load), from a package that the user allowed.

    Raises:
        ConfigError: if it is not allowed or not there.
    """
    check_own(key, target, allow_packages)
    module, _, name = target.rpartition(".")
    if os.getcwd() not in sys.path:  # where the user's packages are looked for last: here
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{key}={target}: {error}") from None
