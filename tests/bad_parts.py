"""Parts with the mistakes that people make."""

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import nn


def no_mean(logits, labels):
    """One number for each image."""
    return (logits - 1).sum(1)


def detached(logits, labels):
    """Through NumPy, where autograd does not follow."""
    return torch.tensor(float(logits.detach().numpy().sum()))


class Learned(nn.Module):
    """A loss that is to be trained itself."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, labels):
        return self.scale * nn.functional.cross_entropy(logits, labels)


class Broken(torch.optim.SGD):
    """It cannot be made."""

    def __init__(self, params, lr):
        super().__init__(params, lr=1 / 0)


class Hoards(Callback):
    """Its state cannot be read again."""

    def state_dict(self):
        return {"best": [np.float64(1)]}


class Falls(Callback):
    """It fails in the middle of the training."""

    def on_train_epoch_end(self, trainer, module):
        raise RuntimeError("on purpose")
