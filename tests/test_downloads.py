import contextlib
import gzip
import hashlib
import multiprocessing
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from convscape.data import downloads
from convscape.data.cache import DataError
from convscape.data.datasets import load_images
from convscape.data.downloads import fetch
from convscape.data.originals import Published

CONTENT = np.random.default_rng(0).bytes(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """A server on this machine. `server.answers` lists what it does, request by request."""
    monkeypatch.setattr(downloads, "PAUSE_S", 0.01)
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.3)
    released = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests.append(self.path)
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, int):
                self.send_error(answer)
                return
            self.send_response(200)
            content = {"html": b"<!DOCTYPE html><p>log in", "wrong": CONTENT[::-1]}.get(
                answer, self.server.files.get(self.path.rpartition("/")[2], CONTENT)
            )
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if answer == "trickle":
                with contextlib.suppress(OSError):  # until the other side has had enough
                    while not released.wait(0.05):
                        self.wfile.write(b"x")
                return
            self.wfile.write(content[:5000] if answer in ("half", "hang") else content)
            if answer == "hang":
                self.wfile.flush()
                released.wait(10)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests, server.answers, server.files = [], ["whole"], {}
        server.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        released.set()
        server.shutdown()


def files_in(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_whole_file_is_stored(server, tmp_path):
    path = fetch("data.gz", [server.url], tmp_path / "new", MD5)
    assert path.read_bytes() == CONTENT
    assert files_in(tmp_path / "new") == ["data.gz"]


def test_sha256_counts_as_well(server, tmp_path):
    fetch("data.gz", [server.url], tmp_path, hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.parametrize("trouble", ["half", "hang", 503, 429])
def test_passing_trouble_is_retried(server, tmp_path, trouble):
    server.answers = [trouble, trouble, "whole"]
    assert fetch("data.gz", [server.url], tmp_path, MD5).read_bytes() == CONTENT
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "reason", "num_requests"),
    [
        ("half", "the transfer stopped after 5,000 of 100,000 bytes", 3),
        ("hang", "the server was silent for 0.3 s", 3),
        ("trickle", r"the server sent only \d+ bytes in 0 s", 3),
        (503, "the server answered 503", 3),
        (403, "the server answered 403", 1),
        (404, "the server answered 404", 1),
        ("html", "a web page instead of the file", 1),
        ("wrong", f"checksum {MD5} expected", 1),
    ],
)
def test_lasting_trouble_is_explained_and_nothing_kept(
    server, tmp_path, trouble, reason, num_requests
):
    server.answers = [trouble]
    with pytest.raises(DataError, match=rf"could not download data\.gz \(.*{reason}.*by hand"):
        fetch("data.gz", [server.url], tmp_path, MD5)
    assert len(server.requests) == num_requests
    assert files_in(tmp_path) == []


def test_the_second_mirror_is_asked_when_the_first_refuses(server, tmp_path):
    server.answers = [404, "whole"]
    fetch("data.gz", [server.url + "first/", server.url + "second/"], tmp_path, MD5)
    assert server.requests == ["/first/data.gz", "/second/data.gz"]


def test_without_a_network_it_ends_at_once(tmp_path, monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(DataError, match="no connection"):
        fetch("data.gz", ["http://127.0.0.1:1/", "http://mirror.invalid/"], tmp_path, MD5)
    assert sum(pauses) < 5


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot download into '.*file.*data\.root"):
        fetch("data.gz", [server.url], tmp_path / "file" / "raw", MD5)


def test_of_many_at_once_one_downloads(server, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        ways = [pool.submit(fetch, "data.gz", [server.url], tmp_path, MD5) for _ in range(4)]
    assert {way.result().read_bytes() for way in ways} == {CONTENT}
    assert len(server.requests) == 1


@pytest.fixture
def small_mnist(server):
    """Thirty images on the server, and where they are to be had."""
    shapes = {
        "train-images-idx3-ubyte": (20, 28, 28),
        "train-labels-idx1-ubyte": (20,),
        "t10k-images-idx3-ubyte": (10, 28, 28),
        "t10k-labels-idx1-ubyte": (10,),
    }
    for name, shape in shapes.items():
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
        server.files[f"{name}.gz"] = gzip.compress(header + bytes(int(np.prod(shape))))
    digests = {name: hashlib.md5(content).hexdigest() for name, content in server.files.items()}
    return Published(mirrors=[server.url], digests=digests, classes=tuple("0123456789"))


def test_a_data_set_is_fetched_where_torchvision_keeps_it(server, small_mnist, tmp_path):
    where = {"root": tmp_path / "data", "cache_dir": tmp_path / "cache", "published": small_mnist}
    assert len(load_images("mnist", **where).train_labels) == 20
    assert files_in(tmp_path / "data" / "MNIST" / "raw") == sorted(server.files)
    load_images("mnist", **where)
    assert len(server.requests) == 4


def _fetched_and_prepared(folder, published):
    where = {"root": folder / "data", "cache_dir": folder / "cache", "published": published}
    return load_images("mnist", **where).checksum


def test_four_processes_at_once_fetch_and_prepare_a_set_once(server, small_mnist, tmp_path):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        checksums = pool.starmap(_fetched_and_prepared, [(tmp_path, small_mnist)] * 4)
    assert len(set(checksums)) == 1
    assert sorted(server.requests) == sorted(f"/{name}" for name in server.files)
    assert files_in(tmp_path / "data" / "MNIST" / "raw") == sorted(server.files)
    assert len(list((tmp_path / "cache").glob("mnist-*/"))) == 1
