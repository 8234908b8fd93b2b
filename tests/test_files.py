"""Files of a stranger's folder: no writing out of it, no reading without a bound."""

import os
import stat
import time
from contextlib import suppress

import pytest

from convscape.base import files


@pytest.fixture
def place(tmp_path):
    """A folder, and a file outside of it that nothing may change."""
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").mkdir()
    victim = tmp_path / "outside" / "victim"
    victim.write_text("kept")
    yield tmp_path / "run", victim
    assert victim.read_text() == "kept"
    assert os.listdir(victim.parent) == ["victim"]


@pytest.fixture(params=["descriptors", "paths"])
def system(request, monkeypatch):
    """A system that knows folders by descriptors, and one that does not, as Windows."""
    if request.param == "paths":
        monkeypatch.setattr(files, "_HAS_DESCRIPTORS", False)
        monkeypatch.setattr(files, "_NO_FOLLOW", 0)
    return request.param


WRITERS = {
    "write_whole": lambda path, within: files.write_atomic(path, "x", within=within),
    "append": lambda path, within: files.append(path, within=within).close(),
    "new": lambda path, within: files.append(path, within=within, is_new=True).close(),
    "cut": lambda path, within: files.cut(path, 0, within=within),
    "remove": lambda path, within: files.remove(path, within=within),
    "lock": lambda path, within: files.lock(path, within=within).acquire(),
}


def test_a_file_is_written_whole_or_not_at_all(tmp_path, system):
    path = tmp_path / "file"
    files.write_atomic(path, "before", within=tmp_path)
    with pytest.raises(TypeError):
        files.write_atomic(path, 3, within=tmp_path)
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["file"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("link", ["file", "hard link", "nowhere"])
def test_no_file_is_written_through_a_link(place, system, writer, link):
    folder, victim = place
    path = folder / "file"
    if link == "hard link":
        path.hardlink_to(victim)
    else:
        path.symlink_to(victim if link == "file" else victim.parent / "new")
    with suppress(files.NotInside, FileExistsError, FileNotFoundError):
        WRITERS[writer](path, folder)


@pytest.mark.parametrize("writer", [*WRITERS, "make_folder"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, system, writer):
    (tmp_path / "checkpoints").write_text("")
    write = WRITERS.get(writer, lambda path, within: files.make_folder(path, within=within))
    with pytest.raises(files.NotInside, match=r"checkpoints is no folder, .*move it away"):
        write(tmp_path / "checkpoints" / "file", tmp_path)


@pytest.mark.parametrize("writer", [*WRITERS, "make_folder"])
def test_no_file_is_written_into_a_folder_that_is_a_link(place, system, writer):
    folder, victim = place
    (folder / "checkpoints").symlink_to(victim.parent)
    write = WRITERS.get(writer, lambda path, within: files.make_folder(path, within=within))
    for name in ("victim", "other"):
        with pytest.raises(files.NotInside, match="checkpoints is a link"):
            write(folder / "checkpoints" / name, folder)
    with pytest.raises(files.NotInside):
        files.make_folder(folder / ".." / "outside" / "x", within=folder)


def test_a_folder_that_the_user_reaches_through_a_link_is_written(place, tmp_path, system):
    folder, _ = place
    (tmp_path / "scratch").symlink_to(folder)
    within = tmp_path / "scratch"
    files.make_folder(within / "a" / "b", within=within)
    files.write_atomic(within / "a" / "b" / "file", "x", within=within)
    with files.append(within / "a" / "b" / "file", within=within) as file:
        file.write(b"yz")
    files.cut(within / "a" / "b" / "file", 2, within=within)
    assert (folder / "a" / "b" / "file").read_text() == "xy"
    files.remove(within / "a" / "b" / "file", within=within)
    assert [path.name for path in folder.rglob("*")] == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_or_a_device_keeps_nobody_waiting(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(ValueError, match="not a plain file"):
            files.read_bytes(path)
    with pytest.raises(files.NotInside, match="no plain file"):
        files.append(pipe, within=tmp_path)
    with pytest.raises(files.NotInside, match="no plain file"):
        files.lock(tmp_path, within=tmp_path.parent)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "an alias or an anchor"),
        ("a: &loop [*loop]", "an alias or an anchor"),
        ("a: &x 1\n<<: *x", "an alias or an anchor"),
        ("[" * 100_000, "levels"),
        ("[" * 41 + "]" * 41, "more than 40 levels"),
        ("{a: " * 100_000, "levels"),
        ("- " * 100_000, "levels"),
        ("x" * 2**20 + "x", "larger than 1 MiB"),
        ("a: 1" + ":30" * 200_000, "more than 400 digits"),
        ("a: " + "9" * 500_000, "more than 400 digits"),
        ("a: !!python/object/apply:os.system [x]", "python"),
        ("\0", "."),
        ("a: [", "."),
    ],
)
def test_yaml_that_means_more_than_it_says_is_refused_at_once(tmp_path, text, words):
    resource = pytest.importorskip("resource", reason="Windows has none")
    file = tmp_path / "config.yaml"
    file.write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(ValueError, match=words) as refused:
        files.read_yaml(file)
    assert time.monotonic() - start < 10
    assert len(str(refused.value)) <= 300
    assert "\n" not in str(refused.value)
    # of the process at its largest: KiB on Linux, bytes on macOS, and so no stricter there
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_yaml_of_forty_levels_and_long_lists_is_read(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("[" * 40 + "]" * 40)
    assert str(files.read_yaml(file)).count("[") == 40
    values = ",".join(map(str, range(50_000)))
    file.write_text(f"model.stride: {values}\nlate: '{'9' * 500}'\n")
    assert files.read_yaml(file) == {"model.stride": values, "late": "9" * 500}
