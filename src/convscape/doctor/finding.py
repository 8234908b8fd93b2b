"""What a rule finds: the measurement, why it hurts, and what mends it. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convscape.base.values import typed_value

if TYPE_CHECKING:
    from convscape.doctor.trials import Trial

Mend = Mapping[str, Any]  # keys of the config, and the values that they are to have


@dataclass
class Finding:
    """Something that keeps a network from learning, or makes its numbers mean something else.

    - `says`: what it is, in a few words; `measured`: the numbers.
    - `why`: what it does to a training.
    - `mends`: changes of the config that may help, each of which is tried; the best is kept.
    - `advice`: what else to do, where it is not the config that has to change.
    - `is_suspicion`: without a mend that helps when it is tried, it is not reported.
    - `goes_too`: what else is found no more with the mend.
    - `worth`: of the validation images, the share that it costs, as far as no trial says so.
    """

    says: str
    measured: str
    why: str
    mends: tuple[Mend, ...] = ()
    advice: str = ""
    is_suspicion: bool = False
    worth: float = 0.0
    rule: str = ""
    goes_too: list[Finding] = field(default_factory=list)
    mend: Mend | None = None
    before: Trial | None = field(default=None, repr=False)
    after: Trial | None = field(default=None, repr=False)

    @property
    def gain(self) -> float:
        """How much of the validation images more are right with the mend, 0..1."""
        if self.before is None or self.after is None:
            return self.worth
        return self.after.score - self.before.score

    @property
    def words(self) -> list[str]:
        """The mend as it is typed."""
        return as_typed(self.mend or {})


def as_typed(mend: Mend) -> list[str]:
    """Keys and values as overrides: optimizer.lr=0.005."""
    return [f"{key}={typed_value(value)}" for key, value in mend.items()]
