"""The tab in TensorBoard, served by TensorBoard itself and opened in a real browser."""

import json
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
import warnings

import numpy as np
import pytest

from convscape.board.plugin import ConvscapePlugin
from convscape.reports.looks import watch
from convscape.reports.page import sections_of, write_report
from convscape.reports.results import read_runs
from tests.conftest import ROOT, wait_until
from tests.fake_runs import write_runs


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    for name in ("one", "two"):
        (folder / "sweeps" / name).mkdir(parents=True)
        write_runs(folder / "sweeps" / name, seeds=2, levels={"model.kernel_size": [3, 5]})
    return folder


@pytest.fixture(scope="module")
def server(logdir):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "html5lib's sanitizer is deprecated")
        from tensorboard import default, program

        board = program.TensorBoard(plugins=default.get_plugins())  # it is one, once installed
    board.configure(logdir=str(logdir), port=0, load_fast="false", reload_interval=0)
    return board.launch()


def ask(server, route):
    return urllib.request.urlopen(f"{server}data/plugin/convscape/{route}", timeout=30)


def test_tensorboard_finds_it_by_its_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    where = project["entry-points"]["tensorboard_plugins"]["convscape"]
    assert where == f"{ConvscapePlugin.__module__}:{ConvscapePlugin.__name__}"


def test_it_costs_tensorboards_start_no_import_of_torch_or_pandas():
    code = (
        "import sys, tensorboard.plugins.base_plugin, convscape.board.plugin\n"
        "print({'torch', 'pandas', 'matplotlib', 'lightning'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_it_says_which_folder_and_answers_only_what_is_new(server, logdir):
    document = json.load(ask(server, "document?folder=sweeps/one"))
    assert sorted(document["folders"]) == ["sweeps/one", "sweeps/two"]
    assert document["title"] == "one"
    assert len(document["sections"][0]["runs"]["run"]) == 4
    assert ask(server, f"document?folder=sweeps/one&tag={document['tag']}").status == 204
    file = logdir / "sweeps" / "one" / "run00003" / "result.json"
    before = file.read_text()
    file.write_text(json.dumps(json.loads(before) | {"status": "running"}))
    newer = json.load(ask(server, f"document?folder=sweeps/one&tag={document['tag']}"))
    assert newer["sections"][0]["runs"]["status"].count("running") == 1
    assert newer["sections"][0]["cost"]["statuses"] == {"ok": 3, "running": 1}
    assert newer["progress"] == {"total": 4, "done": 3, "todo": 0, "left": None, "running": 1}
    file.write_text(before)


def test_who_watches_has_intervals_for_any_number_of_looks_or_those_of_the_report(logdir):
    folder = logdir / "sweeps" / "two"
    reading = read_runs([folder])
    sentences = lambda: str([s.sentences for s in sections_of(reading, [folder], looking=watch)[0]])  # noqa: E731
    assert "valid at any look" in sentences()
    assert not (folder / "looks.jsonl").exists()
    sections_of(reading, [folder])  # as a report does
    assert "first look" in sentences()
    assert len((folder / "looks.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["../..", "/etc", "sweeps/nowhere"])
def test_nothing_outside_of_the_logdir_is_served(server, name):
    assert json.load(ask(server, f"document?folder={name}"))["folder"].startswith("sweeps/")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(server, f"network?run={name}")


def test_a_run_without_a_network_to_show_has_a_page_that_says_why(server, logdir):
    run = next((logdir / "sweeps").glob("*/run00000")).relative_to(logdir)
    reply = ask(server, f"network?run={run}")
    page = reply.read().decode()
    assert (reply.status, reply.headers.get_content_type()) == (200, "text/html")
    assert "<p>name: the key is missing" in page  # of a config that was written by hand
    assert "light dark" in page  # in the style of all pages


def test_the_tab_opens_in_tensorboard(server, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{server}#convscape")
    tab = page.frame_locator("iframe")
    tab.get_by_text("What does kernel size change in val/acc?").wait_for()
    tab.get_by_role("tab", name="Runs").click()
    assert tab.locator(".runs tbody tr").count() == 4
    tab.get_by_role("tab", name="Network").click()
    tab.get_by_text("No run here has finished with a checkpoint.").wait_for()
    tab.get_by_role("tab", name="Images").click()
    tab.get_by_text("No run here has stored its answers on these images.").wait_for()
    assert problems == []


def test_an_empty_logdir_has_no_tab(tmp_path):
    class Context:
        logdir = str(tmp_path)

    assert not ConvscapePlugin(Context()).is_active()
    write_runs(tmp_path, seeds=1, levels={"model.stride": [1]})
    assert ConvscapePlugin(Context()).is_active()


def test_numbers_of_seventeen_digits_are_shown_as_short_as_on_the_terminal(browser, tmp_path):
    drawn = 0.0012345678901234567
    write_runs(tmp_path, seeds=2, levels={"model.padding": ["valid", "same"]})
    for file in tmp_path.glob("*/result.json"):
        config = json.loads(file.read_text())
        is_first = config["config"]["model"]["padding"] == "valid"
        config["config"]["model"]["padding"] = "valid"
        config["config"]["optimizer"]["lr"] = drawn if is_first else 0.01
        file.write_text(json.dumps(config))
    lines = write_report([tmp_path]).lines
    assert any("lr 0.01 instead of 0.001235" in line for line in lines)
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    seconds = page.locator("table.best tbody td:last-child").all_inner_texts()
    assert set(seconds) == {"5.0"}  # with one decimal each, so that they stay in line
    for tab in ("Answer", "Runs"):
        page.get_by_role("tab", name=tab).click()
        words = page.locator("body").inner_text()
        assert ("0.001235" in words, str(drawn) in words) == (True, False)
    for typed in (f"lr={drawn}", "lr=0.001235", "lr<0.0012346"):  # as known, as shown, as a number
        page.get_by_label("filter").fill(typed)
        wait_until(page, "document.querySelectorAll('.runs tbody tr td').length > 0")
        wait_until(page, "document.body.innerText.includes('2 of 4 runs')")


def test_the_lines_of_all_keys_have_contrast_on_dark_and_light_paper(browser, tmp_path):
    write_runs(tmp_path, seeds=2)
    write_report([tmp_path])
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    stroke = "all => all.map((line) => getComputedStyle(line).stroke)"
    strokes = page.locator(".thread").evaluate_all(stroke)
    grey = [np.mean([int(part) for part in re.findall(r"\d+", each)[:3]]) for each in strokes]
    assert 90 < min(grey) < max(grey) < 190  # of 255
