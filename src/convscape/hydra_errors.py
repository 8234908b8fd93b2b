"""Hydra's and OmegaConf's errors as one sentence: key, value, what is allowed, closest match."""

from __future__ import annotations

import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from convscape.cli import CONFIG_DIR
from convscape.hydra_insides import parse_overrides, without_hydra
from convscape.sequential import KINDS, LayerError, kind_of
from convscape.values import hint

LAUNCHERS = {"joblib": "parallel", "submitit_slurm": "slurm", "ray": "ray"}  # name: extra


def explain(error: Exception, arguments: Sequence[str] | None = None) -> str | None:
    """One of Hydra's, OmegaConf's or YAML's errors as a person would put it; None for others.

    `arguments`: what was typed, by default the command line.
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
        return "the config is nested too deeply"
    if not isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return _of_hydra_itself(error, typed)
    text = str(error)
    if match := re.search(rf"'hydra/launcher/({'|'.join(LAUNCHERS)})'", text):
        return (
            f"hydra/launcher={match[1]} is not installed; pip install -e '.[{LAUNCHERS[match[1]]}]'"
        )
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        given = next((a for a in typed if a.replace("=", "/", 1) == error.missing_cfg_file), None)
        allowed = ", ".join(error.options) + hint(choice, error.options)
        return f"{given or f'{group}={choice}'}: there is no such choice; allowed: {allowed}"
    if isinstance(error, OverrideParseException):
        if quoted := _quoted(str(error.override)):
            return f"cannot read {error.override!r}; its value needs quotes: {shlex.quote(quoted)}"
        reason = text.removeprefix(f"Error parsing override '{error.override}'\n").splitlines()[0]
        return f"cannot read {error.override!r}: {reason}; an override looks like key=value"
    if match := re.match(r"Ambiguous value for argument '(.*?)=(.*)'", text):
        key, values = match.groups()
        return (
            f"{key}={values}: several values are a sweep, add -m; or write a list: {key}=[{values}]"
        )
    if match := re.match(r"Could not (?:override|delete from config\.) '(.*?)'", text):
        return unknown_key(match[1].partition("=")[0], typed)
    if match := re.match(r"Could not append to config. An item is already at '(.*?)'", text):
        return f"{match[1]} is there already; write {match[1]}=... without the +"
    if match := re.match(r"Multiple values for (.*?)\.", text):
        return f"{match[1]} is chosen twice; write {match[1]}=... without the +"
    # OmegaConf's own words, and below them where that was
    match = re.search(r"\n\s*full_key: (.*)", text)
    words = " ".join(text[: match.start() if match else None].split())
    return f"{match[1]}: {words}" if match else words


def _of_hydra_itself(error: Exception, typed: Sequence[str]) -> str | None:
    """What Hydra stumbles over without an error of its own: choices and numbers of no kind."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if frame.f_globals.get("__name__", "").partition(".")[0] not in ("hydra", "omegaconf"):
        return None
    for argument in typed:
        group, _, choice = argument.partition("=")
        names = sorted(file.stem for file in (CONFIG_DIR / group).glob("*.yaml"))
        if group and names and choice not in names:
            return f"{argument}: there is no such choice; allowed: {', '.join(names)}"
    return f"Hydra cannot read the command line: {' '.join(str(error).split())}"


def _quoted(override: str) -> str | None:
    """The override with its value in quotes, if that lets Hydra read it: data.root='/home/José'."""
    key, _, value = override.partition("=")
    if "'" in value or not value:
        return None
    quoted = f"{key}='{value}'"
    try:
        parse_overrides([quoted])
    except OverrideParseException:
        return None
    return quoted


def unknown_key(key: str, arguments: Sequence[str]) -> str:
    """What is wrong with `key`, and which one was probably meant."""
    group, _, name = key.rpartition(".")[0].partition(".")
    is_chosen = any(a.startswith("logger=") and name in a for a in arguments)
    is_logger = group == "logger" and (CONFIG_DIR / "logger" / f"{name}.yaml").is_file()
    if is_logger and not is_chosen:
        return f"{key}: that logger is not chosen; add logger=[tensorboard,{name}]"
    known = _known_keys(arguments)
    if key.startswith("model.layers."):
        return _unknown_layer_key(key, known)
    matched = hint(key, known)
    section = key.rpartition(".")[0]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    if not siblings:
        siblings = [k for k in known if "." not in k]
    choice = next((a for a in arguments if a.startswith(f"{section}=")), "")
    where = f" with {choice}" if choice else ""
    return f"{key}: there is no such key{where}{matched}; allowed: {', '.join(siblings)}"


def _unknown_layer_key(key: str, known: Sequence[str]) -> str:
    """Of the key of a layer: most have a default and are not written in the network."""
    name, _, leaf = key.removeprefix("model.layers.").partition(".")
    inner = [k.removeprefix("model.layers.") for k in known if k.startswith("model.layers.")]
    names = [k for k in inner if "." not in k]
    try:
        keys = KINDS[kind_of(name)]
    except LayerError as error:
        return f"model.{error}"
    if name not in names:
        return (
            f"{key}: this network has no layer {name}; its layers are {', '.join(names)}; "
            f"+model.layers.{name}=... adds one at the end"
        )
    if leaf not in keys:
        return f"{key}: there is no such key; allowed: {', '.join(keys)}{hint(leaf, keys)}"
    if not any(k.startswith(f"{name}.") for k in inner):
        return (
            f"{key}: {name} is written as a value alone; write model.layers.{name}={{{leaf}: ...}}"
        )
    return f"{key}: the key is not written in this network; +{key}=... adds it"


def _known_keys(arguments: Sequence[str]) -> list[str]:
    """Every key of the config that the choices among `arguments` (model=mlp, ...) make."""
    choices = [a for a in arguments if re.fullmatch(r"[\w/]+=\w+", a)]
    for overrides in (choices, []):
        with without_hydra(), hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
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
