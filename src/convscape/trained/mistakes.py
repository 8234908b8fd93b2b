"""Several runs' answers on the same images: which they get wrong, and where they disagree."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convscape.base.errors import ConfigError
from convscape.config.check import check
from convscape.runs.predictions import read_answers
from convscape.runs.resolved import ResolvedRun

if TYPE_CHECKING:
    from convscape.runs.predictions import Predictions
    from convscape.runs.result import Result

MAX_RUNS = 300  # only the first ones' answers are counted
PER_CLASS = 40  # images shown
MAX_PIXEL_BYTES = 2**21


def document(runs: Sequence[tuple[Path, Result]], split: str) -> dict[str, Any]:
    """The images of a split that some of these runs get wrong, as plain values.

    The worst of each class come first: those that most runs get wrong with the least probability.
    Runs whose answers are on other images than the first run's are left out and listed. `pixels`
    are base64 of bytes (N, C, H, W), or None if the data are not available, and `missing` says why.
    Nothing in the runs' folders is executed.
    """
    asked = [(result, read_answers(path)) for path, result in runs if result.status == "ok"]
    known = [(r, a) for r, a in asked if a is not None and split in a.splits][:MAX_RUNS]
    found: dict[str, Any] = {"split": split, "runs": 0, "images": 0, "left_out": 0, "wrong": []}
    if not known:
        return found
    result, first = known[0]
    labels = first.splits[split].labels
    same = [
        answers.splits[split]
        for _, answers in known
        if answers.data_checksum == first.data_checksum
        and np.array_equal(answers.splits[split].labels, labels)
    ]
    places = _worst(same, labels)
    pixels, missing = _pixels(result, split, places, labels)
    classes = [str(name) for name in result.dataset.get("classes", ())]
    found |= {
        "runs": len(same),
        "images": len(labels),
        "left_out": len(asked) - len(same),
        "classes": classes,
        "wrong": [_entry(same, place) for place in places],
        "missing": missing,
    }
    return found | ({} if pixels is None else pixels)


def _worst(answers: Sequence[Predictions], labels: np.ndarray) -> list[int]:
    """Images by class, starting with those that most runs get wrong."""
    num_wrong = np.sum([~each.correct for each in answers], axis=0)
    probability = np.sum([each.probability for each in answers], axis=0, dtype=float)
    order = np.lexsort((probability, -num_wrong))
    order = order[num_wrong[order] > 0]
    places: list[int] = []
    for label in np.unique(labels[order]):
        places += order[labels[order] == label][:PER_CLASS].tolist()
    return places


def _entry(answers: Sequence[Predictions], place: int) -> dict[str, Any]:
    """An image: its class, how many runs give which answer, and the probability of its class."""
    said = np.array([each.predicted[place] for each in answers])
    classes, counts = np.unique(said, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    mean = float(np.mean([each.probability[place] for each in answers]))
    sure = {
        int(c): float(np.mean([a.confidence[place] for a in answers if a.predicted[place] == c]))
        for c in classes
    }
    return {
        "place": place,
        "label": int(answers[0].labels[place]),
        "said": [
            {"label": int(classes[i]), "runs": int(counts[i]), "p": round(sure[int(classes[i])], 4)}
            for i in order
        ],
        "p": round(mean, 4),
    }


def _pixels(
    result: Result, split: str, places: Sequence[int], labels: np.ndarray
) -> tuple[dict[str, Any] | None, str | None]:
    """The pictures at these indices of the split, or why there are none."""
    import torch

    from convscape.runs.data import check_same, load_images
    from convscape.training.build import data_module

    try:
        run = ResolvedRun(check(result.config))
        run.image_set = load_images(run.config)
        check_same(run.image_set, result)
        data = data_module(run)
        if not np.array_equal(data.labels(split).numpy(), labels):
            return None, "the runs' answers are on different images from those here"
        images = data.tensors(split, torch.tensor(places, dtype=torch.long))[0].numpy()
    except (ConfigError, OSError) as error:
        return None, str(error)
    if images.nbytes > MAX_PIXEL_BYTES or images.shape[1] not in (1, 3):
        return None, "the images are too large for a page, or have more channels than it can show"
    content = base64.b64encode(images.astype(np.uint8).tobytes()).decode()
    return {"pixels": content, "shape": list(images.shape[1:])}, None
