"""A small project of the user's own: the files of templates/, laid into a new folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from convscape.base import distribution
from convscape.base.errors import ConfigError

LEFT_BY_PYTHON = shutil.ignore_patterns("__pycache__", ".pytest_cache", "data", "outputs")


def lay_project(folder: Path) -> list[Path]:
    """Lay the files into `folder`, which is made if there is none; their paths within it.

    Raises:
        ConfigError: if there is something in it already, or it cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} already exists, and nothing in it is overwritten; "
                "name a new folder, or an empty one"
            )
        source = distribution.folder("templates")
        shutil.copytree(source, folder, ignore=LEFT_BY_PYTHON, dirs_exist_ok=True)
    except OSError as error:  # of copytree it is a list of what could not be copied
        raise ConfigError(
            f"cannot write the folder {folder}: {error.strerror or error}; choose another place"
        ) from None
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
