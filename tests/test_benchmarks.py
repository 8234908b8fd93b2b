"""The benchmarks run, on a tiny setting; how fast is not for a test to say."""

import importlib.util
import json
import shlex
import subprocess
import sys

import pytest

from .conftest import ROOT, TINY


def bench(script, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.long
def test_speed_compares_with_the_loop_by_hand(tmp_path):
    table = bench(
        *("speed.py", "--images", 640, "--epochs", 2, "--repetitions", 1),
        *("--networks", "small_mlp", "--variants", "convscape", "--out", tmp_path / "speed.json"),
    )
    rows = [line.split("  ")[1] for line in table.splitlines() if line.startswith("  ")]
    assert rows == ["best loop by hand", "convscape"]
    results = json.loads((tmp_path / "speed.json").read_text())
    ours = results["images_per_second"]["small_mlp"]["convscape"]
    assert [len(process[name]) for process in ours for name in ("variant", "loop")] == [1, 1]
    assert results["cores"] >= 1


def module(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    result = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(result)
    return result


@pytest.mark.parametrize("variant", ["usual loop by hand", "JAX by hand, one scan an epoch"])
def test_a_variant_tells_of_each_epoch(variant):
    if variant.startswith("JAX"):
        pytest.importorskip("jax")
    function, *_ = module("speed").VARIANTS[variant]
    epochs = []
    function("small_mlp", 640, 2, lambda: epochs.append(None))
    assert len(epochs) == 2


def test_the_picture_has_a_bar_for_each_way():
    ways = {
        "convscape": [{"variant": [30, 20, 10], "loop": [10, 10, 10]}],
        "Keras on JAX": [{"variant": [5], "loop": [10]}, {"variant": [7], "loop": [10]}],
    }
    results = {"images_per_second": {"mlp": ways}, "cores": 2, "cpu": "some processor"}
    (axis,) = module("publish").draw(results).axes
    assert [bar.get_width() for bar in axis.patches] == [0.6, 2]
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["Keras on JAX", "Convscape"]
    assert [text.get_text() for text in axis.texts] == ["0.60", "2.00"]


def test_tables_are_published_of_some_of_the_ways_but_not_without_a_result(
    tmp_path, monkeypatch, capsys
):
    publish = module("publish")
    some = publish.speed_table({"mlp": {"Keras on JAX": [{"variant": [500], "loop": [2000]}]}})
    assert "| the best hand-written loop | 2,000 (1.00) |" in some
    monkeypatch.setattr(sys, "argv", ["publish.py", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        publish.main()
    assert "speed.json is missing; run benchmarks/speed.py first" in capsys.readouterr().err


@pytest.mark.slow
def test_sweeps_counts_runs_one_at_a_time_and_one_on_each_core(tmp_path):
    out = tmp_path / "sweeps.json"
    table = bench(
        *("sweeps.py", "--runs", 2, "--repetitions", 1, "--overrides", *TINY, "--out", out)
    )
    rows = [line.split("  ")[1] for line in table.splitlines() if line.startswith("  ")]
    assert rows == ["one at a time, one core", "one at a time, all cores", "one on each core"]
    assert all(len(rates) == 1 for rates in json.loads(out.read_text()).values())


@pytest.mark.long
def test_a_record_counts_where_the_mean_of_ten_seeds_reaches_the_goal():
    command = [sys.executable, ROOT / "benchmarks" / "records.py", "--goal", "100", *TINY]
    tried = subprocess.run(command, capture_output=True, text=True)
    assert tried.returncode == 1
    assert tried.stderr.splitlines()[-1] == "no entry: the mean is below 100 %"
    *_, row = tried.stdout.splitlines()
    seconds, accuracy, _, _, words, _ = row.strip("| ").split(" | ")
    assert 0 < float(seconds.split()[0]) < 60
    assert 20 < float(accuracy.split()[0]) < 100
    assert words == f"`{shlex.join(TINY)}`"


@pytest.mark.long
def test_layers_are_measured_beside_a_matrix_product_and_the_step(tmp_path):
    out = tmp_path / "layers.json"
    table = bench("layers.py", "--networks", "cnn", "--rounds", 1, "--out", out)
    rows = [line.split()[0] for line in table.splitlines() if line.startswith("  ")]
    assert rows == ["ms", "block1.conv", "block2.conv", "output", "a"] * 2
    for works in json.loads(out.read_text())["cnn"].values():
        assert len(works) == 3 * 3 - 1 + 2  # the images have no gradient; the product, the step
        assert works["matrix product"]["share"] == 1
        assert all(work["ms"] > 0 for work in works.values())


def test_the_results_are_written_into_the_page(tmp_path):
    ways = {"convscape": [{"variant": [3000, 1000], "loop": [2000, 2000]}]}
    slow = {"tutorial with Lightning": [{"variant": [500], "loop": [1000]}]}
    speed = {
        "images_per_second": {"mlp": ways, "cnn": ways | slow},
        "cores": 2,
        "cpu": "A",
        "torch": "2",
    }
    results = {
        "speed": {**speed, "batch_size": 128},
        "sweeps": {"one by one": [10, 20], "side by side": [30]},
        "startup": {"import torch": [1, 4, 2]},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    (tmp_path / "speed.md").write_bytes((ROOT / "docs" / "speed.md").read_bytes())
    for _ in range(2):  # the second time what the first wrote
        bench("publish.py", "--results", tmp_path, "--docs", tmp_path)
        lines = (tmp_path / "speed.md").read_text().splitlines()
        rows = [
            "| | MLP 784-512-512-10 | CNN, 34,826 parameters |",
            "| the best hand-written loop | 2,000 (1.00) | 2,000 (1.00) |",
            "| Convscape | 2,000 (1.00) | 2,000 (1.00) |",
            "| tutorial with Lightning | | 500 (0.50) |",
            "| one by one | 15.0 (1.00) |",
            "| side by side | 30.0 (2.00) |",
            "| `import torch` | 2.00 (1.00 to 4.00) |",
        ]
        assert [lines.count(row) for row in rows] == [1] * len(rows)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
