"""The checkpoints of a run: whole or damaged, which to continue from, how to read a stranger's."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from convscape.base.errors import ConfigError
from convscape.base.files import NotInside, make_folder, remove, write_atomic
from convscape.base.quick_lightning import pl
from convscape.base.weights import BROKEN, read_plain
from convscape.config.losses import read_as_before
from convscape.runs.folder import RunFolder

logger = logging.getLogger("convscape")

_SEAL = b"convscape sha256 "
_DIGITS = 64  # of a SHA-256 in hexadecimal


def sealed(checkpoint: dict[str, Any]) -> memoryview:
    """A checkpoint as bytes: torch's zip file, and as that file's comment their checksum.

    The zip format's own checksums do not cover its table of contents.
    """
    content = io.BytesIO()
    torch.save(checkpoint, content)
    content.seek(-2, io.SEEK_END)  # the length of the comment comes last
    content.write((len(_SEAL) + _DIGITS).to_bytes(2, "little") + _SEAL)
    with content.getbuffer() as so_far:
        digest = hashlib.sha256(so_far).hexdigest()
    content.write(digest.encode())
    return content.getbuffer()


class NotPlain(TypeError):
    """A user's part keeps a value that could not be read back from a checkpoint."""

    def __init__(self, path: str, value: Any) -> None:
        super().__init__(
            f"a checkpoint cannot keep {path}, a {type(value).__name__}; allowed in a state_dict: "
            "numbers, words, tensors, and lists and dicts of these"
        )


_PLAIN = (bool, int, float, str, bytes, type(None), torch.Size, torch.dtype, torch.device)


def check_plain(value: Any, path: str = "") -> None:
    """Refuse values that `read_checkpoint` would not read.

    Raises:
        NotPlain: naming where it is.
    """
    if isinstance(value, torch.Tensor) or type(value) in _PLAIN:
        return
    if type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            check_plain(key, f"{path}.{key}".lstrip("."))
            check_plain(entry, f"{path}.{key}".lstrip("."))
    elif type(value) in (list, tuple, set):
        for entry in value:
            check_plain(entry, path)
    else:
        raise NotPlain(path, value)


def is_damaged(path: Path) -> bool:
    """Whether a checkpoint is not what was written. A file of another program is not damaged."""
    content = memoryview(path.read_bytes())
    digits = content[-_DIGITS:]
    if content[-_DIGITS - len(_SEAL) : -_DIGITS] == _SEAL:
        return hashlib.sha256(content[:-_DIGITS]).hexdigest().encode() != digits
    if content[:1] == b"\x80" and content[1:2] in (b"\2", b"\3", b"\4", b"\5"):
        return False  # a pickle
    try:  # earlier versions had no seal
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            return file.testzip() is not None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, zlib.error):
        return True


def is_begun(folder: RunFolder) -> bool:
    """Whether a run has a checkpoint that is not damaged.

    Raises:
        ConfigError: if an undamaged one still cannot be read, and why.
    """
    whole = [
        path
        for path in (folder.last_checkpoint, folder.best_checkpoint)
        if path.is_file() and not is_damaged(path)
    ]
    for path in whole:
        read_checkpoint(path)
    return bool(whole)


def to_go_on_from(folder: RunFolder) -> Path | None:
    """The last checkpoint, with the best one to match; None to start over, with both removed.

    Either way the run ends with the same bits. A disk may damage a whole file, and a lost best
    checkpoint can only be rebuilt by training from the start, unless it is also the last one.

    Raises:
        OSError: if a file cannot be written.
    """
    last, best = folder.last_checkpoint, folder.best_checkpoint
    there = [path for path in (last, best) if path.is_file()]
    damaged = [path for path in there if is_damaged(path)]
    for path in damaged:
        logger.warning("%s is damaged: training again what it contained", path)
    whole = [path for path in there if path not in damaged]
    if last in whole:
        best_epoch, is_the_best = _best_epoch(last)
        if best in whole or best_epoch is None:
            return last
        if is_the_best:
            write_atomic(best, last.read_bytes(), within=folder.path)
            return last
        logger.warning("%s of epoch %d is lost: training from the beginning", best, best_epoch)
    elif best in whole:
        # it may belong to the last epoch: then no later one will be written
        write_atomic(last, best.read_bytes(), within=folder.path)
        return last
    for path in there:
        remove(path, within=folder.path)
    return None


def _best_epoch(last: Path) -> tuple[int | None, bool]:
    """Which epoch was the best so far, if any, and whether `last` was saved at its end."""
    checkpoint = read_checkpoint(last)
    try:
        recorder = checkpoint["callbacks"]["Recorder"]
        epoch, history = recorder["best_epoch"], recorder["history"]
        is_at_end = bool(history) and history[-1]["step"] == checkpoint["global_step"]
    except BROKEN:
        raise ConfigError(f"{last} cannot be read: it is not the checkpoint of a run") from None
    return epoch, is_at_end and epoch == len(history)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The plain values and tensors in `path`, on the CPU.

    Raises:
        ConfigError: if it is damaged, is not the checkpoint of a run, or asks to run code.
    """
    checkpoint = read_plain(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ConfigError(f"{path} cannot be read: it is not the checkpoint of a run")
    arguments = checkpoint.get("hyper_parameters")
    if isinstance(arguments, dict):
        read_as_before(arguments.get("training"))
    return checkpoint


class AtomicCheckpointIO(pl.plugins.TorchCheckpointIO):
    """Writes a checkpoint under a temporary name and renames it: the file is always whole."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._is_checked = False

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint` to `path`; the first one is checked with `check_plain`."""
        if not self._is_checked:
            check_plain(checkpoint)
            self._is_checked = True
        place = self._inside(path)
        make_folder(place.parent, within=self.folder.path)
        write_atomic(place, sealed(checkpoint), within=self.folder.path)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove `path`, which a stranger's checkpoint may name, if it is in the run folder."""
        remove(self._inside(path), within=self.folder.path)

    def _inside(self, path: str | Path) -> Path:
        """`path`, which Lightning may have resolved, as a path below the run folder.

        Raises:
            NotInside: if it is not below it.
        """
        for folder in (self.folder.path, self.folder.path.resolve()):
            if Path(path).is_relative_to(folder):
                return self.folder.path / Path(path).relative_to(folder)
        raise NotInside(Path(path), f"outside of {self.folder.path}")

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Plain values and weights only, whatever else a stranger put there."""
        return read_checkpoint(Path(path))
