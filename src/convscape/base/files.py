"""Files in a folder that may be a stranger's: reading is bounded, writing stays in that folder.

Whoever sends a run folder can replace any file or folder in it by a link. `within` is the folder
that the user named; it may be a link itself, but no link below it is followed for writing. Where
the system has descriptors of folders, nothing can be swapped between the check and the write.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import yaml
from filelock import FileLock

from convscape.base.errors import CannotWrite, ConfigError


@contextmanager
def explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(path, error) from None


HALF = ".half"  # the end of a file's name while it is being written
MAX_BYTES = 2**20  # of a text file: a config has about 3,000, a command line at most 2 MiB
MAX_LEVELS = 40  # of nested lists and sections
MAX_DIGITS = 400  # no float has more


class NotInside(ConfigError):
    """A file of a folder leads out of it."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path} is {what}, and nothing is written through it; move it away, or replace it "
            "with a copy of its target"
        )


# Windows has neither; there each step first checks for a link
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_HAS_DESCRIPTORS = bool(_NO_FOLLOW) and os.open in os.supports_dir_fd
# what O_NOFOLLOW answers for a link: Linux and macOS, O_DIRECTORY on Linux, FreeBSD
_IS_LINK = (errno.ELOOP, errno.ENOTDIR, errno.EMLINK)


@dataclass(frozen=True)
class _Folder:
    """A folder that was reached through no link, by its descriptor where the system has them."""

    path: Path
    descriptor: int | None

    def name(self, name: str) -> str:
        """The name of a file in it, for functions that also get the descriptor."""
        return name if self.descriptor is not None else str(self.path / name)


@contextmanager
def _folder(path: Path, within: Path) -> Iterator[_Folder]:
    """The folder `path`, which is `within` or below it."""
    names = _below(path, within)
    if not _HAS_DESCRIPTORS:
        for place in (within.joinpath(*names[: n + 1]) for n in range(len(names))):
            if _is_link(place):
                raise NotInside(place, "a link")
            if place.exists() and not place.is_dir():
                raise NotInside(place, "no folder")
        yield _Folder(path, None)
        return
    descriptor = os.open(within, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number, name in enumerate(names, 1):
            flags = os.O_RDONLY | os.O_DIRECTORY | _NO_FOLLOW
            try:
                inner = os.open(name, flags, dir_fd=descriptor)
            except OSError as error:
                if error.errno in _IS_LINK:
                    place = within.joinpath(*names[:number])
                    raise NotInside(place, "a link" if _is_link(place) else "no folder") from None
                raise
            os.close(descriptor)
            descriptor = inner
        yield _Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _below(path: Path, within: Path) -> tuple[str, ...]:
    names = path.relative_to(within).parts
    if ".." in names:
        raise NotInside(path, f"outside of {within}")
    return names


def _is_link(path: Path) -> bool:
    return path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path)


def make_folder(path: Path, *, within: Path) -> None:
    """Make the folder `path`, and `within` if it is missing.

    Raises:
        NotInside: if there is a link below `within` on the way.
        OSError: if it cannot be made.
    """
    within.mkdir(parents=True, exist_ok=True)
    place = within
    for name in _below(path, within):
        with _folder(place, within) as folder, suppress(FileExistsError):
            os.mkdir(folder.name(name), dir_fd=folder.descriptor)
        place /= name
    with _folder(path, within):
        pass  # checks that whatever was there already is a folder


def write_atomic(path: Path, content: str | bytes | memoryview, *, within: Path) -> None:
    """Write a file under a temporary name and rename it, so no one sees half of it.

    It is on the disk before it gets its name: after a power cut either the old or the new file is
    there. A link of that name is replaced, and its target is left alone.

    Raises:
        NotInside: if a folder on the way is a link.
        OSError: if it cannot be written.
    """
    data = content.encode(errors="replace") if isinstance(content, str) else content
    temporary = f".{path.name}.{secrets.token_hex(4)}{HALF}"
    with _folder(path.parent, within) as folder:
        descriptor = _opened(folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            old, new, place = folder.name(temporary), folder.name(path.name), folder.descriptor
            _patiently(path, lambda: os.replace(old, new, src_dir_fd=place, dst_dir_fd=place))
        except BaseException:
            with suppress(OSError):
                os.unlink(folder.name(temporary), dir_fd=folder.descriptor)
            raise


# ERROR_ACCESS_DENIED, ERROR_SHARING_VIOLATION and ERROR_LOCK_VIOLATION of winerror.h
_IN_USE = (5, 32, 33)
_PAUSES_S = (0.01, 0.03, 0.1, 0.3, 0.6)  # a second in all


def _patiently(path: Path, step: Callable[[], Any]) -> None:
    """Call `step` with `path`, which on Windows fails while another program has it open.

    A virus scanner or an indexer lets go of a file within a second; other systems do not lock it.

    Raises:
        OSError: if the file is still open, or for any other reason.
    """
    for pause in (*_PAUSES_S, None):
        try:
            return step()
        except OSError as error:
            if getattr(error, "winerror", None) not in _IN_USE:
                raise
            if pause is None:
                open_file = error.filename or path
                why = f"{open_file} is open in another program, or not yours; close it"
                raise PermissionError(errno.EACCES, why) from None
            time.sleep(pause)


def replace(old: Path, new: Path, *, within: Path) -> None:
    """Give a file or folder the name `new`; a file of that name is replaced, a folder is not.

    Both are in the same folder.

    Raises:
        NotInside: if a folder on the way is a link.
        OSError: if it cannot be renamed.
    """
    assert old.parent == new.parent
    with _folder(new.parent, within) as folder:
        place = folder.descriptor
        names = folder.name(old.name), folder.name(new.name)
        _patiently(new, lambda: os.replace(*names, src_dir_fd=place, dst_dir_fd=place))


def remove_folder(path: Path, *, within: Path) -> None:
    """Remove a folder and everything in it, if it exists.

    Raises:
        NotInside: if it, or a folder on the way, is a link.
        OSError: if it cannot be removed.
    """
    with suppress(FileNotFoundError), _folder(path.parent, within) as folder:
        if _is_link(path):
            raise NotInside(path, "a link")
        name, place = folder.name(path.name), folder.descriptor
        _patiently(path, lambda: shutil.rmtree(name, dir_fd=place))


def append(path: Path, *, within: Path, is_new: bool = False) -> BinaryIO:
    """The file `path`, opened for appending, unbuffered; created if it is missing.

    - `is_new`: the file must not exist yet.

    Raises:
        NotInside: if it is a link, or a hard link to a file that may be anywhere.
        OSError: if it cannot be opened.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (os.O_EXCL if is_new else 0)
    with _folder(path.parent, within) as folder:
        return os.fdopen(_opened(folder, path.name, flags), "ab", buffering=0)


def cut(path: Path, size: int, *, within: Path) -> None:
    """Keep the first `size` bytes of a file."""
    with _folder(path.parent, within) as folder:
        descriptor = _opened(folder, path.name, os.O_WRONLY)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        file.truncate(size)


def refuse_links(*paths: Path, within: Path) -> None:
    """Refuse links among files that a library is about to write by name; they need not exist.

    Raises:
        NotInside: if one of them is a link, or a hard link to a file that may be anywhere.
    """
    for path in paths:
        with _folder(path.parent, within) as folder, suppress(FileNotFoundError):
            os.close(_opened(folder, path.name, os.O_WRONLY))


def refuse_links_below(folder: Path, *, within: Path) -> None:
    """Refuse links in a `folder` where a library will write any files; see `refuse_links`."""
    for place, folders, names in os.walk(folder):
        for name in folders:
            if _is_link(Path(place, name)):
                raise NotInside(Path(place, name), "a link")
        refuse_links(*(Path(place, name) for name in names), within=within)


def remove(path: Path, *, within: Path) -> None:
    """Remove a file, or a link but not its target, if it exists."""
    with _folder(path.parent, within) as folder, suppress(FileNotFoundError):
        name, place = folder.name(path.name), folder.descriptor
        _patiently(path, lambda: os.unlink(name, dir_fd=place))


def lock(path: Path, *, within: Path) -> FileLock:
    """A lock on the file `path`, for `acquire` or `with`."""
    make_folder(path.parent, within=within)
    append(path, within=within).close()  # refuses a link
    return FileLock(path)


def _opened(folder: _Folder, name: str, flags: int) -> int:
    """A descriptor of a regular file that has no hard links."""
    flags |= _NO_FOLLOW | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe that nobody reads would wait forever
    path = folder.path / name
    if not _NO_FOLLOW and _is_link(path):
        raise NotInside(path, "a link")
    try:
        descriptor = os.open(folder.name(name), flags, 0o666, dir_fd=folder.descriptor)
    except OSError as error:
        if error.errno in (*_IS_LINK, errno.EISDIR, errno.ENXIO):
            raise NotInside(path, "a link" if _is_link(path) else "no plain file") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        is_plain = stat.S_ISREG(status.st_mode)
        raise NotInside(path, "a hard link" if is_plain else "no plain file")
    return descriptor


def changed(file: Path) -> int:
    """When a file was last written, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return 0


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a file of at most `most` bytes.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is larger, or a device or a pipe.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))

    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is not a plain file")
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most / 2**20:g} MiB")
    return content


# PyYAML's C versions are ten and four times as fast, if it was built with them
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def as_yaml(values: Any) -> str:
    """Plain values as YAML, with the keys in their given order."""
    return str(yaml.dump(values, Dumper=_DUMPER, sort_keys=False))


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file.

    Raises:
        OSError: if it cannot be read.
        ValueError: in one line, if it is not YAML of plain values, is too large or too deep, or
            has aliases, with which a few bytes can stand for any number of values.
    """
    text = read_bytes(path).decode()
    try:
        _check_events(text)
        return yaml.load(text, _LOADER)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(reason if len(reason) <= 300 else f"{reason[:297]}...") from None


def _check_events(text: str) -> None:
    levels = 0
    for event in yaml.parse(text, _LOADER):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ValueError("it has an alias or an anchor (& or *); write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            levels += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            levels -= 1
        elif isinstance(event, yaml.ScalarEvent) and _is_endless_number(event):
            raise ValueError(f"a number in it has more than {MAX_DIGITS} digits")
        if levels > MAX_LEVELS:
            raise ValueError(f"it has more than {MAX_LEVELS} levels")


def plain_json(content: bytes) -> Any:
    """The values in the bytes of a JSON file.

    Raises:
        ValueError: if it is not JSON, or too deep.
    """
    try:
        document = json.loads(content)
    except RecursionError:
        raise ValueError(f"it has more than {MAX_LEVELS} levels") from None
    if _is_deeper(document, MAX_LEVELS):
        raise ValueError(f"it has more than {MAX_LEVELS} levels")
    return document


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return not levels or any(_is_deeper(each, levels - 1) for each in inside)


def _is_endless_number(event: yaml.ScalarEvent) -> bool:
    """A number that takes too long to read: YAML's 1:30:00 is 5400, with any number of parts."""
    may_be_number = event.implicit[0] or event.tag is not None  # the tag may be !!int
    is_long = may_be_number and len(event.value) > MAX_DIGITS
    # Python reads binary and hexadecimal numbers of any length, and cannot show them
    return is_long and re.fullmatch(r"[-+\d_:.]+|[-+]?0[bx][\da-fA-F_]+", event.value) is not None
