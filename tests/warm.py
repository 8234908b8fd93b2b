"""Scripts in processes of their own, forked from one that has imported torch already.

A fresh interpreter takes six seconds of a core before it trains; a fork of a warm one needs none.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import threading
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "scripts"

HAS_FORKS = "forkserver" in multiprocessing.get_all_start_methods()  # Windows starts each anew
context = multiprocessing.get_context("forkserver" if HAS_FORKS else "spawn")
context.set_forkserver_preload(
    [
        *("convscape.training.run", "convscape.reports.page", "hydra", "tests.dying"),
        "torchvision.transforms.v2",  # of augmentation: a second for each fork
    ]
)


def _become(path, arguments, folder, environment, outputs):
    if hasattr(os, "setsid"):
        os.setsid()  # as in a terminal: its workers are in its group
    for number, output in enumerate(outputs, 1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    finally:  # the end of an interpreter, of which multiprocessing does only a part
        threading._shutdown()
        atexit._run_exitfuncs()


class WarmScript:
    """What the tests need of subprocess.Popen; what it prints is kept in the folder `notes`."""

    def __init__(self, script, arguments, folder, notes, **environment):
        path = str(SCRIPTS / f"{script}.py")
        self._outputs = [notes / "out", notes / "err"]
        task = (path, arguments, str(folder), os.environ | environment, self._outputs)
        self._process = context.Process(target=_become, args=task)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self.returncode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(str(self._outputs[0]), timeout)
        return self.returncode

    def communicate(self, timeout=None):
        self.wait(timeout)
        return tuple(o.read_text() if o.exists() else "" for o in self._outputs)

    def send_signal(self, signum):
        os.kill(self.pid, signum)

    def kill(self):
        self._process.kill()
