"""What a message advises works: it is taken at its word, and typed."""

import itertools
import random
import re

import pytest

from convscape.api import compose
from convscape.config.check import check
from convscape.geometry.window import InfeasibleGeometry

COUNT = 500  # impossible networks


def a_size(draw, most):
    return draw.choice([draw.randint(1, most), f"{draw.randint(1, most)}x{draw.randint(1, most)}"])


def a_padding(draw):
    return draw.choice(["valid", "valid", "circular", 0, 1, 2, "0x2"])


def a_cnn(draw):
    blocks = range(draw.randint(1, 4))
    return {
        "channels": [draw.choice([4, 6, 8]) for _ in blocks],
        "kernel_size": [a_size(draw, 6) for _ in blocks],
        "stride": [draw.randint(1, 3) for _ in blocks],
        "padding": [a_padding(draw) for _ in blocks],
        "dilation": [draw.randint(1, 3) for _ in blocks],
        "groups": [draw.choice([1, 1, 1, 2, 3]) for _ in blocks],
        "pool": [draw.choice(["max", "avg", "blur", "aps", "none"]) for _ in blocks],
        "pool_size": [a_size(draw, 6) for _ in blocks],
        "pool_stride": [draw.choice([None, None, 1, 2, "2x3"]) for _ in blocks],
        "pool_padding": [a_padding(draw) for _ in blocks],
        "pool_ceil_mode": [draw.choice([True, False]) for _ in blocks],
    }


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


def advice_of(sentence):
    """Place of what is impossible; for each of its faults the pieces of advice: key, sign, value.

    Whether fewer blocks are advised.
    """
    place, _, faults = sentence.partition(": ")
    advice = []
    for one in faults.split("; besides, "):
        advised = re.search(r"; ([^;]*) would$", one)
        assert advised, sentence
        pieces = re.split(r", or |, | or ", advised[1])
        found = [re.fullmatch(r"(\w+)(=| <= )(\S+)", p) for p in pieces if p != "fewer blocks"]
        assert all(found), sentence
        advice.append([match.groups() for match in found])
    return place, advice, "fewer blocks" in sentence


def typed_ways(draw, advice):
    """What to type: for every fault one piece of its advice, in every combination."""
    for way in itertools.product(*advice):
        for _ in range(3 if any(sign == " <= " for _, sign, _ in way) else 1):
            yield {key: at_most(draw, key, v) if sign == " <= " else v for key, sign, v in way}
        yield {key: value for key, _, value in way}


def at_most(draw, key, value):
    least = 0 if "padding" in key else 1
    return "x".join(str(draw.randint(least, int(number))) for number in value.split("x"))


@pytest.mark.parametrize("kind", ["cnn", "sequential"])
def test_advice_for_an_impossible_layer_makes_it_possible(kind):
    draw = random.Random(kind)
    base = compose(f"model={kind}")

    def refusal(network, size):
        model = network if kind == "cnn" else {"layers": network}
        changed = {"model": base["model"] | model, "data": base["data"] | {"image_size": size}}
        try:
            check(base | changed).plan()
        except InfeasibleGeometry as error:
            return str(error)
        return None

    tried = impossible = 0
    while impossible < COUNT // 2:
        network = a_cnn(draw) if kind == "cnn" else some_layers(draw)
        size = f"{draw.randint(1, 14)}x{draw.randint(1, 14)}"
        if (refused := refusal(network, size)) is None:
            continue
        impossible += 1
        place, advice, is_fewer = advice_of(refused)
        if is_fewer:
            num_blocks = int(re.search(r"\d+", place)[0]) - 1
            fewer = {key: values[:num_blocks] for key, values in network.items()}
            assert refusal(fewer, size) is None
        for typed in typed_ways(draw, advice):
            after = refusal(changed_at(place, network, typed), size)
            assert after is None or after.partition(":")[0] != place, (refused, typed, after)
            tried += 1
    assert tried > COUNT


def changed_at(place, network, typed):
    """The network with the values that were typed for one of its blocks or layers."""
    values = {key: int(value) if value.isdigit() else value for key, value in typed.items()}
    if place.startswith("layer "):
        name = place.removeprefix("layer ")
        return network | {name: network[name] | values}
    block = int(re.search(r"\d+", place)[0]) - 1
    lists = {k: [*network[k][:block], v, *network[k][block + 1 :]] for k, v in values.items()}
    return network | lists
