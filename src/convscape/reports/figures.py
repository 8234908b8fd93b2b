"""The figures of a report, as PNG and SVG, in colours that colour-blind readers can tell apart."""

from __future__ import annotations

import csv
import io
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from convscape.base.files import make_folder, read_bytes, write_atomic
from convscape.config.metrics import MONITOR, Metric
from convscape.config.metrics import metric as metric_named
from convscape.drawing.fonts import families
from convscape.reports.cells import level_text
from convscape.reports.results import RunTable, SweptKey
from convscape.reports.statistics import level_means, pair_means, pareto_front

# Okabe and Ito's colours, https://jfly.uni-koeln.de/color/
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
DASHES = ("-", "--", "-.", ":")
COST_TITLES = {
    "num_parameters": "parameters",
    "macs": "MACs per image",
    "seconds/fit": "training time (s)",
}
BALANCED = "Means over the other keys, balanced"  # short enough for the smallest figure
MAX_BYTES = 2**26  # of a history: about 300,000 epochs
MAX_CURVES = 8  # more lines than colours cannot be told apart
MAX_PAIRS = 6
MAX_LEVELS = 12  # wider heat maps have unreadable cells
MAX_DIGITS = 8  # in a number that is written as typed
FORMATS = ("png", "svg")
LABEL_HEIGHT = 0.06  # of a label next to an axis, as a share of the axis

LABEL = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "legend.frameon": False,
    "text.parse_math": False,  # a "$" in a name is a dollar
}


def figure_style() -> AbstractContextManager[None]:
    """Matplotlib's settings for all figures, with fonts found here that have their letters."""
    return rc_context(_STYLE | {"font.family": families()})  # type: ignore[arg-type]


def draw_figures(
    table: RunTable,
    configurations: pd.DataFrame,
    metric: Metric,
    report: Path,
    prefix: str = "",
    formats: Sequence[str] = FORMATS,
) -> dict[str, Path]:
    """Write every figure that the runs allow into `report`/figures.

    Returns the files in the first format by name, in reading order.
    """
    if metric.name in configurations:  # diverged runs have no place on an axis
        configurations = configurations[np.isfinite(configurations[metric.name])]
    makers: dict[str, Callable[[], Figure | None]] = {
        "main_effects": lambda: main_effects(table, metric),
        "heat_maps": lambda: heat_maps(table, metric),
        "costs": lambda: costs(configurations, metric),
        "learning_curves": lambda: learning_curves(table, configurations, metric),
        "parallel_coordinates": lambda: parallel_coordinates(table, configurations, metric),
    }
    folder = report / "figures"
    make_folder(folder, within=report)
    written = {}
    for name, make in makers.items():
        with figure_style():
            figure = make()
            if figure is None:
                continue
            written[name] = folder / f"{prefix}{name}.{formats[0]}"
            save(figure, written[name], report, formats)
    return written


def save(figure: Figure, path: Path, within: Path, formats: Sequence[str] = FORMATS) -> None:
    """Write a figure in each of the formats; each file is written whole or not at all.

    - `within`: the folder that the user named.
    """
    date = {"svg": "Date", "pdf": "CreationDate"}  # equal figures give equal files
    engine = figure.get_layout_engine()
    if engine is not None:  # once: otherwise `savefig` lays the figure out a second time
        engine.execute(figure)
        figure.set_layout_engine(None)
    for kind in formats:
        content = io.BytesIO()
        metadata = {date[kind]: None} if kind in date else {}
        with warnings.catch_warnings():
            # characters missing in the font become boxes
            warnings.filterwarnings("ignore", "Glyph")
            figure.savefig(content, format=kind, dpi=150, metadata=metadata)
        write_atomic(path.with_suffix(f".{kind}"), content.getbuffer(), within=within)


def _labels(key: SweptKey) -> list[str]:
    """The values of a key; long ones, such as paths, are cut to fit the figure.

    A number drawn by a search has just enough digits to tell it from the others.
    """
    levels = list(key.levels)
    for digits in range(3, 18) if key.numbers is not None else ():
        short = [f"{number:.{digits}g}" for number in key.numbers or ()]
        pairs = zip(key.levels, short, strict=True)
        levels = [level if len(level) <= MAX_DIGITS else brief for level, brief in pairs]
        if len(set(levels)) == len(key.levels):
            break
    return [_clipped(level) for level in levels]


def _clipped(text: str, width: int = 20) -> str:
    """The text cut to the room there is, without what cannot be drawn."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: width + 1])
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _figure(width: float, height: float, columns: int, rows: int = 1) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def main_effects(table: RunTable, metric: Metric) -> Figure | None:
    """Mean of the metric at each value of each key, with intervals over the seeds."""
    keys = [key for key in table.by if not key.is_continuous and len(key.levels) > 1]
    if not keys or metric.name not in table.ok:
        return None
    figure, axes = _figure(2.6 * len(keys) + 1, 3.2, len(keys))
    for axis in axes[0][1:]:
        axis.sharey(axes[0][0])  # before drawing: later it would take the first one's limits
    for key, axis, color in zip(keys, axes[0], itertools.cycle(COLORS), strict=False):
        means = level_means(table, metric, key)
        heights = [metric.scale * each.mean for each in means]
        widths = [metric.scale * (each.half_width or 0.0) for each in means]
        places, labels = range(len(key.levels)), _labels(key)
        axis.errorbar(places, heights, widths, color=color, marker="o", capsize=4)
        axis.set_xticks(places, labels)
        axis.set_xlabel(_clipped(key.name))
        axis.margins(x=0.15)
        if max(map(len, labels)) * len(labels) > 24:
            axis.tick_params(axis="x", rotation=45)
    axes[0][0].set_ylabel(metric.title)
    _keep_to_shares(axes[0], metric)
    figure.suptitle(f"{BALANCED}\nbars: 95 % interval over seeds", fontsize=9)
    return figure


def pairs_of_keys(table: RunTable) -> list[tuple[SweptKey, SweptKey]]:
    """Pairs of keys that a heat map can show."""
    keys = [key for key in table.by if 2 <= len(key.levels) <= MAX_LEVELS]
    return list(itertools.combinations(keys, 2))[:MAX_PAIRS]


def heat_maps(table: RunTable, metric: Metric) -> Figure | None:
    """Balanced mean of the metric for each pair of values of two keys; impossible ones hatched."""
    pairs = pairs_of_keys(table)
    if not pairs:
        return None
    grids = [pair_means(table, metric, *pair) for pair in pairs]
    everything = np.concatenate([metric.scale * g.to_numpy(float).ravel() for g in grids])
    if not np.isfinite(everything).any():
        return None
    low, high = np.nanmin(everything), np.nanmax(everything)
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure, axes = _figure(3.4 * columns + 0.8, 2.9 * rows, columns, rows)
    for axis in axes.flat[len(pairs) :]:
        axis.set_visible(False)
    for pair, grid, axis in zip(pairs, grids, axes.flat, strict=False):
        values = metric.scale * grid.to_numpy(float)
        image = axis.imshow(values, vmin=low, vmax=high, cmap="cividis", aspect="auto")
        _write_cells(axis, values, (low + high) / 2, _has_gaps(table, *pair))
        axis.grid(visible=False)
        axis.set_yticks(range(len(pair[0].levels)), _labels(pair[0]))
        axis.set_xticks(range(len(pair[1].levels)), _labels(pair[1]))
        axis.set_ylabel(_clipped(pair[0].name))
        axis.set_xlabel(_clipped(pair[1].name))
    figure.colorbar(image, ax=axes, label=metric.title)
    figure.suptitle(BALANCED, fontsize=9)
    return figure


def _has_gaps(table: RunTable, key: SweptKey, other: SweptKey) -> pd.DataFrame:
    """Whether some runs of each pair of levels did not finish."""
    counts = pd.crosstab(
        table.frame[key.name], table.frame[other.name], table.frame["status"] != "ok", aggfunc="sum"
    )
    return counts.reindex(index=list(key.levels), columns=list(other.levels)) > 0


def _write_cells(axis: Axes, values: np.ndarray, middle: float, gaps: pd.DataFrame) -> None:
    for row, column in np.ndindex(values.shape):
        value = values[row, column]
        if np.isfinite(value):
            color = "black" if value > middle else "white"
            text = f"{value:.4g}{'*' if gaps.iloc[row, column] else ''}"
            axis.text(column, row, text, ha="center", va="center", color=color)
        else:
            cell: dict[str, Any] = {
                "fill": False,
                "hatch": "////",
                "edgecolor": "gray",
                "linewidth": 0,
            }
            axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **cell))


def costs(configurations: pd.DataFrame, metric: Metric) -> Figure | None:
    """The metric of each configuration against parameters, MACs and time, with Pareto fronts."""
    known = [c for c in COST_TITLES if c in configurations and configurations[c].notna().any()]
    known = [c for c in known if c != metric.name]
    if metric.name not in configurations or len(configurations) < 2 or not known:
        return None
    figure, axes = _figure(3.2 * len(known) + 0.5, 3.3, len(known))
    values = metric.scale * configurations[metric.name]
    better = values if metric.higher_is_better else -values
    for cost, axis in zip(known, axes[0], strict=True):
        amounts = configurations[cost]
        on_front = pareto_front(amounts, better)
        front = configurations[on_front].sort_values(cost)
        if f"{metric.name}/half_width" in configurations and len(configurations) <= 100:
            widths = metric.scale * configurations[f"{metric.name}/half_width"].fillna(0)
            axis.errorbar(amounts, values, widths, fmt="none", color="0.75", zorder=1)
        axis.scatter(amounts, values, color=COLORS[0], s=22, zorder=2, label="a configuration")
        axis.step(
            front[cost],
            metric.scale * front[metric.name],
            where="post",
            color=COLORS[1],
            marker="o",
            markersize=5,
            label="Pareto front",
        )
        if amounts.max() > 3 * amounts.min() > 0:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.set_xlabel(COST_TITLES[cost])
    axes[0][0].set_ylabel(metric.title)
    _keep_to_shares(axes[0], metric)
    axes[0][0].legend(loc="lower right")
    return figure


def _keep_to_shares(axes: Iterable[Any], metric: Metric) -> None:
    """Keep the axis of a share between 0 and 100 %, however wide an interval is."""
    for axis in axes if metric.is_share else ():
        low, high = axis.get_ylim()
        axis.set_ylim(max(low, -0.5), min(high, 100.5))  # half a percent of room for the points


@dataclass(frozen=True)
class Curve:
    """A configuration's metric over its epochs, as written: mean and range of the seeds."""

    place: int
    row: Any
    num_runs: int
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curves(
    table: RunTable, configurations: pd.DataFrame, metric: Metric
) -> tuple[Metric, list[Curve]] | None:
    """The curves of the best configurations, and the metric that they show.

    If the metric is not logged in each epoch, such as a cost or a test accuracy, they show what the
    runs were chosen by. None if no run has a history.
    """
    if metric.split not in ("train", "val"):
        metric = next(iter(table.monitors), metric_named(MONITOR))
    found = []
    for place, row in configurations.head(MAX_CURVES).iterrows():
        folders = table.frame.loc[list(row["rows"]), "folder"]
        runs = [c for c in (history(Path(f), metric.name, table.notes) for f in folders) if c]
        if not runs:
            continue
        stacked = np.full((len(runs), max(map(len, runs))), np.nan)
        for number, curve in enumerate(runs):
            stacked[number, : len(curve)] = metric.scale * np.array(curve)
        known = np.ma.masked_invalid(stacked)
        mean, low, high = (
            each.filled(np.nan) for each in (known.mean(0), known.min(0), known.max(0))
        )
        found.append(Curve(place, row, len(runs), mean, low, high))
    return (metric, found) if found else None


def learning_curves(table: RunTable, configurations: pd.DataFrame, metric: Metric) -> Figure | None:
    """The metric over the epochs of the best configurations, with a band over seeds."""
    found = curves(table, configurations, metric)
    if found is None:
        return None
    shown_metric, lines = found
    figure, axes = _figure(7, 3.8, 1)
    axis = axes[0][0]
    styles = itertools.cycle(zip(COLORS, DASHES * 2, strict=True))
    for line, (color, dash) in zip(lines, styles, strict=False):
        epochs = np.arange(1, len(line.mean) + 1)
        label = _clipped(f"{line.place}: {configuration_label(table.by, line.row)}", 80)
        axis.plot(epochs, line.mean, dash, color=color, label=label, linewidth=1.4)
        if line.num_runs > 1:
            axis.fill_between(epochs, line.low, line.high, color=color, alpha=0.13, linewidth=0)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel(shown_metric.title)
    if shown_metric.is_share:  # the first epochs would flatten the rest
        last = np.concatenate(
            [line.get_ydata()[len(line.get_ydata()) // 4 :] for line in axis.lines]
        )
        if not np.isnan(last).all():
            axis.set_ylim(np.nanmin(last) - 1, np.nanmax(last) + 1)
            _keep_to_shares([axis], shown_metric)
    axis.legend(
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=7,
        title="line: mean, band: all seeds",
    )
    return figure


def history(folder: Path, metric: str, notes: list[str]) -> list[float]:
    """A run's `metric` over its epochs; empty if the file is damaged, which `notes` then say."""
    try:
        text = read_bytes(folder / "history.csv", MAX_BYTES).decode()
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        # an epoch may lack the metric
        values = [
            float(row[metric] if row[metric] != "" else "nan") for row in rows if metric in row
        ]
    except FileNotFoundError:  # a run of which only the result was kept
        return []
    except (OSError, ValueError, TypeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else _clipped(str(error), 100)
        note = f"left out of the learning curves: {folder}: history.csv is damaged: {reason}"
        if note not in notes:
            notes.append(note)
        return []
    finite = np.isfinite(values)
    return np.where(finite, values, np.nan).tolist() if finite.any() else []


def configuration_label(keys: Sequence[SweptKey], row: Any) -> str:
    """As in "kernel_size=3, stride=1"."""
    words = [
        f"{name}={level_text(row[key.name])}"
        for key, name in zip(keys, short_names(keys), strict=True)
        if row[key.name] is not None and row[key.name] == row[key.name]
    ]
    return ", ".join(words) or "all runs"


def short_names(keys: Sequence[SweptKey]) -> list[str]:
    """Short keys, kernel_size for model.kernel_size, where they are unambiguous."""
    leaves = [key.name.rpartition(".")[2] for key in keys]
    return [
        key.name if leaves.count(leaf) > 1 else leaf for key, leaf in zip(keys, leaves, strict=True)
    ]


def parallel_coordinates(
    table: RunTable, configurations: pd.DataFrame, metric: Metric
) -> Figure | None:
    """A line per configuration through its values, coloured by the metric."""
    keys = [key for key in table.by if len(key.levels) > 1]
    if len(keys) < 2 or metric.name not in configurations or len(configurations) < 2:
        return None
    values = metric.scale * configurations[metric.name].to_numpy(float)
    positions = np.column_stack([*_places(configurations, keys), _unit(values)])
    figure, axes = _figure(1.7 * (len(keys) + 1) + 1, 3.6, 1)
    axis = axes[0][0]
    scale = ScalarMappable(Normalize(values.min(), values.max()), "cividis")
    jitter = np.linspace(-0.02, 0.02, len(positions))[:, None]
    for line, value in zip(positions + jitter, values, strict=True):
        axis.plot(line, color=scale.to_rgba(value), linewidth=1.3, alpha=0.85)
    titles = [*(_clipped(key.name.rpartition(".")[2]) for key in keys), metric.title]
    axis.set_xticks(range(len(titles)), titles)
    axis.set_yticks([])
    axis.grid(visible=False)
    for place, key in enumerate(keys):
        axis.axvline(place, color="0.6", linewidth=0.8)
        if len(key.levels) <= MAX_LEVELS:
            room = -1.0  # where the previous label ends
            pairs = zip(_heights(key), _labels(key), strict=True)
            for height, level in sorted(pairs):
                if height < room:
                    continue
                room = height + LABEL_HEIGHT
                axis.text(place + 0.03, height, level, va="center", fontsize=8, bbox=LABEL)
    axis.axvline(len(keys), color="0.6", linewidth=0.8)
    for height, value in ((0, values.min()), (1, values.max())):
        axis.text(len(keys) + 0.03, height, f"{value:.4g}", va="center", fontsize=8)
    axis.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(scale, ax=axis, label=metric.title)
    return figure


def _places(configurations: pd.DataFrame, keys: Sequence[SweptKey]) -> Iterator[np.ndarray]:
    for key in keys:
        heights = dict(zip(key.levels, _heights(key), strict=True))
        yield np.array([heights.get(value, np.nan) for value in configurations[key.name]])


def _heights(key: SweptKey) -> np.ndarray:
    if key.is_continuous:
        assert key.numbers is not None
        return _unit(np.array(key.numbers))
    return np.linspace(0, 1, len(key.levels))


def _unit(values: np.ndarray) -> np.ndarray:
    spread = np.nanmax(values) - np.nanmin(values)
    return (values - np.nanmin(values)) / spread if spread else np.full(len(values), 0.5)
