"""A network as a drawing: a box for each layer's output, as SVG or TikZ.

The height of a box shows the size of the maps and its width the number of channels, both on a
logarithmic scale. Layers that keep the size (activation, normalisation) are named below the layer
that they follow. An arrow past a residual block shows its shortcut.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from convscape.geometry.plan import LayerPlan, Plan

LINE = 13  # pixels from one line of words to the next
LETTER = 5.6  # pixels of an average letter of 10 pixels
GAP = 22
ROW = 1000  # pixels after which a new row starts
MIDDLE = 78  # of a row's boxes, below its top
# Okabe and Ito's colours, lightened, https://jfly.uni-koeln.de/color/
FILLS = {"conv": "9fcbe6", "pool": "f3c9a6", "dense": "9bd8c5"}
PLAIN = "e3e6ea"


@dataclass(frozen=True)
class Box:
    """A layer as it is drawn, with `words` below it."""

    kind: str
    width: float
    height: float
    words: list[str]

    @property
    def slot(self) -> float:
        """The width in pixels of the box and its words."""
        return max([self.width, *(LETTER * len(word) for word in self.words)])


@dataclass(frozen=True)
class Bridge:
    """From the box `start` to the sum at the box `end`, around the boxes in between."""

    start: int
    end: int
    words: str
    depth: int


@dataclass
class _Network:
    boxes: list[Box] = field(default_factory=list)
    bridges: list[Bridge] = field(default_factory=list)

    def add(self, rows: Sequence[LayerPlan], depth: int = 0) -> None:
        for row in rows:
            if row.branches:
                start = len(self.boxes) - 1
                self.add(row.branches[0], depth + 1)
                around = ", ".join(each.layer.describe() for each in row.branches[1])
                self.boxes.append(Box("sum", 16, 16, []))
                self.bridges.append(Bridge(start, len(self.boxes) - 1, around, depth))
            elif not row.macs and row.layer.windows is None and row.layer.takes == "any":
                self.boxes[-1].words.append(row.layer.describe())
            else:
                kind = getattr(row.layer, "kind_name", "")
                words = [*row.layer.describe().split(", "), _shape(row.output_shape)]
                self.boxes.append(_box(kind, row.output_shape, words))


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _box(kind: str, shape: Sequence[int], words: list[str]) -> Box:
    channels, size = shape[0], prod(shape[1:]) ** 0.5
    if len(shape) == 1:
        return Box(kind, 12, 24 + 8 * math.log2(channels), words)
    return Box(kind, 10 + 5 * math.log2(channels), 24 + 15 * math.log2(size), words)


@dataclass(frozen=True)
class _Rectangle:
    x: float
    y: float
    width: float
    height: float
    fill: str


@dataclass(frozen=True)
class _Words:
    x: float
    y: float
    text: str


@dataclass(frozen=True)
class _Arrow:
    points: list[tuple[float, float]]


_Mark = _Rectangle | _Words | _Arrow


def _marks(plan: Plan) -> tuple[list[_Mark], float, float]:
    """What is drawn, and how wide and high it is."""
    network = _Network([_box("input", plan.input_shape, ["input", _shape(plan.input_shape)])])
    network.add(plan.layers)
    boxes = network.boxes
    deepest = max((bridge.depth for bridge in network.bridges), default=-1) + 1
    top = MIDDLE + 22 * deepest
    high = top + 66 + LINE * max(len(box.words) for box in boxes) + GAP
    places: list[tuple[float, float]] = []
    x, y = float(GAP), float(top)
    for number, box in enumerate(boxes):
        if x > GAP and x + _unbroken(network, number) > ROW:
            x, y = GAP, y + high
        places.append((x + box.slot / 2, y))
        x += box.slot + GAP
    marks: list[_Mark] = []
    for (here, y), box in zip(places, boxes, strict=True):
        left, upper = here - box.width / 2, y - box.height / 2
        marks.append(_Rectangle(left, upper, box.width, box.height, FILLS.get(box.kind, PLAIN)))
        if box.kind == "sum":
            marks.append(_Words(here, y + 4, "+"))
        for line, word in enumerate(box.words):
            marks.append(_Words(here, y + 78 + LINE * line, word))
    marks += _arrows(boxes, places)
    for bridge in network.bridges:
        marks += _bridge(bridge, boxes, places, deepest)
    wide = max(here + box.slot / 2 for (here, _), box in zip(places, boxes, strict=True)) + GAP
    return marks, wide, places[-1][1] - top + high


def _unbroken(network: _Network, number: int) -> float:
    """The width in pixels that must fit in one row from this box on; 0 if no row may start here."""
    last = number
    for bridge in network.bridges:
        if bridge.depth == 0 and bridge.start < number <= bridge.end:
            if number > bridge.start + 1:
                return 0
            last = bridge.end
    return sum(box.slot + GAP for box in network.boxes[number : last + 1]) - GAP


def _arrows(boxes: Sequence[Box], places: Sequence[tuple[float, float]]) -> Iterator[_Arrow]:
    """From each box to the next, and around the end of a row."""
    for number in range(len(boxes) - 1):
        (x, y), (to_x, to_y) = places[number], places[number + 1]
        start, end = x + boxes[number].width / 2, to_x - boxes[number + 1].width / 2
        if y == to_y:
            yield _Arrow([(start + 2, y), (end - 2, y)])
        else:
            yield _Arrow([(GAP / 4, to_y), (end - 2, to_y)])
            yield _Arrow([(start + 2, y), (x + boxes[number].slot / 2 + GAP / 2, y)])


def _bridge(
    bridge: Bridge, boxes: Sequence[Box], places: Sequence[tuple[float, float]], deepest: int
) -> Iterator[_Mark]:
    (x, y), (to_x, to_y) = places[bridge.start], places[bridge.end]
    if y == to_y:
        x += boxes[bridge.start].width / 2 + 6
    else:  # the block starts a row
        x = GAP / 2
    up = to_y - MIDDLE - 22 * (deepest - 1 - bridge.depth) + 8
    yield _Arrow([(x, to_y), (x, up), (to_x, up), (to_x, to_y - boxes[bridge.end].height / 2 - 2)])
    if bridge.words:
        yield _Words((x + to_x) / 2, up - 4, bridge.words)


def as_svg(plan: Plan) -> str:
    """The drawing as an SVG file."""
    marks, width, height = _marks(plan)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" font-family="sans-serif" font-size="10">',
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#333"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fff"/>',
    ]
    for mark in marks:
        if isinstance(mark, _Rectangle):
            lines.append(
                f'<rect x="{mark.x:.1f}" y="{mark.y:.1f}" width="{mark.width:.1f}" '
                f'height="{mark.height:.1f}" rx="2" fill="#{mark.fill}" stroke="#333"/>'
            )
        elif isinstance(mark, _Words):
            text = html.escape(mark.text)
            lines.append(
                f'<text x="{mark.x:.1f}" y="{mark.y:.1f}" text-anchor="middle" fill="#222">'
                f"{text}</text>"
            )
        else:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in mark.points)
            lines.append(f'<path d="M{path}" fill="none" stroke="#333" marker-end="url(#tip)"/>')
    return "\n".join([*lines, "</svg>", ""])


def as_tikz(plan: Plan) -> str:
    r"""The drawing as a tikzpicture, for \input; it needs the package tikz."""
    marks, _, _ = _marks(plan)
    lines = [
        r"% needs \usepackage{tikz}; wider than a page: \resizebox{\linewidth}{!}{\input{...}}",
        r"\begin{tikzpicture}[x=0.75pt, y=-0.75pt, font=\sffamily\fontsize{7.5}{9}\selectfont]",
    ]
    for number, color in enumerate([*FILLS.values(), PLAIN]):
        lines.append(rf"\definecolor{{layer{number}}}{{HTML}}{{{color.upper()}}}")
    names = {color: f"layer{number}" for number, color in enumerate([*FILLS.values(), PLAIN])}
    for mark in marks:
        if isinstance(mark, _Rectangle):
            corner = f"({mark.x + mark.width:.1f},{mark.y + mark.height:.1f})"
            lines.append(
                rf"\draw[fill={names[mark.fill]}, rounded corners=1pt] "
                f"({mark.x:.1f},{mark.y:.1f}) rectangle {corner};"
            )
        elif isinstance(mark, _Words):
            text = mark.text.replace("_", r"\_").replace("%", r"\%")
            lines.append(rf"\node[anchor=base] at ({mark.x:.1f},{mark.y:.1f}) {{{text}}};")
        else:
            path = " -- ".join(f"({x:.1f},{y:.1f})" for x, y in mark.points)
            lines.append(rf"\draw[->] {path};")
    return "\n".join([*lines, r"\end{tikzpicture}", ""])
