"""Convolution and pooling modules with every padding mode at every stride, and their builder.

All modules take images of shape (N, C, H, W). SAME padding is TensorFlow's, see
`geometry.same_padding`; if it is equal on both sides, torch's own padding does it for free.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscape import geometry
from convscape.base.errors import ConfigError
from convscape.geometry.plan import LayerPlan, Plan
from convscape.geometry.window import Pair


class Conv2d(nn.Conv2d):
    """torch.nn.Conv2d with SAME padding at every stride, dilation and kernel size.

    - `conv`: out_channels, kernel_size, stride, padding, dilation, groups and bias.
    """

    def __init__(self, in_channels: int, conv: geometry.Conv) -> None:
        super().__init__(
            in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding if isinstance(conv.padding, tuple) else 0,
            conv.dilation,
            conv.groups,
            conv.bias,
        )
        self.windows = conv.windows
        self.is_circular = conv.padding == "circular"

    def forward(self, images: Tensor) -> Tensor:
        """Cross-correlate images (N, C, H, W) with the kernels: (N, out_channels, H', W')."""
        images, padding = _pad(images, self.windows, 0.0, self.is_circular)
        return _convolve(
            images, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


class MaxPool2d(nn.Module):
    """Maximum per window; padding counts as minus infinity."""

    def __init__(self, pool: geometry.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.windows = pool.windows

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        pool = self.pool
        images, padding = _pad(images, self.windows, float("-inf"), pool.padding == "circular")
        return F.max_pool2d(
            images, pool.kernel_size, pool.stride, padding, ceil_mode=pool.ceil_mode
        )


class AvgPool2d(nn.Module):
    """Mean per window over pixels of the image; padding counts in neither sum nor divisor."""

    def __init__(self, pool: geometry.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.windows = pool.windows

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        pool = self.pool
        is_circular = pool.padding == "circular"
        padded, padding = _pad(images, self.windows, 0.0, is_circular)

        def mean(values: Tensor) -> Tensor:
            return F.avg_pool2d(
                values,
                pool.kernel_size,
                pool.stride,
                padding,
                ceil_mode=pool.ceil_mode,
                count_include_pad=False,
            )

        if padded is images or is_circular:
            return mean(padded)
        inside, _ = _pad(torch.ones_like(images[:1, :1]), self.windows, 0.0)
        return mean(padded) / mean(inside)


class BlurPool2d(nn.Module):
    """Maximum at every position, then a binomial blur at the stride; padding counts as 0.

    The blur removes what the stride would alias (Zhang 2019, https://arxiv.org/abs/1904.11486).
    """

    kernel: Tensor

    def __init__(self, pool: geometry.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.windows = pool.windows
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        assert len(row) == geometry.BLUR_SIZE
        self.register_buffer("kernel", torch.outer(row, row)[None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        maxima = _maxima(images, self.pool, self.windows)
        channels = images.shape[1]
        kernel = self.kernel.expand(channels, -1, -1, -1)
        return _convolve(maxima, kernel, stride=self.pool.stride, groups=channels)


class PolyphasePool2d(nn.Module):
    """Maximum at every position, then for each image the strided grid with the largest norm.

    The chosen grid moves with the image, so a shift changes no value: exactly so if padding is
    circular and the size a multiple of the stride (Chaman and Dokmanic 2021,
    https://arxiv.org/abs/2011.14214).
    """

    def __init__(self, pool: geometry.Pool) -> None:
        super().__init__()
        self.pool = pool
        self.windows = pool.windows

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H', W')."""
        maxima, chosen = self.choose(images)
        down, along = self.pool.stride
        num, channels, height, width = maxima.shape
        rows = torch.arange(height // down, device=images.device) * down
        columns = torch.arange(width // along, device=images.device) * along
        firsts = torch.arange(num, device=images.device) * height * width
        places = (firsts + chosen // along * width + chosen % along).view(-1, 1, 1)
        places = places + rows.view(-1, 1) * width + columns
        # one gather of whole pixels: channels_last keeps their channels together
        pixels = maxima.permute(0, 2, 3, 1).reshape(-1, channels)
        kept = pixels.index_select(0, places.flatten())
        return kept.view(num, height // down, width // along, channels).permute(0, 3, 1, 2)

    def choose(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The maximum at every position (N, C, H, W), and for each image its grid (N,).

        Grids are counted along the rows: the second starts one column further on.
        """
        down, along = self.pool.stride
        maxima = _maxima(images, self.pool, self.windows)
        height, width = maxima.shape[2] // down * down, maxima.shape[3] // along * along
        # in 64 bits: the sum must not depend on a value's position; Apple's GPUs have only 32
        exact = torch.float64 if images.device.type in ("cpu", "cuda") else torch.float32
        norms = [
            maxima[:, :, top:height:down, left:width:along].to(exact).square().sum((1, 2, 3))
            for top in range(down)
            for left in range(along)
        ]
        return maxima, torch.stack(norms, 1).argmax(1)


def _maxima(
    images: Tensor, pool: geometry.Pool, windows: tuple[geometry.Window, geometry.Window]
) -> Tensor:
    """The padded images' maximum under the window at every position."""
    images, (down, along) = _pad(images, windows, 0.0, pool.padding == "circular")
    images = F.pad(images, (along, along, down, down))
    return F.max_pool2d(images, pool.kernel_size, stride=1)


class _SingleValueBatchNorm:
    """Batch norm that treats a batch with one value per channel as in evaluation.

    A single value has no deviation, and torch refuses to train on it: the last batch of an epoch
    may have only one image.
    """

    def forward(self: Any, values: Tensor) -> Tensor:
        """(N, C, ...) -> (N, C, ...)."""
        if not self.training or values.numel() > values.shape[1]:
            return super().forward(values)  # type: ignore[misc]
        return F.batch_norm(
            values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class BatchNorm1d(_SingleValueBatchNorm, nn.BatchNorm1d):
    """Normalises (N, C) per feature."""


class BatchNorm2d(_SingleValueBatchNorm, nn.BatchNorm2d):
    """Normalises (N, C, H, W) per channel."""


class GlobalPool(nn.Module):
    """Mean or maximum over all positions."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C)."""
        pixels = images.permute(0, 2, 3, 1)  # so that the gradient has the layout of the images
        return pixels.mean((1, 2)) if self.kind == "avg" else pixels.amax((1, 2))


class Residual(nn.Module):
    """The sum of branches, which all get the input; one without modules passes it through.

    Their modules are registered on this one, so `network.residual1.conv1` exists.
    """

    def __init__(self, *branches: nn.Sequential) -> None:
        super().__init__()
        for branch in branches:
            for name, module in branch.named_children():
                self.add_module(name, module)
        self.branches = [[name for name, _ in branch.named_children()] for branch in branches]

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C', H', W'), or of (N, C)."""
        outputs = []
        for names in self.branches:
            values = images
            for name in names:
                values = getattr(self, name)(values)
            outputs.append(values)
        first, *others = outputs
        return sum(others, first)


class Subsample(nn.Module):
    """Every position at a stride, with channels of zeros appended."""

    def __init__(self, stride: Pair, num_zeros: int) -> None:
        super().__init__()
        self.stride, self.num_zeros = stride, num_zeros

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + num_zeros, H', W'), or of (N, C)."""
        if images.ndim == 2:
            return F.pad(images, (0, self.num_zeros))
        down, along = self.stride
        # sliced with the channels last, so that the gradient has them last too
        pixels = images.permute(0, 2, 3, 1)[:, ::down, ::along]
        return F.pad(pixels, (0, self.num_zeros)).permute(0, 3, 1, 2)


def _convolve(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """F.conv2d; in fp32 where torch's bf16 backward pass takes twenty times as long on the CPU."""
    is_depthwise = 1 < groups == images.shape[1]
    if is_depthwise and max(stride) > 1 and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            images = images.float()
            return F.conv2d(images, weight, bias, stride, padding, dilation, groups)
    return F.conv2d(images, weight, bias, stride, padding, dilation, groups)


def _pad(
    images: Tensor,
    windows: tuple[geometry.Window, geometry.Window],
    value: float,
    is_circular: bool = False,
) -> tuple[Tensor, Pair]:
    """The padded images, and the padding left to torch: all of it if both sides get the same."""
    top, bottom = geometry.pad_amounts(images.shape[2], windows[0])
    left, right = geometry.pad_amounts(images.shape[3], windows[1])
    if is_circular:
        return _wrapped(_wrapped(images, 2, top, bottom), 3, left, right), (0, 0)
    if (top, left) == (bottom, right):
        return images, (top, left)
    return F.pad(images, (left, right, top, bottom), value=value), (0, 0)


def _wrapped(images: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Images padded along an axis with the pixels from its other end."""
    # F.pad would undo channels_last, so would an empty part, and so would the gradient of a slice
    pixels, axis = images.permute(0, 2, 3, 1), axis - 1
    first = [pixels.narrow(axis, pixels.shape[axis] - before, before)] if before else []
    last = [pixels.narrow(axis, 0, after)] if after else []
    if not first and not last:
        return images
    return torch.cat((*first, pixels, *last), axis).permute(0, 3, 1, 2)


# one module for each of `geometry.POOLINGS`
POOLS: dict[str, Callable[[geometry.Pool], nn.Module]] = {
    "max": MaxPool2d,
    "avg": AvgPool2d,
    "blur": BlurPool2d,
    "aps": PolyphasePool2d,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
# one for each of `geometry.LAYER_KINDS`: from a layer and its input shape to a module; a layer made
# of layers also gets the modules of its branches
MODULES: dict[type[geometry.Layer], Callable[..., nn.Module]] = {
    geometry.Conv: lambda conv, shape: Conv2d(shape[0], conv),
    geometry.Pool: lambda pool, shape: _pool(pool),
    geometry.GlobalPool: lambda pool, shape: GlobalPool(pool.kind),
    geometry.Flatten: lambda flatten, shape: nn.Flatten(),
    geometry.Dense: lambda dense, shape: nn.Linear(shape[0], dense.out_features, dense.bias),
    geometry.BatchNorm: lambda norm, shape: (BatchNorm2d if len(shape) == 3 else BatchNorm1d)(
        shape[0]
    ),
    geometry.Activation: lambda activation, shape: ACTIVATIONS[activation.name](),
    geometry.Dropout: lambda dropout, shape: nn.Dropout(dropout.p),
    geometry.Residual: lambda residual, shape, *branches: Residual(*branches),
    geometry.Subsample: lambda layer, shape: Subsample(layer.stride, layer.num_zeros),
}


def _pool(pool: geometry.Pool) -> nn.Module:
    if pool.kind not in POOLS:
        raise ConfigError(
            f"pool={pool.kind} has no module; give it one in "
            f"convscape.models.modules.POOLS[{pool.kind!r}], see docs/extending.md"
        )
    return POOLS[pool.kind](pool)


def build_network(plan: Plan, init: str = "default") -> nn.Sequential:
    """The modules of a planned network; "block1.conv" becomes `network.block1.conv`.

    Max pooling runs before the ReLU that it follows, which changes no number: either order gives
    the largest value of a window, or 0. ReLU then has a quarter of the values to process.
    """
    network = _in_a_row(plan.layers)
    initialize(network, init)
    return network


def _in_a_row(rows: Iterable[LayerPlan], within: str = "") -> nn.Sequential:
    """The modules of the layers in sequence, under their names `within` another layer."""
    stages: OrderedDict[str, OrderedDict[str, nn.Module]] = OrderedDict()
    for row in rows:
        stage, _, part = row.name.removeprefix(within).partition(".")
        if type(row.layer) not in MODULES:
            name = type(row.layer).__name__
            raise ConfigError(
                f"layer {row.name}: {name} has no module; give it one in "
                f"convscape.models.modules.MODULES[{name}], see docs/extending.md"
            )
        branches = [_in_a_row(branch, f"{row.name}.") for branch in row.branches]
        module = MODULES[type(row.layer)](row.layer, row.input_shape, *branches)
        stages.setdefault(stage, OrderedDict())[part] = module
    return _pooling_first(
        OrderedDict(
            (stage, parts[""] if "" in parts else _pooling_first(parts))
            for stage, parts in stages.items()
        )
    )


def _pooling_first(parts: OrderedDict[str, nn.Module]) -> nn.Sequential:
    """The parts in sequence, with each ReLU moved after the max pooling that follows it."""
    row = list(parts.items())
    for place in range(len(row) - 1):
        first, second = row[place][1], row[place + 1][1]
        if isinstance(first, nn.ReLU | nn.LeakyReLU) and isinstance(second, MaxPool2d):
            row[place : place + 2] = row[place + 1], row[place]
    return nn.Sequential(OrderedDict(row))


def freeze_first_layer(network: nn.Module, filters: Tensor | None = None) -> None:
    """Keep the first convolution as it is, or as `filters` (out, h, w), while the rest learns.

    - `filters`: used for every input channel alike; the bias is then 0.
    """
    conv = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    if filters is not None:
        with torch.no_grad():
            conv.weight.copy_((filters / conv.weight.shape[1] ** 0.5)[:, None])
            if conv.bias is not None:
                conv.bias.zero_()
    conv.requires_grad_(False)


def initialize(network: nn.Module, init: str) -> None:
    """Fill the weights of conv and dense layers; all except torch's default zero the biases.

    - "default": as torch.nn does.
    - "glorot_uniform": Keras' default, https://proceedings.mlr.press/v9/glorot10a.html
    - "kaiming_normal": https://arxiv.org/abs/1502.01852, for ReLU.
    - "dirac": each convolution begins as the identity; dense layers as "default".
    """
    if init == "default":
        return
    for module in network.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if init == "dirac":
            if isinstance(module, nn.Linear):
                continue
            nn.init.dirac_(module.weight, module.groups)
        elif init == "glorot_uniform":
            nn.init.xavier_uniform_(module.weight)
        elif init == "kaiming_normal":
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            raise ValueError(
                f"init={init!r}; allowed: default, glorot_uniform, kaiming_normal, dirac"
            )
        if module.bias is not None:
            nn.init.zeros_(module.bias)
