"""Short trainings: as configured, on one batch, and through all learning rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from convscape.config.metrics import MONITOR
from convscape.models import ImageClassifier
from convscape.runs.init_from import weights_of
from convscape.training.build import build_model
from convscape.training.transfer import carry_over

if TYPE_CHECKING:
    from convscape.doctor.subject import Subject

STEPS, FEWEST_STEPS = 60, 20  # of a trial
SECOND_LOOK = 3  # times as many, if the first ones have taught nothing
MAX_MACS = 6e10  # forward MACs of a trial: a few seconds on two cores
SCORED = 500  # at most this many images to measure a trial on
SEEDS = 3  # of the range test
RANGE_STEPS = 45
LOWEST_RATE, HIGHEST_RATE = 1e-6, 30.0  # of the range test
FIT_IMAGES, FIT_STEPS = 32, 120  # for memorising one batch
FIT_RATES = (0.003, 0.0003)


@dataclass
class Trial:
    """A training of a few steps.

    - `losses`: of each step; shorter than `steps` if one was not finite.
    - `acc`, `macro_acc`: on images that it was not trained on, each image or each class counting
      alike.
    - `num_images`, `num_classes`: of these; `guessing_loss`: of uniform guesses.
    """

    steps: int
    losses: list[float]
    acc: float
    macro_acc: float
    train_acc: float
    num_images: int
    num_classes: int
    guessing_loss: float | None
    seconds: float
    model: ImageClassifier = field(repr=False)

    @property
    def is_finite(self) -> bool:
        """Whether every loss was a number."""
        return len(self.losses) == self.steps

    @property
    def first_loss(self) -> float:
        """The loss before the first step."""
        return self.losses[0] if self.losses else float("nan")

    @property
    def loss(self) -> float:
        """Mean over the last tenth of the steps; not finite if one was not."""
        if not self.is_finite:
            return float("nan")
        return float(np.mean(self.losses[-max(1, self.steps // 10) :]))

    @property
    def fall(self) -> float:
        """The fall from the first tenth of the steps to the last, minus what may be luck."""
        if not self.is_finite:
            return 0.0
        num = max(1, self.steps // 10)
        first, last = (np.array(part) for part in (self.losses[:num], self.losses[-num:]))
        luck = 3 * float(np.sqrt((first.var() + last.var()) / num))
        return max(0.0, float(first.mean() - last.mean()) - luck)

    @property
    def early_loss(self) -> float:
        """Mean loss of the first tenth of the steps."""
        return float(np.mean(self.losses[: max(1, self.steps // 10)]))

    @property
    def highest_loss(self) -> float:
        """The highest loss of any step."""
        return max(self.losses, default=float("nan"))

    @property
    def score(self) -> float:
        """What trials are compared by: right answers, each class counting alike, 0..1."""
        return self.macro_acc

    @property
    def margin(self) -> float:
        """How far `score` has to exceed that of guessing to rule out luck."""
        guess = 1 / self.num_classes
        return max(0.05, 4 * float(np.sqrt(guess * (1 - guess) / max(1, self.num_images))))

    @property
    def learns(self) -> bool:
        """Whether it beats guessing, or its loss is well below that of guessing."""
        if not self.is_finite:
            return False
        if self.score > 1 / self.num_classes + self.margin:
            return True
        guess = self.guessing_loss
        return guess is not None and self.loss < 0.85 * guess


def num_trial_steps(case: Subject) -> int:
    """As many steps as a few seconds allow."""
    plan = case.run.plan
    steps = STEPS
    if plan is not None:
        steps = int(min(STEPS, MAX_MACS / (plan.macs * case.config.data.batch_size)))
    return max(FEWEST_STEPS, min(steps, STEPS))


def new_model(case: Subject, seed: int | None = None) -> ImageClassifier:
    """The network of a training before its first step, on its device.

    - `seed`: of its weights; None: the config's seed.
    """
    torch.manual_seed(case.config.seed if seed is None else seed)
    model: Any = build_model(case.run)
    if case.config.init_from.run is not None:
        weights = weights_of(case.config.init_from)
        carry_over(model, weights, case.config.init_from.layers, case.run.classes)
    built: ImageClassifier = model.to(str(case.run.device))
    return built


def patient_trial(case: Subject) -> Trial:
    """A trial, then a longer one if it has learned nothing and the training is longer."""
    first = trial(case)
    steps = min(SECOND_LOOK * first.steps, case.run.total_steps)
    if first.learns or not first.is_finite or steps <= first.steps:
        return first
    return trial(case, steps)


def trial(case: Subject, steps: int | None = None) -> Trial:
    """Train for a few steps, with the whole training's learning rates squeezed into them."""
    start = time.perf_counter()
    num_steps = num_trial_steps(case) if steps is None else steps
    short = _squeezed(case, num_steps)
    model = new_model(short)
    losses = _trained(model, _batches(short, num_steps), model.learning_rate)
    images, labels = case.sample(case.held_out)
    acc, macro_acc = _scores(model, images[:SCORED], labels[:SCORED])
    seen, known = case.sample("train")
    train_acc, _ = _scores(model, seen[:SCORED], known[:SCORED])
    counts = np.bincount(labels[:SCORED].numpy(), minlength=case.num_classes)
    return Trial(
        steps=num_steps,
        losses=losses,
        acc=acc,
        macro_acc=macro_acc,
        train_acc=train_acc,
        num_images=int(counts.sum()),
        num_classes=int((counts > 0).sum()),
        guessing_loss=case.guessing_loss,
        seconds=time.perf_counter() - start,
        model=model,
    )


def _squeezed(case: Subject, num_steps: int) -> Subject:
    """The same training in a few steps, with its schedule."""
    values: dict[str, Any] = {"trainer.max_steps": num_steps, "trainer.max_epochs": None}
    if case.config.trainer.monitor != MONITOR:  # it would not be logged here
        values |= {"trainer.monitor": MONITOR, "trainer.monitor_mode": "auto"}
    return case.with_values(values)


def _batches(case: Subject, num_steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The first `num_steps` batches of a training, over as many epochs as it takes."""
    epoch = done = 0
    while done < num_steps:
        for batch in case.data.batches("train", epoch, str(case.run.device)):
            yield batch
            done += 1
            if done == num_steps:
                return
        epoch += 1


def _trained(
    model: ImageClassifier,
    batches: Iterator[tuple[Tensor, Tensor]],
    rate: Callable[[int], float] | None,
    optimizer: torch.optim.Optimizer | None = None,
    is_enough: Callable[[float], bool] = lambda loss: False,
) -> list[float]:
    """The loss of each step; stops before the first that is not finite, or once it is enough.

    - `rate`: the rate of each step; None, or with the model's own optimiser: that optimiser's.
    """
    if optimizer is None:
        made = model.configure_optimizers()
        optimizer = made["optimizer"] if isinstance(made, dict) else made
        assert isinstance(optimizer, torch.optim.Optimizer)
    losses: list[float] = []
    model.train()
    for step, (images, labels) in enumerate(batches):
        if rate is not None and not model.has_own_optimizer:
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
        loss = model.loss(model(images), labels)
        value = float(loss.detach())
        if not np.isfinite(value):
            break
        losses.append(value)
        if is_enough(value):
            break
        optimizer.zero_grad()
        loss.backward()
        if model.gradient_clip_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), model.gradient_clip_norm)
        optimizer.step()
    return losses


def train_on(model: ImageClassifier, images: Tensor, labels: Tensor, num_steps: int) -> None:
    """Train only on these images, in batches of 64, at its optimiser's constant rate."""
    draw = torch.Generator().manual_seed(0)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(num_steps):
            chosen = torch.randint(len(images), (64,), generator=draw)
            yield images[chosen], labels[chosen]

    _trained(model, batches(), None)


@torch.inference_mode()
def answers(model: ImageClassifier, images: Tensor) -> Tensor:
    """The most probable class (N,) of images (N, C, H, W), on the CPU."""
    model.eval()
    parts = [model(part.to(model.device)).argmax(1).cpu() for part in images.split(250)]
    return torch.cat(parts)


def _scores(model: ImageClassifier, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Share of right answers, and its mean over the classes."""
    is_right = (answers(model, images) == labels).float()
    by_class = [float(is_right[labels == label].mean()) for label in labels.unique()]
    return float(is_right.mean()), float(np.mean(by_class))


@dataclass
class RangeTest:
    """Losses while the learning rate rises from step to step, each seed with a new network.

    - `best`, `worst`: for each seed, the rate at which the loss is lowest, and the first at which
      it is back where it began, or `HIGHEST_RATE`.
    - `has_fallen`: whether it ever fell, for most seeds.
    """

    best: list[float]
    worst: list[float]
    has_fallen: bool

    @property
    def suggested(self) -> float:
        """A tenth of the geometric mean of `best`, to one digit (Smith 2017, arXiv:1506.01186)."""
        return float(f"{10 ** np.mean(np.log10(self.best)) / 10:.0e}")

    @property
    def factor(self) -> float:
        """By how much the seeds differ in `best`: a standard deviation of its logarithm."""
        return float(10 ** np.std(np.log10(self.best), ddof=1))

    def __str__(self) -> str:
        best, worst = (10 ** np.mean(np.log10(rates)) for rates in (self.best, self.worst))
        end = f"is back where it began at {worst:.2g}" if worst < HIGHEST_RATE else "stays low"
        return (
            f"in a range test of {len(self.best)} seeds the loss is lowest at {best:.2g} "
            f"(between {best / self.factor:.2g} and {best * self.factor:.2g} over seeds) and {end}"
        )


def range_test(case: Subject) -> RangeTest:
    """Which learning rates lower the loss, tried on new networks that are then discarded."""
    rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, RANGE_STEPS)
    best, worst, fell = [], [], []
    for seed in range(SEEDS):
        model = new_model(case, seed)
        limit: list[float] = []

        def is_enough(loss: float, limit: list[float] = limit) -> bool:
            limit.append(loss)
            return loss > 4 * limit[0] + 1

        losses = _trained(
            model, _batches(case, RANGE_STEPS), lambda step: float(rates[step]), None, is_enough
        )
        smooth = _smoothed(losses)
        lowest = int(np.argmin(smooth))
        best.append(float(rates[lowest]))
        back = [i for i in range(lowest, len(smooth)) if smooth[i] >= smooth[0]]
        ended = rates[len(losses)] if len(losses) < RANGE_STEPS else HIGHEST_RATE
        worst.append(float(rates[back[0]] if back else ended))
        fell.append(smooth[lowest] < 0.9 * smooth[0])
    return RangeTest(best, worst, sum(fell) > SEEDS / 2)


def _smoothed(losses: list[float], keep: float = 0.6) -> list[float]:
    """Exponentially weighted running means."""
    mean, smooth = 0.0, []
    for step, loss in enumerate(losses, 1):
        mean = keep * mean + (1 - keep) * loss
        smooth.append(mean / (1 - keep**step))
    return smooth


def learned_by_heart(case: Subject) -> float:
    """Accuracy of a new network trained by Adam on just one small batch, at the best rate.

    The config's optimiser and rate are not used: if this fails, it is the network's fault.
    """
    images, labels = _one_batch(case)
    best = 0.0
    for rate in FIT_RATES:
        model = new_model(case)
        parameters = [p for p in model.parameters() if p.requires_grad]
        if not parameters:
            return 0.0
        optimizer = torch.optim.Adam(parameters, lr=rate)
        repeated = ((images, labels) for _ in range(FIT_STEPS))
        _trained(model, repeated, None, optimizer, lambda loss: loss < 0.05)
        with torch.inference_mode():
            model.train()  # batch norm has seen nothing but this batch
            right = (model(images).argmax(1) == labels).float().mean()
        best = max(
            best, float(right), float((answers(model, images) == labels.cpu()).float().mean())
        )
        if best > 0.95:
            break
    return best


def _one_batch(case: Subject) -> tuple[Tensor, Tensor]:
    """A few images of each class as far as available, all different."""
    images, labels = case.sample("train")
    images, labels = images[: 16 * FIT_IMAGES], labels[: 16 * FIT_IMAGES]
    _, first = np.unique(images.flatten(1).numpy(), axis=0, return_index=True)
    images, labels = images[np.sort(first)], labels[np.sort(first)]
    place = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        mine = labels == label
        place[mine] = torch.arange(int(mine.sum()))
    chosen = torch.argsort(place, stable=True)[:FIT_IMAGES]
    device = str(case.run.device)
    return images[chosen].to(device), labels[chosen].to(device)
