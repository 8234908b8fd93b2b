"""Two runs, or the seeds of two configurations, beside each other: what differs, by how much."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.files import make_folder, write_atomic
from convscape.base.values import counted, typed_value
from convscape.config.metrics import metric
from convscape.drawing import sheets
from convscape.reports import answers as by_image
from convscape.reports.results import read_runs
from convscape.reports.statistics import CONFIDENCE, Estimate, estimate
from convscape.runs.data import load_images
from convscape.runs.fingerprint import flat_config, with_later_keys
from convscape.runs.folder import RunFolder
from convscape.runs.predictions import Predictions, read_answers
from convscape.runs.result import Result

MAX_SHOWN = 24  # images that flipped
ALPHA = 1 - CONFIDENCE
VERSIONS = ("git_commit", "torch", "lightning", "python", "device", "precision")

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem;
padding: 0 1rem; color: #1c2733; overflow-wrap: anywhere; }} img {{ max-width: 100%; }}</style>
</head><body><h1>{title}</h1>{body}</body></html>
"""


@dataclass(frozen=True)
class Group:
    """The finished runs of one configuration, by seed, with their answers on the test images."""

    path: Path
    folders: dict[int, Path]
    results: dict[int, Result]
    answers: dict[int, Predictions]

    @property
    def first(self) -> Result:
        """Any of them: they differ in the seed alone."""
        return next(iter(self.results.values()))

    @property
    def config(self) -> dict[str, Any]:
        """What matters to the result, but for the seed."""
        return dict(flat_config(with_later_keys(self.first.config)))


def read_group(path: Path) -> Group:
    """The run in a folder, or the seeds of one configuration in a sweep folder.

    Raises:
        ConfigError: if there are several configurations, or a run has no answers image by image.
    """
    runs = [(folder, each) for folder, each in read_runs([path]).runs if each.status == "ok"]
    if not runs:
        raise ConfigError(f"{path} has no run that came to its end; allowed: a finished one")
    configs = [dict(flat_config(with_later_keys(each.config))) for _, each in runs]
    if any(config != configs[0] for config in configs):
        keys = {key for config in configs for key in config if config[key] != configs[0].get(key)}
        raise ConfigError(
            f"{path} holds runs that differ in {', '.join(sorted(keys))}; allowed: a run folder, "
            "or a folder whose runs differ in their seed alone"
        )
    answers = {}
    for folder, each in runs:
        found = read_answers(folder)
        if found is None or "test" not in found.splits:
            raise ConfigError(
                f"{folder} has no answers image by image; scripts/evaluate.py {folder} writes them"
            )
        if each.data_checksum not in (None, found.data_checksum):
            raise ConfigError(f"{folder}: predictions.npz is of other data than result.json")
        answers[each.seed] = found.splits["test"]
    folders = {each.seed: folder for folder, each in runs}
    return Group(path, folders, {each.seed: each for _, each in runs}, answers)


@dataclass
class Comparison:
    """Two groups on the same test images. Differences are of the second less the first.

    - `seeds`: what both have; all of each where they share none.
    - `over_images`: interval of the difference over other images of the same kind.
    - `over_seeds`: of the differences of the seeds that both have.
    - `mcnemar`: where each is a single run.
    """

    first: Group
    second: Group
    seeds: list[int]
    difference: float
    over_images: tuple[float, float]
    over_seeds: Estimate | None
    mcnemar: by_image.McNemar | None
    is_equal: bool

    @property
    def verdict(self) -> str:
        """The answer in a sentence, and what it holds for."""
        if self.is_equal:
            return "equal: every answer and every probability is the same"
        p = self.mcnemar.p if self.mcnemar else self.over_seeds.p if self.over_seeds else None
        scope = (
            "for these two trained networks; other seeds may differ"
            if self.mcnemar
            else "over seeds, on these images"
        )
        if p is None:
            return "no verdict: they share fewer than two seeds"
        if p >= ALPHA or not self.difference:
            return f"no clear difference (p = {p:.2g}), {scope}"
        return f"B is {'better' if self.difference > 0 else 'worse'} (p = {p:.2g}), {scope}"

    def runs(self, group: Group) -> list[Predictions]:
        """Of a group, those that are compared."""
        shared = [seed for seed in self.seeds if seed in group.answers]
        return [group.answers[seed] for seed in shared]

    @property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of the compared runs of each that get an image right (N,)."""
        first, second = (by_image.right_rate(self.runs(each)) for each in (self.first, self.second))
        return first, second

    @property
    def flipped(self) -> np.ndarray:
        """Images that most runs of one get right and most of the other wrong, the clearest first.

        Of single runs: those that one alone gets right.
        """
        first, second = self.rates
        found = np.flatnonzero((first > 0.5) != (second > 0.5))
        order = np.argsort(-np.abs(first - second)[found], kind="stable")
        chosen: np.ndarray = found[order]
        return chosen

    def differences(self) -> Iterator[str]:
        """What differs in config, and in code and versions."""
        one, other = self.first.config, self.second.config
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                yield f"{key}: {typed_value(one.get(key))} -> {typed_value(other.get(key))}"
        one, other = self.first.first.environment, self.second.first.environment
        for key in VERSIONS:
            if one.get(key) != other.get(key):
                yield f"{key}: {one.get(key)} -> {other.get(key)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; differences are fractions, of B less A."""
        groups = {}
        for name, group in (("a", self.first), ("b", self.second)):
            runs = self.runs(group)
            groups[name] = {
                "path": str(group.path),
                "seeds": sorted(group.answers),
                "test/acc": float(np.mean([each.acc for each in runs])),
                "calibration_error": float(np.mean([by_image.calibration(r).error for r in runs])),
                "ensemble_acc": float((by_image.ensemble(runs) == runs[0].labels).mean()),
                "always_wrong": by_image.always_wrong(runs).tolist(),
            }
        return groups | {
            "equal": self.is_equal,
            "verdict": self.verdict,
            "differences": [*self.differences()],
            "num_images": len(self.rates[0]),
            "shared_seeds": self.seeds if self.over_seeds or self.mcnemar else [],
            "difference": self.difference,
            "interval_over_images": list(self.over_images),
            "over_seeds": None if self.over_seeds is None else vars(self.over_seeds),
            "mcnemar": None if self.mcnemar is None else vars(self.mcnemar),
            "flipped": self.flipped.tolist(),
        }

    def lines(self) -> list[str]:
        """Ten lines for a terminal."""
        found, test = self.as_dict(), metric("test/acc")
        lines = [f"{name}: {self._described(group, found[name.lower()], test)}" for name, group in
                 (("A", self.first), ("B", self.second))]  # fmt: skip
        low, high = (100 * limit for limit in self.over_images)
        lines += [
            f"differ in: {'; '.join(found['differences']) or 'nothing that matters'}",
            f"B less A: {100 * self.difference:+.2f} points ({low:+.2f} to {high:+.2f} over other "
            f"images; {found['num_images']:,} here)",
        ]
        if self.mcnemar is not None:
            lines.append(
                f"McNemar: {self.mcnemar.only_first} images only A gets right, "
                f"{self.mcnemar.only_second} only B; p = {self.mcnemar.p:.2g}"
            )
        if self.over_seeds is not None and self.over_seeds.half_width is not None:
            width = f"{100 * self.over_seeds.half_width:.2f}"
            lines.append(f"over {self.over_seeds.n} shared seeds: +- {width} points")
        wrong = len(np.intersect1d(found["a"]["always_wrong"], found["b"]["always_wrong"]))
        lines.append(
            f"{counted(len(found['flipped']), 'image')} flipped; no run gets {wrong} right"
        )
        return [*lines, f"verdict: {self.verdict}"]

    def _described(self, group: Group, found: dict[str, Any], test: Any) -> str:
        runs = self.runs(group)
        right = round(sum(int(each.correct.sum()) for each in runs) / len(runs))
        low, high = (100 * limit for limit in by_image.accuracy_interval(right, len(runs[0])))
        text = f"{group.path}: test/acc {test.written(found['test/acc'])} ({low:.2f} to {high:.2f} "
        text += f"over images), calibration error {100 * found['calibration_error']:.2f} points"
        if len(runs) > 1:
            text += f"; {len(runs)} seeds, together {test.written(found['ensemble_acc'])}"
        return text


def compare(a: Path, b: Path) -> Comparison:
    """Two runs, or two folders of seeds, on the same test images.

    Raises:
        ConfigError: if they were not tested on the same images.
    """
    first, second = read_group(a), read_group(b)
    sums = [each.first.data_checksum for each in (first, second)]
    if sums[0] != sums[1]:
        raise ConfigError(
            f"{a} and {b} were not tested on the same images: their data have the checksums "
            f"{sums[0]} and {sums[1]}; allowed: runs on one data set"
        )
    shared = sorted(first.answers.keys() & second.answers.keys())
    both = (first, second)
    seeds = shared or sorted({seed for each in both for seed in each.answers})
    runs = [[each.answers[seed] for seed in seeds if seed in each.answers] for each in both]
    by_image.check_same_images(runs[0][0], runs[1][0])
    rates = [by_image.right_rate(each) for each in runs]
    pairs = [(first.answers[seed], second.answers[seed]) for seed in shared]
    is_equal = all(_are_equal(one, other) for one, other in pairs)
    is_equal = is_equal and first.answers.keys() == second.answers.keys()
    is_single = all(len(each.answers) == 1 for each in both)
    return Comparison(
        first,
        second,
        seeds,
        float((rates[1] - rates[0]).mean()),
        by_image.paired_bootstrap(rates[1] - rates[0]),
        estimate([other.acc - one.acc for one, other in pairs]) if len(pairs) > 1 else None,
        by_image.mcnemar(runs[0][0], runs[1][0]) if is_single else None,
        first.answers.keys() == second.answers.keys()
        and all(_are_equal(one, other) for one, other in pairs),
    )


def _are_equal(one: Predictions, other: Predictions) -> bool:
    return all(np.array_equal(values, vars(other)[name]) for name, values in vars(one).items())


def write_page(found: Comparison, out: Path) -> list[str]:
    """Write `compare.html` into the folder `out`; returns what could not be shown, in sentences.

    Raises:
        CannotWrite: if it cannot be written.
    """
    lines, notes = found.lines(), []
    parts = [f"<p>{html.escape(line)}</p>" for line in lines]
    named = {name: found.runs(group)[0] for name, group in _named(found)}
    parts.append(_picture(_png(by_image.reliability_diagram(named)), "Confidence beside accuracy"))
    try:
        sheet = _flipped_sheet(found)
    except (ConfigError, OSError) as error:
        notes.append(f"no sheet of the images that flipped: {error}")
    else:
        if sheet is not None:
            parts.append(_picture(sheet, "Images that flipped, the clearest first"))
    parts += [f"<p>{html.escape(note)}</p>" for note in notes]
    page = _PAGE.format(title="A beside B", body="\n".join(parts))
    try:
        make_folder(out, within=out)
        write_atomic(out / "compare.html", page, within=out)
    except OSError as error:
        raise CannotWrite(out, error, "--out <folder>") from None
    return notes


def _named(found: Comparison) -> Sequence[tuple[str, Group]]:
    return ("A", found.first), ("B", found.second)


def _flipped_sheet(found: Comparison) -> bytes | None:
    """The images that flipped, with their class and the answers of a run of each."""
    from convscape.config.check import check

    chosen = found.flipped[:MAX_SHOWN]
    if not len(chosen):
        return None
    folder = next(iter(found.first.folders.values()))
    image_set = load_images(check(RunFolder(folder).read_config()))
    one, other = (found.runs(group)[0] for _, group in _named(found))
    if image_set.checksum != found.first.first.data_checksum:
        raise ConfigError("the data are not those that the runs were tested on")
    names = image_set.classes
    captions = [
        f"is {names[one.labels[place]]}\n"
        f"A {names[one.predicted[place]]}, B {names[other.predicted[place]]}"
        for place in chosen
    ]
    title = f"{len(chosen)} of {len(found.flipped)} images that flipped"
    content = io.BytesIO()
    sheets.images_with_captions(title, image_set.test_images[chosen], captions).save(content, "png")
    return content.getvalue()


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    return content.getvalue()


def _picture(content: bytes, caption: str) -> str:
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return (
        f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'
    )
