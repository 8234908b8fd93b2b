"""Downloads one published file: completely and with the published checksum, or not at all."""

import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from convscape.base import files
from convscape.base.errors import not_written
from convscape.data.cache import DataError
from convscape.data.progress import progress_when_slow

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0  # without one byte
SLOWEST_BYTES_PER_S = 1000  # on average: a very slow server never goes silent
PAUSE_S = 1.0  # before the second attempt; doubled before the third
ATTEMPTS = 3
MAX_BYTES = 2**30  # far more than any published file: stops a server that never ends
PASSING_CODES = (408, 429, 500, 502, 503, 504)  # worth another attempt


class _Refused(Exception):
    """A mirror that will not deliver: retrying is useless."""


class _Passing(Exception):
    """A mirror that may deliver on another attempt."""


def digest_of(content: bytes, like: str) -> str:
    """Hex digest of `content` with the algorithm of `like`: md5 or sha256."""
    return hashlib.new({32: "md5", 64: "sha256"}[len(like)], content).hexdigest()


def fetch(file_name: str, mirrors: Sequence[str], into: Path, digest: str) -> Path:
    """Path of `into / file_name`, downloaded from the first mirror (URL prefix) that delivers it.

    It gets its name only if its md5 or sha256 is `digest`. Several processes may ask at the same
    time: one downloads.

    Raises:
        DataError: if no mirror delivers; says why for each, and where to put the file by hand.
    """
    from filelock import FileLock

    path = into / file_name
    try:
        into.mkdir(parents=True, exist_ok=True)
        with FileLock(into / f".{file_name}.lock"):
            if not path.exists():  # another process may have been faster
                _fetch_from_any(file_name, mirrors, path, digest)
    except OSError as error:
        way_out = "set data.root (or CONVSCAPE_DATA) to another folder"
        raise DataError(
            not_written(f"cannot download into {str(into)!r}", error, way_out)
        ) from error
    return path


def _fetch_from_any(file_name: str, mirrors: Sequence[str], path: Path, digest: str) -> None:
    open_mirrors = list(mirrors)
    problems = {}
    for attempt in range(ATTEMPTS):
        if attempt and open_mirrors:
            time.sleep(PAUSE_S * 2 ** (attempt - 1))
        for mirror in list(open_mirrors):
            try:
                content = _read_url(f"{mirror}{file_name}", digest)
            except _Refused as error:
                open_mirrors.remove(mirror)
                problems[mirror] = str(error)
            except _Passing as error:
                problems[mirror] = str(error)
            else:
                unfinished = path.with_name(f".{file_name}.unfinished")
                unfinished.write_bytes(content)
                files.replace(unfinished, path, within=path.parent)
                return
    reasons = "; ".join(f"{urlsplit(mirror).netloc}: {why}" for mirror, why in problems.items())
    raise DataError(
        f"could not download {file_name} ({reasons}); check the network and try again, "
        f"or put the file at {str(path)!r} by hand"
    )


def _read_url(url: str, digest: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "convscape"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            length = int(response.headers.get("Content-Length") or 0)
            log.info("downloading %s (%s bytes)", url, f"{length:,}" if length else "unknown")
            with progress_when_slow("downloading " + url.rpartition("/")[2], length) as advance:
                content = _read_all(response, advance)
    except urllib.error.HTTPError as error:
        kind = _Passing if error.code in PASSING_CODES else _Refused
        raise kind(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _Refused(f"no connection ({error.reason})") from error
    except TimeoutError as error:
        raise _Passing(f"the server was silent for {TIMEOUT_S:g} s") from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise _Passing(f"the connection broke ({error})") from error
    except ValueError as error:
        raise _Refused(str(error)) from error
    if len(content) < length:
        raise _Passing(f"the transfer stopped after {len(content):,} of {length:,} bytes")
    if digest_of(content, digest) != digest:
        if content.lstrip()[:1] == b"<":
            raise _Refused("it sent a web page instead of the file (a login page or a proxy?)")
        raise _Refused(
            f"the {len(content):,} bytes it sent are not the published file "
            f"(checksum {digest} expected, {digest_of(content, digest)} found)"
        )
    return content


def _read_all(response: http.client.HTTPResponse, advance: Callable[[int], None]) -> bytes:
    content = bytearray()
    started = time.monotonic()
    while block := response.read1(2**18):
        content += block
        seconds = time.monotonic() - started
        if seconds > TIMEOUT_S and len(content) < seconds * SLOWEST_BYTES_PER_S:
            raise _Passing(f"the server sent only {len(content):,} bytes in {seconds:.0f} s")
        advance(len(block))
        if len(content) > MAX_BYTES:
            raise _Refused(f"it sent more than {MAX_BYTES:,} bytes")
    return bytes(content)
