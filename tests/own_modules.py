"""LightningModules as users write them, with all that has a state or draws numbers."""

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import nn
from torchmetrics.classification import MulticlassAccuracy


class Lit(LightningModule):
    """Dropout, batch norm, two schedulers, metrics per step, per epoch and every other epoch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveMaxPool2d(3)),
            *(nn.Flatten(), nn.Linear(36, num_classes)),
        )
        self.train_acc = MulticlassAccuracy(num_classes)
        self.rate = 0.0

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.02)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e3)
        return [optimizer], [
            torch.optim.lr_scheduler.StepLR(optimizer, 2),
            {"scheduler": plateau, "monitor": "val/loss"},
        ]

    def forward(self, images):
        return self.network(F.dropout(images, self.rate, self.training))

    def on_train_epoch_start(self):
        self.rate = float(torch.rand(())) / 2

    def training_step(self, batch, batch_idx):
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels)
        self.train_acc(logits, labels)
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        logits = self(images)
        self.log("val/loss", F.cross_entropy(logits, labels))
        self.log("val/acc", (logits.argmax(1) == labels).float().mean())
        if self.current_epoch % 2 == 0:
            self.log("val/margin", logits.max())

    def test_step(self, batch, batch_idx):
        images, labels = batch
        logits = self.network(F.dropout(images, 0.1))
        self.log("test/loss", F.cross_entropy(logits, labels))
        self.log("test/acc", (logits.argmax(1) == labels).float().mean())
