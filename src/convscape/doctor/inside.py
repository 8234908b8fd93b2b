"""What one batch does inside a network: outputs, dead units, each layer's gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from convscape.base.layer_names import bare_name
from convscape.models import ImageClassifier
from convscape.models.inside import modes_kept
from convscape.training.watch import share_of_dead

FULL_TANH, FULL_SIGMOID = 0.97, 0.03  # beyond these the slope is below a tenth of its maximum


@dataclass
class Inside:
    """Measurements on one batch; shares are 0..1, and layers have the names of the plan.

    - `inputs`: mean and deviation of the images as the first layer gets them.
    - `loss`: mean over the batch; `logits` (N, num_classes).
    - `dead`: for each ReLU, the share of its units that are 0 for every image.
    - `full`: for each tanh and sigmoid, the share of its values at either end.
    - `gradients`: for each layer's weights, the root mean square gradient divided by that of the
      weights.
    - `layers`: the layers' names in network order.
    """

    inputs: tuple[float, float]
    loss: float
    logits: Tensor
    dead: dict[str, float] = field(default_factory=dict)
    full: dict[str, float] = field(default_factory=dict)
    gradients: dict[str, float] = field(default_factory=dict)


def look_inside(model: ImageClassifier, images: Tensor, labels: Tensor) -> Inside:
    """Run one batch forward and backward; the model, its gradients and statistics are unchanged."""
    images, labels = images.to(model.device), labels.to(model.device)
    dead, full = {}, {}

    def watch(name: str, module: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            if isinstance(module, nn.ReLU):
                dead[name] = share_of_dead(output)
            else:
                full[name] = _share_of_full(module, output)

        handles.append(module.register_forward_hook(note))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.ReLU | nn.Tanh | nn.Sigmoid):
            watch(bare_name(name), module)
    try:
        with _as_it_was(model), torch.enable_grad():
            pixels = model.normalize(images)
            logits = model(images)
            loss = model.loss(logits, labels)
            loss.backward()
            gradients = {
                bare_name(name): _relative(parameter)
                for name, parameter in model.named_parameters()
                if parameter.ndim > 1 and parameter.grad is not None
            }
    finally:
        for handle in handles:
            handle.remove()
    return Inside(
        inputs=(float(pixels.mean()), float(pixels.std())),
        loss=float(loss.detach()),
        logits=logits.detach().float().cpu(),
        dead=dead,
        full=full,
        gradients={name.removesuffix(".weight"): value for name, value in gradients.items()},
    )


def _share_of_full(module: nn.Module, output: Tensor) -> float:
    if isinstance(module, nn.Tanh):
        at_end = output.detach().abs() > FULL_TANH
    else:
        at_end = (output.detach() < FULL_SIGMOID) | (output.detach() > 1 - FULL_SIGMOID)
    return float(at_end.float().mean())


def _relative(parameter: nn.Parameter) -> float:
    assert parameter.grad is not None
    scale = float(parameter.detach().float().pow(2).mean().sqrt())
    return float(parameter.grad.float().pow(2).mean().sqrt()) / (scale or 1.0)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Train mode within; each module's statistics, gradients and mode are restored."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    gradients = [(p, p.grad) for p in model.parameters()]
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        with modes_kept(model):
            model.train()
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
