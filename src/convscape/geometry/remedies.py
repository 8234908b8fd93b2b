"""What would make an impossible network possible: changes of keys, tried on the whole of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from convscape.geometry.kinds import NamedLayer
from convscape.geometry.sliding import Sliding, is_of_block, place_of
from convscape.geometry.window import InfeasibleGeometry, Pair, as_pair, format_size, num_outputs

if TYPE_CHECKING:
    from convscape.geometry.window import Shape

Layers = tuple[NamedLayer | None, ...]  # None: a layer that was taken out
MAX_TRIED = 64  # of the sizes below one that is offered with "<=", all are tried up to this


class Way(NamedTuple):
    """A change in words, and the network with it."""

    words: str
    layers: Layers


def ways_out(layers: Sequence[NamedLayer], at: int, input_shape: Sequence[int]) -> list[str]:
    """Changes of the misfit `layers[at]` with which the network can be built, as they are typed.

    Where no change of one key is enough, it is the one that goes furthest, with what the next
    misfit needs, and so on.
    """
    strides = tuple(getattr(named.layer, "has_own_stride", None) for named in layers)
    return list(_ways_out(tuple(layers), strides, at, tuple(input_shape)))


@lru_cache(maxsize=4096)  # runs of a sweep that differ in the seed share it
def _ways_out(
    layers: Layers, own_strides: tuple[bool | None, ...], at: int, input_shape: Shape
) -> list[str]:
    """As `ways_out`; `own_strides` are no part of what makes layers equal."""
    ways = [way.words for way in _ways(layers, at, input_shape)] or _chain(layers, input_shape)
    name = _at(layers, at).name
    is_later_block = is_of_block(name) and not name.startswith("block1.")
    return [*ways, "fewer blocks"] if is_later_block else ways


def either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"


def _chain(layers: Layers, input_shape: Shape) -> list[str]:
    """For the first misfit, and each that is then found, the change that goes furthest."""
    words = []
    while (progress := _progress(layers, input_shape)) != DONE:
        ways = list(_ways(layers, int(progress[0]), input_shape, beyond=progress))
        if not ways:
            return []
        way = max(ways, key=lambda way: _progress(way.layers, input_shape))
        words.append(way.words)
        layers = way.layers
    return [" with ".join(words)]


def _ways(
    layers: Layers, at: int, input_shape: Shape, beyond: tuple[float, int] | None = None
) -> Iterator[Way]:
    """Changes of one key, of this layer or of all blocks, that do.

    - `beyond`: it is enough to get further than this.
    """

    def does(changed: Layers | None) -> bool:
        progress = (-1, 0) if changed is None else _progress(changed, input_shape)
        return progress == DONE if beyond is None else progress > beyond

    name = _at(layers, at).name
    until = len(layers) if beyond is None else at
    for field, value in _candidates(layers, at, input_shape):
        shared = _sharing(layers, at, field)
        for places in [shared, [at]] if len(shared) > 1 else [[at]]:
            sign, fitting = "=", value
            if value is None:
                sized = _largest(layers, places, field, input_shape, until)
                if sized is None:
                    continue
                sign, fitting = sized
            changed = _changed(layers, places, field, fitting)
            if changed is None or not does(changed):
                continue
            everywhere, here = " in every block", f" in {place_of(name).removesuffix(' pool')}"
            where = everywhere if len(places) > 1 else here
            if beyond is not None:  # what comes after it has not been tried with smaller sizes
                sign = "="
            elif len(shared) == 1 or (
                places == shared and does(_changed(layers, [at], field, fitting))
            ):
                where = ""  # whichever way it is read
            key = _sliding(layers, at).key_of(field, is_of_block(name))
            yield Way(f"{key}{sign}{_typed(fitting)}{where}", changed)
            break


def _candidates(layers: Layers, at: int, input_shape: Shape) -> Iterator[tuple[str, Any]]:
    """Fields of a misfit and their values that may do; None is the largest size that does."""
    layer = layers[at]
    if layer is None or not isinstance(layer.layer, Sliding):
        return
    shape = input_shape
    for before in layers[:at]:
        if before is not None:
            shape = before.layer.output_shape(before.name, shape)
    yield "kernel_size", None
    yield from layer.layer.alternatives(shape)
    yield from (("stride", (1, 1)), ("padding", "same"))
    if layer.layer.can_be_left_out:
        yield "kind", "none"


def _sharing(layers: Layers, at: int, field: str) -> list[int]:
    """Places of all blocks' layers of that kind, if one value of `field` stands for all of them."""
    name, layer = _at(layers, at)
    if not is_of_block(name):
        return [at]
    blocks = {each.name.partition(".")[0] for each in layers if each and is_of_block(each.name)}
    places = [n for n, each in enumerate(layers) if each and type(each.layer) is type(layer)]
    values = {getattr(_at(layers, place).layer, field) for place in places}
    return places if len(places) == len(blocks) and len(values) == 1 else [at]


def _changed(layers: Layers, places: Sequence[int], field: str, value: Any) -> Layers | None:
    """The network with another value at these places; None if keys are then unread."""
    changed = list(layers)
    for place in places:
        named, layer = _at(layers, place), _sliding(layers, place)
        is_out = (field, value) == ("kind", "none")
        changed[place] = None if is_out else named._replace(layer=layer.with_value(field, value))
    kind = type(_at(layers, places[0]).layer)
    if any(named is not None and type(named.layer) is kind for named in changed):
        return tuple(changed)
    return tuple(changed) if all(_sliding(layers, place).is_plain for place in places) else None


def _largest(
    layers: Layers, places: Sequence[int], field: str, input_shape: Shape, until: int
) -> tuple[str, Pair] | None:
    """The largest size that does, behind " <= ", or "=" where not every smaller one does.

    - `until`: misfits behind this place are another matter.
    """
    found, signs = [], set()
    for axis in range(2):

        def does(size: int, axis: int = axis) -> bool:
            changed = _changed(layers, places, field, (size, size))
            return changed is not None and _misfit_along(changed, input_shape, axis) > until

        least, lowest, most = _sliding(layers, places[0]).bounds(field, axis)
        if not does(lowest):
            return None
        fitting, too_large = lowest, max(most, lowest) + 1
        while fitting < too_large - 1:
            middle = (fitting + too_large) // 2
            fitting, too_large = (middle, too_large) if does(middle) else (fitting, middle)
        smaller = range(least, min(fitting, MAX_TRIED))
        signs.add(" <= " if all(map(does, smaller)) else "=")
        found.append(fitting)
    return (signs.pop() if len(signs) == 1 else "="), as_pair(found)


DONE = (inf, 0)


def _progress(layers: Layers, input_shape: Shape) -> tuple[float, int]:
    """The first misfit, and minus the number of its faults; `DONE` if there is none."""
    shape = input_shape
    for place, named in enumerate(layers):
        if named is None:
            continue
        try:
            shape = named.layer.output_shape(named.name, shape)
        except InfeasibleGeometry:
            faults = named.layer.faults(shape) if isinstance(named.layer, Sliding) else [""]
            return place, -len(faults)
    return DONE


def _misfit_along(layers: Layers, input_shape: Shape, axis: int) -> float:
    """Place of the first layer whose window does not fit along one axis."""
    size = input_shape[1 + axis]
    for place, named in enumerate(layers):
        if named is None:
            continue
        layer = named.layer
        if layer.gives == "vector":
            break
        if isinstance(layer, Sliding) and layer.fault_along(axis, size) is not None:
            return place
        if layer.windows is not None:
            size = num_outputs(size, layer.windows[axis])
    return inf


def _at(layers: Layers, place: int) -> NamedLayer:
    named = layers[place]
    assert named is not None
    return named


def _sliding(layers: Layers, place: int) -> Sliding:
    layer = _at(layers, place).layer
    assert isinstance(layer, Sliding)
    return layer


def _typed(value: Any) -> str:
    return format_size(value) if isinstance(value, tuple) else str(value)
