"""Data sets and augmentations of the user's own: what goes in, what is refused."""

import json
import sys
import textwrap

import numpy as np
import pandas
import pytest
import torch

from convscape.data.arrays import plain_labels
from convscape.runs.fingerprint import fingerprint
from tests.conftest import TINY
from tests.test_config import checked

OWN = """
    import numpy as np
    import torch

    GREY = 100

    def images(num=300):
        pictures = np.random.default_rng(0).integers(0, GREY, (num, 12, 12), dtype=np.uint8)
        pictures[::2, :6] += 100
        return pictures

    def load(num=300):
        return images(num), np.where(np.arange(num) % 2, "plain", "bright")

    def gaps():
        pictures = images()[:, None]
        labels = np.where(np.arange(300) % 2, 7, 3)
        return pictures[:200], labels[:200], pictures[200:], labels[200:]

    def nothing(): return None
    def short(): return images(), np.zeros(299, int)
    def flags(): return images(), np.full(300, 0.5)
    def single(): return images(), np.zeros(300, int)
    def many(): return np.zeros((300, 65, 8, 8), np.uint8), np.arange(300) % 2
    def five(): return np.zeros((300, 5, 8, 8), np.uint8), np.arange(300) % 2
    def kinds(): return images(), np.arange(300) % 2, images() / 255, np.arange(300) % 2
    def words(): return np.full((300, 8, 8), "a"), np.arange(300) % 2
    def other(): return images(), np.arange(300) % 2, images(), np.full(300, 5)
    def empty(): return images()[:0], np.zeros(0, int)
    def no_test(): return images(), np.arange(300) % 2, images()[:0], np.zeros(0, int)
    def holes(): return images() * np.nan, np.arange(300) % 2
    def channels_last(): return np.zeros((300, 8, 9, 3), np.uint8), np.arange(300) % 2
    def flat(): return images().reshape(300, -1), np.arange(300) % 2
    def uneven(): return [np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)] * 9, [0, 1] * 9
    def one_hot(): return images(), np.eye(2)[np.arange(300) % 2]
    def mixed(): return images(), np.array([1, "a"] * 150, object)
    def unknown(): return images(), np.array([None, "a"] * 150, object)
    def no_number(): return images(), np.array([np.nan, 1] * 150)
    def dates(): return images(), np.full(300, np.datetime64("2026-01-01"))
    def pair(): return images()[:2], [0, 1]
    def fails(): raise OSError("the disk is gone")

    def noise(pictures):
        return pictures + torch.randint(0, 5, pictures.shape, dtype=torch.uint8)

    def grows(pictures):
        return pictures.float()
"""
SHORT = [*TINY[:1], "trainer.max_epochs=10", "trainer.threads=1", "allow_packages=[myparts]"]


@pytest.fixture(autouse=True)
def parts(tmp_path, monkeypatch):
    """A module in the folder where the commands are typed."""
    (tmp_path / "myparts.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("myparts", None)


def results(tmp_path):
    return [json.loads(file.read_text()) for file in tmp_path.glob("outputs/*/**/result.json")]


@pytest.mark.parametrize("name", ["load", "gaps"])
def test_arrays_of_the_users_train_and_are_evaluated(command, tmp_path, name):
    answer = command("train", "data=own", f"data._target_=myparts.{name}", *SHORT)
    assert answer.code == 0, answer.out + answer.err
    (result,) = results(tmp_path)
    assert len(result["data_checksum"]) == 12
    assert result["metrics"]["test/acc"] > 0.9
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert "add --allow-packages myparts" in command("evaluate", run).err
    answer = command("evaluate", run, "--allow-packages", "myparts")
    assert answer.code == 0, answer.err
    assert name != "load" or "bright" in answer.out
    for asked in (["explain", run, 0], ["probe", run, "permute"]):
        assert "add --allow-packages myparts" in command(*asked).err
        assert command(*asked, "--allow-packages", "myparts").code == 0


def test_the_same_name_with_other_images_is_another_run(tmp_path, monkeypatch):
    words = ["data=own", "data._target_=myparts.load", "allow_packages=[myparts]"]
    one = fingerprint(checked(*words))
    assert fingerprint(checked(*words)) == one
    assert fingerprint(checked(*words, "data.root=/elsewhere")) == one
    file = tmp_path / "myparts.py"
    file.write_text(file.read_text().replace("GREY = 100", "GREY = 90"))
    sys.modules.pop("myparts")
    assert fingerprint(checked(*words)) != one


def test_an_empty_door_is_no_door():
    """What ran before there were any keeps its fingerprint."""
    assert fingerprint(checked("trainer.max_epochs=20")) == "666c88a0"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nothing", "returned NoneType; allowed: (images, labels)"),
        ("holes", "images of float64 (300, 12, 12), with NaN or infinite values; allowed"),
        ("empty", "images of uint8 (0, 12, 12), which is empty; allowed"),
        ("no_test", "images of uint8 (0, 12, 12), which is empty; allowed"),
        ("channels_last", "uint8 (300, 8, 9, 3); try images.transpose(0, 3, 1, 2)"),
        ("flat", "images of uint8 (300, 144), which has 2 axes"),
        ("uneven", "returned images of list; allowed"),
        ("one_hot", "labels of float64 (300, 2); allowed: one label for each image; labels.argmax"),
        ("mixed", "of several kinds or unknown ones: int, str; allowed"),
        ("unknown", "of several kinds or unknown ones: NoneType, str; allowed"),
        ("no_number", "labels of float64 (300,) such as nan; allowed"),
        ("dates", "labels of datetime64[D] (300,) such as 2026-01-01; allowed"),
        ("pair", "returned one image of each class, too few to split"),
        ("short", "labels of int64 (299,) for 300 images"),
        ("flags", "labels of float64 (300,)"),
        ("single", "returned one class, '0'"),
        ("many", "which has 65 channels; allowed: a NumPy array of finite numbers"),
        ("words", "which are not numbers"),
        ("kinds", "train images of uint8 (1, 12, 12) and test images of float64 (1, 12, 12)"),
        ("other", "no train image has the test label 5"),
        ("fails", "OSError: the disk is gone"),
        ("absent", "has no attribute 'absent'"),
        ("GREY", "data._target_=myparts.GREY is not a function"),
    ],
)
def test_what_makes_no_data_set_is_one_sentence(command, tmp_path, name, words):
    answer = command("train", "data=own", f"data._target_=myparts.{name}", *SHORT)
    assert (answer.code, words in answer.err) == (2, True), answer.err
    assert answer.err.count("\n") == 1
    assert not results(tmp_path)


@pytest.mark.parametrize(
    ("labels", "plain"),
    [
        (np.array(["b", "a"], object), ["b", "a"]),
        (np.array([3, np.int64(-1)], object), [3, -1]),
        (np.array([[3], [1]]), [3, 1]),
        ([1.0, 2.0], [1, 2]),
        (np.array([2.0, 1.0], np.float32), [2, 1]),
        ((True, False), [True, False]),
        (np.array([b"caf\xc3\xa9", b"tea"]), ["café", "tea"]),
        (torch.tensor([4, 5]), [4, 5]),
        (pandas.Series(["x", "y"], dtype="category"), ["x", "y"]),
    ],
)
def test_labels_may_be_held_in_many_ways(labels, plain):
    found = plain_labels(labels)
    assert found.tolist() == plain
    assert found.dtype.kind in "biU"


@pytest.mark.parametrize(
    "arguments",
    [["data=own", "data._target_=myparts.load"], ["data.augment.own=[myparts.noise]"]],
)
def test_what_is_not_allowed_is_not_imported(command, arguments):
    answer = command("train", *arguments, *TINY)
    assert (answer.code, "add allow_packages=[myparts]" in answer.err) == (2, True), answer.err
    assert "myparts" not in sys.modules


def test_data_without_a_function_says_how_to_name_one(command):
    answer = command("train", "data=own")
    assert (answer.code, "data._target_ is not set" in answer.err) == (2, True), answer.err


def test_an_augmentation_of_the_users_repeats_with_the_seed(command, tmp_path):
    words = ["data.augment.own=[myparts.noise]", "allow_packages=[myparts]", *TINY]
    for more in ([], ["trainer.steps_per_execution=1"]):
        answer = command("train", *words, *more)
        assert answer.code == 0, answer.err
    assert command("train", *TINY).code == 0
    metrics = {}
    for result in results(tmp_path):
        metrics.setdefault(result["fingerprint"], []).append(result["metrics"])
    (without,), (one, same) = sorted(metrics.values(), key=len)
    assert one == same != without


def test_an_augmentation_that_changes_the_kind_of_images_is_named(command):
    words = ["data.augment.own=[myparts.grows]", "allow_packages=[myparts]", *TINY]
    answer = command("train", *words)
    assert answer.code == 1
    assert "myparts.grows made torch.float32" in answer.out


def test_a_claim_file_that_is_not_there_is_one_sentence(command):
    answer = command("claim", "mine.yaml")
    assert (answer.code, "or a file <claim>.yaml" in answer.err) == (2, True), answer.err
