"""Data sets of one's own that give one image at a time, and data modules."""

import json

import numpy as np
import pytest
import torch

import convscape
from convscape.data.cache import DataError
from convscape.data.custom import load_own
from convscape.runs.fingerprint import fingerprint
from convscape.runs.folder import RunFolder
from tests.dying import train_apart
from tests.own_data import NUM_IMAGES, bands
from tests.test_config import checked
from tests.test_resume import assert_equal_runs

SHORT = ["allow_packages=[tests]", "model.channels=[4]", "data.batch_size=16", "trainer.threads=1"]
SHORT += ["trainer.max_epochs=4", "trainer.progress=off", "data=own"]


def own(tmp_path, name, arguments=None, **more):
    places = {"root": "", "cache_dir": tmp_path}
    return load_own(f"tests.own_data.{name}", arguments or {}, ["tests"], **places, **more)


def everything(image_set):
    """All images as bytes, with their labels, in no order."""
    splits = ["train", "test"] + ["val"] * (image_set.val_labels is not None)
    return sorted(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(
            getattr(image_set, f"{split}_images"),
            getattr(image_set, f"{split}_labels"),
            strict=True,
        )
    )


def sizes(image_set):
    found = [len(image_set.train_labels), len(image_set.test_labels)]
    return found if image_set.val_labels is None else [*found, len(image_set.val_labels)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tensors", [192, 48]),
        ("INSTANCE", [192, 48]),
        ("pictures", [192, 48]),
        ("dicts", [160, 40, 40]),
        ("Module", [160, 40, 40]),
        ("Streams", [192, 48]),
    ],
)
def test_every_image_is_read_once_with_its_label(tmp_path, name, expected):
    """PIL, NumPy (H, W, C) and tensors (C, H, W) are the same images."""
    image_set = own(tmp_path, name, use_val=len(expected) == 3)
    assert sizes(image_set) == expected
    images, labels = bands(3, kind="uint8")
    whole = zip(images, labels, strict=True)
    assert everything(image_set) == sorted((image.tobytes(), int(k)) for image, k in whole)


def test_names_of_classes_are_taken_over_in_the_order_of_the_labels(tmp_path):
    """Those of bare numbers are the numbers."""
    assert own(tmp_path, "tensors").classes == ("upper", "lower")
    assert own(tmp_path, "dicts", use_val=True).classes == ("0", "1")


def test_a_pair_is_train_and_test(tmp_path):
    image_set = own(tmp_path, "two")
    assert sizes(image_set) == [NUM_IMAGES, 100]
    assert (image_set.test_images == bands(3, kind="uint8")[0][:100]).all()


def test_pictures_of_many_sizes_and_kinds_get_one(tmp_path):
    with pytest.raises(DataError, match=r"images of 1x12x12 and of 3x12x12; .* data.channels=3"):
        own(tmp_path, "unlike")
    with pytest.raises(DataError, match=r"3x12x12 and of 3x14x20; .* data.image_size=12x12 makes"):
        own(tmp_path, "unlike", channels=3)
    image_set = own(tmp_path, "unlike", channels=3, image_size="12x12")
    assert (image_set.image_shape, image_set.classes) == ((3, 12, 12), ("even", "odd"))


def test_a_sampler_says_which_images_train(tmp_path):
    image_set = own(tmp_path, "Chosen")
    images, _ = bands(3, kind="uint8")
    assert (image_set.train_images == images[[3, 5, *range(20, 80)]]).all()
    assert sizes(image_set) == [62, 40]


def test_a_loader_of_any_kind_is_read_in_its_order(tmp_path):
    image_set = own(tmp_path, "TrainAlone")
    assert sizes(image_set) == [192, 48]
    assert image_set.image_shape == (1, 12, 12)
    assert image_set.stretch is not None


def test_splits_that_are_drawn_are_the_same_in_every_process_and_draw_for_no_one_else(tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = own(tmp_path, "Module", use_val=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    other = own(tmp_path / "other", "Module", use_val=True)
    assert one.checksum == other.checksum
    assert (one.val_images == other.val_images).all()


def test_validation_of_a_data_module_is_used_where_it_is_asked_for(tmp_path, caplog):
    own(tmp_path, "Module")
    assert "its 40 images for validation are not used; data.val_size=null does that" in caplog.text
    words = [*SHORT, "data._target_=tests.own_data.Module"]
    used = checked(*words, "data.val_size=null")
    assert fingerprint(used) != fingerprint(checked(*words))
    alone = checked(*SHORT, "data._target_=tests.own_data.tensors", "data.val_size=null")
    with pytest.raises(DataError, match=r"brings no images of its own for validation; allowed"):
        alone.load_images()


@pytest.mark.parametrize("name", ["tensors", "Module"])
def test_they_go_on_bit_for_bit_and_are_evaluated(command, tmp_path, name):
    words = [*SHORT, f"data._target_=tests.own_data.{name}"]
    words += ["data.val_size=null"] if name == "Module" else []
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train_apart(words, whole) == "ok"
    assert train_apart(words, stopped, "epoch", 2) is None
    assert train_apart(words, stopped) == "ok"
    assert_equal_runs(RunFolder(stopped), RunFolder(whole))
    result = json.loads((whole / "result.json").read_text())
    assert result["dataset"]["classes"] == ["upper", "lower"]
    assert result["metrics"]["test/acc"] > 0.8
    answer = command("evaluate", whole, "--allow-packages", "tests")
    assert answer.code == 0, answer.err
    assert f"{100 * result['metrics']['test/acc']:.2f} %" in answer.out


def test_python_takes_them_as_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*SHORT, "data._target_=tests.own_data.Module", "+data.arguments.batch_size=20"]
    assert convscape.train(*words).metrics["test/acc"] > 0.8


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flipping", "differently when it is read again: its augmentation is random, and would be"),
        ("Flipping", "use data.augment instead, such as data.augment.flip=true"),
        ("breaking", "failed: OSError: the disk is gone ("),
        ("Breaking", "failed: OSError: the disk is gone ("),
        ("triples", "its items are tuples of 3; allowed: (image, label), or dicts with image or"),
        ("holed", "with NaN or infinite values"),
        ("one_hot", "labels.argmax(1) turns one-hot labels into numbers"),
        ("paths", "it has an image of str, <U5 (); allowed: a PIL image, a NumPy array (H, W) or"),
        ("Two", "val_dataloader() returns list; allowed: one data loader"),
        ("Weighted", "draws different images each time, and each is read only once"),
    ],
)
def test_what_cannot_be_read_once_is_one_sentence(tmp_path, name, words):
    with pytest.raises(DataError) as error:
        own(tmp_path, name, use_val=name[0].isupper())
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_data_set_takes_no_arguments(tmp_path):
    with pytest.raises(
        convscape.ConfigError, match="INSTANCE is not a function, and takes no arguments"
    ):
        own(tmp_path, "INSTANCE", {"num": 3})


def test_floats_of_a_data_set_are_stretched(tmp_path):
    image_set = own(tmp_path, "Module", use_val=True)
    assert image_set.stretch is None
    alone = own(tmp_path, "TrainAlone")
    assert (alone.train_images.dtype, alone.train_images.max()) == (np.float32, 255)


def test_python_hands_them_over_as_a_data_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = {"_target_": "tests.own_data.Module", "val_size": None, "batch_size": 16}
    data = convscape.data_module("own", allow_packages=["tests"], **named)
    assert (data.image_shape, data.classes) == ((3, 12, 12), ["upper", "lower"])
    assert len(next(data.batches("val"))[1]) == 40
    with pytest.raises(convscape.ConfigError, match="allow_packages"):
        convscape.data_module("own", **named)
    run = convscape.train(*[word for word in SHORT if not word.startswith("data")], data=data)
    assert run.metrics["test/acc"] > 0.8
    assert convscape.load_run(run.path, ["tests"]).config.data.val_size is None
