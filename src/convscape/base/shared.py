"""Results computed once for objects that many runs share, such as the sections of a grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 4096  # results kept per function


def once_for_each(function: Callable[P, T]) -> Callable[P, T]:
    """`function` for objects that never change; its result for the very same ones is kept.

    Unlike `functools.cache` it compares by value only numbers, words and tuples of them: a section
    of a config cannot be hashed, and comparing two networks takes as long as computing the result.
    """
    known: dict[tuple[Any, ...], tuple[Any, T]] = {}

    @wraps(function)
    def answer(*objects: P.args, **none: P.kwargs) -> T:
        key = tuple([o if isinstance(o, int | str | tuple) else id(o) for o in objects])
        found = known.get(key)
        if found is None:
            if len(known) >= _MOST:
                known.clear()
            # the objects are kept too, so that no other object can get the same id
            found = known[key] = objects, function(*objects, **none)
        return found[1]

    return answer
