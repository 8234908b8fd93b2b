"""Rules about the optimiser: whether the size of its steps lets it learn."""

from __future__ import annotations

from convscape.doctor.case import Case
from convscape.doctor.finding import Finding

APART = 3.0  # factor from the suggested rate, either way: within it the rate is not to blame
THROWN = 10.0  # times the loss at the start and of guessing: no good step does that


def lr_too_large(case: Case) -> Finding | None:
    """Nothing is learned or the loss shoots up, but not with a smaller learning rate."""
    trial = case.trial
    high = THROWN * max(trial.first_loss, case.guessing_loss or 0.0)
    if case.learns and not trial.highest_loss > high:
        return None
    rate, test = case.config.optimizer.lr, case.range_test
    rates = [r for r in (test.suggested, rate / 100, rate / 10) if r < rate / APART]
    if not rates:
        return None
    loss = f"is {trial.loss:.3g}" if trial.is_finite else "is not finite"
    if case.learns:
        loss = f"is {trial.loss:.3g}, and reached {trial.highest_loss:.3g} on the way"
    return Finding(
        says="the learning rate is too large",
        measured=f"with optimizer.lr={rate:g} the loss after {trial.steps} steps {loss}; {test}",
        why="each step goes beyond where its gradient is valid",
        mends=tuple({"optimizer.lr": float(f"{r:.1g}")} for r in rates),
        is_suspicion=not case.learns,
        worth=0.1 if case.learns else 0.5,
    )


def lr_too_small(case: Case) -> Finding | None:
    """Nothing is learned, but with a larger learning rate something is."""
    if case.learns or not case.trial.is_finite:
        return None
    rate, test = case.config.optimizer.lr, case.range_test
    trial = case.trial
    if test.suggested < APART * rate or case.expected_fall > 0.5 * trial.first_loss:
        return None
    return Finding(
        says="the learning rate is too small",
        measured=f"with optimizer.lr={rate:g} the loss goes from {trial.early_loss:.4g} to "
        f"{trial.loss:.4g} in {trial.steps} steps, of {case.run.total_steps:,} in all; {test}",
        why="the steps are so small that the training ends where it began",
        mends=({"optimizer.lr": test.suggested}, {"optimizer.lr": float(f"{rate * 30:.1g}")}),
        is_suspicion=True,
        worth=0.5,
    )
