"""The data of a run at a later command: moved, changed, or not needed."""

import json
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from convscape.base.errors import Stopped
from convscape.data.cache import DataError
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.runs.result import Result
from convscape.trained.load import load_run
from convscape.training.run import train
from tests.test_config import checked

CLASSES = ("cat", "dog", "owl")


def paint_classes(root, classes=CLASSES, num_images=10):
    """Grey pictures of 8x8; the classes differ in brightness."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(num_images):
            pixels = rng.integers(60 * number, 60 * number + 60, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")


def words(root, *more):
    return [
        *("data=image_folder", f"data.root={root}", "data.image_size=8", "data.channels=1"),
        *("model=cnn", "model.channels=[2]", "data.augment.shift=0", "data.augment.flip=false"),
        *("trainer.max_epochs=2", "trainer.threads=1", "trainer.progress=off", "visual=off"),
        *("logger=[]", *more),
    ]


@pytest.fixture(scope="module")
def trained_in(tmp_path_factory):
    """A folder with `photos` and a `run` trained on them, stopped after an epoch in `half`."""
    folder = tmp_path_factory.mktemp("moving")
    paint_classes(folder / "photos")

    def stop(row):
        raise Stopped("enough")

    config = checked(*words(folder / "photos"))
    assert train(ResolvedRun(config), folder / "run").status == "ok"
    assert train(ResolvedRun(config), folder / "half", on_epoch=stop).status == "interrupted"
    return folder


@pytest.fixture
def place(trained_in, tmp_path):
    """A copy of it all; the run folders still say where the pictures were first."""
    for name in ("photos", "run", "half"):
        shutil.copytree(trained_in / name, tmp_path / name)
    return tmp_path


def rename_class(photos):
    (photos / "cat").rename(photos / "zebra")
    return "now checksum", "(dog, owl, zebra)"


def add_class(photos):
    paint_classes(photos, ["cow"])
    return "now checksum", "4 classes (cat, cow, dog, owl)"


def change_pictures(photos):
    for path in (photos / "cat").iterdir():
        Image.new("L", (8, 8), 200).save(path)
    return "then checksum", "and the same classes"


CHANGES = [rename_class, add_class, change_pictures]


@pytest.mark.parametrize("change", CHANGES)
def test_data_that_changed_since_training_are_refused_with_both(command, place, change):
    said = change(place / "photos")
    moved = f"data.root={place / 'photos'}"
    for script, *arguments in (["evaluate"], ["explain", 0], ["probe", "permute"]):
        answer = command(script, place / "run", *arguments, moved)
        assert answer.code == 2, answer.out
        assert all(word in answer.err for word in said), answer.err
        assert load_run(place / "run").result.data_checksum in answer.err
        assert answer.err.count("\n") == 1
    assert not (place / "run" / "probes").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_does_not_go_on_with_other_data_and_writes_nothing(command, place, change):
    def files():
        return {p: p.read_bytes() for p in (place / "half").rglob("*") if p.suffix}

    before, said = files(), change(place / "photos")
    answer = command("train", f"resume={place / 'half'}", f"data.root={place / 'photos'}")
    assert answer.code == 2, answer.out
    assert all(word in answer.err for word in said), answer.err
    assert files() == before


def test_a_run_whose_pictures_moved_goes_on_and_remembers_where_they_are(command, place):
    config = RunFolder(place / "half").read_config()
    assert config["data"]["root"] != str(place / "photos")
    answer = command("train", f"resume={place / 'half'}", f"data.root={place / 'photos'}")
    assert answer.code == 0, answer.err
    first, again = (RunFolder(place / name).read_result() for name in ("run", "half"))
    assert (first.metrics, first.fingerprint) == (again.metrics, again.fingerprint)
    assert RunFolder(place / "half").read_config()["data"]["root"] == str(place / "photos")


def test_the_checksum_is_on_disk_before_the_first_step(trained_in, tmp_path, monkeypatch):
    seen = []

    def look(*_):
        seen.append(json.loads((tmp_path / "result.json").read_text()))
        raise Stopped("looked")

    monkeypatch.setattr("convscape.training.run._prepared", look)
    train(ResolvedRun(checked(*words(trained_in / "photos"))), tmp_path)
    (result,) = seen
    assert (result["status"], result["dataset"]["classes"]) == ("running", list(CLASSES))
    assert len(result["data_checksum"]) == 12


def test_other_data_are_measured_on_purpose_if_they_fit(command, place):
    rename_class(place / "photos")
    moved = f"data.root={place / 'photos'}"
    answer = command("evaluate", place / "run", "--other-data", moved, "--json")
    assert answer.code == 0, answer.err
    document = json.loads(answer.out)
    assert document["classes"] == ["dog as cat", "owl as dog", "zebra as owl"]
    assert "not the images it was trained on" in document["data"]
    answer = command("probe", place / "run", "permute", "--other-data", moved)
    assert answer.code == 0, answer.err
    add_class(place / "photos")
    answer = command("evaluate", place / "run", "--other-data", moved)
    assert answer.code == 2
    assert "4 classes (cow, dog, owl, zebra), and the network 3 classes" in answer.err


def test_a_folder_that_is_gone_is_not_a_broken_checkpoint(command, place):
    config = RunFolder(place / "run").read_config()
    for name in ("run", "half"):
        stored = config | {"data": config["data"] | {"root": str(place / "gone")}}
        result = RunFolder(place / name).read_result()
        result.config = stored
        RunFolder(place / name).create(result)
    words = f"there is no folder '{place / 'gone'}'; add data.root=<where they are now>"
    for arguments in (
        *(["evaluate", place / "run"], ["explain", place / "run", 0]),
        *(["probe", place / "run", "permute"], ["train", f"resume={place / 'half'}"]),
    ):
        answer = command(*arguments)
        assert (answer.code, words in answer.err) == (2, True), answer.err
    picture = place / "photos" / "owl" / "3.png"
    for arguments in (
        *(["predict", place / "run", picture], ["explain", place / "run", picture]),
        ["export", place / "run", "--format", "torch_export"],
    ):
        answer = command(*arguments)
        assert answer.code == 0, answer.err
    for script in ("evaluate", "export --format torch_export"):
        name, *options = script.split()
        answer = command(name, place / "run", *options, f"data.root={place / 'photos'}")
        assert answer.code == 0, answer.err
    run = load_run(place / "run", root=place / "photos", cache_dir=place / "cache")
    assert run.data.labels("test").tolist() == [0, 0, 1, 1, 2, 2]
    assert (place / "cache").is_dir()
    with pytest.raises(DataError, match="not where they were"):
        _ = load_run(place / "run").data


OWN = """
import lightning, torch

class Net(torch.nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.last = torch.nn.Linear(input_shape[1] * input_shape[2], num_classes)

    def forward(self, images):
        return self.last(images.flatten(1))

class Lit(lightning.LightningModule):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.net = Net(input_shape, num_classes)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    test_step = lambda self, batch, batch_idx: None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
"""


@pytest.mark.parametrize("kind", ["Net", "Lit"])
def test_a_network_of_ones_own_needs_no_data_either(command, place, monkeypatch, kind):
    (place / "movednets.py").write_text(OWN)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "movednets", raising=False)
    own = ["model=own", f"model._target_=movednets.{kind}", "allow_packages=[movednets]"]
    overrides = [w for w in words(place / "photos", *own) if w not in ("model=cnn",)]
    overrides = [w for w in overrides if not w.startswith("model.channels")]
    path = place / kind
    assert train(ResolvedRun(checked(*overrides), overrides), path).status == "ok"
    picture = place / "photos" / "owl" / "3.png"
    allowed = ("--allow-packages", "movednets")
    there = json.loads(command("predict", path, picture, "--json", *allowed).out)
    (place / "photos").rename(place / "elsewhere")
    picture = place / "elsewhere" / "owl" / "3.png"
    answer = command("predict", path, picture, "--json", *allowed)
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)[0]["probabilities"] == there[0]["probabilities"]
    answer = command("export", path, "--format", "torch_export", *allowed)
    assert answer.code == 0, answer.err
    if kind == "Net":  # which knows its classes and how to normalise
        return
    forget(path, "dataset")  # as earlier runs, which need their data for that
    change_pictures(place / "elsewhere")
    asked = ["predict", path, picture, *allowed, f"data.root={place / 'elsewhere'}"]
    answer = command(*asked)
    assert (answer.code, "--other-data (in Python" in answer.err) == (2, True), answer.err
    answer = command(*asked, "--other-data")
    assert answer.code == 0, answer.err


def test_a_place_that_the_shell_has_left_as_it_is_is_not_looked_up(command, monkeypatch):
    monkeypatch.setenv("SECRET", "xyzzy")
    answer = command("evaluate", "run", "data.root=$SECRET/x")
    assert (answer.code, "has left $SECRET as it is" in answer.err) == (2, True), answer.err
    assert "xyzzy" not in answer.err + answer.out


def test_only_the_place_of_the_data_can_be_said_anew(command):
    answer = command("evaluate", "a run", "data.rot=photos")
    assert answer.code == 2
    assert "allowed: data.root, data.cache_dir; did you mean 'data.root'?" in answer.err


def forget(path, *keys):
    """Make result.json that of a run made before it held `keys`."""
    document = json.loads((path / "result.json").read_text())
    kept = {key: value for key, value in document.items() if key not in keys}
    (path / "result.json").write_text(json.dumps(kept))


@pytest.mark.parametrize("script", ["evaluate", "predict", "explain", "probe", "export"])
def test_every_command_that_takes_a_run_has_the_options_that_refusals_name(command, script):
    said = command(script, "--help").out
    assert "--allow-packages" in said
    assert "--other-data" in said


def test_what_earlier_runs_did_not_note_is_not_asked_of_them(place):
    forget(place / "run", "dataset", "data_checksum")
    change_pictures(place / "photos")
    assert load_run(place / "run", root=place / "photos").image_set.classes == CLASSES


@pytest.mark.parametrize(
    "dataset",
    [
        [],
        {"classes": ["a"]},
        {"classes": ["a", 1], "image_shape": [1, 8, 8], "mean": [0.5], "std": [0.5]},
        {"classes": ["a"], "image_shape": [1, 8, 8], "mean": [10**400], "std": [0.5]},
        {"classes": ["a"], "image_shape": [3, 8, 8], "mean": [0.5], "std": [0.5]},
        {"classes": ["a"], "image_shape": [1, 8, -8], "mean": [0.5], "std": [0.5]},
        {"classes": ["a"], "image_shape": [1, 8, 8], "mean": [0.5], "std": [0]},
    ],
)
def test_a_strangers_words_on_the_data_are_checked(dataset):
    document = {"run": "r", "fingerprint": "f", "config": {}, "overrides": [], "seed": 0}
    document |= {"status": "ok", "metrics": {}, "seconds": {}, "environment": {}}
    Result.from_json(json.dumps(document).encode())
    with pytest.raises(ValueError, match="dataset is of the wrong kind"):
        Result.from_json(json.dumps(document | {"dataset": dataset}).encode())
