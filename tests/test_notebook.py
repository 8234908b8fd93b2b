"""The lecture, run from its first cell to its last; and that its file is fit to be read."""

import importlib.util
import re

import nbformat
import pytest
from nbclient import NotebookClient

import convscape
from convscape.base import notebook

from .conftest import PATIENCE_S, ROOT, TINY

FILE = ROOT / "notebooks" / "lecture.ipynb"


def outputs_of(cell):
    """What a cell printed and showed, as text."""
    for output in cell.outputs:
        yield output.text if output.output_type == "stream" else output.data["text/plain"]


@pytest.fixture(scope="module")
def lecture(made_once):
    """The executed cells, with fewer epochs and seeds, and the folder that they left."""
    folder = made_once("lecture", execute)
    return nbformat.read(folder / "executed.ipynb", as_version=4).cells, folder


def execute(folder):
    lecture = nbformat.read(FILE, as_version=4)
    (parameters,) = (c for c in lecture.cells if "parameters" in c.metadata.get("tags", ()))
    long = "EPOCHS, SEEDS = 10, 3"
    assert parameters.source.startswith(long)
    parameters.source = parameters.source.replace(long, "EPOCHS, SEEDS = 1, 2")
    (folder / "notebooks").mkdir()
    place = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(lecture, kernel_name="python3", timeout=PATIENCE_S, resources=place).execute()
    nbformat.write(lecture, folder / "executed.ipynb")


@pytest.mark.long
def test_the_textbook_window_gives_16_and_turned_20(lecture):
    cells, _ = lecture
    (cell,) = (c for c in cells if "F.conv2d" in c.source)
    numbers = re.findall(r"(\S.*):\s+([\d.]+)", "\n".join(outputs_of(cell)))
    expected = {"cross-correlation": 16, "true convolution": 20, "torch's conv2d": 16}
    assert {name: float(number) for name, number in numbers} == expected


@pytest.mark.long
def test_one_hot_and_number_give_one_loss_and_a_permutation_costs_an_mlp_nothing(lecture):
    cells, _ = lecture
    printed = "\n".join(text for c in cells if c.cell_type == "code" for text in outputs_of(c))
    assert re.findall(r"(?:loss of the \w+|-ln p_2)\s+([\d.]+)", printed) == ["0.4076"] * 3
    assert re.findall(r"difference of a logit: ([\d.]+)", printed) == ["0.0000"] * 2


@pytest.mark.long
def test_the_numbers_of_its_text_are_those_of_its_tables(lecture):
    cells, _ = lecture
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    tables = [
        output.data["text/html"]
        for cell in cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    ]
    shown = set(re.findall(r">([\d,]+)<", "\n".join(tables)))
    written = set(re.findall(r"= ([\d{},]+)\$", text.replace("{,}", ",")))
    layers = {"39,250", "510", "320", "832", "18,496", "194,688"}
    assert layers <= shown
    assert layers <= written


@pytest.mark.long
def test_it_leaves_its_runs_and_a_finished_sweep_in_the_outputs_of_the_checkout(lecture):
    _, folder = lecture
    assert len([*(folder / "outputs/lecture/runs").iterdir()]) == 3
    assert len([*(folder / "outputs/lecture/sweeps/lecture").glob("*/result.json")]) == 8
    assert not [*(folder / "notebooks").iterdir()]


@pytest.mark.long
def test_a_sweep_is_a_table_that_grows(lecture):
    """What stands there in the end; nbclient keeps the last of what was shown in one place."""
    cells, _ = lecture
    (cell,) = (c for c in cells if "train_sweep(" in c.source and c.cell_type == "code")
    shown = "".join(o.data.get("text/html", "") for o in cell.outputs if "data" in o)
    assert shown.count(">ok<") == 8
    assert "[8/8]" in shown


def test_where_it_is_not_installed_it_says_what_to_upload(tmp_path, monkeypatch):
    cells = nbformat.read(FILE, as_version=4).cells
    source = next(c.source for c in cells if "%pip" in c.source)
    source = source.replace("%pip install -q {wheel}", "print(wheel)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssertionError, match=r"upload a convscape-\*.whl"):
        exec(source, {})
    (tmp_path / "convscape-0.1.0-py3-none-any.whl").touch()
    exec(source, {})


@pytest.fixture
def seen(monkeypatch):
    """What is shown in a notebook, one after the other."""
    seen = []

    class Shown:
        def __init__(self, html=""):
            self.replace(html)

        def replace(self, html):
            seen.append(html)

    monkeypatch.setattr(notebook, "is_here", lambda: True)
    monkeypatch.setattr(notebook, "Shown", Shown)
    return seen


def test_a_run_has_a_bar_that_goes_away_and_is_a_table(seen, tmp_path):
    run = convscape.train(*TINY, f"output_dir={tmp_path}")
    values = [float(v) for v in re.findall(r'value="([\d.]+)"', "".join(seen))]
    assert values == sorted(values)
    assert values[-1] == 1
    assert "epoch 2/2  train/loss" in seen[-2]
    assert seen[-1] == ""
    page = run._repr_html_()
    assert str(run.path) in page
    assert f"{100 * run.metrics['test/acc']:.2f} %" in page
    assert "block1.conv" in page


def test_the_file_is_small_and_names_no_machine():
    text = FILE.read_text("utf-8")
    assert len(text) < 700_000
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|usr)/", text)
