"""How many seeds a grid takes, estimated before training from existing runs. No torch.

The noise comes from runs of the same grid, or else from runs that differ only in the network;
without any, it follows from an assumed error rate. `reports.power` has the statistics.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError
from convscape.base.throughput import FLOPS
from convscape.config.check import check
from convscape.reports.comparisons import effect_contrasts, interaction_contrasts
from convscape.reports.contrasts import Cells, Contrast
from convscape.reports.power import FirstLook, deviation, deviation_over_images, luck_of, squares_of
from convscape.reports.results import SweptKey
from convscape.runs.fingerprint import flat_config, with_later_keys
from convscape.runs.folder import RunFolder, output_folder
from convscape.runs.predictions import read_answers
from convscape.runs.resolved import ResolvedRun
from convscape.sweeps.definition import digest_of
from convscape.sweeps.grid import key_of, plan_sweep, shared_config

if TYPE_CHECKING:
    from convscape.config.compose import Compose
    from convscape.config.metrics import Metric
    from convscape.reports.comparisons import Effect
    from convscape.runs.result import Result
    from convscape.sweeps.grid import PlannedRun, SweepPlan

ERRORS = (0.01, 0.05, 0.2, 0.4)  # assumed if no run says how many answers are wrong
Z_95 = 1.96  # quantile of a normal distribution
MAX_SEEDS = 200  # at most this many seeds of existing runs are looked for
Cell = tuple[str, ...]


@dataclass(frozen=True)
class Noise:
    """How much a run varies with its seed.

    - `sd`: standard deviation of the metric; `error`: the fraction of wrong answers, if known.
    - `num_runs`, `freedom`: what it was measured with; `source`: which runs those are.
    """

    sd: float
    error: float | None
    num_runs: int
    freedom: int
    source: str


@dataclass(frozen=True)
class Needed:
    """One comparison: the deviation of its difference over seeds, and the seeds it takes.

    - `num_seeds`: None without a margin, or if `power.MOST` are not enough.
    """

    effect: Effect
    sd: float
    num_seeds: int | None


class Grid:
    """The cells of a grid, and what existing runs say about them."""

    def __init__(self, words: Sequence[str], compose: Compose) -> None:
        """Take the words of a sweep, without its seeds.

        Raises:
            ConfigError: if they are wrong, or nothing is compared.
        """
        self.words = list(words)
        _refuse_words(words)
        cfg, params = shared_config(self.words)
        self.output_dir: Path = output_folder(cfg.output_dir)
        self.name: str = cfg.name or f"seeds-{digest_of(self.words)}"
        there_are = list(_results(self.output_dir))
        there = sorted({result.seed for _, result in there_are} - {0})[: MAX_SEEDS - 1]
        self.seeds = [0, *there]
        grid = [*self.words, f"seed={','.join(map(str, self.seeds))}"]
        self.plan = plan_sweep(grid, params, compose)
        self.keys = [key for key in self.plan.keys if key != "seed"]
        if not self.keys:
            raise ConfigError(
                "nothing is compared; give a key several values, such as model.kernel_size=3,5"
            )
        if len(self.plan.data_configs) > 1:
            raise ConfigError("the noise is that of one data set; give data and its keys one")
        self.run = ResolvedRun(next(iter(self.plan.data_configs.values())))
        if self.run.monitor is None:
            raise ConfigError(
                "trainer.monitor=null, or no image to validate: nothing to compare by"
            )
        self.metric: Metric = self.run.monitor
        kept = [(path, each) for path, each in there_are if self.metric.name in each.metrics]
        self._results = [result for _, result in kept]
        self._by_name = {result.fingerprint: result for result in self._results}
        self._folders = {result.fingerprint: path for path, result in kept}
        self.cells = _by_cell(self.plan)

    @cached_property
    def values(self) -> np.ndarray:
        """The metric of each cell and seed (cells, seeds); NaN where there is no run."""
        found = [[self._value(runs.get(seed)) for seed in self.seeds] for runs in self._runs]
        return np.array(found, dtype=float)

    @cached_property
    def _runs(self) -> list[dict[int, PlannedRun]]:
        return list(self.cells.values())

    def _value(self, planned: PlannedRun | None) -> float:
        result = self._by_name.get(planned.fingerprint) if planned is not None else None
        return float("nan") if result is None else result.metrics[self.metric.name]

    @cached_property
    def num_images(self) -> dict[str, int]:
        """The number of validation and of test images."""
        image_set, taken = self.run.image_set, self.run.num_val_images
        return {"val": taken, "test": len(image_set.test_labels)}

    @property
    def num_measured_by(self) -> int | None:
        """Number of images that the metric is a fraction of; None if it is not a fraction."""
        is_acc = self.metric.name in ("val/acc", "test/acc")
        return self.num_images[str(self.metric.split)] if is_acc else None

    def noise(self, error: float | None = None) -> Noise | None:
        """The noise of a run of the grid; `error` is the assumed error rate if there are no runs.

        None if nothing is known.
        """
        mine = [row[np.isfinite(row)] for row in self.values]
        source = "of this grid"
        if not any(len(group) for group in mine):
            mine, source = self._similar(), "of other networks on these data"
        known = [group for group in mine if len(group)]
        if known:
            error = float(1 - np.mean([group.mean() for group in known]))
        if self.num_measured_by is None:
            error = None
        prior = self._expected
        if prior is None and error is not None and self.num_measured_by:
            prior = deviation_over_images(error, self.num_measured_by)
        squares, freedom = squares_of(known)
        sd = deviation(squares, freedom, prior)
        if not sd:
            return None
        num_runs = sum(map(len, known))
        return Noise(sd, error, num_runs, freedom, source if num_runs else "none")

    @cached_property
    def _expected(self) -> float | None:
        """Deviation of a run's accuracy if answers are independent from image to image.

        Each image has its own probability, which two seeds of a network already estimate. None if
        there are no two with answers.
        """
        num = self.num_measured_by
        right = [] if num is None else [self._right(runs, num) for runs in self._runs]
        right = [each for each in right if len(each) > 1]
        if num is None or not right:
            return None
        return float(np.mean([luck_of(each).mean() for each in right]) / num) ** 0.5

    def _similar(self) -> list[np.ndarray]:
        """Values by configuration, for runs trained the same way on the same data."""
        mine = dict(flat_config(self.run.config.model_dump(by_alias=True)))
        groups: dict[str, list[float]] = {}
        for result in self._results:
            own = dict(flat_config(with_later_keys(result.config)))
            alike = ("model", "optimizer", "scheduler")
            if all(own.get(k) == v for k, v in mine.items() if not k.startswith(alike)):
                groups.setdefault(repr(sorted(own.items(), key=str)), []).append(
                    result.metrics[self.metric.name]
                )
        return [np.array(group) for group in groups.values()]

    @cached_property
    def contrasts(self) -> tuple[list[tuple[Effect, Contrast]], FirstLook]:
        """The comparisons of a report, and the test that it applies to each.

        Raises:
            ConfigError: if no two networks can be compared.
        """
        levels = {key: list(dict.fromkeys(_level(cell, key) for cell in self.cells))
                  for key in self.keys}  # fmt: skip
        places = {
            key: np.array([levels[key].index(_level(cell, key)) for cell in self.cells])
            for key in self.keys
        }
        possible = [any(run.reason is None for run in runs.values()) for runs in self._runs]
        there = np.where(np.array(possible)[:, None], np.zeros((len(self.cells), 2)), np.nan)
        swept = [SweptKey(key, tuple(levels[key]), None) for key in self.keys]
        found = list(effect_contrasts(Cells(places, there), swept))
        if not found:
            raise ConfigError("no two networks of the grid can be compared; see plan")
        between = any(True for _ in interaction_contrasts(Cells(places, there), swept))
        return found, FirstLook(len(found), between)

    def needed(self, noise: Noise, margin: float | None) -> list[Needed]:
        """The seeds needed for each comparison; `margin` in the unit of the metric's values."""
        found, test = self.contrasts
        answers = []
        for effect, contrast in found:
            alone = noise.sd * float((contrast.weights**2).sum() ** 0.5)
            used = self.values[contrast.weights != 0]
            seeds = np.flatnonzero(np.isfinite(used).all(axis=0))
            own = replace(contrast, seeds=tuple(seeds.tolist())).of(self.values)
            sd = deviation(*squares_of([own]), prior=alone) or alone
            num = None if margin is None else test.seeds_for(margin / sd)
            answers.append(Needed(effect, sd, num))
        return answers

    def over_images(self, contrast: Contrast, error: float | None) -> tuple[float, bool] | None:
        """Half a 95 % interval of a difference over images alone, whatever the number of seeds.

        From how much networks differ from image to image, less the luck of their seeds; without
        their answers, as if each were wrong on different images, which gives more. Also whether it
        was measured; None for a metric that is not an accuracy.
        """
        num = self.num_measured_by
        if num is None or error is None:
            return None
        used = np.flatnonzero(contrast.weights)
        right = [self._right(self._runs[place], num) for place in used]
        if any(len(each) < 2 for each in right):
            most = error * (1 - error) / num * float((contrast.weights**2).sum())
            return float(Z_95 * most**0.5), False
        weights = contrast.weights[used]
        means = np.array([each.mean(axis=0) for each in right])
        luck = [luck_of(each).mean() / len(each) for each in right]
        variance = float(np.var(weights @ means, ddof=1) - weights**2 @ np.array(luck))
        return float(Z_95 * (max(0.0, variance) / num) ** 0.5), True

    def _right(self, runs: dict[int, PlannedRun], num_images: int) -> np.ndarray:
        """Whether each answer of the existing runs is right (seeds, images)."""
        found = []
        for run in runs.values():
            folder = self._folders.get(run.fingerprint)
            answers = None if folder is None else read_answers(folder)
            split = None if answers is None else answers.splits.get(str(self.metric.split))
            if split is not None and len(split) == num_images:
                found.append(split.correct)
        return np.array(found, dtype=float)

    def seconds(self) -> tuple[list[float | None], bool]:
        """Seconds of a run of each cell, None if unknown; whether some were not measured."""
        found: list[float | None] = []
        is_guessed = False
        for runs in self._runs:
            there = [self._by_name.get(run.fingerprint) for run in runs.values()]
            times = [sum(result.seconds.values()) for result in there if result is not None]
            size = next(iter(runs.values())).plan
            if times:
                found.append(float(np.mean(times)))
                continue
            is_guessed = True
            found.append(None if size is None else self._guessed(size.macs))
        return found, is_guessed

    def _guessed(self, macs: int) -> float:
        """Seconds for three passes of 2 FLOP per MAC, for each image of each step."""
        images = self.run.total_steps * self.run.config.data.batch_size
        return 6 * macs * images / FLOPS[self.run.device.kind]

    @property
    def possible(self) -> list[bool]:
        """Whether the network of each cell can exist."""
        return [any(run.reason is None for run in runs.values()) for runs in self._runs]

    def command(self, num_seeds: int) -> str:
        """The command that trains the grid with this many seeds, in its pilot's folder."""
        words = [word for word in self.words if key_of(word) != "name"]
        words += [f"seed=range({num_seeds})", f"name={self.name}"]
        if (self.output_dir / "sweeps" / self.name).is_dir():
            words.append("extend=true")
        return f"{command_name('train')} -m {shlex.join(words)}"


def train_pilot(words: Sequence[str], num_seeds: int, compose: Compose) -> int:
    """Train a few seeds of the grid as runs of the sweep to come; return the exit code.

    Its effects are not looked at: the first look remains the sweep's.

    Raises:
        ConfigError: if the words are wrong.
    """
    from omegaconf import OmegaConf

    from convscape.sweeps.run import run_in_sweep, run_sweep

    _refuse_words(words)
    arguments = [*words, f"seed=range({num_seeds})"]
    if not any(key_of(word) == "name" for word in words):
        # extended if it had fewer seeds
        arguments += [f"name=seeds-{digest_of(list(words))}", "extend=true"]

    def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
        for number, job in enumerate(jobs, first):
            composed: Any = OmegaConf.to_container(compose(list(job)), resolve=True)
            run_in_sweep(check(composed), list(job), number)

    cfg, params = shared_config(arguments)
    return run_sweep(cfg, params, arguments, compose, launch, is_looked_at=False)


def _refuse_words(words: Sequence[str]) -> None:
    """Refuse keys that this command decides itself.

    Raises:
        ConfigError: naming the word.
    """
    for word in words:
        key = key_of(word)
        if key in ("seed", "seeds"):
            raise ConfigError(f"{word}: that is what this command finds out; leave it out")
        if key in ("until", "resume") or key.startswith("hydra"):
            raise ConfigError(f"{word}: this command does not read it; leave it out")


def _results(output_dir: Path) -> Iterator[tuple[Path, Result]]:
    """Every finished run, with its folder."""
    for pattern in ("runs/*/result.json", "sweeps/*/*/result.json"):
        for file in sorted(output_dir.glob(pattern)):
            result = RunFolder(file.parent).read_result()
            if result is not None and result.status == "ok":
                yield file.parent, result


def _by_cell(plan: SweepPlan) -> dict[Cell, dict[int, PlannedRun]]:
    """The runs of each cell by their seed."""
    cells: dict[Cell, dict[int, PlannedRun]] = {}
    for run in plan.runs:
        values = {key_of(o): o.partition("=")[2] for o in run.overrides}
        cell = tuple(o for o in run.overrides if key_of(o) != "seed")
        cells.setdefault(cell, {})[int(values["seed"])] = run
    return cells


def _level(cell: Cell, key: str) -> str:
    return next(o.partition("=")[2] for o in cell if key_of(o) == key)
