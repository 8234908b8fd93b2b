"""A small project of your own: the files of templates/, copied into a new folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from convscape.base import distribution
from convscape.base.errors import ConfigError

LEFT_BY_PYTHON = shutil.ignore_patterns("__pycache__", ".pytest_cache", "data", "outputs")


def lay_project(folder: Path) -> list[Path]:
    """Copy the files into `folder`, created if missing; returns their paths within it.

    Raises:
        ConfigError: if it is not empty, or cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} already exists, and nothing in it is overwritten; "
                "name a new folder, or an empty one"
            )
        source = distribution.folder("templates")
        shutil.copytree(source, folder, ignore=LEFT_BY_PYTHON, dirs_exist_ok=True)
    except OSError as error:  # copytree's error is a list of what could not be copied
        raise ConfigError(
            f"cannot write the folder {folder}: {error.strerror or error}; choose another place"
        ) from None
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
