"""The part of a report about one data set: what is compared, in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from convscape.base.terminal import format_table, wrapped
from convscape.base.values import counted
from convscape.config import metrics
from convscape.reports.answers import num_images
from convscape.reports.cells import count_text, level_text, place_of_level, size_text, text_of
from convscape.reports.comparisons import Comparisons
from convscape.reports.figures import (
    configuration_label,
    draw_figures,
    short_names,
)
from convscape.reports.results import command
from convscape.reports.sentences import effect_sentence, interaction_sentence
from convscape.reports.statistics import configurations, trends

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.confirmed import Confirmed
    from convscape.reports.results import RunTable

MAX_LINES = 15  # configurations on the terminal
MAX_INTERACTIONS = 6


class Section:
    """The part of a report about one data set."""

    def __init__(
        self,
        table: RunTable,
        metric: Metric,
        comparisons: Comparisons,
        confirmed: Confirmed | None = None,
    ) -> None:
        self.table, self.metric, self.comparisons = table, metric, comparisons
        self.confirmed = confirmed  # of a search: its best trials on fresh seeds
        self.configurations = configurations(table, metric)
        self.num_seeds = table.ok["seed"].nunique()
        self.num_images = num_images(table, metric.split)
        self.winner = [] if confirmed is None else confirmed.sentences(self.num_images)
        self.sentences = [*self.winner, *self._sentences()]
        self.figures: dict[str, Path] = {}

    def draw(self, folder: Path, prefix: str) -> None:
        """Write the figures."""
        self.figures = draw_figures(self.table, self.configurations, self.metric, folder, prefix)

    # --- in words -----------------------------------------------------------------------------

    @property
    def ranking(self) -> str:
        """What is ranked by, on which images, and whether the runs agree."""
        name = self.metric.name
        if not name:
            if chosen_by := ", ".join(each.name for each in self.table.monitors):
                return (
                    f"Not ranked: {chosen_by}, which chose the best epochs, is not a number in any "
                    "run; --rank <metric> ranks by another."
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
            label = configuration_label(self.table.by, best)
            value = " ".join(self._estimate(best, self.metric.name)).rstrip()
            if self.confirmed is None and not self.table.by:
                yield f"{self.metric.name} is {value}{self._test_of(best)}."
            elif self.confirmed is None:
                yield f"Best by {self.metric.name}: {label} with {value}{self._test_of(best)}."
            else:
                yield (
                    f"Best trial by {self.metric.name}: {label} with {value}, which is optimistic: "
                    f"it is the luckiest of {counted(len(self.table.frame), 'trial')}."
                )
        for effect in self.comparisons.effects:
            yield effect_sentence(effect, self.metric, self.num_images)
        for interaction in self.comparisons.clear_interactions()[:MAX_INTERACTIONS]:
            yield interaction_sentence(interaction, self.metric, self.num_images)
        for trend in trends(self.table, self.metric):
            yield (
                f"{trend.key.words}: rank correlation {trend.correlation:+.2f} with "
                f"{self.metric.name} over {trend.n} runs; best at {level_text(trend.best)}."
            )
        for key in self.table.keys:
            if key.together:
                yield f"{', '.join(key.together)} changed in step with {key.name}."
        if self.num_seeds == 1 and self.confirmed is None:
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
        """The ranking metric first, then the same on the test images, then the accuracies."""
        names = (self.metric.name, self.metric.on_test, "val/acc", "test/acc")
        return list(dict.fromkeys(name for name in names if name in self.configurations))

    def metric_order(self) -> list[str]:
        """All metrics of the runs, those of `metric_columns` first."""
        return list(dict.fromkeys([*self.metric_columns, *self.table.metrics]))

    def header(self) -> list[str]:
        """Names of the columns of `rows`."""
        keys = short_names(self.table.by)
        titles = [metrics.metric(name).title for name in self.metric_columns]
        costs = ["parameters", "MACs", "receptive field", "fit (s)", "images/s"]
        return ["", *keys, "runs", *titles, *costs]

    def rows(self) -> Iterator[list[tuple[str, Any]]]:
        """For each configuration its cells, each as text and as a sort key."""
        for number, row in self.configurations.iterrows():
            seen = row["receptive_field_height"], row["receptive_field_width"]
            runs = f"{row['n']}" + (f" of {row['num_runs']}" * (row["n"] < row["num_runs"]))
            yield [
                (str(number), number),
                *(
                    (level_text(row[key.name]), place_of_level(key, row[key.name]))
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
            # the speed and what follows it
            costs = range(len(self.header()) - 1, len(self.header()) - 6, -1)
            table = [self.header(), *rows[:MAX_LINES]]
            lines.append(format_table(table, tuple(right), tuple(costs)))
            if len(rows) > MAX_LINES:
                lines.append(f"... and {len(rows) - MAX_LINES} more, in results.csv")
            if self.metric.split != "val" or len(self.table.monitors) > 1:
                lines.append(self.ranking)
        return [*lines, *(line for each in self.sentences for line in wrapped(each))]

    def unfinished(self) -> list[dict[str, Any]]:
        """Runs that did not finish, by status and reason."""
        frame = self.table.frame
        rest = frame[frame["status"] != "ok"]
        groups = rest.groupby(["status", "reason"], dropna=False, sort=False)["run"]
        return [
            {"status": status, "reason": text_of(reason) or None, "runs": list(runs)}
            for (status, reason), runs in groups
        ]

    # --- where it came from -------------------------------------------------------------------

    def origins(self) -> dict[str, list[str]]:
        """Versions, hardware, commit and data checksum, each with its values.

        Cores used by other processes are left out: they only change how long a run takes.
        """
        frame = self.table.frame
        names = [column for column in frame if column.startswith("environment/")]
        names = [column for column in names if column != "environment/taken_cores"]
        found = {name: frame[name].dropna() for name in [*names, "data_checksum"] if name in frame}
        return {
            name.removeprefix("environment/"): [str(value) for value in values.unique()]
            for name, values in found.items()
        }

    def commands(self) -> Iterator[tuple[int, str]]:
        """The command that repeats each configuration."""
        for number, row in self.configurations.iterrows():
            runs = self.table.frame.loc[list(row["rows"])]
            yield number, command(runs["overrides"].iloc[0], sorted(runs["seed"].unique()))
