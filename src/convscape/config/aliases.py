"""What users of Keras, timm, Lightning or argparse type, and its name here.

A word that is the last part of only one key (`milestones`) needs no entry. The caller checks all
advice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from convscape.base.distribution import command_name
from convscape.base.values import typed_value
from convscape.config.directory import choices, values_in

MAX_LETTERS = 60  # of a value that a message repeats

Refusal = Callable[[Sequence[str]], str | None]  # returns why overrides are refused, or None

# The key that a word means here, as an option or as the last part of a key.
KEYS = {
    "learning_rate": "optimizer.lr",
    "base_lr": "optimizer.lr",
    "lr": "optimizer.lr",
    "wd": "optimizer.weight_decay",
    "epsilon": "optimizer.eps",
    "opt_eps": "optimizer.eps",
    "beta_1": "optimizer.betas",
    "opt_betas": "optimizer.betas",
    "opt": "optimizer",
    "optim": "optimizer",
    "sched": "scheduler",
    "lr_scheduler": "scheduler",
    "decay_milestones": "scheduler.milestones",
    "decay_epochs": "scheduler.step_epochs",
    "decay_rate": "scheduler.gamma",
    "epochs": "trainer.max_epochs",
    "epoch": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "patience": "trainer.early_stopping",
    "eval_metric": "trainer.monitor",
    "class_weight": "loss.class_weights",
    "criterion": "loss",
    "gradient_clip_val": "trainer.gradient_clip_norm",
    "clip_grad": "trainer.gradient_clip_norm",
    "grad_clip": "trainer.gradient_clip_norm",
    "clipnorm": "trainer.gradient_clip_norm",
    "accelerator": "trainer.device",
    "gpus": "trainer.devices",
    "num_gpus": "trainer.devices",
    "precision": "trainer.precision",
    "amp": "trainer.precision",
    "fp16": "trainer.precision",
    "bf16": "trainer.precision",
    "mixed_precision": "trainer.precision",
    "num_threads": "trainer.threads",
    "verbose": "trainer.progress",
    "enable_progress_bar": "trainer.progress",
    "torchcompile": "trainer.compile",
    "batch": "data.batch_size",
    "bs": "data.batch_size",
    "validation_batch_size": "data.eval_batch_size",
    "dataset": "data",
    "data_dir": "data.root",
    "data_path": "data.root",
    "path": "data.root",
    "img_size": "data.image_size",
    "input_size": "data.image_size",
    "in_chans": "data.channels",
    "val_split": "data.val_size",
    "validation_split": "data.val_size",
    "augment": "data.augment",
    "hflip": "data.augment.flip",
    "horizontal_flip": "data.augment.flip",
    "mixup_alpha": "data.augment.mixup",
    "cutmix_alpha": "data.augment.cutmix",
    "randaugment": "data.augment.rand_augment",
    "ra_magnitude": "data.augment.rand_augment",
    "reprob": "data.augment.random_erasing",
    "random_erase": "data.augment.random_erasing",
    "model_ema": "trainer.ema",
    "model_ema_decay": "trainer.ema",
    "ema_decay": "trainer.ema",
    "tta": "trainer.test_flip",
    "arch": "model",
    "network": "model",
    "filters": "model.channels",
    "num_filters": "model.channels",
    "channels": "model.channels",
    "kernel": "model.kernel_size",
    "strides": "model.stride",
    "pooling": "model.pool",
    "gp": "model.head",
    "bn": "model.batch_norm",
    "drop": "model.dropout",
    "dropout": "model.dropout",
    "dropout_rate": "model.dropout",
    "act": "model.activation",
    "units": "model.hidden",
    "hidden_sizes": "model.hidden",
    "hidden_layer_sizes": "model.hidden",
    "smoothing": "model.label_smoothing",
    "seed": "seed",
    "random_state": "seed",
    "random_seed": "seed",
    "manual_seed": "seed",
    "exp_name": "name",
    "experiment_name": "name",
    "output": "output_dir",
    "log_dir": "output_dir",
    "default_root_dir": "output_dir",
    "save_dir": "output_dir",
    "ckpt_path": "resume",
    "resume_from_checkpoint": "resume",
}

_HALF = dict.fromkeys(
    ("", "true", "native", "apex", "16", "16-mixed", "16-true", "fp16", "float16", "half",
     "bf16-mixed", "bf16-true", "bfloat16"), "bf16"
)  # fmt: skip
_NO = dict.fromkeys(("null", "none", "no", "off", "false"), "none")

# Values that have another name here; one that begins with a key and = replaces the whole override.
VALUES: dict[str, dict[str, str]] = {
    "trainer.device": {"gpu": "cuda"},
    "trainer.precision": _HALF | dict.fromkeys(("false", "32", "32-true", "float32"), "fp32"),
    "trainer.progress": {"0": "off", "false": "off", "1": "bar", "true": "bar", "2": "lines"},
    "trainer.monitor": {"top1": "val/acc", "acc": "val/acc", "val_acc": "val/acc",
                        "val_accuracy": "val/acc", "loss": "val/loss", "val_loss": "val/loss"},
    "model.activation": {"swish": "silu", "linear": "none"},
    "model.pool": _NO | {"average": "avg"},
    "model.head": {"avg": "global_avg", "max": "global_max"},
    "model.loss": dict.fromkeys(
        ("ce", "crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy",
         "nll"), "cross_entropy"),
    "loss": {
        **dict.fromkeys(
            ("ce", "cross_entropy", "crossentropy", "categorical_crossentropy",
             "sparse_categorical_crossentropy", "crossentropyloss"), "model.loss=cross_entropy"),
        **dict.fromkeys(("mse", "logits_mse", "mseloss", "mean_squared_error"), "model.loss=mse"),
        "softmax_mse": "model.loss=softmax_mse", "balanced": "loss.class_weights=balanced",
    },
    "callbacks": dict.fromkeys(
        ("early_stopping", "earlystopping"), "trainer.early_stopping=3"),
    "metrics": {
        "f1": "+metrics.f1._target_=torchmetrics.F1Score",
        "auroc": "+metrics.auroc._target_=torchmetrics.AUROC",
    },
    "model.output_layer": dict.fromkeys(("no", "off", "false"), "none"),
    "data.augment.flip": {"0.5": "true", "": "true"},
    "data.augment": {"flip": "data.augment.flip=true", "true": "data.augment.shift=2",
                     "hflip": "data.augment.flip=true", "shift": "data.augment.shift=2",
                     "cutout": "data.augment.cutout=8", "rotate": "data.augment.rotate=10",
                     "mixup": "data.augment.mixup=0.2", "cutmix": "data.augment.cutmix=1",
                     "rand_augment": "data.augment.rand_augment=9",
                     "randaugment": "data.augment.rand_augment=9",
                     "random_erasing": "data.augment.random_erasing=0.25"},
    "data.augment.rand_augment": {"true": "9"},
    "data.augment.random_erasing": {"true": "0.25"},
    "data.augment.mixup": {"true": "0.2"},
    "data.augment.cutmix": {"true": "1"},
    "trainer.ema": {"true": "0.999"},
    "trainer.test_flip": {"hflip": "true", "flip": "true", "1": "true", "2": "true"},
    "optimizer": {"momentum": "sgd", "nesterov": "sgd"} | {
        name.lower(): f"optimizer._target_=torch.optim.{name}"
        for name in ("NAdam", "RAdam", "Adamax", "ASGD", "Rprop", "Adafactor")},
    "scheduler": dict.fromkeys(_NO, "constant") | {
        **{name.lower(): f"scheduler._target_=torch.optim.lr_scheduler.{name}"
           for name in ("ReduceLROnPlateau", "CosineAnnealingWarmRestarts", "LinearLR",
                        "PolynomialLR")},
        "plateau": "scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau",
        "exponentiallr": "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR"
                         " +scheduler.gamma=0.9",
        "cosineannealinglr": "cosine", "cosine_annealing": "cosine", "onecyclelr": "one_cycle",
        "steplr": "step", "multisteplr": "multistep"},
    "logger": dict.fromkeys(_NO, "[]"),
    "model": {name: f"torchvision model.name={name}" for name in (
        "resnet18", "resnet34", "resnet50", "vgg11", "vgg16", "mobilenet_v2", "mobilenet_v3_small",
        "squeezenet1_1", "densenet121", "efficientnet_b0", "alexnet", "googlenet")} | {
              "softmax": "mlp model.hidden=[]", "linear": "mlp model.hidden=[]",
              "logistic": "mlp model.hidden=[]", "convnet": "cnn"},
    "data": {"fmnist": "fashion_mnist", "fashionmnist": "fashion_mnist", "folder": "image_folder",
             "imagefolder": "image_folder"},
}  # fmt: skip

_IN_MEMORY = "all images are one tensor in memory, and no process loads them"
_FEWER = (
    "data.train_size=<number> trains on fewer images, trainer.max_steps=<number> for fewer steps"
)
_OWN = "data.augment.own=[<package>.<function>] takes functions of your own, see docs/extending.md"
_SAVED = "the last and the best epoch are always saved; resume=<run folder> continues from the last"

# Words that have no counterpart here, and why.
NOTHING = {
    **dict.fromkeys(
        ("num_workers", "n_workers", "workers", "persistent_workers", "prefetch_factor"), _IN_MEMORY
    ),
    "pin_memory": "the images are moved to the device once, as one tensor",
    "shuffle": "training images are reshuffled every epoch; validation and test images never are",
    "accumulate_grad_batches": "data.batch_size is the whole batch of an optimiser step",
    "grad_accum_steps": "data.batch_size is the whole batch of an optimiser step",
    "steps_per_epoch": "an epoch goes through all training images once",
    "check_val_every_n_epoch": "validation runs after every epoch",
    "val_check_interval": "validation runs after every epoch",
    "log_every_n_steps": "metrics are those of whole epochs",
    "log_interval": "metrics are those of whole epochs",
    "num_classes": "the data set knows its classes",
    "input_shape": "the data set knows its shape; data.image_size=<H or HxW> changes it",
    "sample_weight": "every image has the same weight",
    "pretrained": "networks start with random weights, see model.init",
    "strategy": "several GPUs always train by DDP; trainer.devices says how many",
    "sync_batchnorm": "the processes of one run always share their statistics",
    **dict.fromkeys(
        ("checkpoint", "checkpoints", "enable_checkpointing", "save_best", "save_best_only",
         "model_checkpoint"), _SAVED
    ),
    **dict.fromkeys(("limit_train_batches", "overfit_batches", "fast_dev_run"), _FEWER),
    **dict.fromkeys(("vflip", "transform"), _OWN),
    "color_jitter": "data.augment.brightness=<share> and data.augment.contrast=<share> exist",
    **dict.fromkeys(("aa", "auto_augment"), "data.augment.rand_augment=9 exists"),
    **dict.fromkeys(
        ("jobs", "n_jobs"), "hydra/launcher=joblib trains the runs of a sweep side by side"
    ),
}  # fmt: skip


def advice(key: str, value: Any, known: Collection[str], refusal: Refusal) -> str | None:
    """What to do about a key or an option that does not exist, to follow "there is no such ...".

    - `known`: the keys that exist.
    """
    word, typed = word_of(key), _as_typed(value)
    if word == "claim":
        return f"; a claim has its own command: {command_name('claim')} {typed or '<claim>'}"
    if why := NOTHING.get(word):
        return f", and nothing to set: {why}"
    ways = list(_ways(key, typed, known))
    for way in ways:
        if way[-1].endswith("=...") or refusal(way) is None:
            return f"; write {' '.join(way)}"
    if not ways:
        return None
    meant = ways[0][-1].partition("=")[0]
    return f"; it is {meant} here, and {refusal(ways[0])}"


def _ways(key: str, value: str, known: Collection[str]) -> Iterator[list[str]]:
    """Overrides that the user may have meant, the likeliest first."""
    word = word_of(key)
    section = key.lstrip("-+~").rpartition(".")[0]
    ends = [k for k in known if k.rpartition(".")[2] == word]
    meant = KEYS.get(word) or (ends[0] if len(ends) == 1 else None)
    if meant is not None and meant in known:
        yield from with_values(meant, value)
        return
    leaf = meant.rpartition(".")[2] if meant else word
    for group, choice in _choices_with(leaf):
        if section in (group, ""):
            for way in with_values(f"{group}.{leaf}", value):
                yield [f"{group}={choice}", *way]


def _choices_with(leaf: str) -> Iterator[tuple[str, str]]:
    """Choices of groups that have such a key: optimizer=sgd has momentum."""
    for group in ("optimizer", "scheduler", "model"):
        # the plainest first: sgd before rmsprop
        files = sorted(choices(group).items(), key=lambda named: (len(named[0]), named[0]))
        yield from ((group, name) for name, file in files if leaf in _keys_of(file))


@cache
def _keys_of(file: Path) -> frozenset[str]:
    return frozenset(values_in(file))


def with_values(key: str, value: str) -> list[list[str]]:
    """`key=value` with the names used here; the reader fills in the dots."""
    if (named := named_here(key, value)) is not None:
        return [named]
    if not value or len(value) > MAX_LETTERS:
        return [[f"{key}=..."]]
    return [[f"{key}={value}"], *([] if value[0] == "[" else [[f"{key}=[{value}]"]])]


def named_here(key: str, value: Any) -> list[str] | None:
    """The overrides for a value of `key` that has another name here; None if it has none."""
    named = VALUES.get(key, {}).get(_as_typed(value).lower())
    if named is None:
        return None
    first, *others = named.split()
    return [first if "=" in first else f"{key}={first}", *others]


def _as_typed(value: Any) -> str:
    """A value as it would be typed on the command line; nothing for a section."""
    return "" if isinstance(value, dict) else typed_value(value)


def word_of(key: str) -> str:
    """The word to look up for a key or an option: `max_epochs` for --max-epochs."""
    return key.lstrip("-+~").rpartition(".")[2].lower().replace("-", "_")
