"""From a sweep's runs to its answer: results.csv, figures, one HTML page, a short table."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from convscape.base.errors import CannotWrite
from convscape.base.files import make_folder, write_atomic
from convscape.base.pages import embedded
from convscape.reports.board import document
from convscape.reports.comparisons import compare
from convscape.reports.confirmed import search_in
from convscape.reports.looks import look_at
from convscape.reports.results import ranking_metric, read_runs, tables, typed_order
from convscape.reports.section import Section
from convscape.reports.static import SCRIPTS, read

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.contrasts import Look
    from convscape.reports.results import Reading, RunTable


_BALANCED = (
    "Means over the settings of the other keys, and seeds, that finished for every value that is "
    "compared, or over all runs if there are none; a sentence in words compares just two values, "
    "and may rest on more runs."
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
    """Where the report is, what to print of it, and what it says about each data set."""

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
    claim: Mapping[str, Any] | None = None,
    pictures: Sequence[tuple[str, Path]] = (),
    out: Path | None = None,
) -> Report:
    """Write results.csv, report.html and figures/ into the sweep folder, or into `out` if given.

    For several folders the report goes next to the first. Runs on different data sets are
    never pooled: each data set has its own section.

    - `rank`: the metric to rank by, see `ranking_metric`; by default the one that chose the best
      epochs.
    - `by`: the keys that make a configuration; by default all swept keys.
    - `extra`: more Plotly figures with their captions, for the end of the page; None for a missing
      one, which the caption explains.
    - `only`: only these run folders; by default all.
    - `claim`, `pictures`: for the top of the page, see `board.document`.

    Raises:
        ConfigError: if there are no runs, or a metric or key does not exist.
        CannotWrite: if the report cannot be written.
    """
    reading = read_runs(folders if only is None else only)
    sections, remarks = sections_of(reading, folders, rank, by)
    target = folders[0] if out is None else out
    if len(folders) > 1 and out is None:
        target = folders[0].parent / f"report-{'-'.join(folder.name for folder in folders)}"
    try:
        make_folder(target, within=target)
        frames = [section.table.frame.assign(data=section.table.data) for section in sections]
        table = pd.concat(frames).to_csv(index=False)
        write_atomic(target / "results.csv", table, within=target)
        for number, section in enumerate(sections, 1):
            section.draw(target, "" if len(sections) == 1 else _prefix(section.table.data, number))
        notes = [*remarks, *notes_of(reading, sections)]
        values = document(target.name, sections, reading, target, notes, claim, pictures)
        write_atomic(target / "report.html", html(values, extra), within=target)
    except OSError as error:
        raise CannotWrite(target, error, "--out <folder>") from None
    lines = [line for section in sections for line in section.lines(len(sections) > 1)]
    lines += [*notes, f"report:  {target / 'report.html'}"]
    return Report(target, lines, sections, notes)


def sections_of(
    reading: Reading,
    folders: Sequence[Path],
    rank: str | None = None,
    by: Sequence[str] = (),
    looking: Callable[[Sequence[Path], Sequence[tuple[RunTable, Metric]]], Look] = look_at,
) -> tuple[list[Section], Sequence[str]]:
    """A section for each data set, and remarks about this look at the runs.

    - `looking`: whether this counts as another look at the sweeps in `folders`, see `looks`.
    """
    run_tables = tables(reading, by, [typed_order(folder) for folder in folders])
    search = search_in(folders[0]) if len(folders) == 1 else None
    if rank is None and search is not None:
        ranked = [(table, search.rank(table)) for table in run_tables]
    else:
        ranked = [(table, ranking_metric(table, rank)) for table in run_tables]
    look = looking(folders, ranked)
    compared = compare(ranked, look)
    # accuracies on several data sets have no single winner
    confirmed = search.confirmed if search is not None and len(run_tables) == 1 else None
    sections = [Section(*each, one, confirmed) for each, one in zip(ranked, compared, strict=True)]
    return sections, look.remarks


def _prefix(data: str, number: int) -> str:
    """File name prefix of a data set's figures; its name may be a stranger's."""
    return f"{data}-" if re.fullmatch(r"[\w-][\w.-]{0,60}", data) else f"data{number}-"


def html(document: dict[str, Any], extra: Sequence[tuple[str, Any]] = ()) -> str:
    """The page of a document, see `board.document`; it loads nothing from elsewhere.

    - `extra`: as in `write_report`.
    """
    environment = Environment(
        loader=PackageLoader("convscape.reports", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [read(f"{name}.js") for name in SCRIPTS]
    return environment.get_template("report.html.j2").render(
        title=document["title"],
        **embedded(document, scripts, read("board.css")),
        extra=[
            (caption, Markup(_as_html(figure)) if figure is not None else "")
            for caption, figure in extra
        ],
        plotly=Markup(_plotly()) if extra else "",
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _as_html(figure: Any) -> str:
    from plotly.io import to_html

    figure.update_layout(
        template="simple_white", height=380, margin={"l": 60, "r": 20, "t": 50, "b": 50}
    )
    config = {"displaylogo": False, "responsive": True, "displayModeBar": False}
    return to_html(figure, config, include_plotlyjs=False, full_html=False)


def notes_of(reading: Reading, sections: Sequence[Section]) -> list[str]:
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
