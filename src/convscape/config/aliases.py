"""What people type who come from Keras, timm, Lightning or argparse, and what it is called here."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

MAX_LETTERS = 60  # of a value that is repeated

# A word, as an option or as the last part of a key: the key that it means here.
KEYS = {
    "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    "wd": "optimizer.weight_decay",
    "momentum": "optimizer.momentum",
    "opt": "optimizer",
    "optim": "optimizer",
    "sched": "scheduler",
    "lr_scheduler": "scheduler",
    "warmup_epochs": "scheduler.warmup_epochs",
    "epochs": "trainer.max_epochs",
    "epoch": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "max_steps": "trainer.max_steps",
    "patience": "trainer.early_stopping",
    "gradient_clip_val": "trainer.gradient_clip_norm",
    "clip_grad": "trainer.gradient_clip_norm",
    "grad_clip": "trainer.gradient_clip_norm",
    "clipnorm": "trainer.gradient_clip_norm",
    "accelerator": "trainer.device",
    "device": "trainer.device",
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "devices": "trainer.devices",
    "precision": "trainer.precision",
    "num_threads": "trainer.threads",
    "threads": "trainer.threads",
    "batch_size": "data.batch_size",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "dataset": "data",
    "data_dir": "data.root",
    "data_path": "data.root",
    "path": "data.root",
    "train_size": "data.train_size",
    "img_size": "data.image_size",
    "image_size": "data.image_size",
    "val_split": "data.val_size",
    "validation_split": "data.val_size",
    "hflip": "data.augment.flip",
    "horizontal_flip": "data.augment.flip",
    "arch": "model",
    "network": "model",
    "filters": "model.channels",
    "num_filters": "model.channels",
    "channels": "model.channels",
    "kernel": "model.kernel_size",
    "kernel_size": "model.kernel_size",
    "stride": "model.stride",
    "strides": "model.stride",
    "pooling": "model.pool",
    "drop": "model.dropout",
    "dropout": "model.dropout",
    "dropout_rate": "model.dropout",
    "activation": "model.activation",
    "act": "model.activation",
    "hidden": "model.hidden",
    "units": "model.hidden",
    "hidden_sizes": "model.hidden",
    "hidden_layer_sizes": "model.hidden",
    "loss": "model.loss",
    "smoothing": "model.label_smoothing",
    "label_smoothing": "model.label_smoothing",
    "seed": "seed",
    "random_state": "seed",
    "random_seed": "seed",
    "manual_seed": "seed",
    "exp_name": "name",
    "experiment_name": "name",
    "log_dir": "output_dir",
    "default_root_dir": "output_dir",
    "save_dir": "output_dir",
    "ckpt_path": "resume",
    "resume_from_checkpoint": "resume",
}

# Values that have another name here.
VALUES = {
    ("trainer.device", "gpu"): "cuda",
    ("trainer.precision", "bf16-mixed"): "bf16",
    ("model.activation", "swish"): "silu",
}

# A word for which there is nothing here, and why.
NOTHING = {
    "num_workers": "all images are one tensor in memory, and no process loads them",
    "n_workers": "all images are one tensor in memory, and no process loads them",
    "workers": "all images are one tensor in memory, and no process loads them",
    "pin_memory": "the images are moved to the device once, as one tensor",
    "persistent_workers": "all images are one tensor in memory, and no process loads them",
    "shuffle": "training images come in another order in each epoch, others never",
    "accumulate_grad_batches": "data.batch_size is the whole batch of an optimiser step",
    "check_val_every_n_epoch": "validation comes after every epoch",
    "val_check_interval": "validation comes after every epoch",
    "log_every_n_steps": "metrics are those of whole epochs",
    "metrics": "loss and accuracy are always measured",
    "num_classes": "the data set knows its classes",
    "pretrained": "networks begin with random weights, see model.init",
    "strategy": "several GPUs train by DDP: trainer.devices says how many",
}


def advice(key: str, value: Any, known: Collection[str]) -> str | None:
    """What to do about a key or an option that there is not, to come after "there is no such ...".

    - `known`: the keys that there are.
    """
    word = word_of(key)
    if word == "claim":
        name = value if isinstance(value, str) and value else "<claim>"
        return f"; a claim has a command of its own: python scripts/claim.py {name}"
    if why := NOTHING.get(word):
        return f", and nothing to set: {why}"
    meant = KEYS.get(word)
    return None if meant is None or meant not in known else f"; write {with_value(meant, value)}"


def with_value(key: str, value: Any) -> str:
    """`key=value` as it is called here; the dots are for the reader to fill in."""
    if isinstance(value, bool):
        value = str(value).lower()
    is_short = isinstance(value, str | int | float) and len(str(value)) <= MAX_LETTERS
    return f"{key}={(is_short and VALUES.get((key, str(value)), value)) or '...'}"


def word_of(key: str) -> str:
    """The word to look up for a key or an option: `max_epochs` for --max-epochs."""
    return key.lstrip("-+~").rpartition(".")[2].lower().replace("-", "_")
