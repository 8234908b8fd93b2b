import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from convscape.geometry.kinds import NamedLayer
from convscape.geometry.layers import Activation, Conv, Flatten, Pool
from convscape.geometry.networks import cnn_layers, mlp_layers
from convscape.geometry.plan import plan_layers
from convscape.geometry.window import (
    InfeasibleGeometry,
    Window,
    output_size,
    parse_padding,
    parse_size,
    same_padding,
)


def cnn_plan(shape=(1, 28, 28), **knobs):
    return plan_layers(cnn_layers(10, **{"channels": [32, 64], **knobs}), shape)


# From TensorFlow's tf.nn.conv2d: input, kernel, stride -> outputs, padding before, after.
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "outputs", "before", "after"),
    [
        (28, 3, 2, 14, 0, 1),
        (28, 5, 2, 14, 1, 2),
        (7, 3, 2, 4, 1, 1),
        (224, 7, 2, 112, 2, 3),
        (13, 6, 5, 3, 1, 2),
        (28, 4, 1, 28, 1, 2),
        (7, 2, 3, 3, 0, 1),
    ],
)
def test_same_padding_is_tensorflows(size, kernel, stride, outputs, before, after):
    window = Window(kernel, stride, "same")
    assert same_padding(size, window) == (before, after)
    assert output_size(size, window) == outputs


def sizes_of_torch(function, size, *arguments, **options):
    """What torch makes of an image without values; None where it refuses."""
    try:
        return function(torch.empty(1, 1, size, size, device="meta"), *arguments, **options).shape[
            2
        ]
    except RuntimeError:
        return None


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 9),
    stride=st.integers(1, 5),
    padding=st.integers(0, 4),
    dilation=st.integers(1, 4),
)
def test_output_size_is_that_of_torchs_convolution(size, kernel, stride, padding, dilation):
    weight = torch.empty(1, 1, kernel, kernel, device="meta")
    truth = sizes_of_torch(
        F.conv2d, size, weight, stride=stride, padding=padding, dilation=dilation
    )
    window = Window(kernel, stride, padding, dilation)
    if truth is None:
        with pytest.raises(InfeasibleGeometry):
            output_size(size, window)
    else:
        assert output_size(size, window) == truth


def test_pooling_has_torchs_sizes_and_refusals():
    """Also where, with ceil_mode, one window is larger than the padded input: 2 pixels by 3."""
    draw = np.random.default_rng(0)
    num_refused = num_larger = 0
    for _ in range(800):
        (height, width), kernel, stride = (tuple(draw.integers(1, 9, 2).tolist()) for _ in range(3))
        padding = tuple(draw.integers(0, 5, 2).tolist())
        ceil_mode, kind = bool(draw.integers(4)), draw.choice(["max", "avg"])
        function = F.max_pool2d if kind == "max" else F.avg_pool2d
        pool = Pool(str(kind), kernel, stride, padding, ceil_mode)
        try:
            images = torch.zeros(1, 1, height, width)
            truth = function(images, kernel, stride, padding, ceil_mode=ceil_mode).shape[1:]
        except RuntimeError:
            truth = None
            num_refused += 1
        try:
            planned = plan_layers([NamedLayer("pool1", pool)], (1, height, width))
        except InfeasibleGeometry:
            assert truth is None, pool
        else:
            assert planned.layers[0].output_shape == truth, pool
            num_larger += height + 2 * padding[0] < kernel[0]
    assert num_refused > 100
    assert num_larger > 20


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_ceil_mode_changes_nothing_where_padding_is_same(size, stride):
    for kernel in range(1, 8):
        rounded_up = Window(kernel, stride, "same", ceil_mode=True)
        assert output_size(size, rounded_up) == -(-size // stride)


def test_the_textbook_cnn_has_its_numbers():
    plan = cnn_plan()
    assert (plan.num_parameters, plan.macs, plan.receptive_field) == (34_826, 2_440_960, (10, 10))


def test_the_textbook_mlp_has_its_number():
    assert plan_layers(mlp_layers(10, hidden=[512, 512]), (1, 28, 28)).num_parameters == 669_706


def test_lenet5_sees_32_pixels():
    plan = cnn_plan((1, 32, 32), channels=[6, 16, 120], kernel_size=5, pool=["avg", "avg", "none"])
    assert plan.receptive_field == (32, 32)


def test_vgg16_has_the_published_receptive_field():
    """Receptive field 212, effective stride 32, effective padding 90: Araujo et al. 2019."""
    channels = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    pools = ["none", "max"] * 2 + ["none", "none", "max"] * 3
    plan = cnn_plan((3, 224, 224), channels=channels, padding=1, pool=pools)
    field = plan.stages[-1].field
    assert (field.size, field.stride, field.padding) == ((212, 212), (32, 32), (90, 90))


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
window_layers = st.one_of(
    st.builds(
        Conv,
        st.just(1),
        pairs,
        pairs,
        st.sampled_from(["valid", "same", (1, 0), (0, 2)]),
        st.tuples(st.integers(1, 2), st.integers(1, 2)),
    ),
    st.builds(Pool, st.just("avg"), pairs, pairs, st.sampled_from(["valid", "same"])),
)


@settings(max_examples=60)
@given(st.lists(window_layers, min_size=1, max_size=3))
def test_the_receptive_field_is_where_a_unit_gradient_arrives(layers):
    """All weights one: the pixels with a gradient are those that the unit sees."""
    from convscape.models.modules import build_network

    side = 60
    named = [NamedLayer(f"layer{i}", layer) for i, layer in enumerate(layers)]
    try:
        plan = plan_layers(named, (1, side, side))
    except InfeasibleGeometry:
        assume(False)
    network = build_network(plan)
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 1.0)
    image = torch.zeros(1, 1, side, side, requires_grad=True)
    output = network(image)
    field = plan.layers[-1].field
    middle = [n // 2 for n in output.shape[2:]]
    output[0, 0, middle[0], middle[1]].backward()
    for axis in range(2):
        touched = image.grad[0, 0].abs().sum(1 - axis).nonzero().flatten()
        first = -field.padding[axis] + middle[axis] * field.stride[axis]
        last = first + field.size[axis] - 1
        assert touched[0] >= max(first, 0)
        assert touched[-1] <= min(last, side - 1)
        gaps = any(
            layer.stride[axis] > layer.kernel_size[axis]
            or (isinstance(layer, Conv) and layer.dilation[axis] > 1)
            for layer in layers
        )
        at_border = first < 0 or last >= side
        if not gaps and not at_border:
            assert (touched[0], touched[-1]) == (first, last)


@settings(max_examples=40)
@given(
    channels=st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=3),
    groups=st.sampled_from([1, 2]),
    batch_norm=st.booleans(),
    dense=st.lists(st.integers(1, 20), max_size=2),
    head=st.sampled_from(["flatten", "global_avg", "global_max"]),
    ceil=st.booleans(),
)
def test_the_plan_has_the_parameters_and_shapes_of_the_network(
    channels, groups, batch_norm, dense, head, ceil
):
    from convscape.models.modules import build_network

    plan = cnn_plan(
        (2, 21, 18),
        channels=channels,
        groups=groups,
        batch_norm=batch_norm,
        dense=dense,
        head=head,
        pool_ceil_mode=ceil,
        padding="same",
    )
    network = build_network(plan)
    assert plan.num_parameters == sum(p.numel() for p in network.parameters())
    shapes = {}
    for name, module in network.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, __, y, name=name: shapes.update({name: tuple(y.shape[1:])})
            )
    network.eval()(torch.zeros(1, 2, 21, 18))
    expected = {row.name: row.output_shape for row in plan.layers}
    assert shapes.keys() == expected.keys()
    # a max pool goes before the activation, which then sees fewer values
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith("activation")}
    assert shapes.items() <= expected.items()


def test_the_macs_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    from convscape.models.modules import build_network

    plan = cnn_plan((3, 32, 30), groups=[1, 4], kernel_size="3x5", stride=[1, "2x1"], dense=[20])
    with FlopCounterMode(display=False) as counter:
        build_network(plan)(torch.zeros(1, 3, 32, 30))
    assert plan.macs == counter.get_total_flops() // 2


def test_a_misfit_names_the_layer_the_numbers_and_the_ways_out():
    with pytest.raises(InfeasibleGeometry) as error:
        cnn_plan(channels=[8, 8, 8], kernel_size=[3, 3, 7], pool=["max", "max", "none"])
    assert str(error.value) == (
        "block 3: a 7x7 kernel does not fit its 5x5 input (valid: floor((5-7)/1)+1 = -1); "
        "try kernel_size <= 5, padding=same or fewer blocks"
    )


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"kernel_size": 15, "dilation": 2}, ["block 1: a 15x15 kernel, dilation 2", "2*(15-1)"]),
        ({"kernel_size": [3, "14x3"]}, ["block 2: a 14x3 kernel", "kernel_size <= 12x3"]),
        ({"pool_size": [2, 12]}, ["block 2 pool: a 12x12 max pool", "pool_size <= 11"]),
        ({"pool_padding": 2}, ["block 1 pool", "more than half", "pool_padding <= 1"]),
        ({"groups": 3}, ["block 1: groups=3", "1 input channels"]),
    ],
)
def test_every_kind_of_misfit_is_explained(knobs, words):
    with pytest.raises(InfeasibleGeometry) as error:
        cnn_plan(**knobs)
    assert all(word in str(error.value) for word in words), str(error.value)


@given(
    kernel=st.integers(1, 12),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    size=st.integers(1, 20),
)
def test_the_largest_kernel_that_a_message_offers_does_fit(kernel, stride, dilation, size):
    knobs = {"channels": [2], "stride": stride, "dilation": dilation, "pool": "none"}
    try:
        cnn_plan((1, size, size), kernel_size=kernel, **knobs)
    except InfeasibleGeometry as error:
        offered = int(str(error).partition("kernel_size <= ")[2].split(" or ")[0].split(",")[0])
        cnn_plan((1, size, size), kernel_size=offered, **knobs)
        with pytest.raises(InfeasibleGeometry):
            cnn_plan((1, size, size), kernel_size=offered + 1, **knobs)


def test_pixels_that_are_never_read_are_remarked():
    assert "never read" in cnn_plan(stride=[1, 4]).remarks[0]
    assert cnn_plan().remarks == ()


@pytest.mark.parametrize(("value", "size"), [(3, (3, 3)), ("3", (3, 3)), ("3x5", (3, 5))])
def test_sizes_are_read(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize("value", [0, -1, 3.5, "3.5", "x", "3x", "3x5x7", None, True, [3]])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(ValueError, match="allowed: "):
        parse_size(value)


def test_paddings_are_read():
    assert parse_padding("SAME") == "same"
    assert parse_padding("0x2") == (0, 2)
    with pytest.raises(ValueError, match="allowed: valid, same"):
        parse_padding("sane")


def test_a_list_of_another_length_than_the_blocks_is_refused():
    with pytest.raises(ValueError, match=r"kernel_size=\[3, 5, 7\] has 3 entries for 2 blocks"):
        cnn_layers(10, channels=[8, 8], kernel_size=[3, 5, 7])


def test_a_layer_without_a_window_keeps_the_field():
    plan = plan_layers(
        [NamedLayer("a", Activation("relu")), NamedLayer("flatten", Flatten())], (1, 4, 4)
    )
    assert plan.receptive_field == (4, 4)


def test_the_geometry_and_the_plan_of_a_sweep_need_no_torch():
    code = "import sys, convscape.sweeps.run, convscape.geometry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
