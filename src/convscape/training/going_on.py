"""What `resume=` asks for, from the shell or Python. No torch unless the run becomes a new one."""

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
    """The `run` to train, and `place`, its folder once that context is entered.

    - `path`, `result`: where it already is, and its result so far; None for a new run.
    - `words`: what to tell the user about it.
    """

    run: ResolvedRun
    place: AbstractContextManager[Path]
    path: Path
    result: Result | None = None
    words: list[str] = field(default_factory=list)


def going_on(composed: dict[str, Any], overrides: list[str]) -> GoingOn:
    """The run that continues in its folder, or from there in a new one.

    Raises:
        ConfigError: if it is not a run, or cannot continue as asked.
    """
    again = resumed(composed, overrides)
    folder = again.folder
    if again.before is None:
        return GoingOn(again.run, held_to_go_on(folder), folder.path, folder.read_result())
    from convscape.training.longer import longer  # torch: the checkpoint says how far it got

    other = longer(again)
    return GoingOn(other.run, other.place, folder.path, words=[other.words])
