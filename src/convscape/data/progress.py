"""Progress of preparing a data set: a bar, and records from which it can resume."""

from __future__ import annotations

import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from convscape.base import files

log = logging.getLogger(__name__)

SLOW_S = 1.0  # anything longer than this gets a progress bar
LINE_S = 30.0  # between lines, if there is no terminal for a bar

Chunk = tuple[np.ndarray, np.ndarray]  # images (n, C, H, W) and labels (n,)


class Restartable:
    """Chunks in a fixed order that can start after any of them.

    - `position`: how many images the previous chunks took up, including unreadable ones.
    """

    position = 0

    @property
    def made_by(self) -> str:
        """What determines their bits, besides their files."""
        return ""

    def __iter__(self) -> Iterator[Chunk]:
        raise NotImplementedError


class Notes:
    """A line for each chunk on disk, in a file beside that of the images.

    With these, an interrupted preparation continues to the same bits.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[str] = []  # of chunks that are unchanged since they were written
        self.num_kept = 0  # images in these chunks

    @property
    def are_there(self) -> bool:
        """Whether a preparation was interrupted here."""
        return self._path.exists()

    def continued(
        self, chunks: Restartable, file: BinaryIO, skipped: list[str]
    ) -> Iterator[tuple[Chunk, bool]]:
        """The unchanged chunks in `file`, then the missing ones.

        Each comes with whether it is missing; then append it to the file and note it.
        """
        for entry, images in self._kept(file, chunks.made_by):
            skipped += entry["skipped"]
            chunks.position = entry["position"]
            self.num_kept += len(images)
            yield (images, np.array(entry["labels"])), False
        if self.num_kept:
            log.info("%s: %s images were prepared before", self._path.stem, f"{self.num_kept:,}")
        else:
            file.seek(0)
        files.cut(Path(file.name), file.tell(), within=self._path.parent)
        num_skipped = len(skipped)
        files.write_atomic(self._path, "".join(self._lines), within=self._path.parent)
        with files.append(self._path, within=self._path.parent) as notes:
            for images, labels in chunks:
                yield (images, labels), True
                file.flush()
                entry = {
                    "shape": images.shape,
                    "dtype": images.dtype.str,
                    "crc32": zlib.crc32(np.ascontiguousarray(images).data),
                    "labels": labels.tolist(),
                    "skipped": skipped[num_skipped:],
                    "position": chunks.position,
                    "made_by": chunks.made_by,
                }
                num_skipped = len(skipped)
                text = json.dumps(entry).encode("ascii")
                notes.write(b"%08x %b\n" % (zlib.crc32(text), text))

    def _kept(self, file: BinaryIO, made_by: str) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
        if not self.are_there:
            return
        try:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
        except ValueError:  # not even the header was written
            file.seek(0)
            return
        for line in self._path.read_text("ascii", "replace").splitlines():
            start = file.tell()
            crc32, _, text = line.partition(" ")
            if crc32 != f"{zlib.crc32(text.encode()):08x}":  # it was truncated, or damaged
                break
            entry = json.loads(text)
            if entry["made_by"] != made_by:
                break
            images = np.empty(entry["shape"], np.dtype(entry["dtype"]))
            data = file.read(images.nbytes)
            if len(data) < images.nbytes or zlib.crc32(data) != entry["crc32"]:
                file.seek(start)
                break
            self._lines.append(f"{line}\n")
            yield entry, np.frombuffer(data, images.dtype).reshape(images.shape)

    def remove(self) -> None:
        """Remove the notes; they are no longer needed."""
        files.remove(self._path, within=self._path.parent)


@contextmanager
def progress_when_slow(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields `advance(n)`, which shows a progress bar on stderr once `SLOW_S` have passed.

    If stderr is not a terminal, it prints a line every `LINE_S` instead.
    """
    started = said = time.monotonic()
    bar: Any = None
    done = done_then = 0

    def advance(amount: int) -> None:
        nonlocal bar, done, done_then, said
        done += amount
        now = time.monotonic()
        if bar is None and now - started > SLOW_S:
            bar = _bar(description, total)
            bar.start()
        if bar is not None:
            bar.update(bar.task_ids[0], completed=done)
            if not bar.console.is_terminal and now - said > LINE_S:
                speed = (done - done_then) / (now - said)
                done_then, said = done, now
                log.info(
                    *("%s: %s of %s, %.0f/s, %.0f s left", description, f"{done:,}", f"{total:,}"),
                    *(speed, (total - done) / speed),
                )

    try:
        yield advance
    finally:
        if bar is not None:
            bar.stop()


def _bar(description: str, total: int) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    count = TextColumn("{task.completed:,.0f}/{task.total:,.0f}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, Speed(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    bar.add_task(description, total=total)
    return bar
