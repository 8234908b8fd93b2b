"""Networks drawn at random over all that a plan can hold, with weights that are no beginner's."""

import random

import torch

from convscape.geometry.kinds import ACTIVATIONS
from convscape.geometry.layers import POOLINGS
from convscape.geometry.window import InfeasibleGeometry
from convscape.models.networks import CNN, MLP, Sequential

CLASSES = [f"class {i}" for i in range(7)]
SIZES = (1, 2, 3, "2x3", "3x1", 5)
PADDINGS = ("valid", "same", "circular", 1, "0x1")


def drawn(seed):
    """A network in eval mode; seeds give other ones, and five in a row each way of making one."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    shape = draw.choice(((1, 16, 14), (3, 16, 14)))
    training = {
        "mean": [0.1 + 0.2 * draw.random() for _ in range(shape[0])],
        "std": [0.2 + 0.2 * draw.random() for _ in range(shape[0])],
        "classes": CLASSES,
    }
    ways = _cnn, _sequential, _residual, _mlp, _cnn
    while True:
        kind, knobs = ways[seed % len(ways)](draw)
        try:
            model = kind(shape, len(CLASSES), training=training, **knobs)
        except InfeasibleGeometry:
            continue
        return _as_if_trained(model)


def _as_if_trained(model):
    """Batch norm with statistics, weights and biases of its own; biases that are not zero."""
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if "running_var" in name or (values.ndim == 1 and name.endswith("weight")):
                values.uniform_(0.5, 2)
            elif values.is_floating_point() and values.ndim == 1:
                values.uniform_(-0.5, 0.5)
    return model.eval()


def _cnn(draw):
    blocks = draw.randint(1, 3)

    def each(*values):
        return [draw.choice(values) for _ in range(blocks)]

    groups = draw.choice((1, 2))
    return CNN, {
        "channels": [draw.choice((2, 4, 6)) * groups for _ in range(blocks)],
        "kernel_size": each(*SIZES),
        "stride": each(1, 1, 2, "1x2"),
        "padding": each(*PADDINGS),
        "dilation": each(1, 1, 2, "2x1"),
        "groups": [1, *([groups] * (blocks - 1))],
        "pool": each(*POOLINGS, "none"),
        "pool_size": each(2, 3, "2x3"),
        "pool_stride": each(1, 2, "2x1"),
        "pool_padding": each("valid", "same", "circular", 1),
        "pool_ceil_mode": each(True, False),
        "batch_norm": draw.random() < 0.5,
        "activation": each(*ACTIVATIONS),
        "dropout": 0.1,
        "head": draw.choice(("flatten", "global_avg", "global_max")),
        "dense": draw.choice(([], [9])),
    }


def _mlp(draw):
    return MLP, {
        "hidden": [draw.randint(3, 20) for _ in range(draw.randint(0, 3))],
        "activation": draw.choice(ACTIVATIONS),
        "batch_norm": draw.random() < 0.5,
    }


def _layer(draw):
    return draw.choice(
        (
            {
                "conv": {
                    "channels": draw.choice((3, 6)),
                    "kernel_size": draw.choice(SIZES),
                    "stride": draw.choice((1, 1, 2)),
                    "padding": draw.choice(PADDINGS),
                    "dilation": draw.choice((1, 1, 2)),
                    "bias": draw.random() < 0.5,
                    "activation": draw.choice(ACTIVATIONS),
                }
            },
            {
                "pool": {
                    "size": draw.choice((2, 3, "3x2")),
                    "kind": draw.choice(list(POOLINGS)),
                    "stride": draw.choice((None, 1, 2)),
                    "padding": draw.choice(("valid", "same", "circular", 1)),
                    "ceil_mode": draw.random() < 0.5,
                }
            },
            "batch_norm",
            {"activation": draw.choice(ACTIVATIONS)},
            {"dropout": 0.3},
        )
    )


def _sequential(draw):
    layers = [_layer(draw) for _ in range(draw.randint(2, 6))]
    layers.append(draw.choice(("flatten", {"global_pool": "avg"}, {"global_pool": "max"})))
    layers.append({"dense": {"units": 11, "bias": draw.random() < 0.5, "activation": "tanh"}})
    return Sequential, {"layers": [*layers, *draw.choice(([], ["batch_norm"]))]}


def _residual(draw):
    def conv(**keys):
        return {"conv": {"padding": "same", "activation": draw.choice(ACTIVATIONS), **keys}}

    inner = draw.choice(([], [{"residual": [conv(channels=6)]}]))
    layers = [
        conv(channels=4),
        {"residual": [conv(channels=4), "batch_norm", conv(channels=4)]},
        {
            "residual": {
                "layers": [conv(channels=6, stride=draw.choice((2, "1x2"))), *inner],
                "shortcut": draw.choice(("identity", "projection")),
                "activation": draw.choice(ACTIVATIONS),
            }
        },
        {"global_pool": "avg"},
        {
            "residual": {
                "layers": [{"dense": 9}],
                "shortcut": draw.choice(("identity", "projection")),
            }
        },
    ]
    return Sequential, {"layers": layers}
