"""What is printed fits the terminal: $COLUMNS says how wide it is."""

import pytest

from convscape.base.terminal import format_table, shortened

from .conftest import TINY

GRID = ("-m", "name=grid", "model.kernel_size=3,5,9", "optimizer.lr=0.01,0.03", "seed=0,1")
SWEEP = ("-m", "name=s", "model.kernel_size=3,5", "optimizer.lr=0.01,0.002", *TINY)
COMMANDS = (
    ("plan",),
    ("plan", *GRID),
    ("train", *SWEEP),
    ("train", *TINY),
    ("report", "outputs/sweeps/s"),
    ("evaluate", "latest"),
    ("compare", "outputs/sweeps/s:kernel_size=3,lr=0.01", "outputs/sweeps/s:kernel_size=5,lr=0.01"),
)


@pytest.mark.parametrize("width", [80, 60])
def test_no_line_of_a_table_is_wider_than_the_terminal(width, command, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    for words in COMMANDS if width == 80 else COMMANDS[:2]:
        answer = command(*words)
        assert answer.code == 0, answer.err
        lines = [*answer.out.splitlines(), *answer.err.splitlines()]
        too_long = [line for line in lines if len(line) > width and not is_to_copy(line)]
        assert not too_long, (words, too_long)


def is_to_copy(line):
    """A path or a command, which the terminal may break and the clipboard puts together again."""
    return "outputs/" in line or "report.html" in line


def test_a_table_gives_up_columns_and_then_letters_but_no_digit(monkeypatch):
    header = ("network", "test/acc (%)", "receptive field", "MACs")
    rows = [header, ("a_network_with_a_long_name-3f9a1c2b", "98.61 ± 0.02", "10", "2,440,960")]
    monkeypatch.delenv("COLUMNS", raising=False)
    assert "receptive field  " in format_table(rows, (1, 2, 3), (2, 3))
    monkeypatch.setenv("COLUMNS", "72")
    lines = format_table(rows, (1, 2, 3), (2, 3)).splitlines()
    assert max(map(len, lines)) <= 72
    assert "a_network_with_a_long_name-3f9a1c2b" in lines[-1]
    assert "2,440,960" in lines[-1]
    monkeypatch.setenv("COLUMNS", "34")
    lines = format_table(rows, (1, 2, 3), (2, 3)).splitlines()
    assert max(map(len, lines)) <= 34
    assert lines[-3].endswith("98.61 ± 0.02")
    assert "-3f9a1c2b" in lines[-3]  # which run it is
    words = " ".join(" ".join(lines[-2:]).split())
    assert words == "not shown for lack of room: receptive field, MACs"


def test_a_name_is_shortened_in_its_middle():
    assert shortened("cnn_k3_s1_valid-3f9a1c2b", 20) == "cnn_k3_s1_…-3f9a1c2b"
    assert shortened("cnn", 20) == "cnn"
