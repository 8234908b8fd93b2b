"""Optuna's own figures of a study, for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna


def draw_study(
    study: optuna.Study, objectives: Sequence[str], space: Sequence[str]
) -> list[tuple[str, Any]]:
    """Optuna's own figures, as far as the trials allow; `space`: the keys that were searched."""
    from optuna import visualization as draw

    def target(trial: optuna.trial.FrozenTrial) -> float:
        return float(trial.values[0])

    name = objectives[0]
    one: dict[str, Any] = {"target": target, "target_name": name}
    fanova = optuna.importance.FanovaImportanceEvaluator(seed=0)

    def importances() -> Any:
        return draw.plot_param_importances(study, fanova, **one)

    makers: list[tuple[str, Callable[[], Any]]] = [
        (f"Which keys matter to {name} (fANOVA).", importances),
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
    figures = []
    for caption, make in makers:
        try:
            figures.append((caption, make()))
        except (RuntimeError, ValueError):  # too few trials for this one
            continue
    return figures
