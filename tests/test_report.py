"""Reports of runs that were written from a known model, opened in a real browser."""

import csv
import itertools
import json
import random
import re
import time
from collections import defaultdict

import numpy as np
import pytest

from convscape.base.errors import ConfigError
from convscape.config.metrics import metric
from convscape.reports.figures import heat_maps, main_effects, parallel_coordinates
from convscape.reports.page import write_report
from convscape.reports.results import command as command_line
from convscape.reports.results import load_sweep, read_runs, tables
from convscape.reports.statistics import configurations
from convscape.sweeps.grid import PlannedRun, SweepPlan
from tests.conftest import TINY, wait_until
from tests.fake_runs import LEVELS, write_runs
from tests.test_config import checked
from tests.warm import WarmScript

FIGURES = {"main_effects", "heat_maps", "costs", "learning_curves", "parallel_coordinates"}


@pytest.fixture
def sweep(tmp_path):
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_runs(folder)
    return folder


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """The same with its report, and what the command said; for tests that only look."""
    folder = tmp_path_factory.mktemp("sweep")
    write_runs(folder)
    process = WarmScript("report", [str(folder)], folder, notes=tmp_path_factory.mktemp("notes"))
    assert process.wait() == 0, process.communicate()
    return folder, process.communicate()[0]


def rows_of(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_report_has_a_row_per_run_a_page_and_figures(reported):
    sweep, _ = reported
    rows = rows_of(sweep)
    assert len(rows) == 36
    assert {row["status"] for row in rows} == {"ok", "infeasible"}
    assert {row["reason"] for row in rows} == {"", "block 2: a 7x7 kernel does not fit"}
    assert rows[0]["command"] == (
        "python scripts/train.py model.kernel_size=3 model.stride=1 model.padding=valid seed=0"
    )
    assert float(rows[0]["val/acc"]) == pytest.approx(0.95, abs=0.01)
    names = {path.name for path in (sweep / "figures").iterdir()}
    assert names == {f"{figure}.{kind}" for figure in FIGURES for kind in ("png", "svg")}


@pytest.mark.parametrize(("draw", "num_keys"), [(main_effects, 1), (heat_maps, 2)])
def test_the_title_of_the_smallest_figure_is_not_cut_off(tmp_path, draw, num_keys):
    levels = {key: values[:2] for key, values in list(LEVELS.items())[:num_keys]}
    write_runs(tmp_path, seeds=2, levels=levels)
    (table,) = tables(read_runs([tmp_path]))
    figure = draw(table, metric("val/acc"))
    figure.draw_without_rendering()
    (title,) = figure.texts
    assert "balanced" in title.get_text()
    box = title.get_window_extent()
    assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN"])
def test_a_run_whose_metric_diverged_does_not_hide_the_figures(tmp_path, monkeypatch, value):
    write_runs(tmp_path, seeds=1)
    file = tmp_path / "run00000" / "result.json"
    document = json.loads(file.read_text())
    document["metrics"]["val/acc"] = float(value)
    file.write_text(json.dumps(document))
    drawn = {}
    monkeypatch.setattr(
        "convscape.reports.figures.save", lambda figure, path, *_: drawn.update({path.stem: figure})
    )
    write_report([tmp_path])
    assert set(drawn) == FIGURES
    lines = drawn["parallel_coordinates"].axes[0].lines
    assert sum(len(line.get_xdata()) > 2 for line in lines) == 10  # of 12, one is impossible


def test_numbers_that_a_search_drew_do_not_cover_each_other(tmp_path):
    write_runs(tmp_path, seeds=1)
    draw = random.Random(0)
    for file in tmp_path.glob("*/result.json"):
        document = json.loads(file.read_text())
        document["config"]["optimizer"]["lr"] = 10 ** draw.uniform(-4, -1)
        file.write_text(json.dumps(document))
    (table,) = tables(read_runs([tmp_path]))
    figure = parallel_coordinates(
        table, configurations(table, metric("val/acc")), metric("val/acc")
    )
    figure.draw_without_rendering()
    columns = defaultdict(list)
    for text in figure.axes[0].texts:
        assert len(text.get_text()) < 9
        columns[text.get_position()[0]].append(text.get_window_extent())
    assert len(columns) > 2
    for boxes in columns.values():
        boxes.sort(key=lambda box: box.y0)
        assert all(low.y1 < high.y0 + 2 for low, high in itertools.pairwise(boxes))


def test_a_key_that_matters_less_does_not_cut_off_the_others(tmp_path):
    keys = ("model.padding", "model.kernel_size")
    write_runs(tmp_path, levels={key: LEVELS[key] for key in keys})
    (table,) = tables(read_runs([tmp_path]))
    figure = main_effects(table, metric("val/acc"))
    figure.draw_without_rendering()
    ((low, high),) = {axis.get_ylim() for axis in figure.axes}
    heights = np.concatenate([line.get_ydata() for axis in figure.axes for line in axis.lines])
    assert low < heights.min() < heights.max() < high


def test_the_terminal_says_what_was_found(reported):
    _, out = reported
    assert out.splitlines()[2].split()[:5] == ["1", "7", "1", "same", "3"]
    assert "kernel size 5 instead of 3 gains 1.09 ± 0.53 points" in out
    assert (
        "takes 1.7 times the parameters and 2.5 times the MACs "
        "(over 3 seeds with 4 pairs of runs each, on the same validation images, first look, "
        "p = 0.001)"
    ) in out
    assert "stride 2 instead of 1 costs 0.77 ± 0.54 points and saves 75 % of the MACs" in out
    assert "padding same instead of valid: no clear difference, +0.07 ± 0.46 points" in out


@pytest.mark.usefixtures("without_figures")
def test_what_depends_on_another_key_is_said(sweep):
    for file in sweep.glob("*/result.json"):
        result = json.loads(file.read_text())
        model = result["config"]["model"]
        if (model["kernel_size"], model["stride"], result["status"]) == (7, 2, "ok"):
            result["metrics"]["val/acc"] -= 0.5
            file.write_text(json.dumps(result))
    lines = "\n".join(write_report([sweep]).lines)
    assert re.search(
        r"It depends: kernel size 7 instead of 3 changes val/acc by \+1\.\d\d points where stride "
        r"is 1 and by -48\.\d\d points where it is 2 \(over 3 seeds, "
        r"on the same validation images, first look, p < 0\.001\)",
        lines,
    ), lines


@pytest.mark.usefixtures("without_figures")
def test_folds_are_averaged_and_not_compared(tmp_path):
    write_runs(tmp_path, seeds=3, levels={"data.fold": [0, 1], "model.kernel_size": [3, 5]})
    lines = "\n".join(write_report([tmp_path]).lines)
    assert "kernel size 5 instead of 3 gains" in lines
    assert "over 3 seeds, on the same validation images" in lines
    assert "fold 1 instead" not in lines
    assert set(load_sweep(tmp_path)["fold"]) == {0, 1}


@pytest.mark.usefixtures("without_figures")
def test_one_seed_gives_no_interval(tmp_path):
    write_runs(tmp_path, seeds=1)
    lines = "\n".join(write_report([tmp_path]).lines)
    assert "one seed: no interval" in lines
    assert "add 'seed=range(3)' or more" in lines
    assert "±" not in lines


@pytest.mark.usefixtures("without_figures")
def test_runs_can_be_ranked_and_grouped_otherwise(command, sweep):
    answer = command("report", sweep, "--rank", "macs", "--by", "model.stride")
    assert answer.code == 0, answer.err
    assert [line.split()[1] for line in answer.out.splitlines()[2:4]] == ["2", "1"]
    assert "Best by macs: stride=2" in answer.out
    assert not re.search(r" [,.;:]", answer.out)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--rank", "val/accu"], "no run of data=digits has it; allowed: val/acc"),
        (["--by", "model.strid"], "did you mean 'model.stride'?"),
        (["--by", "model.dropout"], "it was not swept"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(command, sweep, arguments, words):
    answer = command("report", sweep, *arguments)
    assert (answer.code, words in answer.err) == (2, True), answer.err


def test_a_folder_without_runs_is_refused(command, tmp_path, sweep):
    assert "there is no nowhere" in command("report", "nowhere").err
    assert "did you mean" in command("report", tmp_path).err
    (tmp_path / "empty").mkdir()
    assert "holds no run folders" in command("report", tmp_path / "empty").err


@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(
    "content", ["", '{"run": "x"', "[]", '{"run": 3}', '{"metrics": {"val/acc": "high"}}', "\x00"]
)
def test_a_damaged_result_is_named_and_left_out(tmp_path, content):
    write_runs(tmp_path, levels={"model.kernel_size": [3, 5]}, seeds=2)
    (tmp_path / "run00003" / "result.json").write_text(content)
    lines = write_report([tmp_path]).lines
    assert any("run00003" in line and line.startswith("left out: ") for line in lines)
    assert len(rows_of(tmp_path)) == 3
    assert "run00003" in (tmp_path / "report.html").read_text()


def test_runs_on_different_data_are_never_pooled(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for number, (folder, name) in enumerate([(one, "mnist"), (other, "digits")]):
        folder.mkdir()
        write_runs(folder, seeds=1, levels={key: LEVELS[key] for key in list(LEVELS)[1:]})
        for file in folder.glob("*/result.json"):
            result = json.loads(file.read_text())
            result["config"]["data"]["name"] = name
            result["fingerprint"] += str(number)
            file.write_text(json.dumps(result))
    report = write_report([one, other])
    assert report.folder == tmp_path / "report-one-other"
    assert {"data=mnist", "data=digits"} <= set(report.lines)
    assert len(list((report.folder / "figures").glob("mnist-*.png"))) == len(FIGURES)


@pytest.mark.usefixtures("without_figures")
def test_a_receptive_field_is_written_alike_in_every_table(tmp_path):
    """Of an MLP: as in the plan of a layer, of a sweep, and in the report of its runs."""
    plan = checked("model=mlp", "data=mnist").plan()
    header, *rows, _ = plan.rows()
    assert header[-1] == "receptive field"
    assert {row[-1] for row in rows} == {"28"}
    sweep = SweepPlan([PlannedRun(("seed=0",), "", "", plan)], [])
    assert str(sweep).splitlines()[0].split("  ")[-2:] == ["receptive field", "possible"]
    assert str(sweep).splitlines()[-1].split()[-2:] == ["28", "yes"]
    for size, text in (([28, 28], "28"), ([28, 3], "28x3")):
        write_runs(tmp_path, seeds=1, levels={"model.stride": [1]}, receptive_field=size)
        head, _, row, *_ = write_report([tmp_path]).lines[0].splitlines()
        place = head.index("receptive field")
        assert row[place : place + 15].strip() == text


def test_changes_of_one_data_set_are_named_by_what_they_are(tmp_path):
    write_runs(tmp_path, seeds=2)
    for number, file in enumerate(sorted(tmp_path.glob("*/result.json"))):
        result = json.loads(file.read_text())
        if number % 2:
            result["config"]["data"]["change"]["permute"] = 0
        result["data_checksum"] = None if number < 2 else "0011" if number % 2 else "aabb"
        file.write_text(json.dumps(result))
    found = {table.data: len(table.frame) for table in tables(read_runs([tmp_path]))}
    assert found == {"digits": 12, "digits_permute0": 12}


def test_the_same_config_on_other_files_is_told_apart_by_its_folder(tmp_path):
    write_runs(tmp_path, seeds=2)
    for number, file in enumerate(sorted(tmp_path.glob("*/result.json"))):
        result = json.loads(file.read_text())
        result["config"]["data"]["root"] = f"/photos/{'cats' if number % 2 else 'dogs'}"
        result["data_checksum"] = "0011" if number % 2 else "aabb"
        file.write_text(json.dumps(result))
    names = {table.data for table in tables(read_runs([tmp_path]))}
    assert names == {"digits_cats_0011", "digits_dogs_aabb"}


@pytest.mark.usefixtures("without_figures")
def test_hardware_and_versions_that_differ_are_noted(sweep):
    file = sweep / "run00000" / "result.json"
    result = json.loads(file.read_text())
    result["environment"] |= {"cpu": "another processor", "taken_cores": 1.5}
    file.write_text(json.dumps(result))
    page = (write_report([sweep]).folder / "report.html").read_text()
    assert '"cpu":["another processor","a processor"]' in page
    assert '"taken_cores":[' not in page  # it changes how long, and not what comes of it


@pytest.mark.usefixtures("without_figures")
def test_optimizers_are_one_key_and_not_a_dozen(tmp_path):
    write_runs(tmp_path, levels={"model.kernel_size": [3, 5]}, seeds=2)
    for number, file in enumerate(sorted(tmp_path.glob("*/result.json"))):
        result = json.loads(file.read_text())
        if number % 2:
            result["config"]["optimizer"] = {"name": "sgd", "lr": 0.1, "momentum": 0.9}
            result["config"]["trainer"]["max_epochs"] = 7
        file.write_text(json.dumps(result))
    (table,) = tables(read_runs([tmp_path]))
    assert "optimizer" in [key.name for key in table.keys]
    assert "optimizer.momentum" not in [key.name for key in table.keys]
    # what does not come with the optimiser is said
    lines = "\n".join(write_report([tmp_path]).lines)
    assert re.search(
        r"^(\S+, )*trainer.max_epochs changed in step with optimizer.$", lines, re.M
    ), lines


def test_a_command_makes_a_configuration_once_more():
    assert command_line(["model.channels=[8,16]", "seed=0"], [0, 1]) == (
        "python scripts/train.py -m 'model.channels=[8,16]' seed=0,1"
    )


def test_html_in_names_stays_text(tmp_path):
    write_runs(tmp_path, seeds=1, run="<script>alert(1)</script>")
    for file in tmp_path.glob("*/result.json"):
        result = json.loads(file.read_text())
        result["config"]["model"]["padding"] = "<img src=x onerror=alert(2)>"
        if result["error"]:
            result["error"]["message"] = "<b>bold</b>"
        file.write_text(json.dumps(result))
    page = (write_report([tmp_path]).folder / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "<b>bold" not in page
    assert "<img src=x" not in page


@pytest.mark.parametrize("width", [400, 1400])
def test_the_page_opens_in_a_browser_without_errors_or_requests(reported, browser, width):
    sweep, _ = reported
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems, requests = [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((sweep / "report.html").as_uri())
    page.wait_for_selector("main figure")
    assert problems == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    titles = page.locator("main figure h3").all_text_contents()
    assert titles == [
        *("What each change does", "Each pair of keys", "Each key alone", "What it costs"),
        *("All keys at once", "Learning curves"),
    ]
    assert page.locator("svg .effect").count() == 4
    assert page.locator("svg .cell").count() == 3 * 2 + 3 * 2 + 2 * 2
    assert (sweep / "report.html").stat().st_size < 150_000
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0


def opened(browser, sweep):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto((sweep / "report.html").as_uri())
    return page


def test_the_first_screen_is_the_answer(reported, browser):
    page = opened(browser, reported[0])
    assert page.locator("h2").first.text_content() == (
        "What do kernel size, stride and padding change in val/acc?"
    )
    assert "kernel size 7 instead of 3 gains" in page.locator(".verdict").text_content().lower()
    assert "33 of 36 runs finished · 3 seeds · 4 min of training" in (
        page.locator("p.data").text_content()
    )
    box = page.locator("figure").first.bounding_box()
    assert box["y"] + box["height"] < 800


def test_the_table_sorts_filters_and_leads_to_a_run(reported, browser):
    page = opened(browser, reported[0])
    page.get_by_role("tab", name="Runs").click()

    def column(name):
        place = page.locator(".runs thead th").all_text_contents().index(name)
        return page.locator(f".runs tbody td:nth-child({place + 1})").all_text_contents()

    numbers = lambda: [int(text.replace(",", "")) for text in column("MACs") if text]  # noqa: E731
    page.get_by_role("button", name="MACs").click()
    assert numbers() == sorted(numbers())
    page.get_by_role("button", name="MACs").click()
    assert numbers() == sorted(numbers(), reverse=True)
    page.get_by_label("filter").fill("kernel_size=3 stride!=2 acc>95%")
    wait_until(page, "document.querySelectorAll('.runs tbody tr').length < 12")
    assert set(column("kernel_size")) == {"3"}
    assert set(column("stride")) == {"1"}
    assert all(float(text) > 95 for text in column("val/acc (%)"))
    page.get_by_label("filter").fill("kernel=3")
    page.get_by_text("no column is called kernel").wait_for()
    page.get_by_label("filter").fill("")
    page.locator(".runs tbody button.link").first.click()
    assert page.locator(".drawer a").get_attribute("href").startswith("run000")


def test_configurations_have_intervals_and_pinned_ones_stand_side_by_side(reported, browser):
    page = opened(browser, reported[0])
    page.get_by_role("tab", name="Runs").click()
    page.get_by_label("mean over seeds").check()
    assert page.locator(".runs tbody tr").count() == 11
    assert "±" in page.locator(".runs tbody tr").first.text_content()
    for place in (0, 10):
        page.locator(".runs .pin").nth(place).click()
    page.get_by_role("tab", name="Compare").click()
    heads = page.locator(".compare thead th").all_text_contents()
    assert heads == ["", *("kernel_size=7, stride=1, padding=same",), heads[2]]
    assert "kernel_size=3, stride=2" in heads[2]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("CSV", "kernel_size,stride"), ("Markdown", "| 7 | 1 | same |"), ("LaTeX", "kernel\\_size")],
)
def test_the_table_is_copied_for_a_paper(reported, browser, kind, words):
    page = opened(browser, reported[0])
    page.evaluate("navigator.clipboard.writeText = async (text) => (globalThis.copied = text)")
    page.get_by_role("tab", name="Runs").click()
    page.get_by_label("mean over seeds").check()
    page.get_by_label("copy the table as").select_option(kind)
    page.get_by_text(f"11 rows copied as {kind}").wait_for()
    assert words in page.evaluate("copied")


def test_a_brush_keeps_the_configurations_in_it(reported, browser):
    page = opened(browser, reported[0])
    axis = page.locator("svg .drag").last
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 1)
    page.mouse.down()
    page.mouse.move(box["x"] + 5, box["y"] + box["height"] / 2)
    page.mouse.up()
    kept = page.locator("svg .thread:not(.out)").count()
    assert 0 < kept < 11
    page.get_by_text(f"{kept} of 11 configurations").wait_for()


def test_a_sweep_ends_with_its_report(command, tmp_path):
    answer = command("train", "-m", *TINY, "name=short", "model.kernel_size=3,5", "seed=0,1")
    assert answer.code == 0, answer.err
    folder = tmp_path / "outputs" / "sweeps" / "short"
    assert len(rows_of(folder)) == 4
    assert "kernel size 5 instead of 3" in answer.out
    assert "report:  outputs/sweeps/short/report.html" in answer.out


def test_a_report_that_cannot_be_written_is_one_sentence(sweep):
    (sweep / "figures").write_text("")
    with pytest.raises(ConfigError, match=r"figures is no folder, .*move it away"):
        write_report([sweep])


@pytest.mark.slow
def test_ten_thousand_runs_are_reported_within_a_minute(start, tmp_path):
    levels = {
        "model.kernel_size": [3, 5],
        "model.stride": [1, 2],
        "optimizer.lr": [0.001 * n for n in range(1, 501)],
    }
    from tests import fake_runs

    fake_runs.TRUTH["optimizer.lr"] = dict.fromkeys(levels["optimizer.lr"], 0.0)
    write_runs(tmp_path, seeds=5, levels=levels)
    begin = time.monotonic()
    process = start("report", tmp_path)
    process.wait()
    assert time.monotonic() - begin < 60
    assert len(rows_of(tmp_path)) == 10_000
