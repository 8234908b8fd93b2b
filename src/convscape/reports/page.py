"""From the runs of a sweep to its answer: results.csv, figures, one HTML page, a short table."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from convscape.base.errors import CannotWrite
from convscape.base.files import make_folder, write_atomic
from convscape.base.terminal import format_table, wrapped
from convscape.config import metrics
from convscape.reports.answers import num_images
from convscape.reports.cells import (
    cell_text,
    count_text,
    escaped,
    place_of_level,
    size_text,
    text_of,
)
from convscape.reports.comparisons import Comparisons, compare
from convscape.reports.figures import (
    COST_TITLES,
    configuration_label,
    draw_figures,
    pairs_of_keys,
    short_names,
)
from convscape.reports.looks import look_at
from convscape.reports.results import command, ranking_metric, read_runs, tables, typed_order
from convscape.reports.sentences import effect_sentence, interaction_sentence
from convscape.reports.statistics import (
    CONFIDENCE,
    configurations,
    pair_means,
    trends,
)

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.results import Reading, RunTable


MAX_LINES = 15  # configurations on the terminal
MAX_INTERACTIONS = 6
MAX_POINTS_WITH_HOVER = 2000
_BALANCED = (
    "Means over the settings of the other keys, and seeds, that finished in all that is compared, "
    "or over all runs where there are none; a sentence in words compares two values alone, and may "
    "rest on more runs."
)
CAPTIONS = {
    "main_effects": f"What each key does. {_BALANCED}",
    "heat_maps": f"Each pair of keys. {_BALANCED} Hatched: no run could finish; *: some could not.",
    "costs": "What accuracy costs. Bars: 95 % interval over seeds.",
    "learning_curves": "Learning curves of the best configurations.",
    "parallel_coordinates": "All keys at once: a line per configuration.",
}


@dataclass
class Report:
    """Where the report is, what to print of it, and what it says of each data set."""

    folder: Path
    lines: list[str]
    sections: list[Section]
    notes: list[str]


def write_report(
    folders: Sequence[Path],
    rank: str | None = None,
    by: Sequence[str] = (),
    extra: Sequence[tuple[str, Any]] = (),
    only: Sequence[Path] | None = None,
    heading: Sequence[str] = (),
    pictures: Sequence[tuple[str, Path]] = (),
    out: Path | None = None,
) -> Report:
    """Write results.csv, report.html and figures/ into the sweep folder, or else into `out`.

    Of several folders' runs the report goes beside the first. Runs on different data sets are
    never pooled: each data set has its own section.

    - `rank`: the metric to rank by, see `ranking_metric`; unless given, what chose the runs' best
      epochs.
    - `by`: the keys that make a configuration; all that were swept unless given.
    - `extra`: more figures of Plotly with their captions, for the end of the page.
    - `only`: these run folders and no others; all unless given.
    - `heading`, `pictures`: sentences, and PNG files with captions, for the top of the page.

    Raises:
        ConfigError: if there are no runs, or a metric or key does not exist.
        CannotWrite: if the report cannot be written.
    """
    reading = read_runs(folders if only is None else only)
    run_tables = tables(reading, by, [typed_order(folder) for folder in folders])
    ranked = [(table, ranking_metric(table, rank)) for table in run_tables]
    compared = compare(ranked, look := look_at(folders, ranked))
    sections = [Section(*each, one) for each, one in zip(ranked, compared, strict=True)]
    target = folders[0] if out is None else out
    if len(folders) > 1 and out is None:
        target = folders[0].parent / f"report-{'-'.join(folder.name for folder in folders)}"
    try:
        make_folder(target, within=target)
        frames = [table.frame.assign(data=table.data) for table in run_tables]
        table = pd.concat(frames).to_csv(index=False)
        write_atomic(target / "results.csv", table, within=target)
        for number, section in enumerate(sections, 1):
            section.draw(target, "" if len(sections) == 1 else _prefix(section.table.data, number))
        page = _page(target.name, sections, reading, extra, [*heading, *look.remarks], pictures)
        write_atomic(target / "report.html", page, within=target)
    except OSError as error:
        raise CannotWrite(target, error, "--out <folder>") from None
    lines = [line for section in sections for line in section.lines(len(sections) > 1)]
    notes = [*look.remarks, *_notes(reading, sections)]
    lines += [*notes, f"report:  {target / 'report.html'}"]
    return Report(target, lines, sections, notes)


def _prefix(data: str, number: int) -> str:
    """Of the figures about a data set, whose name may be a stranger's."""
    return f"{data}-" if re.fullmatch(r"[\w-][\w.-]{0,60}", data) else f"data{number}-"


class Section:
    """The part of a report about one data set."""

    def __init__(self, table: RunTable, metric: Metric, comparisons: Comparisons) -> None:
        self.table, self.metric, self.comparisons = table, metric, comparisons
        self.configurations = configurations(table, metric)
        self.num_seeds = table.ok["seed"].nunique()
        self.num_images = num_images(table, metric.split)
        self.sentences = [*self._sentences()]
        self.figures: dict[str, Path] = {}

    def draw(self, folder: Path, prefix: str) -> None:
        """Write the figures."""
        self.figures = draw_figures(self.table, self.configurations, self.metric, folder, prefix)

    # --- in words -----------------------------------------------------------------------------

    @property
    def ranking(self) -> str:
        """By what, on which images, and whether the runs agree."""
        name = self.metric.name
        if not name:
            if chosen_by := ", ".join(each.name for each in self.table.monitors):
                return (
                    f"Not ranked: {chosen_by}, which chose the best epochs, is a number in no run; "
                    "--rank <metric> ranks by another."
                )
            logged = ", ".join(self.table.metrics) or "nothing"
            return (
                f"Not ranked: nothing of what was logged ({logged}) chose the best epochs; "
                "--rank max:<metric> or --rank min:<metric> ranks by it."
            )
        where = {
            "val": " on the validation images",
            "train": " on the images that they were trained on",
            "test": " on the test images, and so chosen on them",
            None: "",
        }[self.metric.split]
        better = "higher" if self.metric.higher_is_better else "lower"
        sentence = f"Ranked by {name}{where}, the {better} the better."
        monitors = [each.name for each in self.table.monitors]
        if len(monitors) > 1:
            sentence += f" The best epochs of the runs were chosen by {' or '.join(monitors)}."
        return sentence

    def _sentences(self) -> Iterator[str]:
        if self.configurations.empty:
            yield "No run has finished: there is nothing to compare."
            return
        best = self.configurations.iloc[0]
        if self.metric.name in self.configurations:
            yield (
                f"Best by {self.metric.name}: {configuration_label(self.table.by, best)} with "
                f"{' '.join(self._estimate(best, self.metric.name)).rstrip()}{self._test_of(best)}."
            )
        for effect in self.comparisons.effects:
            yield effect_sentence(effect, self.metric, self.num_images)
        for interaction in self.comparisons.clear_interactions()[:MAX_INTERACTIONS]:
            yield interaction_sentence(interaction, self.metric, self.num_images)
        for trend in trends(self.table, self.metric):
            yield (
                f"{trend.key.words}: rank correlation {trend.correlation:+.2f} with "
                f"{self.metric.name} over {trend.n} runs; best at {trend.best}."
            )
        for key in self.table.keys:
            if key.together:
                yield f"{', '.join(key.together)} changed in step with {key.name}."
        if self.num_seeds == 1:
            yield "There is one seed: no interval can be given; add 'seed=range(3)' or more."

    def _test_of(self, row: pd.Series) -> str:
        names = [n for n in (self.metric.on_test, "test/acc") if n in row]
        if self.metric.split == "test" or not names:
            return ""
        return f", {names[0]} {' '.join(self._estimate(row, names[0]))}".rstrip()

    def _estimate(self, row: pd.Series, name: str) -> tuple[str, str]:
        """Mean and interval of a configuration, and the unit: "98.61 ± 0.12", "%"."""
        metric = metrics.metric(name)
        width = row.get(f"{name}/half_width")
        mean = metric.number(row[name])
        if width is not None and width == width:
            mean += f" ± {metric.number(width)}"
        return mean, metric.unit

    # --- as a table ---------------------------------------------------------------------------

    @property
    def metric_columns(self) -> list[str]:
        """What is ranked first, then the same on the test images, then the accuracies."""
        names = (self.metric.name, self.metric.on_test, "val/acc", "test/acc")
        return list(dict.fromkeys(name for name in names if name in self.configurations))

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        keys = short_names(self.table.by)
        titles = [metrics.metric(name).title for name in self.metric_columns]
        costs = ["parameters", "MACs", "receptive field", "fit (s)", "images/s"]
        return ["", *keys, "runs", *titles, *costs]

    def rows(self) -> Iterator[list[tuple[str, Any]]]:
        """For each configuration its cells: as text, and as what to sort by."""
        for number, row in self.configurations.iterrows():
            seen = row["receptive_field_height"], row["receptive_field_width"]
            runs = f"{row['n']}" + (f" of {row['num_runs']}" * (row["n"] < row["num_runs"]))
            yield [
                (str(number), number),
                *(
                    (text_of(row[key.name]), place_of_level(key, row[key.name]))
                    for key in self.table.by
                ),
                (runs, row["n"]),
                *((self._estimate(row, name)[0], row[name]) for name in self.metric_columns),
                (count_text(row["num_parameters"]), row["num_parameters"]),
                (count_text(row["macs"]), row["macs"]),
                (size_text(*seen), seen[0]),
                (f"{row['seconds/fit']:.1f}", row["seconds/fit"]),
                (count_text(row["samples_per_second"]), row["samples_per_second"]),
            ]

    def lines(self, with_title: bool) -> list[str]:
        """The section on a terminal."""
        lines = [f"data={self.table.data}"] if with_title else []
        if not self.configurations.empty:
            rows = [[text for text, _ in row] for row in self.rows()]
            right = range(len(self.table.by) + 1, len(self.header()))
            costs = range(len(self.header()) - 1, len(self.header()) - 6, -1)  # from the speed on
            table = [self.header(), *rows[:MAX_LINES]]
            lines.append(format_table(table, tuple(right), tuple(costs)))
            if len(rows) > MAX_LINES:
                lines.append(f"... and {len(rows) - MAX_LINES} more, in results.csv")
            if self.metric.split != "val" or len(self.table.monitors) > 1:
                lines.append(self.ranking)
        return [*lines, *(line for each in self.sentences for line in wrapped(each))]

    def unfinished(self) -> list[dict[str, Any]]:
        """Runs that did not come to their end, by status and reason."""
        frame = self.table.frame
        rest = frame[frame["status"] != "ok"]
        groups = rest.groupby(["status", "reason"], dropna=False, sort=False)["run"]
        return [
            {"status": status, "reason": reason, "runs": list(runs)}
            for (status, reason), runs in groups
        ]

    # --- where it came from -------------------------------------------------------------------

    def origins(self) -> dict[str, list[str]]:
        """Versions, hardware, commit and checksum of the data, each with its values."""
        frame = self.table.frame
        names = [column for column in frame if column.startswith("environment/")]
        found = {name: frame[name].dropna() for name in [*names, "data_checksum"] if name in frame}
        return {
            name.removeprefix("environment/"): [str(value) for value in values.unique()]
            for name, values in found.items()
        }

    def commands(self) -> Iterator[tuple[int, str]]:
        """How to make each configuration once more."""
        for number, row in self.configurations.iterrows():
            runs = self.table.frame.loc[list(row["rows"])]
            yield number, command(runs["overrides"].iloc[0], sorted(runs["seed"].unique()))

    # --- to hover over ------------------------------------------------------------------------

    def hover_figures(self) -> Iterator[tuple[str, str]]:
        """Figures of Plotly with their captions, as HTML."""
        import plotly.graph_objects as go

        if self.metric.name in self.configurations and len(self.configurations) > 1:
            yield "Point at a configuration to see it.", _as_html(self._cost_scatter(go))
        # without a metric its cells would say "no run" of runs that are there
        is_shown = self.metric.name or self.configurations.empty
        for pair in pairs_of_keys(self.table) if is_shown else ():
            yield "Point at a cell; an empty one says why.", _as_html(self._heat_map(go, *pair))

    def _cost_scatter(self, go: Any) -> Any:
        shown = self.configurations.head(MAX_POINTS_WITH_HOVER)
        costs = [c for c in COST_TITLES if c in shown and shown[c].notna().any()]
        labels = [
            f"{number}: {configuration_label(self.table.by, row)}<br>"
            f"{self.metric.name} {' '.join(self._estimate(row, self.metric.name))}"
            for number, row in shown.iterrows()
        ]
        values = self.metric.scale * shown[self.metric.name]
        figure = go.Figure()
        for place, cost in enumerate(costs):
            figure.add_scatter(
                x=shown[cost].tolist(),
                y=values.tolist(),
                mode="markers",
                text=[escaped(label) for label in labels],
                hovertemplate="%{text}<br>" + COST_TITLES[cost] + " %{x:,}<extra></extra>",
                visible=place == 0,
                marker={"color": "#0072B2", "size": 9},
            )
        buttons = [
            {
                "label": COST_TITLES[cost],
                "method": "update",
                "args": [
                    {"visible": [other == cost for other in costs]},
                    {"xaxis.title.text": COST_TITLES[cost]},
                ],
            }
            for cost in costs
        ]
        figure.update_layout(
            # 5k, 10k, 20k: else Plotly writes only the first digit of most
            xaxis={
                "title": {"text": COST_TITLES[costs[0]]},
                "type": "log",
                "dtick": "D2",
                "tickformat": "~s",
            },
            yaxis={"title": {"text": self.metric.title}},
            updatemenus=[{"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.18}],
            showlegend=False,
        )
        return figure

    def _heat_map(self, go: Any, key: Any, other: Any) -> Any:
        grid = pair_means(self.table, self.metric, key, other)
        values = self.metric.scale * grid.to_numpy(float)
        frame = self.table.frame
        bad = frame[frame["status"] != "ok"].drop_duplicates([key.name, other.name])
        reasons = {(r[key.name], r[other.name]): r["reason"] for _, r in bad.iterrows()}
        text = [
            [
                cell_text(value, reasons.get((a, b)))
                for b, value in zip(other.levels, row, strict=True)
            ]
            for a, row in zip(key.levels, values.tolist(), strict=True)
        ]
        names = [escaped(each.name) for each in (key, other)]
        figure = go.Figure(
            go.Heatmap(
                z=[[None if v != v else v for v in row] for row in values.tolist()],
                x=[escaped(level) for level in other.levels],
                y=[escaped(level) for level in key.levels],
                text=text,
                hovertemplate=f"{names[0]} %{{y}}, {names[1]} %{{x}}<br>%{{text}}<extra></extra>",
                colorscale="Cividis",
                colorbar={"title": {"text": self.metric.title}},
            )
        )
        figure.update_layout(
            xaxis={"title": {"text": names[1]}, "type": "category"},
            yaxis={"title": {"text": names[0]}, "type": "category"},
        )
        return figure


def _page(
    title: str,
    sections: list[Section],
    reading: Reading,
    extra: Sequence[tuple[str, Any]],
    heading: Sequence[str],
    pictures: Sequence[tuple[str, Path]],
) -> str:
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("convscape.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        heading=heading,
        pictures=pictures,
        sections=sections,
        captions=CAPTIONS,
        confidence=f"{100 * CONFIDENCE:.0f}",
        notes=_notes(reading, sections),
        extra=[(caption, _as_html(figure)) for caption, figure in extra],
        plotly=Markup(get_plotlyjs()),
        inlined=_inlined,
        safe=Markup,
    )


def _inlined(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _as_html(figure: Any) -> str:
    from plotly.io import to_html

    figure.update_layout(
        template="simple_white", height=380, margin={"l": 60, "r": 20, "t": 50, "b": 50}
    )
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return to_html(figure, config, include_plotlyjs=False, full_html=False)


def _notes(reading: Reading, sections: Sequence[Section]) -> list[str]:
    """What was left out, and why."""
    notes = [f"left out: {path}: {reason}" for path, reason in reading.unreadable]
    notes += [note for section in sections for note in section.table.notes]
    if len(notes) > 10:
        notes = [*notes[:10], f"left out: {len(notes) - 10} more"]
    if reading.num_duplicates:
        is_one = reading.num_duplicates == 1
        those = "1 run is" if is_one else f"{reading.num_duplicates:,} runs are"
        notes.append(f"{those} there twice and counted once")
    return notes
