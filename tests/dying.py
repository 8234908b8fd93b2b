"""Trains in a process of its own and lets a signal or a fault meet it at a chosen moment."""

import functools
import importlib
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from convscape.runs.resolved import ResolvedRun
from tests.test_config import checked
from tests.warm import context

# name: what is called then, and whether it is met before or after that call
MOMENTS = {
    "writing": ("os:fsync", "before"),  # the content is written, and has no name yet
    "renaming": ("os:replace", "before"),
    "renamed": ("os:replace", "after"),
    "begun": ("convscape.runs.folder:RunFolder.begin", "after"),
    "data": ("convscape.training.run:data_module", "before"),
    "step": ("convscape.models:ImageClassifier.training_step", "before"),
    "validation": ("convscape.models:ImageClassifier.validation_step", "after"),
    "test": ("convscape.models:ImageClassifier.test_step", "after"),
    "epoch": ("convscape.training.callbacks:Recorder.on_train_epoch_end", "before"),
    "saved": ("convscape.training.callbacks:Recorder.on_train_epoch_end", "after"),
    "points": ("convscape.training.events:EventLogger.log_metrics", "after"),
    "pictures": ("convscape.training.pictures:TensorBoardPictures._draw_all", "before"),
    "trained": ("convscape.training.callbacks:StopOnSignal.on_train_end", "before"),
    "own step": ("tests.own_modules:Lit.training_step", "before"),
    "own validation": ("tests.own_modules:Lit.validation_step", "after"),
    "own test": ("tests.own_modules:Lit.test_step", "after"),
    "report": ("convscape.reports.page:html", "before"),
}


checked()  # Hydra looks for its plugins once, and not in each process that is forked after this

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows each signal ends a process at once


def at(moment, number, happen, put=setattr):
    """Let `happen()` come with the `number`-th call of what `moment` names."""
    place, when = MOMENTS[moment]
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original = getattr(owner, name)
    calls = []

    @functools.wraps(original)
    def meeting(*arguments, **keywords):
        calls.append(None)
        if when == "before" and len(calls) == number:
            happen()
        result = original(*arguments, **keywords)
        if when == "after" and len(calls) == number:
            happen()
        return result

    put(owner, name, meeting)


def send(signum):
    os.kill(os.getpid(), signum)


def set_clock(days):
    """Let the time of day jump; the time that passes is another clock's."""
    real = time.time
    time.time = lambda: real() + 86400 * days


def leave_no_room():
    """As a full disk: files end at their first byte. It needs no root and harms no one else."""
    import resource  # Windows has none

    resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))


def _work(overrides, path, moment, number, signum, days, answers, environment):
    os.environ.clear()
    os.environ.update(environment)
    from convscape.training.run import train

    happen = functools.partial(set_clock, days) if days else functools.partial(send, signum)
    if signum is None and not days:
        happen = leave_no_room
    if moment is not None:
        at(moment, number, happen)
    elif days:
        happen()
    config = checked(*overrides)
    with suppress(KeyboardInterrupt):  # before the run has begun
        answers.put(train(ResolvedRun(config, list(overrides)), Path(path)).status)


def train_on_a_full_disk(overrides, path, moment, number):
    """The status that the run ended with; from that moment on nothing can be written."""
    return train_apart(overrides, path, moment, number, signum=None)


def _starve(runs, path, room_bytes, answers):
    import resource

    from convscape.training.run import train

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + room_bytes, resource.RLIM_INFINITY))
    for number, overrides in enumerate(runs):
        result = train(ResolvedRun(checked(*overrides), list(overrides)), Path(path) / str(number))
        answers.put((result.status, result.error and result.error["message"]))


def train_apart(overrides, path, moment=None, number=1, signum=KILL, after_s=None, days=0):
    """The status that the run ended with; None where it died.

    It gets `signum` at the `number`-th `moment`, or after `after_s` seconds; or its clock is set.
    """
    answers = context.SimpleQueue()
    # the process that it is forked from may be older than what the test has set
    arguments = (overrides, str(path), moment, number, signum, days, answers, dict(os.environ))
    process = context.Process(target=_work, args=arguments)
    process.start()
    if after_s is not None:
        time.sleep(after_s)
        with suppress(ProcessLookupError):  # it was quicker
            os.kill(process.pid, signum)
    process.join()
    return None if answers.empty() else answers.get()


def train_in_little_memory(runs, path, room_bytes):
    """Status and message of each of `runs` (their overrides), one after the other in a process."""
    answers = context.SimpleQueue()
    process = context.Process(target=_starve, args=(runs, str(path), room_bytes, answers))
    process.start()
    process.join()
    return [answers.get() for _ in runs if not answers.empty()]
