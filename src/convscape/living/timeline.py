"""How a network was trained: its weights after each epoch, as a page stores them."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from convscape.base.errors import ConfigError
from convscape.base.weights import BROKEN
from convscape.living.document import layer_tensors
from convscape.models.classifier import ImageClassifier
from convscape.runs.folder import RunFolder
from convscape.trained.load import TrainedRun
from convscape.training.checkpoints import read_checkpoint

MAX_BYTES = 2**20  # of the page; always at least the weights of four epochs
MIN_EPOCHS = 4
CURVES = ("train/acc", "val/acc", "train/loss", "val/loss")


@torch.no_grad()
def facts(run: TrainedRun) -> dict[str, Any] | None:
    """The kept epochs of a run: weights in float16, curves, and which epoch was chosen.

    If they do not all fit the page, some are left out, evenly. None if none were kept.

    Raises:
        ConfigError: if one of their files cannot be read, or belongs to another network.
    """
    folder, model = RunFolder(run.path), copy.deepcopy(run.model)
    if not folder.epoch_file(1).is_file():
        return None
    assert isinstance(model, ImageClassifier)
    assert model.plan is not None
    history = run.history
    kept = [n for n in range(len(history) + 1) if folder.epoch_file(n).is_file()]
    known = RunFolder(run.path).read_result()
    best = known.best_epoch if known is not None else None
    chosen = best if best in kept else None
    shown = _sample(kept, chosen, model.plan.num_parameters)
    epochs = []
    for number in shown:
        file = folder.epoch_file(number)
        checkpoint = read_checkpoint(file)
        try:
            model.load_state_dict(checkpoint["state_dict"])
            step = int(checkpoint["global_step"])
        except BROKEN:
            raise ConfigError(f"{file} does not hold weights of this network") from None
        names = [row.name for row in model.plan.all_layers]
        tensors = [layer_tensors(model.network.get_submodule(n), "float16") for n in names]
        epochs.append({"epoch": number, "step": step, "tensors": tensors})
    return {
        "epochs": epochs,
        "chosen": shown.index(chosen) if chosen is not None else None,
        "left_out": len(kept) - len(shown),
        "curves": {
            name: [value if np.isfinite(value) else None for value in map(float, history[name])]
            for name in CURVES
            if name in history and np.issubdtype(history[name].dtype, np.number)
        },
    }


def _sample(kept: list[int], chosen: int | None, num_parameters: int) -> list[int]:
    """As many as fit, always with the first, the last and the chosen one."""
    most = max(MIN_EPOCHS, MAX_BYTES // max(1, num_parameters * 2 * 4 // 3))
    if len(kept) <= most:
        return kept
    places = np.linspace(0, len(kept) - 1, most).round().astype(int)
    return sorted({*(kept[place] for place in places), *([] if chosen is None else [chosen])})
