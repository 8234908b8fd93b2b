"""From the plain dict that Hydra composed to a `Config`, or one sentence per mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.base.layer_names import chosen
from convscape.base.shared import once_for_each
from convscape.base.values import hint, shortened
from convscape.config import aliases, metrics
from convscape.config.allowed import error_message
from convscape.config.directory import choices, values_in
from convscape.config.networks import OwnModelConfig, layers_for_one_class
from convscape.config.optimizers import OPTIMIZERS, OptimizerConfig
from convscape.config.schema import MAX_MISTAKES, Config
from convscape.geometry.sequential import LayerError
from convscape.geometry.window import InfeasibleGeometry

if TYPE_CHECKING:
    from convscape.base.sections import Section
    from convscape.config.networks import Network
    from convscape.config.schema import DataConfig, LoggerConfig
    from convscape.geometry.kinds import NamedLayer

_MOST_KNOWN = 10_000  # sections, of a few kB each
Known = tuple[dict[str, Any], BaseModel]  # a section as composed, and as typed values


def check(composed: dict[str, Any], known: dict[int, Known] | None = None) -> Config:
    """The typed config of one run.

    - `known`: sections of other runs of a grid, which are not validated again if this one has the
      same dict; this run's sections are added.

    Raises:
        ConfigError: one line for every mistake.
    """
    if known is None:
        known = {}
    sections = {key: value for key, value in composed.items() if isinstance(value, dict)}
    typed = {key: known[id(value)][1] for key, value in sections.items() if id(value) in known}
    try:
        config = Config.model_validate({**composed, **typed})
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error.errors(), composed))) from None
    if len(known) > _MOST_KNOWN:
        known.clear()
    for key, value in sections.items():
        if key not in typed and isinstance(section := getattr(config, key), BaseModel):
            known[id(value)] = value, section
    _check_together(config)
    return _with_val_size(config)


def _check_together(config: Config) -> None:
    """Refuse values that are allowed one by one but not together."""
    if config.trainer.max_epochs is None and config.trainer.max_steps is None:
        raise ConfigError("trainer.max_epochs and trainer.max_steps are both null; set one of them")
    if ":" in config.trainer.device and config.trainer.devices > 1:
        raise ConfigError(
            f"trainer.device={config.trainer.device} is one GPU, but trainer.devices="
            f"{config.trainer.devices}; allowed: trainer.device=cuda"
        )
    if not isinstance(config.model, OwnModelConfig):
        layers = _layers_of(config.model)
        metrics.check_logged(config.monitor, config.added_metrics)
        _check_layer_names(config, layers)
    if config.trainer.freeze_epochs is not None and config.trainer.devices > 1:
        raise ConfigError(
            f"trainer.freeze_epochs={config.trainer.freeze_epochs}: several processes agree before "
            "the first epoch on what they exchange; allowed: trainer.devices=1, or null"
        )
    _check_parts(config)
    if config.name is not None and not re.fullmatch(r"[\w][\w.-]{0,99}", config.name, re.ASCII):
        raise ConfigError(
            f"name={config.name!r} cannot name a folder; allowed: up to 100 letters, digits, "
            "'_', '-' and '.', beginning with a letter, digit or '_'"
        )
    _check_secrets(config.logger)
    for key in ("margin", "seeds"):
        value = getattr(config, key)
        if config.until is None and value != Config.model_fields[key].default:
            raise ConfigError(
                f"{key}={value}: only until=verdict reads it; add until=verdict, or leave it out"
            )


def _check_parts(config: Config) -> None:
    """Refuse what may not be named, without importing it."""
    packages, data = config.allow_packages, config.data
    for door, key, part in config.parts():
        parts.check(door, key, part.target, part.arguments, packages)
    if data.name == "own":
        parts.check("data", "data._target_", data.target or "???", data.arguments, packages)
    for target in data.augment.own:
        parts.check("augment", "data.augment.own", target, {}, packages)
    loss = config.loss
    if loss.target is None and loss.arguments:
        key = next(iter(loss.arguments))
        raise ConfigError(
            f"loss.{key}: for which loss? Add loss._target_=torch.nn.<its class>; model.loss "
            "chooses among this project's own losses, which take model.label_smoothing"
        )


def _with_val_size(config: Config) -> Config:
    """Set how many images validation takes from train, if there is no validation folder.

    Raises:
        ConfigError: if val_size is null, and the data cannot have such a folder.
    """
    data = _section_with_val_size(config.data)
    return config if data is config.data else config.model_copy(update={"data": data})


@once_for_each
def _section_with_val_size(data: DataConfig) -> DataConfig:
    """The same object for all runs of a grid that share a section, and one look at the disk."""
    from convscape.data.datasets import has_val_folder
    from convscape.data.splits import VAL_FRACTION

    if data.val_size is not None or (data.name == "image_folder" and has_val_folder(data.root)):
        return data
    if data.is_brought:
        return data  # whether it has validation images is known, and checked, once it is read
    if data.name != "image_folder":
        raise ConfigError(
            f"data.val_size=null: data={data.name} has no images of its own for validation; "
            "allowed: a number of images, or a fraction below 1"
        )
    if not Path(data.root).expanduser().is_dir():
        return data  # moved: its content is unknown, and not needed
    return data.model_copy(update={"val_size": VAL_FRACTION})


def check_arguments(section: type[Section], arguments: Mapping[str, Any]) -> None:
    """Check arguments of a constructor as `check` checks the keys of `section`.

    Missing keys have the constructor's defaults; tuples are as good as lists.

    Raises:
        ConfigError: one line for every mistake.
    """
    allowed = [k for k in section.model_fields if k not in ("target", "loss", "label_smoothing")]
    for key in arguments:
        if key not in allowed:
            raise ConfigError(
                f"{key}: there is no such argument; allowed: {', '.join(allowed)}"
                f"{hint(key, allowed)}"
            )
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}
    try:
        section.model_validate(plain)
    except ValidationError as error:
        mistakes = [each for each in error.errors() if each["type"] != "missing"]
        if mistakes:
            raise ConfigError("\n".join(_sentences(mistakes, plain))) from None


def _check_secrets(logger: LoggerConfig) -> None:
    """Refuse secrets, which must not be written into a run folder, without repeating them."""
    uri = logger.mlflow.tracking_uri if logger.mlflow is not None else None
    if uri is not None and ("?" in uri or "@" in uri.partition("://")[2].partition("/")[0]):
        raise ConfigError(
            "logger.mlflow.tracking_uri holds a user, password or token, and the run folder would "
            "keep it; leave it out of the address and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or the whole address as MLFLOW_TRACKING_URI"
        )


def _layers_of(model: Network) -> list[NamedLayer]:
    try:
        return layers_for_one_class(model)
    except ValueError as error:
        raise ConfigError(f"model.{error}{_of_a_preset(str(error), model)}") from None


def _check_layer_names(config: Config, layers: Iterable[NamedLayer]) -> None:
    """Refuse layers to freeze or to load that the network does not have."""
    freeze = config.trainer.freeze if isinstance(config.trainer.freeze, list) else []
    loaded = config.init_from.layers or []
    if freeze or loaded:
        names = list(_names(layers))
        chosen(freeze, names, "trainer.freeze")
        chosen(loaded, names, "init_from.layers")


def _names(layers: Iterable[NamedLayer], within: str = "") -> Iterator[str]:
    """The names of layers with weights."""
    for name, layer in layers:
        if layer.has_weights:
            yield f"{within}{name}"
        yield from _names(layer.parts, f"{within}{name}.")


def _of_a_preset(sentence: str, model: Network) -> str:
    """What to write if the values that do not fit are not the user's own."""
    key = sentence.partition("=")[0]
    values = getattr(model, key, None)
    for name, file in choices("model").items():
        if isinstance(values, list) and values_in(file).get(key) == values:
            return f"; it comes with model={name}: write model.{key}={values[0]} or model=cnn"
    return ""


def _sentences(errors: Sequence[Any], composed: dict[str, Any]) -> list[str]:
    """One sentence for each mistake; the branches of a union share one."""
    allowed: dict[str, list[str]] = {}
    if any((each["type"], each["loc"]) == ("missing", ("data", "name")) for each in errors):
        return [
            "data.name cannot be left out; data=digits, data=mnist ... set it and everything else"
        ]
    for each in errors[:MAX_MISTAKES]:
        head, _, tail = _sentence(each, composed).partition(": allowed: ")
        allowed.setdefault(head, []).append(tail)
    sentences = [
        shortened(": allowed: ".join([head, ", ".join(tails)] if tails[0] else [head]))
        for head, tails in allowed.items()
    ]
    more = [f"and more, {len(errors) - MAX_MISTAKES}"] if len(errors) > MAX_MISTAKES else []
    return sentences + more


def _sentence(error: Any, composed: dict[str, Any]) -> str:
    """A pydantic error in plain words."""
    path = _path(error)
    key = shortened(".".join(str(part) for part in path), 200)
    context = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            rest = _without(composed, path)
            known = list(keys_in(rest))
            advised = aliases.advice(key, error["input"], known, lambda way: _refusal(rest, way))
            if advised:
                return f"{key}: there is no such key{advised}"
            known = _known_keys(path[:-1], composed)
            return (
                f"{key}: there is no such key; allowed: {', '.join(known)}{hint(path[-1], known)}"
            )
        case "missing" | "union_tag_not_found":
            name = ".name" if error["type"] == "union_tag_not_found" else ""
            off = None if name else switched_off(key, composed)
            why = f"{off} switches it off" if off else "it has no default outside conf/"
            return f"{key}{name}: the key is missing; {why}"
        case "union_tag_invalid":
            allowed = str(context["expected_tags"]).replace("'", "")
            matched = hint(context["tag"], allowed.split(", "))
            return f"{key}.name={context['tag']}: allowed: {allowed}{matched}"
        case "value_error" if isinstance(context["error"], LayerError):
            return ".".join([*path[:-1], str(context["error"])])
        case _:
            sentence = error_message(key, error)
            in_list = f"{key}=[{error['input']}]"
            if error["type"] == "list_type" and _refusal(composed, [in_list]) is None:
                return f"{key}={error['input']}: allowed: a list, such as [{error['input']}]"
            door = parts.DOORS.get(str(path[0]))
            if error["type"] in ("model_type", "dict_type") and door is not None and door.home:
                name = ".<a name>" if error["type"] == "dict_type" else ""
                added = "" if key == path[0] and not name else "+"
                sentence = f"{key}={error['input']}: allowed: {door.allowed}, as "
                sentence += f"{added}{key}{name}._target_=..."
            if (named := aliases.named_here(key, error["input"])) is None:
                return sentence
            plain = sentence.partition("; did you mean")[0]
            is_refused = _refusal(composed, named) is not None
            return plain if is_refused else f"{plain}; write {' '.join(named)}"


def _path(error: Any) -> list[Any]:
    """The keys that lead to the wrong value."""
    return [p for n, p in enumerate(error["loc"]) if not (p in _TAGS if n == 1 else _is_branch(p))]


def _is_branch(part: Any) -> bool:
    """Whether it is the name of a union's branch in pydantic's paths, and not the user's word."""
    return isinstance(part, str) and _BRANCH.fullmatch(part) is not None


def switched_off(key: str, composed: dict[str, Any]) -> str | None:
    """`key=value` that switches off a key which may not be left out, if such a value exists."""
    takes_any_word = _refusal(composed, [f"{key}=any_word"]) is None
    words = () if takes_any_word else ("none", "off")
    for value in ("null", "false", "0", "0.0", "[]", *words):
        if _refusal(composed, [f"{key}={value}"]) is None:
            return f"{key}={value}"
    return None


def _refusal(composed: dict[str, Any], way: Sequence[str]) -> str | None:
    """What is wrong with overrides of a config, ignoring its other mistakes; None if nothing."""
    for word in way:
        key, _, value = word.partition("=")
        if value in choices(key):
            return None  # it is a section, which Hydra would have to compose
        try:
            plain = yaml.safe_load(value)
        except yaml.YAMLError:
            plain = value
        composed = with_value(composed, key.split("."), plain)
    try:
        config = Config.model_validate(composed)
    except ValidationError as error:
        for each in error.errors():
            if ".".join(map(str, _path(each))).startswith(key):
                return error_message(key, each)
        return None
    try:
        _check_together(config)
        _with_val_size(config)
    except ConfigError as error:
        return str(error) if key in str(error) else None
    return impossible(config)


def impossible(config: Config) -> str | None:
    """Why the network cannot exist, if that is known without reading the user's data."""
    if config.data.is_brought or config.data.name == "image_folder":
        return None
    try:
        config.plan()
    except InfeasibleGeometry as error:
        return str(error)
    return None


def with_value(node: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy with `value` at `path`; missing sections are created."""
    first, *others = path
    inner = node.get(first)
    below = with_value(inner if isinstance(inner, dict) else {}, others, value) if others else value
    return {**node, first: below}


def _without(node: Any, path: Sequence[Any]) -> Any:
    """A copy without the key at `path`."""
    first, *others = path
    if not others:
        return {key: value for key, value in node.items() if key != first}
    return {**node, first: _without(node[first], others)}


# the tags of unions in pydantic's paths, which the user did not write
_TAGS = {
    "cnn", "mlp", "sequential", "own", "constant", "step", "multistep", "cosine", "one_cycle",
}  # fmt: skip
_BRANCH = re.compile(r"(constrained-)?(int|float|str)|(list|literal)\[.*\]")


def keys_in(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of nested sections, as typed: optimizer, optimizer.lr ..."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys_in(value, f"{prefix}{key}.")


def _known_keys(path: list[Any], composed: dict[str, Any]) -> list[str]:
    """The keys of the section at `path`, as declared by its class."""
    section: Any = Config
    node: Any = composed
    for part in path:
        node = node[part]
        section = _section_class(section.model_fields[part].annotation, node)
    return [field.alias or key for key, field in section.model_fields.items()]


def _section_class(annotation: Any, node: Any) -> Any:
    """The class in the union `annotation` that fits `node`, by target or name."""
    if getattr(annotation, "__args__", (None,))[0] is OptimizerConfig:
        return OPTIMIZERS[node["name"]]
    options = getattr(annotation, "__args__", None)
    if options is None:
        return annotation
    options = [option for option in options if option is not type(None)]
    if len(options) == 1:
        return options[0]
    for option in options:
        section = getattr(option, "__origin__", option)
        tag = section.model_fields.get("target") or section.model_fields.get("name")
        if (node.get("_target_") or node.get("name")) in getattr(tag.annotation, "__args__", ()):
            return section
    return options[-1]
