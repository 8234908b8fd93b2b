"""Whole optimiser steps of a small dense network, several in one compiled call.

`trainer.compile=true` on the CPU. `_Function` says in plain operations what a step of
`quick_steps` does: forward, backward, Adam. torch's compiler makes one function of several such
steps ahead of time and writes it into a file; every later run of the same shape loads that file.
The results differ from those of single steps by rounding; benchmarks/README.md has the gain.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from convscape.base import files
from convscape.base.errors import ConfigError, Stopped, not_written
from convscape.base.machine import cpu_name
from convscape.models import quick_steps
from convscape.models.quick_steps import ACTIVATIONS, AdamState, DenseChain

Batch = tuple[Tensor, Tensor]

NUM_STEPS = 4  # of a call; twice as many take twice as long to compile, and gain nothing


class Taken(NamedTuple):
    """What single steps would have left: losses (), logits (N, K), labels (N,) of each batch."""

    losses: list[Tensor]
    logits: list[Tensor]
    labels: list[Tensor]
    rest: Iterable[Batch]  # batches that are still to be trained on


class Shape(NamedTuple):
    """What a compiled function depends on."""

    widths: tuple[int, ...]  # of the pixels, the hidden layers, the logits
    activations: tuple[type[nn.Module] | None, ...]
    images: tuple[int, ...]  # (N, C, H, W) of a batch
    num_scales: int  # of pixels: one for all channels, or one for each
    is_decoupled: bool  # AdamW

    @classmethod
    def of(cls, dense: DenseChain, images: tuple[int, ...], num_scales: int, adamw: bool) -> Self:
        """That of a network, its batches and its optimiser."""
        weights = [each.weight for each in dense.layers]
        widths = (weights[0].shape[1], *(len(weight) for weight in weights))
        activations = tuple(each.activation for each in dense.layers)
        return cls(widths, activations, images, num_scales, adamw)

    @property
    def file(self) -> Path:
        """Where the function is kept: of this shape, and of all else that the code depends on."""
        processor = cpu_name(), torch.cpu.get_capabilities(), torch.get_num_threads()
        code = b"".join(Path(file).read_bytes() for file in (__file__, quick_steps.__file__))
        words = self, torch.__version__, processor
        key = hashlib.sha256(code + repr(words).encode()).hexdigest()[:16]
        # not beside the data: a project that was received could bring code along; nor where torch
        # keeps its own, in the temporary folder: there another user could have put code
        home = Path(os.environ.get("XDG_CACHE_HOME", ""))
        home = home if home.is_absolute() else Path.home() / ".cache"
        return home / "convscape" / f"steps-{key}.pt2"


class CompiledSteps:
    """`NUM_STEPS` optimiser steps in one call, for batches of one shape.

    Which steps of a training are taken so depends on where in it they are and on nothing else, so
    that a resumed one takes the same: not those of its first call, with which Adam's state begins,
    nor those that are left of a call's batches.

    Raises:
        ConfigError: if it must be compiled, and there is no compiler or nowhere to write.
    """

    def __init__(self, shape: Shape) -> None:
        try:
            package = _loaded(_file_of(shape))
        except RuntimeError:  # the file is damaged
            files.remove(shape.file, within=shape.file.parent)
            package = _loaded(_file_of(shape))
        self._run = package.run
        self._images = shape.images

    def take(
        self,
        dense: DenseChain,
        optimizer: torch.optim.Optimizer,
        scale: Tensor,
        shift: Tensor,
        batches: Iterator[Batch],
        rates: Iterator[float],
    ) -> Taken:
        """Train on as many batches as full calls take.

        - `scale`, `shift`: of pixels.
        - `rates`: the learning rate of each step.
        """
        taken = Taken([], [], [], batches)
        state = AdamState.of(optimizer) if dense.is_simple else None
        if state is None or not state.is_even:
            return taken
        tensors = [*state.parameters, *state.averages, *state.squares, scale, shift]
        tensors += map(torch.tensor, state.numbers)
        while group := list(islice(batches, NUM_STEPS)):
            if len(group) < NUM_STEPS or not all(self._fits(*batch) for batch in group):
                return taken._replace(rest=chain(group, batches))
            images, labels = zip(*group, strict=True)
            next_rates = list(islice(rates, NUM_STEPS))
            given = [*tensors, state.steps[0], torch.tensor(next_rates), *images, *labels]
            losses, logits = self._run(given)
            torch._foreach_add_(state.steps, NUM_STEPS)
            state.group["lr"] = next_rates[-1]
            taken.losses.extend(losses.unbind())
            taken.logits.extend(logits.unbind())
            taken.labels.extend(labels)
        return taken

    def _fits(self, images: Tensor, labels: Tensor) -> bool:
        return (
            images.shape == self._images
            and images.dtype == torch.uint8
            and images.is_contiguous()
            and labels.dtype == torch.int64
            and labels.ndim == 1
        )


def _file_of(shape: Shape) -> Path:
    """The compiled function of this shape: found, or made while others who want it wait."""
    file = shape.file
    if not file.is_file():
        try:
            with files.lock(file.with_suffix(".lock"), within=file.parent):
                if not file.is_file():
                    files.write_atomic(file, _compiled(shape), within=file.parent)
        except OSError as error:
            what = f"trainer.compile=true: cannot write {file.parent} or {tempfile.gettempdir()}"
            way_out = "set XDG_CACHE_HOME to another folder, or trainer.compile=false"
            raise ConfigError(not_written(what, error, way_out)) from error
    return file


def _loaded(file: Path) -> Any:
    return torch._C._aoti.AOTIModelPackageLoader(str(file), "model", False, 1, -1)


def _compiled(shape: Shape) -> bytes:
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    function = _Function(shape)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        program = torch.export.export(function, function.example(), strict=False)
        path = Path(folder) / "steps.pt2"
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(path))
        except (InductorError, InvalidCxxCompiler) as error:
            inner = getattr(error, "inner_exception", None)
            if isinstance(inner, Stopped | OSError):  # Ctrl-C, or a full disk
                raise inner from None
            raise ConfigError(
                f"trainer.compile=true: torch found no working C++ compiler ({error}); install "
                "one, or set trainer.compile=false"
            ) from error
        return path.read_bytes()


class _Function(nn.Module):
    """What is compiled. It takes tensors in one row, and writes into the first three of each layer.

    In this order: the parameters, their averages, their squares; scale and shift of pixels; beta1,
    beta2, eps, weight decay; how many steps there were, the learning rates; images; labels.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def example(self) -> tuple[Tensor, ...]:
        """Arguments of the right shapes."""
        widths = self.shape.widths
        parameters = [
            torch.zeros(size)
            for number, width in enumerate(widths[1:])
            for size in ((width, widths[number]), (width,))
        ]
        states = [torch.zeros_like(each) for _ in range(3) for each in parameters]
        pixels = [torch.ones(self.shape.num_scales, 1, 1) for _ in range(2)]
        numbers = [*(torch.zeros(()) for _ in range(5)), torch.zeros(NUM_STEPS)]
        images = [torch.zeros(self.shape.images, dtype=torch.uint8) for _ in range(NUM_STEPS)]
        labels = [torch.zeros(len(images[0]), dtype=torch.int64) for _ in range(NUM_STEPS)]
        return *states, *pixels, *numbers, *images, *labels

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Losses (NUM_STEPS,), logits (NUM_STEPS, N, K)."""
        num_parameters = 2 * len(self.shape.activations)
        given = iter(tensors)
        parameters, averages, squares = (list(islice(given, num_parameters)) for _ in range(3))
        scale, shift, beta1, beta2, eps, decay, count, rates = islice(given, 8)
        images, labels = (list(islice(given, NUM_STEPS)) for _ in range(2))
        kept = parameters + averages + squares
        all_losses, all_logits = [], []
        for step in range(NUM_STEPS):
            pixels = (images[step] * scale + shift).flatten(1)
            gradients, loss, logits = self._gradients(parameters, pixels, labels[step])
            all_losses.append(loss)
            all_logits.append(logits)
            size = rates[step] / (1 - beta1 ** (count + step + 1))
            correction = (1 - beta2 ** (count + step + 1)).sqrt()
            for number, gradient in enumerate(gradients):
                p, m, v = parameters[number], averages[number], squares[number]
                if self.shape.is_decoupled:
                    p = p * (1 - rates[step] * decay)
                else:
                    gradient = gradient + decay * p
                averages[number] = m = m + (1 - beta1) * (gradient - m)
                squares[number] = v = beta2 * v + (1 - beta2) * gradient * gradient
                parameters[number] = p - size * m / (v.sqrt() / correction + eps)
        for before, after in zip(kept, parameters + averages + squares, strict=True):
            before.copy_(after)
        return torch.stack(all_losses), torch.stack(all_logits)

    def _gradients(
        self, parameters: list[Tensor], pixels: Tensor, labels: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Of each parameter, and the loss (), and the logits (N, K)."""
        weights, biases = parameters[::2], parameters[1::2]
        inputs = [pixels]
        for weight, bias, activation in zip(weights, biases, self.shape.activations, strict=True):
            y = torch.addmm(bias, inputs[-1], weight.t())
            inputs.append(y if activation is None else ACTIVATIONS[activation][0](y))
        logits = inputs[-1]
        log_probabilities = torch.log_softmax(logits, 1)
        loss = -log_probabilities.gather(1, labels[:, None]).mean()
        gradient = (log_probabilities.exp() - one_hot(labels, logits.shape[1])) / len(labels)
        gradients: list[Tensor] = []
        for number in reversed(range(len(weights))):
            activation = self.shape.activations[number]
            if activation is not None:
                gradient = ACTIVATIONS[activation][1](gradient, inputs[number + 1])
            gradients = [torch.mm(gradient.t(), inputs[number]), gradient.sum(0), *gradients]
            if number:
                gradient = torch.mm(gradient, weights[number])
        return gradients, loss, logits
