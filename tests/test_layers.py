import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from convscape import geometry
from convscape.geometry.networks import cnn_layers
from convscape.geometry.plan import plan_layers
from convscape.geometry.window import InfeasibleGeometry
from convscape.models import modules
from convscape.models.modules import (
    AvgPool2d,
    Conv2d,
    GlobalPool,
    MaxPool2d,
    build_network,
    initialize,
)

sizes = st.tuples(st.integers(1, 4), st.integers(1, 4))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
explicit = st.tuples(st.integers(0, 2), st.integers(0, 2))
images_of = st.tuples(st.integers(1, 12), st.integers(1, 12))
some = settings(max_examples=150)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_amounts(size, kernel, stride, dilation):
    """TensorFlow's formula as its documentation of tf.nn writes it, by the remainder."""
    reach = (kernel - 1) * dilation + 1
    needed = reach - stride if size % stride == 0 else reach - size % stride
    needed = max(needed, 0)
    return needed // 2, needed - needed // 2


def windows_by_hand(image, kernel, stride, dilation, pads, fill):
    """Every window of an image (C, H, W) as (H', W', C, kernel), by plain loops."""
    (top, bottom), (left, right) = pads
    channels, height, width = image.shape
    padded = torch.full((channels, height + top + bottom, width + left + right), fill).double()
    padded[:, top : top + height, left : left + width] = image
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    rows = range(0, padded.shape[1] - reach[0] + 1, stride[0])
    columns = range(0, padded.shape[2] - reach[1] + 1, stride[1])
    return [
        [padded[:, r : r + reach[0] : dilation[0], c : c + reach[1] : dilation[1]] for c in columns]
        for r in rows
    ]


@some
@given(
    images_of,
    sizes,
    strides,
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.integers(0, 99),
)
def test_same_convolution_is_the_sum_over_tensorflows_windows(
    size, kernel, stride, dilation, groups, bias, seed
):
    layer = Conv2d(4, geometry.Conv(6, kernel, stride, "same", dilation, groups, bias)).double()
    image = draw(seed, 4, *size)
    pads = [same_amounts(*axis) for axis in zip(size, kernel, stride, dilation, strict=True)]
    windows = windows_by_hand(image, kernel, stride, dilation, pads, 0.0)
    answer = layer(image[None])[0]
    assert answer.shape == (6, -(-size[0] // stride[0]), -(-size[1] // stride[1]))
    for r, row in enumerate(windows):
        for c, window in enumerate(row):
            for out in range(6):
                group = slice(4 // groups * (out * groups // 6), None)
                mine = window[group][: 4 // groups]
                expected = (mine * layer.weight[out]).sum() + (layer.bias[out] if bias else 0)
                torch.testing.assert_close(answer[out, r, c], expected)


@some
@given(images_of, sizes, strides, explicit, st.tuples(*[st.integers(1, 3)] * 2), st.integers(0, 99))
def test_explicit_convolution_is_torchs(size, kernel, stride, padding, dilation, seed):
    theirs = nn.Conv2d(3, 2, kernel, stride, padding, dilation).double()
    ours = Conv2d(3, geometry.Conv(2, kernel, stride, padding, dilation)).double()
    ours.load_state_dict(theirs.state_dict())
    images = draw(seed, 2, 3, *size)
    try:
        expected = theirs(images)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            ours(images)
    else:
        torch.testing.assert_close(ours(images), expected)


@some
@given(images_of, sizes, strides, st.sampled_from(["max", "avg"]), st.integers(0, 99))
def test_same_pooling_leaves_padding_out(size, kernel, stride, kind, seed):
    layer = (MaxPool2d if kind == "max" else AvgPool2d)(geometry.Pool(kind, kernel, stride, "same"))
    image = draw(seed, 2, *size)
    pads = [same_amounts(*axis, 1) for axis in zip(size, kernel, stride, strict=True)]
    windows = windows_by_hand(image, kernel, stride, (1, 1), pads, float("nan"))
    answer = layer(image[None])[0]
    for r, row in enumerate(windows):
        for c, window in enumerate(row):
            inside = window.flatten(1)
            if kind == "max":
                expected = inside.nan_to_num(nan=-torch.inf).amax(1)
            else:
                expected = inside.nanmean(1)
            torch.testing.assert_close(answer[:, r, c], expected)


@some
@given(images_of, sizes, strides, explicit, st.booleans(), st.sampled_from(["max", "avg"]))
def test_explicit_pooling_is_torchs(size, kernel, stride, padding, ceil_mode, kind):
    padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    pool = geometry.Pool(kind, kernel, stride, padding, ceil_mode)
    images = draw(0, 2, 3, *size)
    layer = MaxPool2d(pool) if kind == "max" else AvgPool2d(pool)
    try:
        if kind == "max":
            expected = F.max_pool2d(images, kernel, stride, padding, ceil_mode=ceil_mode)
        else:
            expected = F.avg_pool2d(images, kernel, stride, padding, ceil_mode, False)
    except RuntimeError:
        with pytest.raises(RuntimeError):
            layer(images)
    else:
        torch.testing.assert_close(layer(images), expected)


def test_same_is_not_a_symmetric_padding_at_stride_two():
    """The first row that TensorFlow gives for a ramp; padding=1 would give 18 36 48 60."""
    layer = Conv2d(1, geometry.Conv(1, (3, 3), (2, 2), "same", bias=False))
    nn.init.ones_(layer.weight)
    ramp = torch.arange(64.0).view(1, 1, 8, 8)
    assert layer(ramp)[0, 0, 0].tolist() == [81, 99, 117, 87]


def test_a_convolution_is_a_cross_correlation():
    layer = Conv2d(1, geometry.Conv(1, (3, 3), padding="same", bias=False))
    impulse = torch.zeros(1, 1, 3, 3)
    impulse[0, 0, 1, 1] = 1
    torch.testing.assert_close(layer(impulse)[0, 0], layer.weight[0, 0].flip(0, 1))


def test_global_pools_reduce_all_positions():
    images = draw(0, 2, 3, 4, 5)
    torch.testing.assert_close(GlobalPool("avg")(images), images.mean((2, 3)))
    torch.testing.assert_close(GlobalPool("max")(images), images.flatten(2).max(2).values)


def build(init="default", **knobs):
    torch.manual_seed(0)
    plan = plan_layers(cnn_layers(10, **{"channels": [8, 8], **knobs}), (8, 28, 28))
    return build_network(plan, init)


def test_layers_are_found_under_the_names_of_the_table():
    network = build(batch_norm=True, dropout=0.1, dense=[5])
    assert isinstance(network.block2.conv, Conv2d)
    assert isinstance(network.dense1.activation, nn.ReLU)
    assert isinstance(network.output, nn.Linear)


def test_batch_norm_takes_the_place_of_the_bias():
    assert build(batch_norm=True).block1.conv.bias is None
    assert build().block1.conv.bias is not None


def test_glorot_uniform_has_keras_bounds():
    """Limit = sqrt(6 / (fan_in + fan_out)), with 3*3*8 weights in and out."""
    weight = build("glorot_uniform").block1.conv.weight
    limit = (6 / (72 + 72)) ** 0.5
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.95 * limit


def test_kaiming_normal_has_the_deviation_of_relu():
    weight = build("kaiming_normal", channels=[64]).block1.conv.weight
    assert weight.std().item() == pytest.approx((2 / 72) ** 0.5, rel=0.05)


def test_dirac_begins_as_the_identity():
    network = build("dirac", padding="same", pool="none", activation="none")
    images = torch.rand(1, 8, 28, 28)
    torch.testing.assert_close(network.block2(network.block1(images)), images)


@pytest.mark.parametrize("init", ["glorot_uniform", "kaiming_normal"])
def test_biases_begin_at_zero(init):
    network = build(init)
    assert not network.output.bias.any()
    assert not network.block1.conv.bias.any()


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(ValueError, match="allowed: default, glorot_uniform"):
        initialize(build(), "glorot")


def test_what_the_plan_refuses_torch_refuses_too():
    layers = cnn_layers(10, channels=[4, 4], kernel_size=9)
    with pytest.raises(InfeasibleGeometry):
        plan_layers(layers, (1, 16, 16))
    first = nn.Conv2d(1, 4, 9)
    with pytest.raises(RuntimeError):
        nn.Conv2d(4, 4, 9)(F.max_pool2d(first(torch.zeros(1, 1, 16, 16)), 2))


@given(
    st.integers(4, 12), st.integers(4, 12), st.integers(1, 3), st.integers(1, 3),
    st.sampled_from(["valid", "same", "circular"]), st.sampled_from(["max", "avg", "blur", "aps"]),
)  # fmt: skip
def test_every_pool_gives_the_shape_of_its_plan(height, width, size, stride, padding, kind):
    pool = geometry.Pool(kind, (size, size), (stride, stride), padding)
    named = [geometry.NamedLayer("pool", pool)]
    try:
        plan = geometry.plan_layers(named, (2, height, width))
    except InfeasibleGeometry:
        assume(False)
    assert modules.POOLS[kind](pool)(torch.rand(1, 2, height, width)).shape[1:] == torch.Size(
        plan.layers[0].output_shape
    )


def test_circular_convolution_is_torchs_and_moves_with_the_image():
    conv = modules.Conv2d(2, geometry.Conv(3, (3, 5), padding="circular")).double()
    torchs = nn.Conv2d(2, 3, (3, 5), padding=(1, 2), padding_mode="circular").double()
    torchs.load_state_dict(conv.state_dict())
    images = draw(0, 2, 2, 9, 8)
    torch.testing.assert_close(conv(images), torchs(images))
    moved = conv(images.roll((4, -3), (2, 3)))
    torch.testing.assert_close(moved, conv(images).roll((4, -3), (2, 3)))


@pytest.mark.parametrize("padding", ["same", "circular"])
@pytest.mark.parametrize("size", [(2, 2), (3, 3)])
def test_padding_leaves_the_memory_format(padding, size):
    images = torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last)
    pool = MaxPool2d(geometry.Pool("max", size, (1, 1), padding))
    assert pool(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "layer",
    [
        geometry.Conv(4, (3, 3), padding="same"),
        geometry.Conv(4, (3, 3), padding="circular"),
        geometry.Conv(4, (3, 3), (2, 2), padding="same"),
        geometry.Conv(4, (3, 3), padding="1x0"),
        *(geometry.Pool(kind, (2, 2), (2, 2)) for kind in geometry.POOLINGS),
        *(geometry.Pool(kind, (3, 3), (2, 2), "same") for kind in ("max", "avg")),
        *(geometry.GlobalPool(kind) for kind in ("avg", "max")),
        geometry.Subsample((2, 2), 4),
        geometry.BatchNorm(),
    ],
    ids=str,
)
def test_gradients_keep_the_memory_format(layer):
    # over two formats, the backward pass of a ReLU takes up to eight times as long
    images = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    outputs = modules.MODULES[type(layer)](layer, tuple(images.shape[1:]))(images * 1)
    if outputs.ndim == 4:
        assert outputs.is_contiguous(memory_format=torch.channels_last)
    (gradient,) = torch.autograd.grad(outputs, images, torch.randn_like(outputs))
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_a_depthwise_convolution_with_a_stride_stays_in_fp32():
    conv = Conv2d(4, geometry.Conv(4, (3, 3), (2, 2), groups=4))
    images = torch.randn(2, 4, 9, 9)
    expected = conv(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(images), expected)


def test_blur_pooling_is_the_blurred_maximum():
    pool = geometry.Pool("blur", (2, 2), (2, 2))
    image = draw(1, 1, 1, 9, 9)
    maxima = np.array(
        [[image[0, 0, y : y + 2, x : x + 2].max() for x in range(8)] for y in range(8)]
    )
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = [
        [(maxima[y : y + 3, x : x + 3] * weights).sum() for x in (0, 2, 4)] for y in (0, 2, 4)
    ]
    found = modules.BlurPool2d(pool).double()(image)[0, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_polyphase_pooling_keeps_the_grid_with_the_largest_norm():
    pool = geometry.Pool("aps", (1, 1), (2, 2))
    image = torch.rand(1, 1, 6, 6)
    image[0, 0, 1::2, ::2] += 5
    kept = modules.PolyphasePool2d(pool)(image)
    torch.testing.assert_close(kept, image[:, :, 1::2, ::2])


@pytest.mark.parametrize("stride", [(2, 2), (2, 3), (3, 1)])
def test_polyphase_pooling_chooses_for_each_image(stride):
    images = draw(2, 5, 3, 9, 11).to(memory_format=torch.channels_last)
    kept = modules.PolyphasePool2d(geometry.Pool("aps", (1, 1), stride))(images)
    down, along = stride
    height, width = 9 // down * down, 11 // along * along
    for image, found in zip(images, kept, strict=True):
        grids = [
            image[:, top:height:down, left:width:along]
            for top in range(down)
            for left in range(along)
        ]
        assert torch.equal(found, max(grids, key=lambda grid: float(grid.square().sum())))
    assert kept.is_contiguous(memory_format=torch.channels_last)


def test_a_frozen_first_layer_is_what_was_asked_for():
    from convscape.drawing.kernels import designed_filters
    from convscape.models.networks import CNN

    designed = CNN((3, 12, 12), 10, channels=[40, 8], kernel_size=[5, 3], first_layer="designed")
    first, second = designed.network.block1.conv, designed.network.block2.conv
    assert not first.weight.requires_grad
    assert second.weight.requires_grad
    filters = designed_filters(40, (5, 5))
    np.testing.assert_allclose(first.weight.sum(1).numpy(), filters * 3**0.5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(filters, axis=(1, 2)), 1, atol=1e-9)
    np.testing.assert_allclose(filters[1:].sum((1, 2)), 0, atol=1e-9)  # all but the blur
    correlations = np.corrcoef(filters.reshape(40, -1))
    assert (correlations - np.eye(40)).max() < 0.999  # no filter twice
    random = CNN((1, 12, 12), 10, channels=[4], first_layer="random")
    assert not random.network.block1.conv.weight.requires_grad


@pytest.mark.parametrize("pool", ["max", "avg", "blur", "aps"])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", [8, 9, 10, 11])
def test_every_pool_gives_the_size_that_was_planned(pool, ceil_mode, size):
    knobs = {"channels": [2], "pool": pool, "pool_size": 3, "pool_stride": 2}
    plan = geometry.plan_layers(
        geometry.cnn_layers(10, pool_ceil_mode=ceil_mode, **knobs), (1, size, size)
    )
    assert build_network(plan)(torch.zeros(1, 1, size, size)).shape == (1, 10)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 1), (5, 3, 2)])
def test_batch_norm_is_torchs_and_takes_a_single_image(shape):
    is_flat = len(shape) == 1
    ours = (modules.BatchNorm1d if is_flat else modules.BatchNorm2d)(5)
    theirs = (nn.BatchNorm1d if is_flat else nn.BatchNorm2d)(5)
    for seed in range(2):
        images = draw(seed, 4, *shape).float()
        torch.testing.assert_close(ours(images), theirs(images))
    image = draw(2, 1, *shape).float()
    if image.numel() == 5:  # where torch gives up
        theirs.eval()
    torch.testing.assert_close(ours(image), theirs(image))


def test_polyphase_pooling_sums_in_32_bits_where_a_device_has_no_others():
    """Such as Apple's; torch's device without values stands for it."""

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            answer = function(*arguments, **(options or {}))
            assert getattr(answer, "dtype", None) != torch.float64, function
            return answer

    pool = modules.PolyphasePool2d(geometry.Pool("aps", (2, 2), (2, 2)))
    with Watch():
        assert pool(torch.zeros(1, 2, 8, 8, device="meta")).shape == (1, 2, 3, 3)
