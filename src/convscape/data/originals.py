"""The files of MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100 as their authors published them.

They are found where torchvision keeps them, downloaded if missing, checked, and read without ever
unpacking an archive or running code from a file.
"""

import gzip
import math
import pickle
import posixpath
import struct
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from convscape.data.cache import DataError
from convscape.data.downloads import digest_of, fetch

MAX_MEMBER_BYTES = 2**29  # the largest batch of CIFAR is a third of this

# what reading damaged compressed bytes raises
BROKEN_ARCHIVE = (OSError, EOFError, zlib.error, tarfile.TarError)
# what unpickling garbled bytes raises: almost anything, since a pickle is a list of instructions
BROKEN_PICKLE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)


@dataclass(frozen=True)
class Published:
    """Where to download the files of a set, and the md5 or sha256 of each by file name."""

    mirrors: Sequence[str]  # URL prefixes
    digests: Mapping[str, str]
    classes: Sequence[str] = ()  # if the files themselves do not name them


@dataclass(frozen=True)
class Arrays:
    """A data set as published: uint8 images (N, C, H, W) and labels (N,)."""

    classes: tuple[str, ...]
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


@dataclass(frozen=True)
class IdxLayout:
    """Four IDX files, each unpacked or as .gz: MNIST and sets that use its format.

    torchvision has the checksums of the .gz files only; `unpacked_digests` has those of their
    contents (`gunzip -k *.gz; md5sum *-ubyte; sha256sum *-ubyte`).
    """

    folder: str
    torchvision_class: str
    unpacked_digests: tuple[str, ...]
    shape: tuple[int, int, int] = (1, 28, 28)
    num_classes: int = 10
    files: tuple[str, ...] = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )

    def find(self, root: Path) -> tuple[list[Path], list[Path]]:
        """Files that are there, and those to fetch."""
        found, missing = [], []
        for name in self.files:
            unpacked, packed = root / self.folder / name, root / self.folder / f"{name}.gz"
            if unpacked.exists() or packed.exists():
                found.append(unpacked if unpacked.exists() else packed)
            else:
                missing.append(packed)
        return found, missing

    def published(self) -> Published:
        """What torchvision states about the set."""
        idx = _of_torchvision(self.torchvision_class)
        unpacked = zip(self.files, self.unpacked_digests, strict=True)
        classes = [label.partition(" - ")[0] for label in idx.classes]  # "0 - zero"
        return Published(idx.mirrors, dict(idx.resources) | dict(unpacked), classes)

    def read(self, paths: Sequence[Path], published: Published) -> Arrays:
        arrays = [
            read_idx(path, num_axes, published.digests)
            for path, num_axes in zip(paths, (3, 1, 3, 1), strict=True)
        ]
        train_images, train_labels, test_images, test_labels = arrays
        return Arrays(
            classes=tuple(published.classes),
            train_images=train_images[:, None],  # (N, 1, H, W)
            train_labels=train_labels,
            test_images=test_images[:, None],
            test_labels=test_labels,
        )


@dataclass(frozen=True)
class CifarLayout:
    """Pickled batches in a folder or in one .tar.gz."""

    folder: str
    torchvision_class: str
    archive: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    classes_key: str
    labels_key: str
    num_classes: int
    shape: tuple[int, int, int] = (3, 32, 32)

    def find(self, root: Path) -> tuple[list[Path], list[Path]]:
        """Files that are there, and those to fetch."""
        batches = [root / self.folder / name for name in (*self.train, *self.test, self.meta)]
        if all(path.exists() for path in batches):
            return batches, []
        archive = root / self.archive
        return ([archive], []) if archive.exists() else ([], [archive])

    def published(self) -> Published:
        """What torchvision states about the set."""
        cifar = _of_torchvision(self.torchvision_class)
        digests = dict((*cifar.train_list, *cifar.test_list))
        digests |= {cifar.filename: cifar.tgz_md5, cifar.meta["filename"]: cifar.meta["md5"]}
        return Published([cifar.url.removesuffix(cifar.filename)], digests)

    def read(self, paths: Sequence[Path], published: Published) -> Arrays:
        names = (*self.train, *self.test, self.meta)
        if len(paths) == 1:
            members = [f"{self.folder}/{name}" for name in names]
            contents = read_members(paths[0], members, published.digests)
            shown = [f"{paths[0]}/{member}" for member in members]
        else:
            contents = [_content(path) for path in paths]
            shown = [str(path) for path in paths]
        entries = {}
        for name, content, shown_as in zip(names, contents, shown, strict=True):
            _check_digest(content, name, shown_as, published.digests)
            entries[name] = (_unpickled(content, shown_as), shown_as)
        train = [_batch(*entries[name], self.labels_key) for name in self.train]
        test = [_batch(*entries[name], self.labels_key) for name in self.test]
        return Arrays(
            _class_names(*entries[self.meta], self.classes_key),
            *(np.concatenate(parts) for parts in zip(*train, strict=True)),
            *(np.concatenate(parts) for parts in zip(*test, strict=True)),
        )


LAYOUTS: dict[str, IdxLayout | CifarLayout] = {
    "mnist": IdxLayout(
        folder="MNIST/raw",
        torchvision_class="MNIST",
        unpacked_digests=(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    "fashion_mnist": IdxLayout(
        folder="FashionMNIST/raw",
        torchvision_class="FashionMNIST",
        unpacked_digests=(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    "cifar10": CifarLayout(
        folder="cifar-10-batches-py",
        torchvision_class="CIFAR10",
        archive="cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test=("test_batch",),
        meta="batches.meta",
        classes_key="label_names",
        labels_key="labels",
        num_classes=10,
    ),
    "cifar100": CifarLayout(
        folder="cifar-100-python",
        torchvision_class="CIFAR100",
        archive="cifar-100-python.tar.gz",
        train=("train",),
        test=("test",),
        meta="meta",
        classes_key="fine_label_names",
        labels_key="fine_labels",
        num_classes=100,
    ),
}


def published(name: str) -> Published:
    """The facts that torchvision has about a set."""
    return LAYOUTS[name].published()


def _of_torchvision(name: str) -> Any:
    from torchvision import datasets

    return getattr(datasets, name)


def locate(name: str, root: Path, download: bool, source: Published | None) -> list[Path]:
    """The files of a set: from disk, or else downloaded.

    Raises:
        DataError: if some are missing and may not or cannot be downloaded.
    """
    layout = LAYOUTS[name]
    found, missing = layout.find(root)
    if not missing:
        return found
    if not download:
        raise DataError(
            f"{name} is not complete: {', '.join(repr(str(path)) for path in missing)} not found; "
            "copy it there, set data.root (or CONVSCAPE_DATA) to the folder that holds "
            f"{layout.folder!r}, or allow data.download=true"
        )
    source = source or published(name)
    for path in missing:
        fetch(path.name, source.mirrors, path.parent, source.digests[path.name])
    return layout.find(root)[0]


def read_idx(path: Path, num_axes: int, digests: Mapping[str, str]) -> np.ndarray:
    """The uint8 array of an IDX file, unpacked or .gz.

    The format is described at http://yann.lecun.com/exdb/mnist/.

    Raises:
        DataError: if it is truncated, garbled or not such a file.
    """
    content = _content(path)
    if path.suffix == ".gz":
        _check_digest(content, path.name, str(path), digests)
        content = _gunzipped(content, path)
    magic = bytes([0, 0, 0x08, num_axes])  # 0x08: unsigned bytes
    if content[:4] != magic:
        raise _garbage(
            path,
            f"it starts with {content[:4].hex() or 'nothing'}, an IDX file with {magic.hex()}",
        )
    header_bytes = 4 + 4 * num_axes
    if len(content) < header_bytes:
        raise _garbage(path, f"at least {header_bytes} bytes expected, {len(content)} found")
    shape = struct.unpack(f">{num_axes}I", content[4:header_bytes])
    expected_bytes = header_bytes + math.prod(shape)
    if len(content) != expected_bytes:
        raise _garbage(path, f"{expected_bytes:,} bytes expected, {len(content):,} found")
    if path.suffix != ".gz":
        _check_digest(content, path.name, str(path), digests)
    return np.frombuffer(content, dtype=np.uint8, offset=header_bytes).reshape(shape)


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{str(path)!r} is a folder; replace it by the file of this name")
    return path.read_bytes()


def _gunzipped(content: bytes, path: Path) -> bytes:
    try:
        with gzip.open(BytesIO(content)) as file:
            unpacked = file.read(MAX_MEMBER_BYTES + 1)
    except BROKEN_ARCHIVE as error:
        raise _garbage(path, f"it does not unpack: {error}") from error
    if len(unpacked) > MAX_MEMBER_BYTES:
        raise _garbage(path, f"it unpacks to more than {MAX_MEMBER_BYTES:,} bytes")
    return unpacked


def read_members(path: Path, wanted: Sequence[str], digests: Mapping[str, str]) -> list[bytes]:
    """Contents of some members of a .tar.gz, read as a stream without unpacking it on disk.

    Raises:
        DataError: if it is damaged, not the published one, or lacks a member.
    """
    content = _content(path)
    _check_digest(content, path.name, str(path), digests)
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=BytesIO(content), mode="r:gz") as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                file = tar.extractfile(member) if name in wanted and member.isreg() else None
                if file is not None and member.size <= MAX_MEMBER_BYTES:
                    found[name] = file.read()
    except BROKEN_ARCHIVE as error:
        raise _garbage(path, f"it does not unpack: {error}") from error
    for name in wanted:
        if name not in found:
            raise _garbage(path, f"it holds no {name}")
    return [found[name] for name in wanted]


class _ArraysOnly(pickle.Unpickler):
    """Unpickles numbers, strings, lists, dicts and numpy arrays, and nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 stores bytes
            return _latin1
        raise pickle.UnpicklingError(f"it wants to call {module}.{name}, which no data set needs")


def _latin1(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")


def _unpickled(content: bytes, shown_as: str) -> dict[str, Any]:
    try:
        entry = _ArraysOnly(BytesIO(content), encoding="latin1").load()
    except BROKEN_PICKLE as error:
        raise _garbage(shown_as, str(error) or type(error).__name__) from error
    if not isinstance(entry, dict):
        raise _garbage(shown_as, f"a dict expected, {type(entry).__name__} found")
    return entry


def _batch(entry: dict[str, Any], shown_as: str, labels_key: str) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = entry.get("data"), entry.get(labels_key)
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise _garbage(shown_as, "'data' is not a two-dimensional array of bytes")
    if pixels.shape[1] != 3 * 32 * 32:
        raise _garbage(
            shown_as, f"3072 values (3 x 32 x 32) per image expected, {pixels.shape[1]} found"
        )
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _garbage(shown_as, f"{labels_key!r} is not a list of integers")
    if len(labels) != len(pixels):
        raise _garbage(shown_as, f"{len(pixels)} images, but {len(labels)} labels")
    return pixels.reshape(-1, 3, 32, 32), np.array(labels)


def _class_names(entry: dict[str, Any], shown_as: str, key: str) -> tuple[str, ...]:
    names = entry.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _garbage(shown_as, f"{key!r} is not a list of names")
    return tuple(names)


def _check_digest(content: bytes, name: str, shown_as: str, digests: Mapping[str, str]) -> None:
    expected = digests.get(name)
    if expected and digest_of(content, expected) != expected:
        found = digest_of(content, expected)
        raise _garbage(
            shown_as, f"checksum {expected} expected, {found} found ({len(content):,} bytes)"
        )


def _garbage(path: Path | str, why: str) -> DataError:
    return DataError(
        f"{str(path)!r} is damaged or not the published file: {why}; delete it so that it is "
        "fetched again (data.download=true), or copy the original there"
    )
