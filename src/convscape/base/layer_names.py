"""Names of weights and their layers, whatever wraps the network. Does not import torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from convscape.base.errors import ConfigError
from convscape.base.values import hint

# by us and Lightning, by torch for several processes, by torch.compile
_WRAPPERS = re.compile(r"^((network|model|module|_orig_mod)\.)+")


def bare_name(name: str) -> str:
    """The name without what wraps the network: network.block1.conv.weight: block1.conv.weight."""
    return _WRAPPERS.sub("", name)


def layer_of(weight: str) -> str:
    """The layer that a weight belongs to: block1.conv."""
    layer, _, leaf = bare_name(weight).rpartition(".")
    return layer or leaf


def layers_of(weights: Iterable[str]) -> dict[str, list[str]]:
    """The names of each layer's weights, in order."""
    found: dict[str, list[str]] = {}
    for name in weights:
        found.setdefault(layer_of(name), []).append(name)
    return found


def chosen(asked: Iterable[str], layers: Iterable[str], key: str) -> set[str]:
    """The `layers` that `asked` names, individually or as whole blocks.

    Raises:
        ConfigError: naming the `key`, if one of the names is not a layer's.
    """
    layers, found = list(layers), set()
    for name in asked:
        bare = bare_name(f"{name}.")
        mine = {layer for layer in layers if f"{layer}.".startswith(bare)}
        if not mine:
            stages = list(dict.fromkeys(layer.partition(".")[0] for layer in layers))
            raise ConfigError(
                f"{key}: there is no layer {name!r} with weights; allowed: {', '.join(stages)}, or "
                f"a layer inside them{hint(name, [*stages, *layers])}"
            )
        found |= mine
    return found
