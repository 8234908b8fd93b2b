"""A parser of arguments that refuses them in one sentence, without its usage before it."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from convscape.base.values import hint


class Parser(argparse.ArgumentParser):
    """Says what is wrong, the closest option, and the command that shows all.

    - `command`: as typed, such as "python scripts/predict.py".
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=command if command.startswith("convscape ") else None,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.command = command

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        stray = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        closest = hint(stray[1], self._option_string_actions) if stray else ""
        self.exit(2, f"error: {message}{closest}; {self.command} --help shows all arguments\n")
