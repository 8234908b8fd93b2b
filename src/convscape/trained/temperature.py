"""One number that calibrates a network's confidence: the temperature that divides its logits.

Guo et al. 2017, https://arxiv.org/abs/1706.04599. No answer changes, only how sure it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from convscape.training.predictions import as_predictions

if TYPE_CHECKING:
    from torch import Tensor

LIMITS = (-5.0, 5.0)  # of the temperature's logarithm


@dataclass(frozen=True)
class Temperature:
    """What a temperature does on a split; pairs are before and after.

    - `num_images`: of the validation split that it was fitted on.
    - `calibration_error`: expected calibration error, 0..1.
    - `log_loss`: mean of -log of the true class's probability.
    """

    value: float
    num_images: int
    calibration_error: tuple[float, float]
    log_loss: tuple[float, float]

    def __str__(self) -> str:
        before, after = (100 * error for error in self.calibration_error)
        return (
            f"temperature {self.value:.3f}, fitted on {self.num_images:,} validation images: "
            f"calibration error {before:.2f} -> {after:.2f} points, "
            f"log loss {self.log_loss[0]:.4f} -> {self.log_loss[1]:.4f}"
        )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature with the least log loss for logits (N, K) and labels (N,)."""
    logits, labels = logits.double(), labels.long()

    def loss(log_value: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_value), labels))

    found = minimize_scalar(loss, bounds=LIMITS, method="bounded", options={"xatol": 1e-5})
    return math.exp(float(found.x))


def apply_temperature(
    fitted_on: tuple[Tensor, Tensor], applied_to: tuple[Tensor, Tensor]
) -> Temperature:
    """Fit on logits (N, K) and labels (N,) of one split, and see what it does on another."""
    from convscape.reports.answers import calibration  # imports Matplotlib

    value = fit_temperature(*fitted_on)
    logits, labels = applied_to[0], applied_to[1].long()
    errors, losses = [], []
    for scaled in (logits, logits / value):
        errors.append(calibration(as_predictions(scaled, labels, True)).error)
        losses.append(float(F.cross_entropy(scaled.double(), labels)))
    return Temperature(value, len(fitted_on[1]), (errors[0], errors[1]), (losses[0], losses[1]))
