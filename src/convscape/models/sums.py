"""Losses and correct predictions of the batches so far, summed on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchmetrics import Metric


class MetricSums:
    """Losses and correct predictions of the batches so far, on the device until asked for.

    - `metrics`: what else is measured, from probabilities (N, K) and labels (N,), by name.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        for metric in self.metrics.values():
            metric.reset()
        self._losses: list[Tensor] = []
        self._sizes: list[int] = []
        self._correct: list[Tensor] = []
        self._calls_checked = self._batches_checked = 0

    @property
    def num_batches(self) -> int:
        """Batches counted so far."""
        return len(self._sizes)

    def add(self, losses: list[Tensor], logits: list[Tensor], labels: list[Tensor]) -> None:
        """Count batches: their mean losses (), logits (N, K), and labels (N,) or (N, K)."""
        targets = torch.cat(labels)
        if targets.ndim == 2:
            targets = targets.argmax(1)
        self._losses.append(torch.stack(losses))
        self._sizes += [len(batch) for batch in labels]
        outputs = torch.cat(logits)
        self._correct.append((outputs.argmax(1) == targets).sum())
        for metric in self.metrics.values():
            metric.to(outputs.device).update(outputs.float().softmax(1), targets)

    def totals(self) -> Tensor:
        """Sum of losses over images, number of correct predictions, number of images."""
        if not self._sizes:
            return torch.zeros(3)
        # sums loaded from a checkpoint are on the CPU
        losses = torch.cat([losses.cpu() for losses in self._losses]).double()
        correct = torch.stack([correct.cpu() for correct in self._correct]).sum().double()
        sizes = torch.tensor(self._sizes, dtype=torch.float64)
        return torch.stack([(losses * sizes).sum(), correct, sizes.sum()])

    def measured(self) -> dict[str, Tensor]:
        """The values of `metrics` over the batches so far."""
        return {name: metric.compute().cpu().double() for name, metric in self.metrics.items()}

    def first_not_finite(self) -> int | None:
        """Index of the first batch with a loss that is NaN or infinite.

        Only batches since the last call are checked; once one is found, training cannot continue.
        """
        for losses in self._losses[self._calls_checked :]:
            bad = (~losses.isfinite()).nonzero()
            if len(bad):
                return self._batches_checked + int(bad[0])
            self._calls_checked += 1
            self._batches_checked += len(losses)
        return None

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and tensors, for a checkpoint."""
        return {
            "losses": [loss for losses in self._losses for loss in losses.tolist()],
            "sizes": list(self._sizes),
            "hits": [int(correct) for correct in self._correct],
            "metrics": {name: dict(metric.state_dict()) for name, metric in self.metrics.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.reset()
        if state["sizes"]:
            self._losses = [torch.tensor(state["losses"])]
            self._sizes = list(state["sizes"])
            self._correct = [torch.tensor(correct) for correct in state["hits"]]
            for name, metric in self.metrics.items():
                metric.load_state_dict(state["metrics"][name])
