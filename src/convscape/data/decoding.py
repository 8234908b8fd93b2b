"""Decodes many picture files into chunks of one array, on all cores it may use. No torch."""

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
BATCH = 64  # pictures given to a core at a time
MAX_CORES = 32  # a disk cannot keep more of them busy
# With smaller files Pillow spends its time in Python, where threads block one another: processes
# read them, if there are enough files to be worth starting processes.
THREADED_BYTES = 2**14
WORTH_PROCESSES = 4000  # about half a second of reading

Read = np.ndarray | DataError
ReadAll = Callable[[Sequence[Picture]], list[Read]]


class Decoded(Restartable):
    """Chunks of images (n, C, H, W) and labels (n,), in order.

    Unreadable files are added to `skipped`; if that is None, they raise DataError.
    """

    def __init__(
        self, pictures: Sequence[Picture], shape: Shape, skipped: list[str] | None
    ) -> None:
        self._pictures, self._shape, self._skipped = pictures, shape, skipped

    @property
    def made_by(self) -> str:
        """The decoder; another version may decode to other bits."""
        return f"Pillow {version('pillow')}"

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        step = max(16, CHUNK_BYTES // math.prod(self._shape))
        left = self._pictures[self.position :]
        chunks = [left[start : start + step] for start in range(0, len(left), step)]
        with _on_all_cores(left, self._shape) as begin:
            pending = deque(begin(chunk) for chunk in chunks[:1])
            for number, chunk in enumerate(chunks, 1):
                # the cores continue while this chunk is written
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
    """Yields a function that starts reading pictures and returns one that waits for them."""
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
    """Yields a function that reads pictures in one of `count` processes, whichever is free.

    They are started by a command: `multiprocessing` would run the user's script again.
    """
    # an interrupt is meant for this process, which then closes their input
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
            except Exception:  # noqa: BLE001  it was killed, or other code printed there
                if process is not None:
                    process.kill()
                process = None  # from now on this process reads its share
            finally:
                free.put(process)
            return _read_all(pictures, shape)

        yield read


def _pillows() -> dict[str, Any]:
    """Where Pillow's settings on what can be read are; a user's script may change them."""
    from PIL import Image, ImageFile

    return {"MAX_IMAGE_PIXELS": Image, "LOAD_TRUNCATED_IMAGES": ImageFile}


def serve() -> None:
    """Read the pictures requested on stdin, until it is closed."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what other code prints is not an answer
    with suppress(EOFError, BrokenPipeError):
        while True:
            settings, pictures, shape = pickle.load(sys.stdin.buffer)
            for name, value in settings.items():
                setattr(_pillows()[name], name, value)
            answers.write(pickle.dumps(_read_all(pictures, shape)))
            answers.flush()
