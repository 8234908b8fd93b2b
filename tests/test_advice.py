"""What a message advises works: it is taken at its word, and typed."""

import functools
import random
import re

import pytest

from convscape.api import compose
from convscape.base.errors import ConfigError
from convscape.config.check import check
from convscape.geometry.window import InfeasibleGeometry
from convscape.training.unread import refuse_unread

COUNT = 500  # impossible networks


def a_size(draw, most):
    return draw.choice([draw.randint(1, most), f"{draw.randint(1, most)}x{draw.randint(1, most)}"])


def a_padding(draw):
    return draw.choice(["valid", "valid", "circular", 0, 1, 2, "0x2"])


def a_cnn(draw):
    """Every key has one value for all blocks, or a list of one per block."""
    blocks = range(draw.randint(1, 4))
    draws = {
        "kernel_size": lambda: a_size(draw, 6),
        "stride": lambda: draw.randint(1, 3),
        "padding": lambda: a_padding(draw),
        "dilation": lambda: draw.randint(1, 3),
        "groups": lambda: draw.choice([1, 1, 1, 2, 3]),
        "pool": lambda: draw.choice(["max", "avg", "blur", "aps", "none"]),
        "pool_size": lambda: a_size(draw, draw.choice([3, 6, 40])),
        "pool_stride": lambda: draw.choice([None, None, 1, 2, "2x3"]),
        "pool_padding": lambda: a_padding(draw),
        "pool_ceil_mode": lambda: draw.choice([True, False]),
    }
    cnn = {"channels": [draw.choice([4, 6, 8]) for _ in blocks]} | {
        key: [a_value() for _ in blocks] if draw.random() < 0.5 else a_value()
        for key, a_value in draws.items()
    }
    if {"none"} == set(cnn["pool"] if isinstance(cnn["pool"], list) else [cnn["pool"]]):
        cnn["pool"] = "max"  # keys that nothing reads are another matter
    return cnn


def some_layers(draw):
    layers = {}
    for number in range(1, draw.randint(2, 5)):
        layers[f"conv{number}"] = {
            "channels": draw.choice([4, 6, 8]),
            "kernel_size": a_size(draw, 6),
            "stride": draw.randint(1, 3),
            "padding": a_padding(draw),
            "dilation": draw.randint(1, 3),
            "groups": draw.choice([1, 1, 1, 2, 3]),
        }
        layers[f"pool{number}"] = {
            "size": a_size(draw, 6),
            "kind": draw.choice(["max", "avg", "blur", "aps"]),
            "stride": draw.choice([None, None, 1, 2, "2x3"]),
            "padding": a_padding(draw),
            "ceil_mode": draw.choice([True, False]),
        }
    return layers


def a_tree(draw):
    """Layers, and some of them in residual layers, which may be in residual layers."""
    layers = {}
    for number in range(1, draw.randint(2, 4)):
        inner = some_layers(draw)
        if draw.random() < 0.5:  # most sums are impossible where each window pads as it likes
            inner = {name: keys | {"padding": "same"} for name, keys in inner.items()}
        if draw.random() < 0.3:
            name = draw.choice(list(inner))
            inner |= {"residual1": {"layers": {name: inner.pop(name)}}}
        shortcut = draw.choice(["identity", "projection"])
        layers[f"residual{number}"] = {"layers": inner, "shortcut": shortcut}
    return some_layers(draw) | layers if draw.random() < 0.5 else layers


CHANGE = r"(\w+)(=| <= )(\S+)(?: in (every block|block \d+|layers? [\w.]+(?: and [\w.]+)*))?"


def advice_of(sentence):
    """Place of what is impossible; ways out, each a list of changes: key, sign, value, where.

    Whether fewer blocks are advised.
    """
    place, _, rest = sentence.partition(": ")
    advised = re.search(r"; try ([^;]*)$", rest)
    assert advised, sentence
    ways = [way for way in re.split(r" or |, ", advised[1]) if way != "fewer blocks"]
    found = [[re.fullmatch(CHANGE, change) for change in way.split(" with ")] for way in ways]
    assert all(all(way) for way in found), sentence
    changes = [[match.groups() for match in way] for way in found]
    return place, changes, "fewer blocks" in sentence


def typed_ways(draw, network, place, changes):
    """The networks that may be typed where `changes` of one way out are followed."""
    for attempt in range(3 if any(sign == " <= " for _, sign, _, _ in changes) else 1):
        networks = [network]
        for key, sign, value, where in changes:
            typed = at_most(draw, key, value) if sign == " <= " and attempt else value
            typed = int(typed) if typed.isdigit() else typed
            networks = [n for before in networks for n in read(before, place, key, typed, where)]
        yield from networks


def read(network, place, key, value, where):
    """How a change may be read: of the block in the sentence, of all where they are alike."""
    if place.startswith("layer "):
        names = re.sub("^layers? ", "", where or place).split(" and ")
        yield functools.reduce(
            lambda n, name: with_value(n, name.split("."), key, value), names, network
        )
        return
    num_blocks, before = len(network["channels"]), network[key]
    values = before if isinstance(before, list) else [before] * num_blocks
    is_one_value = all(each == values[0] for each in values)
    if where == "every block" or (where is None and is_one_value):
        yield network | {key: value}
    if where != "every block":
        block = int(re.search(r"\d+", where or place)[0]) - 1
        yield network | {key: [*values[:block], value, *values[block + 1 :]]}


def with_value(layers, path, key, value):
    """The layers with another value in the one at `path`, as in residual1, conv2."""
    first, *inner = path
    layer = layers[first]
    inside = with_value(layer["layers"], inner, key, value) if inner else value
    changed = {"layers" if inner else key: inside}
    return layers | {first: layer | changed}


def at_most(draw, key, value):
    least = 0 if "padding" in key else 1
    return "x".join(str(draw.randint(least, int(number))) for number in value.split("x"))


@pytest.mark.parametrize(
    "kind", ["cnn", "sequential", pytest.param("tree", marks=pytest.mark.long)]
)
def test_advice_for_an_impossible_network_makes_it_possible(kind):
    draw = random.Random(kind)
    base = compose(f"model={'cnn' if kind == 'cnn' else 'sequential'}")
    a_network = {"cnn": a_cnn, "sequential": some_layers, "tree": a_tree}[kind]

    def refusal(network, size):
        model = network if kind == "cnn" else {"layers": network}
        changed = {"model": base["model"] | model, "data": base["data"] | {"image_size": size}}
        config = check(base | changed)
        try:
            config.plan()
        except InfeasibleGeometry as error:
            return str(error)
        try:
            refuse_unread(config)
        except ConfigError as error:
            return str(error)
        return None

    tried = impossible = 0
    while impossible < COUNT // 2:
        network = a_network(draw)
        size = f"{draw.randint(1, 14)}x{draw.randint(1, 14)}"
        refused = refusal(network, size)
        if refused is None or "; try " not in refused:  # possible, or with keys that nothing reads
            continue
        impossible += 1
        place, ways, is_fewer = advice_of(refused)
        if is_fewer:
            num_blocks = int(re.search(r"\d+", place)[0]) - 1
            fewer = {k: v[:num_blocks] if isinstance(v, list) else v for k, v in network.items()}
            assert "; try " not in (refusal(fewer, size) or "")
        assert ways, refused
        for changes in ways:
            for typed in typed_ways(draw, network, place, changes):
                assert refusal(typed, size) is None, (network, size, refused, typed)
                tried += 1
    assert tried > impossible
