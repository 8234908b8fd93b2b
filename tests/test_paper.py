"""What report --latex leaves for a paper."""

import csv
import re
import shutil
import subprocess

import pytest

from convscape.reports.paper import Table, tex
from tests.fake_runs import write_runs

LEVELS = {"model.kernel_size": [3, 5], "model.padding": ["valid", "same"]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps") / "a_b 100%"
    write_runs(folder, seeds=3, levels=LEVELS)
    return folder


def test_tables_figures_and_methods_are_written_and_compile(command, sweep):
    answer = command("report", sweep, "--latex")
    assert answer.code == 0, answer.err
    paper = sweep / "paper"
    assert answer.out.splitlines()[-1] == f"paper:   {paper / 'paper.tex'}"
    rows = list(csv.reader((paper / "configurations.csv").read_text().splitlines()))
    assert rows[0][:3] == ["place", "kernel_size", "padding"]
    assert len(rows) == 5
    effects = (paper / "effects.md").read_text()
    assert "| kernel size | 5 | 3 | 1." in effects
    number = re.search(r"\| kernel size \| 5 \| 3 \| ([\d.]+) ± ([\d.]+) \|", effects)
    assert rf"\num{{{number[1]} +- {number[2]}}}" in (paper / "effects.tex").read_text()
    methods = (paper / "methods.md").read_text()
    for fact in (
        "We trained 12 networks on digits, varying model.kernel_size, model.padding, with 3 seeds",
        "the optimiser adam (lr 0.005",
        "PyTorch 2.15.0",
        "commit 0123456",
        "checksum of the data abc",
        "The runs were looked at once: 4 % of the total error rate of 5 % is spent on this look",
    ):
        assert fact in methods
    assert (paper / "figures" / "main_effects.pdf").read_bytes().startswith(b"%PDF")
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=paper, capture_output=True, text=True, errors="replace")
    if missing := re.search(r"File `(\S+\.sty)' not found", done.stdout):
        pytest.skip(f"needs {missing[1]}")
    assert done.returncode == 0, done.stdout[-2000:]


def test_what_latex_would_take_for_commands_is_text():
    assert tex(r"\input{x} 5_6 100% #1 $a$ ~ ^ <b> ±") == (
        r"\textbackslash{}input\{x\} 5\_6 100\% \#1 \$a\$ \textasciitilde{} \textasciicircum{} "
        r"\(<\)b\(>\) \(\pm\)"
    )
    assert tex("数\x07") == "??"
    table = Table("name", "caption", [["a", "b"], ["x|y", "1,234.5 ± 0.1"], ["z", ""]])
    assert r"x\|y" in table.markdown()
    assert r"\begin{tabular}{lr}" in table.latex()
    assert r"\num{1234.5 +- 0.1}" in table.latex()
