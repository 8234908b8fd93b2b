"""What a sweep found, in sentences: effects, their costs, and interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscape.base.values import counted
from convscape.reports.cells import level_text

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.comparisons import Effect, Interaction
    from convscape.reports.contrasts import Estimate


def effect_sentence(effect: Effect, metric: Metric, num_images: int | None = None) -> str:
    """As in "stride 2 instead of 1 costs 0.80 ± 0.20 points and saves 71 % of the MACs".

    - `num_images`: that the metric was measured on, if known.
    """
    estimate = effect.estimate
    joint = " and "
    what = change_in_words(effect)
    amount = _amount(abs(estimate.mean), estimate.half_width, metric)
    if effect.is_clear or estimate.p is None:
        better = (estimate.mean > 0) == metric.higher_is_better
        verb = "gains" if better else "costs"
        sentence = f"{what} {verb} {amount}" if estimate.mean else f"{what} changes nothing"
    else:
        sign = "+" if estimate.mean >= 0 else "-"
        sentence = f"{what}: no clear difference, {sign}{amount}"
        joint = "; it "
    costs = _in_costs(effect.ratios)
    rests_on = _what_varies(estimate, effect.num_pairs, _PAIRS, metric, num_images)
    if effect.num_left_out:
        rests_on += f"; {counted(effect.num_left_out, 'pair')} without all seeds left out"
    return f"{sentence}{joint + costs if costs else ''} ({rests_on})."


def change_in_words(effect: Effect | Interaction) -> str:
    """As in "stride 2 instead of 1"."""
    return f"{effect.key.words} {level_text(effect.level)} instead of {level_text(effect.base)}"


def _what_varies(
    estimate: Estimate,
    num_sets: int,
    kind: tuple[str, str],
    metric: Metric,
    num_images: int | None,
) -> str:
    """As in "over 3 seeds with 4 pairs of runs each, on the same 200 test images, p = 0.031"."""
    words = f"over {counted(estimate.n, 'seed')}"
    if num_sets > 1:
        words += f" with {counted(num_sets, *kind)}{' each' if estimate.n > 1 else ''}"
    images = {"val": "validation", "test": "test", "train": "training"}.get(metric.split or "")
    if images:
        count = f"{num_images:,} " if num_images else ""
        words += f", on the same {count}{images} images"
    if estimate.p is not None:
        return f"{words}, {estimate.look.words}, {_p_value(estimate.p)}"
    return f"{words}, {'no spread' if estimate.n > 1 else 'one seed'}: no interval"


def _p_value(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _amount(mean: float, half_width: float | None, metric: Metric) -> str:
    text = metric.number(mean)
    if half_width is not None:
        text += f" ± {metric.number(half_width)}"
    return f"{text} {'points' if metric.is_share else metric.name}"


def _in_costs(ratios: dict[str, float]) -> str:
    saves, takes = [], []
    for cost, name in (("num_parameters", "parameters"), ("macs", "MACs")):
        ratio = ratios.get(cost, 1.0)
        if ratio < 0.98:
            saves.append(f"{100 * (1 - ratio):.0f} % of the {name}")
        elif 1.02 < ratio < 1.1:
            takes.append(f"{100 * (ratio - 1):.0f} % more {name}")
        elif ratio >= 1.1:
            takes.append(f"{ratio:.2g} times the {name}")
    words = [("saves", saves), ("takes", takes)]
    return " and ".join(f"{verb} {' and '.join(amounts)}" for verb, amounts in words if amounts)


_PAIRS = ("pair of runs", "pairs of runs")
_FOURS = ("set of four runs", "sets of four runs")


def interaction_sentence(
    interaction: Interaction, metric: Metric, num_images: int | None = None
) -> str:
    """What a value does at one and at another value of a second key."""
    i = interaction
    unit = " points" if metric.is_share else ""
    first, second = (f"{metric.scale * each:+.{metric.digits}f}{unit}" for each in i.effects)
    base, level = level_text(i.other_base), level_text(i.other_level)
    return (
        f"It depends: {change_in_words(i)} changes {metric.name} by {first} "
        f"where {i.given.words} is {base} and by {second} where it is {level} "
        f"({_what_varies(i.estimate, i.num_fours, _FOURS, metric, num_images)})."
    )
