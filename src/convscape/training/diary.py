"""`run.log`, the diary of a run: what it is, each epoch, each warning once, and how it ended."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from convscape.base import files
from convscape.base.errors import CannotWrite
from convscape.base.values import counted, on_one_line
from convscape.data.module import ImageDataModule
from convscape.runs.folder import RunFolder, local_rank
from convscape.runs.result import Result
from convscape.runs.words import no_choice, summary

logger = logging.getLogger("convscape")

MAX_NAMES = 12  # of classes


@contextmanager
def kept(folder: RunFolder) -> Iterator[None]:
    """Send the run's log records and warnings to its own file, not to the terminal.

    Raises:
        CannotWrite: if the file cannot be opened.
        NotInside: if it is a link.
    """
    rank = local_rank()
    path = folder.log_file if rank == 0 else folder.path / f"run-rank{rank}.log"
    try:
        handler = _File(path, folder.path)
    except OSError as error:
        raise CannotWrite(folder.path, error) from None
    handler.setFormatter(_Entry("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    handler.addFilter(_once())
    # Lightning's warnings, but not its chatter
    levels = {
        "convscape": logging.INFO,
        "lightning.pytorch": logging.WARNING,
        "lightning.fabric": logging.WARNING,
    }
    before = [
        (source, source.level, source.propagate, list(source.handlers))
        for source in map(logging.getLogger, levels)
    ]
    for source, *_ in before:
        source.setLevel(levels[source.name])
        source.propagate = False
        source.handlers = [handler]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _note
            # batches after trainer.max_steps, see `ImageDataModule.on_after_batch_transfer`
            warnings.filterwarnings("ignore", ".*train_dataloader.* yielded None")
            warnings.filterwarnings(
                "ignore", "The `srun` command is available"
            )  # SLURM's is a choice
            yield
    finally:
        for source, level, propagate, handlers in before:
            source.setLevel(level)
            source.propagate = propagate
            source.handlers = handlers
        handler.close()


class _File(logging.FileHandler):
    def __init__(self, path: Path, within: Path) -> None:
        self._path, self._within = path, within
        super().__init__(path, encoding="utf-8")

    def _open(self) -> io.TextIOWrapper:
        content: Any = files.append(self._path, within=self._within)
        return io.TextIOWrapper(
            content, encoding="utf-8", errors="backslashreplace", write_through=True
        )

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is reported once, by whatever cannot do without it."""


class _Entry(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        """A line, with further lines indented: no text from a file can start an entry."""
        if record.levelno >= logging.WARNING:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return "\n    ".join(map(_escaped, super().formatMessage(record).splitlines()))


def _escaped(line: str) -> str:
    r"""A line with terminal control characters written out, as \x1b."""
    return re.sub(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda m: m[0].encode("unicode_escape").decode(), line
    )


def _once() -> Any:
    """A filter that lets each warning pass once."""
    told: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_told = record.levelno == logging.WARNING and text in told
        told.add(text)
        return not is_told

    return is_new


def _note(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    place = Path(filename)
    if issubclass(category, DeprecationWarning | FutureWarning) and "lightning" in place.parts:
        return  # for those who work on Lightning
    text = " ".join(str(message).split())
    logger.warning("%s (%s, %s line %d)", text, category.__name__, place.name, lineno)


def begin(
    result: Result, data: ImageDataModule, checkpoint: Path | None, described: Sequence[str]
) -> None:
    """Write what the run is and what it runs on.

    - `described`: images per class of the user's own data, and what was left out.
    """
    known = result.environment
    sizes = ", ".join(f"{len(data.indices[name]):,} {name}" for name in ("train", "val", "test"))
    shape = "x".join(map(str, data.image_shape))
    threads = counted(known["threads"], "thread")
    taken = f", {known['taken_cores']:g} cores used by others" if known["taken_cores"] else ""
    size = "" if result.num_parameters is None else f"{result.num_parameters:,} parameters"
    macs = "" if result.macs is None else f", {result.macs:,} MACs per image"
    entries = [
        f"{'run' if checkpoint is None else 'going on with run'} {result.run}, seed {result.seed}",
        f"typed: {' '.join(result.overrides) or 'nothing'}; config.yaml has every key",
        f"data: {data.image_set.name}, checksum {result.data_checksum}: {sizes} images of {shape}",
        f"{len(data.classes)} classes: {_some(data.classes)}",
        *described,
        f"network: {size}{macs}",
        f"on {known['device']} ({known['cpu']}, {threads}{taken}) in {known['precision']}, "
        f"torch {known['torch']}, lightning {known['lightning']}, python {known['python']}",
    ]
    if (parent := result.parent) is not None:
        entries.insert(1, f"it continues {parent['run']}, after {parent['epochs']} epochs")
    for entry in entries:
        logger.info("%s", entry)


def end(result: Result, path: Path) -> None:
    """Write how it ended, and if nothing chose the best epoch, that too."""
    first, *_ = summary(result, path)
    logger.info("%s", f"ok: {first}" if result.status == "ok" else first)
    if result.status == "ok" and (nothing := no_choice(result)) is not None:
        logger.warning("%s", nothing)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(map(on_one_line, names[:MAX_NAMES])) + more
