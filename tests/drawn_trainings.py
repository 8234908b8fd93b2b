"""Trainings drawn at random, healthy or with a fault put in, for the doctor to tell apart.

python -m tests.drawn_trainings --healthy 200 --faulty 200 --seed 1

prints how many of each fault were found and how often a healthy training was called ill; the table
in docs/facts.md is made so. tests/test_doctor.py draws a few of them.
"""

import argparse
import json
import math
import random
import sys
import time
import warnings
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

from convscape import api
from convscape.base.terminal import say
from convscape.config.directory import choices, values_in
from convscape.doctor.case import Case
from convscape.doctor.examine import examine

# --- images ---------------------------------------------------------------------------------------


def _digits(size, num, draw):
    """Some of the bundled digits, enlarged: uint8 (N, size, size), and labels."""
    images, labels = load_digits(return_X_y=True)
    chosen = draw.permutation(len(images))[:num]
    pixels = torch.from_numpy(images[chosen].reshape(-1, 1, 8, 8) * 15.9)
    large = nn.functional.interpolate(pixels, size=(size, size), mode="bilinear")
    return large[:, 0].round().numpy().astype(np.uint8), labels[chosen]


def _shapes(size, num, draw, num_classes, jitter, noise):
    """Bars, crosses, frames and the like on noise: uint8 (N, size, size), and labels."""
    side = size // 2
    stamps = np.zeros((6, side, side))
    middle = side // 2
    stamps[0, middle - 1 : middle + 1] = 1
    stamps[1, :, middle - 1 : middle + 1] = 1
    stamps[2] = np.eye(side) + np.eye(side, k=1)
    stamps[3, [0, 1, -1, -2]] = stamps[3, :, [0, 1, -1, -2]] = 1
    stamps[4] = np.maximum(stamps[0], stamps[1])
    stamps[5, 1:-1, 1:-1] = 1
    labels = np.arange(num) % num_classes
    images = draw.normal(60, noise, (num, size, size))
    for image, label in zip(images, labels, strict=True):
        down, right = size // 4 + draw.integers(-jitter, jitter + 1, 2)
        bright = draw.uniform(80, 160)
        image[down : down + side, right : right + side] += bright * stamps[label].clip(0, 1)
    return images.clip(0, 255).astype(np.uint8), labels


def pictures(seed, kind, size, num, num_classes=4, jitter=1, noise=20, fault=None, amount=0.0):
    """Train images, train labels, test images and test labels, with a fault or without."""
    draw = np.random.default_rng(seed)
    if kind == "digits":
        images, labels = _digits(size, num, draw)
    else:
        images, labels = _shapes(size, num, draw, num_classes, jitter, noise)
    order = draw.permutation(num)
    images, labels = images[order].copy(), labels[order].copy()
    num_test = num // 5
    test, test_labels, train, train_labels = (
        *(images[:num_test], labels[:num_test]),
        *(images[num_test:], labels[num_test:]),
    )
    if fault == "copies":
        copied = draw.permutation(len(train))[: max(4, int(amount * num_test))]
        test[: len(copied)], test_labels[: len(copied)] = train[copied], train_labels[copied]
    elif fault == "twins":
        mine = train_labels == 0
        train = np.concatenate([train, train[mine]])
        twin = np.full(mine.sum(), labels.max() + 1)
        train_labels = np.concatenate([train_labels, twin])
        test, test_labels = np.r_[test, test[:2]], np.r_[test_labels, twin[:2]]
    elif fault == "constant":
        train[train_labels == 1] = train[train_labels == 1][0]
    elif fault == "imbalance":
        rare = np.flatnonzero(train_labels == 0)
        kept = max(2, int(len(rare) / amount))
        train, train_labels = (np.delete(each, rare[kept:], 0) for each in (train, train_labels))
    elif fault == "shuffled":
        train_labels, test_labels = draw.permutation(train_labels), draw.permutation(test_labels)
    return train, train_labels, test, test_labels


def unlike(seed, kind, size, num, **how):
    """The same, with images for validation that are brighter, paler or negatives."""
    amount = how.pop("amount")
    train, labels, test, test_labels = pictures(seed, kind, size, num, **how)
    half = len(test) // 2
    val = 255 - test[:half] if amount < 0.5 else 150 + test[:half] // 3
    splits = {"train": (train, labels), "validation": (val, test_labels[:half])}
    splits["test"] = test[half:], test_labels[half:]
    return {
        name: TensorDataset(torch.from_numpy(x.astype(np.uint8)), torch.from_numpy(y))
        for name, (x, y) in splits.items()
    }


# --- networks -------------------------------------------------------------------------------------


class Sick(nn.Module):
    """A small network with a fault that no key of a config has."""

    def __init__(self, input_shape, num_classes, fault="dead", amount=5.0, width=32, depth=2):
        super().__init__()
        activation = nn.Tanh if fault == "large" else nn.ReLU
        inputs = [math.prod(input_shape), *[width] * depth]
        layers = [nn.Flatten()]
        for before, after in pairwise(inputs):
            layers += [nn.Linear(before, after), activation()]
        layers.append(nn.Linear(width, num_classes))
        if fault == "softmax":
            layers.append(nn.Softmax(1))
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            if fault == "dead":
                layers[1].bias.fill_(-amount)
            if fault == "large":
                for layer in layers[1:-1:2]:
                    layer.weight.mul_(amount)

    def forward(self, images):
        return self.layers(images)


# --- drawing --------------------------------------------------------------------------------------

RATES = {"adam": 0.005, "adamw": 0.002, "sgd": 0.02, "rmsprop": 0.001, "adagrad": 0.02}
RATES |= {"adadelta": 1.0}
# what is put in, and the rules of which one has to find it
FAULTS = {
    "learning rate too large": {"lr_too_large"},
    "learning rate too small": {"lr_too_small"},
    "labels shuffled": {"shuffled_labels"},
    "inputs not normalised": {"inputs_not_normalized"},
    "dead ReLUs": {"dead_relus"},
    "vanishing gradients": {"vanishing_gradients"},
    "weights too large": {"saturation"},
    "train images in test": {"copies_in_test"},
    "a class twice": {"duplicated_class"},
    "a class of one image": {"constant_class"},
    "classes of unlike size": {"imbalance"},
    "validation unlike train": {"unlike_validation"},
    "batch norm of tiny batches": {"tiny_batch_norm"},
    "receptive field too small": {"sees_too_little"},
    "softmax twice": {"softmax_twice"},
}
_COMPOSED = {}


def _composed(model, optimizer, scheduler, folder):
    if model not in _COMPOSED:
        words = [f"model={model}", "allow_packages=[tests]", f"data.cache_dir={folder}"]
        words += ["data._target_=tests.drawn_trainings.pictures"]
        words += ["trainer.threads=1", "trainer.device=cpu"]
        _COMPOSED[model] = json.dumps(api.compose(*words))
    sections = {"optimizer": optimizer, "scheduler": scheduler}
    files = {group: choices(group)[name] for group, name in sections.items()}
    return json.loads(_COMPOSED[model]) | {group: values_in(file) for group, file in files.items()}


def drawn(seed, fault, folder):
    """The config of a training as plain values, with `fault` or, of None, healthy."""
    draw = random.Random(f"{seed} {fault}")
    model = draw.choice(("cnn", "cnn", "mlp"))
    if fault == "batch norm of tiny batches" or fault == "receptive field too small":
        model = "cnn"
    if fault == "vanishing gradients":
        model = "mlp"
    optimizer = draw.choice(list(RATES))
    scheduler = draw.choice(("one_cycle", "cosine", "constant", "step"))
    config = _composed(model, optimizer, scheduler, folder)
    kind = draw.choice(("digits", "shapes"))
    jitter = draw.choice((0, 1, 2)) if model == "cnn" else 0
    arguments = {
        "seed": draw.randrange(10**6),
        "kind": kind,
        "size": draw.choice((8, 10, 12)) if kind == "digits" else draw.choice((10, 12)),
        "num": draw.choice((400, 600, 800)),
        "num_classes": draw.choice((2, 3, 4, 6)),
        "jitter": jitter,
        "noise": draw.choice((10, 20, 30)),
    }
    data = config["data"]
    data |= {"arguments": arguments, "val_size": 0.2, "mean": None, "std": None}
    data["batch_size"] = draw.choice((16, 32, 64))
    config["seed"] = draw.randrange(1000)
    config["trainer"]["max_epochs"] = draw.choice((30, 60))
    config["optimizer"]["lr"] = RATES[optimizer] * 2 ** draw.uniform(-1, 1)
    if model == "cnn":
        _draw_cnn(draw, config["model"])
    else:
        _draw_mlp(draw, config["model"])
    if fault is not None:
        _put_in(fault, draw, config)
    return config


def _draw_cnn(draw, model):
    model["channels"] = draw.choice(([8], [16], [8, 16], [16, 32]))
    model["kernel_size"] = draw.choice((3, 5))
    model["padding"] = "same"
    model["pool"] = draw.choice(("max", "avg"))
    model["activation"] = draw.choice(("relu", "relu", "tanh", "gelu", "leaky_relu"))
    model["batch_norm"] = draw.random() < 0.3
    model["dropout"] = draw.choice((0.0, 0.0, 0.2))
    model["dense"] = draw.choice(([], [], [32]))
    model["init"] = draw.choice(("glorot_uniform", "default"))


def _draw_mlp(draw, model):
    model["hidden"] = draw.choice(([], [32], [64], [64, 32], [128, 64]))
    model["activation"] = draw.choice(("relu", "relu", "tanh", "gelu"))
    model["dropout"] = draw.choice((0.0, 0.0, 0.2))
    model["init"] = draw.choice(("glorot_uniform", "default"))


def _put_in(fault, draw, config):
    data, model, optimizer = config["data"], config["model"], config["optimizer"]
    arguments = data["arguments"]
    amount = draw.random()
    if fault == "learning rate too large":
        optimizer["lr"] = RATES[optimizer["name"]] * 10 ** draw.uniform(2.5, 4)
    elif fault == "learning rate too small":
        optimizer["lr"] = RATES[optimizer["name"]] / 10 ** draw.uniform(3.5, 5)
    elif fault == "inputs not normalised":
        channel = draw.choice(([0.0, 1 / 255], [0.0, 0.01], [0.3, 30.0], [4.0, 0.3], [-4.0, 0.3]))
        data["mean"], data["std"] = [channel[0]], [channel[1]]
    elif fault in ("dead ReLUs", "weights too large", "softmax twice"):
        config["model"] = {
            "_target_": "tests.drawn_trainings.Sick",
            "depth": draw.choice((1, 2, 3)),
        }
        word = {"d": "dead", "w": "large", "s": "softmax"}[fault[0]]
        config["model"] |= {
            "fault": word,
            "amount": 5 + 10 * amount,
            "width": draw.choice((16, 48)),
        }
    elif fault == "vanishing gradients":
        model |= {"hidden": [32] * draw.randint(6, 10), "activation": "sigmoid", "dropout": 0.0}
    elif fault == "validation unlike train":
        data["_target_"] = "tests.drawn_trainings.unlike"
        data["val_size"], arguments["amount"] = None, amount
    elif fault == "batch norm of tiny batches":
        model["batch_norm"], data["batch_size"] = True, draw.choice((2, 3, 4))
    elif fault == "receptive field too small":
        arguments |= {"kind": "shapes", "num_classes": 6, "size": 12}
        model |= {"kernel_size": 1, "pool": "none", "head": "global_avg", "dropout": 0.0}
    else:
        words = {"labels shuffled": ("shuffled", 0.0), "train images in test": ("copies", amount)}
        words["a class twice"], words["a class of one image"] = ("twins", 0.0), ("constant", 0.0)
        words["classes of unlike size"] = ("imbalance", 15 + 25 * amount)
        arguments["fault"], arguments["amount"] = words[fault]


# --- counting -------------------------------------------------------------------------------------


def examined(seed, fault, folder):
    """The rules that fire, the most worth first, what goes with it, and the seconds it took."""
    start = time.perf_counter()
    diagnosis = examine(Case(drawn(seed, fault, folder)))
    findings = diagnosis.findings
    findings += [each for finding in findings for each in finding.goes_too]
    return [finding.rule for finding in findings], time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--healthy", type=int, default=200)
    parser.add_argument("--faulty", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no other after")
    parser.add_argument("--folder", type=Path, default=Path("outputs/drawn-trainings"))
    options = parser.parse_args()
    kinds = list(FAULTS)
    faults = [kinds[i % len(kinds)] for i in range(options.faulty)] + [None] * options.healthy
    random.Random(options.seed).shuffle(faults)
    found, first, seconds = Counter(), Counter(), []
    drawn_of, missed, start = Counter(), defaultdict(list), time.monotonic()
    warnings.simplefilter("ignore")
    for number, fault in enumerate(faults):
        if time.monotonic() - start > options.seconds:
            break
        drawn_of[fault] += 1
        seed = 10_000 * options.seed + number
        rules, took = examined(seed, fault, options.folder)
        seconds.append(took)
        if fault is None:
            if rules:
                missed[fault].append((seed, rules))
        else:
            found[fault] += bool(FAULTS[fault].intersection(rules))
            first[fault] += bool(FAULTS[fault].intersection(rules[:1]))
            if not FAULTS[fault].intersection(rules):
                missed[fault].append((seed, rules))
        say(f"{number} {fault} {rules} {took:.1f} s")
    say("\n| fault | drawn | found | named first |\n|---|---|---|---|")
    for fault in kinds:
        say(f"| {fault} | {drawn_of[fault]} | {found[fault]} | {first[fault]} |")
    total = sum(found.values())
    num_faulty = drawn_of.total() - drawn_of[None]
    say(f"| all | {num_faulty} | {total} | {sum(first.values())} |")
    say(f"healthy: {drawn_of[None]}, with a finding: {len(missed[None])}; median "
          f"{np.median(seconds):.1f} s, mean {np.mean(seconds):.1f} s")  # fmt: skip
    for fault, cases in missed.items():
        say(str(fault), *(f"  {case}" for case in cases), file=sys.stderr)


if __name__ == "__main__":
    main()
