"""The loss: its section, and its names as typed, in full, and in earlier runs.

Earlier there was only one squared error, called `mse`: that of the softmax. When typed today, `mse`
is that of the raw outputs. Run folders store full names, so a `mse` in a run folder can only be the
earlier one.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field

from convscape.base.sections import Part

IN_FULL = {"mse": "logits_mse"}
BEFORE = {"mse": "softmax_mse"}


class LossConfig(Part):
    """What training minimises instead of `model.loss`, and how much each class counts."""

    target: str | None = Field(default=None, alias="_target_")  # type: ignore[assignment]
    class_weights: Literal["balanced"] | list[Annotated[float, Field(ge=0)]] | None = None

    @property
    def described(self) -> dict[str, Any] | None:
        """The target and its arguments, as `ImageClassifier` takes them; None: use `model.loss`."""
        return None if self.target is None else {"_target_": self.target, **self.arguments}


def in_full(name: str) -> str:
    """The stored name for a typed one."""
    return IN_FULL.get(name, name)


def spelled(text: str, names: dict[str, str]) -> str:
    """Typed values, such as mse,cross_entropy, with the losses among them renamed."""
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text)


def read_as_before(section: Any) -> None:
    """Give the loss in a section of a run folder, which may be a stranger's, its full name."""
    if isinstance(section, dict) and section.get("loss") == "mse":
        section["loss"] = BEFORE["mse"]


def with_full_name(overrides: list[str], config: dict[str, Any]) -> list[str]:
    """The overrides of a run, with the loss of its stored config: `mse` has changed its meaning."""
    model = config.get("model")
    loss = model.get("loss") if isinstance(model, dict) else None
    return [f"model.loss={loss}" if word == "model.loss=mse" else word for word in overrides]
