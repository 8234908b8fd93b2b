"""All rules, in the order in which they run: causes before their effects.

A rule is a function from a `Case` to a `Finding` or None; it is named after its function.
"""

from __future__ import annotations

from collections.abc import Callable

from convscape.doctor import images, learning, network
from convscape.doctor.case import Case
from convscape.doctor.finding import Finding

Rule = Callable[[Case], Finding | None]

OF_IMAGES: tuple[Rule, ...] = (
    images.copies_in_test,
    images.duplicated_class,
    images.constant_class,
    images.imbalance,
    images.unlike_validation,
    images.shuffled_labels,
)
OF_TRAINING: tuple[Rule, ...] = (
    images.inputs_not_normalized,
    network.softmax_twice,
    network.loss_at_start,
    network.dead_relus,
    network.saturation,
    network.vanishing_gradients,
    network.exploding_gradients,
    network.tiny_batch_norm,
    network.sees_too_little,
    network.sees_padding,
    network.cannot_overfit,
    learning.lr_too_large,
    learning.lr_too_small,
    network.too_many_parameters,
)
