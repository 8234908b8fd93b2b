"""What runs get wrong, image by image, as the tab in TensorBoard shows it."""

import base64
import dataclasses
import json

import numpy as np
import pytest

from convscape.board.plugin import ConvscapePlugin
from convscape.runs.folder import RunFolder
from convscape.runs.predictions import Answers, Predictions, write_answers
from convscape.trained.load import load_run
from convscape.trained.mistakes import document

from .fake_runs import finished_run, write_run
from .test_config import composed


def answering(folder, number, predicted, labels, checksum="abc"):
    """A run that gave its answers with a probability of 0.7."""
    result = finished_run(composed(), {}, number, 0.9, number)
    path = folder / f"run{number}"
    write_run(path, result)
    predicted, labels = np.array(predicted), np.array(labels)
    right = predicted == labels
    probability = np.where(right, 0.7, 0.2)
    answers = Predictions(labels, predicted, probability, np.where(right, 0.5, -0.5))
    write_answers(RunFolder(path), Answers({"val": answers}, checksum))
    return path, result


def test_the_images_that_most_get_wrong_come_first_with_what_was_said(tmp_path):
    labels = [3, 3, 3, 5]
    runs = [
        answering(tmp_path, 0, [3, 8, 8, 5], labels),
        answering(tmp_path, 1, [3, 8, 3, 5], labels),
        answering(tmp_path, 2, [3, 2, 3, 6], labels),
        answering(tmp_path, 3, [3, 3, 3, 3], labels, checksum="other"),
    ]
    found = document(runs, "val")
    assert (found["runs"], found["images"], found["left_out"]) == (3, 4, 1)
    assert [one["place"] for one in found["wrong"]] == [1, 2, 3]
    said = [(each["label"], each["runs"]) for each in found["wrong"][0]["said"]]
    assert said == [(8, 2), (2, 1)]
    assert found["wrong"][1]["p"] == pytest.approx((0.2 + 0.7 + 0.7) / 3, abs=1e-4)
    assert "then checksum abc" in found["missing"]  # digits have another, and are not shown
    assert "pixels" not in found
    assert document(runs, "test")["runs"] == 0


def test_of_a_run_whose_data_are_here_the_pixels_are_those_of_the_split(whole):
    run = load_run(whole.path)
    found = document([(whole.path, run.result)], "val")
    with np.load(whole.predictions_file) as arrays:
        wrong = np.flatnonzero(arrays["val_labels"] != arrays["val_predicted"])
    assert sorted(one["place"] for one in found["wrong"]) == wrong.tolist()
    places = [one["place"] for one in found["wrong"]]
    pixels = np.frombuffer(base64.b64decode(found["pixels"]), np.uint8)
    images, _ = run.data.tensors("val")
    np.testing.assert_array_equal(
        pixels.reshape(-1, *found["shape"]), images.numpy()[np.array(places, int)]
    )


def test_the_tab_serves_them_for_a_folder_or_a_run_and_nothing_else(tmp_path):
    for number in range(2):
        answering(tmp_path / "sweep", number, [number, 1], [0, 1])

    @dataclasses.dataclass
    class Context:
        logdir: str = str(tmp_path)

    from werkzeug.test import Client

    client = Client(ConvscapePlugin(Context()).get_plugin_apps()["/images"])
    found = json.loads(client.get("/?folder=sweep&split=val&run=").data)
    assert (found["runs"], len(found["wrong"])) == (2, 1)
    alone = json.loads(client.get("/?folder=sweep&split=val&run=sweep/run0").data)
    assert (alone["runs"], alone["wrong"]) == (1, [])
    for wrong in ("folder=..&split=val", "folder=sweep&split=val&run=../x", "folder=sweep&split=x"):
        assert client.get(f"/?{wrong}").status_code == 404
