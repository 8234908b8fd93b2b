"""A run's answers image by image, from the logits that its validation and test compute."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from convscape.base.quick_lightning import pl
from convscape.models.classifier import ImageClassifier
from convscape.runs.folder import RunFolder
from convscape.runs.predictions import Answers, Predictions, write_answers

logger = logging.getLogger("convscape")


class AnswerKeeper(pl.callbacks.Callback):
    """Keeps the answers on the validation images of the best epoch, and on the test images.

    The validation answers are saved in the checkpoints, so a resumed run still has them. The logits
    are what a step of `ImageClassifier` returns; for a user's LightningModule, what its `forward`
    returns, if a step calls it once with the batch.
    """

    def __init__(self, num_classes: int, is_compiled: bool = False) -> None:
        self.num_classes, self.is_compiled = num_classes, is_compiled
        self.chosen: Predictions | None = None
        self._sums = PredictionSums()
        self._split = ""  # that is being evaluated
        self._unknown: dict[str, str] = {}  # why, by split
        self._seen: list[Any] = []
        self._hook: Any = None

    # --- what Lightning calls -----------------------------------------------------------------

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over."""
        self._begin("val")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start over."""
        self._begin("test")

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Listen to the forward of a module of the user's."""
        self._listen(pl_module)

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        """Listen to the forward of a module of the user's."""
        self._listen(pl_module)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take the answers on a batch."""
        self._take(pl_module, outputs, batch)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take the answers on a batch."""
        self._take(pl_module, outputs, batch)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        if self.chosen is None:
            return {}
        kind = torch.int16 if self.num_classes < 2**15 else torch.int32
        tensors = {name: torch.from_numpy(array) for name, array in vars(self.chosen).items()}
        return {k: v if v.is_floating_point() else v.to(kind) for k, v in tensors.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        if state_dict:
            self.chosen = Predictions(**{k: tensor.numpy() for k, tensor in state_dict.items()})

    # --- what the run calls -------------------------------------------------------------------

    def choose(self) -> None:
        """Keep the answers of the latest validation: its epoch is the best so far."""
        self.chosen = self._whole()
        self._sums.reset()

    def write(self, folder: RunFolder, data_checksum: str, num_val_images: int) -> None:
        """Write `predictions.npz` after the test, or note in the diary what is missing.

        Raises:
            OSError: if it cannot be written.
        """
        if self.chosen is not None and len(self.chosen) != num_val_images:
            self.chosen = None
        found = {"val": self.chosen, "test": self._whole()}
        known = {split: one for split, one in found.items() if one is not None}
        if known:
            write_answers(folder, Answers(known, data_checksum))
        for split in found.keys() - known.keys() - (set() if num_val_images else {"val"}):
            why = self._unknown.get(split, "the checkpoint that it continued from has none")
            logger.info(
                "predictions.npz has no answers on the %s images: %s; scripts/evaluate.py asks "
                "for them again",
                split,
                why,
            )

    # --- how ----------------------------------------------------------------------------------

    def _begin(self, split: str) -> None:
        self._sums.reset()
        self._split = split
        self._unknown.pop(split, None)

    def _whole(self) -> Predictions | None:
        found = None if self._split in self._unknown else self._sums.whole()
        if found is not None and (wrong := found.wrong_part()) is not None:
            self._unknown[self._split] = wrong
            return None
        return found

    def _listen(self, module: pl.LightningModule) -> None:
        self._seen = []
        if self._split in self._unknown or isinstance(module, ImageClassifier):
            return
        if self.is_compiled:  # a hook added after compiling is not called
            self._unknown[self._split] = "trainer.compile hides what a module's forward returns"
        else:
            self._hook = module.register_forward_hook(self._hear)

    def _hear(self, module: Any, arguments: Any, output: Any) -> None:
        self._seen.append(output)

    def _take(self, module: pl.LightningModule, outputs: Any, batch: Any) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        if self._split in self._unknown:
            return
        is_ours = isinstance(module, ImageClassifier)
        seen = [outputs] if is_ours else self._seen
        labels = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
        if not (isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.ndim == 1):
            self._unknown[self._split] = "its batches are not images and class ids"
        elif len(seen) == 1 and _are_logits(seen[0], (len(labels), self.num_classes)):
            self._sums.add(seen[0].detach(), labels, may_be_probabilities=not is_ours)
        else:
            name, step = type(module).__name__, f"{self._split.replace('val', 'validation')}_step"
            does = "return" if is_ours else "call self(images) once for"
            self._unknown[self._split] = f"{name}.{step} does not {does} the logits of a batch"


def _are_logits(output: Any, shape: tuple[int, int]) -> bool:
    return isinstance(output, Tensor) and output.shape == shape and output.is_floating_point()


class PredictionSums:
    """The answers on the batches so far: four numbers per image instead of all its logits."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._batches: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, may_be_probabilities: bool = False) -> None:
        """Take logits (N, K) and class ids (N,).

        - `may_be_probabilities`: rows that are nonnegative and sum to 1 are left as they are.
        """
        predicted = logits.argmax(1)  # as the metrics do: in bfloat16 two may be equal
        logits, chosen = logits.float(), labels.view(-1, 1)
        is_done = may_be_probabilities and are_probabilities(logits)
        probabilities = logits if is_done else logits.softmax(1)
        true = probabilities.gather(1, chosen)
        others = probabilities.scatter(1, chosen, -1.0).amax(1).clamp(min=0)  # 0: a single class
        true = true.squeeze(1).clamp(0, 1)
        self._batches.append((labels, predicted, true, true - others))

    def whole(self) -> Predictions | None:
        """The answers on all batches; None if there were none."""
        if not self._batches:
            return None
        arrays = (torch.cat(parts).cpu().numpy() for parts in zip(*self._batches, strict=True))
        return Predictions(*arrays)


def as_predictions(logits: Tensor, labels: Tensor, is_ours: bool) -> Predictions:
    """Answers from all the logits (N, K) of a split and its class ids (N,)."""
    sums = PredictionSums()
    sums.add(logits, labels, may_be_probabilities=not is_ours)
    found = sums.whole()
    assert found is not None
    return found


def are_probabilities(rows: Tensor) -> bool:
    """Whether rows (N, K) are already probabilities, as some users' networks return."""
    ones = torch.ones(len(rows), device=rows.device)
    return bool((rows >= 0).all()) and torch.allclose(rows.sum(1), ones, atol=1e-3)
