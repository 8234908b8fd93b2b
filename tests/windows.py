"""A process that lacks what Windows lacks; the rest of Linux stays.

    python tests/windows.py scripts/train.py data=digits
    python -m pytest -p tests.windows tests/test_train.py

There is no `resource`, `fcntl`, `fork` or `killpg`, no advice to the system about mapped memory, no
second half of the signals, no descriptor of a folder, no /proc; `CDLL(None)` is a TypeError,
`os.kill` ends a process whatever the signal, and what this process has open or mapped can be
neither renamed nor removed.
"""

import ctypes
import mmap
import os
import runpy
import shutil
import signal
import sys
import warnings

# filelock has Windows' own locks there, and asks the system's name; Lightning asks it about signals
import filelock  # noqa: F401

MODULES = ("resource", "fcntl", "pwd", "grp")
NAMES = "O_NOFOLLOW O_DIRECTORY geteuid fork forkpty killpg sched_getaffinity mkfifo sysconf"
SHARING_VIOLATION = 32  # winerror.h


def take_away():
    """Do all that before the package is imported."""
    for name in MODULES:
        sys.modules[name] = None
    for name in NAMES.split():
        delattr(os, name)
    for name in [name for name in vars(mmap) if name.startswith("MADV_")]:
        delattr(mmap, name)
    os.supports_dir_fd = set()
    shutil._use_fd_functions = False
    ctypes.CDLL.__init__ = _needs_a_name(ctypes.CDLL.__init__)
    for name in ("rename", "replace", "unlink", "remove", "rmdir"):
        setattr(os, name, _refused_while_open(getattr(os, name)))
    there = signal.SIGUSR1, signal.SIGUSR2
    del signal.SIGUSR1, signal.SIGUSR2
    from convscape.base import machine
    from convscape.training.callbacks import SCHEDULERS

    machine._proc = lambda name: ""
    assert SCHEDULERS == ()
    signal.SIGUSR1, signal.SIGUSR2 = there
    os.kill = _ends_the_process(os.kill)
    if sys.flags.warn_default_encoding:
        warnings.filterwarnings("error", category=EncodingWarning, module="convscape")


def _needs_a_name(load):
    def refuse(self, name, *rest, **more):
        if name is None:
            raise TypeError("an integer is required")
        load(self, name, *rest, **more)

    return refuse


def _refused_while_open(step):
    def refuse(path, *others, **more):
        assert "dir_fd" not in more or more["dir_fd"] is None
        for name in (path, *others):
            if is_open(os.fspath(name)):
                error = PermissionError(13, "it is used by another process", name)
                error.winerror = SHARING_VIOLATION
                raise error
        return step(path, *others, **more)

    return refuse


def is_open(path):
    """Whether this process has a file open or mapped: `path`, or one in the folder `path`."""
    path = os.path.realpath(path)
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue  # that of the listing
    with open("/proc/self/maps", encoding="utf-8") as file:
        found |= {line.split(maxsplit=5)[5].rstrip("\n") for line in file if "/" in line}
    return any(name == path or name.startswith(f"{path}/") for name in found)


def _ends_the_process(kill):
    return lambda pid, signum: kill(pid, signal.SIGKILL if signum else 0)


take_away()

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(sys.argv[0])
    runpy.run_path(sys.argv[0], run_name="__main__")
