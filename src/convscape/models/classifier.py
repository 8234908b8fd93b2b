"""`ImageClassifier(LightningModule)`, the base of `MLP`, `CNN` and `Sequential`.

Everything is built from plain numbers, strings, lists and dicts, so a checkpoint loads with
`weights_only=True` and is enough to rebuild its model: `CNN.load_from_checkpoint(path)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from convscape import geometry
from convscape.base.errors import ConfigError
from convscape.base.quick_lightning import callbacks_of, count_steps, overrides, pl
from convscape.config.losses import BEFORE, in_full
from convscape.config.metrics import not_logged
from convscape.config.optimizers import OPTIMIZERS
from convscape.data.pixels import scale_and_shift
from convscape.models.answers import both_ways, check_logits
from convscape.models.compiled_steps import CompiledSteps, Taken
from convscape.models.losses import LOSSES, Loss, known, loss_of
from convscape.models.named import VAL_LOSS, monitors, named_optimizer, named_schedule
from convscape.models.quick_steps import DenseChain, begin_momentum, bound_step, is_untouched
from convscape.models.schedules import lr_factor
from convscape.models.sums import MetricSums

if TYPE_CHECKING:
    from torchmetrics import Metric

Batch = tuple[Tensor, Tensor]
ADAM = {"name": "adam", "lr": 0.001}  # Keras' default; a run's comes from conf/optimizer
GRADIENT_HOOKS = (
    *("on_before_zero_grad", "on_before_backward", "on_after_backward"),
    "on_before_optimizer_step",
)
_AGAINST_DIVERGING = (
    "a smaller optimizer.lr, trainer.gradient_clip_norm=1, or scheduler.warmup_epochs=1"
)


class Diverged(ArithmeticError):
    """The loss became NaN or infinite; `step` counts optimiser steps from 1."""

    def __init__(self, step: int, lr: float, advice: str = _AGAINST_DIVERGING) -> None:
        super().__init__(
            f"the loss is not finite at step {step} (learning rate {lr:.3g}); what usually helps: "
            f"{advice}"
        )
        self.step, self.lr = step, lr


class ImageClassifier(pl.LightningModule):
    """A network that turns images into logits, and how it is trained.

    Several optimiser steps run in one call of `training_step`, which saves Lightning's work around
    each call; benchmarks/README.md has the gain.

    - `network`: any module from normalised images (N, C, H, W) to logits (N, num_classes).
    - `mean`, `std`: per channel, of pixels scaled to 0..1; normalisation is part of the model.
    - `classes`: their names, in the order of the logits.
    - `loss`: "cross_entropy"; "mse" between logits and one-hot labels, "logits_mse" in full; or
      "softmax_mse" between softmax and one-hot labels; or any other as `_target_` with its
      arguments.
    - `class_weights`: how much each class counts in the training loss; None: all alike.
    - `optimizer`: `name` as in conf/optimizer, or `_target_`, and that optimiser's arguments.
    - `schedule`: as conf/scheduler, with `steps_per_epoch` and `total_steps`; none is constant.

    `allow_packages` are the user's packages that a `_target_` may come from; with `test_flip`, the
    answer for a test image is averaged with that for its mirror image. Both are set on the object
    and not saved in checkpoints.

    Your own loop needs `model(images)` with images of 0..255, `model.loss(logits, labels)`
    and `model.configure_optimizers()`: see examples/plain_loop.py. `plan` has its layers, if they
    are known; `print(model)` shows them as a table.
    """

    scale: Tensor
    shift: Tensor
    plan: geometry.Plan | None = None
    allow_packages: Sequence[str] = ()
    test_flip: bool = False
    compiled: CompiledSteps | None = None

    def __init__(
        self,
        network: nn.Module,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        classes: Sequence[str] = (),
        loss: str | Mapping[str, Any] = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.automatic_optimization = False
        self._train_sums = MetricSums()
        self._eval_sums = MetricSums()
        self.set_training(
            mean=mean,
            std=std,
            classes=classes,
            loss=loss,
            label_smoothing=label_smoothing,
            class_weights=class_weights,
            optimizer=optimizer,
            schedule=schedule,
            gradient_clip_norm=gradient_clip_norm,
        )

    def set_training(
        self,
        *,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        classes: Sequence[str] = (),
        loss: str | Mapping[str, Any] = "cross_entropy",
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        optimizer: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
        gradient_clip_norm: float | None = None,
    ) -> None:
        """All of a model but its network, as documented on the class; what is left out is reset.

        Raises:
            ConfigError: if the loss or optimiser does not exist.
        """
        self.classes = list(classes)
        self.described_loss = (
            known("loss", in_full(loss), LOSSES) if isinstance(loss, str) else dict(loss)
        )
        self.label_smoothing = label_smoothing
        self.class_weights = None if class_weights is None else list(class_weights)
        self._losses: dict[tuple[bool, torch.device], Loss] = {}
        self.optimizer_arguments = dict(optimizer or ADAM)
        if "_target_" not in self.optimizer_arguments:
            known("optimizer", self.optimizer_arguments.get("name"), OPTIMIZERS)
        self._last_rate = float(self.optimizer_arguments["lr"])
        self.schedule = dict(schedule or {})
        self.gradient_clip_norm = gradient_clip_norm
        scale, shift = scale_and_shift(mean, std)
        # then scale and shift in one pass
        self._only_scale = scale.item() if len(scale) == 1 else None
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def loss_name(self) -> str:
        """The loss's name: one of this project's, or the full name of any other."""
        described = self.described_loss
        return described if isinstance(described, str) else str(described["_target_"])

    def measure(self, metrics: Mapping[str, Metric]) -> None:
        """Log these too, from probabilities (N, num_classes) and labels (N,): train/f1, val/f1 ...

        None of them is part of the model or of its checkpoints.
        """
        self._train_sums.metrics = {name: metric.clone() for name, metric in metrics.items()}
        for metric in self._train_sums.metrics.values():
            metric.persistent(True)  # a checkpoint within an epoch keeps their counts
        self._eval_sums.metrics = {name: metric.clone() for name, metric in metrics.items()}
        for metric in self._eval_sums.metrics.values():
            metric.sync_on_compute = False  # every process evaluates all images

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels (N, C, H, W) of 0..255 as float32 with zero mean and unit deviation."""
        # bytes become floats on the way
        if self._only_scale is not None:
            pixels = torch.add(self.shift, images, alpha=self._only_scale)
        else:
            pixels = images.mul(self.scale).add_(self.shift)
        # only now: with three channels innermost, the above would take four times as long
        is_gray = images.shape[1] == 1
        return pixels if is_gray else pixels.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of images (N, C, H, W) with pixels of 0..255."""
        return self.network(self.normalize(images))

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean loss of logits (N, K) for class ids (N,) or one-hot or soft labels (N, K).

        Class weights apply only in train mode: evaluation counts every image alike.

        Raises:
            ConfigError: if there is not one weight per class.
        """
        if self.classes:
            check_logits(logits, len(self.classes))
        weighted = self.class_weights is not None and self.training
        key = weighted, logits.device
        if key not in self._losses:
            weights = torch.tensor(self.class_weights, device=logits.device) if weighted else None
            self._losses[key] = loss_of(
                self.described_loss,
                label_smoothing=self.label_smoothing,
                class_weights=weights,
                allow_packages=self.allow_packages,
            )
        return self._losses[key](logits, labels)

    # --- training -----------------------------------------------------------------------------

    def learning_rate(self, step: int) -> float:
        """Learning rate of optimiser step `step`, counted from 0, by our own schedules."""
        return self.optimizer_arguments["lr"] * self._lr_factor(step)

    def _lr_factor(self, step: int) -> float:
        has_formula = self.schedule and "_target_" not in self.schedule
        return lr_factor(step, **self.schedule) if has_formula else 1.0

    def configure_optimizers(self) -> Any:
        """The optimiser; `training_step` sets its learning rate before each step.

        With a schedule named by `_target_`, both, in Lightning's form.
        """
        arguments = dict(self.optimizer_arguments)
        packages = self.allow_packages
        if "_target_" in arguments:
            optimizer = named_optimizer(self.parameters(), arguments, packages)
        else:
            name = arguments.pop("name")
            kind = OPTIMIZERS[name]
            if kind.has_fused and self.device.type in ("cpu", "cuda"):
                arguments["fused"] = True
            optimizer = kind.torch_class(name)(self.parameters(), **arguments)
            if name == "sgd":
                optimizer.register_step_pre_hook(begin_momentum)
        if "_target_" not in self.schedule:
            return optimizer
        schedule = named_schedule(optimizer, self.schedule, packages)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, steps: Iterable[Batch] | Batch, batch_idx: int) -> None:
        """Take one optimiser step for each batch of `steps`, or for the one batch given.

        Raises:
            ConfigError: if a subclass has several optimisers.
            Diverged: if a loss is not finite (on a GPU the check waits for the end of the epoch).
        """
        optimizer = self._only_optimizer()
        schedules, is_watched = self.trainer.lr_scheduler_configs, self._is_watched()
        # Lightning's own backward prepares the exchange of gradients and calls hooks; without a
        # need for either it only costs time
        is_plain = self.trainer.world_size == 1 and not is_watched
        backward = Tensor.backward if is_plain else self.manual_backward
        chain = self.dense_chain() if is_plain else None
        take_step = bound_step(optimizer) if is_plain else optimizer.step
        first_step = self.global_step
        losses, all_logits, all_labels, batches = self._in_one_call(chain, optimizer, steps)
        rate = optimizer.param_groups[0]["lr"]
        for step, (images, labels) in enumerate(batches, first_step + len(losses)):
            if not schedules:
                self._set_learning_rate(optimizer, step)
            if chain is not None:
                logits, loss = chain.gradients(self.normalize(images), labels)
            else:
                logits = self(images)
                loss = self.loss(logits, labels)
                if is_watched:
                    self._tell("on_before_zero_grad", optimizer)
                optimizer.zero_grad()
                backward(loss)
            if is_watched:
                self._tell("on_before_optimizer_step", optimizer)
            if self.gradient_clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters(), self.gradient_clip_norm)
            take_step()
            rate = optimizer.param_groups[0]["lr"]
            if schedules:
                self._step_schedules("step", step + 1)
            # autocast keeps its low-precision copies of the weights until told otherwise
            torch.clear_autocast_cache()
            losses.append(loss.detach())
            all_logits.append(logits.detach())
            all_labels.append(labels)
        if losses:
            self._last_rate = rate  # setting a module's attribute is slow
            count_steps(self.trainer, len(losses))
            self._train_sums.add(losses, all_logits, all_labels)
            if self.device.type == "cpu":
                self._check_finite()

    def _in_one_call(self, chain: DenseChain | None, optimizer: Any, steps: Any) -> Taken:
        """Steps that are compiled: see models/compiled_steps.py."""
        batches = [steps] if isinstance(steps, tuple) else steps
        if chain is None or self.compiled is None:
            return Taken([], [], [], batches)
        rates = map(self.learning_rate, itertools.count(self.global_step))
        return self.compiled.take(chain, optimizer, self.scale, self.shift, iter(batches), rates)

    def dense_chain(self) -> DenseChain | None:
        """A chain that does autograd's work, if nothing else differs: see models/quick_steps.py."""
        kind, plain = type(self), ImageClassifier
        if kind.forward is not plain.forward or kind.loss is not plain.loss:
            return None
        if not is_untouched(self) or "loss" in vars(self):
            return None
        special = self.label_smoothing or self.class_weights is not None
        is_plain = self.described_loss == "cross_entropy" and not special
        return DenseChain.of(self.network, nn.functional.cross_entropy if is_plain else self.loss)

    def _only_optimizer(self) -> torch.optim.Optimizer:
        found = self.optimizers(use_pl_optimizer=False)
        if isinstance(found, torch.optim.Optimizer):
            return found
        raise ConfigError(
            f"{type(self).__name__}.configure_optimizers gave {len(found)} optimisers; allowed: "
            "one, or a LightningModule that takes its steps itself"
        )

    def _set_learning_rate(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the config's rate; an optimiser made by a subclass keeps its own."""
        is_own = self.has_own_optimizer
        for group in optimizer.param_groups:
            if is_own:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * self._lr_factor(step)
            else:
                group["lr"] = self.learning_rate(step)

    def _step_schedules(self, interval: str, count: int) -> None:
        """Tell torch's schedules that another `interval`, the `count`-th, is over."""
        for number, config in enumerate(self.trainer.lr_scheduler_configs):
            schedule: Any = config.scheduler
            if config.interval != interval or count % config.frequency:
                continue
            if not isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
                schedule.step()
                continue
            if self.has_own_optimizer:
                monitor = monitors(self.configure_optimizers())[number]
            else:
                monitor = self.schedule.get("monitor", VAL_LOSS)
            known = self.trainer.callback_metrics
            if monitor not in known:
                raise ConfigError(f"{type(schedule).__name__}: {not_logged(monitor, known)}")
            schedule.step(known[monitor])

    @property
    def has_own_optimizer(self) -> bool:
        """Whether a subclass makes the optimiser."""
        return type(self).configure_optimizers is not ImageClassifier.configure_optimizers

    def _is_watched(self) -> bool:
        """Whether a callback or a subclass wants to see gradients or steps."""
        watchers: list[Any] = [self, *callbacks_of(self.trainer)]
        return any(overrides(each, GRADIENT_HOOKS) for each in watchers)

    def _tell(self, hook: str, optimizer: torch.optim.Optimizer) -> None:
        for callback in callbacks_of(self.trainer):
            getattr(callback, hook)(self.trainer, self, optimizer)
        getattr(self, hook)(optimizer)

    def _check_finite(self) -> None:
        position = self._train_sums.first_not_finite()
        if position is not None:
            step = self.global_step - self._train_sums.num_batches + position
            raise Diverged(step + 1, self._rate_at(step))

    def _rate_at(self, step: int) -> float:
        """The learning rate as far as known: that of the last step if there is no formula."""
        return self._last_rate if self.trainer.lr_scheduler_configs else self.learning_rate(step)

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean loss and accuracy, counting each image when it was trained on."""
        self._check_finite()
        self._log_sums("train", self._train_sums)
        self.log("lr", self._last_rate, logger=False)
        self._step_schedules("epoch", self.current_epoch + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the counts so far in a checkpoint within an epoch."""
        checkpoint["train_tally"] = self._train_sums.state_dict()
        checkpoint["last_rate"] = self._last_rate

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue counting where the checkpoint stopped, with the loss that it was saved with."""
        training = checkpoint.get("hyper_parameters", {}).get("training")
        if isinstance(training, dict) and training.get("loss") == "mse":
            self.described_loss = BEFORE["mse"]
            self._losses.clear()
        self._train_sums.load_state_dict(checkpoint["train_tally"])
        step = checkpoint.get("global_step", 1) - 1
        self._last_rate = checkpoint.get("last_rate", self.learning_rate(max(0, step)))

    # --- evaluation ---------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count loss and correct predictions of images (N, C, H, W); logits for callbacks."""
        images, labels = batch
        return self._counted(self(images), labels)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """As `validation_step`, but with `test_flip`."""
        if not self.test_flip:
            return self.validation_step(batch, batch_idx)
        images, labels = batch
        return self._counted(both_ways(self, images), labels)

    def _counted(self, logits: Tensor, labels: Tensor) -> Tensor:
        self._eval_sums.add([self.loss(logits, labels)], [logits], [labels])
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log val/loss and val/acc."""
        self._log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log test/loss and test/acc."""
        self._log_evaluation("test")

    def _log_evaluation(self, split: str) -> None:
        """Log what was counted.

        Raises:
            Diverged: if a loss is not finite: the step before has ruined the weights.
        """
        if self._eval_sums.first_not_finite() is not None:
            raise Diverged(self.global_step, self._last_rate)
        self._log_sums(split, self._eval_sums)

    def _log_sums(self, split: str, sums: MetricSums) -> None:
        totals = sums.totals()
        # every process evaluates all images; with several GPUs the sums must be on the GPU
        if split == "train" and self.trainer.world_size > 1:
            totals = self.trainer.strategy.reduce(totals.to(self.device), reduce_op="sum")
        loss_sum, correct, count = totals.tolist()
        if count:
            exact = torch.tensor([loss_sum, correct], dtype=torch.float64) / count
            values = {"loss": exact[0], "acc": exact[1], **sums.measured()}
            # not to the loggers: `Recorder` sends them the epoch before it saves its checkpoint
            self.log_dict({f"{split}/{name}": v for name, v in values.items()}, logger=False)
        sums.reset()


def with_full_name(training: Mapping[str, Any] | None) -> dict[str, Any]:
    """`training` as checkpoints keep it: with the loss's full name."""
    known = dict(training or {})
    loss = known.get("loss")
    return known | ({"loss": in_full(loss)} if isinstance(loss, str) else {})
