"""The drawing of a network: plan --figure."""

import re
import shutil
import subprocess
from xml.etree import ElementTree

import pytest

from convscape.drawing.network import ROW, as_svg, as_tikz
from tests.test_config import checked

SVG = "{http://www.w3.org/2000/svg}"


def words_of(svg):
    return [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_each_layer_is_a_box_with_its_words_and_its_shape():
    plan = checked("model.channels=[16,32]").plan()
    words = words_of(as_svg(plan))
    assert words[:2] == ["input", "1x28x28"]
    for row in plan.layers:
        assert "x".join(map(str, row.output_shape)) in words
    assert words.count("conv 3x3") == words.count("max pool 2x2") == words.count("relu") == 2
    boxes = [
        float(box.get("height")) for box in ElementTree.fromstring(as_svg(plan)).iter(f"{SVG}rect")
    ]
    assert boxes[1] > boxes[2] > boxes[4]  # input, first and second convolution


@pytest.mark.parametrize("words", [(), ("model=mlp",), ("model=resnet20",)])
def test_nothing_is_drawn_outside_or_over_something_else(words):
    root = ElementTree.fromstring(as_svg(checked(*words).plan()))
    width, height = float(root.get("width")), float(root.get("height"))
    assert width <= ROW + 50
    boxes = []
    for box in list(root.iter(f"{SVG}rect"))[1:]:
        x, y, wide, high = (float(box.get(key)) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert 0 <= y < y + high <= height
        boxes.append((x, y, x + wide, y + high))
    for place, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[place + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.get("x")) < width
        assert 0 < float(text.get("y")) < height


def test_every_residual_block_has_a_sum_and_says_what_its_shortcut_does():
    words = words_of(as_svg(checked("model=resnet20").plan()))
    assert words.count("+") == 9
    assert "identity, stride 2, 16 channels of zeros" in words


def test_plan_writes_the_file_that_is_named_and_refuses_others(command, tmp_path):
    for name in ("net.svg", "new/net.tex"):
        answer = command("plan", "model.channels=[4]", "--figure", name)
        assert answer.code == 0, answer.err
        assert (tmp_path / name).stat().st_size > 1000
    for words, said in {
        ("--figure", "net.png"): "allowed: a file that ends in .svg or .tex",
        ("--figure=n.svg", "model.stride=1,2"): "it shows one network, and these are 2",
        ("--figure",): "--figure needs a file: --figure <file>",
    }.items():
        answer = command("plan", *words)
        assert (answer.code, said in answer.err) == (2, True), answer.err


def test_latex_takes_the_tikz(tmp_path):
    text = as_tikz(checked("model=resnet20").plan())
    assert text.count(r"\draw[fill=") == len(
        re.findall("<rect x", as_svg(checked("model=resnet20").plan()))
    )
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    (tmp_path / "net.tex").write_text(text)
    page = r"\documentclass{article}\usepackage{tikz}\begin{document}\noindent"
    page += r"\resizebox{\linewidth}{!}{\input{net}}\end{document}"
    (tmp_path / "page.tex").write_text(page)
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    if "tikz.sty' not found" in done.stdout:
        pytest.skip("needs tikz")
    assert done.returncode == 0, done.stdout[-2000:]
