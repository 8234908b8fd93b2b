"""A plan as plain values, for programs to act on: see `base.documents.Plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convscape.geometry.plan import Plan
    from convscape.sweeps.grid import PlannedRun, SweepPlan


def as_document(plan: SweepPlan) -> dict[str, Any]:
    """Every run, and its layers if there is only one."""
    alone = plan.runs[0] if len(plan.runs) == 1 else None
    planned = alone.plan if alone is not None else None
    return {
        "keys": plan.keys,
        "runs": [_run(run, run is alone) for run in plan.runs],
        "num_duplicates": plan.duplicates,
        "remarks": list(planned.remarks) if planned is not None else [],
    }


def _run(run: PlannedRun, with_layers: bool) -> dict[str, Any]:
    size = run.plan or run.size
    return {
        "name": run.name,
        "fingerprint": run.fingerprint,
        "overrides": list(run.overrides),
        "possible": run.reason is None,
        "reason": run.reason,
        "num_parameters": None if size is None else size.num_parameters,
        "macs": None if size is None else size.macs,
        "receptive_field": None if run.plan is None else list(run.plan.receptive_field),
        "layers": _layers(run.plan) if with_layers and run.plan is not None else None,
    }


def _layers(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "kind": getattr(row.layer, "kind_name", "identity"),  # a shortcut has no kind
            "what": row.layer.describe(),
            "depth": depth,
            "input_shape": list(row.input_shape),
            "output_shape": list(row.output_shape),
            "num_parameters": row.num_parameters,
            "macs": row.macs,
            "receptive_field": list(row.field.size),
        }
        for depth, row in plan.tree
    ]
