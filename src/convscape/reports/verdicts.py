"""Whether a comparison is settled, and adding seeds until all of them are.

Sweeps (until=verdict), claims and searches use these two functions to decide. The intervals are
those of `anytime`, which hold however often you look, so at most 5 in 100 verdicts are wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.contrasts import Estimate

Verdict = Literal["better", "worse", "equal", "open"]
Cell = TypeVar("Cell")


def verdict(estimate: Estimate, metric: Metric, margin: float | None) -> Verdict:
    """What an interval says: on one side of zero, within the margin on both sides, or neither.

    - `margin`: a difference too small to matter, in the unit of the estimate; None: every one
      matters.
    """
    if estimate.half_width is None:
        return "open"
    low, high = estimate.mean - estimate.half_width, estimate.mean + estimate.half_width
    if margin is not None and -margin <= low and high <= margin:
        return "equal"
    if low <= 0 <= high:
        return "open"
    return "better" if (low > 0) == metric.higher_is_better else "worse"


@dataclass(frozen=True)
class Budget:
    """How many seeds: `least` before the first look, `most` in all, `step` more after each look.

    - `step`: 1 if runs are trained one after another; more if many are trained at once.
    """

    least: int
    most: int
    step: int = 1

    def after(self, num_seeds: int) -> int:
        """How many seeds the next look should have."""
        if self.step == 1:
            return min(self.most, num_seeds + 1)
        # where machines would wait for a look, a quarter more seeds cost little
        return min(self.most, num_seeds + max(self.step, num_seeds // 4))


def seed_by_seed(
    cells: Collection[Cell],
    budget: Budget,
    train: Callable[[Collection[Cell], Sequence[int]], bool],
    unsettled: Callable[[], Collection[Cell]],
) -> int:
    """Train cells with more and more seeds until all is settled; return how many seeds it took.

    Existing runs need not be trained again, so it continues where it was stopped.

    - `train`: called with cells and seeds, counted from 0; returns False if it cannot continue.
    - `unsettled`: the cells of all comparisons that existing runs do not settle.
    """
    done, wanted = 0, budget.least
    while cells and done < wanted:
        if not train(cells, range(done, wanted)):
            return wanted
        done, wanted = wanted, budget.after(wanted)
        cells = unsettled()
    return done
