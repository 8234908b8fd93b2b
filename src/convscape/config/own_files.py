"""What a file in the user's conf/ may say: a conf/ that happens to be there may be a stranger's.

A folder named by --config-dir or $CONVSCAPE_CONF is trusted like the command line. The files of a
conf/ that is merely in the working folder may only choose values; anything that could run code, or
leak the environment, is refused. So is what Hydra would read as something other than was meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from convscape.base.errors import ConfigError
from convscape.config.directory import CONFIG_DIR, groups, is_named, values_in

# another key, or the environment variables that conf/data/*.yaml use
REFERENCE = re.compile(r"\$\{(\.*[A-Za-z_][\w.]*|oc\.env:CONVSCAPE_(DATA|CACHE)(,[\w./ -]*)?)\}")
CLOSED = re.compile(r"\b(hydra|allow_packages)\b")
RECIPES = ("experiment", "sweep")  # their files set keys of the whole config


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


def refuse_misplaced(file: Path, config: Any, package: str = "") -> None:
    """Refuse a file of the user's conf/ whose keys or choices are not where Hydra looks for them.

    - `config`: its plain values; `package`: where it tells Hydra to put them.

    Raises:
        ConfigError: with what to write.
    """
    group, entries = file.parent.name, config if isinstance(config, dict) else {}
    if group in RECIPES and not package:
        wrong = f"its first line must be '# @package _global_', or its keys are put below {group!r}"
    elif group in RECIPES and package == "_global_":
        wrong = next(_misplaced(group, entries), "")
    elif group in _chosen() and not package:
        wrong = _not_a_choice(group, entries)
    else:
        return
    if wrong:
        raise ConfigError(f"{file}: {wrong}")


def _misplaced(group: str, entries: dict[Any, Any]) -> Iterator[str]:
    """What is wrong with a recipe: choices among the keys, keys with dots."""
    listed = entries.get("defaults")
    for entry in listed if isinstance(listed, list) else []:
        for key, choice in entry.items() if isinstance(entry, dict) else []:
            name = str(key).removeprefix("override ").strip().removeprefix("/")
            if name in _chosen() and key != f"override /{name}":
                meant = f"- override /{name}: {_plain(choice)}"
                yield f"'- {key}: {_plain(choice)}' in its defaults must be '{meant}'"
    for key, value in entries.items():
        section, _, rest = str(key).partition(".")
        if not rest and section in _chosen() and isinstance(value, str | list):
            yield (
                f"'{key}: {_plain(value)}' is a choice, which must be below 'defaults:' as "
                f"'- override /{key}: {_plain(value)}'"
            )
        if rest and section in groups():
            nested = (
                f"{section}: {{{rest.replace('.', ': {')}: {_plain(value)}{'}' * key.count('.')}"
            )
            if group == "sweep":
                nested += f"', for several values 'hydra: {{sweeper: {{params: {{{key}: ...}}}}}}"
            yield f"'{key}: ...' is how the command line names a key; in a file write '{nested}'"


def _plain(value: Any) -> str:
    """A choice or a value as a file writes it."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _not_a_choice(group: str, entries: dict[Any, Any]) -> str:
    """What is wrong with one's own choice of a group; empty if nothing is."""
    if isinstance(entries.get(group), dict):
        return f"all its keys are keys of {group!r} already; leave out the line '{group}:'"
    if group in _NAMED and not {"defaults", "_target_", "name"} & {*entries}:
        return (
            f"it has only some of the keys; with 'defaults: [{_chosen()[group]}]' as its first "
            f"line it takes the others from {group}={_chosen()[group]}"
        )
    return ""


_NAMED = ("data", "model", "optimizer", "scheduler")  # a name or a _target_ says what they are


@cache
def _chosen() -> dict[str, Any]:
    """The choice that train.yaml makes for each group; only `override` makes another."""
    listed = values_in(CONFIG_DIR / "train.yaml")["defaults"]
    pairs = [pair for entry in listed if isinstance(entry, dict) for pair in entry.items()]
    return {key: choice for key, choice in pairs if key in groups() and key not in RECIPES}


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
