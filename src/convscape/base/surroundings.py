"""The folder and the environment in which a command was typed, for its workers elsewhere."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convscape.base.errors import ConfigError

_OURS = "CONVSCAPE_"  # the prefix of our variables


class Surroundings:
    """Pickled with a task, it lets the task find everything that the command would have found.

    A Ray worker starts in the folder and with the environment of whoever typed `ray start`:
    there outputs/ and data/ are other folders, and the user's packages are not found.
    """

    def __init__(self) -> None:
        self._folder: str | None = None  # in the process of the command nothing needs to change
        self._environment: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        ours = {name: value for name, value in os.environ.items() if name.startswith(_OURS)}
        return {"_folder": self._folder or os.getcwd(), "_environment": self._environment or ours}

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, relative paths and our variables mean what they meant for the command.

        Raises:
            ConfigError: if this machine does not see the folder.
        """
        if self._folder is None:
            yield
            return
        before, environment = os.getcwd(), dict(os.environ)
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise not_seen(Path(self._folder), error.strerror) from None
        os.environ.update(self._environment)
        try:
            yield
        finally:
            os.chdir(before)
            for name in self._environment:
                os.environ.pop(name, None)
            os.environ.update(environment)


def not_seen(folder: Path, reason: str | None = None) -> ConfigError:
    """The error for a folder that all machines should see, and this one does not."""
    why = f" ({reason})" if reason else ""
    return ConfigError(
        f"the worker on {socket.gethostname()} does not see {folder.absolute()}{why}; the working "
        "folder, output_dir and data.root must be shared by all nodes"
    )
