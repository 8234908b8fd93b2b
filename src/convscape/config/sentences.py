"""Errors of Hydra and OmegaConf as one sentence: key, value, what is allowed, closest match."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from convscape.base.distribution import install
from convscape.base.values import hint
from convscape.config import aliases
from convscape.config.directory import choices, groups_with, own_place
from convscape.config.typed import (
    advice_on,
    ambiguous,
    known_keys,
    put_together,
    refusal,
    refused,
    shell,
    unreadable,
    without,
)
from convscape.geometry.kinds import LAYER_KINDS
from convscape.geometry.sequential import LayerError, kind_of

LAUNCHERS = {  # name: extra
    "joblib": "parallel",
    "convscape_slurm": "slurm",
    "submitit_slurm": "slurm",
    "ray": "ray",
}


def explain(error: Exception, arguments: Sequence[str] | None = None) -> str | None:
    """An error of Hydra, OmegaConf or YAML in plain words; None for others.

    `arguments`: what was typed; by default the command line.
    """
    typed = sys.argv[1:] if arguments is None else arguments
    if isinstance(error, TypeError) and re.fullmatch(
        r"Index '.*' \(str\) is not an int", str(error)
    ):
        key = next((a.partition("=")[0] for a in typed if ".layers." in a), "model.layers")
        return (
            f"{key}: the layers are written as a list, whose entries have no names; write them as "
            "a mapping (conv1: ..., pool1: ...) to set single values"
        )
    if isinstance(error, RecursionError):
        return "the config is nested too deeply" if _is_of_a_config(error) else None
    if not isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return _of_hydra_itself(error, typed)
    text = str(error)
    if match := re.search(rf"'hydra/launcher/({'|'.join(LAUNCHERS)})'", text):
        name = match[1].removeprefix("convscape_")
        return f"hydra/launcher={name} is not installed; {install(LAUNCHERS[match[1]])}"
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        given = next((a for a in typed if a.replace("=", "/", 1) == error.missing_cfg_file), None)
        return _no_choice(group, choice, given or f"{group}={choice}", error.options)
    if isinstance(error, OverrideParseException):
        return _unreadable(str(error.override), typed)
    if match := re.match(r"Ambiguous value for argument '(.*?)=(.*)'", text):
        return ambiguous(match[1], match[2], typed)
    if sweep := re.match(r"Sweep parameters '(.*?)' requires --multirun|ConfigLoader is", text):
        given = sweep[1] or next((a for a in typed if "glob(" in a), "glob()")
        group = given.partition("=")[0]
        names = [name for name in choices(group) if name != "own"]
        if "glob(" in given:  # it needs Hydra's loader, which is not always available here
            return f"{given}: glob() does not work here; write -m {group}={','.join(names)}"
        return f"{given}: several values are a sweep, add -m"
    if match := re.search(r"Environment variable '(.*?)' not found", text):
        given = next((a for a in typed if f"oc.env:{match[1]}" in a), None)
        where = re.search(r"\n\s*full_key: (.*)", text)
        return (
            f"{given or (where[1] if where else 'the config')}: the environment variable "
            f"{match[1]} is not set; set it, or give a default: "
            f"${{oc.env:{match[1]},value}}"
        )
    if removed := _removed(text, typed):
        return removed
    if match := re.match(r"Could not (?:override|delete from config\.) '(.*?)'", text):
        return unknown_key(match[1].partition("=")[0], typed)
    if match := re.match(r"Could not append to config. An item is already at '(.*?)'", text):
        return f"{match[1]} already exists; write {match[1]}=... without the +"
    if match := re.match(r"Multiple values for (.*?)\.", text):
        return f"{match[1]} is chosen twice; write {match[1]}=... without the +"
    # OmegaConf's own message, followed by the place
    match = re.search(r"\n\s*full_key: (.*)", text)
    words = " ".join(text[: match.start() if match else None].split())
    return f"{match[1]}: {words}" if match else words


def _unreadable(word: str, typed: Sequence[str]) -> str | None:
    """The message about a word that Hydra cannot read: spaces may have split what was meant."""
    if (together := put_together(word, typed)) is None:
        return unreadable(word, typed)
    words, advice = together
    try:
        return refused(words) or advice
    except (HydraException, OmegaConfBaseException) as error:
        return explain(error, words)


def _removed(text: str, typed: Sequence[str]) -> str | None:
    """The message about `~data` and the like, which removes what cannot be left out."""
    asked = {word: word.lstrip("~").partition("=")[0] for word in typed if word.startswith("~")}
    if match := re.match(r"Could not delete '(.*?)'\. No match in the defaults list", text):
        word = next((w for w, key in asked.items() if key == match[1]), f"~{match[1]}")
        return f"{word}: there is no such choice to remove; {match[1]}=[...] makes another choice"
    if match := re.match(r"Could not delete from config\. '(.*?)'", text):
        others = [word for word in typed if "=" in word and not word.startswith("~")]
        if match[1] not in known_keys(others):
            return None
        off = without(match[1], others)
        return f"~{match[1]}: the key cannot be left out{off and f'; {off} switches it off'}"
    if match := re.search(r"Interpolation key '(.*?)' not found", text):
        for word, key in asked.items():
            if f"{match[1]}.".startswith(f"{key}."):
                return f"{word}: {match[1]} cannot be left out"
    return None


def _is_of_a_config(error: RecursionError) -> bool:
    """Whether the stack ran out while reading a config, not in a user's module."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    rooms = {str(frame.f_globals.get("__name__")).partition(".")[0] for frame in frames[-100:]}
    return bool(rooms & {"yaml", "omegaconf", "hydra", "antlr4"})


def _of_hydra_itself(error: Exception, typed: Sequence[str]) -> str | None:
    """Mistakes for which Hydra has no error of its own: unknown choices and malformed values."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if frame.f_globals.get("__name__", "").partition(".")[0] not in ("hydra", "omegaconf"):
        return None
    for argument in typed:
        group, _, choice = argument.partition("=")
        if not group:
            return f"cannot read {argument}; an override looks like key=value"
        names = list(choices(group))
        if names and choice not in names:
            return _no_choice(group, choice, argument, names)
    return f"Hydra cannot read the command line: {' '.join(str(error).split())}"


def _no_choice(group: str, choice: str, given: str, options: Sequence[str]) -> str:
    if named := aliases.named_here(group, choice):
        return f"{given}: there is no such choice; write {' '.join(map(shell, named))}"
    place = own_place()
    if place is not None and (file := place / group / f"{choice}.yml").is_file():
        return f"{given}: there is no such choice; call {file} {choice}.yaml, and it is one"
    homes = groups_with(choice)
    if homes and choice.isidentifier() and refusal([f"{homes[0]}={choice}"]) is None:
        return f"{given}: there is no such choice; write {homes[0]}={choice}"
    matched = hint(choice, options)
    ways = {
        "model": "; for other networks take torchvision's (model=torchvision model.name=resnet18), "
        "your own layers (model=sequential) or your own class (docs/extending.md)",
        "data": (
            "; for your own pictures write data=image_folder data.root=<folder>, for arrays "
            "data=own"
        ),
    }
    more = "" if matched else ways.get(group, "")
    return f"{given}: there is no such choice; allowed: {', '.join(options)}{matched}{more}"


def unknown_key(key: str, arguments: Sequence[str]) -> str:
    """What is wrong with `key`, and which one was probably meant."""
    group, _, name = key.rpartition(".")[0].partition(".")
    is_chosen = any(a.startswith("logger=") and name in a for a in arguments)
    is_logger = group == "logger" and name in choices("logger")
    if is_logger and not is_chosen:
        return f"{key}: that logger is not chosen; add logger=[tensorboard,{name}]"
    if group in ("model", "data") and any(a.startswith("resume=") for a in arguments):
        return f"{key}: resume continues with that run's own {group}; leave it out"
    known = known_keys(arguments)
    if key.startswith("model.layers."):
        return _unknown_layer_key(key, known)
    given = next((a for a in arguments if a.lstrip("+~").partition("=")[0] == key), "")
    value = given.partition("=")[2]
    if _adds_to_a_part(key, arguments):
        return f"{key}: there is no such key; write +{key}={value or '...'}"
    if key.startswith("search.space."):
        return _not_in_the_space(key, value, known)
    others = [a for a in arguments if a != given and "=" in a and not a.startswith("-")]
    if advice := advice_on(key, value, others):
        return f"{key}: there is no such key{advice}"
    section = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    if not siblings:
        siblings = [k for k in known if "." not in k]
    matched = hint(key, siblings) or hint(key, [k for k in known if k.endswith(f".{key}")])
    choice = next((a for a in arguments if a.startswith(f"{section}=")), "")
    where = f" with {choice}" if choice else ""
    return f"{key}: there is no such key{where}{matched}; allowed: {', '.join(siblings)}"


def _adds_to_a_part(key: str, arguments: Sequence[str]) -> bool:
    """Whether it names a user's part, or is an argument of one: these are added with +."""
    section, _, rest = key.partition(".")
    named = any(a.lstrip("+").startswith(f"{section}._target_=") for a in arguments)
    return bool(rest) and (section in ("metrics", "callbacks") or named)


def _not_in_the_space(key: str, value: str, known: Sequence[str]) -> str:
    """About search.space.model.dropout.high=0.9, if the search does not change the dropout."""
    name, _, bound = key.removeprefix("search.space.").rpartition(".")
    ways = {"low": f"{{low:{value},high:1.0}}", "high": f"{{low:0.0,high:{value}}}",
            "choices": f"{{choices:{value}}}"}  # fmt: skip
    if bound not in ways:
        name = f"{name}.{bound}"
    space = [k.removeprefix("search.space.") for k in known if k.startswith("search.space.")]
    searched = ", ".join(k for k in space if k.count(".") == 1)
    adds = f"; '+search.space.{name}={ways.get(bound, value)}' adds it" if value else ""
    return f"{key}: this search leaves {name} as it is; it changes {searched}{adds}"


def _unknown_layer_key(key: str, known: Sequence[str], home: str = "model.layers") -> str:
    """About a layer's key: most have a default and are not written in the network.

    - `home`: the key of the layers that it is in, such as model.layers.residual1.layers.
    """
    name, _, leaf = key.removeprefix(f"{home}.").partition(".")
    inner = [k.removeprefix(f"{home}.") for k in known if k.startswith(f"{home}.")]
    names = [k for k in inner if "." not in k]
    try:
        keys = LAYER_KINDS[kind_of(name)].keys
    except LayerError as error:
        return f"{home.removesuffix('layers')}{error}"
    if name not in names:
        return (
            f"{key}: there is no layer {name} in {home}; its layers are {', '.join(names)}; "
            f"+{home}.{name}=... adds one at the end"
        )
    first, _, deeper = leaf.partition(".")
    if deeper and f"{name}.{first}" in inner:
        return _unknown_layer_key(key, known, f"{home}.{name}.{first}")
    if leaf not in keys:
        return f"{key}: there is no such key; allowed: {', '.join(keys)}{hint(leaf, keys)}"
    if not any(k.startswith(f"{name}.") for k in inner):
        return f"{key}: {name} is a plain value; write {home}.{name}={{{leaf}: ...}}"
    return f"{key}: the key is not set in this network; +{key}=... adds it"
