"""What a file in the user's conf/ may say: a conf/ that happens to be there may be a stranger's.

A folder named by --config-dir or $CONVSCAPE_CONF is trusted like the command line. The files of a
conf/ that is merely in the working folder may only choose values; anything that could run code, or
leak the environment, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convscape.base.errors import ConfigError
from convscape.config.directory import is_named

# another key, or the environment variables that conf/data/*.yaml use
REFERENCE = re.compile(r"\$\{(\.*[A-Za-z_][\w.]*|oc\.env:CONVSCAPE_(DATA|CACHE)(,[\w./ -]*)?)\}")
CLOSED = re.compile(r"\b(hydra|allow_packages)\b")


def refuse_untrusted(file: Path, config: Any, package: str = "") -> None:
    """Refuse a file of the user's conf/ that says what only a trusted one may say.

    - `config`: its plain values, with unresolved references.
    - `package`: where Hydra is to put them.

    Raises:
        ConfigError: with the word, and how to type it or trust the folder.
    """
    if is_named():
        return
    stray = f"@package {package}" if _is_closed(package) else next(_stray(config, True), None)
    if stray is not None:
        raise ConfigError(
            f"{file}: {stray}: a conf/ that is not named on the command line may be a stranger's, "
            "and its files may not say this; type it, or --config-dir conf if you trust all of it"
        )


def _stray(node: Any, is_top: bool = False) -> Iterator[str]:
    """Hydra's keywords, packages that would be allowed, and values that are computed."""
    if isinstance(node, dict):
        for key, value in node.items():
            params = _params_of(value) if is_top and key == "hydra" else None
            if _is_closed(str(key)) and params is None:
                yield str(key)
            yield from _stray(value if params is None else params)
    elif isinstance(node, list):
        for value in node:
            yield from _stray(value)
    elif isinstance(node, str) and _is_closed(node):
        yield node


def _is_closed(text: str) -> bool:
    return bool(CLOSED.search(text)) or "$" in REFERENCE.sub("", text)


def _params_of(hydra: Any) -> dict[Any, Any] | None:
    """The values of a sweep, if a file sets nothing else of Hydra."""
    match hydra:
        case {"sweeper": {"params": dict(params), **others}, **more} if not others and not more:
            return params
    return None
