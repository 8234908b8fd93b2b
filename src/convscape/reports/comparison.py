"""Two runs, or the seeds of two configurations, side by side: what differs, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import stdtr, stdtrit

from convscape.base.errors import ConfigError
from convscape.base.terminal import format_table, wrapped
from convscape.base.values import counted, typed_value
from convscape.config.metrics import Metric, metric
from convscape.reports import answers as by_image
from convscape.reports.cells import count_text
from convscape.reports.contrasts import Estimate
from convscape.reports.groups import IMAGES, Group, Split, read_group
from convscape.reports.statistics import CONFIDENCE, estimate
from convscape.runs.predictions import SPLITS, Predictions

ALPHA = 1 - CONFIDENCE
VERSIONS = ("git_commit", "torch", "lightning", "python", "device", "precision")
ACCURACY = "test/acc"
FIXED = ("num_parameters", "macs")  # whatever the seed
VOTE = "vote of seeds"  # `answers.ensemble`
Test = Literal["images", "paired seeds", "unpaired seeds"]
Verdict = Literal["better", "worse", "higher", "lower", "equal", "unclear", "unknown"]


@dataclass(frozen=True)
class Difference:
    """A config key or a version in which the two differ; values as typed."""

    key: str
    a: str
    b: str

    def __str__(self) -> str:
        return f"{self.key}: {self.a} -> {self.b}"


@dataclass
class Comparison:
    """Two groups on the same images. Differences are the second minus the first.

    - `paired`: the seeds that both have, if only these are compared; otherwise all runs are.
    - `over_images`: interval of the difference for other images of the same kind.
    - `over_seeds`: the difference over seeds; `n` counts pairs, or runs if nothing is paired.
    - `mcnemar`: if each is a single run.
    - `test`: what the verdict rests on; None if nothing can be tested.
    """

    first: Group
    second: Group
    metric: Metric
    split: Split
    paired: list[int]
    difference: float
    over_images: tuple[float, float] | None
    over_seeds: Estimate | None
    mcnemar: by_image.McNemar | None
    test: Test | None
    is_equal: bool

    @property
    def is_fixed(self) -> bool:
        """Whether chance plays no part in the metric."""
        return self.metric.name in FIXED

    @property
    def p(self) -> float | None:
        """Of "there is no difference"."""
        found = self.mcnemar if self.test == "images" else self.over_seeds
        return found.p if found is not None and np.isfinite(self.difference) else None

    @property
    def verdict(self) -> Verdict:
        """The verdict on the second; "higher" or "lower" for a metric without a direction."""
        if self.is_equal or (self.is_fixed and not self.difference):
            return "equal"
        if not self.is_fixed:
            if self.p is None:
                return "unknown"
            if self.p >= ALPHA or not self.difference:
                return "unclear"
        if self.metric.direction is None:
            return "higher" if self.difference > 0 else "lower"
        return "better" if (self.difference > 0) == self.metric.higher_is_better else "worse"

    @property
    def sentence(self) -> str:
        """The verdict, and what it holds for."""
        if self.is_equal:
            if self.first.seeds == self.second.seeds:
                return "equal: every answer and every probability is the same"
            return "equal: the runs of one are among those of the other"
        if self.is_fixed:
            return f"B is {self.verdict}: {self.metric.name} is the same for every seed"
        if self.p is None:
            if self.over_seeds is not None:
                return "no verdict: without any spread between seeds there is no test"
            return f"no verdict: with one run each, {self.metric.name} cannot be tested"
        scope = {
            "images": "for these two trained networks; other seeds may differ",
            "paired seeds": "over the seeds of both, on these images",
            "unpaired seeds": "over seeds that differ, on these images",
        }[self.test or "images"]
        if self.verdict == "unclear":
            return f"no clear difference (p = {self.p:.2g}), {scope}"
        return f"B is {self.verdict} (p = {self.p:.2g}), {scope}"

    def seeds(self, group: Group) -> list[int]:
        """The seeds of a group that are compared."""
        return self.paired or group.seeds

    def runs(self, group: Group) -> list[Predictions]:
        """The answers of the runs of a group that are compared."""
        return [group.answers[seed] for seed in self.seeds(group)]

    @property
    def sides(self) -> tuple[tuple[str, Group], tuple[str, Group]]:
        """Both groups with their letters."""
        return ("A", self.first), ("B", self.second)

    @property
    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of each group's compared runs that get an image right (N,)."""
        first, second = (by_image.right_rate(self.runs(each)) for _, each in self.sides)
        return first, second

    @property
    def flipped(self) -> np.ndarray:
        """Images that most runs of one get right and most of the other wrong, clearest first.

        For single runs: those that only one gets right.
        """
        first, second = self.rates
        found = np.flatnonzero((first > 0.5) != (second > 0.5))
        order = np.argsort(-np.abs(first - second)[found], kind="stable")
        chosen: np.ndarray = found[order]
        return chosen

    def differences(self) -> Iterator[Difference]:
        """What differs in config, and in code and versions."""
        one, other = self.first.config, self.second.config
        for key in sorted(one.keys() | other.keys()):
            if one.get(key) != other.get(key):
                yield Difference(key, typed_value(one.get(key)), typed_value(other.get(key)))
        one, other = self.first.first.environment, self.second.first.environment
        for key in VERSIONS:
            if one.get(key) != other.get(key):
                yield Difference(key, str(one.get(key)), str(other.get(key)))

    def described(self, group: Group) -> dict[str, Any]:
        """A description of one of the two, as plain values."""
        runs, numbers = self.runs(group), group.numbers(self.metric)
        mine = estimate([numbers[seed] for seed in self.seeds(group)])
        right = round(float(np.mean([each.correct.sum() for each in runs])))
        return {
            "name": group.name,
            "seeds": self.seeds(group),
            "mean": mine.mean,
            "half_width": mine.half_width,
            "acc_interval_over_images": list(by_image.accuracy_interval(right, len(runs[0]))),
            "calibration_error": float(np.mean([by_image.calibration(r).error for r in runs])),
            "ensemble_acc": float((by_image.ensemble(runs) == runs[0].labels).mean()),
            "always_wrong": by_image.always_wrong(runs).tolist(),
            "num_parameters": group.first.num_parameters,
            "macs": group.first.macs,
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; differences are fractions, B minus A."""
        return {
            "metric": self.metric.name,
            "direction": self.metric.direction,
            "a": self.described(self.first),
            "b": self.described(self.second),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "test": self.test,
            "p": self.p,
            "difference": self.difference,
            "interval_over_images": None if self.over_images is None else list(self.over_images),
            "over_seeds": None if self.over_seeds is None else as_plain(self.over_seeds),
            "mcnemar": None if self.mcnemar is None else vars(self.mcnemar),
            "differences": [vars(each) for each in self.differences()],
            "split": self.split,
            "num_images": len(self.rates[0]),
            "flipped": self.flipped.tolist(),
        }

    def lines(self) -> list[str]:
        """Lines for a terminal, the verdict last."""
        differ = "; ".join(map(str, self.differences())) or "nothing that matters"
        return [
            *(f"{name}: {group.name}" for name, group in self.sides),
            *wrapped(f"differ in: {differ}"),
            format_table(self.rows(), range(1, len(self.rows()[0]))),
            *wrapped(f"B minus A: {self.amount()}"),
            *wrapped(self.flips()),
            *wrapped(f"verdict: {self.sentence}"),
        ]

    def rows(self) -> list[list[str]]:
        """A table with a row for each of the two."""
        is_by_image = self.over_images is not None
        rows = [["", "runs", self.metric.title]]
        rows[0] += ["over images"] * is_by_image + ["ECE", VOTE, "parameters", "MACs"]
        has_ensemble = any(len(self.seeds(group)) > 1 for _, group in self.sides)
        for name, group in self.sides:
            found = self.described(group)
            low, high = (100 * limit for limit in found["acc_interval_over_images"])
            several = len(found["seeds"]) > 1
            row = [name, str(len(found["seeds"]))]
            row.append(with_half_width(self.metric, found["mean"], found["half_width"]))
            row += [f"{low:.2f} to {high:.2f}"] * is_by_image
            row.append(f"{100 * found['calibration_error']:.2f}")
            row.append(f"{100 * found['ensemble_acc']:.2f}" if several else "")
            row += [count_text(found[cost] or float("nan")) for cost in FIXED]
            rows.append(row)
        place = rows[0].index(VOTE)
        return rows if has_ensemble else [row[:place] + row[place + 1 :] for row in rows]

    def amount(self) -> str:
        """The difference with its intervals, in words."""
        unit = "points" if self.metric.is_share else self.metric.unit
        words = f"{_signed(self.metric, self.difference)} {unit}".rstrip()
        notes = []
        if self.over_seeds is not None and self.over_seeds.half_width is not None:
            low, high = self._around(self.over_seeds.half_width)
            sets = f"{len(self.paired)} shared seeds" if self.paired else "seeds"
            notes.append(f"{low} to {high} over {sets}")
        if self.over_images is not None:
            low, high = (_signed(self.metric, limit) for limit in self.over_images)
            notes.append(f"{low} to {high} over other images; {len(self.rates[0]):,} here")
        return f"{words} ({'; '.join(notes)})" if notes else words

    def _around(self, half_width: float) -> tuple[str, str]:
        limits = (self.difference - half_width, self.difference + half_width)
        low, high = (_signed(self.metric, limit) for limit in limits)
        return low, high

    def flips(self) -> str:
        """How many images only one gets right, and how many neither."""
        first, second = self.rates
        neither = int(((first == 0) & (second == 0)).sum())
        only_first, only_second = (
            int(((one > 0.5) & (other <= 0.5)).sum())
            for one, other in ((first, second), (second, first))
        )
        words = (
            f"{counted(len(self.flipped), f'{IMAGES[self.split]} image')} flipped: A alone gets "
        )
        words += f"{only_first} right, B alone {only_second}; no run gets {neither} right"
        return words


def as_plain(found: Estimate) -> dict[str, Any]:
    """As `base.documents.Estimate`."""
    return {name: getattr(found, name) for name in ("mean", "n", "sd", "half_width", "p")}


def _signed(measure: Metric, value: float) -> str:
    sign = "-" if value < 0 else "+"
    return sign + measure.number(abs(value))


def with_half_width(measure: Metric, mean: float, half_width: float | None) -> str:
    """98.61 ± 0.12, without a unit."""
    text = measure.number(mean)
    return text if half_width is None else f"{text} ± {measure.number(half_width)}"


def compare(a: str, b: str, by: str = ACCURACY) -> Comparison:
    """Two runs, or two folders of seeds, on the same images; see `read_group` for `a` and `b`.

    - `by`: the metric. Accuracies are compared image by image too, others over seeds alone.

    Raises:
        ConfigError: if they were not measured on the same images, or a run has no such metric.
    """
    measure = metric(by)
    split: Split = "val" if measure.split == "val" else "test"
    first, second = read_group(a, split), read_group(b, split)
    sums = [each.first.data_checksum for each in (first, second)]
    if sums[0] != sums[1]:
        raise ConfigError(
            f"{a} and {b} were not tested on the same images: their data have the checksums "
            f"{sums[0]} and {sums[1]}; allowed: runs on one data set"
        )
    by_image.check_same_images(first.answers[first.seeds[0]], second.answers[second.seeds[0]])
    known = (m for g in (first, second) if (m := g.first.monitor) is not None and m.name == by)
    measure = next(known, measure)  # with the direction that checkpoints were chosen by
    shared = sorted(first.answers.keys() & second.answers.keys())
    pairs = [(first.answers[seed], second.answers[seed]) for seed in shared]
    one_has_all = len(shared) == min(len(first.seeds), len(second.seeds))
    is_equal = one_has_all and all(_are_equal(one, other) for one, other in pairs)
    paired = shared if len(shared) > 1 else []
    numbers = [each.numbers(measure) for each in (first, second)]
    values = [[own[seed] for seed in paired or sorted(own)] for own in numbers]
    is_single = len(first.seeds) == len(second.seeds) == 1
    found = Comparison(
        *(first, second, measure, split, paired),
        float(np.mean(values[1]) - np.mean(values[0])),
        *(None, None, None, None, is_equal),
    )
    if paired:
        found.over_seeds = estimate(np.subtract(values[1], values[0]))
        found.test = "paired seeds"
    elif not is_single:
        found.over_seeds = unpaired(values[0], values[1])
        found.test = "unpaired seeds"
    if measure.name in [f"{each}/acc" for each in SPLITS]:
        rates = found.rates
        found.over_images = by_image.paired_bootstrap(rates[1] - rates[0])
        if is_single:
            found.mcnemar = by_image.mcnemar(found.runs(first)[0], found.runs(second)[0])
            found.test = "images"
    return found


def unpaired(first: Sequence[float], second: Sequence[float]) -> Estimate:
    """Difference of the means of runs whose seeds differ, by Welch's t-test (1947).

    For a single run against several it is Student's: whether it may be one of them (Crawford
    and Howell 1998, doi 10.1076/clin.12.4.482.7241).
    """
    from scipy.stats import ttest_ind

    one, other = np.asarray(first, float), np.asarray(second, float)
    difference, n = float(other.mean() - one.mean()), len(one) + len(other)
    if max(one.std(), other.std()) <= 1e-12 * max(1.0, float(np.abs(one).max())):
        return Estimate(difference, n)
    if min(len(one), len(other)) > 1:
        found = ttest_ind(other, one, equal_var=False)
        low, high = found.confidence_interval(CONFIDENCE)
        return Estimate(difference, n, None, float(high - low) / 2, float(found.pvalue))
    several = max(one, other, key=len)
    error = float(several.std(ddof=1)) * (1 + 1 / len(several)) ** 0.5
    freedom = len(several) - 1
    width = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    return Estimate(difference, n, None, width, float(2 * stdtr(freedom, -abs(difference) / error)))


def _are_equal(one: Predictions, other: Predictions) -> bool:
    return all(np.array_equal(values, vars(other)[name]) for name, values in vars(one).items())
