"""Optimiser steps with less Python and autograd around the same kernels, to the same bits.

Half of a small MLP's step is bookkeeping: autograd's graph, and an optimiser that looks up what
never changes. `DenseChain` back-propagates through dense layers itself, `bound_step` keeps what
Adam looks up. Both step aside if anything is not as they expect; benchmarks/README.md has the gain.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.module import _has_any_global_hook
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from convscape.models.losses import Loss

aten = torch.ops.aten
_log_softmax_backward = torch.ops.aten._log_softmax_backward_data.default

Backward = Callable[[Tensor, Tensor], Tensor]  # of a gradient and the activation's output

# in place, and from a gradient and what came out to the gradient of what went in
ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Backward]] = {
    nn.ReLU: (torch.relu_, lambda gradient, y: aten.threshold_backward.default(gradient, y, 0)),
    nn.Tanh: (torch.tanh_, aten.tanh_backward.default),
    nn.Sigmoid: (torch.sigmoid_, aten.sigmoid_backward.default),
}


@dataclass
class _Dense:
    """weight (out, in), bias (out,), then an activation and dropout with probability `dropout`."""

    weight: nn.Parameter
    bias: nn.Parameter
    activation: type[nn.Module] | None = None
    dropout: float = 0.0


class DenseChain:
    """A sequence of dense layers; gradients without a graph, in fp32 or under autocast.

    Forward and backward call the kernels that autograd would call, in its order, and draw the same
    random numbers.

    - `loss`: of logits (N, K) and labels; any but torch's own cross-entropy uses its own graph.
    """

    def __init__(self, layers: list[_Dense], loss: Loss) -> None:
        self.layers, self._loss = layers, loss
        self._one = torch.ones(())
        self._is_low = torch.is_autocast_enabled("cpu")

    @classmethod
    def of(cls, network: nn.Module, loss: Loss = cross_entropy) -> Self | None:
        """None unless `network` is flatten, dense layers with activation or dropout, dense.

        Also None if layers share parameters, or if something hooks its modules, its graph or single
        parameters.
        """
        layers: list[_Dense] = []
        if torch.is_anomaly_enabled() or _has_any_global_hook():
            return None
        first, *others = _in_a_row(network)
        if type(first) is not nn.Flatten or first.start_dim != 1 or not others:
            return None
        for module in others:
            kind = type(module)
            if kind is nn.Linear and isinstance(module.bias, nn.Parameter):
                layers.append(_Dense(module.weight, module.bias))
            elif not layers or layers[-1].dropout:
                return None
            elif kind in ACTIVATIONS and layers[-1].activation is None:
                layers[-1].activation = kind
            elif kind is nn.Dropout and module.p < 1:
                layers[-1].dropout = module.p
            else:
                return None
        if not layers or layers[-1].activation or layers[-1].dropout:
            return None
        # last: most networks are not such a chain
        if not all(map(is_untouched, network.modules())):
            return None
        parameters = list(network.parameters())  # one that two layers share is listed once
        if len(parameters) != 2 * len(layers) or not all(map(_is_learned, parameters)):
            return None
        return cls(layers, loss)

    @property
    def is_simple(self) -> bool:
        """Whether it is fp32, has the plain loss, and draws nothing."""
        has_dropout = any(layer.dropout for layer in self.layers)
        return self._loss is cross_entropy and not self._is_low and not has_dropout

    @torch.no_grad()
    def gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and loss () of normalised images for class ids (N,) or soft labels (N, K).

        Afterwards each parameter's `grad` holds its gradient, whatever it held before.
        """
        activated, y = [], self._as_computed(images.flatten(1))
        inputs, weights, noises = [], [], []
        for layer in self.layers:
            inputs.append(y)
            weights.append(self._as_computed(layer.weight))
            y = torch.addmm(self._as_computed(layer.bias), y, weights[-1].t())
            if layer.activation is not None:
                y = ACTIVATIONS[layer.activation][0](y)
            activated.append(y)
            noise = None
            if layer.dropout:
                kept = 1 - layer.dropout
                noise = torch.empty_like(y).bernoulli_(kept).div_(kept)
                y = y * noise
            noises.append(noise)
        loss, gradient = self._loss_and_gradient(y, labels)
        for number in reversed(range(len(self.layers))):
            layer, noise = self.layers[number], noises[number]
            if noise is not None:
                gradient = gradient * noise
            if layer.activation is not None:
                gradient = ACTIVATIONS[layer.activation][1](gradient, activated[number])
            if self._is_low:
                _grad_of(layer.weight).copy_(torch.mm(gradient.t(), inputs[number]))
                _grad_of(layer.bias).copy_(torch.sum(gradient, 0))
            else:
                torch.mm(gradient.t(), inputs[number], out=_grad_of(layer.weight))
                torch.sum(gradient, 0, out=_grad_of(layer.bias))
            if number and inputs[number].numel() > 1:
                gradient = torch.mm(gradient, weights[number])
            # autograd takes a single number as column-major, and transposes the product
            elif number:
                gradient = torch.mm(weights[number].t(), gradient.t()).t()
        return y, loss

    def _as_computed(self, values: Tensor) -> Tensor:
        """The values in the precision of the products."""
        return values.to(torch.get_autocast_dtype("cpu")) if self._is_low else values

    def _loss_and_gradient(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss (), and its gradient (N, K) with respect to the logits."""
        if self._loss is not cross_entropy or labels.ndim == 2:
            with torch.enable_grad():
                outputs = logits.detach().requires_grad_()
                loss = self._loss(outputs.clone(), labels)  # the loss may modify them in place
            return loss.detach(), torch.autograd.grad(loss, outputs)[0]
        log_probabilities = torch.log_softmax(logits.float(), 1)  # fp32 also under autocast
        # no class weights, the mean, nothing ignored
        nll = (
            log_probabilities,
            labels,
            None,
            1,
            -100,
        )
        loss, total_weight = aten.nll_loss_forward.default(*nll)
        gradient = aten.nll_loss_backward.default(self._one, *nll, total_weight)
        gradient = _log_softmax_backward(gradient, log_probabilities, 1, log_probabilities.dtype)
        return loss, gradient.to(logits.dtype)


def _in_a_row(module: nn.Module) -> Iterator[Any]:
    """The modules that are called one after the other."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _in_a_row(child)


def is_untouched(module: nn.Module) -> bool:
    """Whether it is in train mode and does exactly what its class does."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    is_watched = any(getattr(module, name) for name in hooks)
    is_its_own = "forward" not in vars(module) and module._compiled_call_impl is None
    return module.training and not is_watched and is_its_own


def _is_learned(parameter: nn.Parameter) -> bool:
    return (
        type(parameter) is nn.Parameter
        and parameter.requires_grad
        and parameter.device.type == "cpu"
        and parameter.dtype == torch.float32
        and parameter.is_contiguous()
        and not parameter._backward_hooks
        and not parameter._post_accumulate_grad_hooks
    )


def _grad_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    return parameter.grad


@dataclass
class AdamState:
    """Of Adam or AdamW with one kernel for all parameters: what it keeps, as lists side by side."""

    group: dict[str, Any]
    parameters: list[Tensor]
    averages: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]

    @classmethod
    def of(cls, optimizer: torch.optim.Optimizer) -> Self | None:
        """None where anything of the optimiser is otherwise, or somebody is told of its steps."""
        if not is_quick_adam(optimizer):
            return None
        group = optimizer.param_groups[0]
        parameters: list[Tensor] = [p for p in group["params"] if p in optimizer.state]
        is_one_call = len({(each.device, each.dtype) for each in parameters}) == 1
        states = [optimizer.state[each] for each in parameters]
        kept = ("exp_avg", "exp_avg_sq", "step")
        lists = [[state[name] for state in states] for name in kept]
        return cls(group, parameters, *lists) if is_one_call else None

    @property
    def is_even(self) -> bool:
        """Whether all parameters have taken the same steps."""
        is_whole = len(self.parameters) == len(self.group["params"])
        return is_whole and not self.group["maximize"] and len(set(map(float, self.steps))) == 1

    @property
    def numbers(self) -> tuple[float, float, float, float]:
        """beta1, beta2, eps, weight decay."""
        return *map(float, self.group["betas"]), self.group["eps"], self.group["weight_decay"]


def is_quick_adam(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is one that `AdamState` knows."""
    group, *other_groups = optimizer.param_groups
    is_known = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and group["fused"]
    return is_known and not (other_groups or group["amsgrad"] or _is_hooked(optimizer))


def bound_step(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    """`optimizer.step`, for as long as neither its parameters nor its state are replaced.

    For Adam and AdamW with one kernel for all parameters it is just that kernel; the learning rate
    is read at each step.
    """
    state = AdamState.of(optimizer)
    if state is None:
        return optimizer.step
    group = state.group
    beta1, beta2, eps, weight_decay = state.numbers
    kernel = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_

    def step() -> None:
        gradients = [each.grad for each in group["params"] if each.grad is not None]
        if len(gradients) != len(state.parameters):  # one was unfrozen or frozen
            optimizer.step()
            return
        with torch.no_grad():
            torch._foreach_add_(state.steps, 1)
            kernel(
                *(state.parameters, gradients, state.averages, state.squares, [], state.steps),
                amsgrad=False,
                beta1=beta1,
                beta2=beta2,
                lr=group["lr"],
                weight_decay=weight_decay,
                eps=eps,
                maximize=group["maximize"],
            )

    return step


def begin_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Start momentum at 0, before an SGD step, for layers that join later, once unfrozen.

    torch's kernel for all parameters needs the momentum of all or of none, and fails on a mix.
    """
    for group in optimizer.param_groups:
        if not group["momentum"]:
            continue
        learning = [each for each in group["params"] if each.grad is not None]
        late = [p for p in learning if optimizer.state[p].get("momentum_buffer") is None]
        if len(late) < len(learning):
            for each in late:
                optimizer.state[each]["momentum_buffer"] = torch.zeros_like(each)


def _is_hooked(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its steps are hooked, or its `step` was replaced."""
    hooks = (
        *(optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks),
        *(_global_optimizer_pre_hooks, _global_optimizer_post_hooks),
    )
    is_torchs = inspect.unwrap(type(optimizer).step).__module__.startswith("torch.optim.")
    return any(hooks) or not is_torchs or "step" in vars(optimizer)
