"""`NetworkClassifier`: this package's networks as a scikit-learn estimator."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isqrt, prod
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field, ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from convscape import models
from convscape.base import machine
from convscape.base.quick_lightning import LightningEnvironment, pl
from convscape.base.sections import Fraction, LearningRate, NotNegative, Positive, Section
from convscape.base.throughput import steps_per_execution
from convscape.config.allowed import allowed_values
from convscape.config.networks import CNNConfig, MLPConfig
from convscape.config.optimizers import OPTIMIZERS, known_optimizer
from convscape.data.arrays import plain_labels
from convscape.data.cache import ImageSet
from convscape.data.module import ImageDataModule
from convscape.data.splits import steps_per_epoch

NETWORKS: dict[str, tuple[type[CNNConfig | MLPConfig], type[models.CNN | models.MLP]]] = {
    "cnn": (CNNConfig, models.CNN),
    "mlp": (MLPConfig, models.MLP),
}
# more channels than this on the last axis, and fewer rows: then it is the wrong axis
MAX_COLOURS = 4
NUM_PREDICTED = 256  # images at a time; more take memory and are no faster on a CPU


class _TrainingConfig(Section):
    """What `NetworkClassifier` takes beside the network."""

    model: Literal["cnn", "mlp"]
    optimizer: Annotated[str, BeforeValidator(known_optimizer)]
    lr: LearningRate
    momentum: Fraction
    weight_decay: NotNegative
    scheduler: Literal["constant", "cosine", "one_cycle"]
    gradient_clip_norm: Annotated[float, Field(gt=0)] | None
    max_epochs: Positive
    batch_size: Positive
    device: str


class NetworkClassifier(ClassifierMixin, BaseEstimator):
    """A CNN or an MLP as a scikit-learn classifier.

    X holds images as (n, H, W), as (n, H, W, C) with the channels last, or flat as
    (n, H * W * C) in the same order. `image_shape` says what the features of a flat array are;
    without it a square number of features is taken for a square grey image, and any other number
    for an image with one row.

    Pixels may have any range (0 to 255, 0 to 1, or what a scaler left): the mean and the standard
    deviation of each channel over the training images are normalised away inside the network. Bytes
    stay bytes, everything else becomes float32. Training is in float32, on all of X, for
    `max_epochs`: nothing is held out. It is silent, writes no file and leaves the random state of
    NumPy and torch as it was.

    Parameters are those of `conf/`, with its defaults, except that padding is always "same", so
    even an image of 1x1 pixels works. A list or tuple gives one value per block.

    - `model`: "cnn" or "mlp"; parameters that only the other one has are ignored.
    - `image_shape`: (H, W) or (H, W, C), for flat arrays.
    - `hidden`, `activation`, `dropout`, `batch_norm`: for the MLP; all except `hidden`, up to
      `first_layer`, for the CNN, as in conf/model.
    - `momentum`: for "sgd" (Nesterov's) and "rmsprop".
    - `scheduler`: "one_cycle", "cosine" or "constant".
    - `device`: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest available.
    - `random_state`: decides the initial weights, the order of the images and dropout.

    Sample weights are not supported: an optimiser that works batch by batch does not treat an image
    of weight two like the same image twice.

    After `fit`: `classes_`, `image_shape_` (H, W, C), `n_features_in_`, `num_parameters_`, and
    `model_`, the network itself: `print(model_.plan)` shows its layers.
    """

    def __init__(
        self,
        model: str = "cnn",
        *,
        image_shape: Sequence[int] | None = None,
        channels: Sequence[int] = (32, 64),
        kernel_size: Any = 3,
        stride: Any = 1,
        padding: Any = "same",
        dilation: Any = 1,
        groups: Any = 1,
        pool: Any = "max",
        pool_size: Any = 2,
        pool_stride: Any = None,
        pool_padding: Any = "same",
        pool_ceil_mode: Any = False,
        batch_norm: Any = False,
        activation: Any = "relu",
        dropout: Any = 0.0,
        head: str = "flatten",
        dense: Sequence[int] = (),
        dense_dropout: float = 0.0,
        output_layer: str = "dense",
        first_layer: str = "learned",
        hidden: Sequence[int] = (512, 512),
        init: str = "glorot_uniform",
        loss: str = "cross_entropy",
        label_smoothing: float = 0.0,
        optimizer: str = "adam",
        lr: float = 0.005,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        scheduler: str = "one_cycle",
        gradient_clip_norm: float | None = None,
        max_epochs: int = 20,
        batch_size: int = 128,
        device: str = "cpu",
        random_state: Any = None,
    ) -> None:
        self.model = model
        self.image_shape = image_shape
        self.channels = channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.groups = groups
        self.pool = pool
        self.pool_size = pool_size
        self.pool_stride = pool_stride
        self.pool_padding = pool_padding
        self.pool_ceil_mode = pool_ceil_mode
        self.batch_norm = batch_norm
        self.activation = activation
        self.dropout = dropout
        self.head = head
        self.dense = dense
        self.dense_dropout = dense_dropout
        self.output_layer = output_layer
        self.first_layer = first_layer
        self.hidden = hidden
        self.init = init
        self.loss = loss
        self.label_smoothing = label_smoothing
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.scheduler = scheduler
        self.gradient_clip_norm = gradient_clip_norm
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Declare that X may have the axes of images."""
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(self, X: Any, y: Any) -> NetworkClassifier:
        """Train a new network on the images X and their labels y, numbers or strings.

        Raises:
            ValueError: if X, y or a parameter makes no sense.
            InfeasibleGeometry: a ValueError, if the network cannot exist on these images.
            Diverged: if the loss becomes infinite.
        """
        flat, own_shape = _flattened(X)
        if getattr(y, "dtype", None) == np.dtype(object):
            y = plain_labels(y)
        flat, y = validate_data(self, flat, y, dtype=[np.float32, np.uint8])
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            (only,) = self.classes_.tolist()
            raise ValueError(f"y holds only one class, {only!r}; a classifier needs two or more")
        self.image_shape_ = self._find_image_shape(flat.shape[1], own_shape)
        images = self._as_images(flat)
        training = _TrainingConfig(**self._values(_TrainingConfig))
        device = _find_device(training.device)
        seed = check_random_state(self.random_state).randint(2**31)
        with _undisturbed(device):
            torch.manual_seed(seed)
            self.model_ = self._build(images, training)
            try:
                _train(self.model_, images, labels.astype(np.int64), training, device, seed)
            except models.Diverged as error:
                advice = "a smaller lr, gradient_clip_norm=1, or scheduler='one_cycle'"
                raise models.Diverged(error.step, error.lr, advice) from None
        self.num_parameters_ = sum(p.numel() for p in self.model_.parameters() if p.requires_grad)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, num_classes) of images X, in the order of `classes_`.

        Raises:
            ValueError: if X is not like the training images.
        """
        return self._logits(X).double().softmax(1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each image of X: (n,).

        Raises:
            ValueError: if X is not like the training images.
        """
        chosen = self._logits(X).argmax(1).numpy()
        return self.classes_[chosen]

    @torch.inference_mode()
    def _logits(self, X: Any) -> Tensor:
        check_is_fitted(self)
        flat, own_shape = _flattened(X)
        if own_shape is not None and own_shape != self.image_shape_:
            raise ValueError(
                f"X holds images of {_by(own_shape)}, and {type(self).__name__} was trained on "
                f"{_by(self.image_shape_)} (height, width, channels)"
            )
        flat = validate_data(self, flat, reset=False, dtype=[np.float32, np.uint8])
        device = _find_device(self.device)
        model = self.model_.to(device)
        batches = torch.from_numpy(self._as_images(flat)).split(NUM_PREDICTED)
        return torch.cat([model(batch.to(device)).cpu() for batch in batches])

    def __getstate__(self) -> dict[str, Any]:
        """Move the network to the CPU: a pickle must load without a GPU."""
        if hasattr(self, "model_"):
            self.model_.cpu()
        return super().__getstate__()

    def _find_image_shape(
        self, num_features: int, own_shape: tuple[int, int, int] | None
    ) -> tuple[int, int, int]:
        """(H, W, C) from the array's axes, or `image_shape`, or a guess."""
        if self.image_shape is None:
            side = isqrt(num_features)
            guess = (side, side, 1) if side**2 == num_features else (1, num_features, 1)
            height, _, channels = own_shape or guess
            if height <= MAX_COLOURS < channels:
                raise ValueError(
                    f"X holds images of {_by(own_shape)} (height, width, channels), which looks as "
                    "if the channels came first: X.transpose(0, 2, 3, 1) puts them last, and "
                    f"image_shape={own_shape} says that they are last"
                )
            return own_shape or guess
        sizes = _as_lists(self.image_shape)
        is_shape = isinstance(sizes, list) and len(sizes) in (2, 3)
        if not is_shape or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"image_shape={self.image_shape!r}; allowed: (H, W) or (H, W, C)")
        height, width, channels = (*sizes, 1)[:3]
        if (height, width, channels) != (own_shape or (height, width, channels)):
            raise ValueError(
                f"X holds images of {_by(own_shape)} (height, width, channels), and "
                f"image_shape={self.image_shape!r}"
            )
        if height * width * channels != num_features:
            raise ValueError(
                f"image_shape={self.image_shape!r} has {height * width * channels} values, and "
                f"an image of X has {num_features}"
            )
        return height, width, channels

    def _as_images(self, flat: np.ndarray) -> np.ndarray:
        """(n, C, H, W) of (n, features)."""
        return flat.reshape(len(flat), *self.image_shape_).transpose(0, 3, 1, 2)

    def _values(self, section: type[Section]) -> dict[str, Any]:
        """The parameters that `section` declares, checked."""
        values = {
            key: _as_lists(value)
            for key, value in self.get_params(deep=False).items()
            if key in section.model_fields
        }
        if "target" in section.model_fields:
            (values["target"],) = section.model_fields["target"].annotation.__args__  # type: ignore[union-attr]
        try:
            section.model_validate(values)
        except ValidationError as error:
            mistakes = [
                f"{each['loc'][0]}={values[str(each['loc'][0])]!r}: {allowed_values(each)}"
                for each in error.errors()
            ]
            raise ValueError("; ".join(mistakes)) from None
        return values

    def _build(self, images: np.ndarray, training: _TrainingConfig) -> models.CNN | models.MLP:
        section, network = NETWORKS[training.model]
        config = section(**self._values(section))
        mean = images.mean((0, 2, 3), dtype=np.float64)
        std = images.std((0, 2, 3), dtype=np.float64)
        per_epoch = steps_per_epoch(len(images), training.batch_size)
        arguments: dict[str, Any] = dict(config.knobs)
        if isinstance(config, CNNConfig):
            arguments["first_layer"] = config.first_layer
        return network(
            list(images.shape[1:]),
            len(self.classes_),
            init=config.init,
            training={
                # in the network's units: pixels divided by 255
                "mean": (mean / 255).tolist(),
                "std": [s / 255 or 1.0 for s in std.tolist()],
                "classes": [str(name) for name in self.classes_],
                "loss": config.loss,
                "label_smoothing": config.label_smoothing,
                "optimizer": _optimizer(training),
                "schedule": {
                    "name": training.scheduler,
                    "steps_per_epoch": per_epoch,
                    "total_steps": per_epoch * training.max_epochs,
                },
                "gradient_clip_norm": training.gradient_clip_norm,
            },
            **arguments,
        )


def _flattened(X: Any) -> tuple[Any, tuple[int, int, int] | None]:
    """(n, features), and the shape (H, W, C) if X has the axes of images; otherwise X as it is."""
    if isinstance(X, list | tuple | Tensor):
        X = np.asarray(X)
    if getattr(X, "ndim", 2) < 3:
        return X, None
    if X.ndim > 4:
        raise ValueError(
            f"X has the shape {X.shape}; allowed: (n, H, W), (n, H, W, C) or (n, features)"
        )
    height, width, channels = (*X.shape[1:], 1)[:3]
    return X.reshape(len(X), prod(X.shape[1:])), (height, width, channels)


def _as_lists(value: Any) -> Any:
    """The value as in a config: lists, and Python numbers."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_as_lists(entry) for entry in value] if isinstance(value, list | tuple) else value


def _by(shape: Sequence[int] | None) -> str:
    return "x".join(map(str, shape or ()))


def _optimizer(training: _TrainingConfig) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "name": training.optimizer,
        "lr": training.lr,
        "weight_decay": training.weight_decay,
    }
    takes = OPTIMIZERS[training.optimizer].model_fields
    if "momentum" in takes:
        arguments["momentum"] = training.momentum
    if "nesterov" in takes:
        arguments["nesterov"] = training.momentum > 0
    return arguments


def _find_device(name: str) -> torch.device:
    """The device that `name` means here.

    Raises:
        ValueError: if it does not exist.
    """
    there = ["auto", *machine.devices()]
    if name not in there:
        raise ValueError(f"device={name!r}; allowed here: {', '.join(there)}")
    return torch.device(str(machine.named_device(name)))


@machine.flushing_denormals()
def _train(
    model: models.CNN | models.MLP,
    images: np.ndarray,
    labels: np.ndarray,
    training: _TrainingConfig,
    device: torch.device,
    seed: int,
) -> None:
    """Fit `model` to images (n, C, H, W) and labels (n,), leaving it ready to predict."""
    classes = tuple(model.classes)
    nothing = images[:0], labels[:0]
    as_they_are = (0.0,) * images.shape[1], (1.0,) * images.shape[1]  # the model normalises
    image_set = ImageSet("arrays", classes, images, labels, *nothing, *as_they_are, checksum="")
    data = ImageDataModule(
        image_set,
        val_size=0,
        batch_size=training.batch_size,
        seed=seed,
        steps_per_execution=steps_per_execution(model.plan.macs, training.batch_size, device.type),
    )
    trainer = pl.Trainer(
        accelerator=device.type,
        devices=1 if device.index is None else [device.index],
        precision="32-true",
        max_epochs=training.max_epochs,
        plugins=[LightningEnvironment()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(model, data)
    except SystemExit:  # Lightning turns Ctrl-C into this, and then ignores Ctrl-C for good
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
        raise KeyboardInterrupt from None
    model.trainer = None  # it keeps the images alive
    model.eval()


@contextmanager
def _undisturbed(device: torch.device) -> Iterator[None]:
    """Keep Lightning quiet, and restore torch's random state afterwards."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def __getattr__(name: str) -> Any:
    if name == "ImageClassifier":  # its original name
        return NetworkClassifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
