"""Mistakes, answered with one sentence and exit code 2, and what ends a run early."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path


class ConfigError(ValueError):
    """A mistake in what the user asked for; the message is one sentence per mistake."""


class NotAllowed(ConfigError):
    """A part from a package of the user's that has not been allowed."""

    def __init__(self, what: str, package: str) -> None:
        super().__init__(f"{what}; if {package!r} is yours, add allow_packages=[{package}]")
        self.as_option = (  # of the commands that take a run
            f"{what}; if {package!r} is yours, add --allow-packages {package}, "
            f"in Python allow_packages=[{package!r}]"
        )


class RunFailed(RuntimeError):
    """A run that was asked for in Python did not finish; `path` is its folder."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


class Stopped(Exception):
    """A run was asked to stop: it is saved, recorded as interrupted, and can be resumed."""


# what a network file system without locks answers
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


def not_written(what: str, error: OSError, way_out: str) -> str:
    """Why a file could not be written, and what to do about it; `what` begins the sentence."""
    why, remedy = error.strerror or error, "free some space or allow writing there, or "
    if error.errno in _NO_LOCKS:
        why, remedy = f"its file system has no locks ({why})", ""
    return f"{what}: {why}; {remedy}{way_out}"


class CannotWrite(ConfigError):
    """The disk is full, or writing is not allowed.

    Before training starts this is a mistake in the input. Later it interrupts the run, which can
    be resumed, and stops the whole sweep, since the next run could not write either.
    """

    def __init__(self, path: Path, error: OSError, option: str | None = "output_dir=...") -> None:
        way_out = f"choose another place with {option}"
        if option is None:  # the folder is one in which a run has begun
            way_out = "copy it to where you can write, and continue there with resume=<the copy>"
        super().__init__(not_written(f"cannot write the folder {path}", error, way_out))
        self.path, self.error = path, error


def is_about_the_disk(error: BaseException) -> bool:
    """Whether the error only means that a place cannot be written to."""
    if not isinstance(error, OSError):
        return False
    if error.errno == errno.ENOENT and error.filename is None:
        return not _has_working_folder()  # its file system was unmounted
    if error.errno in (errno.ENOTCONN, errno.ETIMEDOUT):  # a server's folder, or else a socket
        return error.filename is not None
    return error.errno in (
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
        *(errno.EROFS, errno.EACCES, errno.EPERM),
        errno.ESTALE,  # a file system of the network that went away
    )


def _has_working_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def stopped_by(signum: int) -> str:
    """Why a run was interrupted."""
    return f"stopped by {signal.Signals(signum).name}"


def code_of_stop(message: object) -> int:
    """The exit code for a stop: SIGTERM's, where the message says so, or else that of Ctrl-C."""
    return 143 if str(message).endswith("SIGTERM") else 130
