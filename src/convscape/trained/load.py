"""Trained runs put to use: load one, measure it on a split, classify pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscape import models
from convscape.base import machine, notebook
from convscape.base.errors import ConfigError, NotAllowed
from convscape.base.values import shortened
from convscape.config.check import check
from convscape.config.metrics import metric
from convscape.config.networks import OwnModelConfig
from convscape.config.schema import Config
from convscape.data.pixels import standardized
from convscape.data.stretch import Stretch
from convscape.geometry.plan import Plan
from convscape.models.answers import both_ways, check_forward, check_logits
from convscape.runs import data as run_data
from convscape.runs.folder import RunFolder
from convscape.runs.latest import named
from convscape.runs.resolved import ResolvedRun
from convscape.training.build import build_model, build_own, data_module, model_class
from convscape.training.checkpoints import BROKEN, read_checkpoint

if TYPE_CHECKING:
    import pandas as pd

    from convscape.data.cache import ImageSet
    from convscape.data.module import ImageDataModule
    from convscape.runs.result import Result


# ends the message that refuses other data
OTHER_DATA = "; --other-data (in Python other_data=True) continues with them anyway"


@dataclass(repr=False)
class TrainedRun:
    """A run's `config`, and its network `model` with the weights of the chosen checkpoint.

    The model is in eval mode, on the device that the run used; if that does not exist here, on the
    one that its config asks for. `data`, `image_set`, `result`, `metrics` and `history` are read on
    first use. `other_data`: whether the data may differ from those it was trained on.
    """

    path: Path
    config: Config
    model: nn.Module
    other_data: bool = False

    @cached_property
    def image_set(self) -> ImageSet:
        """The data set that it was trained on, or another one that fits.

        Raises:
            DataError: if it is missing, or is a different one and that was not asked for.
        """
        image_set = run_data.load_images(self.config)
        if self.other_data:
            classes = self._known_classes or image_set.classes  # older runs did not record them
            run_data.check_other(image_set, self.image_shape, classes)
            image_set = image_set.stretched_by(self.stretch)
        else:
            classes = self.classes if isinstance(self.model, models.ImageClassifier) else ()
            run_data.check_same(image_set, self._known, classes, OTHER_DATA)
        return image_set

    @cached_property
    def _known(self) -> Result | None:
        return RunFolder(self.path).read_result()

    @property
    def _dataset(self) -> dict[str, Any]:
        """What the run recorded about its data; empty for runs from before that was recorded."""
        return self._known.dataset if self._known is not None else {}

    @cached_property
    def data(self) -> ImageDataModule:
        """Its splits."""
        self._resolved.image_set = self.image_set
        return data_module(self._resolved)

    @cached_property
    def _resolved(self) -> ResolvedRun:
        run = ResolvedRun(self.config)
        run.device = machine.Device(self.device.type, self.device.index)
        plan = getattr(self.model, "plan", None)
        if isinstance(plan, Plan) and not isinstance(self.config.model, OwnModelConfig):
            run.plan = plan  # no data needed
        return run

    @property
    def result(self) -> Result:
        """The contents of its result.json: status, metrics, sizes, times, environment."""
        result = RunFolder(self.path).read_result()
        if result is None:
            raise ConfigError(f"{self.path} has no readable result.json")
        return result

    @property
    def weights(self) -> str:
        """Which weights it has, in words; nothing where they are those that were trained."""
        decay = self.config.trainer.ema
        return "" if decay is None else f"the averaged weights (trainer.ema={decay:g})"

    @property
    def remarks(self) -> list[str]:
        """What to know about answers to single images, one line each."""
        lines = [f"with {self.weights}"] if self.weights else []
        if self.config.trainer.test_flip:
            lines.append(
                "each image alone; test/acc averages it with its mirror image (trainer.test_flip)"
            )
        return lines

    @property
    def metrics(self) -> dict[str, float]:
        """Losses, and accuracies from 0 to 1, of the chosen checkpoint: val/acc, test/acc ..."""
        return self.result.metrics

    @property
    def history(self) -> pd.DataFrame:
        """A row per epoch.

        Raises:
            ConfigError: if it is missing or damaged.
        """
        import pandas as pd

        file = RunFolder(self.path).history_file
        try:
            return pd.read_csv(file)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}") from None

    def __str__(self) -> str:
        result = RunFolder(self.path).read_result()
        metrics = result.metrics if result is not None else {}
        return ", ".join([str(self.path), *(f"{k} {value:.4f}" for k, value in metrics.items())])

    __repr__ = __str__  # what a Python prompt shows

    def _repr_html_(self) -> str:
        """What a notebook shows: the folder, the results, and the layers."""
        result = RunFolder(self.path).read_result()
        rows = [("run", str(self.path)), ("data", self.config.data.name)]
        if result is not None:
            rows += [(name, metric(name).written(v)) for name, v in result.metrics.items()]
            rows.append(("best epoch", f"{result.best_epoch or '-'} of {result.epochs}"))
            rows.append(("seconds", f"{sum(result.seconds.values()):.1f}"))
        plan = getattr(self.model, "plan", None)
        layers = plan._repr_html_() if isinstance(plan, Plan) else ""
        return f"<div>{notebook.table([('', 'trained run'), *rows])}{layers}</div>"

    @property
    def classes(self) -> list[str]:
        """Names, in the order of the logits."""
        return list(self._known_classes or self.image_set.classes)

    @property
    def _known_classes(self) -> Sequence[str]:
        """The classes recorded in the network or the run."""
        own = self.model.classes if isinstance(self.model, models.ImageClassifier) else ()
        return own or self._dataset.get("classes", ())

    @property
    def label_names(self) -> list[str]:
        """The class names of its data; if other data's differ, as in "lynx as cat"."""
        pairs = zip(self.image_set.classes, self.classes, strict=True)
        return [label if label == name else f"{label} as {name}" for label, name in pairs]

    @property
    def data_name(self) -> str:
        """Its data set, and whether it differs from the one it was trained on."""
        known = self._known.data_checksum if self._known is not None else None
        is_other = known not in (None, self.image_set.checksum)
        return self.config.data.name + " (not the images it was trained on)" * is_other

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        plan = getattr(self.model, "plan", None)
        known = plan.input_shape if isinstance(plan, Plan) else self._dataset.get("image_shape")
        if known is None:
            return run_data.load_images(self.config).image_shape
        channels, height, width = known
        return channels, height, width

    @property
    def normalization(self) -> tuple[list[float], list[float]]:
        """Mean and std per channel that it was trained with, of values scaled to 0..1."""
        if known := self._dataset:
            return known["mean"], known["std"]
        return self.image_set.normalization(self.config.data.mean, self.config.data.std)

    @property
    def stretch(self) -> Stretch | None:
        """How its data set's values became pixels, if they were not bytes."""
        known = self._dataset.get("stretch")
        return None if known is None else Stretch(*known)

    @property
    def brightness(self) -> float:
        """Mean of the training images' pixels, 0..1."""
        if isinstance(self.model, models.ImageClassifier):
            return float((-self.model.shift / self.model.scale).mean() / 255)
        return float(np.mean(self.normalization[0]))

    @property
    def device(self) -> torch.device:
        """The network's device; the CPU if it has no parameters."""
        first = next(self.model.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @torch.inference_mode()
    def logits(self, images: Tensor, *, flip: bool = False) -> Tensor:
        """Logits (N, num_classes) on the CPU for images (N, C, H, W), in one batch.

        - `flip`: the mean over each image and its mirror image.

        Raises:
            ConfigError: if a user's network returns something else.
        """
        check_forward(self.model)
        images = images.to(self.device)
        if not isinstance(self.model, models.ImageClassifier):
            images = standardized(images, *self.normalization)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._resolved.uses_bf16):
            logits = both_ways(self.model, images) if flip else self.model(images)
        check_logits(logits, len(self.classes))
        return logits.float().cpu()

    def loss(self, logits: Tensor, labels: Tensor) -> float:
        """Mean loss of logits (N, K) for labels (N,), as in training."""
        if isinstance(self.model, models.ImageClassifier):
            return float(self.model.loss(logits, labels))
        return float(F.cross_entropy(logits, labels))


def load_run(
    path: str | Path,
    allow_packages: Sequence[str] = (),
    *,
    root: str | None = None,
    cache_dir: str | None = None,
    other_data: bool = False,
) -> TrainedRun:
    """The run in the folder `path`, ready to use; "latest" means the newest in outputs/runs.

    Nothing in the folder can run code: the checkpoint holds plain values, and a user's class is
    only built from a package in `allow_packages`.

    - `root`, `cache_dir`: where its data are now, if they have moved.
    - `other_data`: whether they may differ from those it was trained on, which is otherwise
      refused.

    Raises:
        ConfigError: if it is not a run, or has no readable checkpoint.
    """
    machine.keep_freed_memory()
    folder = RunFolder(named(path))
    given = {"root": root, "cache_dir": cache_dir}
    places = {key: str(place) for key, place in given.items() if place is not None}
    stored = run_data.with_places(folder.read_config(), places)
    try:
        config = check(stored | {"allow_packages": list(allow_packages)})
    except NotAllowed as error:
        raise ConfigError(error.as_option) from None
    if not folder.best_checkpoint.is_file():
        result = folder.read_result()
        status = f"; its status is {result.status}" if result is not None else ""
        raise ConfigError(f"{folder.path} has no checkpoints/best.ckpt{status}")
    checkpoint = read_checkpoint(folder.best_checkpoint)
    own = _own_model(config, folder) if isinstance(config.model, OwnModelConfig) else None
    try:
        model = own or _rebuilt(config, checkpoint)
        if isinstance(model, models.ImageClassifier):
            model.allow_packages = list(allow_packages)
        model.load_state_dict(checkpoint["state_dict"])
    except BROKEN as error:
        why = shortened(" ".join(str(error).split()) or type(error).__name__)
        raise ConfigError(
            f"{folder.best_checkpoint} does not hold the network of config.yaml: {why}"
        ) from None
    model.to(str(_device(config, folder)))
    return TrainedRun(folder.path, config, model.eval(), other_data)


def _device(config: Config, folder: RunFolder) -> machine.Device:
    """The device that the run used, if it exists here, or what its config asks for."""
    result = folder.read_result()
    taken = str(result.environment.get("device")) if result is not None else ""
    return machine.first_here(taken, config.trainer.device)


def _own_model(config: Config, folder: RunFolder) -> nn.Module:
    """The model, built from what the run recorded about its data, or from the data themselves."""
    assert isinstance(config.model, OwnModelConfig)
    known = folder.read_result()
    if known is None or not known.dataset:
        run = ResolvedRun(config)
        run.image_set = run_data.load_images(config)
        return build_model(run)
    facts = known.dataset
    training = {key: facts[key] for key in ("mean", "std", "classes")}
    if (loss := config.loss.described) is not None:
        training["loss"] = loss
    shape, num_classes = facts["image_shape"], len(facts["classes"])
    return build_own(config.model, config.allow_packages, shape, num_classes, training)


def _rebuilt(config: Config, checkpoint: dict[str, Any]) -> models.PlannedClassifier:
    """The network of a checkpoint, tried on one image; raises one of `BROKEN`."""
    assert not isinstance(config.model, OwnModelConfig)
    model: models.PlannedClassifier = model_class(config.model.target)(
        **checkpoint["hyper_parameters"]
    )
    shape = run_data.image_shape(config) or model.plan.input_shape
    black = torch.zeros(1, *shape, dtype=torch.uint8)
    with torch.inference_mode():
        num_classes = model.eval()(black).shape[1]
    if len(model.classes) != num_classes or not all(isinstance(n, str) for n in model.classes):
        raise ValueError(f"{len(model.classes)} names for {num_classes} classes")
    return model
