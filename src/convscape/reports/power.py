"""How many seeds a comparison takes: the expected noise, and the power of a report's test.

The test is that of `contrasts.judge`, at the error a first look may spend (`looks`). Its power
follows from the noncentral t distribution, as for every t-test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtrit

from convscape.reports.contrasts import EFFECTS_SHARE, MAX_FREEDOM, POOLED_SEEDS, SIGNIFICANT
from convscape.reports.looks import PLANNED_SHARE

POWER = 0.8
MOST = 1000  # seeds
# How many seeds the expectation counts as, next to the measured ones: as limma's prior (Smyth 2004,
# https://doi.org/10.2202/1544-6115.1027). The deviation of four runs alone is off by 40 %.
PRIOR_FREEDOM = 4


def deviation(squares: float, freedom: float, prior: float | None) -> float | None:
    """Standard deviation from a sum of squares; shrunk towards `prior` if that is known.

    None if nothing is known.
    """
    weight = 0 if prior is None else PRIOR_FREEDOM
    if not freedom + weight:
        return None
    return float(((squares + weight * (prior or 0.0) ** 2) / (freedom + weight)) ** 0.5)


def deviation_over_images(error: float, num_images: int) -> float:
    """Of an accuracy if all images were equally hard, which is the most chance can cause."""
    return float((error * (1 - error) / num_images) ** 0.5)


def luck_of(right: np.ndarray) -> np.ndarray:
    """Variance of each answer over seeds (images,), from whether they are right (seeds, images).

    Jordan 2023 (https://arxiv.org/abs/2304.01910) finds that trained networks are right or wrong on
    each image independently, so the sum is the variance of the number of right answers.
    """
    variance: np.ndarray = right.var(axis=0, ddof=1)
    return variance


@dataclass(frozen=True)
class FirstLook:
    """One of a report's `num_effects` comparisons, at the first look.

    - `has_interactions`: whether the report has any, which take part of its 5 %.
    """

    num_effects: int = 1
    has_interactions: bool = False

    @property
    def alpha(self) -> float:
        """The error probability that it may spend."""
        share = EFFECTS_SHARE if self.has_interactions else 1.0
        return SIGNIFICANT * PLANNED_SHARE * share / self.num_effects

    def critical(self, num_seeds: int) -> tuple[float, float]:
        """What the mean has to exceed, in units of its standard error; degrees of freedom."""
        own = num_seeds - 1
        if self.num_effects == 1:
            return float(stdtrit(own, 1 - self.alpha / 2)), own
        pooled = POOLED_SEEDS / own  # all comparisons as noisy as this one
        others = self.num_effects - 1
        freedom = min((1 + pooled) ** 2 * own / (1 + pooled**2 / others), MAX_FREEDOM * own)
        return float((1 + pooled) ** 0.5 * stdtrit(freedom, 1 - self.alpha / 2)), freedom

    def power(self, num_seeds: int, effect: float) -> float:
        """How often an effect, in units of the deviation over seeds, is called clear."""
        critical, freedom = self.critical(num_seeds)
        shift = abs(effect) * num_seeds**0.5
        if shift > 2 * critical + 5:  # where scipy's result has no digits left
            return 1.0
        return float(1 - nctdtr(freedom, shift, critical) + nctdtr(freedom, shift, -critical))

    def seeds_for(self, effect: float) -> int | None:
        """The fewest seeds with a power of `POWER`; None if more than `MOST`."""
        low, high = 1, 2  # too few, enough
        while self.power(high, effect) < POWER:
            if high == MOST:
                return None
            low, high = high, min(MOST, 2 * high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.power(middle, effect) >= POWER else (middle, high)
        return high

    def smallest(self, num_seeds: int) -> float:
        """The smallest effect that this many seeds detect with a power of `POWER`."""
        low, high = 0.0, 1.0
        while self.power(num_seeds, high) < POWER:
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self.power(num_seeds, middle) >= POWER else (middle, high)
        return high


def squares_of(groups: Sequence[np.ndarray]) -> tuple[float, int]:
    """Sum of squares within groups of values, and its degrees of freedom."""
    kept = [group for group in groups if len(group) > 1]
    total = sum(float(((group - group.mean()) ** 2).sum()) for group in kept)
    return total, sum(len(group) - 1 for group in kept)
