"""From the keys of a CNN or an MLP to its list of layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict

from convscape.base.values import counted
from convscape.geometry.kinds import NamedLayer
from convscape.geometry.layers import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Pool,
)
from convscape.geometry.window import OutputLayer, parse_padding, parse_size

# One value for all blocks, or one per block; a size is 3 or "3x5" (height x width).
Sizes = int | str | Sequence[int | str]
OptionalSizes = int | str | Sequence[int | str | None] | None
Words = str | Sequence[str]
Flags = bool | Sequence[bool]


def per_block(key: str, value: Any, num_blocks: int) -> list[Any]:
    """One value for each block, from one value for all or a list with one per block.

    Raises:
        ValueError: if a list does not have one value for each block.
    """
    if not isinstance(value, list | tuple):
        return [value] * num_blocks
    if len(value) != num_blocks:
        raise ValueError(
            f"{key}={list(value)} has {counted(len(value), 'entry', 'entries')} for "
            f"{counted(num_blocks, 'block')} (channels has {num_blocks}); allowed: one value for "
            f"all, or {counted(num_blocks, 'value')} in a list"
        )
    return list(value)


class CNNKnobs(TypedDict, total=False):
    """What shapes the blocks and the head of a CNN, besides `channels`; see conf/model/cnn.yaml."""

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int | Sequence[int]
    pool: Words
    pool_size: Sizes
    pool_stride: OptionalSizes
    pool_padding: Sizes
    pool_ceil_mode: Flags
    batch_norm: Flags
    activation: Words
    dropout: float | Sequence[float]
    head: Literal["flatten", "global_avg", "global_max"]
    dense: Sequence[int]
    dense_dropout: float
    output_layer: OutputLayer


def cnn_layers(
    num_classes: int,
    *,
    channels: Sequence[int],
    kernel_size: Sizes = 3,
    stride: Sizes = 1,
    padding: Sizes = "valid",
    dilation: Sizes = 1,
    groups: int | Sequence[int] = 1,
    pool: Words = "max",
    pool_size: Sizes = 2,
    pool_stride: OptionalSizes = None,
    pool_padding: Sizes = "valid",
    pool_ceil_mode: Flags = False,
    batch_norm: Flags = False,
    activation: Words = "relu",
    dropout: float | Sequence[float] = 0.0,
    head: Literal["flatten", "global_avg", "global_max"] = "flatten",
    dense: Sequence[int] = (),
    dense_dropout: float = 0.0,
    output_layer: OutputLayer = "dense",
) -> list[NamedLayer]:
    """Layers of a CNN: blocks of conv, batch norm, activation, pool, dropout; head; dense layers.

    Every setting of a block is one value for all blocks or a list with one per block.

    Raises:
        ValueError: if a list has the wrong length or a size does not parse.
    """
    knobs: dict[str, Any] = {
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
        bias=not knob["batch_norm"],  # batch norm has its own bias
    )
    layers = [NamedLayer(f"{block}.conv", conv)]
    if knob["batch_norm"]:
        layers.append(NamedLayer(f"{block}.batch_norm", BatchNorm()))
    if knob["activation"] != "none":
        layers.append(NamedLayer(f"{block}.activation", Activation(knob["activation"])))
    if knob["pool"] != "none":
        pool_size, pool_stride = parse_size(knob["pool_size"]), knob["pool_stride"]
        pool = Pool(
            knob["pool"],
            pool_size,
            pool_size if pool_stride is None else parse_size(pool_stride),
            parse_padding(knob["pool_padding"]),
            knob["pool_ceil_mode"],
            has_own_stride=pool_stride is not None,
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
