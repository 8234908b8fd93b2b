"""A comparison's page: verdict, numbers, curves, images that flipped, filters."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.files import make_folder, write_atomic
from convscape.base.pages import styled
from convscape.base.values import counted
from convscape.config.metrics import metric
from convscape.drawing import fonts, sheets
from convscape.reports import answers as by_image
from convscape.reports.comparison import Comparison
from convscape.reports.figures import COLORS, figure_style, history
from convscape.runs.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image as Picture

    from convscape.reports.groups import Group
    from convscape.trained.load import TrainedRun

MAX_SHOWN = 24  # images that flipped
MAX_FILTERS = 32  # per side
PAGE = "compare.html"


def write_page(
    found: Comparison,
    out: Path,
    allow_packages: Sequence[str] = (),
    places: Mapping[str, str] | None = None,
) -> list[str]:
    """Write `compare.html` into the folder `out`; returns what could not be shown, in sentences.

    - `allow_packages`, `places`: as for `load_run`, for the filters and the images.

    Raises:
        CannotWrite: if it cannot be written.
    """
    pictures = _Pictures(found, tuple(allow_packages), dict(places or {}))
    environment = Environment(
        loader=PackageLoader("convscape.trained", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = list(pictures.all())
    page = environment.get_template("compare.html.j2").render(
        base_style=Markup(styled("")), found=found, pictures=shown, notes=pictures.notes
    )
    try:
        make_folder(out, within=out)
        write_atomic(out / PAGE, page, within=out)
    except OSError as error:
        raise CannotWrite(out, error, "--out <folder>") from None
    return pictures.notes


@dataclass
class _Shown:
    """Pictures with a heading and a caption; `sources` are data URLs."""

    title: str
    caption: str
    sources: list[str]
    kind: Literal["figure", "sheet", "figure narrow"] = "sheet"


@dataclass
class _Pictures:
    """What is drawn of a comparison; `notes` say what could not be."""

    found: Comparison
    allow_packages: tuple[str, ...]
    places: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def all(self) -> Iterator[_Shown]:
        """The pictures in the order of the page."""
        if (figure := curves(self.found, self.notes)) is not None:
            caption = (
                "Solid: validation, dashed: training; a thin line per run, a thick one the mean."
            )
            yield _Shown("Learning curves", caption, [_url(figure)], "figure")
        runs = [run for _, group in self.found.sides if (run := self._load(group)) is not None]
        if (sheet := self._flips(runs)) is not None:
            caption = "Clearest first, with the answer that most of the runs give."
            yield _Shown("Images that flipped", caption, [_url(sheet)])
        if filters := self._filters(runs):
            caption = "What the first layer has learned in one run of each, on the same scale."
            yield _Shown("Filters", caption, [_url(each) for each in filters])
        named = {name: _pooled(self.found.runs(group)) for name, group in self.found.sides}
        caption = "How many answers of each confidence are right; larger dots mean more images."
        diagram = by_image.reliability_diagram(named)
        yield _Shown("Confidence", caption, [_url(diagram)], "figure narrow")

    def _load(self, group: Group) -> TrainedRun | None:
        from convscape.trained.load import load_run  # torch

        folder = group.folders[self.found.seeds(group)[0]]
        try:
            return load_run(
                folder,
                self.allow_packages,
                root=self.places.get("root"),
                cache_dir=self.places.get("cache_dir"),
            )
        except (ConfigError, OSError) as error:
            self.notes.append(f"not loaded: {folder}: {error}")
            return None

    def _flips(self, runs: Sequence[TrainedRun]) -> Picture | None:
        """The images that flipped, with their class and the answers of one run of each."""
        found = self.found
        chosen = found.flipped[:MAX_SHOWN]
        if not (len(chosen) and runs):
            return None
        import torch

        from convscape.runs.data import load_images

        try:
            if load_images(runs[0].config).checksum != found.first.first.data_checksum:
                raise ConfigError("the data are not those the runs were tested on")
            images = runs[0].data.tensors(found.split, torch.from_numpy(chosen))[0].numpy()
        except (ConfigError, OSError) as error:
            self.notes.append(f"no sheet of the images that flipped: {error}")
            return None
        one, other = (by_image.ensemble(found.runs(group)) for _, group in found.sides)
        if (unread := fonts.note(runs[0].classes)) is not None:
            self.notes.append(unread)
        labels, names = found.runs(found.first)[0].labels, fonts.readable(runs[0].classes)
        captions = [
            f"is {names[labels[place]]}\nA {names[one[place]]}, B {names[other[place]]}"
            for place in chosen
        ]
        title = f"{len(chosen)} of {len(found.flipped)} images that flipped"
        return sheets.images_with_captions(title, images, captions)

    def _filters(self, runs: Sequence[TrainedRun]) -> list[Picture]:
        """The first weights of each that are applied to the image, on one scale."""
        from convscape.models.inside import first_filters

        if len(runs) < 2:
            return []
        weights = [first_filters(run.model, MAX_FILTERS) for run in runs]
        if any(each is None for each in weights):
            return []
        kernels = [each.numpy() for each in weights if each is not None]
        scale = sheets.Scale.around_zero(np.concatenate([each.ravel() for each in kernels]))
        named = zip(self.found.sides, kernels, strict=True)
        return [
            sheets.learned(f"{name}: {counted(len(own), 'filter')}", own, scale)
            for (name, _), own in named
        ]


def _pooled(runs: Sequence[Predictions]) -> Predictions:
    names = vars(runs[0])
    return Predictions(*(np.concatenate([vars(run)[name] for run in runs]) for name in names))


def curves(found: Comparison, notes: list[str]) -> Figure | None:
    """The metric and the loss over the epochs, one colour for each of the two.

    The accuracy, if the metric is not logged in each epoch.
    """
    split, _, leaf = found.metric.name.partition("/")
    leaves = [leaf if split in ("val", "test") and leaf != "loss" else "acc", "loss"]
    with figure_style():
        figure = Figure(figsize=(8.4, 3.2), layout="constrained")
        axes = figure.subplots(1, 2)
        drawn = [_draw(axis, found, each, notes) for axis, each in zip(axes, leaves, strict=True)]
        if not any(drawn):
            return None
        for axis, is_drawn in zip(axes, drawn, strict=True):
            axis.set_visible(is_drawn)
        axes[drawn.index(True)].legend(loc="best")
    return figure


def _draw(axis: Axes, found: Comparison, leaf: str, notes: list[str]) -> bool:
    """Draw one panel; returns whether there was anything to draw."""
    tails = []
    for (name, group), color in zip(found.sides, COLORS, strict=False):
        for split, dash in (("val", "-"), ("train", "--")):
            measure = metric(f"{split}/{leaf}")
            folders = [group.folders[seed] for seed in found.seeds(group)]
            lines = [
                measure.scale * np.array(h)
                for f in folders
                if (h := history(f, measure.name, notes))
            ]
            if not lines:
                continue
            for line in lines if len(lines) > 1 else ():
                axis.plot(
                    range(1, len(line) + 1), line, dash, color=color, linewidth=0.6, alpha=0.4
                )
            stacked = np.full((len(lines), max(map(len, lines))), np.nan)
            for place, line in enumerate(lines):
                stacked[place, : len(line)] = line
            mean = np.ma.masked_invalid(stacked).mean(0).filled(np.nan)
            label = name if split == "val" else None
            axis.plot(range(1, len(mean) + 1), mean, dash, color=color, linewidth=1.6, label=label)
            tails.append(stacked[:, stacked.shape[1] // 4 :].ravel())
            axis.set_ylabel(f"{leaf} (%)" if measure.is_share else leaf)
    if not tails:
        return False
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    seen = np.concatenate(tails)
    if np.isfinite(seen).any():  # the first epochs would flatten the rest
        low, high = np.nanmin(seen), np.nanmax(seen)
        axis.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low) or None)
    return True


def _url(drawn: Figure | Picture) -> str:
    content = io.BytesIO()
    if isinstance(drawn, Figure):
        drawn.savefig(content, format="png", dpi=200)
    else:
        drawn.save(content, "png")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
