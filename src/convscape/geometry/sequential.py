"""Networks written layer by layer: what the user may write, and the layers that it means.

A mapping gives every layer a name: its kind and, if there are several, a number. Any value of a
layer can be set on the command line (model.layers.conv1.kernel_size=5). Entries of a list are
numbered here. The value of a layer's main key may be given alone: `pool1: 2`, `dense1: 128`.
Layers may contain layers: `residual1: {layers: {conv1: 16, conv2: 16}}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from convscape.base.errors import ConfigError
from convscape.base.values import hint
from convscape.geometry.kinds import LAYER_KINDS, NamedLayer
from convscape.geometry.layers import Activation, Dense, Flatten
from convscape.geometry.window import OutputLayer


class LayerError(ConfigError):
    """A layer that is impossible; the message begins with its key: layers.conv1.stride=0: ..."""


def whole_layers(layers: Any) -> dict[str, dict[str, Any]]:
    """`layers` with a name for every layer and a value for every key.

    Raises:
        LayerError: if there is none, or one of them is wrong.
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
            raise LayerError(f"layers.{name}: two layers have this name")
        whole[name] = _whole_layer(name, written)
    return whole


def kind_of(name: str) -> str:
    """The kind in a layer's name: conv for conv2.

    Raises:
        LayerError: if there is no such kind.
    """
    kind = re.sub(r"_?\d+$", "", str(name))
    if kind not in LAYER_KINDS:
        raise LayerError(
            f"layers.{name}: there is no such kind of layer; allowed: {', '.join(LAYER_KINDS)}, "
            f"and a number where there are several, as in conv2{hint(kind, LAYER_KINDS)}"
        )
    return kind


def _numbered(entries: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """The name and value of each entry of a list: the second `- conv: 32` is conv2."""
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
    keys = LAYER_KINDS[kind].keys
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
        if value is ...:
            raise LayerError(f"layers.{name}.{key}: the key is missing; it has no default")
        try:
            whole[key] = what.whole(value)
            what.parse(value)
        except LayerError as error:  # about a layer inside this one
            raise LayerError(f"layers.{name}.{error}") from None
        except ValueError as error:
            raise LayerError(f"layers.{name}.{key}={value}: {error}") from None
    return whole


def sequential_layers(
    num_classes: int, *, layers: Any, output_layer: OutputLayer = "dense"
) -> list[NamedLayer]:
    """The layers as written, plus those that are implied: flatten before dense, and the output.

    Layers that do nothing are left out (dropout 0, activation none, flatten of a vector), so that
    equal networks are equal lists.

    Raises:
        LayerError: if a layer is wrong, or needs maps after they were flattened.
    """
    return checked_layers(num_classes, layers=whole_layers(layers), output_layer=output_layer)


def checked_layers(
    num_classes: int, *, layers: dict[str, dict[str, Any]], output_layer: OutputLayer
) -> list[NamedLayer]:
    """As `sequential_layers`, from what `whole_layers` returned."""
    result = list(in_a_row(layers))
    if output_layer == "dense":
        if not any(named.layer.gives == "vector" for named in result):
            result.append(NamedLayer("flatten", Flatten()))
        result.append(NamedLayer("output", Dense(num_classes)))
    return result


def in_a_row(layers: Mapping[str, dict[str, Any]]) -> Iterator[NamedLayer]:
    """The layers of what `whole_layers` returns, with maps flattened where it is first needed.

    Raises:
        LayerError: if one needs maps after they were flattened.
    """
    flat_since: str | None = None
    for name, written in layers.items():
        kind = LAYER_KINDS[kind_of(name)]
        values = {key: kind.keys[key].parse(value) for key, value in written.items()}
        activation = values.pop("activation", "none")
        layer = kind.from_keys(values)
        takes, gives = (layer.takes, layer.gives) if layer else (kind.takes, kind.gives)
        if takes == "maps" and flat_since is not None:
            raise LayerError(
                f"layers.{name}: {kind.kind_name} needs maps, but the output of {flat_since} "
                f"before it is a vector; put {name} before {flat_since}"
            )
        if takes == "vector" and flat_since is None:
            yield NamedLayer(name if kind is Flatten else "flatten", Flatten())
        if takes == "vector" or gives == "vector":
            flat_since = flat_since or name
        if layer is not None:  # it does something
            yield NamedLayer(name, layer)
        if activation != "none":
            yield NamedLayer(f"{name}_activation", Activation(activation))
