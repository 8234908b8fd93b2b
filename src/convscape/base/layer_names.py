"""Names of weights and of the layers that they belong to, whatever wraps the network. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from convscape.base.errors import ConfigError
from convscape.base.values import hint

# ours and Lightning's habit, torch's for several processes, torch.compile's
_WRAPPERS = re.compile(r"^((network|model|module|_orig_mod)\.)+")


def bare_name(name: str) -> str:
    """Without what wraps the network: block1.conv.weight of network.block1.conv.weight."""
    return _WRAPPERS.sub("", name)


def layer_of(weight: str) -> str:
    """The layer that a weight belongs to: block1.conv."""
    layer, _, leaf = bare_name(weight).rpartition(".")
    return layer or leaf


def layers_of(weights: Iterable[str]) -> dict[str, list[str]]:
    """For each layer the names of its weights, in their order."""
    found: dict[str, list[str]] = {}
    for name in weights:
        found.setdefault(layer_of(name), []).append(name)
    return found


def chosen(asked: Iterable[str], layers: Iterable[str], key: str) -> set[str]:
    """Those of `layers` that `asked` names, one by one or as whole blocks.

    Raises:
        ConfigError: if one of the names is no layer's, with the `key` that says it.
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
