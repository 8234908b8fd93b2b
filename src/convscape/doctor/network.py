"""Rules about the network: what it can see, and what its layers pass on."""

from __future__ import annotations

import numpy as np
from torch import nn

from convscape.config.networks import CNNConfig
from convscape.doctor.case import Case
from convscape.doctor.finding import Finding, Mend
from convscape.doctor.inside import Inside
from convscape.doctor.trials import learned_by_heart

# loss at the start: this many times ln(classes), and this much more
START_FACTOR, START_MORE = (
    2.0,
    1.5,
)
DEAD = 0.5  # of a layer's units
FULL = 0.35  # of a layer's values
VANISHED = 1e-3  # gradient of the first layers, relative to the largest one;
NEARLY_VANISHED = 1e-2  # this is enough if nothing is learned
EXPLODED = 30.0  # gradient relative to the weights
FEW_IMAGES = 8  # in a batch that batch norm averages over
BY_HEART = 0.8  # of one batch: a network that can learn gets this share right
SEES = 0.4  # of the object: a unit has to see this much if no dense layer combines places
ENERGY = 0.9  # of the images' variance: what contains this share is called the object


def loss_at_start(case: Case) -> Finding | None:
    """The loss before the first step is far above that of guessing."""
    guess, loss = case.guessing_loss, case.at_start.loss
    if guess is None or not loss > START_FACTOR * guess + START_MORE:
        return None
    return Finding(
        says="the untrained network is sure of wrong answers",
        measured=f"the loss before the first step is {loss:.3g}; guessing, ln(classes), is "
        f"{guess:.3g}",
        why="the first steps are spent on unlearning those answers",
        mends=case.model_keys({"model.init": "glorot_uniform"}),
        advice="smaller weights in the last layer",
        worth=0.05,
    )


def dead_relus(case: Case) -> Finding | None:
    """Most units of a layer are 0 for every image."""
    for when, inside in _insides(case):
        if not inside.dead:
            continue
        layer, share = max(inside.dead.items(), key=lambda pair: pair[1])
        if share < DEAD or (when == "after a short training" and case.learns):
            continue
        mends = case.model_keys({"model.activation": "leaky_relu"})
        return Finding(
            says="most ReLUs of a layer are dead",
            measured=f"{when} {100 * share:.0f} % of the units of {layer} are 0 for every image",
            why="a ReLU that is never above 0 passes no gradient: its weights stay as they are",
            mends=(*mends, *_smaller_rate(case)),
            advice="biases that start at 0 or slightly above",
            worth=0.1 if case.learns else 0.35,
        )
    return None


def saturation(case: Case) -> Finding | None:
    """Most values of a tanh or a sigmoid are near its limits."""
    for when, inside in _insides(case):
        if not inside.full:
            continue
        layer, share = max(inside.full.items(), key=lambda pair: pair[1])
        if share < FULL or (when == "after a short training" and case.learns):
            continue
        return Finding(
            says="activations are saturated",
            measured=f"{when} {100 * share:.0f} % of the values of {layer} are near its limits",
            why="the slope there is nearly 0: the layers before it hardly get any gradient",
            mends=(
                *case.model_keys({"model.init": "glorot_uniform"}),
                *case.model_keys({"model.activation": "relu"}),
            ),
            advice="smaller weights, or inputs closer to 0",
            worth=0.1 if case.learns else 0.3,
        )
    return None


def _insides(case: Case) -> list[tuple[str, Inside]]:
    """The network at the start, after a trial and after its run, with words for each."""
    found = [("at the start", case.at_start)]
    if case.inside_trained is not None:
        found.append(("after its training", case.inside_trained))
    if case.trial.is_finite:
        found.append(("after a short training", case.after_trial))
    return found


def vanishing_gradients(case: Case) -> Finding | None:
    """The first layers get next to no gradient."""
    gradients = case.at_start.gradients
    if len(gradients) < 2 or not all(np.isfinite(list(gradients.values()))):
        return None
    first, largest = _gradient_of_first_half(gradients), max(gradients.values())
    limit = VANISHED if case.learns else NEARLY_VANISHED
    if largest > 0 and first >= limit * largest:
        return None
    layer = min(gradients, key=lambda name: gradients[name])
    return Finding(
        says="gradients vanish on their way to the first layers",
        measured=f"relative to its weights, the gradient of {layer} is "
        f"{gradients[layer]:.1g}, the largest of all layers {largest:.1g}",
        why="the first layers stay as random as they started, and all others build on them",
        mends=(
            *case.model_keys({"model.activation": "relu", "model.init": "kaiming_normal"}),
            *case.model_keys({"model.batch_norm": True}),
        ),
        advice="fewer layers, shortcuts, or batch norm between them",
        worth=0.2,
    )


def _gradient_of_first_half(gradients: dict[str, float]) -> float:
    """The layer with the smallest gradient in the first half of the network."""
    values = list(gradients.values())
    return min(values[: (len(values) + 1) // 2])


def exploding_gradients(case: Case) -> Finding | None:
    """A step would change weights by many times their size."""
    gradients = case.at_start.gradients
    if not gradients:
        return None
    layer = max(gradients, key=lambda name: np.nan_to_num(gradients[name], nan=np.inf))
    value = gradients[layer]
    if np.isfinite(value) and value <= EXPLODED:
        return None
    clip: tuple[Mend, ...] = ()
    if case.config.trainer.gradient_clip_norm is None:
        clip = ({"trainer.gradient_clip_norm": 1.0},)
    return Finding(
        says="gradients explode",
        measured=f"the gradient of {layer} is {value:.3g} times as large as its weights",
        why="each step moves the weights far beyond where its gradient is valid",
        mends=(*case.model_keys({"model.init": "glorot_uniform"}), *clip),
        advice="smaller initial weights, or inputs of deviation 1",
        worth=0.2,
    )


def tiny_batch_norm(case: Case) -> Finding | None:
    """Batch norm averages over only a handful of images."""
    norms = [
        m for m in case.trial.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    size, num_images = case.config.data.batch_size, case.data.num_train_images
    if not norms or size >= FEW_IMAGES or num_images < FEW_IMAGES:
        return None
    return Finding(
        says="batch norm with tiny batches",
        measured=f"each batch has {size} images, and batch norm averages over them",
        why="such means are mostly noise, and differ from those used in testing",
        mends=({"data.batch_size": 32}, *case.model_keys({"model.batch_norm": False})),
        worth=0.1,
    )


def sees_too_little(case: Case) -> Finding | None:
    """No unit sees enough of an object, and the head averages over places."""
    model, plan = case.config.model, case.run.plan
    if plan is None or not isinstance(model, CNNConfig) or model.head == "flatten":
        return None
    seen, object_side = min(plan.receptive_field), object_size(case)
    if seen >= SEES * object_side:
        return None
    return Finding(
        says="each unit sees too little of the object",
        measured=(
            f"a unit of the last maps sees {seen} pixels on a side; the objects in the images are "
            f"about {object_side:.0f}, and model.head={model.head} forgets where they were"
        ),
        why="if no unit sees two parts together, the network cannot tell how they are arranged",
        mends=(*case.model_keys({"model.head": "flatten"}), *_larger_kernels(case, model)),
        is_suspicion=True,
        worth=0.1,
    )


def _larger_kernels(case: Case, model: CNNConfig) -> tuple[Mend, ...]:
    return case.model_keys({"model.kernel_size": 5, "model.padding": "same"})


def object_size(case: Case) -> float:
    """Side in pixels of a square around the centre of what differs between the images."""
    images = case.sample("train")[0].float()
    energy = images.var(0).sum(0)
    total, sides = float(energy.sum()), energy.shape
    if total == 0:
        return float(min(sides))
    rows, columns = (energy.sum(1 - axis) / total for axis in (0, 1))
    spans = []
    for profile in (rows, columns):
        sums = profile.cumsum(0)
        low, high = ((sums >= edge).nonzero()[0].item() for edge in (0.05, 1 - 0.05))
        spans.append(high - low + 1)
    return float(min(spans))


def sees_padding(case: Case) -> Finding | None:
    """Kernels so much larger than the maps that most of their weights only see padding."""
    plan = case.run.plan
    if plan is None:
        return None
    for row in plan.all_layers:
        windows = row.layer.windows
        if windows is None or not row.num_parameters or len(row.input_shape) != 3:
            continue
        used = [
            min(1.0, (2 * size - 1) / window.extent)
            for size, window in zip(row.input_shape[1:], windows, strict=True)
        ]
        if used[0] * used[1] <= 0.5:
            return Finding(
                says="kernels are larger than their input",
                measured=f"{100 * (1 - used[0] * used[1]):.0f} % of the weights of {row.name} see "
                "nothing but padding",
                why="they cost memory and time, and learn nothing",
                mends=case.model_keys({"model.kernel_size": 3, "model.dilation": 1}),
                worth=0.02,
            )
    return None


def softmax_twice(case: Case) -> Finding | None:
    """The network returns probabilities, and the loss takes their softmax again."""
    logits = case.at_start.logits
    sums = logits.sum(1)
    if case.guessing_loss is None or case.num_classes < 2:
        return None
    if bool((logits < 0).any()) or float((sums - 1).abs().max()) > 1e-3:
        return None
    least = float(np.log(np.e + case.num_classes - 1) - 1)
    return Finding(
        says="the softmax is taken twice",
        measured="the outputs of the network are probabilities, which add up to 1; the loss takes "
        "logits",
        why=f"the loss cannot fall below {least:.2g}, and its gradients are small",
        advice="return the numbers before the softmax",
        worth=0.4,
    )


def too_many_parameters(case: Case) -> Finding | None:
    """More parameters than there are pixels to learn from, which hurts on new images."""
    plan = case.run.plan
    num = plan.num_parameters if plan is not None else case.num_parameters
    num_pixels = case.data.num_train_images * int(np.prod(case.run.image_shape))
    gap = case.trial.train_acc - case.trial.acc
    if num <= 2 * num_pixels or gap < 0.2 or case.held_out == "train":
        return None
    mends: list[Mend] = []
    if case.config.data.train_size is not None:
        mends.append({"data.train_size": None})
    if not case.config.data.augment.shift:
        mends.append({"data.augment.shift": 2})
    return Finding(
        says="more parameters than the images can teach",
        measured=f"{num:,} parameters, {num_pixels:,} train pixels; after a short training "
        f"{100 * case.trial.train_acc:.0f} % of the train images are right and "
        f"{100 * case.trial.acc:.0f} % of others",
        why="there is room to memorise every image",
        mends=tuple(mends),
        advice="more images, or a smaller network",
        is_suspicion=True,
        worth=gap / 2,
    )


def cannot_overfit(case: Case) -> Finding | None:
    """A new network cannot memorise one small batch."""
    if case.learns:
        return None
    share = learned_by_heart(case)
    if share >= BY_HEART:
        return None
    return Finding(
        says="it cannot even memorise one batch",
        measured=f"after 120 steps on the same 32 images {100 * share:.0f} % of them are right",
        why="a network that cannot fit 32 images has too few units, no gradient, or a bug",
        advice="look for layers that do not learn, and outputs that do not depend on the image",
        worth=0.05,
    )


def _smaller_rate(case: Case) -> tuple[Mend, ...]:
    rate = case.config.optimizer.lr
    return ({"optimizer.lr": rate / 10},) if not case.learns else ()
