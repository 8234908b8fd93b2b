"""What training minimises: this project's losses, and those that a config names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.base.sections import Part
from convscape.base.values import hint

LOSSES = ("cross_entropy", "logits_mse", "softmax_mse")
# torch's losses of logits (N, K), and what they compare them with; torch.nn's others are for
# something else: probabilities, their logarithms, pairs
OF_LABELS = ("CrossEntropyLoss", "MultiMarginLoss")
OF_ONE_HOT = (
    "BCEWithLogitsLoss", "MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss",
    "MultiLabelSoftMarginLoss",
)  # fmt: skip

Loss = Callable[[Tensor, Tensor], Tensor]


def loss_of(
    described: str | Mapping[str, Any],
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    allow_packages: Sequence[str] = (),
) -> Loss:
    """Mean loss of logits (N, K) for class ids (N,) or soft labels (N, K).

    - `described`: a name of `LOSSES`, or `_target_` and arguments.
    - `class_weights`: how much each class counts, (K,).

    Raises:
        ConfigError: if the loss does not exist, or has no class weights; when it is called, if it
            does not return a mean, or only takes class ids and gets soft labels.
    """
    if isinstance(described, str):
        return _of_ours(described, label_smoothing, class_weights)
    part = Part.model_validate(dict(described))
    return _named(part, class_weights, allow_packages)


def known(key: str, name: Any, allowed: Iterable[str]) -> str:
    """The name, if it is one of `allowed`.

    Raises:
        ConfigError: naming the closest one, if it is not.
    """
    if name not in allowed:
        raise ConfigError(f"{key}={name}: allowed: {', '.join(allowed)}{hint(name, allowed)}")
    return str(name)


def gives_probabilities(model: nn.Module) -> bool:
    """Whether it was trained to make the softmax of its logits a probability."""
    name = getattr(model, "loss_name", "cross_entropy")
    is_raw = name == "logits_mse" or name.startswith("torch.nn.")
    return not is_raw or name.endswith(".CrossEntropyLoss")


def _of_ours(name: str, smoothing: float, weights: Tensor | None) -> Loss:
    if name == "cross_entropy":
        return partial(F.cross_entropy, weight=weights, label_smoothing=smoothing)
    if weights is not None:
        raise ConfigError(
            f"loss.class_weights: model.loss={name} counts all classes alike; allowed: "
            "model.loss=cross_entropy"
        )
    return partial(_squared_error, of_softmax=name == "softmax_mse", smoothing=smoothing)


def _squared_error(logits: Tensor, labels: Tensor, *, of_softmax: bool, smoothing: float) -> Tensor:
    if labels.ndim == 1:
        labels = F.one_hot(labels, logits.shape[1])
    targets = labels * (1 - smoothing) + smoothing / logits.shape[1]
    outputs = logits.softmax(1) if of_softmax else logits
    return F.mse_loss(outputs, targets.to(logits.dtype))


def _named(part: Part, weights: Tensor | None, allow_packages: Sequence[str]) -> Loss:
    key = "loss._target_"
    found = parts.find("loss", key, part.target, allow_packages, part.arguments)
    takes_one_hot = found.__module__ == "torch.nn.modules.loss" and found.__name__ in OF_ONE_HOT
    is_of_torch = found.__module__ == "torch.nn.modules.loss"
    if is_of_torch and found.__name__ not in (*OF_LABELS, *OF_ONE_HOT):
        known = [f"torch.nn.{name}" for name in (*OF_LABELS, *OF_ONE_HOT)]
        raise ConfigError(
            f"{key}={part.target} is not a loss of one number for each class and a label; allowed: "
            f"{', '.join(known)}"
        )
    arguments = dict(part.arguments)
    if weights is not None:
        if "weight" not in parts.parameters(found):
            raise ConfigError(f"loss.class_weights: {part.target} takes no `weight`; leave it out")
        arguments["weight"] = weights
    if isinstance(found, type):
        built: Any = parts.call(key, part.target, found, (), arguments)
        if any(True for _ in built.parameters()):
            raise ConfigError(
                f"{key}={part.target} has its own weights to learn; allowed: a LightningModule "
                "that contains this loss"
            )
    else:
        parts.check_arguments(key, part.target, found, ("logits", "labels"), arguments)
        built = partial(found, **arguments)
    return _Named(part.target, built, takes_one_hot)


class _Named:
    """One of torch's losses or a user's; its output is checked once."""

    def __init__(self, target: str, built: Any, takes_one_hot: bool) -> None:
        self._target, self._built, self._takes_one_hot = target, built, takes_one_hot
        self._is_checked = self._takes_shares = False

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = logits.float()  # as torch's own losses do if the network computes in bf16
        is_one_hot = self._takes_one_hot and labels.ndim == 1
        targets = F.one_hot(labels, logits.shape[1]).to(logits) if is_one_hot else labels
        if isinstance(self._built, nn.Module):
            self._built.to(logits.device)
        if labels.ndim == 2 and not (self._takes_one_hot or self._takes_shares):
            self._check_shares(logits.detach(), labels.argmax(1))
        loss: Tensor = self._built(logits, targets)
        if not self._is_checked:
            self._check(loss, learns=logits.requires_grad)
        return loss

    @torch.no_grad()
    def _check_shares(self, logits: Tensor, ids: Tensor) -> None:
        """Check that a one-hot label gives the same loss as the class id."""
        shares = F.one_hot(ids, logits.shape[1]).to(logits)
        devices = [logits.device] if logits.device.type == "cuda" else []
        with torch.random.fork_rng(devices):  # it may draw numbers, and a resumed run checks again
            try:
                given, expected = self._built(logits, shares), self._built(logits, ids)
                self._takes_shares = torch.allclose(given, expected)
                why = f"for one-hot labels it gives {given:.6g}, for their class ids {expected:.6g}"
            except Exception as error:  # noqa: BLE001  a user's function may raise anything
                why = parts.told(error)
        if not self._takes_shares:
            raise ConfigError(
                f"loss._target_={self._target} takes class ids (N,), and data.augment.mixup and "
                f"cutmix make soft labels (N, {logits.shape[1]}): {why}; leave them out, or take "
                "model.loss=cross_entropy"
            )

    def _check(self, loss: Any, learns: bool) -> None:
        if not (isinstance(loss, Tensor) and loss.ndim == 0 and loss.is_floating_point()):
            given = (
                f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"{loss!r:.100}"
            )
            raise ConfigError(
                f"loss._target_={self._target} gave {given}; allowed: one number as a tensor, the "
                "mean over the batch"
            )
        if learns and not loss.requires_grad:
            raise ConfigError(
                f"loss._target_={self._target} gave a number that autograd cannot trace back to "
                "the logits, so nothing would be learned; compute it with torch's functions only"
            )
        self._is_checked = learns


def balanced(labels: Tensor, num_classes: int) -> list[float]:
    """Weights that make every class count alike: images / (classes * images of the class).

    As scikit-learn's class_weight="balanced"; 0 for a class without images.
    """
    counts = labels.bincount(minlength=num_classes).double()
    weights = torch.where(counts > 0, len(labels) / (num_classes * counts), 0.0)
    return [float(weight) for weight in weights]
