"""Many picture files as chunks of one array, on all cores that this process may use. No torch."""

from __future__ import annotations

import math
import os
import pickle
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from typing import Any

import numpy as np

from convscape.base.cores import available_cores
from convscape.data.cache import DataError
from convscape.data.pictures import Picture, Shape, read_picture
from convscape.data.progress import Restartable

CHUNK_BYTES = 2**24  # decoded at a time
BATCH = 64  # pictures that a core is given at a time
MAX_CORES = 32  # a disk keeps no more of them busy
# In smaller files Pillow spends its time in Python, where threads only hinder one another:
# processes read them, if there are so many that they are worth starting.
THREADED_BYTES = 2**14
WORTH_PROCESSES = 4000  # about half a second of reading

Read = np.ndarray | DataError
ReadAll = Callable[[Sequence[Picture]], list[Read]]


class Decoded(Restartable):
    """Chunks of images (n, C, H, W) and labels (n,), in order.

    Those that cannot be read are named in `skipped`; where that is None they raise DataError.
    """

    def __init__(
        self, pictures: Sequence[Picture], shape: Shape, skipped: list[str] | None
    ) -> None:
        self._pictures, self._shape, self._skipped = pictures, shape, skipped

    @property
    def made_by(self) -> str:
        """Another version may decode to other bits."""
        return f"Pillow {version('pillow')}"

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        step = max(16, CHUNK_BYTES // math.prod(self._shape))
        left = self._pictures[self.position :]
        chunks = [left[start : start + step] for start in range(0, len(left), step)]
        with _on_all_cores(left, self._shape) as begin:
            pending = deque(begin(chunk) for chunk in chunks[:1])
            for number, chunk in enumerate(chunks, 1):
                # the cores go on while this one is written
                pending += [begin(another) for another in chunks[number : number + 1]]
                images, labels = self._sorted_out(chunk, pending.popleft()())
                self.position += len(chunk)
                if images:
                    yield np.stack(images), np.array(labels)

    def _sorted_out(
        self, pictures: Sequence[Picture], found: Sequence[Read]
    ) -> tuple[list[np.ndarray], list[int]]:
        images, labels = [], []
        for picture, image in zip(pictures, found, strict=True):
            if isinstance(image, np.ndarray):
                images.append(image)
                labels.append(picture.label)
            elif self._skipped is None:
                raise DataError(f"{image}, or set data.on_unreadable=skip") from image
            else:
                self._skipped.append(picture.path)
        return images, labels


@contextmanager
def _on_all_cores(
    pictures: Sequence[Picture], shape: Shape
) -> Iterator[Callable[[Sequence[Picture]], Callable[[], list[Read]]]]:
    """Gives what begins to read some pictures, and returns what waits for them."""
    num_cores = min(MAX_CORES, available_cores())
    is_small = sum(picture.size for picture in pictures) <= THREADED_BYTES * len(pictures)
    if num_cores == 1 or (is_small and len(pictures) < WORTH_PROCESSES):
        yield lambda some: lambda: _read_all(some, shape)
        return
    with ExitStack() as opened:
        read: ReadAll = lambda some: _read_all(some, shape)  # noqa: E731
        if is_small:
            read = opened.enter_context(_in_processes(num_cores, shape))
        pool = ThreadPoolExecutor(num_cores)
        opened.callback(pool.shutdown, cancel_futures=True)

        def begin(some: Sequence[Picture]) -> Callable[[], list[Read]]:
            batches = [some[start : start + BATCH] for start in range(0, len(some), BATCH)]
            futures = [pool.submit(read, batch) for batch in batches]
            return lambda: [image for future in futures for image in future.result()]

        yield begin


def _read_all(pictures: Sequence[Picture], shape: Shape) -> list[Read]:
    found: list[Read] = []
    for picture in pictures:
        try:
            found.append(read_picture(picture.path, shape))
        except DataError as error:
            found.append(error)
    return found


@contextmanager
def _in_processes(count: int, shape: Shape) -> Iterator[ReadAll]:
    """Gives what reads pictures in one of `count` processes, whichever is free.

    They are started by a command: those of `multiprocessing` run the user's script once more.
    """
    # whoever interrupts means this process, which then closes their input
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    code += f"sys.path[:] = {sys.path!r}; from {__name__} import serve; serve()"
    settings = {name: getattr(where, name) for name, where in _pillows().items()}
    free: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
    with ExitStack() as opened:
        for _ in range(count):
            command = [sys.executable, "-c", code]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            opened.enter_context(process)  # closes its input, which ends it
            free.put(process)

        def read(pictures: Sequence[Picture]) -> list[Read]:
            process = free.get()
            try:
                if process is not None:
                    assert process.stdin is not None
                    assert process.stdout is not None
                    process.stdin.write(pickle.dumps((settings, pictures, shape)))
                    process.stdin.flush()
                    found: list[Read] = pickle.load(process.stdout)
                    return found
            except Exception:  # noqa: BLE001  it was killed, or something else printed there
                if process is not None:
                    process.kill()
                process = None  # from now on its share is read here
            finally:
                free.put(process)
            return _read_all(pictures, shape)

        yield read


def _pillows() -> dict[str, Any]:
    """What a user's script may have set, and decides which pictures can be read; and where."""
    from PIL import Image, ImageFile

    return {"MAX_IMAGE_PIXELS": Image, "LOAD_TRUNCATED_IMAGES": ImageFile}


def serve() -> None:
    """Read the pictures that are asked for on stdin, until there is nobody to ask."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what others print is no answer
    with suppress(EOFError, BrokenPipeError):
        while True:
            settings, pictures, shape = pickle.load(sys.stdin.buffer)
            for name, value in settings.items():
                setattr(_pillows()[name], name, value)
            answers.write(pickle.dumps(_read_all(pictures, shape)))
            answers.flush()
