"""Figures of a study, for the report: which keys matter, and Optuna's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

MIN_TRIALS = 20  # with fewer, a quarter is too few to tell from the others
# PED-ANOVA asks where the best trials lie: with Optuna's tenth that is 3 of 30, and a key without
# any effect often comes out first.
BEST_PART = 0.25
NUM_RESAMPLED = 100

Importances = Mapping[str, tuple[float, float, float]]


def importances(study: optuna.Study) -> Importances | None:
    """How much each key determines where the best trials lie, with a 95 % interval.

    PED-ANOVA (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255); the interval is a bootstrap
    over trials. None if there are fewer than `MIN_TRIALS`, or no key that all of them have.
    """
    done = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
    if len(done) < MIN_TRIALS:
        return None
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_PART)
    rng = np.random.default_rng(0)

    def of(places: Any) -> dict[str, float]:
        drawn = optuna.create_study(direction=study.direction)
        drawn.add_trials([done[place] for place in places])
        return dict(optuna.importance.get_param_importances(drawn, evaluator=evaluator))

    found = of(range(len(done)))
    again = [of(rng.integers(0, len(done), len(done))) for _ in range(NUM_RESAMPLED)]
    answer = {}
    for key, value in found.items():
        values = [each.get(key, 0.0) for each in again]
        low, high = np.quantile(values, [0.025, 0.975])
        answer[key] = (value, min(value, float(low)), max(value, float(high)))
    return answer or None


def _draw_importances(found: Importances) -> Any:
    """A bar per key with its interval, the most important on top."""
    import plotly.graph_objects as go

    keys = sorted(found, key=lambda key: found[key][0])
    values, lows, highs = (np.array(each) for each in zip(*(found[k] for k in keys), strict=True))
    bars = {"array": highs - values, "arrayminus": values - lows, "symmetric": False}
    figure = go.Figure(go.Bar(x=values, y=keys, orientation="h", error_x={"type": "data", **bars}))
    return figure.update_layout(xaxis_title="importance", xaxis_range=[0, 1])


def _importances(study: optuna.Study, name: str) -> tuple[str, Any]:
    found = importances(study)
    if found is None:
        few = f"Too few trials finished to say which keys matter: it takes {MIN_TRIALS}."
        return few, None
    words = (
        f"Which keys decide whether a trial is among the best quarter by {name} (PED-ANOVA). Bars: "
        "95 % intervals over trials; keys whose intervals overlap need more trials to be ranked."
    )
    return words, _draw_importances(found)


def draw_study(
    study: optuna.Study, objectives: Sequence[str], space: Sequence[str]
) -> list[tuple[str, Any]]:
    """All figures with captions, as far as the trials allow; None for one that cannot be drawn.

    - `space`: the keys that were searched.
    """
    from optuna import visualization as draw

    def target(trial: optuna.trial.FrozenTrial) -> float:
        return float(trial.values[0])

    name = objectives[0]
    one: dict[str, Any] = {"target": target, "target_name": name}
    figures: list[tuple[str, Any]] = []
    if len(objectives) == 1:
        figures.append(_importances(study, name))
    makers: list[tuple[str, Callable[[], Any]]] = [
        ("Each trial by its values.", lambda: draw.plot_slice(study, **one)),
    ]
    if len(space) > 1:
        keys = list(space[-2:])
        makers.append(("Two keys at once.", lambda: draw.plot_contour(study, keys, **one)))
    if len(objectives) == 2:
        makers.append(
            (
                "What both objectives allow.",
                lambda: draw.plot_pareto_front(study, target_names=list(objectives)),
            )
        )
    for caption, make in makers:
        try:
            # as wide as the page: Optuna makes a slice 300 pixels wide per key
            figures.append((caption, make().update_layout(width=None)))
        except (RuntimeError, ValueError):  # too few trials for this figure
            continue
    return figures
