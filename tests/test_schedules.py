import pytest
import torch
from torch.optim import lr_scheduler

from convscape.models.schedules import lr_factor

PER_EPOCH, EPOCHS = 5, 6
TOTAL = PER_EPOCH * EPOCHS


def ours(**schedule):
    return [
        lr_factor(step, steps_per_epoch=PER_EPOCH, total_steps=TOTAL, **schedule)
        for step in range(TOTAL)
    ]


def torchs(make, per_epoch):
    """Learning rates of a scheduler of torch, from a peak of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for step in range(TOTAL):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if not per_epoch or (step + 1) % PER_EPOCH == 0:
            scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make", "per_epoch"),
    [
        ({"name": "constant"}, lambda o: lr_scheduler.ConstantLR(o, 1.0), True),
        (
            {"name": "step", "step_epochs": 2, "gamma": 0.3},
            lambda o: lr_scheduler.StepLR(o, 2, 0.3),
            True,
        ),
        (
            {"name": "multistep", "milestones": [4, 1], "gamma": 0.5},
            lambda o: lr_scheduler.MultiStepLR(o, [1, 4], 0.5),
            True,
        ),
        (
            {"name": "cosine", "final_fraction": 0.1},
            lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, 0.1),
            False,
        ),
        (
            {"name": "one_cycle", "warmup_fraction": 0.3, "div_factor": 20},
            lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, pct_start=0.3, div_factor=20),
            False,
        ),
    ],
)
def test_schedules_are_torchs(schedule, make, per_epoch):
    assert ours(**schedule) == pytest.approx(torchs(make, per_epoch), abs=1e-9)


def test_warm_up_rises_in_a_straight_line_to_the_peak():
    rates = ours(name="constant", warmup_epochs=2)
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert set(rates[10:]) == {1.0}


def test_the_cosine_begins_after_the_warm_up_and_ends_low():
    rates = ours(name="cosine", warmup_epochs=1)
    assert rates[5] == 1.0
    assert rates[-1] < 0.01


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="allowed: constant, step"):
        ours(name="linear")
