"""An image set as four arrays on disk: written once, completely, then checked and memory-mapped.

Every source ends here: iterables of chunks go in, an `ImageSet` comes out, larger than memory if
need be.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from convscape.base import files
from convscape.base.errors import ConfigError, not_written
from convscape.base.values import counted
from convscape.data.moments import Moments
from convscape.data.progress import SLOW_S, Notes, Restartable, progress_when_slow
from convscape.data.stretch import Stretch

log = logging.getLogger(__name__)

CHECKED_BYTES = 2**30  # larger caches: only their sizes, since a CRC reads everything
FILES = {"train_images.npy", "train_labels.npy", "test_images.npy", "test_labels.npy"}
VAL_FILES = {"val_images.npy", "val_labels.npy"}  # if there is such a split
# uint8 or float32 (n, C, H, W), of 0 to 255, and int64 (n,)
Chunks = Iterable[tuple[np.ndarray, np.ndarray]]


class DataError(ConfigError):
    """The user's data are missing, damaged or make no sense; the message says what to do."""


class Scene(NamedTuple):
    """How training images are placed on a canvas, differently in each epoch.

    - `objects`: the images (N, C, h, w) to place, in the order of the train images.
    - `side`: of the canvas, in pixels.
    - `num_clutter`: pieces of other objects on each canvas, as in `variants.on_canvas`.
    - `permute`: seed of the permutation of the canvas's pixels, if there is one.
    """

    objects: np.ndarray
    side: int
    num_clutter: int
    permute: int | None


@dataclass(frozen=True)
class ImageSet:
    """A classification data set: uint8 images (N, C, H, W) and int64 labels (N,), in two splits.

    In three if it has its own split for validation. `scene` is set if the train images are one
    draw of many. `stretch` is set if the given values were not bytes; then images are float32.
    """

    name: str
    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    mean: tuple[float, ...]  # per channel, over the train images scaled to 0..1
    std: tuple[float, ...]
    checksum: str  # of all arrays' contents
    val_images: np.ndarray | None = None
    val_labels: np.ndarray | None = None
    scene: Scene | None = None
    stretch: Stretch | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    def normalization(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
    ) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, of pixels scaled to 0..1.

        None means that of the train images; a single number applies to all channels.

        Raises:
            ConfigError: if there is not one for each channel.
        """
        # a constant channel has no deviation to divide by
        chosen = (
            list(self.mean if mean is None else mean),
            list(std) if std is not None else [s or 1.0 for s in self.std],
        )
        channels = self.image_shape[0]
        for values in chosen:
            if len(values) == 1:  # of grey images turned into colour
                values *= channels
        for key, values in zip(("mean", "std"), chosen, strict=True):
            if len(values) != channels:
                raise ConfigError(
                    f"data.{key}={values} has {counted(len(values), 'entry', 'entries')} for "
                    f"{counted(channels, 'channel')}; allowed: one for each, one for all, or "
                    "null to compute them"
                )
        return chosen

    def stretched_by(self, stretch: Stretch | None) -> ImageSet:
        """The same values on the pixel scale of another `Stretch`; bytes stay as they are.

        Mean, standard deviation and checksum stay.
        """
        own = self.stretch
        if own is None or stretch is None or own == stretch:
            return self
        val = self.val_images
        return replace(
            self,
            train_images=stretch.pixels(own.values(self.train_images)),
            test_images=stretch.pixels(own.values(self.test_images)),
            val_images=None if val is None else stretch.pixels(own.values(val)),
            stretch=stretch,
        )


class Origin(NamedTuple):
    """A folder that a cache is built from, which part of it is read, and a hash of its state."""

    folder: str
    part: str
    state: str


@dataclass
class Contents:
    """What a cache is built from. `skipped` is filled while the chunks are read.

    - `stretch`: how its images became float32, if they did.
    - `origin`: the folder, if it can continue after an interruption.
    """

    classes: tuple[str, ...]
    train: Chunks
    test: Chunks
    num_images: int
    val: Chunks | None = None
    skipped: list[str] = field(default_factory=list)
    stretch: Stretch | None = None
    origin: Origin | None = None

    @property
    def splits(self) -> dict[str, Chunks]:
        """The splits, in the order that they are written in."""
        val = {} if self.val is None else {"val": self.val}
        return {"train": self.train, "test": self.test, **val}

    @property
    def is_restartable(self) -> bool:
        """Whether it can continue after an interruption."""
        return all(isinstance(chunks, Restartable) for chunks in self.splits.values())


class _Damaged(Exception):
    """A cache that differs from what was written."""


def load_or_build(folder: Path, name: str, read: Callable[[], Contents]) -> ImageSet:
    """The image set cached in `folder`; built from `read()` if it is missing or damaged.

    Several processes may ask at the same time: one builds, the others wait.

    Raises:
        DataError: if the cache can be neither read nor written.
    """
    try:
        return _load(folder, name)
    except (FileNotFoundError, _Damaged):
        pass  # checked again below, when no other process is building it
    with _only_one(folder):
        try:
            return _load(folder, name)
        except FileNotFoundError:
            pass
        except _Damaged as error:
            log.warning("the cache %s is damaged (%s): building it again", folder, error)
        contents = read()
        try:
            _build(folder, name, contents)
        except OSError as error:
            raise _cannot("write", folder, error) from error
        return _load(folder, name)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(_lock_of(folder))
        try:
            lock.acquire(timeout=SLOW_S)
        except Timeout:
            log.info("waiting for another process to build %s", folder)
            lock.acquire()
    except OSError as error:
        raise _cannot("write", folder, error) from error
    try:
        yield
    finally:
        lock.release()


def _lock_of(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.lock"


def _cannot(verb: str, folder: Path, error: OSError) -> DataError:
    way_out = "set data.cache_dir (or CONVSCAPE_CACHE) to another folder"
    return DataError(not_written(f"cannot {verb} the cache {str(folder)!r}", error, way_out))


# Writing


def _build(folder: Path, name: str, contents: Contents) -> None:
    unfinished = folder.with_name(f".{folder.name}{_UNFINISHED}")
    if not contents.is_restartable:
        files.remove_folder(unfinished, within=folder.parent)  # left by a process that was killed
    files.make_folder(unfinished, within=folder.parent)
    files.refuse_links_below(unfinished, within=folder.parent)  # it may be a stranger's
    if contents.origin is not None:
        _remove_outdated(folder.parent, contents.origin)
        text = json.dumps(contents.origin)
        files.write_atomic(unfinished / _ORIGIN, text, within=folder.parent)
    is_kept = False
    try:
        with progress_when_slow(f"preparing {name}", contents.num_images) as advance:
            train, *others = [
                _write_split(unfinished, split, contents, advance) for split in contents.splits
            ]
        _warn_of_skipped(contents, train.labels_seen)
        mean, std = train.moments.mean_std()
        digests = b"".join(split.digest for split in (train, *others))
        if contents.stretch is not None:  # later values are converted in the same way
            digests += repr(contents.stretch).encode()
        meta = {
            "name": name,
            "classes": contents.classes,
            "mean": mean,
            "std": std,
            "checksum": hashlib.sha256(digests).hexdigest()[:12],
            "skipped": contents.skipped,
            "stretch": contents.stretch,
            "files": {k: v for split in (train, *others) for k, v in split.files.items()},
        }
        sealed = {"crc32": _crc32_of(meta), "meta": meta}
        (unfinished / "meta.json").write_text(json.dumps(sealed, indent=1), encoding="ascii")
        for split in contents.splits:
            Notes(unfinished / f"{split}.notes").remove()
        files.remove(unfinished / _ORIGIN, within=folder.parent)
        files.remove_folder(folder, within=folder.parent)
        files.replace(unfinished, folder, within=folder.parent)
    except (KeyboardInterrupt, SystemExit, OSError):  # such as a full disk
        is_kept = contents.is_restartable
        if is_kept:
            log.info("what was prepared is kept in %s; the same command continues it", unfinished)
        raise
    finally:
        if not is_kept:
            with suppress(OSError):  # the earlier error matters more
                files.remove_folder(unfinished, within=folder.parent)


_UNFINISHED = ".unfinished"  # ends the name of a folder that is being built
_ORIGIN = "origin.json"  # in such a folder


def _remove_outdated(place: Path, origin: Origin) -> None:
    """Remove what was prepared before the folder changed: nothing would ever continue it."""
    from filelock import FileLock, Timeout

    for note in place.glob(f".*{_UNFINISHED}/{_ORIGIN}"):
        unfinished = note.parent
        try:
            before = Origin(*json.loads(files.read_bytes(note)))
            if before[:2] != origin[:2] or before.state == origin.state:
                continue
            name = unfinished.name.removeprefix(".").removesuffix(_UNFINISHED)
            with FileLock(_lock_of(place / name), timeout=0):
                files.remove_folder(unfinished, within=place)
        except (OSError, Timeout, ValueError, TypeError):  # damaged, or a process is building it
            continue
        log.info("removed %s, which was begun before %s changed", unfinished, origin.folder)


@dataclass
class _Written:
    """What is known about a split once it is on disk."""

    files: dict[str, dict[str, Any]]
    digest: bytes
    labels_seen: set[int]
    moments: Moments


def _write_split(
    folder: Path, split: str, contents: Contents, advance: Callable[[int], None]
) -> _Written:
    sha256, crc32, count = hashlib.sha256(), 0, 0
    moments: Moments | None = None
    shape: tuple[int, ...] = ()
    dtype = np.dtype(np.uint8)
    all_labels = []
    images_path, notes = folder / f"{split}_images.npy", Notes(folder / f"{split}.notes")
    is_begun = notes.are_there and images_path.exists()
    with open(images_path, "r+b" if is_begun else "w+b") as file:
        chunks = contents.splits[split]
        found = (
            notes.continued(chunks, file, contents.skipped)
            if isinstance(chunks, Restartable)
            else ((chunk, True) for chunk in chunks)
        )
        for (images, labels), is_missing in found:
            if moments is None:
                shape, dtype, moments = images.shape[1:], images.dtype, Moments(images[0])
                if is_missing:
                    _write_header(file, (0, *shape), dtype)  # their number is only known at the end
            assert images.dtype == dtype
            assert dtype in (np.uint8, np.float32)
            assert images.shape == (len(labels), *shape)
            images = np.ascontiguousarray(images)
            if is_missing:
                file.write(images.data)
            sha256.update(images.data)
            crc32 = zlib.crc32(images.data, crc32)
            count += len(labels)
            all_labels.append(labels)
            moments.add(images)
            advance(len(labels))
        if moments is None:
            raise DataError(f"the {split} split holds no image that can be read")
        file.seek(0)
        _write_header(file, (count, *shape), dtype)
        file.flush()
        os.fsync(file.fileno())  # on the disk before the rename that declares it complete
    labels = np.concatenate(all_labels).astype(np.int64)
    sha256.update(labels.data)
    labels_path = folder / f"{split}_labels.npy"
    np.save(labels_path, labels)
    facts = {
        images_path.name: {"shape": [count, *shape], "dtype": dtype.name, "crc32": crc32},
        labels_path.name: {"shape": [count], "dtype": "int64", "crc32": zlib.crc32(labels.data)},
    }
    for path in (images_path, labels_path):
        facts[path.name]["bytes"] = path.stat().st_size
    return _Written(facts, sha256.digest(), set(np.unique(labels).tolist()), moments)


def _write_header(file: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    # numpy pads the header so that the first axis can grow in place
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _warn_of_skipped(contents: Contents, labels_seen: set[int]) -> None:
    if not contents.skipped:
        return
    names = ", ".join(repr(name) for name in contents.skipped[:10])
    more = f" and {len(contents.skipped) - 10} more" if len(contents.skipped) > 10 else ""
    log.warning("left out %d unreadable pictures: %s%s", len(contents.skipped), names, more)
    for label, class_name in enumerate(contents.classes):
        if label not in labels_seen:
            raise DataError(
                f"not one train picture of class {class_name!r} can be read; "
                "repair them or remove the class"
            )


# Reading


def _load(folder: Path, name: str) -> ImageSet:
    """Open what `_build` wrote.

    Raises:
        FileNotFoundError: if there is no cache.
        _Damaged: if it differs from what was written.
        DataError: if it may not be read.
    """
    try:
        os.stat(folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _cannot("read", folder, error) from error
    try:
        sealed = json.loads((folder / "meta.json").read_bytes())
        meta = sealed["meta"]
        if set(meta["files"]) not in (FILES, FILES | VAL_FILES):
            raise _Damaged("meta.json names other files")
        if sealed["crc32"] != _crc32_of(meta):
            raise _Damaged("meta.json was changed")
        check = sum(facts["bytes"] for facts in meta["files"].values()) < CHECKED_BYTES
        arrays: dict[str, Any] = {
            file.removesuffix(".npy"): _open_array(folder / file, facts, check)
            for file, facts in meta["files"].items()
        }
    except PermissionError as error:
        raise _cannot("read", folder, error) from error
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged(str(error) or type(error).__name__) from error
    return ImageSet(
        name=name,
        classes=tuple(meta["classes"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        checksum=meta["checksum"],
        stretch=None if meta.get("stretch") is None else Stretch(*meta["stretch"]),
        **arrays,
    )


def _open_array(path: Path, facts: dict[str, Any], check: bool) -> np.ndarray:
    # a map that extends beyond the end of its file kills the process, so sizes are compared first
    if path.stat().st_size != facts["bytes"]:
        raise _Damaged(f"{path.name} should have {facts['bytes']:,} bytes")
    # copy-on-write: torch.from_numpy wants a writable array, and the file stays as it is
    array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    if list(array.shape) != facts["shape"] or array.dtype != facts["dtype"]:
        raise _Damaged(f"the header of {path.name} was changed")
    if check and zlib.crc32(array.data) != facts["crc32"]:
        raise _Damaged(f"the contents of {path.name} were changed")
    return array


def _crc32_of(meta: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(meta, sort_keys=True).encode())
