"""What a file of the user's own conf/ may say: a conf/ that lies in a folder may be a stranger's.

A folder that is named, by --config-dir or $CONVSCAPE_CONF, is trusted like what is typed. The files
of one that merely lies in the working folder choose values; what could run code, or tell others
what the environment holds, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convscape.base.errors import ConfigError
from convscape.config.directory import is_named

# another key, or what conf/data/*.yaml take from the environment
REFERENCE = re.compile(r"\$\{(\.*[A-Za-z_][\w.]*|oc\.env:CONVSCAPE_(DATA|CACHE)(,[\w./ -]*)?)\}")
CLOSED = re.compile(r"\b(hydra|allow_packages)\b")


def refuse_untrusted(file: Path, config: Any, package: str = "") -> None:
    """Refuse a file of the user's own folder that says what only a trusted one may say.

    - `config`: its plain values, references unresolved.
    - `package`: where Hydra is to put them.

    Raises:
        ConfigError: with the word, and how to say it or to trust the folder.
    """
    if is_named():
        return
    stray = f"@package {package}" if _is_closed(package) else next(_stray(config, True), None)
    if stray is not None:
        raise ConfigError(
            f"{file}: {stray}: a conf/ that nobody named may be a stranger's, and its files may "
            "not say this; type it, or --config-dir conf if you trust all of conf/"
        )


def _stray(node: Any, is_top: bool = False) -> Iterator[str]:
    """Words of Hydra, packages that would be allowed, and values that are worked out."""
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
    """The values of a sweep, where a file says nothing else of Hydra."""
    match hydra:
        case {"sweeper": {"params": dict(params), **others}, **more} if not others and not more:
            return params
    return None
