"""Networks written one layer after the other: what a person may write, and the layers it means.

A mapping gives every layer a name, which is its kind and, where there are several, a number; any
value of it can be set from the command line (model.layers.conv1.kernel_size=5). A list is numbered
here. What a layer takes by its main key alone may stand in its place: `pool1: 2`, `dense1: 128`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from convscape import geometry
from convscape.errors import ConfigError
from convscape.geometry import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    NamedLayer,
    Pool,
)
from convscape.values import ACTIVATIONS, boolean, hint, integer, one_of, optional_size, probability

_REQUIRED = object()


class LayerError(ConfigError):
    """A layer that cannot be; the sentence begins with its key: layers.conv1.stride=0: ..."""


@dataclass(frozen=True)
class Key:
    """One key of a layer; `check` raises ValueError for a value that it cannot have."""

    check: Callable[[Any], Any]
    default: Any = _REQUIRED


# The first key of a kind is the one that may stand alone.
KINDS: dict[str, dict[str, Key]] = {
    "conv": {
        "channels": Key(integer),
        "kernel_size": Key(geometry.parse_size, 3),
        "stride": Key(geometry.parse_size, 1),
        "padding": Key(geometry.parse_padding, "valid"),
        "dilation": Key(geometry.parse_size, 1),
        "groups": Key(integer, 1),
        "bias": Key(boolean, True),
        "activation": Key(one_of(*ACTIVATIONS), "none"),
    },
    "pool": {
        "size": Key(geometry.parse_size, 2),
        "kind": Key(one_of(*get_args(geometry.PoolKind), "none"), "max"),
        "stride": Key(optional_size, None),
        "padding": Key(geometry.parse_padding, "valid"),
        "ceil_mode": Key(boolean, False),
    },
    "global_pool": {"kind": Key(one_of("avg", "max"), "avg")},
    "flatten": {},
    "dense": {
        "units": Key(integer),
        "bias": Key(boolean, True),
        "activation": Key(one_of(*ACTIVATIONS), "none"),
    },
    "batch_norm": {},
    "activation": {"name": Key(one_of(*ACTIVATIONS), "relu")},
    "dropout": {"p": Key(probability)},
}


def whole_layers(layers: Any) -> dict[str, dict[str, Any]]:
    """`layers` with a name for every layer and a value for every key.

    Raises:
        LayerError: if there is none, or one of them cannot be.
    """
    if not isinstance(layers, Mapping | list | tuple):
        raise LayerError(
            f"layers={layers!r}: allowed: a mapping of layers, such as {{conv1: 32, pool1: 2}}"
        )
    named = list(layers.items()) if isinstance(layers, Mapping) else list(_numbered(layers))
    if not named:
        raise LayerError(
            "layers is empty; allowed: one layer or more, such as dense1: 64 "
            "(softmax regression is model=mlp model.hidden=[])"
        )
    whole: dict[str, dict[str, Any]] = {}
    for name, written in named:
        if name in whole:
            raise LayerError(f"layers.{name}: there are two layers of this name")
        whole[name] = _whole_layer(name, written)
    return whole


def kind_of(name: str) -> str:
    """The kind in a layer's name: conv for conv2.

    Raises:
        LayerError: if there is no such kind.
    """
    kind = re.sub(r"_?\d+$", "", str(name))
    if kind not in KINDS:
        raise LayerError(
            f"layers.{name}: there is no such kind of layer; allowed: {', '.join(KINDS)}, "
            f"and a number where there are several, as in conv2{hint(kind, KINDS)}"
        )
    return kind


def _numbered(entries: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Name and value of each entry of a list: the second `- conv: 32` is conv2."""
    counts: dict[str, int] = {}
    for place, entry in enumerate(entries, 1):
        pair = (entry, None) if isinstance(entry, str) else None
        if isinstance(entry, Mapping) and len(entry) == 1:
            (pair,) = entry.items()
        if pair is None:
            raise LayerError(
                f"layers: entry {place} is {entry!r}; allowed: a kind of layer, alone or with its "
                "keys, such as flatten, {conv: 32} or {conv: {channels: 32, kernel_size: 5}}"
            )
        name, written = pair
        kind = kind_of(name)
        counts[kind] = counts.get(kind, 0) + 1
        yield (f"{kind}{counts[kind]}" if name == kind else name), written


def _whole_layer(name: str, written: Any) -> dict[str, Any]:
    kind = kind_of(name)
    keys = KINDS[kind]
    main = next(iter(keys), None)
    if written is None:
        written = {}
    elif not isinstance(written, Mapping):
        if main is None:
            raise LayerError(f"layers.{name}={written!r}: {kind} takes no value")
        written = {main: written}
    for key in written:
        if key not in keys:
            raise LayerError(
                f"layers.{name}.{key}: there is no such key; allowed: "
                f"{', '.join(keys) or 'none'}{hint(key, keys)}"
            )
    whole = {}
    for key, what in keys.items():
        value = written.get(key, what.default)
        if value is _REQUIRED:
            raise LayerError(f"layers.{name}.{key}: the key is missing; it has no default")
        try:
            what.check(value)
        except ValueError as error:
            raise LayerError(f"layers.{name}.{key}={value}: {error}") from None
        whole[key] = value
    return whole


def sequential_layers(
    num_classes: int, *, layers: Any, output_layer: geometry.OutputLayer = "dense"
) -> list[NamedLayer]:
    """Layers as they are written, and what goes without saying: flatten before dense, the output.

    What does nothing is left out (dropout 0, activation none, flatten of a vector), so that equal
    networks are equal lists.

    Raises:
        LayerError: if a layer cannot be, or needs maps where there are none any more.
    """
    result: list[NamedLayer] = []
    flat_since: str | None = None
    output = {"output": {"units": num_classes}} if output_layer == "dense" else {}
    for name, values in {**whole_layers(layers), **output}.items():
        kind = "dense" if name == "output" else kind_of(name)
        if kind in ("conv", "pool", "global_pool") and flat_since is not None:
            raise LayerError(
                f"layers.{name}: {kind} needs maps, and {flat_since} before it leaves one row of "
                f"numbers; put {name} before {flat_since}"
            )
        if kind in ("flatten", "dense") and flat_since is None:
            flatten = name if kind == "flatten" else "flatten"
            result.append(NamedLayer(flatten, Flatten()))
        if kind in ("flatten", "dense", "global_pool"):
            flat_since = flat_since or name
        layer = _layer(kind, values)
        if layer is not None:
            result.append(NamedLayer(name, layer))
        if values.get("activation", "none") != "none":
            result.append(NamedLayer(f"{name}_activation", Activation(values["activation"])))
    return result


def _layer(kind: str, values: dict[str, Any]) -> Layer | None:
    """None for what does nothing, and for flatten, which stands where it is first needed."""
    match kind:
        case "conv":
            sizes = {key: geometry.parse_size(values[key]) for key in ("kernel_size", "stride")}
            return Conv(
                values["channels"],
                **sizes,
                padding=geometry.parse_padding(values["padding"]),
                dilation=geometry.parse_size(values["dilation"]),
                groups=values["groups"],
                bias=values["bias"],
            )
        case "pool" if values["kind"] != "none":
            size = geometry.parse_size(values["size"])
            stride = values["stride"]
            return Pool(
                values["kind"],
                size,
                size if stride is None else geometry.parse_size(stride),
                geometry.parse_padding(values["padding"]),
                values["ceil_mode"],
            )
        case "global_pool":
            return GlobalPool(values["kind"])
        case "dense":
            return Dense(values["units"], values.get("bias", True))
        case "batch_norm":
            return BatchNorm()
        case "activation" if values["name"] != "none":
            return Activation(values["name"])
        case "dropout" if values["p"]:
            return Dropout(values["p"])
    return None
