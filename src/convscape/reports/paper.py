"""A report for papers or slides: tables in LaTeX, Markdown and CSV, figures as PDF, the methods.

LaTeX needs the packages booktabs, graphicx and siunitx, and `paper.tex` shows all of it.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base.errors import CannotWrite
from convscape.base.files import make_folder, write_atomic
from convscape.base.values import counted, typed_value
from convscape.reports.cells import level_text
from convscape.reports.contrasts import ALONE
from convscape.reports.figures import draw_figures
from convscape.reports.page import CAPTIONS
from convscape.reports.statistics import CONFIDENCE
from convscape.runs.folder import RunFolder

if TYPE_CHECKING:
    from convscape.reports.page import Report
    from convscape.reports.section import Section
    from convscape.runs.result import Result

FOLDER = "paper"
_NUMBER = re.compile(r"-?[\d,]+(?:\.\d+)?(?: ± [\d,]+(?:\.\d+)?)?")
_SPECIAL = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"\(\pm\)", "<": r"\(<\)", ">": r"\(>\)", "|": r"\(|\)"},
}
_FIGURE = r"""\begin{figure}[htbp]
\centering
\includegraphics[width=\linewidth,height=0.35\textheight,keepaspectratio]{%s}
\caption{%s}
\end{figure}"""
_DOCUMENT = r"""\documentclass{article}
\usepackage[utf8]{inputenc}
\usepackage[margin=2.2cm]{geometry}
\usepackage{booktabs,graphicx,siunitx}
\sisetup{separate-uncertainty=true,group-separator={,},group-minimum-digits=4}
\begin{document}
%s
\end{document}
"""


@dataclass(frozen=True)
class Table:
    """Cells as text, the header first, and a caption."""

    name: str
    caption: str
    rows: list[list[str]]

    def csv(self) -> str:
        """For a spreadsheet."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self.rows)
        return text.getvalue()

    def markdown(self) -> str:
        """As Markdown, with the caption above it."""
        head, *rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join([f"{self.caption}\n", *(f"| {' | '.join(row)} |" for row in lines), ""])

    def latex(self) -> str:
        """As LaTeX, with booktabs' rules and siunitx's numbers."""
        head, *rows = self.rows
        is_number = [
            all(_NUMBER.fullmatch(row[n]) or not row[n] for row in rows) for n in range(len(head))
        ]
        columns = "".join("r" if each else "l" for each in is_number)
        lines = [
            r"\begin{table}[htbp]",
            r"\centering\scriptsize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{tex(self.caption)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            f"{' & '.join(map(tex, head))} \\\\",
            r"\midrule",
            *(f"{' & '.join(map(_tex_cell, row))} \\\\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def tex(text: str) -> str:
    """`text` for LaTeX; characters that its usual fonts lack become question marks."""
    return "".join(_SPECIAL.get(c, c if c.isprintable() and ord(c) < 0x180 else "?") for c in text)


def _tex_cell(cell: str) -> str:
    if not _NUMBER.fullmatch(cell):
        return tex(cell)
    return rf"\num{{{cell.replace(',', '').replace(' ± ', ' +- ')}}}"


def write_paper(report: Report) -> list[Path]:
    """Write `paper/` into the folder of a report; returns its files.

    Raises:
        CannotWrite: if it cannot be written.
    """
    folder = report.folder / FOLDER
    written: dict[Path, str] = {}
    body = []
    try:
        make_folder(folder, within=report.folder)
        for number, section in enumerate(report.sections, 1):
            prefix = "" if len(report.sections) == 1 else f"data{number}-"
            methods = methods_of(section)
            written[folder / f"{prefix}methods.tex"] = tex(methods) + "\n"
            written[folder / f"{prefix}methods.md"] = methods + "\n"
            body.append(rf"\input{{{prefix}methods}}")
            for table in _tables(section):
                name = f"{prefix}{table.name}"
                written[folder / f"{name}.tex"] = table.latex()
                written[folder / f"{name}.md"] = table.markdown()
                written[folder / f"{name}.csv"] = table.csv()
                body.append(rf"\input{{{name}}}")
            figures = draw_figures(
                *(section.table, section.configurations, section.metric, folder, prefix),
                formats=("pdf", "svg"),
            )
            for name, path in figures.items():
                pdf = path.with_suffix(".pdf").relative_to(folder).as_posix()
                body.append(_FIGURE % (pdf, tex(CAPTIONS[name])))
        written[folder / "paper.tex"] = _DOCUMENT % "\n".join(body)
        for path, text in written.items():
            write_atomic(path, text, within=report.folder)
    except OSError as error:
        raise CannotWrite(folder, error, "--out <folder>") from None
    return list(written)


def _tables(section: Section) -> Iterator[Table]:
    if section.configurations.empty:
        return
    rows = [[text for text, _ in row] for row in section.rows()]
    intervals = f"Intervals are of {100 * CONFIDENCE:.0f} % over seeds (Student's t)."
    yield Table(
        "configurations",
        f"Configurations on {section.table.data}, best first by {section.metric.name}. {intervals}",
        [["place", *section.header()[1:]], *rows],
    )
    if effects := list(_effects(section)):
        unit = "points" if section.metric.is_share else section.metric.name
        caption = (
            f"Effects on {section.metric.name} in {unit}: a value instead of the key's first one. "
            "Intervals and p-values hold for all of them at once."
        )
        header = ["key", "value", "instead of", "effect", "p", "seeds", "pairs"]
        yield Table("effects", caption, [header, *effects])


def _effects(section: Section) -> Iterator[list[str]]:
    metric = section.metric
    for effect in section.comparisons.effects:
        mean = metric.number(effect.estimate.mean)
        width, p = effect.estimate.half_width, effect.estimate.p
        yield [
            *(effect.key.words, level_text(effect.level), level_text(effect.base)),
            mean if width is None else f"{mean} ± {metric.number(width)}",
            "" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001",
            *(str(effect.estimate.n), str(effect.num_pairs)),
        ]


def methods_of(section: Section) -> str:
    """What was done, in a paragraph; the swept values are in the table, not here."""
    table, frame = section.table, section.table.frame
    result = _a_result(section)
    swept = {name for key in table.keys for name in (key.name, *key.together)}
    counts = frame["status"].value_counts()
    ended = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "ok")
    keys = ", ".join(key.name for key in table.by)
    seeds = sorted(int(seed) for seed in frame["seed"].unique())
    sentences = [
        f"We trained {counted(len(frame), 'network')} on {table.data}"
        + (f", varying {keys}" if keys else "")
        + f", with {counted(len(seeds), 'seed')} ({_listed(seeds)})"
        + (f"; not all of them finished ({ended})." if ended else "; all of them finished."),
    ]
    if result is not None:
        sentences += _how(result, swept)
    if section.metric.name:
        monitors = " or ".join(each.name for each in table.monitors)
        kept = f"Of each run the checkpoint with the best {monitors} was kept. "
        chosen = kept if monitors else ""
        images = f" of {section.num_images:,} images" if section.num_images else ""
        split = {"val": f" on the validation split{images}", "test": f" on the test split{images}"}
        where = split.get(section.metric.split or "", "")
        sentences.append(f"{chosen}Configurations are ranked by {section.metric.name}{where}.")
    if section.metric.split != "test":
        sentences.append("The test split was read once per run, on that checkpoint.")
    sentences.append(
        f"Means are over seeds, with {100 * CONFIDENCE:.0f} % intervals of Student's t. Effects "
        "are paired differences between runs that are equal in all else, averaged within each seed "
        "before the seeds are compared; their intervals and p-values are adjusted for all "
        "comparisons of the report."
    )
    sentences += _looks(section)
    return " ".join([*sentences, _versions(section)])


def _looks(section: Section) -> Iterator[str]:
    """How often the runs were looked at, and how that affects the effects' intervals."""
    look = next(
        (e.estimate.look for e in section.comparisons.effects if e.estimate.p is not None), ALONE
    )
    if look.number is None:
        yield (
            "Seeds were added one after the other: those intervals are valid at every number of "
            "seeds at once, however often the runs were looked at (a confidence sequence)."
        )
    elif look != ALONE:
        times = "once" if look.number == 1 else f"{look.number} times"
        yield (
            f"The runs were looked at {times}: {5 * look.share:.2g} % of the total error rate "
            "of 5 % is spent on this look (alpha spending)."
        )


def _a_result(section: Section) -> Result | None:
    for folder in section.table.ok["folder"]:
        if (result := RunFolder(Path(folder)).read_result()) is not None:
            return result
    return None


def _how(result: Result, swept: set[str]) -> Iterator[str]:
    """What was the same in all runs: the split, the optimiser, the length."""
    data, trainer = (result.config.get(name, {}) for name in ("data", "trainer"))
    optimizer = result.config.get("optimizer", {})
    size = data.get("val_size")
    if isinstance(size, int) and "data.val_size" not in swept:
        yield (
            f"{size:,} images of the training split were held out for validation "
            f"(split seed {data.get('split_seed')})."
        )
    parts = []
    if "optimizer" not in swept and (name := optimizer.get("name")):
        given = [
            f"{key.replace('_', ' ')} {typed_value(optimizer[key])}"
            for key in ("lr", "momentum", "weight_decay")
            if key in optimizer and f"optimizer.{key}" not in swept
        ]
        parts.append(f"the optimiser {name}" + f" ({', '.join(given)})" * bool(given))
    if "data.batch_size" not in swept and "batch_size" in data:
        parts.append(f"batches of {data['batch_size']}")
    if "trainer.max_epochs" not in swept and trainer.get("max_epochs"):
        parts.append(f"at most {counted(trainer['max_epochs'], 'epoch')}")
    if parts:
        yield f"All used {_and(parts)}."


def _versions(section: Section) -> str:
    """Software, hardware and the checksum of the data."""
    from convscape import __version__

    origins = section.origins()
    names = {"torch": "PyTorch", "lightning": "Lightning", "python": "Python"}
    known = [f"Convscape {__version__}"]
    known += [
        f"{title} {' and '.join(origins[key])}" for key, title in names.items() if origins.get(key)
    ]
    words = f"Software: {', '.join(known)}"
    for key, title in (
        ("git_commit", "commit"),
        ("device", "device"),
        ("cpu", "processor"),
        ("data_checksum", "checksum of the data"),
    ):
        if origins.get(key):
            words += f"; {title} {' and '.join(origins[key])}"
    return f"{words}."


def _listed(numbers: Sequence[int]) -> str:
    is_range = len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if is_range else ", ".join(map(str, numbers))


def _and(parts: Sequence[Any]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
