"""What a sweep found, in sentences: effects, their costs, and interactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convscape.base.values import counted

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.reports.statistics import Effect, Interaction


def effect_sentence(effect: Effect, metric: Metric) -> str:
    """As in "stride 2 instead of 1 costs 0.80 ± 0.20 points and saves 71 % of the MACs"."""
    estimate = effect.estimate
    what = f"{effect.key.words} {effect.level} instead of {effect.base}"
    amount = _amount(abs(estimate.mean), estimate.half_width, metric)
    pairs = counted(estimate.n, "pair")
    if effect.p is not None:
        pairs += f", {_p_value(effect.p)}"
    elif effect.num_seeds == 1:
        pairs += ", one seed: no interval"
    if effect.is_clear or effect.p is None:
        better = (estimate.mean > 0) == metric.higher_is_better
        verb = "gains" if better else "costs"
        sentence = f"{what} {verb} {amount}" if estimate.mean else f"{what} changes nothing"
    else:
        sign = "+" if estimate.mean >= 0 else "-"
        sentence = f"{what}: no clear difference, {sign}{amount}"
    costs = _in_costs(effect.ratios)
    return f"{sentence}{' and ' + costs if costs else ''} ({pairs})."


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
        elif ratio > 1.02:
            takes.append(f"{ratio:.2g} times the {name}")
    words = [("saves", saves), ("takes", takes)]
    return " and ".join(f"{verb} {' and '.join(amounts)}" for verb, amounts in words if amounts)


def interaction_sentence(interaction: Interaction, metric: Metric) -> str:
    """What a value does where another key has this and where it has that value."""
    i = interaction
    assert i.p is not None
    unit = " points" if metric.is_share else ""
    first, second = (f"{metric.scale * each:+.{metric.digits}f}{unit}" for each in i.effects)
    return (
        f"It depends: {i.key.words} {i.level} instead of {i.base} changes {metric.name} by {first} "
        f"where {i.given.words} is {i.other_base} and by {second} where it is {i.other_level} "
        f"({counted(i.estimate.n, 'set')} of four runs, {_p_value(i.p)})."
    )
