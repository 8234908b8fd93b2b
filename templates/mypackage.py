"""A data set, a network, an augmentation, a loss and a metric of your own."""

import numpy as np
import torch
from torch import nn
from torchmetrics import Metric


def bars(num_images=600, noise=40):
    """Bars on noise, lying or standing: uint8 images (N, H, W), and a word for each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, noise, (num_images, 16, 16), dtype=np.uint8)
    labels = rng.choice(["lying", "standing"], num_images)
    for image, label, place in zip(images, labels, rng.integers(1, 14, num_images), strict=True):
        bar = image if label == "lying" else image.T
        bar[place : place + 2, 2:14] += 150
    return images, labels


class Residual(nn.Module):
    """A convolution in, `depth` residual ones, the mean over the image out."""

    def __init__(self, input_shape, num_classes, width=16, depth=2):
        super().__init__()
        self.first = nn.Conv2d(input_shape[0], width, 3, padding=1)
        self.blocks = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(depth))
        self.last = nn.Linear(width, num_classes)

    def forward(self, images):
        """Logits (N, num_classes) of images (N, C, H, W), of zero mean and unit deviation."""
        maps = self.first(images)
        for block in self.blocks:
            maps = maps + block(maps.relu())
        return self.last(maps.relu().amax(dim=(2, 3)))


def speckle(images):
    """One pixel in fifty is white; uint8 (N, C, H, W) in and out, drawn from torch alone."""
    return images.masked_fill(torch.rand(images.shape, device=images.device) < 0.02, 255)


def focal(logits, labels, gamma=2.0):
    """Cross-entropy with less weight on images that are already right.

    A number from logits (N, num_classes) and labels (N,); with `gamma` 0 it is cross-entropy.
    Lin et al. 2017, https://arxiv.org/abs/1708.02002
    """
    log_probability = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - log_probability.exp()) ** gamma * log_probability).mean()


class WorstClass(Metric):
    """The accuracy of the class that is recognised least often, 0..1."""

    def __init__(self, num_classes):
        super().__init__()
        self.add_state("right", torch.zeros(num_classes), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros(num_classes), dist_reduce_fx="sum")

    def update(self, probabilities, labels):
        """Count a batch: probabilities (N, K), labels (N,)."""
        is_right = (probabilities.argmax(dim=1) == labels).float()
        self.right.index_add_(0, labels, is_right)
        self.seen.index_add_(0, labels, torch.ones_like(is_right))

    def compute(self):
        """The lowest accuracy among the classes that were seen."""
        return (self.right / self.seen)[self.seen > 0].min()
