"""What is used of Hydra that is not public: the parser of overrides, its options, its state.

pyproject.toml bounds hydra-core for it; tests/test_insides.py says which part has changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.initialize import get_gh_backup, restore_gh_from_backup

__all__ = ["Override", "RangeSweep", "options", "parse_overrides", "without_hydra"]


def options() -> list[str]:
    """The options that Hydra's command line takes: --multirun, -m, --cfg ..."""
    return list(get_args_parser()._option_string_actions)


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """The overrides of a command line, as Hydra reads them.

    Raises:
        OverrideParseException: of Hydra's, if it cannot.
    """
    return OverridesParser.create().parse_overrides(list(words))


def with_own(words: Sequence[str]) -> list[str]:
    """Overrides of a command line; a part that is named brings its section without being chosen.

    optimizer._target_=torch.optim.NAdam is that one with optimizer=own, which has no other's keys.
    And init_from=<run> beside init_from.layers=[...] is the key `run` of the same section.
    """
    if any(re.match(r"\+*init_from\.", word) for word in words):
        words = [re.sub(r"^(\+*)init_from=", r"\1init_from.run=", word) for word in words]
    named = [m[1] for word in words if (m := re.match(rf"\+*({'|'.join(_OWN)})\._target_=", word))]
    chosen = {word.lstrip("+").partition("=")[0] for word in words}
    return [*(f"{group}=own" for group in dict.fromkeys(named) if group not in chosen), *words]


_OWN = ("data", "model", "optimizer", "scheduler")


@contextmanager
def without_hydra() -> Iterator[None]:
    """As if Hydra were not initialised: it can be, and then goes on as it was before."""
    before = get_gh_backup()
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        restore_gh_from_backup(before)
