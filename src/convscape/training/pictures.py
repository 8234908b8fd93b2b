"""When `visual` sends pictures to TensorBoard, and what else it shows: graph, text, histograms.

`visual=light` spends at most 5 % of the training time: pictures are drawn at the end, and before
that after epochs 1, 2, 4, 8, ... as far as the budget allows. `visual=full` has no budget.
"""

from __future__ import annotations

import copy
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn

from convscape.base.files import as_yaml, make_folder, write_atomic
from convscape.base.quick_lightning import pl
from convscape.base.terminal import say
from convscape.config.schema import Config
from convscape.data.module import ImageDataModule, TrainLoader
from convscape.drawing import fonts, sheets
from convscape.models import inside
from convscape.models.classifier import ImageClassifier
from convscape.training.events import PREFIX, EventFile
from convscape.training.torch_insides import SummaryWriter, trace

logger = logging.getLogger("convscape")

LIGHT_BUDGET = 0.05  # of the training time
NUM_TRAINING_IMAGES = 16
NUM_MISTAKES = 12
NUM_EXAMPLES = 4  # images whose feature maps are shown
MAX_EMBEDDED = 1000  # images in the projector
MAX_CURVES = 20  # classes with a precision-recall curve


class TensorBoardPictures(pl.callbacks.Callback):
    """Draws what the network sees and what it gets wrong; does not affect the training.

    - `level`: "light" or "full".
    - `config`: shown as text.
    """

    def __init__(self, level: str, config: Config) -> None:
        self.is_full = level == "full"
        self.config = config
        self._first_filters: Tensor | None = None
        self._predictions: _Predictions | None = None
        self._drawn_at_step: int | None = None
        self._has_begun = self._has_trained = False
        self._start = self._spent = self._last_cost = 0.0

    # --- when -----------------------------------------------------------------------------

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the first layer's initial filters; write what does not change."""
        self._has_trained = True
        self._start = time.perf_counter()
        if not self._has_begun:
            self._has_begun = True
            self._first_filters = inside.first_filters(pl_module)
            if trainer.is_global_zero:
                self._timed(self._write_fixed, trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw after epochs 1, 2, 4, 8, ..., if the budget allows."""
        epoch = trainer.current_epoch + 1
        if epoch & (epoch - 1) == 0 and self._is_affordable():
            self._draw(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the final network, even if that was all that was left to do."""
        pl_module.to(trainer.strategy.root_device)  # Lightning has moved it to the CPU
        if not self._has_trained:
            self._go_back_to_end(trainer, pl_module)
        self._draw(trainer, pl_module)
        if self.is_full and trainer.is_global_zero:
            self._embed(trainer, pl_module)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start collecting answers."""
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        device = trainer.strategy.root_device
        self._predictions = _Predictions(data.image_set.classes, device, self.is_full)

    on_test_epoch_start = on_validation_epoch_start

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        *_: Any,
    ) -> None:
        """Collect the answers of a model of this project; a user's module's are not known."""
        if self._predictions is not None and isinstance(pl_module, ImageClassifier):
            self._predictions.add(outputs, *batch)

    on_test_batch_end = on_validation_batch_end  # type: ignore[assignment]

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the test split's confusion and mistakes, once."""
        if trainer.is_global_zero:
            self._draw_answers("test", _writer(trainer), trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """The initial filters, and what is already drawn, for a resumed run."""
        return {"first_filters": self._first_filters, "drawn_at_step": self._drawn_at_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._has_begun = True
        self._first_filters = state_dict["first_filters"]
        self._drawn_at_step = state_dict.get("drawn_at_step")  # earlier versions did not save it

    def _go_back_to_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The last epoch's images and answers, for a run that was killed after it."""
        loader: TrainLoader = trainer.train_dataloader  # type: ignore[assignment]
        loader.set_epoch((trainer.global_step - 1) // loader.steps_per_epoch)
        if not isinstance(module, ImageClassifier):  # a user's module's answers are not known
            return
        module.eval()
        self.on_validation_epoch_start(trainer, module)
        with torch.no_grad(), trainer.precision_plugin.val_step_context():
            for batch in trainer.datamodule.val_dataloader():  # type: ignore[attr-defined]
                self.on_validation_batch_end(trainer, module, module(batch[0]), batch)

    def _is_affordable(self) -> bool:
        expected = self._last_cost or 0.2  # seconds, until one has been measured
        elapsed = time.perf_counter() - self._start
        return self.is_full or self._spent + expected < LIGHT_BUDGET * elapsed

    def _draw(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self._drawn_at_step != trainer.global_step:
            self._drawn_at_step = trainer.global_step
            self._timed(self._draw_all, trainer, module)

    def _timed(self, work: Any, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        start = time.perf_counter()
        with torch.no_grad(), inside.modes_kept(module):
            module.eval()
            work(trainer, module)
        self._last_cost = time.perf_counter() - start
        self._spent += self._last_cost

    # --- what -----------------------------------------------------------------------------

    def _write_fixed(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        writer = _writer(trainer)
        classes = trainer.datamodule.image_set.classes  # type: ignore[attr-defined]
        if (unread := fonts.note(classes)) is not None:
            logger.warning("%s", unread)
            if self.config.trainer.progress != "off":
                say(f"warning: {unread}", file=sys.stderr)
        text = as_yaml(self.config.model_dump(by_alias=True))
        writer.add_text("config", _as_code(text), 0)
        if isinstance(module, ImageClassifier):
            if module.plan is not None:
                writer.add_text("layers", _as_code(str(module.plan)), 0)
            images, _ = _examples(trainer.datamodule, 1)  # type: ignore[attr-defined]
            network = copy.deepcopy(module.network)  # a copy is not compiled; torch.jit needs that
            writer.add_traced(trace(network, module.normalize(images.to(module.device))))

    def _draw_all(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        writer, step = _writer(trainer), trainer.global_step
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        classes = fonts.readable(data.image_set.classes)
        loader: TrainLoader = trainer.train_dataloader  # type: ignore[assignment]
        images, labels = loader.first_batch()
        count = NUM_TRAINING_IMAGES
        captions = [_caption(label, classes) for label in labels[:count]]
        title = "training images as the network sees them"
        picture = sheets.images_with_captions(title, images[:count].cpu().numpy(), captions, 4)
        _add_picture(writer, "training_images", picture, step)
        now = inside.first_filters(module)
        if now is not None and self._first_filters is not None:
            picture = sheets.filters(self._first_filters.numpy(), now.numpy())
            _add_picture(writer, "filters/first_layer", picture, step)
        if isinstance(module, ImageClassifier) and module.plan is not None:
            self._draw_feature_maps(writer, module, data, step)
        self._draw_answers("val", writer, step)
        if self.is_full and isinstance(module, ImageClassifier):
            for name, gradient in _gradients(module, images, labels).items():
                writer.add_histogram(f"weights/{name}", module.get_parameter(name), step)
                writer.add_histogram(f"weights_gradient/{name}", gradient, step)

    def _draw_feature_maps(
        self, writer: Any, module: ImageClassifier, data: ImageDataModule, step: int
    ) -> None:
        """Each convolution's output for the images, as the next layer with weights sees it."""
        images, labels = _examples(data, NUM_EXAMPLES)
        classes = fonts.readable(data.image_set.classes)
        captions = [classes[label] for label in labels.tolist()]
        for name, maps in inside.feature_maps(module, images).items():
            picture = sheets.feature_maps(name, images.numpy(), maps.numpy(), captions)
            _add_picture(writer, f"feature_maps/{name}", picture, step)

    def _draw_answers(self, split: str, writer: Any, step: int) -> None:
        predictions = self._predictions
        if predictions is None or not predictions.counts.any():
            return
        picture = sheets.confusion_matrix(
            split, predictions.counts.cpu().numpy(), fonts.readable(predictions.classes)
        )
        _add_picture(writer, f"confusion/{split}", picture, step)
        if len(predictions.worst_first()):
            _add_picture(writer, f"mistakes/{split}", predictions.picture(split), step)
        if self.is_full:
            probabilities, labels = predictions.probabilities()
            for label, name in enumerate(predictions.classes[:MAX_CURVES]):
                is_class, probability = labels == label, probabilities[:, label]
                writer.add_pr_curve(f"precision_recall_{split}/{name}", is_class, probability, step)

    def _embed(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """The last hidden layer's features of validation images, for the projector."""
        if not isinstance(module, ImageClassifier) or not isinstance(module.network, nn.Sequential):
            return
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        images, labels = _examples(data, MAX_EMBEDDED)
        with torch.no_grad():
            features = module.normalize(images.to(module.device))
            module.eval()
            features = module.network[:-1](features).flatten(1).float().cpu()
        run = Path(_writer(trainer).log_dir)
        with TemporaryDirectory() as apart:
            writer = SummaryWriter(apart, EventFile(Path(apart)))
            writer.add_embedding(
                features,
                metadata=[data.image_set.classes[label] for label in labels.tolist()],
                label_img=torch.from_numpy(sheets.viewable(images.numpy())) / 255,
                global_step=trainer.global_step,
                tag="last_hidden_layer",
            )
            writer.close()
            for path in Path(apart).rglob("*.*"):  # torch would write them through links
                if path.is_file() and not path.name.startswith(PREFIX):
                    place = run / path.relative_to(apart)
                    make_folder(place.parent, within=run)
                    write_atomic(place, path.read_bytes(), within=run)


class _Predictions:
    """Counts and worst mistakes for a split, kept on the device until they are drawn."""

    def __init__(self, classes: Sequence[str], device: torch.device, keep_all: bool) -> None:
        self.classes = classes
        self.counts = torch.zeros(len(classes), len(classes), dtype=torch.int64, device=device)
        self._keep_all = keep_all
        self._all: list[tuple[Tensor, Tensor]] = []
        self._worst: tuple[Tensor, ...] = ()

    def add(self, logits: Tensor, images: Tensor, labels: Tensor) -> None:
        """Count a batch: logits (N, K), images (N, C, H, W), labels (N,)."""
        probabilities = logits.float().softmax(1)
        probability, predicted = probabilities.max(1)
        self.counts.index_put_((labels, predicted), self.counts.new_ones(()), accumulate=True)
        # the less probable the true class, the worse the mistake; right answers come last
        of_truth = probabilities.gather(1, labels[:, None])[:, 0]
        rank = of_truth.where(predicted != labels, 2.0)
        found: tuple[Tensor, ...] = (rank, images, labels, predicted, probability)
        if self._worst:
            found = tuple(torch.cat(both) for both in zip(self._worst, found, strict=True))
        order = found[0].topk(min(NUM_MISTAKES, len(found[0])), largest=False).indices
        self._worst = tuple(values[order] for values in found)
        if self._keep_all:
            self._all.append((probabilities, labels))

    def worst_first(self) -> np.ndarray:
        """Indices of the kept mistakes, worst first."""
        rank = self._worst[0].cpu().numpy()
        return np.argsort(rank, kind="stable")[: int((rank < 2).sum())]

    def picture(self, split: str) -> sheets.Picture:
        """The sheet of mistakes."""
        order = self.worst_first()
        images, labels, predictions, probabilities = (
            v.cpu().numpy()[order] for v in self._worst[1:]
        )
        names = fonts.readable(self.classes)
        return sheets.mistakes(
            split,
            images,
            [names[i] for i in labels],
            [names[i] for i in predictions],
            list(probabilities),
        )

    def probabilities(self) -> tuple[Tensor, Tensor]:
        """All probabilities (N, K) and labels (N,)."""
        probabilities, labels = zip(*self._all, strict=True)
        return torch.cat(probabilities).cpu(), torch.cat(labels).cpu()


def _caption(label: Tensor, classes: Sequence[str]) -> str:
    """The class of an id, or the classes of a soft label (K,) with their shares."""
    if label.ndim == 0:
        return classes[int(label)]
    shares, ids = label.topk(min(2, len(label)))
    pairs = [(s, classes[i]) for s, i in zip(shares.tolist(), ids.tolist(), strict=True) if s > 0]
    return pairs[0][1] if len(pairs) == 1 else " ".join(f"{s:.0%} {name}" for s, name in pairs)


def _examples(data: ImageDataModule, count: int) -> tuple[Tensor, Tensor]:
    """Always the same images (N, C, H, W) and labels, taking each class in turn."""
    split = "val" if len(data.indices["val"]) else "test"
    labels = data.labels(split)
    numbers = torch.zeros_like(labels)
    for label in labels.unique():
        mine = labels == label
        numbers[mine] = torch.arange(int(mine.sum()))
    order = torch.argsort(numbers * len(data.image_set.classes) + labels)[:count]
    return data.tensors(split, order)


def _gradients(module: ImageClassifier, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Gradients of the loss by parameter name; the parameters themselves keep none."""
    weights = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    with torch.enable_grad():
        loss = module.loss(module(images.to(module.device)), labels.to(module.device))
        gradients = torch.autograd.grad(loss, list(weights.values()), materialize_grads=True)
    return dict(zip(weights, gradients, strict=True))


def _writer(trainer: pl.Trainer) -> Any:
    tensorboard = trainer.loggers[0]
    assert isinstance(tensorboard, pl.loggers.TensorBoardLogger)
    return tensorboard.experiment


def _add_picture(writer: Any, tag: str, picture: sheets.Picture, step: int) -> None:
    image = Summary.Image(
        height=picture.height,
        width=picture.width,
        colorspace=len(picture.getbands()),
        encoded_image_string=sheets.as_png(picture),
    )
    writer.add_summary(Summary(value=[Summary.Value(tag=f"view/{tag}", image=image)]), step)


def _as_code(text: str) -> str:
    """Markdown that keeps the columns."""
    return "".join(f"    {line}\n" for line in text.splitlines())
