"""Images that do not fit into memory: the system is told early which ones will be read next."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from convscape.base import machine

if TYPE_CHECKING:
    from torch import Tensor

NUM_AHEAD = 4  # batches read from disk while one is trained on


class Ahead:
    """Asks the system for images of a file before they are used, a few batches ahead."""

    def __init__(self, images: np.memmap, mapped: mmap.mmap) -> None:
        self._mapped, self._first = mapped, images.offset
        self._size = images.nbytes // len(images)
        self._last: tuple[int, int] | None = None  # what was requested before
        mapped.madvise(mmap.MADV_RANDOM)

    def of_batch(self, order: Tensor, index: int, batch_size: int) -> None:
        """Prepare for batch `index` of `order`, which is used next, and those that follow."""
        # in the same order: what was requested with the previous batch is not requested again
        goes_on = self._last == (id(order), index - 1)
        self._last = id(order), index
        begin = index + NUM_AHEAD if goes_on else index
        self.ask(order[begin * batch_size : (index + NUM_AHEAD + 1) * batch_size].tolist())

    def ask(self, which: Iterable[int]) -> None:
        """Ask for these images, in their order on the disk."""
        for index in sorted(which):
            start = self._first + index * self._size
            page = start - start % mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_WILLNEED, page, start + self._size - page)


def reads_ahead(images: np.ndarray) -> Ahead | None:
    """Asks the system for images before they are used; None if all fit into memory.

    If they do not fit, the system would read megabytes around each image of a shuffled batch, and
    the same ones again and again; from now on it reads only what is requested.
    """
    limit, mapped = machine.memory_limit(), images.base
    is_mapped = isinstance(images, np.memmap) and isinstance(mapped, mmap.mmap)
    if limit is None or images.nbytes <= limit / 2 or not is_mapped:
        return None
    if not hasattr(mmap, "MADV_WILLNEED"):  # Windows
        return None
    assert isinstance(images, np.memmap)
    assert isinstance(mapped, mmap.mmap)
    return Ahead(images, mapped)
