"""The arithmetic of sliding windows, and the layer-by-layer plan of a network. Needs no torch.

A network is a list of named layers (`Conv`, `Pool`, `Dense`, ...); each knows its keys, its output
shape, its cost and its words. `cnn_layers` and `mlp_layers` write that list from a config;
`plan_layers` goes through it and gives each layer's output shape, parameters, MACs and receptive
field, or raises `InfeasibleGeometry`. A layer may contain layers; a plan is then a tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from math import prod
from typing import TYPE_CHECKING

from convscape.base import notebook
from convscape.base.terminal import format_table
from convscape.geometry.kinds import Layer
from convscape.geometry.layers import Flatten
from convscape.geometry.remedies import either, ways_out
from convscape.geometry.window import (
    InfeasibleGeometry,
    Pair,
    Shape,
    as_pair,
    by,
    format_size,
    pad_amounts,
)

if TYPE_CHECKING:
    from convscape.geometry.kinds import NamedLayer
    from convscape.geometry.window import Window


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
            as_pair(self.size[a] + (windows[a].extent - 1) * self.stride[a] for a in axes),
            as_pair(self.stride[a] * windows[a].stride for a in axes),
            as_pair(self.padding[a] + pads_before[a] * self.stride[a] for a in axes),
        )

    @classmethod
    def of_all(cls, fields: Sequence[Field]) -> Field:
        """The smallest field that contains all of these; they have the same stride."""
        axes = range(2)
        padding = as_pair(max(field.padding[a] for field in fields) for a in axes)
        ends = [max(field.size[a] - field.padding[a] for field in fields) for a in axes]
        return cls(as_pair(ends[a] + padding[a] for a in axes), fields[0].stride, padding)


@dataclass(frozen=True)
class LayerPlan:
    """One row of the layer table; shapes are (C, H, W) or (features,).

    - `num_parameters`, `macs`: its own, without those of the layers in it.
    - `branches`: rows of the parallel branches in it; the first is that of its `parts`.
    """

    name: str
    layer: Layer
    input_shape: Shape
    output_shape: Shape
    num_parameters: int
    macs: int
    field: Field
    branches: tuple[tuple[LayerPlan, ...], ...] = ()

    @property
    def has_window(self) -> bool:
        """Whether a window slides in it."""
        rows = [row for branch in self.branches for row in branch]
        return self.layer.windows is not None or any(row.has_window for row in rows)


@dataclass(frozen=True, repr=False)
class Plan:
    """What a network will be: its layers in order, and remarks on what is legal but odd.

    - `layers`: the top level only; `all_layers` also has the layers in layers.
    """

    input_shape: Shape
    layers: tuple[LayerPlan, ...]
    remarks: tuple[str, ...] = ()

    @property
    def all_layers(self) -> list[LayerPlan]:
        """Each layer, followed by those in it."""
        return [row for _, row in self.tree]

    @property
    def tree(self) -> list[tuple[int, LayerPlan]]:
        """All layers, each with its depth in the tree."""
        return [(depth, row) for depth, _, row in _walk(self.layers)]

    @cached_property
    def num_parameters(self) -> int:
        """Trainable parameters: weights and biases."""
        return sum(row.num_parameters for row in self.all_layers)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the layers for one image, without biases."""
        return sum(row.macs for row in self.all_layers)

    @property
    def num_activations(self) -> int:
        """Numbers computed for one image: its pixels, and the outputs of all layers."""
        shapes = [self.input_shape, *(row.output_shape for row in self.all_layers)]
        return sum(prod(shape) for shape in shapes)

    @property
    def stages(self) -> list[LayerPlan]:
        """The last layer of each block, and the hidden dense layers: the shape of the network."""
        last = {row.name.partition(".")[0]: row for row in self.layers}
        last.pop("output", None)
        return [
            row
            for stage, row in last.items()
            if row.name != stage or not (row.layer.takes == "any" or isinstance(row.layer, Flatten))
        ]

    @property
    def receptive_field(self) -> Pair:
        """Pixels (H, W) that a unit of the last sliding window sees; without one, the image."""
        fields = [row.field for row in self.layers if row.has_window]
        return fields[-1].size if fields else as_pair(self.input_shape[1:])

    def rows(self) -> list[tuple[str, ...]]:
        """The layer table: a header, a row per layer, the total; layers in layers are indented."""
        header = ("layer", "what", "output", "parameters", "MACs", "receptive field")
        rows = [
            (
                "  " * depth + name,
                row.layer.describe(),
                "x".join(map(str, row.output_shape)),
                f"{row.num_parameters:,}" if row.num_parameters else "",
                f"{row.macs:,}" if row.macs else "",
                format_size(row.field.size),
            )
            for depth, name, row in _walk(self.layers)
        ]
        total = ("total", "", "", f"{self.num_parameters:,}", f"{self.macs:,}", "")
        return [header, *rows, total]

    def __str__(self) -> str:
        return format_table(self.rows(), right_aligned=(3, 4), droppable=(5, 4))

    def __repr__(self) -> str:  # what the Python prompt shows
        return str(self)

    def _repr_html_(self) -> str:
        """The layer table in a notebook."""
        remarks = "".join(f"<p>{escape(remark)}</p>" for remark in self.remarks)
        return f"<div>{notebook.table(self.rows(), right_aligned=(3, 4))}{remarks}</div>"


def _walk(
    rows: Iterable[LayerPlan], depth: int = 0, within: str = ""
) -> Iterator[tuple[int, str, LayerPlan]]:
    """Each row with its depth in the tree and its full name, followed by the rows in it."""
    for row in rows:
        yield depth, row.name.removeprefix(within), row
        for branch in row.branches:
            yield from _walk(branch, depth + 1, f"{row.name}.")


def plan_layers(
    layers: Iterable[NamedLayer], input_shape: Sequence[int], num_classes: int | None = None
) -> Plan:
    """Shapes, parameters, MACs and receptive fields of `layers` for `input_shape` (C, H, W).

    Raises:
        InfeasibleGeometry: naming the layer, its input and what would work; or if the network does
            not end in one number for each of `num_classes`.
    """
    layers = tuple(layers)
    try:
        rows = _rows(layers, tuple(input_shape), Field(), Field(as_pair(input_shape[1:])))
    except InfeasibleGeometry as error:
        ways = ways_out(layers, input_shape)
        raise InfeasibleGeometry(f"{error}; try {either(ways)}" if ways else str(error)) from None
    shape = rows[-1].output_shape if rows else tuple(input_shape)
    if num_classes is not None and shape != (num_classes,):
        raise InfeasibleGeometry(
            f"without an output layer the network ends in {by(shape)} numbers (layer "
            f"{rows[-1].name}), and the data have {num_classes} classes; try {num_classes} "
            "channels before a global pool or output_layer=dense"
        )
    remarks = tuple(remark for name, layer in layers for remark in layer.remarks(name))
    return Plan(tuple(input_shape), rows, remarks)


def _rows(
    layers: Iterable[NamedLayer], shape: Shape, field: Field, whole: Field, within: str = ""
) -> tuple[LayerPlan, ...]:
    """The plan of consecutive layers whose input has this shape and field.

    - `whole`: the field of a unit that sees the whole image.
    """
    rows = []
    for part, layer in layers:
        name = within + part
        before, shape = shape, layer.output_shape(name, shape)
        branches = tuple(
            _rows(branch, before, field, whole, f"{name}.") for branch in layer.branches(before)
        )
        if branches:
            field = Field.of_all([branch[-1].field if branch else field for branch in branches])
        elif (windows := layer.windows) is not None:
            pads = as_pair(pad_amounts(before[1 + a], windows[a])[0] for a in range(2))
            field = field.behind(windows, pads)
        elif len(shape) < len(before):
            field = whole
        cost = layer.num_parameters(before, shape), layer.macs(before, shape)
        rows.append(LayerPlan(name, layer, before, shape, *cost, field, branches))
    return tuple(rows)
