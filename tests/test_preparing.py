"""Preparing a data set: on all cores, interrupted and continued, and where there are no locks."""

import errno
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image, ImageFile

from convscape.base.errors import ConfigError
from convscape.data import decoding, folders, progress
from convscape.data.cache import DataError
from convscape.data.datasets import load_images
from tests.conftest import wait_for

NUM_A_CHUNK = 16


@pytest.fixture
def pictures(tmp_path):
    """Two classes of 60 noisy pictures, of which two cannot be read."""
    root, drawn = tmp_path / "pictures", np.random.default_rng(0)
    for label in "ab":
        (root / label).mkdir(parents=True)
        for index in range(60):
            pixels = drawn.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index:02}.png")
    (root / "a" / "05.png").write_bytes(b"garbage")
    (root / "b" / "30.png").write_bytes(b"garbage")
    return root


def read_all(root, monkeypatch, num_cores, **constants):
    monkeypatch.setattr(decoding, "available_cores", lambda: num_cores)
    for name, value in constants.items():
        monkeypatch.setattr(decoding, name, value)
    skipped = []
    chunks = list(decoding.Decoded(folders.find_pictures(root).train, (3, 8, 8), skipped))
    images, labels = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
    return images, labels, skipped


@pytest.mark.parametrize(
    "constants", [{"WORTH_PROCESSES": 0}, {"THREADED_BYTES": 0}], ids=["processes", "threads"]
)
def test_pictures_are_read_on_all_cores_to_the_same_bits(pictures, constants, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", NUM_A_CHUNK * 3 * 8 * 8)
    monkeypatch.setattr(decoding, "BATCH", 5)
    alone = read_all(pictures, monkeypatch, 1)
    if "WORTH_PROCESSES" in constants:  # others read, and not this one
        monkeypatch.setattr(decoding, "read_picture", None)
    on_all = read_all(pictures, monkeypatch, 3, **constants)
    assert len(alone[0]) == 118
    assert (on_all[0] == alone[0]).all()
    assert (on_all[1] == alone[1]).all()
    assert on_all[2] == alone[2] == [f"{pictures}/a/05.png", f"{pictures}/b/30.png"]


def test_what_a_process_prints_is_no_picture(pictures, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('a banner', flush=True)\nprint('more')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    assert len(read_all(pictures, monkeypatch, 2, WORTH_PROCESSES=0)[0]) == 118


def test_processes_read_what_a_users_settings_of_pillow_allow(pictures, monkeypatch):
    whole = pictures / "a" / "07.png"
    Image.open(whole).resize((64, 64)).save(whole)
    whole.write_bytes(whole.read_bytes()[:4000])
    for is_allowed, num_read in ((False, 117), (True, 118)):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", is_allowed)
        for num_cores in (1, 2):
            read = read_all(pictures, monkeypatch, num_cores, WORTH_PROCESSES=0)
            assert len(read[0]) == num_read


def test_a_process_that_was_killed_is_stood_in_for(pictures, monkeypatch):
    real = subprocess.Popen

    def dying(*arguments, **options):
        process = real(*arguments, **options)
        process.kill()
        return process

    monkeypatch.setattr(decoding.subprocess, "Popen", dying)
    assert len(read_all(pictures, monkeypatch, 2, WORTH_PROCESSES=0)[0]) == 118


PREPARE = """
import signal, time
from convscape.data import decoding
from convscape.data.datasets import load_images

read = decoding.read_picture
decoding.read_picture = lambda path, shape: (time.sleep(0.02), read(path, shape))[1]
decoding.CHUNK_BYTES = {chunk_bytes}
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a background
load_images(
    "image_folder", root={root!r}, cache_dir={cache!r}, image_size=8, channels=3,
    on_unreadable="skip",
)
"""


def begun(root, cache, size=8):
    """What an interrupted preparation leaves."""

    def stop(path, shape):
        raise KeyboardInterrupt

    before = {*cache.glob(".*.unfinished")}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "read_picture", stop)
        with pytest.raises(KeyboardInterrupt):
            load_images("image_folder", root=root, cache_dir=cache, image_size=size, channels=3)
    (new,) = {*cache.glob(".*.unfinished")} - before
    return new


def test_what_was_begun_before_a_folder_changed_is_removed_unless_somebody_is_at_it(
    pictures, tmp_path, caplog
):
    cache, other = tmp_path / "cache", tmp_path / "other"
    for name in ("a/05.png", "b/30.png"):
        (pictures / name).unlink()
    shutil.copytree(pictures, other)
    elsewhere, small, large = begun(other, cache), begun(pictures, cache), begun(pictures, cache, 9)
    busy = begun(pictures, cache, 10)
    (pictures / "a" / "07.png").unlink()
    name = busy.name.removeprefix(".").removesuffix(".unfinished")
    with FileLock(cache / f".{name}.lock"), caplog.at_level(logging.INFO):
        load_images("image_folder", root=pictures, cache_dir=cache, image_size=8, channels=3)
    assert {*cache.glob(".*.unfinished")} == {elsewhere, busy}
    for gone in (small, large):
        assert f"removed {gone}, which was begun before {pictures} changed" in caplog.text
    (prepared,) = cache.glob("image_folder-*")
    assert len([*prepared.iterdir()]) == 5  # no note is left in it


def test_what_was_begun_of_the_same_pictures_at_another_size_is_kept(pictures, tmp_path):
    for name in ("a/05.png", "b/30.png"):
        (pictures / name).unlink()
    kept = begun(pictures, tmp_path / "cache", 9)
    load_images(
        "image_folder", root=pictures, cache_dir=tmp_path / "cache", image_size=8, channels=3
    )
    assert [*(tmp_path / "cache").glob(".*.unfinished")] == [kept]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_preparation_is_continued_to_the_same_bits(
    how, pictures, tmp_path, monkeypatch, caplog
):
    def load(name):
        return load_images(
            *("image_folder",), root=pictures, cache_dir=tmp_path / name, image_size=8, channels=3,
            on_unreadable="skip",
        )  # fmt: skip

    code = PREPARE.format(
        chunk_bytes=NUM_A_CHUNK * 3 * 8 * 8, root=str(pictures), cache=str(tmp_path / "cache")
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)

    def num_noted():
        found = [*(tmp_path / "cache").glob(".*.unfinished/train.notes")]
        return len(found[0].read_text().splitlines()) if found else 0

    wait_for(lambda: num_noted() >= 2, process)
    process.send_signal(how)
    process.communicate()
    num_kept = NUM_A_CHUNK * num_noted() - 2  # that many or more pictures were read, two in vain
    (unfinished,) = (tmp_path / "cache").glob(".*.unfinished")
    with open(unfinished / "train_images.npy", "ab") as file:
        file.write(b"of a chunk that was not noted")

    num_read = 0
    read = decoding.read_picture

    def counted(*arguments):
        nonlocal num_read
        num_read += 1
        return read(*arguments)

    monkeypatch.setattr(decoding, "read_picture", counted)
    with caplog.at_level(logging.INFO):
        load("cache")
    assert "images were prepared before" in caplog.text
    assert num_read <= 120 - num_kept
    assert not unfinished.exists()
    load("whole")
    for kind in ("cache", "whole"):
        assert not [*(tmp_path / kind).glob("*/*.notes")]
    (cached,), (whole,) = (
        [*(tmp_path / kind).glob("image_folder*")] for kind in ("cache", "whole")
    )
    assert {f.name: f.read_bytes() for f in cached.iterdir()} == {
        f.name: f.read_bytes() for f in whole.iterdir()
    }


@pytest.mark.parametrize("damage", ["images", "notes"])
def test_what_was_damaged_meanwhile_is_read_again(damage, pictures, tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", NUM_A_CHUNK * 3 * 8 * 8)
    read = decoding.read_picture
    num_left = 80

    def stopping(*arguments):
        nonlocal num_left
        num_left -= 1
        if num_left < 0:
            raise KeyboardInterrupt
        return read(*arguments)

    def load(name):
        options = {"image_size": 8, "channels": 3, "on_unreadable": "skip"}
        return load_images("image_folder", root=pictures, cache_dir=tmp_path / name, **options)

    monkeypatch.setattr(decoding, "read_picture", stopping)
    with pytest.raises(KeyboardInterrupt):
        load("cache")
    (unfinished,) = (tmp_path / "cache").glob(".*.unfinished")
    if damage == "images":
        file = unfinished / "train_images.npy"
        content = bytearray(file.read_bytes())
        content[5000] ^= 1
    else:
        file = unfinished / "train.notes"
        content = file.read_bytes()[:-20]
    file.write_bytes(content)
    monkeypatch.setattr(decoding, "read_picture", read)
    continued, whole = load("cache"), load("whole")
    assert continued.checksum == whole.checksum
    assert continued.mean == whole.mean
    assert (continued.train_images == whole.train_images).all()


def test_a_bar_says_how_many_a_second(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SLOW_S", 0.0)
    with progress.progress_when_slow("preparing x", 1000) as advance:
        for _ in range(10):
            time.sleep(0.01)
            advance(100)
    shown = capsys.readouterr().err
    assert "1,000/1,000" in shown
    assert "/s" in shown


def test_without_a_terminal_lines_say_how_far_it_is(caplog, monkeypatch):
    monkeypatch.setattr(progress, "SLOW_S", 0.0)
    monkeypatch.setattr(progress, "LINE_S", 0.0)
    with (
        caplog.at_level(logging.INFO),
        progress.progress_when_slow("preparing x", 2000) as advance,
    ):
        time.sleep(0.01)
        advance(500)
    assert "preparing x: 500 of 2,000" in caplog.text
    assert " s left" in caplog.text


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(code, command, tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(DataError, match=r"has no locks \(.*set data\.cache_dir"):
        load_images("digits", root="nowhere", cache_dir=tmp_path)
    assert not [*tmp_path.glob("*/*.npy")]
    answer = command("train", f"data.cache_dir={tmp_path}", f"output_dir={tmp_path}")
    assert (answer.code, len(answer.err.splitlines())) == (2, 1), answer.err
    assert "its file system has no locks (" in answer.err


def test_nothing_is_written_through_a_link_in_what_was_prepared(pictures, tmp_path):
    cache = tmp_path / "cache"

    def load():
        load_images(
            *("image_folder",), root=pictures, cache_dir=cache, image_size=8, channels=3,
            on_unreadable="skip",
        )  # fmt: skip

    load()
    (prepared,) = cache.glob("image_folder*")
    shutil.rmtree(prepared)
    other = tmp_path / "other"
    other.write_bytes(b"theirs")
    unfinished = cache / f".{prepared.name}.unfinished"
    unfinished.mkdir()
    (unfinished / "train_images.npy").symlink_to(other)
    (unfinished / "train.notes").write_text("")
    with pytest.raises(ConfigError, match="a link"):
        load()
    assert other.read_bytes() == b"theirs"
