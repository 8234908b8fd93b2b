"""The arithmetic of sliding windows, and the layer-by-layer plan of a network. Needs no torch.

A network is a list of named layers (`Conv`, `Pool`, `Dense`, ...). `cnn_layers` and `mlp_layers`
write that list from the knobs of a config; `plan_layers` walks it and says for every layer the
output shape, parameters, MACs and receptive field, or raises `InfeasibleGeometry`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from html import escape
from math import gcd, prod
from typing import Any, Literal, NamedTuple, TypedDict, get_args

from convscape.errors import ConfigError

Pair = tuple[int, int]
PoolKind = Literal["max", "avg", "blur", "aps"]
Shape = tuple[int, ...]
NamedPadding = Literal["valid", "same", "circular"]
OutputLayer = Literal["dense", "none"]
Padding = NamedPadding | Pair


class InfeasibleGeometry(ConfigError):
    """A window does not fit its input, or groups do not divide the channels."""


LARGEST = 2**31 - 1  # of every integer in a config: more than any tensor's axis can have
BLUR_SIZE = 3  # of the binomial filter of "blur" pooling

# --- one axis ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pooling window; `padding` as an int means so many each side."""

    kernel_size: int
    stride: int = 1
    padding: int | NamedPadding = "valid"
    dilation: int = 1
    ceil_mode: bool = False

    @property
    def extent(self) -> int:
        """Pixels from the first to the last one that the window reads, both included."""
        return self.dilation * (self.kernel_size - 1) + 1


def same_padding(size: int, window: Window) -> Pair:
    """Padding (before, after) with which `window` gives ceil(size / stride) outputs.

    The odd pixel goes after (bottom, right), as in TensorFlow, Keras and JAX:
    https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2
    """
    outputs = -(-size // window.stride)
    total = max((outputs - 1) * window.stride + window.extent - size, 0)
    return total // 2, total - total // 2


def pad_amounts(size: int, window: Window) -> Pair:
    """Padding (before, after) in pixels along an axis of `size` pixels.

    "circular" is as much as "same", filled with what is at the other end.
    """
    if window.padding in ("same", "circular"):
        return same_padding(size, window)
    amount = 0 if isinstance(window.padding, str) else window.padding
    return amount, amount


def output_size(size: int, window: Window) -> int:
    """Outputs along one axis after sliding `window` over `size` pixels.

    Floor rounding as torch.nn.Conv2d; with `ceil_mode` as torch.nn.MaxPool2d, whose last window
    may reach beyond the padded input, and is dropped if it would start in the padding after it:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    Raises:
        InfeasibleGeometry: if not one window fits.
    """
    outputs = _num_outputs(size, window)
    if outputs < 1:
        raise InfeasibleGeometry(_formula(size, window))
    return outputs


def _num_outputs(size: int, window: Window) -> int:
    before, after = pad_amounts(size, window)
    room = size + before + after - window.extent
    steps = -(-room // window.stride) if window.ceil_mode else room // window.stride
    if window.ceil_mode and steps * window.stride >= size + before:
        steps -= 1
    return steps + 1


def _formula(size: int, window: Window) -> str:
    padding = sum(pad_amounts(size, window))
    padded = f"{size}+{padding}" if padding else f"{size}"
    spread = f"{window.dilation}*({window.kernel_size}-1)-1"
    extent = window.kernel_size if window.dilation == 1 else spread
    rounded = "ceil" if window.ceil_mode else "floor"
    return f"{rounded}(({padded}-{extent})/{window.stride})+1 = {_num_outputs(size, window)}"


# --- layers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Conv:
    """2D convolution (in fact cross-correlation, as in every deep-learning library)."""

    out_channels: int
    kernel_size: Pair
    stride: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Pool:
    """2D pooling; the average leaves padding out of its divisor.

    Two kinds change less when the image is shifted. Both take the maximum at every position;
    "blur" then blurs before it leaves out positions, https://arxiv.org/abs/1904.11486; "aps" keeps,
    of all ways to leave out positions, the one with the largest values,
    https://arxiv.org/abs/2011.14214
    """

    kind: PoolKind
    kernel_size: Pair
    stride: Pair
    padding: Padding = "valid"
    ceil_mode: bool = False


@dataclass(frozen=True)
class GlobalPool:
    """Mean or maximum over all positions: (C, H, W) -> (C,)."""

    kind: Literal["avg", "max"]


@dataclass(frozen=True)
class Flatten:
    """(C, H, W) -> (C * H * W,)."""


@dataclass(frozen=True)
class Dense:
    """Fully connected layer."""

    out_features: int
    bias: bool = True


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation per channel (C, H, W) or per feature (C,)."""


@dataclass(frozen=True)
class Activation:
    """Element-wise nonlinearity by its torch.nn.functional name."""

    name: str


@dataclass(frozen=True)
class Dropout:
    """Element-wise dropout with probability `p`."""

    p: float


Layer = Conv | Pool | GlobalPool | Flatten | Dense | BatchNorm | Activation | Dropout


class NamedLayer(NamedTuple):
    """A layer and where it stands, as in "block1.conv"."""

    name: str
    layer: Layer


# --- from the knobs of a config to layers -----------------------------------------------------


def parse_size(value: Any, minimum: int = 1) -> Pair:
    """Read `3` or `"3x5"` (height x width) as a pair.

    Raises:
        ValueError: if it is neither, or an entry is below `minimum`.
    """
    parts = value.lower().split("x") if isinstance(value, str) else [value]
    try:
        numbers = [int(part) if isinstance(part, str) else part for part in parts]
    except ValueError:
        numbers = []
    if not all(type(number) is int for number in numbers) or len(numbers) not in (1, 2):
        raise ValueError(f"{value!r} is not a size; allowed: an integer or HxW, such as 3 or 3x5")
    if min(numbers) < minimum:
        raise ValueError(f"{value!r} is too small; allowed: {minimum} or more")
    if max(numbers) > LARGEST:
        raise ValueError(f"{value!r} is too large; allowed: up to {LARGEST}")
    return numbers[0], numbers[-1]


def parse_padding(value: Any) -> Padding:
    """Read `valid`, `same`, `circular`, `1` or `"0x2"` (pixels on each side, height x width).

    Raises:
        ValueError: if it is none of these.
    """
    for name in get_args(NamedPadding):
        if isinstance(value, str) and value.lower() == name:
            return name
    try:
        return parse_size(value, minimum=0)
    except ValueError:
        raise ValueError(
            f"{value!r} is not a padding; allowed: valid, same, circular, an integer of 0 or more, "
            "or HxW such as 0x2"
        ) from None


def format_size(size: Pair) -> str:
    """`3x3` and `3x5` as a person writes them: `3`, `3x5`."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def format_padding(padding: Padding) -> str:
    """`valid`, `same`, `1` or `0x2`."""
    return padding if isinstance(padding, str) else format_size(padding)


def per_block(key: str, value: Any, num_blocks: int) -> list[Any]:
    """One value for each block, from one value for all or a list with one per block.

    Raises:
        ValueError: if a list has another length than the network has blocks.
    """
    if not isinstance(value, list | tuple):
        return [value] * num_blocks
    if len(value) != num_blocks:
        raise ValueError(
            f"{key}={list(value)} has {len(value)} entries for {num_blocks} blocks "
            f"(channels has {num_blocks}); allowed: one value for all, or {num_blocks} values"
        )
    return list(value)


class CNNKnobs(TypedDict, total=False):
    """What shapes the blocks and the head of a CNN, beside `channels`; see conf/model/cnn.yaml.

    A size is 3 or "3x5" (height x width); a list gives one value per block.
    """

    kernel_size: int | str | list[int | str]
    stride: int | str | list[int | str]
    padding: int | str | list[int | str]
    dilation: int | str | list[int | str]
    groups: int | list[int]
    pool: str | list[str]
    pool_size: int | str | list[int | str]
    pool_stride: int | str | list[int | str | None] | None
    pool_padding: int | str | list[int | str]
    pool_ceil_mode: bool | list[bool]
    batch_norm: bool | list[bool]
    activation: str | list[str]
    dropout: float | list[float]
    head: Literal["flatten", "global_avg", "global_max"]
    dense: Sequence[int]
    dense_dropout: float
    output_layer: OutputLayer


def cnn_layers(
    num_classes: int,
    *,
    channels: Sequence[int],
    kernel_size: Any = 3,
    stride: Any = 1,
    padding: Any = "valid",
    dilation: Any = 1,
    groups: Any = 1,
    pool: Any = "max",
    pool_size: Any = 2,
    pool_stride: Any = None,
    pool_padding: Any = "valid",
    pool_ceil_mode: Any = False,
    batch_norm: Any = False,
    activation: Any = "relu",
    dropout: Any = 0.0,
    head: Literal["flatten", "global_avg", "global_max"] = "flatten",
    dense: Sequence[int] = (),
    dense_dropout: float = 0.0,
    output_layer: OutputLayer = "dense",
) -> list[NamedLayer]:
    """Layers of a CNN: blocks of conv, batch norm, activation, pool, dropout; head; dense layers.

    Every knob of a block is one value for all blocks or a list with one per block.

    Raises:
        ValueError: if a list has the wrong length or a size does not parse.
    """
    knobs = {
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "pool": pool,
        "pool_size": pool_size,
        "pool_stride": pool_stride,
        "pool_padding": pool_padding,
        "pool_ceil_mode": pool_ceil_mode,
        "batch_norm": batch_norm,
        "activation": activation,
        "dropout": dropout,
    }
    columns = {key: per_block(key, value, len(channels)) for key, value in knobs.items()}
    layers: list[NamedLayer] = []
    for index, out_channels in enumerate(channels):
        knob = {key: column[index] for key, column in columns.items()}
        layers += _block_layers(f"block{index + 1}", out_channels, knob)
    if head == "flatten":
        layers.append(NamedLayer("flatten", Flatten()))
    else:
        layers.append(NamedLayer("head", GlobalPool("avg" if head == "global_avg" else "max")))
    dense_activation = columns["activation"][-1]
    layers += _dense_layers("dense", dense, False, dense_activation, dense_dropout)
    if output_layer == "dense":
        layers.append(NamedLayer("output", Dense(num_classes)))
    return layers


def _block_layers(block: str, out_channels: int, knob: dict[str, Any]) -> list[NamedLayer]:
    conv = Conv(
        out_channels,
        parse_size(knob["kernel_size"]),
        parse_size(knob["stride"]),
        parse_padding(knob["padding"]),
        parse_size(knob["dilation"]),
        knob["groups"],
        bias=not knob["batch_norm"],  # batch norm has its own shift
    )
    layers = [NamedLayer(f"{block}.conv", conv)]
    if knob["batch_norm"]:
        layers.append(NamedLayer(f"{block}.batch_norm", BatchNorm()))
    if knob["activation"] != "none":
        layers.append(NamedLayer(f"{block}.activation", Activation(knob["activation"])))
    if knob["pool"] != "none":
        pool_size = parse_size(knob["pool_size"])
        pool = Pool(
            knob["pool"],
            pool_size,
            pool_size if knob["pool_stride"] is None else parse_size(knob["pool_stride"]),
            parse_padding(knob["pool_padding"]),
            knob["pool_ceil_mode"],
        )
        layers.append(NamedLayer(f"{block}.pool", pool))
    if knob["dropout"]:
        layers.append(NamedLayer(f"{block}.dropout", Dropout(knob["dropout"])))
    return layers


def mlp_layers(
    num_classes: int,
    *,
    hidden: Sequence[int],
    activation: str = "relu",
    dropout: float = 0.0,
    batch_norm: bool = False,
) -> list[NamedLayer]:
    """Layers of an MLP; without hidden layers it is softmax regression."""
    layers = [NamedLayer("flatten", Flatten())]
    layers += _dense_layers("hidden", hidden, batch_norm, activation, dropout)
    return [*layers, NamedLayer("output", Dense(num_classes))]


def _dense_layers(
    prefix: str, widths: Sequence[int], batch_norm: bool, activation: str, dropout: float
) -> list[NamedLayer]:
    layers: list[NamedLayer] = []
    for index, width in enumerate(widths):
        name = f"{prefix}{index + 1}"
        layers.append(NamedLayer(f"{name}.dense", Dense(width, bias=not batch_norm)))
        if batch_norm:
            layers.append(NamedLayer(f"{name}.batch_norm", BatchNorm()))
        if activation != "none":
            layers.append(NamedLayer(f"{name}.activation", Activation(activation)))
        if dropout:
            layers.append(NamedLayer(f"{name}.dropout", Dropout(dropout)))
    return layers


# --- the plan ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """What one unit of a layer sees of the input, per axis (H, W).

    Unit u looks at the pixels around -padding + u * stride + (size - 1) / 2; the recursion is that
    of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks",
    Distill 2019, https://distill.pub/2019/computing-receptive-fields/
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)

    def behind(self, windows: tuple[Window, Window], pads_before: Pair) -> Field:
        """The field of a unit of the layer that slides `windows` over this one's output."""
        axes = range(2)
        return Field(
            _pair(self.size[a] + (windows[a].extent - 1) * self.stride[a] for a in axes),
            _pair(self.stride[a] * windows[a].stride for a in axes),
            _pair(self.padding[a] + pads_before[a] * self.stride[a] for a in axes),
        )


@dataclass(frozen=True)
class LayerPlan:
    """One row of the layer table; shapes are (C, H, W) or (features,)."""

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    num_parameters: int
    macs: int
    field: Field


@dataclass(frozen=True, repr=False)
class Plan:
    """What a network will be: its layers in order, and remarks on what is legal but odd."""

    input_shape: Shape
    layers: tuple[LayerPlan, ...]
    remarks: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        """Trainable numbers: weights and biases."""
        return sum(row.num_parameters for row in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the conv and dense layers for one image, biases not counted."""
        return sum(row.macs for row in self.layers)

    @property
    def num_activations(self) -> int:
        """Numbers that come up for one image: its own, and the outputs of all layers."""
        shapes = [self.input_shape, *(row.output_shape for row in self.layers)]
        return sum(prod(shape) for shape in shapes)

    @property
    def stages(self) -> list[LayerPlan]:
        """The last layer of each block, and the hidden dense layers: the shape of the network."""
        last = {row.name.partition(".")[0]: row for row in self.layers}
        last.pop("output", None)
        unshaped = Flatten | BatchNorm | Activation | Dropout
        return [
            row
            for stage, row in last.items()
            if row.name != stage or not isinstance(row.layer, unshaped)
        ]

    @property
    def receptive_field(self) -> Pair:
        """Pixels (H, W) that a unit of the last conv or pool layer sees; without one, the image."""
        fields = [row.field for row in self.layers if isinstance(row.layer, Conv | Pool)]
        return fields[-1].size if fields else _pair(self.input_shape[1:])

    def rows(self) -> list[tuple[str, ...]]:
        """The layer table: a header, a row per layer, the total."""
        header = ("layer", "what", "output", "parameters", "MACs", "receptive field")
        rows = [
            (
                row.name,
                describe_layer(row.layer),
                "x".join(map(str, row.output_shape)),
                f"{row.num_parameters:,}" if row.num_parameters else "",
                f"{row.macs:,}" if row.macs else "",
                format_size(row.field.size),
            )
            for row in self.layers
        ]
        total = ("total", "", "", f"{self.num_parameters:,}", f"{self.macs:,}", "")
        return [header, *rows, total]

    def __str__(self) -> str:
        return format_table(self.rows(), right_aligned=(3, 4))

    def __repr__(self) -> str:  # what a Python prompt shows
        return str(self)

    def _repr_html_(self) -> str:
        """The layer table in a notebook."""
        header, *rows = self.rows()
        head = _cells("th", header)
        body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        return f"<div>{table}{remarks}</div>"


def _cells(tag: str, row: Sequence[str]) -> str:
    """Words to the left; notebooks set everything to the right."""
    sides = ("left", "left", "left", "right", "right", "left")
    pairs = zip(row, sides, strict=True)
    return "".join(
        f'<{tag} style="text-align:{side}">{escape(cell)}</{tag}>' for cell, side in pairs
    )


def plan_layers(
    layers: Iterable[NamedLayer], input_shape: Sequence[int], num_classes: int | None = None
) -> Plan:
    """Walk `layers` from `input_shape` (C, H, W): shapes, parameters, MACs, receptive fields.

    Raises:
        InfeasibleGeometry: naming the layer, its input and what would work; or if the network does
            not end in a number for each of `num_classes`.
    """
    shape: Shape = tuple(input_shape)
    field, whole = Field(), Field(_pair(input_shape[1:]))
    rows: list[LayerPlan] = []
    remarks: list[str] = []
    for name, layer in layers:
        before = shape
        num_parameters = macs = 0
        match layer:
            case Conv() | Pool():
                windows = layer_windows(layer)
                sizes = _output_sizes(name, layer, before)
                pads = _pair(pad_amounts(before[1 + a], windows[a])[0] for a in range(2))
                field = field.behind(windows, pads)
                remarks += _unread_pixels(name, windows)
                if isinstance(layer, Conv):
                    weights = layer.out_channels * before[0] // layer.groups
                    weights *= prod(layer.kernel_size)
                    num_parameters = weights + layer.out_channels * layer.bias
                    macs = weights * prod(sizes)
                    shape = (layer.out_channels, *sizes)
                else:
                    shape = (before[0], *sizes)
            case GlobalPool():
                shape, field = (before[0],), whole
            case Flatten():
                shape, field = (prod(before),), whole
            case Dense():
                macs = before[0] * layer.out_features
                num_parameters = macs + layer.out_features * layer.bias
                shape = (layer.out_features,)
            case BatchNorm():
                num_parameters = 2 * before[0]
        rows.append(LayerPlan(name, layer, before, shape, num_parameters, macs, field))
    if num_classes is not None and shape != (num_classes,):
        raise InfeasibleGeometry(
            f"without an output layer the network ends in {_by(shape)} numbers (layer "
            f"{rows[-1].name}), and the data have {num_classes} classes; {num_classes} channels "
            "before a global pool, or output_layer=dense would fit"
        )
    return Plan(tuple(input_shape), tuple(rows), tuple(remarks))


def layer_windows(layer: Conv | Pool) -> tuple[Window, Window]:
    """The windows of a layer along height and width."""

    def along(axis: int) -> Window:
        padding = layer.padding if isinstance(layer.padding, str) else layer.padding[axis]
        size = layer.kernel_size[axis]
        if isinstance(layer, Pool) and layer.kind == "blur":
            size += BLUR_SIZE - 1
        elif isinstance(layer, Pool) and layer.kind == "aps":
            size += layer.stride[axis] - 1
        return Window(
            size,
            layer.stride[axis],
            padding,
            layer.dilation[axis] if isinstance(layer, Conv) else 1,
            isinstance(layer, Pool) and layer.kind in ("max", "avg") and layer.ceil_mode,
        )

    return along(0), along(1)


def _output_sizes(name: str, layer: Conv | Pool, shape: Shape) -> Pair:
    """What (H, W) a layer makes of an input (C, H, W).

    Raises:
        InfeasibleGeometry: one sentence: which window does not fit which input, why, what would.
    """
    size, is_of_block = _pair(shape[1:]), _is_of_block(name)
    wrong_groups = _wrong_groups(layer, shape[0]) if isinstance(layer, Conv) else None
    faults = [wrong_groups] if wrong_groups else []
    try:
        sizes = _pair(_axis_output(layer, size, axis, is_of_block) for axis in range(2))
    except InfeasibleGeometry as error:
        remedies = list(_remedies(layer, size, is_of_block))
        if is_of_block and not name.startswith("block1."):
            remedies.append("fewer blocks")
        faults.append(f"{error}; {_either(remedies)} would" if remedies else str(error))
    if faults:
        raise InfeasibleGeometry(f"{_place(name)}: {'; besides, '.join(faults)}")
    return sizes


def _axis_output(layer: Conv | Pool, size: Pair, axis: int, is_of_block: bool) -> int:
    window = layer_windows(layer)[axis]
    padding = format_padding(layer.padding)
    match _fault(layer, window, size[axis]):
        case None:
            return _num_outputs(size[axis], window)
        case "half":
            raise InfeasibleGeometry(
                f"{'pool_' * is_of_block}padding {padding} is more than half of its "
                f"{_by(layer.kernel_size)} window, which could then hold padding alone"
            )
        case "circular":
            raise InfeasibleGeometry(
                f"circular padding of a {_by(layer.kernel_size)} window goes around its "
                f"{_by(size)} input more than once"
            )
    padding = padding if isinstance(layer.padding, str) else f"padding {padding}"
    raise InfeasibleGeometry(
        f"a {_window_in_words(layer)} does not fit its {_by(size)} input "
        f"({padding}: {_formula(size[axis], window)})"
    )


def _fault(
    layer: Conv | Pool, window: Window, size: int
) -> Literal["half", "circular", "window"] | None:
    """What is wrong with one `window` of `layer` on `size` pixels, as torch would refuse it."""
    explicit = 0 if isinstance(window.padding, str) else window.padding
    if isinstance(layer, Pool) and 2 * explicit > window.kernel_size:
        return "half"
    if window.padding == "circular" and max(pad_amounts(size, window)) > size:
        return "circular"
    return "window" if _num_outputs(size, window) < 1 else None


def _window_in_words(layer: Conv | Pool) -> str:
    what = f"{layer.kind} pool" if isinstance(layer, Pool) else "kernel"
    stride = f" at stride {format_size(layer.stride)}" if max(layer.stride) > 1 else ""
    dilation = layer.dilation if isinstance(layer, Conv) else (1, 1)
    spread = f", dilation {format_size(dilation)}" if max(dilation) > 1 else ""
    return f"{_by(layer.kernel_size)} {what}{stride}{spread}"


@lru_cache(maxsize=4096)  # many runs of a sweep have the same misfit
def _remedies(layer: Conv | Pool, size: Pair, is_of_block: bool) -> tuple[str, ...]:
    """Changes of one key with which an impossible layer is possible; each of them was tried."""
    prefix = "pool_" if is_of_block and isinstance(layer, Pool) else ""
    found = []
    if (largest := _largest_size(layer, size)) is not None:
        key = "kernel_size" if isinstance(layer, Conv) else f"{prefix}size"
        sign = " <= " if _fits(_resized(layer, (1, 1)), size) else "="
        found.append(f"{key}{sign}{format_size(largest)}")
    changes: list[tuple[str, Conv | Pool]] = []
    if isinstance(layer, Conv):
        changes.append(("dilation=1", replace(layer, dilation=(1, 1))))
    else:
        if isinstance(layer.padding, tuple):
            windows, given = layer_windows(layer), layer.padding
            most = _pair(min(given[a], windows[a].kernel_size // 2) for a in range(2))
            sign = " <= " if _fits([replace(layer, padding=(0, 0))], size) else "="
            words = f"{prefix}padding{sign}{format_size(most)}"
            changes.append((words, replace(layer, padding=most)))
        changes.append((f"{'pool' if is_of_block else 'kind'}=max", replace(layer, kind="max")))
    changes.append((f"{prefix}stride=1", replace(layer, stride=(1, 1))))
    changes.append((f"{prefix}padding=same", replace(layer, padding="same")))
    found += [words for words, changed in changes if _fits([changed], size)]
    if isinstance(layer, Pool):
        found.append("pool=none" if is_of_block else "kind=none")
    return tuple(found)


def _largest_size(layer: Conv | Pool, size: Pair) -> Pair | None:
    """The largest window that fits; where its padding asks for a larger one, the smallest."""
    largest = list(layer.kernel_size)
    for axis, window in enumerate(layer_windows(layer)):
        wider = window.kernel_size - layer.kernel_size[axis]  # than what is typed: "blur", "aps"
        padding = window.padding if isinstance(window.padding, int) else 0
        fits, too_large = max(1, 2 * padding - wider), layer.kernel_size[axis] + 1
        while fits < too_large - 1:
            largest[axis] = (fits + too_large) // 2
            if _fits(_resized(layer, _pair(largest)), size, [axis]):
                fits = largest[axis]
            else:
                too_large = largest[axis]
        largest[axis] = fits
    return _pair(largest) if _fits(_resized(layer, _pair(largest)), size) else None


def _resized(layer: Conv | Pool, kernel_size: Pair) -> list[Conv | Pool]:
    """The layer with another window; its stride follows, if null was typed."""
    resized: list[Conv | Pool] = [replace(layer, kernel_size=kernel_size)]
    if isinstance(layer, Pool) and layer.stride == layer.kernel_size:
        resized.append(replace(layer, kernel_size=kernel_size, stride=kernel_size))
    return resized


def _fits(layers: Iterable[Conv | Pool], size: Pair, axes: Sequence[int] = (0, 1)) -> bool:
    return all(
        _fault(layer, layer_windows(layer)[axis], size[axis]) is None
        for layer in layers
        for axis in axes
    )


def _wrong_groups(layer: Conv, in_channels: int) -> str | None:
    if not (in_channels % layer.groups or layer.out_channels % layer.groups):
        return None
    most = gcd(in_channels, layer.out_channels)
    return (
        f"groups={layer.groups} must divide its {in_channels} input channels and its "
        f"{layer.out_channels} output channels; groups={most}{' or groups=1' * (most > 1)} would"
    )


def _unread_pixels(name: str, windows: tuple[Window, Window]) -> list[str]:
    if all(window.stride <= window.extent for window in windows):
        return []
    return [f"{_place(name)}: the stride is larger than the window, some pixels are never read"]


# --- as text ----------------------------------------------------------------------------------


def describe_layer(layer: Layer) -> str:
    """A layer in a few words, as in "conv 3x3, stride 2, same"."""
    match layer:
        case Conv() | Pool():
            what = "conv" if isinstance(layer, Conv) else f"{layer.kind} pool"
            words = [f"{what} {_by(layer.kernel_size)}"]
            default_stride = (1, 1) if isinstance(layer, Conv) else layer.kernel_size
            if layer.stride != default_stride:
                words.append(f"stride {format_size(layer.stride)}")
            if layer.padding != "valid":
                padding = format_padding(layer.padding)
                words.append(padding if isinstance(layer.padding, str) else f"padding {padding}")
            if isinstance(layer, Conv) and layer.dilation != (1, 1):
                words.append(f"dilation {format_size(layer.dilation)}")
            if isinstance(layer, Conv) and layer.groups > 1:
                words.append(f"{layer.groups} groups")
            return ", ".join(words)
        case GlobalPool():
            return f"global {layer.kind} pool"
        case Dense():
            return "dense"
        case Activation():
            return layer.name
        case Dropout():
            return f"dropout {layer.p:g}"
        case BatchNorm():
            return "batch norm"
        case Flatten():
            return "flatten"


def format_table(rows: Sequence[Sequence[str]], right_aligned: Sequence[int] = ()) -> str:
    """Columns of text, the first row underlined; a line break in a cell is a space."""
    rows = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if index in right_aligned else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def _pair(values: Iterable[int]) -> Pair:
    first, second = values
    return first, second


def _by(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _is_of_block(name: str) -> bool:
    """Whether it is block3.pool, whose keys are pool_size and the like, and not pool3."""
    return name.startswith("block")


def _place(name: str) -> str:
    """As a person says it: block3.conv is "block 3", block3.pool is "block 3 pool"."""
    block, _, part = name.partition(".")
    words = f"block {block.removeprefix('block')}" if _is_of_block(name) else f"layer {block}"
    return words if part in ("", "conv") else f"{words} {part}"


def _either(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])}, or {choices[-1]}"
