"""What `resume=` asks for, as both doors take it. No torch, unless a run is to be another one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.runs.resume import held_to_go_on, resumed

if TYPE_CHECKING:
    from convscape.runs.resolved import ResolvedRun
    from convscape.runs.result import Result


@dataclass(frozen=True)
class GoingOn:
    """The `run` to train and `place`, its folder once that is entered.

    - `path`, `result`: where it is already, and what it has reached; None of one that is new.
    - `words`: what there is to say of it.
    """

    run: ResolvedRun
    place: AbstractContextManager[Path]
    path: Path
    result: Result | None = None
    words: list[str] = field(default_factory=list)


def going_on(composed: dict[str, Any], overrides: list[str]) -> GoingOn:
    """The run that goes on in its folder, or from there in another one.

    Raises:
        ConfigError: if it is no run, or cannot go on as it is asked to.
    """
    again = resumed(composed, overrides)
    folder = again.folder
    if again.before is None:
        return GoingOn(again.run, held_to_go_on(folder), folder.path, folder.read_result())
    from convscape.training.longer import longer  # torch: a checkpoint says how far it is

    other = longer(again)
    return GoingOn(other.run, other.place, folder.path, words=[other.words])
