import gzip
import hashlib
import io
import os
import pickle
import random
import shutil
import struct
import tarfile

import numpy as np
import pytest

from convscape.data import originals
from convscape.data.cache import DataError
from convscape.data.datasets import load_images
from convscape.data.originals import Published

IDX_FILES = originals.LAYOUTS["mnist"].files


def md5(content):
    return hashlib.md5(content).hexdigest()


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def tar_bytes(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def arrays():
    dice = np.random.default_rng(0)
    return {
        "mnist": [
            dice.integers(0, 256, (60, 28, 28), dtype=np.uint8),
            np.arange(60, dtype=np.uint8) % 10,
            dice.integers(0, 256, (20, 28, 28), dtype=np.uint8),
            np.arange(20, dtype=np.uint8) % 10,
        ],
        "cifar": dice.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8),
    }


@pytest.fixture(scope="module")
def mnist_files(arrays):
    contents = [idx_bytes(array) for array in arrays["mnist"]]
    return dict(zip(IDX_FILES, contents, strict=True))


@pytest.fixture(scope="module")
def cifar10_files(arrays):
    """Six batches of ten images and the names, pickled as Python 2 did."""
    pixels = arrays["cifar"].reshape(60, -1)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {
        name: {"data": pixels[10 * i : 10 * i + 10], "labels": list(range(10))}
        for i, name in enumerate(names)
    }
    files["batches.meta"] = {"label_names": [f"class {i}" for i in range(10)]}
    return {name: pickle.dumps(entry, protocol=2) for name, entry in files.items()}


def published_of(files, classes=tuple("0123456789")):
    return Published(mirrors=(), digests={n: md5(c) for n, c in files.items()}, classes=classes)


UNKNOWN = Published(mirrors=(), digests={}, classes=tuple("0123456789"))


@pytest.fixture
def load(tmp_path):
    def load(name, published=UNKNOWN, **options):
        return load_images(
            name,
            root=tmp_path,
            cache_dir=tmp_path / "cache",
            published=published,
            download=False,
            **options,
        )

    return load


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_unpacked_and_packed_idx_files_give_the_same_arrays(tmp_path, load, arrays, mnist_files):
    write(tmp_path / "MNIST" / "raw", mnist_files)
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files.items()}
    write(tmp_path / "FashionMNIST" / "raw", packed)
    mnist = load("mnist", published_of(mnist_files))
    fashion = load("fashion_mnist", published_of(packed))
    for data in (mnist, fashion):
        train_images, train_labels, test_images, test_labels = arrays["mnist"]
        assert np.array_equal(data.train_images[:, 0], train_images)
        assert np.array_equal(data.test_images[:, 0], test_images)
        assert data.train_labels.tolist() == train_labels.tolist()
        assert data.test_labels.tolist() == test_labels.tolist()
        assert data.train_labels.dtype == np.int64
    assert mnist.mean == pytest.approx([(arrays["mnist"][0] / 255).mean()])
    assert mnist.std == pytest.approx([(arrays["mnist"][0] / 255).std()])


def test_cifar10_is_the_same_from_its_folder_and_its_archive(tmp_path, load, arrays, cifar10_files):
    members = {f"cifar-10-batches-py/{name}": c for name, c in cifar10_files.items()}
    archive = {"cifar-10-python.tar.gz": tar_bytes({"../escape": b"x", "/abs": b"x"} | members)}
    write(tmp_path, archive)
    from_archive = load("cifar10", published_of(archive | cifar10_files))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", *archive]  # not unpacked
    write(tmp_path / "cifar-10-batches-py", cifar10_files)
    from_folder = load("cifar10", published_of(cifar10_files))
    assert from_archive.checksum == from_folder.checksum
    assert np.array_equal(from_folder.train_images, arrays["cifar"][:50])
    assert np.array_equal(from_folder.test_images, arrays["cifar"][50:])
    assert from_folder.classes[3] == "class 3"


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar100_has_fine_labels_in_any_pickle_protocol(tmp_path, load, arrays, protocol):
    pixels = arrays["cifar"].reshape(60, -1)
    entries = {
        "train": {"data": pixels[:50], "fine_labels": list(range(50, 100)), "coarse_labels": [0]},
        "test": {"data": pixels[50:], "fine_labels": [7] * 10},
        "meta": {"fine_label_names": [f"fine {i}" for i in range(100)]},
    }
    files = {name: pickle.dumps(entry, protocol=protocol) for name, entry in entries.items()}
    write(tmp_path / "cifar-100-python", files)
    data = load("cifar100")
    assert data.train_labels.tolist() == list(range(50, 100))
    assert data.classes[99] == "fine 99"
    assert np.array_equal(data.test_images, arrays["cifar"][50:])


def test_torchvision_reads_the_same_from_the_folder(tmp_path, load, arrays, cifar10_files):
    from torchvision.datasets import CIFAR10

    class Small(CIFAR10):
        train_list = tuple((n, md5(c)) for n, c in sorted(cifar10_files.items()) if "data" in n)
        test_list = (("test_batch", md5(cifar10_files["test_batch"])),)
        meta = CIFAR10.meta | {"md5": md5(cifar10_files["batches.meta"])}

    write(tmp_path / "cifar-10-batches-py", cifar10_files)
    theirs, ours = Small(tmp_path), load("cifar10", published_of(cifar10_files))
    assert np.array_equal(theirs.data.transpose(0, 3, 1, 2), ours.train_images)
    assert theirs.targets == ours.train_labels.tolist()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_every_file_of_a_set_has_a_published_checksum(name):
    layout, published = originals.LAYOUTS[name], originals.published(name)
    if isinstance(layout, originals.IdxLayout):
        needed = {*layout.files, *(f"{file}.gz" for file in layout.files)}
    else:
        needed = {*layout.train, *layout.test, layout.meta, layout.archive}
    assert set(published.digests) == needed
    assert published.mirrors
    assert {len(digest) for digest in published.digests.values()} <= {32, 64}


def test_class_names_come_without_torchvisions_numbering():
    assert list(originals.published("mnist").classes) == list("0123456789")
    assert originals.published("fashion_mnist").classes[1] == "Trouser"


# Bad input


def test_missing_files_are_named(tmp_path, load, mnist_files):
    write(tmp_path / "MNIST" / "raw", mnist_files)
    (tmp_path / "MNIST" / "raw" / IDX_FILES[3]).unlink()
    with pytest.raises(DataError, match=rf"{IDX_FILES[3]}.*data\.root.*data\.download=true"):
        load("mnist")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing, an IDX file with 00000803"),
        (b"<html>", "starts with 3c68746d, an IDX file with 00000803"),
        (b"\0\0\x08\x03\0\0", "at least 16 bytes expected, 6 found"),
        (
            b"\0\0\x08\x03" + struct.pack(">3I", 60000, 28, 28),
            "47,040,016 bytes expected, 16 found",
        ),
    ],
)
def test_a_damaged_idx_file_is_described(tmp_path, load, mnist_files, content, message):
    write(tmp_path / "MNIST" / "raw", mnist_files | {IDX_FILES[0]: content})
    with pytest.raises(DataError, match=rf"{IDX_FILES[0]}' is damaged.*{message}.*delete it"):
        load("mnist")


def test_files_that_do_not_fit_together_are_refused(tmp_path, load, mnist_files, arrays):
    folder = tmp_path / "MNIST" / "raw"
    write(folder, mnist_files | {IDX_FILES[1]: idx_bytes(np.zeros(59, dtype=np.uint8))})
    with pytest.raises(DataError, match="60 train images, 59 labels"):
        load("mnist")
    write(folder, mnist_files | {IDX_FILES[3]: idx_bytes(arrays["mnist"][3] + 1)})
    with pytest.raises(DataError, match=r"test labels beyond 0\.\.9"):
        load("mnist")
    write(folder, mnist_files | {IDX_FILES[2]: idx_bytes(np.zeros((20, 8, 8), dtype=np.uint8))})
    with pytest.raises(DataError, match=r"test images are \(1, 8, 8\)"):
        load("mnist")


def damaged(content, dice):
    """`content` cut off, or with one byte changed."""
    place = dice.randrange(len(content))
    if dice.random() < 0.5:
        return content[:place]
    return content[:place] + bytes([content[place] ^ dice.randrange(1, 256)]) + content[place + 1 :]


def files_of(kind, mnist_files, cifar10_files):
    """Name of the set, its folder and its files, in one of the ways it is published."""
    packed = {f"{name}.gz": gzip.compress(content) for name, content in mnist_files.items()}
    members = {f"cifar-10-batches-py/{name}": c for name, c in cifar10_files.items()}
    return {
        "idx": ("mnist", "MNIST/raw", mnist_files),
        "idx.gz": ("fashion_mnist", "FashionMNIST/raw", packed),
        "batches": ("cifar10", "cifar-10-batches-py", cifar10_files),
        "tar.gz": ("cifar10", ".", {"cifar-10-python.tar.gz": tar_bytes(members)}),
    }[kind]


KINDS = ["idx", "idx.gz", "batches", "tar.gz"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_file_cut_or_garbled_at_a_hundred_places_is_caught_by_its_checksum(
    tmp_path, load, mnist_files, cifar10_files, kind
):
    name, folder, files = files_of(kind, mnist_files, cifar10_files)
    write(tmp_path / folder, files)
    published, dice = published_of(files), random.Random(0)
    for victim, content in files.items():
        path = tmp_path / folder / victim
        places = dice.sample(range(len(content)), min(100, len(content)))
        changed = [content[:p] for p in places]
        changed += [content[:p] + bytes([content[p] ^ 85]) + content[p + 1 :] for p in places]
        for wrong in changed:
            path.write_bytes(wrong)
            with pytest.raises(DataError, match=rf"{victim}.* is damaged or not the published"):
                load(name, published)
        path.write_bytes(content)
    load(name, published)


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_that_may_not_be_read_is_named(
    tmp_path, load, mnist_files, cifar10_files, kind, as_nobody
):
    name, folder, files = files_of(kind, mnist_files, cifar10_files)
    write(tmp_path / folder, files)
    for victim in files:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        (tmp_path / folder / victim).chmod(0)
        with (
            as_nobody(),
            pytest.raises(DataError, match=rf"{victim}': Permission denied; check"),
        ):
            load(name)
        (tmp_path / folder / victim).chmod(0o644)
    with as_nobody():
        load(name)


@pytest.mark.parametrize("known", [True, False], ids=["checksums known", "unknown"])
@pytest.mark.parametrize("kind", KINDS)
def test_damage_anywhere_is_one_sentence_and_with_checksums_never_missed(
    tmp_path, load, mnist_files, cifar10_files, kind, known
):
    name, folder, files = files_of(kind, mnist_files, cifar10_files)
    write(tmp_path / folder, files)
    published = published_of(files) if known else UNKNOWN
    load(name, published)
    dice, missed = random.Random(0), 0
    for _ in range(100):
        victim = dice.choice(sorted(files))
        path = tmp_path / folder / victim
        path.write_bytes(damaged(files[victim], dice))
        try:
            load(name, published)
        except DataError as error:
            message = str(error)
        else:
            message, missed = victim, missed + 1
        path.write_bytes(files[victim])
        assert victim in message or "do not fit together" in message
        assert "\n" not in message
        shutil.rmtree(tmp_path / "cache")
    assert not (known and missed)


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("place", ["file", "member", "inside data"])
def test_a_pickle_that_wants_to_run_code_is_refused(
    tmp_path, load, cifar10_files, place, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    entry = {"data": np.array([Payload()], dtype=object), "labels": [0]}
    evil = pickle.dumps(entry if place == "inside data" else Payload(), protocol=2)
    files = cifar10_files | {"data_batch_3": evil}
    if place == "member":
        members = {f"cifar-10-batches-py/{name}": c for name, c in files.items()}
        write(tmp_path, {"cifar-10-python.tar.gz": tar_bytes(members)})
    else:
        write(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(DataError, match=r"data_batch_3' is damaged.*wants to call posix\.system"):
        load("cifar10")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([1, 2], "a dict expected, list found"),
        ({"labels": [0]}, "'data' is not a two-dimensional array of bytes"),
        ({"data": np.zeros((2, 10), np.uint8), "labels": [0, 0]}, "3072 values .* 10 found"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": ["a", "b"]}, "not a list of integers"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "2 images, but 1 labels"),
    ],
)
def test_a_batch_of_another_kind_is_described(tmp_path, load, cifar10_files, entry, message):
    files = cifar10_files | {"data_batch_2": pickle.dumps(entry)}
    write(tmp_path / "cifar-10-batches-py", files)
    with pytest.raises(DataError, match=rf"data_batch_2' is damaged.*{message}"):
        load("cifar10")


def test_an_archive_without_a_batch_is_refused(tmp_path, load, cifar10_files):
    members = {f"cifar-10-batches-py/{n}": c for n, c in cifar10_files.items() if n != "test_batch"}
    write(tmp_path, {"cifar-10-python.tar.gz": tar_bytes(members)})
    with pytest.raises(DataError, match="it holds no cifar-10-batches-py/test_batch"):
        load("cifar10")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
)
@pytest.mark.parametrize("target", ["/etc/passwd", "../../outside"])
def test_a_batch_that_is_a_link_or_a_pipe_is_no_batch(tmp_path, load, cifar10_files, kind, target):
    (tmp_path.parent / "outside").write_bytes(cifar10_files["test_batch"])
    buffer = io.BytesIO(tar_bytes({}))
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in cifar10_files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            if name == "test_batch":
                member.type, member.linkname = kind, target
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    write(tmp_path, {"cifar-10-python.tar.gz": buffer.getvalue()})
    with pytest.raises(DataError, match="it holds no cifar-10-batches-py/test_batch"):
        load("cifar10")
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "cifar-10-python.tar.gz"}
