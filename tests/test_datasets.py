import json
import logging
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from convscape.data import cache
from convscape.data.cache import DataError
from convscape.data.datasets import DATASETS, image_shape, load_images

CONF = Path(__file__).parents[1] / "conf" / "data"
KEYS = [
    *("name", "root", "cache_dir", "download", "image_size", "channels", "mean", "std"),
    *("val_size", "train_size", "split_seed", "batch_size", "eval_batch_size", "augment"),
]


@pytest.fixture(scope="module")
def digits_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    load_digits_set(folder)
    return folder


def load_digits_set(cache_dir, **options):
    return load_images("digits", root="nowhere", cache_dir=cache_dir, **options)


@pytest.fixture
def own_cache(tmp_path):
    """A cache of the digits that a test may spoil."""
    load_digits_set(tmp_path)
    (folder,) = tmp_path.glob("digits-*")
    return folder


def stated(name):
    """What conf/data states about a set, which may stand below the key `data`."""
    conf = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return conf.get("data", conf)


def test_digits_are_those_of_scikit_learn(digits_cache):
    from sklearn.datasets import load_digits

    data = load_digits_set(digits_cache, image_size=8)
    theirs = load_digits()
    assert data.classes == tuple("0123456789")
    ours = np.concatenate([data.train_images, data.test_images])[:, 0]
    labels = np.concatenate([data.train_labels, data.test_labels])
    expected = np.round(theirs.images * 255 / 16).astype(np.uint8)
    assert sorted(zip(labels, map(bytes, ours), strict=True)) == sorted(
        zip(theirs.target, map(bytes, expected), strict=True)
    )


def test_a_fifth_of_every_digit_is_for_testing(digits_cache):
    data = load_digits_set(digits_cache)
    assert data.train_images.shape == (1438, 1, 28, 28)
    total = np.bincount(data.train_labels) + np.bincount(data.test_labels)
    assert np.bincount(data.test_labels).tolist() == np.round(0.2 * total).tolist()


def test_mean_and_std_are_those_of_the_train_images(digits_cache):
    data = load_digits_set(digits_cache, channels=3)
    values = data.train_images / 255
    assert data.mean == pytest.approx(values.mean(axis=(0, 2, 3)))
    assert data.std == pytest.approx(values.std(axis=(0, 2, 3)))


def test_arrays_go_to_torch_without_a_warning_and_writing_leaves_the_file(digits_cache):
    import torch

    data = load_digits_set(digits_cache)
    images = torch.from_numpy(data.train_images)  # warnings are errors in these tests
    assert torch.from_numpy(data.train_labels).dtype == torch.int64
    images.zero_()
    assert load_digits_set(digits_cache).train_images.any()


@pytest.mark.parametrize("name", DATASETS)
def test_the_yaml_states_every_key_and_fits_the_facts(name):
    conf = stated(name)
    own = ["on_unreadable", "test_fraction"] if name == "image_folder" else []
    assert list(conf) == KEYS + own
    assert conf["name"] == name
    if name != "image_folder":
        (channels, _, _), _ = image_shape(name, root="nowhere")
        assert conf["channels"] == channels == len(conf["mean"]) == len(conf["std"])


def test_the_mean_and_std_in_the_yaml_of_the_digits_are_true(digits_cache):
    conf = stated("digits")
    data = load_digits_set(digits_cache)
    assert data.mean == pytest.approx(conf["mean"], abs=5e-5)
    assert data.std == pytest.approx(conf["std"], abs=5e-5)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 32, 32)),
        ({"image_size": 28}, (3, 28, 28)),
        ({"image_size": "24x48", "channels": 1}, (1, 24, 48)),
    ],
)
def test_shapes_are_known_before_there_is_data(options, shape):
    assert image_shape("cifar100", root="nowhere", **options) == (shape, 100)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("cifar", {}, "data.name='cifar'; allowed: digits, mnist"),
        ("digits", {"image_size": "3x"}, "data.image_size: '3x' is not a size"),
        ("digits", {"image_size": 0}, "data.image_size: 0 is too small"),
        ("digits", {"channels": 4}, "data.channels=4; allowed: 1"),
        ("image_folder", {"channels": 3}, "needs data.image_size"),
        ("digits", {"on_unreadable": "ignore"}, "data.on_unreadable='ignore'; allowed: error"),
        ("digits", {"test_fraction": 1.0}, "data.test_fraction=1.0; allowed: between 0 and 1"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(tmp_path, name, options, message):
    with pytest.raises(DataError, match=message):
        load_images(name, root=tmp_path, cache_dir=tmp_path, **options)


# The cache


def test_the_second_start_imports_nothing_heavy(digits_cache):
    code = (
        "import sys; from convscape.data.datasets import load_images; "
        f"load_images('digits', root='nowhere', cache_dir={str(digits_cache)!r}); "
        "heavy = {'torch', 'torchvision', 'sklearn', 'PIL', 'rich'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    # a fresh interpreter that finds the package where this one did
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | paths)


def test_damage_anywhere_in_the_cache_is_noticed_and_mended(own_cache, caplog):
    originals = {path.name: path.read_bytes() for path in own_cache.iterdir()}
    expected = load_digits_set(own_cache.parent).checksum
    dice = random.Random(0)
    for _ in range(40):
        name = dice.choice(sorted(originals))
        content = originals[name]
        place = dice.randrange(len(content))
        changed = bytes([content[place] ^ dice.randrange(1, 256)])
        damaged = dice.choice(
            [
                content[:place],
                content[:place] + changed + content[place + 1 :],
                content + b"x",
                None,
            ]
        )
        (own_cache / name).unlink()
        if damaged is not None:
            (own_cache / name).write_bytes(damaged)
        with pytest.raises(cache._Damaged):
            cache._load(own_cache, "digits")
        (own_cache / name).write_bytes(content)
    (own_cache / "train_images.npy").write_bytes(originals["train_images.npy"][:1000])
    with caplog.at_level(logging.WARNING):
        assert load_digits_set(own_cache.parent).checksum == expected
    assert "is damaged (train_images.npy should have 1,127,520 bytes)" in caplog.text
    assert {path.name: path.read_bytes() for path in own_cache.iterdir()} == originals


def test_what_a_killed_process_left_is_cleared_away(own_cache):
    unfinished = own_cache.with_name(f".{own_cache.name}.unfinished")
    own_cache.rename(unfinished)
    (unfinished / "stray").write_bytes(b"x")
    load_digits_set(own_cache.parent)
    assert not unfinished.exists()
    assert sorted(path.name for path in own_cache.iterdir()) == [
        "meta.json",
        "test_images.npy",
        "test_labels.npy",
        "train_images.npy",
        "train_labels.npy",
    ]


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def no_space(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", no_space)
    with pytest.raises(DataError, match=r"cannot write the cache .*No space left.*data\.cache_dir"):
        load_digits_set(tmp_path)
    assert not list(tmp_path.glob("*digits*/"))


def test_a_cache_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot \w+ the cache '.*file.*CONVSCAPE_CACHE"):
        load_digits_set(tmp_path / "file" / "cache")


@pytest.mark.parametrize("size", ["2000000000x2000000000", "300000x300000"])
def test_images_that_no_disk_can_hold_are_refused_before_anything_is_written(tmp_path, size):
    with pytest.raises(DataError, match=r"prepared images take .* bytes.*smaller data\.image_size"):
        load_digits_set(tmp_path, image_size=size)
    assert not list(tmp_path.glob("*digits*/"))


def _checksum(cache_dir):
    return load_digits_set(cache_dir).checksum, time.monotonic()


def test_four_processes_at_once_build_one_cache(tmp_path, digits_cache):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        checksums = {checksum for checksum, _ in pool.map(_checksum, [tmp_path] * 4)}
    assert checksums == {load_digits_set(digits_cache).checksum}
    assert len(list(tmp_path.glob("digits-*"))) == 1
    assert not list(tmp_path.glob("*.unfinished"))


def test_another_shape_or_version_has_a_cache_of_its_own(digits_cache, tmp_path, monkeypatch):
    import importlib.metadata

    load_digits_set(tmp_path)
    load_digits_set(tmp_path, channels=3)
    load_digits_set(tmp_path, image_size="8x10")
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "99")
    load_digits_set(tmp_path)
    names = sorted(path.name.rpartition("-")[0] for path in tmp_path.glob("digits-*"))
    assert names == ["digits-28x28", "digits-28x28", "digits-28x28", "digits-8x10"]


def test_the_meta_data_is_plain_json(own_cache):
    meta = json.loads((own_cache / "meta.json").read_text())["meta"]
    assert meta["classes"] == list("0123456789")
    assert meta["files"]["test_images.npy"]["shape"] == [359, 1, 28, 28]


# The real sets


@pytest.fixture(scope="module")
def real_root():
    beside = Path(__file__).parents[2] / "shared" / "data"
    for root in (os.environ.get("CONVSCAPE_DATA"), beside):
        if root and (Path(root) / "MNIST" / "raw").is_dir():
            return Path(root)
    pytest.skip("no MNIST in CONVSCAPE_DATA or ../shared/data")


@pytest.mark.slow
def test_real_mnist_is_what_torchvision_reads(real_root, tmp_path):
    from torchvision.datasets import MNIST

    data = load_images("mnist", root=real_root, cache_dir=tmp_path, download=False)
    for train, images, labels in (
        (True, data.train_images, data.train_labels),
        (False, data.test_images, data.test_labels),
    ):
        theirs = MNIST(real_root, train=train)
        assert np.array_equal(images[:, 0], theirs.data.numpy())
        assert np.array_equal(labels, theirs.targets.numpy())
    conf = stated("mnist")
    assert data.mean == pytest.approx(conf["mean"], abs=5e-5)
    assert data.std == pytest.approx(conf["std"], abs=5e-5)


@pytest.mark.slow
def test_a_second_start_of_real_mnist_takes_no_time(real_root, tmp_path):
    load_images("mnist", root=real_root, cache_dir=tmp_path, download=False)
    started = time.perf_counter()
    load_images("mnist", root=real_root, cache_dir=tmp_path, download=False)
    assert time.perf_counter() - started < 0.5


@pytest.mark.slow
def test_sixty_thousand_real_jpegs_start_at_once_the_second_time(real_root, tmp_path):
    import tarfile

    archive = real_root / "cifar10-jpeg.tar.gz"
    if not archive.exists():
        pytest.skip(f"no {archive.name} in {real_root}")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    options = {"root": tmp_path / "cifar10-jpeg", "image_size": 32, "channels": 3}
    data = load_images("image_folder", cache_dir=tmp_path / "cache", **options)
    assert np.bincount(data.train_labels).tolist() == [5000] * 10
    assert np.bincount(data.test_labels).tolist() == [1000] * 10
    # JPEG keeps the mean of CIFAR-10 and smooths a little
    conf = stated("cifar10")
    assert data.mean == pytest.approx(conf["mean"], abs=1e-3)
    assert data.std == pytest.approx(conf["std"], abs=4e-3)
    started = time.perf_counter()
    load_images("image_folder", cache_dir=tmp_path / "cache", **options)
    assert time.perf_counter() - started < 2
