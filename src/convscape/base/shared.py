"""What is worked out once for objects that many runs share, as those of a grid do sections."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 4096  # answers that a function keeps


def once_for_each(function: Callable[P, T]) -> Callable[P, T]:
    """`function` of objects that nothing changes; its answer for the very same ones is kept.

    Unlike `functools.cache` it compares only numbers, words and tuples of them: a section of a
    config cannot be hashed, and to compare two networks layer by layer takes as long as the answer.
    """
    known: dict[tuple[Any, ...], tuple[Any, T]] = {}

    @wraps(function)
    def answer(*objects: P.args, **none: P.kwargs) -> T:
        key = tuple([o if isinstance(o, int | str | tuple) else id(o) for o in objects])
        found = known.get(key)
        if found is None:
            if len(known) >= _MOST:
                known.clear()
            # the objects are kept too: another one cannot get the id of one of them
            found = known[key] = objects, function(*objects, **none)
        return found[1]

    return answer
