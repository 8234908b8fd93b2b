"""How simple methods classify the images, whatever the network does: answers (N,)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from convscape.doctor.trials import answers, train_on
from convscape.models import CNN

if TYPE_CHECKING:
    from convscape.doctor.case import Case

REFERENCE_STEPS = 150
REFERENCE = {"channels": [16, 32], "padding": "same", "batch_norm": True, "head": "global_max"}
REFERENCE_OPTIMIZER = {"name": "adam", "lr": 0.005}


def linear_answers(case: Case) -> np.ndarray:
    """Answers of a ridge regression from shrunk images to one-hot labels."""
    train, labels, others, _ = case.apart
    mean, std = train.mean(0), train.std(0) + 1e-3
    inputs = F.pad((train - mean) / std, (0, 1), value=1.0).double()
    targets = F.one_hot(labels, case.num_classes).double()
    square = inputs.T @ inputs + 0.1 * len(inputs) * torch.eye(inputs.shape[1]).double()
    weights = torch.linalg.solve(square, inputs.T @ targets)
    asked = F.pad((others - mean) / std, (0, 1), value=1.0).double()
    # with a prior that is all it would say about rare classes
    shares = targets.mean(0)
    found: np.ndarray = (asked @ weights - shares).argmax(1).numpy()
    return found


def nearest_answers(case: Case) -> np.ndarray:
    """The label of the train image nearest in shrunk pixels."""
    train, labels, others, _ = case.apart
    nearest = torch.cdist(others, train).argmin(1)
    found: np.ndarray = labels[nearest].numpy()
    return found


def reference_answers(case: Case) -> np.ndarray:
    """Answers of a small CNN that is known to learn, after a short training."""
    mean, std = case.run.image_set.normalization()
    training = {"mean": mean, "std": std, "classes": case.run.classes}
    training |= {"optimizer": REFERENCE_OPTIMIZER}
    torch.manual_seed(0)
    model = CNN(case.run.image_shape, case.num_classes, training=training, **REFERENCE)  # type: ignore[arg-type]
    images, labels = case.sample("train")
    num = len(case.apart[1])
    train_on(model, images[:num], labels[:num], REFERENCE_STEPS)
    found: np.ndarray = answers(model, images[num:]).numpy()
    return found
