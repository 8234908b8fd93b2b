"""Rules about the images and their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from functools import partial

import numpy as np
import torch
from torch import Tensor

from convscape.data.splits import VAL_FRACTION
from convscape.doctor.case import Case
from convscape.doctor.finding import Finding, Mend
from convscape.doctor.probes import linear_answers, nearest_answers, reference_answers
from convscape.doctor.trials import answers as answers_of

OF_THE_DATA = "it is in the data, where no key can mend it"
MAX_HASHED = 200_000  # images per split
NEAR = 0.2  # of the usual distance to the nearest image: anything closer is a copy
MOST_IMBALANCED = 10  # images of the largest class per image of the smallest
UNLIKE = 0.6  # standard deviations between the means of two splits
UNLIKE_SIGMAS = 7  # and as many standard errors
UNLIKE_CLASSES = 0.25  # of the images have other classes than in the other split
INPUT_MEAN, INPUT_STD = 2.0, (0.2, 5.0)  # of the first layer's inputs; they should be 0 and 1
SHUFFLES = 200  # of the labels, to measure luck
SIGMAS = 4.0  # of those; above this it is not luck


def copies_in_test(case: Case) -> Finding | None:
    """Images of the test or validation split that are also, or nearly, train images."""
    train = set(_digests(case, "train"))
    words, worst, splits = [], 0.0, []
    for split in ("test", "val"):
        if not len(case.data.indices[split]):
            continue
        digests = _digests(case, split)
        same, num = sum(digest in train for digest in digests), len(digests)
        near = _share_near(case, split)
        share = max(same / num, near)
        if share < 0.01 or (split == "val" and _is_within_train(case)):
            continue
        worst = max(worst, share)
        splits.append(split)
        almost = f", {100 * near:.0f} % of a sample nearly" if near > same / num else ""
        words.append(f"of {num:,} {split} images {same:,} are also train images{almost}")
    if not words:
        return None
    return Finding(
        says="images are used both for training and for measuring",
        measured="; ".join(words),
        why="memorised images count as right: the accuracy is too good to be true",
        mends=_validation_from_train(case, splits),
        advice=f"{OF_THE_DATA}: remove the copies before the splits are made",
        worth=worst,
    )


def _validation_from_train(case: Case, splits: Collection[str]) -> tuple[Mend, ...]:
    """What validates on train images, if the data's own split for it is among the faulty ones."""
    has_own = case.config.data.val_size is None and case.run.image_set.val_labels is not None
    return ({"data.val_size": VAL_FRACTION},) if has_own and "val" in splits else ()


def _is_within_train(case: Case) -> bool:
    """Whether validation is taken out of a train split that contains classes of copies."""
    has_copies = duplicated_class(case) is not None or constant_class(case) is not None
    return case.run.image_set.val_labels is None and has_copies


def _digests(case: Case, split: str) -> list[bytes]:
    """A hash of each image, with only some of them in memory at a time."""
    num = min(len(case.data.indices[split]), MAX_HASHED)
    return [
        hashlib.blake2b(image.tobytes(), digest_size=12).digest()
        for first in range(0, num, 1000)
        for image in case.data.tensors(split, slice(first, first + 1000))[0].numpy()
    ]


def _share_near(case: Case, split: str) -> float:
    """The share of a sample of `split` that nearly equals an image of a sample of train.

    Unless the sample is everything, this underestimates the share of the whole.
    """
    train, other = case.small("train"), case.small(split)
    limit = NEAR * _usual_distance(train)
    nearest = torch.cdist(other, train).amin(1)
    return float((nearest < limit).float().mean())


def _usual_distance(small: Tensor) -> float:
    """Median over the images of the distance to the nearest other image."""
    distances = torch.cdist(small[:500], small)
    distances[distances < 1e-3] = torch.inf  # the image itself, and copies of it
    nearest = distances.amin(1)
    nearest = nearest[nearest.isfinite()]
    return float(nearest.median()) if len(nearest) else 0.0


def duplicated_class(case: Case) -> Finding | None:
    """A class most of whose images also exist under another class's name."""
    small, labels = case.small("train"), case.sample("train")[1]
    limit = max(NEAR * _usual_distance(small), 1e-3)
    distances = torch.cdist(small, small)
    distances.fill_diagonal_(torch.inf)
    is_other = labels[:, None] != labels[None]
    distances[~is_other] = torch.inf
    nearest, where = distances.min(1)
    is_copy = nearest < limit
    counts = np.bincount(labels.numpy(), minlength=case.num_classes)
    found = []
    for label in np.flatnonzero(counts):
        mine = (labels == int(label)) & is_copy
        if not bool(mine.any()):
            continue
        others = np.bincount(labels[where[mine]].numpy(), minlength=case.num_classes)
        twin = int(others.argmax())
        share = others[twin] / min(counts[label], max(1, counts[twin]))
        found.append((min(1.0, float(share)), int(label), twin))
    share, one, twin = max(found, default=(0.0, 0, 0))
    if share < 0.3:
        return None
    names = case.run.classes
    affected = (counts[one] + counts[twin]) / counts.sum() / 2
    return Finding(
        says=f"the classes {names[one]} and {names[twin]} hold the same images",
        measured=f"{100 * share:.0f} % of the images of {names[one]} are also {names[twin]}",
        why="one picture cannot have two answers: half of them will be wrong, whatever is learned",
        advice=f"{OF_THE_DATA}: merge the classes, or find the wrong labels",
        worth=float(affected),
    )


def constant_class(case: Case) -> Finding | None:
    """A class whose images are all the same, or that has none."""
    small, labels = case.small("train"), case.sample("train")[1]
    names = case.run.classes
    counts = np.bincount(case.labels("train"), minlength=case.num_classes)
    usual = float(small.std(0).mean())
    constant, empty = [], [names[label] for label in np.flatnonzero(counts == 0)]
    for label in np.flatnonzero(counts > 1):
        mine = small[labels == int(label)]
        if len(mine) > 1 and float(mine.std(0).mean()) < 0.02 * usual:
            constant.append(names[label])
    if not constant and not empty:
        return None
    words = [f"all images of {', '.join(constant)} are the same"] if constant else []
    words += [f"{', '.join(empty)} has no train image"] if empty else []
    return Finding(
        says="a class has nothing to learn from",
        measured="; ".join(words),
        why="a single image does not show what its class has in common",
        advice=f"{OF_THE_DATA}: look at its images: are they blank, or copies of a single one?",
        worth=(len(constant) + len(empty)) / len(names),
    )


def imbalance(case: Case) -> Finding | None:
    """Some classes have many more images than others."""
    counts = np.bincount(case.labels("train"), minlength=case.num_classes)
    least, most = int(counts[counts > 0].argmin()), int(counts.argmax())
    least = int(np.flatnonzero(counts > 0)[least])
    if counts[most] < MOST_IMBALANCED * counts[least]:
        return None
    names = case.run.classes
    mends = ({"loss.class_weights": "balanced"},) if case.config.loss.class_weights is None else ()
    return Finding(
        says="the classes are of very different sizes",
        measured=(
            f"{names[most]} has {counts[most]:,} train images, {names[least]} {counts[least]:,}"
        ),
        why=(
            "answering only with the large classes is nearly right, and the small ones are missed"
        ),
        mends=mends,
        advice="more images of the small classes help more than weights",
        worth=0.05,
    )


def unlike_validation(case: Case) -> Finding | None:
    """The images or classes of the validation or test split differ from those of train."""
    words, splits = [], []
    for split in ("val", "test"):
        if len(case.data.indices[split]) < 10:
            continue
        found = _differences(case, split)
        words += [f"{split}: {word}" for word in found]
        splits += [split] * bool(found)
    if not words:
        return None
    return Finding(
        says="it is measured on images unlike those it is trained on",
        measured="; ".join(words),
        why="the network has to classify a kind of image that it has never seen",
        mends=_validation_from_train(case, splits),
        advice=f"{OF_THE_DATA}: make both splits in the same way, from the same pictures in random "
        "order",
        worth=0.3,
    )


def _differences(case: Case, split: str) -> list[str]:
    train, other = (_summaries(case.small(name)) for name in ("train", split))
    words = []
    for name, here, there in zip(("brightness", "contrast"), train, other, strict=True):
        spread = float(torch.cat([here, there]).std()) + 1e-6
        apart = float(there.mean() - here.mean()) / spread
        error = float((here.var() / len(here) + there.var() / len(there)).sqrt()) + 1e-6
        if abs(apart) > UNLIKE and abs(float(there.mean() - here.mean())) > UNLIKE_SIGMAS * error:
            numbers = f"{float(there.mean()):.0f} and not {float(here.mean()):.0f} of 255"
            words.append(f"its mean {name} is {numbers}")
    shares = [
        np.bincount(case.labels(name), minlength=case.num_classes) / len(case.labels(name))
        for name in ("train", split)
    ]
    moved = float(np.abs(shares[0] - shares[1]).sum() / 2)
    luck = float(np.sqrt(case.num_classes / len(case.labels(split))))
    if moved > UNLIKE_CLASSES + luck / 2:
        words.append(f"{100 * moved:.0f} % of its images belong to other classes")
    return words


def _summaries(small: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the pixels of each image."""
    return small.mean(1), small.std(1)


def inputs_not_normalized(case: Case) -> Finding | None:
    """The first layer's inputs are far from mean 0 and deviation 1."""
    mean, std = case.at_start.inputs
    low, high = INPUT_STD
    if abs(mean) <= INPUT_MEAN and low <= std <= high:
        return None
    values = {"data.mean": None, "data.std": None}
    is_said = case.config.data.mean is not None or case.config.data.std is not None
    return Finding(
        says="the inputs are not normalised",
        measured=f"the first layer gets values of mean {mean:.3g} and deviation {std:.3g}",
        why="initial weights are scaled for inputs of mean 0 and deviation 1",
        mends=(values,) if is_said else (),
        worth=0.2,
    )


def shuffled_labels(case: Case) -> Finding | None:
    """Neither three simple methods nor the network do better than guessing."""
    labels = case.apart[3].numpy()
    if len(labels) < 40 or len(np.unique(labels)) < 2:
        return None
    tried = []
    ways: dict[str, Callable[[], np.ndarray | None]] = {
        "a linear classifier": partial(linear_answers, case),
        "the nearest train image": partial(nearest_answers, case),
        "the network": partial(_network_answers, case),
        "a small CNN": partial(reference_answers, case),
    }
    if not case.can_train:
        del ways["the network"]
    for name, ask in ways.items():
        found = ask()
        if found is None:
            continue
        known = case.sample(case.held_out)[1].numpy() if name == "the network" else labels
        if is_better_than_luck(found, known[: len(found)]):
            return None
        tried.append(f"{name} {100 * _macro(found, known[: len(found)]):.0f} %")
    seed = case.config.data.change.shuffle_labels
    present = len(np.unique(labels))
    return Finding(
        says="the labels say nothing about the images",
        measured=(
            f"right answers on {len(labels):,} images set apart, each class alike: "
            f"{', '.join(tried)}; guessing: {100 / present:.0f} %"
        ),
        why="labels that were shuffled can only be memorised",
        mends=() if seed is None else ({"data.change.shuffle_labels": None},),
        advice="look at some images with their labels: were the two sorted or joined differently?"
        if seed is not None
        else f"{OF_THE_DATA}: look at some images with their labels: were the two sorted or joined "
        "differently?",
        worth=0.9,
    )


def _network_answers(case: Case) -> np.ndarray | None:
    if not case.trial.is_finite or case.held_out == "train":
        return None
    images = case.sample(case.held_out)[0]
    found: np.ndarray = answers_of(case.trial.model, images).numpy()
    return found


def _macro(answers: np.ndarray, labels: np.ndarray) -> float:
    """Mean over classes of the share of right answers."""
    return float(np.mean([(answers[labels == k] == k).mean() for k in np.unique(labels)]))


def is_better_than_luck(answers: np.ndarray, labels: np.ndarray) -> bool:
    """Whether `_macro` is far above its values for shuffled labels."""
    draw = np.random.default_rng(0)
    luck = [_macro(answers, draw.permutation(labels)) for _ in range(SHUFFLES)]
    most = float(np.mean(luck)) + SIGMAS * max(float(np.std(luck)), 1e-6)
    return _macro(answers, labels) > most
