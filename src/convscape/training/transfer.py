"""Weights of another run in a new network, layer by layer; and frozen layers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # any number of dimensions

from convscape.base.errors import ConfigError
from convscape.base.layer_names import bare_name, chosen, layer_of, layers_of
from convscape.base.quick_lightning import pl
from convscape.base.terminal import format_table, say
from convscape.base.values import counted
from convscape.base.weights import Weights
from convscape.runs.folder import RunFolder, local_rank
from convscape.runs.init_from import weights_of

if TYPE_CHECKING:
    from convscape.runs.resolved import ResolvedRun
    from convscape.runs.result import Result

logger = logging.getLogger("convscape")

LOADED, NEW, LEFT = "loaded", "new", "left"
MAX_NAMED = 6  # layers in a sentence
_KINDS = {
    None: "",
    True: ", averaged by trainer.ema",
    False: ", as trained and not averaged by trainer.ema",
}


@dataclass(frozen=True)
class Carried:
    """What became of a layer: loaded, new, or left as it was, and why."""

    layer: str
    what: str
    why: str = ""


def carry_over(
    module: nn.Module, weights: Weights, layers: Sequence[str] | None, classes: Sequence[str]
) -> list[Carried]:
    """Load `weights` into the layers of `module`; return what became of each layer.

    - `layers`: those to load, all of which must fit. None: from the first layer on, as far as they
      fit; after a new layer, the input is not what later weights have learned from. The last layer
      is new if its `classes` differ.

    Raises:
        ConfigError: if a layer that was asked for is missing or does not fit, or none fits.
    """
    state = module.state_dict()
    ours, theirs = layers_of(state), layers_of(weights.tensors)
    fixed = {bare_name(n) for n, p in module.named_parameters() if not p.requires_grad}
    asked = None if layers is None else chosen(layers, ours, "init_from.layers")
    misfits = {
        layer: _misfit(names, theirs.get(layer), state, weights) for layer, names in ours.items()
    }
    head = list(ours)[-1]
    if not misfits[head] and weights.classes and weights.classes != list(classes):
        misfits[head] = "its classes differ"
    rows: list[Carried] = []
    broken = ""
    for layer, names in ours.items():
        why = misfits[layer]
        if fixed.intersection(map(bare_name, names)):
            rows.append(Carried(layer, NEW, "model.first_layer sets it"))
            continue
        if asked is not None:
            if layer in asked and why:
                raise ConfigError(f"init_from.layers: {layer} cannot be loaded: {why}")
            why = "" if layer in asked else "not asked for"
        elif broken:
            why = why or f"it comes after {broken}, which is new"
        elif why:
            broken = layer
        rows.append(Carried(layer, NEW if why else LOADED, why))
    loaded = [row.layer for row in rows if row.what == LOADED]
    if not loaded:
        fit = [layer for layer, why in misfits.items() if not why]
        way_out = "init_from=null starts without them"
        if fit:
            way_out = f"init_from.layers=[{','.join(fit)}] loads what fits"
        sides = f"layers there: {_shown(theirs)}; here: {_shown(ours)}; "
        raise ConfigError(
            f"init_from: nothing can be loaded: {rows[0].layer}: {rows[0].why}; "
            f"{sides if theirs.keys() != ours.keys() else ''}{way_out}"
        )
    rows += [Carried(layer, LEFT) for layer in theirs if layer not in loaded and layer not in ours]
    with torch.no_grad():
        for layer in loaded:
            for name in ours[layer]:
                state[name].copy_(weights.tensors[bare_name(name)])
    return rows


def _shown(layers: Iterable[str]) -> str:
    named = list(layers)
    return ", ".join(named[:MAX_NAMED]) + ", ..." * (len(named) > MAX_NAMED)


def _misfit(
    names: list[str], theirs: list[str] | None, state: dict[str, Tensor], weights: Weights
) -> str:
    """Why a layer cannot take its weights; empty if it can."""
    if theirs is None:
        return "it does not exist"
    if {bare_name(name) for name in names} != set(theirs):
        leaves = [
            ", ".join(sorted(bare_name(name).rpartition(".")[2] for name in side))
            for side in (theirs, names)
        ]
        return f"{leaves[0]} there, {leaves[1]} here"
    for name in names:
        there, here = weights.tensors[bare_name(name)].shape, state[name].shape
        if there != here:
            sizes = ["x".join(map(str, shape)) or "a number" for shape in (there, here)]
            return f"{sizes[0]} there, {sizes[1]} here"
        given = weights.tensors[bare_name(name)]
        if given.is_floating_point() != state[name].is_floating_point():
            kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in (given, state[name])]
            return f"{kinds[0]} there, {kinds[1]} here"
        if not bool(given.isfinite().all()):
            return "it has weights that are not finite"
    return ""


def described(rows: Sequence[Carried], source: str) -> str:
    """What became of the layers, as a table; a block treated alike as a whole is one row."""
    table = [("layer", "weights")]
    for (stage, what, why), group in groupby(
        rows, key=lambda row: (row.layer.partition(".")[0], row.what, row.why)
    ):
        members = list(group)
        every = {r.layer for r in rows if r.layer.partition(".")[0] == stage}
        is_whole = len(members) > 1 and len(every) == len(members)
        names = [stage] if is_whole else [row.layer for row in members]
        table += [(name, f"{what}: {why}" if why else what) for name in names]
    counts = [f"{sum(row.what == what for row in rows)} {what}" for what in (LOADED, NEW, LEFT)]
    layers = counted(len(rows), "layer")
    words = [f"weights from {source}:", format_table(table)]
    return "\n".join([*words, f"{layers} with weights: {', '.join(counts)}"])


def begin_with(
    run: ResolvedRun, folder: RunFolder, module: nn.Module, result: Result, *, is_new: bool
) -> list[pl.Callback]:
    """Give a model its initial weights; return what keeps some of its layers from learning.

    - `is_new`: it does not continue from a checkpoint, which has the weights.

    Raises:
        ConfigError: if what was asked for is missing, or nothing would be left to learn.
    """
    config = run.config
    words = []
    if is_new and config.init_from.run is not None:
        weights = weights_of(config.init_from)
        rows = carry_over(module, weights, config.init_from.layers, run.classes)
        result.loaded = [row.layer for row in rows if row.what == LOADED]
        if local_rank() == 0:
            folder.write(result)  # the weights are not needed again, but their record is
        words.append(described(rows, f"{config.init_from.run}{_KINDS[weights.are_averages]}"))
    asked, num_epochs = config.trainer.freeze, config.trainer.freeze_epochs
    layers = result.loaded if asked == "loaded" else _frozen(module, asked or [])
    callbacks: list[pl.Callback] = []
    if layers:
        callbacks.append(Freezing(module, layers, num_epochs))
        what = "the loaded layers" if asked == "loaded" else ", ".join(layers)
        how_long = {None: "", 1: " for the first epoch"}.get(
            num_epochs, f" for the first {num_epochs} epochs"
        )
        words.append(f"{what}: frozen{how_long}, batch-norm statistics included")
    for text in words:
        logger.info("%s", text)
    if config.trainer.progress != "off" and local_rank() == 0:
        say(*words)
    return callbacks


def _frozen(module: nn.Module, asked: Sequence[str]) -> list[str]:
    layers = layers_of(name for name, _ in module.named_parameters())
    return sorted(chosen(asked, layers, "trainer.freeze"), key=list(layers).index)


class Freezing(pl.Callback):
    """Keeps layers as they are for the first `num_epochs` epochs, or throughout.

    The running statistics of their batch norm are kept too: their weights, and those of later
    layers, were learned with them.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str], num_epochs: int | None) -> None:
        learned = [name for name, p in module.named_parameters() if p.requires_grad]
        if set(layers_of(learned)) <= set(layers):
            others = list(layers_of(learned))[:-1]
            way_out = f"trainer.freeze=[{','.join(others)}]" if others else "trainer.freeze=null"
            raise ConfigError(
                f"trainer.freeze: nothing is left to learn; leave a layer out, as in {way_out}"
            )
        self.num_epochs = num_epochs
        self._layers = set(layers)
        self._parameters = [
            p
            for name, p in module.named_parameters()
            if p.requires_grad and layer_of(name) in self._layers
        ]
        if num_epochs is None:  # before the processes agree on what they exchange
            self._learn(False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze also when resuming within an epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freeze the layers, or let them learn."""
        is_over = self.num_epochs is not None and trainer.current_epoch >= self.num_epochs
        self._learn(is_over)
        for name, each in pl_module.named_modules():
            if isinstance(each, BatchNorm) and bare_name(name) in self._layers:
                each.train(is_over)

    def _learn(self, learns: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(learns)
