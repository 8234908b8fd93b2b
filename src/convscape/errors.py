"""What a command answers with one sentence and exit code 2, and what ends a run before its time."""

from pathlib import Path


class ConfigError(ValueError):
    """A mistake in what the user asked for; the message is one sentence per mistake."""


class RunFailed(RuntimeError):
    """A run that was asked for in Python did not come to its end; `path` is its folder."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class Stopped(Exception):
    """A run is asked to stop: it is saved, recorded as interrupted, and can go on."""
