"""The real TensorBoard on a sweep that mixes networks."""

import io
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from convscape.training.records import record
from tests.conftest import PATIENCE_S, TINY, wait_for
from tests.warm import WarmScript


@pytest.fixture(scope="module")
def tensorboard(tmp_path_factory):
    """Its address, on a sweep of a CNN and an MLP with two seeds each."""
    folder = tmp_path_factory.mktemp("sweep")
    sweep = ["-m", "name=mixed", "model=cnn,mlp", "seed=0,1", *TINY[1:], "visual=full"]
    training = WarmScript("train", sweep, folder, notes=folder)
    assert training.wait() == 0, training.communicate()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tensorboard.main", "--host", "127.0.0.1", "--port", "0"),
            *("--logdir", str(folder / "outputs" / "sweeps" / "mixed"), "--load_fast=false"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if match := re.search(r"http://127\.0\.0\.1:\d+/", line):
            break

    def all_is_read():
        with suppress(urllib.error.HTTPError):  # there is no session yet
            return sum(len(group["sessions"]) for group in groups(match[0])) == 4

    def all_is_offered():  # the projector looks for embeddings in a thread of its own
        return json.loads(answer(f"{match[0]}data/plugins_listing"))["projector"]["enabled"]

    wait_for(all_is_read, process)
    wait_for(all_is_offered, process)
    yield match[0]
    process.kill()
    process.communicate()


def answer(request):
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        return response.read()


def ask(url, **body):
    data = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    return json.loads(answer(urllib.request.Request(url, data, headers)))


def groups(tensorboard):
    """The configurations of the HParams tab, of sessions that have ended."""
    return ask(
        f"{tensorboard}data/plugin/hparams/session_groups",
        allowedStatuses=["STATUS_SUCCESS"],
        startIndex=0,
        sliceSize=10,
        colParams=[{"metric": {"tag": "result/test/acc"}}],
        aggregationType="AGGREGATION_AVG",
    )["sessionGroups"]


def test_hparams_has_the_union_of_the_keys_and_a_row_per_configuration(tensorboard):
    experiment = ask(f"{tensorboard}data/plugin/hparams/experiment", hparamsLimit=0)
    names = [info["name"] for info in experiment["hparamInfos"]]
    assert names[0] == "model"  # what differs; the seed is no key
    metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
    assert metrics == [f"result/{n}" for n in ("val/acc", "test/acc", "num_parameters", "macs")]
    assert {
        "model",
        "model.kernel_size",
        "model.hidden",
        "optimizer.lr",
        "data",
        "data.train_size",
    } <= set(names)
    found = groups(tensorboard)
    assert sorted(group["hparams"]["model"] for group in found) == ["CNN", "MLP"]
    for group in found:
        values = [
            metric["value"]
            for session in group["sessions"]
            for metric in session["metricValues"]
            if metric["name"]["tag"] == "result/test/acc"
        ]
        means = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
        assert len(values) == 2
        assert means["result/test/acc"] == pytest.approx(sum(values) / 2)
        assert means.keys() == set(metrics)


def test_curves_have_readable_names_and_a_layout(tensorboard):
    runs = json.loads(answer(f"{tensorboard}data/runs"))
    assert len(runs) == 4
    assert all(re.fullmatch(r"(cnn_k3_s1_valid|mlp_512-512)_[\w.-]+", run) for run in runs)
    layout = json.loads(answer(f"{tensorboard}data/plugin/custom_scalars/layout"))
    assert [chart["title"] for chart in layout["category"][0]["chart"]] == [
        *("accuracy", "loss", "learning rate")
    ]


def test_the_hparams_tab_shows_in_a_browser(tensorboard, browser):
    page = browser.new_page(viewport={"width": 1600, "height": 900})
    page.goto(f"{tensorboard}#hparams")
    page.get_by_text("TABLE VIEW").wait_for()
    page.get_by_text("model.kernel_size").first.wait_for()
    page.get_by_text("test/acc").first.wait_for()


@pytest.mark.parametrize(
    ("tab", "shown"),
    [
        ("images", "text=view/confusion"),
        ("graphs", "tf-graph-scene, graph-app, tf-graph-app"),
        ("projector", "text=last_hidden_layer"),
    ],
)
def test_pictures_graph_and_embedding_show_in_a_browser(tensorboard, browser, tab, shown):
    page = browser.new_page(viewport={"width": 1400, "height": 1000})

    def shows():  # the projector is a page in its plug-in's page in TensorBoard's
        page.wait_for_timeout(50)
        return any(frame.locator(shown).count() for frame in page.frames)

    deadline = time.monotonic() + PATIENCE_S
    while True:
        # once in a while TensorBoard never builds the inner pages: users press reload
        page.goto("about:blank")
        page.goto(f"{tensorboard}#{tab}")
        attempt = time.monotonic() + 30
        while time.monotonic() < attempt:
            if shows():
                return
        assert time.monotonic() < deadline, f"{tab}: {page.locator('body').inner_text()}"


@pytest.mark.long
def test_tensorflow_is_left_alone_where_it_is_installed(tmp_path):
    """It takes seconds, and its LLVM ends the process when torch loads its own."""
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('imported')")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    code = "import convscape.training.run, torch.utils.tensorboard"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("length", [0, 1, 8, 255, 256, 257, 511, 512, 5000])
def test_records_are_those_of_tensorboard(length):
    data, file = os.urandom(length), io.BytesIO()
    RecordWriter(file).write(data)
    assert record(data) == file.getvalue()
