"""What would make an impossible network possible: changes to keys, tried on the whole network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from convscape.geometry.kinds import Layer, NamedLayer, all_layers
from convscape.geometry.residual import stride_of
from convscape.geometry.sliding import Sliding, is_of_block, place_of
from convscape.geometry.window import InfeasibleGeometry, Pair, as_pair, format_size, num_outputs

if TYPE_CHECKING:
    from convscape.geometry.window import Shape

Layers = tuple[NamedLayer, ...]
Place = tuple[float, ...]  # (3, 1): the second of the layers in the fourth one
OF_ITSELF = inf  # (3, inf): the fourth one, whose layers are possible, but whose sum is not
NOTHING = NamedLayer("", Layer())  # takes the place of a layer that was removed
MAX_TRIED = 64  # up to this size, everything that "<=" covers is tried


class Way(NamedTuple):
    """A change in words, and the changed network."""

    words: str
    layers: Layers


def ways_out(layers: Sequence[NamedLayer], input_shape: Sequence[int]) -> list[str]:
    """Changes to the first layer that does not fit that make the network possible, as typed.

    If no change of one key is enough, it is the change that gets furthest, combined with one for
    the next layer that does not fit, and so on.
    """
    strides = tuple(getattr(layer, "has_own_stride", None) for layer in all_layers(layers))
    return list(_ways_out(tuple(layers), strides, tuple(input_shape)))


@lru_cache(maxsize=4096)  # runs of a sweep that differ only in the seed share it
def _ways_out(
    layers: Layers, own_strides: tuple[bool | None, ...], input_shape: Shape
) -> list[str]:
    """As `ways_out`; `own_strides` is in the cache key, since equal layers may differ in it."""
    at, _ = _progress(layers, input_shape)
    ways = [way.words for way in _ways(layers, at, input_shape)] or _chain(layers, input_shape)
    name = _at(layers, at).name
    is_later_block = is_of_block(name) and not name.startswith("block1.")
    return [*ways, "fewer blocks"] if is_later_block else ways


def either(choices: Sequence[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"


def _chain(layers: Layers, input_shape: Shape) -> list[str]:
    """For the first misfit and each one found after it, the change that gets furthest."""
    words = []
    while (progress := _progress(layers, input_shape)) != DONE:
        ways = list(_ways(layers, progress[0], input_shape, beyond=progress))
        if not ways:
            return []
        way = max(ways, key=lambda way: _progress(way.layers, input_shape))
        words.append(way.words)
        layers = way.layers
    return [" with ".join(words)]


def _ways(
    layers: Layers, at: Place, input_shape: Shape, beyond: Progress | None = None
) -> Iterator[Way]:
    """Changes of one key, of this layer or of all blocks, that make the network possible.

    - `beyond`: getting further than this is enough.
    """

    def does(changed: Layers | None) -> bool:
        progress = NOWHERE if changed is None else _progress(changed, input_shape)
        return progress == DONE if beyond is None else progress > beyond

    if at[-1] == OF_ITSELF:
        ways = _ways_of_a_sum(layers, at, input_shape, is_alone=beyond is None)
        yield from (way for way in ways if does(way.layers))
        return
    name = _name(layers, at)
    until = (inf,) if beyond is None else at
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
            if beyond is not None:  # later layers have not been tried with smaller sizes
                sign = "="
            elif len(shared) == 1 or (
                places == shared and does(_changed(layers, [at], field, fitting))
            ):
                where = ""  # however it is read
            key = _sliding(layers, at).key_of(field, is_of_block(name))
            yield Way(f"{key}{sign}{_typed(fitting)}{where}", changed)
            break


def _ways_of_a_sum(layers: Layers, at: Place, input_shape: Shape, is_alone: bool) -> Iterator[Way]:
    """Changes to the layers in a layer, or to its shortcut, that may make its sum possible.

    - `is_alone`: whether the message names this very layer.
    """
    outer = at[:-1]
    resized = [
        place
        for place in _places(_at(layers, outer).layer.parts, outer)
        if isinstance(layer := _at(layers, place).layer, Sliding)
        and _sizes_after(layer, shape := _shape_before(layers, place, input_shape))
        != [-(-size // step) for size, step in zip(shape[1:], layer.stride, strict=True)]
    ]
    if resized:
        names = [_name(layers, place) for place in resized]
        where = f"layer{'s' * (len(names) > 1)} {' and '.join(names)}"
        changed = _changed(layers, resized, "padding", "same")
        if changed is not None:
            yield Way(f"padding=same in {where}", changed)
    shape = _shape_before(layers, outer, input_shape)
    for field, value in _at(layers, outer).layer.alternatives(shape):
        changed = _changed(layers, [outer], field, value)
        if changed is not None:
            where = "" if is_alone else f" in {place_of(_name(layers, outer))}"
            yield Way(f"{field}={value}{where}", changed)


def _candidates(layers: Layers, at: Place, input_shape: Shape) -> Iterator[tuple[str, Any]]:
    """Fields of a misfit and values that may work; None is the largest size that does."""
    layer = _at(layers, at).layer
    if not isinstance(layer, Sliding):
        return
    yield "kernel_size", None
    yield from layer.alternatives(_shape_before(layers, at, input_shape))
    yield from (("stride", (1, 1)), ("padding", "same"))
    if layer.can_be_left_out:
        yield "kind", "none"


def _sharing(layers: Layers, at: Place, field: str) -> list[Place]:
    """The places of this layer in all blocks, if they share one value of `field`."""
    name, layer = _at(layers, at)
    if not is_of_block(name):
        return [at]
    blocks = {each.name.partition(".")[0] for each in layers if is_of_block(each.name)}
    places: list[Place] = [(n,) for n, each in enumerate(layers) if type(each.layer) is type(layer)]
    values = {getattr(_at(layers, place).layer, field) for place in places}
    return places if len(places) == len(blocks) and len(values) == 1 else [at]


def _changed(layers: Layers, places: Sequence[Place], field: str, value: Any) -> Layers | None:
    """The network with another value at these places; None if keys would then have no effect."""
    changed = layers
    for place in places:
        named = _at(layers, place)
        is_out = (field, value) == ("kind", "none")
        new = NOTHING if is_out else named._replace(layer=named.layer.with_value(field, value))
        changed = _with(changed, place, new)
    kind = type(_at(layers, places[0]).layer)
    if any(isinstance(layer, kind) for layer in all_layers(changed)):
        return changed
    return changed if all(_sliding(layers, place).is_plain for place in places) else None


def _largest(
    layers: Layers, places: Sequence[Place], field: str, input_shape: Shape, until: Place
) -> tuple[str, Pair] | None:
    """The largest size that works, after " <= ", or "=" if not every smaller one does.

    - `until`: misfits after this place do not count.
    """
    found, signs = [], set()
    resized = cache(lambda size: _changed(layers, places, field, (size, size)))
    for axis in range(2):

        def does(size: int, axis: int = axis) -> bool:
            changed = resized(size)
            if changed is None:
                return False
            misfit, _ = _along(changed, input_shape[1 + axis], axis)
            return misfit is None or misfit > until

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


Progress = tuple[
    Place, int
]  # how far the network gets: the first misfit, and minus the number of its faults
NOWHERE: Progress = ((-1,), 0)
DONE: Progress = ((inf,), 0)


def _progress(layers: Layers, input_shape: Shape) -> Progress:
    """The place of the first misfit, and minus the number of its faults; `DONE` if none."""
    shape = input_shape
    for place, (name, layer) in enumerate(layers):
        try:
            shape = layer.output_shape(name, shape)
        except InfeasibleGeometry:
            if not layer.parts:
                faults = layer.faults(shape) if isinstance(layer, Sliding) else [""]
                return (place,), -len(faults)
            inner, faults_in_it = _progress(layer.parts, shape)
            return (place, *inner), faults_in_it
    return DONE


def _along(layers: Layers, size: int, axis: int) -> tuple[Place | None, int]:
    """The place of the first layer that does not fit along one axis, and the size at the end."""
    for place, (_, layer) in enumerate(layers):
        if layer.gives == "vector":
            break
        if isinstance(layer, Sliding) and layer.fault_along(axis, size) is not None:
            return (place,), size
        if layer.parts:
            misfit, behind = _along(layer.parts, size, axis)
            if misfit is None and behind != -(-size // stride_of(layer.parts)[axis]):
                misfit = (OF_ITSELF,)
            if misfit is not None:
                return (place, *misfit), size
            size = behind
        if layer.windows is not None:
            size = num_outputs(size, layer.windows[axis])
    return None, size


def _at(layers: Layers, place: Place) -> NamedLayer:
    named, inner = layers[int(place[0])], place[1:]
    return named if inner in ((), (OF_ITSELF,)) else _at(named.layer.parts, inner)


def _name(layers: Layers, place: Place) -> str:
    """The full name, such as "residual1.conv2"."""
    named, inner = layers[int(place[0])], place[1:]
    if inner in ((), (OF_ITSELF,)):
        return named.name
    return f"{named.name}.{_name(named.layer.parts, inner)}"


def _with(layers: Layers, place: Place, named: NamedLayer) -> Layers:
    """The same layers with another one at a place."""
    changed, first = list(layers), int(place[0])
    if place[1:]:
        outer = layers[first].layer
        parts = _with(outer.parts, place[1:], named)
        named = layers[first]._replace(layer=outer.with_value("parts", parts))
    changed[first] = named
    return tuple(changed)


def _places(layers: Layers, within: Place) -> Iterator[Place]:
    """The places of the layers, and of those in them."""
    for place, named in enumerate(layers):
        yield (*within, place)
        yield from _places(named.layer.parts, (*within, place))


def _shape_before(layers: Layers, place: Place, shape: Shape) -> Shape:
    """The shape of the input of the layer at a place."""
    for name, layer in layers[: int(place[0])]:
        shape = layer.output_shape(name, shape)
    inner = place[1:]
    return _shape_before(layers[int(place[0])].layer.parts, inner, shape) if inner else shape


def _sizes_after(layer: Sliding, shape: Shape) -> list[int]:
    return [num_outputs(shape[1 + axis], layer.windows[axis]) for axis in range(2)]


def _sliding(layers: Layers, place: Place) -> Sliding:
    layer = _at(layers, place).layer
    assert isinstance(layer, Sliding)
    return layer


def _typed(value: Any) -> str:
    return format_size(value) if isinstance(value, tuple) else str(value)
