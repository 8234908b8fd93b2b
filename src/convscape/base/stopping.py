"""Ctrl-C and SIGTERM, and how the workers of a process learn of them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from convscape.base.errors import stopped_by

# not on Windows: there os.kill ends a process immediately, whatever the signal
HAS_SIGNALS = hasattr(os, "killpg")
_STOP_FILE = "CONVSCAPE_STOP_FILE"  # names the file that tells workers to stop


@contextmanager
def stops() -> Iterator[None]:
    received: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + signum)
        received.append(signum)
        hand_on(signum)
        raise KeyboardInterrupt(stopped_by(signum))

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def hand_on(signum: int) -> bool:
    """Stop the worker processes of this one too; returns whether there are any.

    They get the other of the two signals: a terminal has already sent them the same one, and a
    second signal of a kind ends a run immediately. Without signals they look for the stop file.
    """
    import multiprocessing

    other = signal.SIGTERM if signum == signal.SIGINT else signal.SIGINT
    workers = [process.pid for process in multiprocessing.active_children()]
    for pid in workers:
        if pid is not None and HAS_SIGNALS:
            with suppress(ProcessLookupError):
                os.kill(pid, other)
    return bool(workers)


@contextmanager
def stop_file(folder: Path) -> Iterator[Callable[[], None]]:
    """Yields a function that tells the workers started inside to stop, by a file in `folder`.

    They may be on other machines that share the folder, and may have tasks not yet begun.
    """
    from convscape.base import files

    file = (folder / f".stopped-{socket.gethostname()}-{os.getpid()}").absolute()
    os.environ[_STOP_FILE] = str(file)

    def tell() -> None:
        with suppress(OSError):
            files.make_folder(file.parent, within=file.parent)
            files.append(file, within=file.parent).close()

    try:
        yield tell
    finally:
        del os.environ[_STOP_FILE]
        with suppress(OSError):
            files.remove(file, within=file.parent)


def is_told_to_stop() -> bool:
    """Whether this process, or the one that launched it, was told to stop."""
    return Path(os.environ.get(_STOP_FILE, "")).is_file()
