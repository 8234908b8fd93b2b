import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from convscape.base import machine
from convscape.base.errors import ConfigError
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.runs.result import Result
from convscape.trained.evaluate import evaluate, wilson_interval
from convscape.trained.explain import choose_image
from convscape.trained.load import load_run
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    """In 32 bits, so that the network can be asked again without autocast."""
    path = tmp_path_factory.mktemp("run")
    overrides = [*TINY, "trainer.precision=fp32"]
    assert train(ResolvedRun(checked(*overrides), overrides), path).status == "ok"
    return path


@pytest.fixture(scope="module")
def run(run_path):
    return load_run(run_path)


@pytest.fixture
def digits(run, tmp_path):
    """Five test images as colour picture files."""
    images, _ = run.data.tensors("test")
    folder = tmp_path / "digits"
    (folder / "inner").mkdir(parents=True)
    for index in range(5):
        picture = Image.fromarray(images[index, 0].numpy()).convert("RGB")
        picture.save(folder / ("inner" if index else ".") / f"{index}.png")
    return folder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_evaluation_is_what_scikit_learn_counts(run, split):
    images, labels = run.data.tensors(split)
    with torch.inference_mode():
        logits = run.model(images)
    evaluation = evaluate(run, split)
    expected = confusion_matrix(labels, logits.argmax(1), labels=range(10))
    assert np.array_equal(evaluation.confusion, expected)
    assert evaluation.acc == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert evaluation.class_acc == pytest.approx(list(expected.diagonal() / expected.sum(1)))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluation_is_what_the_run_recorded(precision, tmp_path):
    recorded = train(
        ResolvedRun(checked(*TINY, f"trainer.precision={precision}")), tmp_path
    ).metrics
    for split in ("val", "test"):
        found = evaluate(load_run(tmp_path), split).as_dict()
        assert found[f"{split}/acc"] == recorded[f"{split}/acc"]
        assert found[f"{split}/loss"] == pytest.approx(recorded[f"{split}/loss"], rel=1e-6)


def test_the_interval_is_wilsons():
    """Example of Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(1.0, 10)[1] == pytest.approx(1.0)


def test_evaluate_prints_tables_or_json(command, run_path):
    answer = command("evaluate", run_path, "--split", "val")
    assert answer.code == 0, answer.err
    assert "val split of digits: 100 images" in answer.out
    assert "confusion matrix" in answer.out
    document = json.loads(command("evaluate", run_path, "--json").out)
    assert document["num_images"] == 359 == np.sum(document["confusion"])


def test_predictions_are_those_of_the_network_on_the_same_pixels(command, run, digits):
    (digits / "inner" / "holiday.heic").write_bytes(b"")
    answer = command("predict", run.path, digits, "--json")
    assert answer.code == 0, answer.err
    assert answer.err == "left out: 1 other files in these folders\n"
    document = json.loads(answer.out)
    images, _ = run.data.tensors("test")
    expected = run.logits(images[:5]).softmax(1)
    assert [entry["path"].rpartition("/")[2] for entry in document] == [
        f"{index}.png" for index in range(5)
    ]
    for entry, row in zip(document, expected, strict=True):
        assert entry["class"] == run.classes[row.argmax()]
        for name, probability in zip(run.classes, row.tolist(), strict=True):
            assert entry["probabilities"][name] == pytest.approx(probability, abs=1e-5)
        assert sum(entry["probabilities"].values()) == pytest.approx(1)
        assert entry["fitted"] == "28x28 RGB, made grey"


def test_predict_says_how_a_picture_was_fitted_and_names_what_it_cannot_read(
    command, run_path, tmp_path
):
    photo = Image.new("RGB", (90, 60), "white")
    exif = photo.getexif()
    exif[0x0112] = 6  # lies on its side
    photo.save(tmp_path / "photo.jpg", exif=exif)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not really")
    answer = command("predict", run_path, tmp_path / "photo.jpg", tmp_path / "broken.png")
    assert answer.code == 2
    assert "60x90 RGB, turned upright, cut to 60x60, resized to 28x28, made grey" in answer.out
    assert (
        "the picture looks like a negative compared with the training images; --invert"
        in answer.out
    )
    assert "broken.png" in answer.err


def test_inverting_swaps_dark_and_light(command, run, digits, tmp_path):
    with Image.open(digits / "0.png") as image:
        Image.fromarray(255 - np.asarray(image)).save(tmp_path / "negative.png")
    plain = json.loads(command("predict", run.path, digits / "0.png", "--json").out)
    arguments = (run.path, tmp_path / "negative.png", "--json", "--invert")
    inverted = json.loads(command("predict", *arguments).out)
    assert plain[0]["probabilities"] == pytest.approx(inverted[0]["probabilities"], abs=1e-5)


def test_explain_warns_of_a_negative_and_swaps_it_as_predict_does(command, run, digits, tmp_path):
    with Image.open(digits / "0.png") as image:
        Image.fromarray(255 - np.asarray(image)).save(tmp_path / "negative.png")
    warning = "the picture looks like a negative compared with the training images; --invert swaps"
    out = ("--out", tmp_path / "page.html")
    for script, more in (("explain", out), ("predict", ())):
        assert warning in command(script, run.path, tmp_path / "negative.png", *more).out
        for words in ((digits / "0.png",), (tmp_path / "negative.png", "--invert")):
            answer = command(script, run.path, *words, *more)
            assert (answer.code, "negative beside" in answer.out) == (0, False), answer.out
    plain = choose_image(run, str(digits / "0.png"), "test").image
    swapped = choose_image(run, str(tmp_path / "negative.png"), "test", invert=True)
    assert torch.equal(plain, swapped.image)
    assert swapped.name.endswith("dark and light swapped")
    again = choose_image(run, "0", "test", invert=True)
    assert torch.equal(255 - again.image, run.data.tensors("test")[0][0])


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("evaluate", ["nowhere"], "there is no nowhere; allowed: a folder such as"),
        ("predict", ["{run}", "."], "holds no pictures"),
        ("predict", ["{run}", "missing.png"], "there is no picture or folder missing.png"),
    ],
)
def test_a_users_mistake_is_one_sentence(command, run_path, script, arguments, words):
    answer = command(script, *(argument.format(run=run_path) for argument in arguments))
    assert (answer.code, words in answer.err) == (2, True), answer.err


def test_a_checkpoint_that_is_damaged_or_missing_is_one_sentence(run_path, tmp_path):
    config = RunFolder(run_path).read_config()
    RunFolder(tmp_path).create(Result("cnn", "12345678", config=config))
    with pytest.raises(ConfigError, match=r"has no checkpoints/best\.ckpt"):
        load_run(tmp_path)
    RunFolder(tmp_path).best_checkpoint.write_bytes(b"garbage")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_run(tmp_path)


@pytest.fixture
def taken(run_path, tmp_path):
    """Its copy, as if it had been trained on another device."""

    def write(device):
        shutil.copytree(run_path, tmp_path / "elsewhere", dirs_exist_ok=True)
        folder = RunFolder(tmp_path / "elsewhere")
        result = folder.read_result()
        result.environment["device"] = device
        folder.write(result)
        return load_run(folder.path)

    return write


def test_a_run_is_used_on_the_device_that_it_took_where_that_is_here(taken, monkeypatch):
    assert taken("cuda:1").device.type == "cpu"  # what trainer.device=auto is here
    # torch has one device more on every machine
    monkeypatch.setattr(machine, "devices", lambda: ["cpu", "meta"])
    assert taken("meta").device.type == "meta"
    assert taken("meta")._resolved.device == machine.Device("meta")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cuda:1", "auto"), "cuda:1"),
        (("cuda:2", "cuda:1"), "cuda:1"),
        (("cuda:2", "cpu"), "cpu"),
        (("cuda:2", "auto"), "cuda"),
        (("mps:0", "auto"), "cuda"),
        (("$(reboot)", "auto"), "cuda"),
    ],
)
def test_one_gpu_is_not_the_other(names, expected, monkeypatch):
    monkeypatch.setattr(machine, "devices", lambda: ["cpu", "cuda", "cuda:0", "cuda:1"])
    assert str(machine.first_here(*names)) == expected


def test_apples_gpu_is_the_one_that_there_is(monkeypatch):
    monkeypatch.setattr(machine, "devices", lambda: ["cpu", "mps"])
    assert str(machine.first_here("mps:0", "cpu")) == "mps"
    assert str(machine.first_here("cuda:0", "auto")) == "mps"
