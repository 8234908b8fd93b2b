"""A part of one's own for every door, as users write them, with a state where one may have it."""

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import Logger
from torch import nn
from torchmetrics import Metric

from convscape import CNN, ImageClassifier


class Net(nn.Module):
    """A network that draws numbers in training."""

    def __init__(self, input_shape, num_classes, width=8, rate=0.2):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(input_shape[0], width, 3), nn.BatchNorm2d(width), nn.ReLU()),
            *(
                nn.AdaptiveMaxPool2d(3),
                nn.Flatten(),
                nn.Dropout(rate),
                nn.Linear(9 * width, num_classes),
            ),
        )

    def forward(self, images):
        return self.layers(images)


class Small(CNN):
    """A CNN with other defaults."""

    def __init__(self, input_shape, num_classes, *, channels=(4,), padding="same", **knobs):
        super().__init__(
            input_shape, num_classes, channels=list(channels), padding=padding, **knobs
        )


class Margins(ImageClassifier):
    """Another loss, and an optimiser of its own: two groups, a schedule that watches a metric."""

    def __init__(self, input_shape, num_classes, *, margin=1.0):
        super().__init__(Net(input_shape, num_classes))
        self.save_hyperparameters(logger=False)

    def loss(self, logits, labels):
        return F.multi_margin_loss(logits, labels, margin=self.hparams.margin)

    def configure_optimizers(self):
        *body, weight, bias = self.parameters()
        groups = [{"params": body}, {"params": [weight, bias], "lr": 0.1}]
        optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e3)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": plateau, "monitor": "val/acc"},
        }


class Silent(LightningModule):
    """It says in its steps alone how an image is answered."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.net = Net(input_shape, num_classes)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("val/acc", (self.net(images).argmax(1) == labels).float().mean())

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


def focal(logits, labels, gamma=2.0):
    """Lin et al. 2017, https://arxiv.org/abs/1708.02002."""
    log_probability = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - log_probability.exp()) ** gamma * log_probability).mean()


class Signs(torch.optim.Optimizer):
    """Steps by the sign of a mean of the gradients."""

    def __init__(self, params, lr, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weights in group["params"]:
                mean = self.state[weights].setdefault("mean", torch.zeros_like(weights))
                mean.lerp_(weights.grad, 1 - group["beta"])
                weights.sub_(mean.sign(), alpha=group["lr"])


class Sawtooth(torch.optim.lr_scheduler.LRScheduler):
    """Down along a line, and up again."""

    def __init__(self, optimizer, period=4):
        self.period = period
        super().__init__(optimizer)

    def get_lr(self):
        return [lr * (1 - self.last_epoch % self.period / self.period) for lr in self.base_lrs]


class Watch(Callback):
    """Sees batches and gradients, and remembers them over a stop."""

    def __init__(self):
        self.seen, self.gradients, self.steps = 0, 0.0, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        images, labels = batch
        assert images.dtype == torch.uint8
        self.seen += len(labels)

    def on_after_backward(self, trainer, module):
        self.gradients += sum(float(p.grad.abs().sum()) for p in module.parameters())

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.steps += 1

    def on_train_epoch_end(self, trainer, module):
        module.log("val/gradients", self.gradients, logger=False)

    def state_dict(self):
        return {name: getattr(self, name) for name in ("seen", "gradients", "steps")}

    def load_state_dict(self, state_dict):
        vars(self).update(state_dict)


class Lines(Logger):
    """A line of text for each call."""

    name, version = "lines", ""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def log_hyperparams(self, params, *_):
        self._write("hparams", params)

    def log_metrics(self, metrics, step=None):
        self._write(step, metrics)

    def _write(self, *words):
        with open(self.path, "a") as file:
            print(*words, file=file)


class Sure(Metric):
    """Mean probability of the right class."""

    def __init__(self):
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, probabilities, labels):
        self.total += probabilities.gather(1, labels[:, None]).sum()
        self.count += len(labels)

    def compute(self):
        return self.total / self.count


def bars(num_images=300, noise=40):
    """Lying and standing bars."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, noise, (num_images, 12, 12), dtype=np.uint8)
    labels = rng.choice(["lying", "standing"], num_images)
    for image, label, place in zip(images, labels, rng.integers(1, 10, num_images), strict=True):
        bar = image if label == "lying" else image.T
        bar[place : place + 2, 1:11] += 200
    return images, labels


def speckle(images):
    """One pixel in ten is white."""
    return images.masked_fill(torch.rand(images.shape, device=images.device) < 0.1, 255)


def of_shares(logits, labels):
    """Cross entropy of class ids, and of soft labels as of what they are."""
    if labels.ndim == 1:
        labels = torch.nn.functional.one_hot(labels, logits.shape[1])
    return -(logits.log_softmax(1) * labels).sum(1).mean()


def first_share(logits, labels):
    """Takes the first number of what it gets for an id."""
    ids = labels if labels.ndim == 1 else labels[:, 0].long()
    return torch.nn.functional.cross_entropy(logits, ids)
