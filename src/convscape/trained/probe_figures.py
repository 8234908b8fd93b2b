"""Figures of arms side by side, or of a single one, seeds pooled: metrics and probes."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convscape.base.files import make_folder, write_atomic
from convscape.config.metrics import Metric
from convscape.drawing import sheets
from convscape.reports.figures import COLORS, DASHES, figure_style, save
from convscape.reports.statistics import estimate

Arms = Mapping[str, Sequence[dict[str, Any]]]  # a probe's answers by arm, one per seed

CAPTIONS = {
    "arms": "Mean of each arm; bars: 95 % interval over seeds.",
    "shift": "Accuracy on shifted images: against the distance, mean of eight directions with its "
    "95 % interval over seeds, and for every shift.",
    "canvas": "Accuracy on the image scaled down and put in a random place.",
    "prune": "Accuracy without the smallest weights; bands: 95 % interval over seeds.",
    "occlude": "Where a grey square makes the true class less probable (orange).",
}
PANEL = 2.6  # inches


def draw_probe(name: str, arms: Arms, folder: Path, within: Path | None = None) -> Path | None:
    """Write `<name>.png` of a probe's answers; None if it has no figure.

    - `within`: the folder that the user named, if `folder` is inside it.
    """
    path = folder / f"{name}.png"
    within = within or folder
    make_folder(folder, within=within)
    if name == "occlude":
        content = io.BytesIO()
        _occlusion_sheet(arms).save(content, "png")
        write_atomic(path, content.getbuffer(), within=within)
        return path
    makers: dict[str, Callable[[Arms], Figure]] = {
        "shift": _shift_figure,
        "canvas": lambda arms: _curves(arms, "sides", "side of the image (pixels)", _canvas_acc),
        "prune": lambda arms: _curves(arms, "fractions", "share of weights removed", _acc),
    }
    if name not in makers:
        return None
    with figure_style():
        figure = makers[name](arms)
        save(figure, path, within)
    return path


def draw_arms(
    arms: Sequence[dict[str, Any]], metrics: Sequence[Metric], folder: Path, within: Path
) -> Path:
    """Write `arms.png`: each arm's mean with its interval, a panel per metric.

    - `arms`: rows of a claim's table: "arm", and for each metric "mean" and "half_width".
    """
    names = [row["arm"] for row in arms]
    places = range(len(arms))
    size = (1 + 0.07 * max(map(len, names)) + PANEL * len(metrics), 1 + 0.26 * len(arms))
    make_folder(folder, within=within)
    path = folder / "arms.png"
    with figure_style():
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axis, metric, color in zip(axes, metrics, itertools.cycle(COLORS), strict=False):
            numbers = [row.get(metric.name, {"mean": float("nan")}) for row in arms]
            means = [metric.scale * number["mean"] for number in numbers]
            widths = [metric.scale * (number.get("half_width") or 0.0) for number in numbers]
            axis.errorbar(means, places, xerr=widths, fmt="o", color=color, capsize=3)
            # no interval exceeds the possible values
            if metric.is_share and min(means, default=-1) >= 0:
                low, high = axis.get_xlim()
                axis.set_xlim(max(low, 0), min(high, 100))
            axis.set_xlabel(metric.title)
        axes[0].set_yticks(places, names)
        axes[0].set_ylim(len(arms) - 0.5, -0.5)  # the first one on top
        save(figure, path, within)
    return path


def _acc(result: dict[str, Any]) -> list[float]:
    return list(result["acc"])


def _canvas_acc(result: dict[str, Any]) -> list[float]:
    return [result["numbers"][f"canvas/acc_{side}"] for side in result["sides"]]


def _band(axis: Any, x: Sequence[float], rows: list[list[float]], name: str, place: int) -> None:
    """Mean over seeds of `rows` (seeds, points), in percent, with its interval."""
    points = [estimate([100 * row[i] for row in rows]) for i in range(len(x))]
    means = np.array([point.mean for point in points])
    widths = np.array([point.half_width or 0.0 for point in points])
    color, dash = COLORS[place % len(COLORS)], DASHES[place // len(COLORS) % len(DASHES)]
    axis.plot(x, means, dash, color=color, marker="o", markersize=3, label=name)
    axis.fill_between(x, means - widths, means + widths, color=color, alpha=0.2, linewidth=0)


def _curves(
    arms: Arms, key: str, title: str, values: Callable[[dict[str, Any]], list[float]]
) -> Figure:
    figure = Figure(figsize=(6.5, 3.6), layout="constrained")
    axis = figure.subplots()
    for place, (name, results) in enumerate(arms.items()):
        _band(axis, results[0][key], [values(result) for result in results], name, place)
    axis.set_xlabel(title)
    axis.set_ylabel("accuracy (%)")
    _legend(figure, len(arms))
    return figure


def _legend(figure: Any, num_arms: int) -> None:
    if num_arms > 1:
        figure.legend(loc="outside lower center", ncols=3)


def _shift_figure(arms: Arms) -> Figure:
    columns = min(3, len(arms))
    rows = -(-len(arms) // columns)
    figure = Figure(figsize=(max(6.5, PANEL * columns), 3 + PANEL * rows), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[3, PANEL * rows])
    top, bottom = parts
    curve = top.subplots()
    for place, (name, results) in enumerate(arms.items()):
        distances = [offset for offset in results[0]["offsets"] if offset >= 0]
        means = [[a["numbers"][f"shift/acc_{d}"] for d in distances] for a in results]
        _band(curve, distances, means, name, place)
    curve.xaxis.set_major_locator(MaxNLocator(integer=True))
    curve.set_xlabel("shift (pixels)")
    curve.set_ylabel("accuracy (%)")
    _legend(top, len(arms))
    axes = bottom.subplots(rows, columns, squeeze=False)
    for axis, arm in itertools.zip_longest(axes.flat, arms.items()):
        if arm is None:
            axis.set_axis_off()
            continue
        name, results = arm
        grid = 100 * np.mean([result["acc"] for result in results], axis=0)
        reach = (
            results[0]["offsets"][-1] + (results[0]["offsets"][1] - results[0]["offsets"][0]) / 2
        )
        extent = (-reach, reach, reach, -reach)
        image = axis.imshow(grid, vmin=0, vmax=100, cmap="cividis", extent=extent)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_title(name, fontsize=9)
        axis.grid(False)
    figure.colorbar(image, ax=list(axes.flat), label="accuracy (%)")
    axes[-1][0].set_xlabel("right (pixels)")
    axes[-1][0].set_ylabel("down (pixels)")
    return figure


def _occlusion_sheet(arms: Arms) -> sheets.Picture:
    """A row of images, and a row of maps for each arm's first seed, on the same scale."""
    firsts = {name: results[0] for name, results in arms.items()}
    some = next(iter(firsts.values()))
    maps = {name: np.array(result["maps"]) for name, result in firsts.items()}
    scale = sheets.Scale.around_zero(np.concatenate([each.ravel() for each in maps.values()]))
    tiles = [sheets.tile(np.array(image, np.uint8)) for image in some["images"]]
    captions = list(some["labels"])
    for name, each in maps.items():
        tiles += [sheets.tile(scale.paint(one).transpose(2, 0, 1)) for one in each]
        captions += [name, *[""] * (len(each) - 1)]
    title = "drop in the true class's probability with a grey square there"
    return sheets.sheet(title, tiles, captions, len(some["images"]), scale)
