"""Probes against brute force, and on a run as a user types them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor
from torch import nn

from convscape.base.errors import ConfigError
from convscape.drawing import sheets
from convscape.models.networks import CNN
from convscape.trained.probe_figures import draw_probe
from convscape.trained.probes import (
    consistency,
    parse_settings,
    shifted,
    true_class_probability,
    without_smallest_weights,
)

from .conftest import TINY
from .warm import WarmScript


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, -1), (-3, 4), (5, 0), (-9, 9)])
def test_a_shift_moves_every_pixel_and_black_comes_in(down, right):
    images = torch.randint(1, 256, (2, 3, 5, 6), dtype=torch.uint8)
    moved = shifted(images, down, right)
    for y in range(5):
        for x in range(6):
            inside = 0 <= y - down < 5 and 0 <= x - right < 6
            expected = images[:, :, y - down, x - right] if inside else torch.zeros(2, 3)
            assert torch.equal(moved[:, :, y, x].float(), expected.float())


def test_consistency_counts_pairs_that_agree():
    answers = torch.randint(0, 3, (6, 40), generator=torch.Generator().manual_seed(0))
    pairs = [
        (answers[i] == answers[j]).double().mean() for i in range(6) for j in range(6) if i != j
    ]
    assert consistency(answers) == pytest.approx(float(np.mean(pairs)))
    assert consistency(torch.ones(4, 5, dtype=torch.long)) == 1


def network(**knobs):
    torch.manual_seed(0)
    defaults = {"channels": [8, 16], "head": "global_avg", "padding": "circular"}
    defaults |= {"init": "kaiming_normal", "training": {"mean": [0.5], "std": [0.3]}}
    return CNN((1, 16, 16), 10, **defaults | knobs).eval()


@torch.no_grad()
def test_polyphase_pooling_of_an_untrained_network_is_consistent_to_the_last_image():
    brightness = torch.linspace(1, 255, 200).long()
    images = torch.stack([torch.randint(0, int(b) + 1, (1, 16, 16)) for b in brightness])
    images = images.to(torch.uint8)

    def answers(model):
        moves = [(0, 0), (1, 0), (0, 1), (3, 5), (7, 2), (-1, 6)]
        return torch.stack([model(images.roll(move, (2, 3))).argmax(1) for move in moves])

    exact = network(pool="aps", pool_padding="circular")
    assert len(answers(exact).unique()) > 1
    assert consistency(answers(exact)) == 1
    assert consistency(answers(network(pool="max"))) < 1
    moved = exact(images.roll((3, 5), (2, 3)))
    torch.testing.assert_close(moved, exact(images), atol=1e-4, rtol=1e-4)


def test_the_smallest_weights_go_and_the_model_stays():
    model = nn.Sequential(nn.Linear(20, 10), nn.ReLU(), nn.Linear(10, 5))
    before = torch.cat([p.detach().flatten() for p in (model[0].weight, model[2].weight)]).abs()
    pruned = without_smallest_weights(model, 0.4)
    after = torch.cat([p.detach().flatten() for p in (pruned[0].weight, pruned[2].weight)])
    assert int((after == 0).sum()) == 100
    assert before[after == 0].max() <= before[after != 0].min()
    assert (model[0].weight != 0).all()
    assert not list(pruned.buffers())


def test_a_network_in_channels_last_can_be_pruned():
    pruned = without_smallest_weights(network(channels=[4, 8]), 0.5)
    weights = [m.weight for m in pruned.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert zeros == sum(weight.numel() for weight in weights) // 2


def test_the_probability_is_that_of_the_own_class():
    logits = torch.randn(300, 4)
    labels = torch.randint(0, 4, (300,))
    found = true_class_probability(lambda batch: logits[batch], torch.arange(300), labels)
    expected = [float(logits[i].softmax(0)[labels[i]]) for i in range(300)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    training = WarmScript("train", [*TINY, "visual=off"], folder, notes=folder)
    assert training.wait() == 0, training.communicate()
    (path,) = (folder / "outputs" / "runs").iterdir()
    return path


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (["shift", "--max", "4", "step=2"], ["shift/acc_0", "shift/acc_2", "shift/acc_4"]),
        (["permute"], ["permute/acc_before", "permute/acc"]),
        (["canvas", "sides=28,14", "clutter=2"], ["canvas/acc_28", "canvas/acc_14"]),
        (["occlude", "size=8", "step=10", "--images", "20"], ["occlude/largest_drop"]),
        (["prune", "fractions=0,0.5,0.99"], ["prune/removable"]),
    ],
)
def test_each_probe_answers_with_numbers_and_a_figure(words, numbers, run, command):
    answer = command("probe", run, *words)
    assert (answer.code, answer.err) == (0, "")
    kept = json.loads((run / "probes" / f"{words[0]}.json").read_text())
    assert set(numbers) <= set(kept["numbers"])
    assert all(f"{name} " in answer.out for name in numbers)
    accuracy = json.loads((run / "result.json").read_text())["metrics"]["test/acc"]
    for unchanged in {"shift/acc_0", "permute/acc_before", "canvas/acc_28"} & set(numbers):
        if "--images" not in words and unchanged != "canvas/acc_28":
            assert kept["numbers"][unchanged] == pytest.approx(accuracy)
    assert (run / "probes" / f"{words[0]}.png").is_file() == (words[0] != "permute")
    file = run / "probes" / f"{words[0]}.json"
    written = file.stat().st_mtime_ns
    assert command("probe", run, *words).out == answer.out
    assert file.stat().st_mtime_ns == written


def heights(path, color, parts=3):
    """How high the mean pixel of a colour is in each of so many parts from left to right."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows, columns = np.nonzero(np.abs(pixels - ImageColor.getrgb(color)).max(-1) < 8)
    edges = np.linspace(columns.min(), columns.max() + 1, parts + 1)
    places = np.digitize(columns, edges) - 1
    return [-rows[places == part].mean() for part in range(parts)]


@pytest.mark.parametrize("acc", [[0.9, 0.9, 0.2], [0.1, 0.5, 0.5]])
@pytest.mark.parametrize("probe", ["canvas", "prune", "shift"])
def test_a_curve_goes_where_the_numbers_go(probe, acc, tmp_path):
    answer = {
        "canvas": {"sides": [0, 1, 2]},
        "prune": {"fractions": [0.0, 0.5, 0.9], "acc": acc},
        "shift": {"offsets": [-2, -1, 0, 1, 2], "acc": np.zeros((5, 5)).tolist()},
    }[probe]
    answer["numbers"] = {f"{probe}/acc_{number}": each for number, each in enumerate(acc)}
    found = heights(draw_probe(probe, {"arm": [answer]}, tmp_path), "#0072B2")
    assert found == sorted(found, reverse=acc[0] > acc[-1])
    assert len(set(found)) == 3


def test_what_a_covered_place_costs_is_orange_and_what_it_gains_is_blue(tmp_path):
    answer = {"images": [np.zeros((1, 4, 4), int).tolist()], "labels": ["7"]}
    path = draw_probe("occlude", {"arm": [answer | {"maps": [[[0.5, -0.5]]]}]}, tmp_path)
    sheet = np.asarray(Image.open(path).convert("RGB"))
    half = sheets.TILE // 2
    row = np.array([[213, 94, 0]] * half + [[0, 114, 178]] * half, np.uint8).tobytes()
    assert sum(row in line.tobytes() for line in sheet) == half


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["shfit"], "there is no probe 'shfit'; allowed: shift, permute, canvas, occlude, prune"),
        (["shift", "max=28"], "max=28: allowed: 1 to 27, for images of 28x28"),
        (["shift", "far=3"], "probe shift: far: allowed: max, step"),
        (["shift", "max=x"], "'max=x': allowed: <setting>=<number>"),
        (["shift", "--far=3", "--max", "4"], "probe shift: far: allowed: max, step"),
        (["shift", "--max"], "'max=': allowed: <setting>=<number>"),
        (["canvas", "sides=40"], "sides=40: allowed: 2 to 28"),
        (["occlude", "size=0"], "size=0: allowed: 1 to 28"),
        (["prune", "fractions=1.5"], "fractions=1.5: allowed: 0 to 0.999"),
    ],
)
def test_wrong_input_is_one_sentence(words, sentence, run, command):
    answer = command("probe", run, *words)
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.count("\n") == 1


def test_settings_are_numbers_or_lists_of_them():
    assert parse_settings(["max=8", "sides=20,12"]) == {"max": 8, "sides": (20, 12)}
    assert parse_settings(["--max", "8", "--sides=20,12"]) == {"max": 8, "sides": (20, 12)}
    with pytest.raises(ConfigError):
        parse_settings(["max"])
