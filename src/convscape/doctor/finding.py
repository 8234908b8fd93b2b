"""What a rule finds: the measurement, why it hurts, and the remedy. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from convscape.base.values import typed_value

if TYPE_CHECKING:
    from convscape.doctor.trials import Trial

Mend = Mapping[str, Any]  # keys of the config, and the values that they should have


@dataclass
class Finding:
    """Something that keeps a network from learning, or makes its numbers misleading.

    - `says`: what it is, in a few words; `measured`: the numbers.
    - `why`: what it does to a training.
    - `mends`: changes of the config that may help; each is tried, and the best is kept.
    - `advice`: what else to do, if the remedy is not in the config.
    - `is_suspicion`: not reported unless a remedy that is tried helps.
    - `goes_too`: what else disappears with the remedy.
    - `worth`: the share of validation images that it costs, if no trial measures that.
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
        """How much larger the share of right validation images is with the remedy, 0..1."""
        if self.before is None or self.after is None:
            return self.worth
        return self.after.score - self.before.score

    @property
    def words(self) -> list[str]:
        """The remedy as typed."""
        return as_typed(self.mend or {})


def as_typed(mend: Mend) -> list[str]:
    """Keys and values as overrides: optimizer.lr=0.005."""
    return [f"{key}={typed_value(value)}" for key, value in mend.items()]
