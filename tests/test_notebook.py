"""The lecture, run from its first cell to its last; and that its file is fit to be read."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import PATIENCE_S, ROOT

FILE = ROOT / "notebooks" / "lecture.ipynb"


def outputs_of(cell):
    """What a cell printed and showed, as text."""
    for output in cell.outputs:
        yield output.text if output.output_type == "stream" else output.data["text/plain"]


@pytest.fixture(scope="module")
def lecture(tmp_path_factory):
    """The executed cells, with fewer epochs and seeds, and the folder that they left."""
    notebook = nbformat.read(FILE, as_version=4)
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    long = "EPOCHS, SEEDS = 10, 3"
    assert parameters.source.startswith(long)
    parameters.source = parameters.source.replace(long, "EPOCHS, SEEDS = 1, 2")
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "notebooks").mkdir()
    place = {"metadata": {"path": str(folder / "notebooks")}}
    NotebookClient(notebook, kernel_name="python3", timeout=PATIENCE_S, resources=place).execute()
    return notebook.cells, folder


def test_the_textbook_window_gives_16_and_turned_20(lecture):
    cells, _ = lecture
    (cell,) = (c for c in cells if "F.conv2d" in c.source)
    numbers = re.findall(r"(\S.*):\s+([\d.]+)", "\n".join(outputs_of(cell)))
    expected = {"cross-correlation": 16, "true convolution": 20, "torch's conv2d": 16}
    assert {name: float(number) for name, number in numbers} == expected


def test_one_hot_and_number_give_one_loss_and_a_permutation_costs_an_mlp_nothing(lecture):
    cells, _ = lecture
    printed = "\n".join(text for c in cells if c.cell_type == "code" for text in outputs_of(c))
    assert re.findall(r"(?:loss of the \w+|-ln p_2)\s+([\d.]+)", printed) == ["0.4076"] * 3
    assert re.findall(r"difference of a logit: ([\d.]+)", printed) == ["0.0000"] * 2


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


def test_it_leaves_its_runs_and_a_finished_sweep_in_the_outputs_of_the_checkout(lecture):
    _, folder = lecture
    assert len([*(folder / "outputs/lecture/runs").iterdir()]) == 3
    assert len([*(folder / "outputs/lecture/sweeps/lecture").glob("*/result.json")]) == 8
    assert not [*(folder / "notebooks").iterdir()]


def test_the_file_is_small_and_names_no_machine():
    text = FILE.read_text("utf-8")
    assert len(text) < 700_000
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|Users|usr)/", text)
