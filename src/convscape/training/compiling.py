"""What `trainer.compile=true` compiles: whole steps where they gain from it, else the network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from convscape.base.terminal import say
from convscape.models.classifier import ImageClassifier
from convscape.models.compiled_steps import CompiledSteps, Shape
from convscape.models.quick_steps import is_quick_adam

if TYPE_CHECKING:
    from convscape.base.quick_lightning import pl
    from convscape.runs.resolved import ResolvedRun


def compile_model(model: pl.LightningModule, run: ResolvedRun) -> None:
    """Compile steps of several batches in one, or the network, or the whole of another's module.

    Raises:
        ConfigError: if that needs a C++ compiler, and there is none.
    """
    if not isinstance(model, ImageClassifier):
        model.compile()
        return
    shape = _shape_of_steps(model, run)
    if shape is None:
        model.network.compile()
        return
    if not shape.file.is_file() and run.config.trainer.progress != "off":
        say("compiling the steps of this network, once for all runs of its shape", file=sys.stderr)
    model.compiled = CompiledSteps(shape)


def _shape_of_steps(model: ImageClassifier, run: ResolvedRun) -> Shape | None:
    """None where single steps do more than the compiled ones know of."""
    if run.uses_bf16 or run.device.kind != "cpu":
        return None
    dense, optimizer = model.dense_chain(), model.configure_optimizers()
    is_own = model.has_own_optimizer or type(model).normalize is not ImageClassifier.normalize
    is_watched = model.gradient_clip_norm is not None or run.config.trainer.ema is not None
    if dense is None or not dense.is_simple or is_own or is_watched:
        return None
    if isinstance(optimizer, dict) or not is_quick_adam(optimizer):
        return None
    images = (run.config.data.batch_size, *run.image_shape)
    is_adamw = optimizer.param_groups[0]["decoupled_weight_decay"]
    return Shape.of(dense, images, len(model.scale), is_adamw)
