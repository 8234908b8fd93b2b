"""scripts/plan.py: what would train, without training."""

import copy
import hashlib
import json
import os
import random
import re
import time
from collections import Counter

import pytest
from hydra import compose
from omegaconf import OmegaConf
from PIL import Image

from convscape.config.check import check
from convscape.config.compose import Composer
from convscape.config.networks import CNNConfig, SequentialConfig
from convscape.geometry import sequential
from convscape.geometry.kinds import all_layers
from convscape.geometry.layers import Conv
from convscape.geometry.sliding import Sliding
from convscape.runs.fingerprint import ADDED_LATER, FINGERPRINT_EXCLUDES
from convscape.runs.resolved import ResolvedRun
from tests.test_config import initialised


def test_one_network_is_shown_layer_by_layer(command):
    answer = command("plan", "model.channels=[8]", "model.dense=[20]")
    assert answer.code == 0
    assert "block1.conv" in answer.out
    assert "8x13x13" in answer.out
    assert answer.out.splitlines()[-1].split() == ["total", "27,350", "75,912"]


def test_a_sweep_has_a_row_per_configuration_with_the_reasons(command):
    answer = command("plan", "sweep=geometry")
    assert "36 runs, 30 possible" in answer.out
    rows = [line for line in answer.out.splitlines() if line[:2] in ("3 ", "5 ", "7 ")]
    assert len(rows) == 12
    assert rows[0].split() == [
        *("3", "1", "valid", "3", "32x13x13", ">", "64x5x5"),
        *("34,826", "2,440,960", "10", "yes"),
    ]
    assert "[2] block 2: a 7x7 kernel at stride 2 does not fit its 5x5 input" in answer.out


def test_what_is_equal_in_meaning_is_counted_once(command):
    answer = command("plan", "model.kernel_size=3,3x3,[3,3],5", "seed=0,1")
    assert "4 runs, 4 possible" in answer.out
    assert "4 duplicates are left out" in answer.out


def test_mlps_and_cnns_are_planned_together(command):
    answer = command("plan", "-m", "model=cnn,mlp", "optimizer.lr=0.1,0.01")
    assert "4 runs, 4 possible" in answer.out
    assert "669,706" in answer.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.kernel_size=30"], "block 1: a 30x30 kernel does not fit"),
        (["model.kernel_size=3,0"], "model.kernel_size=0: 0 is too small"),
        (["model=cnn,mlp", "model.kernel_size=3,5"], "model.kernel_size: there is no such key"),
        (["sweep=geometri"], "did you mean 'geometry'?"),
        (["model.stride=1,2", "trainer.devices=2"], "trainer.devices must be 1 in a sweep"),
        (["optimizer.lr=interval(0,1)"], "scripts/search.py"),
        (["seed=range(0)"], "the sweep is empty"),
        (["seed=range(1,1000000000)"], "too many values; allowed: 100,000"),
        (["seed=shuffle(range(1,1000000000))"], "too many values"),
        (["seed=range(0,1e9,1e-9)"], "too many values"),
        (["seed=range(5,9,0)"], "too many values"),
        (["seed=range(9000)", "data.split_seed=range(9000)"], "81,000,000 runs; allowed: up to"),
        (["model=null"], "model=null: there is no such choice; allowed: cnn"),
        (["data=-1"], "data=-1: there is no such choice; allowed: cifar10"),
        (["data=../../etc/passwd"], "data=../../etc/passwd: there is no such choice"),
        (["seed=" + "9" * 5000], "Hydra cannot read the command line"),
        (["model.kernel_size=" + "[" * 500 + "3" + "]" * 500], "nested too deeply"),
        (["model=mlp", "model.hidden=[" + "9" * 3000 + "]"], "allowed: up to 2147483647"),
        (["model.kernel_size=99999999999"], "too large; allowed: up to 2147483647"),
        (["model.stride=9999999999999", "model.padding=same"], "too large"),
        (["trainer.threads=1000000"], "trainer.threads=1000000"),
        (["data.augment.rotate=200"], "data.augment.rotate=200"),
        (["data.split_seed=-1"], "data.split_seed=-1"),
        (["data.change.canvas=100000"], "data.change.canvas=100000"),
        (["data.change=3"], "data.change=3: allowed: a section with keys of its own"),
        (["data.root=/home/José"], "its value needs quotes: \"data.root='/home/José'\""),
        (["seed=${seed}"], "seed: Recursive interpolation detected"),
    ],
)
def test_a_mistake_is_one_sentence(command, arguments, words):
    answer = command("plan", *arguments)
    assert (answer.code, words in answer.err) == (2, True), answer.out + answer.err


def test_one_run_on_several_devices_is_no_sweep(command):
    assert command("plan", "trainer.devices=2").code == 0
    assert "trainer.devices must be 1 in a sweep" in command("plan", "-m", "trainer.devices=2").err


def test_settings_of_hydra_itself_are_heard(command):
    assert command("plan", "hydra.job.name=x", "hydra/launcher=basic", "seed=1,2").code == 0


def test_ten_thousand_runs_are_planned_in_seconds(command):
    began = time.process_time()
    answer = command("plan", "model.kernel_size=3,5", "model.stride=1,2", "seed=range(2500)")
    assert "10000 runs, 7500 possible" in answer.out, answer.err
    assert time.process_time() - began < 30  # it takes 2 s where nothing else runs


@pytest.mark.parametrize(
    "words",
    [
        ["model.kernel_size=3,5,9", "model.stride=1,4"],
        ["model=resnet20", "model.layers.conv1.kernel_size=3,5", "model.init=default,dirac"],
    ],
)
def test_each_network_of_a_grid_is_built_once(command, monkeypatch, words):
    built, written, slid = [], [], []
    for kind in (CNNConfig, SequentialConfig):
        build = kind.named_layers
        monkeypatch.setattr(
            kind, "named_layers", lambda *given, build=build: (built.append(1), build(*given))[1]
        )
    whole, along = sequential.whole_layers, Sliding._along
    monkeypatch.setattr(
        sequential, "whole_layers", lambda layers: (written.append(1), whole(layers))[1]
    )
    monkeypatch.setattr(Sliding, "_along", lambda *given: (slid.append(given), along(*given))[1])
    answer = command("plan", *words)
    num_networks = int(re.search(r"^(\d+) runs", answer.out, re.MULTILINE)[1])
    assert len(built) == num_networks
    assert not written  # they were completed when the config was checked
    assert max(Counter((id(layer), axis) for layer, axis in slid).values()) == 1


def _as_one_document(config):
    """A fingerprint as it is defined: the hash of one document, whose pieces nothing shares."""
    matter = config.model_dump(include={"data", "optimizer", "scheduler", "trainer", "seed"})
    for section, keys in FINGERPRINT_EXCLUDES.items():
        for key in keys:
            del matter[section][key]
    for *path, leaf in (key.split(".") for key in ADDED_LATER):
        described, values = config, matter
        for part in path:
            described, values = getattr(described, part), values[part]
        if values[leaf] == type(described).model_fields[leaf].default:
            del values[leaf]
    model = config.model
    named = model.named_layers(config.image_shape[1])
    matter["model"] = [*(str(n.layer) for n in named), model.init, model.loss]
    matter["model"].append(model.label_smoothing)
    if any(isinstance(layer, Conv) for layer in all_layers(named)):
        matter["model"].append(getattr(model, "first_layer", "learned"))
    return hashlib.sha256(json.dumps(matter, sort_keys=True).encode()).hexdigest()[:8]


GRID = {
    "model": ("cnn", "mlp", "resnet20", "sequential"),
    "data": ("mnist", "cifar10"),
    "scheduler": ("one_cycle", "cosine"),
    "optimizer.lr": (0.001, 0.01, 0.1),
    "data.batch_size": (32, 64),
    "data.augment.shift": (0, 2),
    "trainer.max_epochs": (1, 2),
    "trainer.gradient_clip_norm": ("null", 1.0),
    "trainer.ema": ("null", 0.99),
    "model.init": ("default", "kaiming_normal"),
    "seed": tuple(range(5)),
}


def test_cells_that_share_sections_are_what_each_is_alone():
    drawn = random.Random(0)
    known = {}
    with initialised():
        composer = Composer(lambda overrides: compose("train", overrides))
        for number in range(300):
            words = [f"{key}={drawn.choice(values)}" for key, values in GRID.items()]
            plain = composer.config(words)
            shared, alone = check(plain, known), check(copy.deepcopy(plain))
            assert shared == alone, words
            assert ResolvedRun(shared, words).fingerprint == _as_one_document(alone), words
            if number % 10 == 0:  # Hydra takes longer for one than all of this
                assert plain == OmegaConf.to_container(compose("train", words), resolve=True)


def test_the_runs_of_a_grid_over_a_folder_share_its_section_and_look_at_it_once(
    tmp_path, monkeypatch
):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("L", (8, 8), number).save(tmp_path / name / f"{number}.png")
    words = ["data=image_folder", f"data.root={tmp_path}", "data.image_size=28", "model=mlp"]
    looks, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda *where: (looks.append(where), scandir(*where))[1])
    known, configs, num_looks = {}, [], []
    with initialised():
        composer = Composer(lambda overrides: compose("train", overrides))
        for seed in range(4):
            configs.append(check(composer.config([*words, f"seed={seed}"]), known))
            assert ResolvedRun(configs[-1], words).fingerprint
            num_looks.append(len([where for where in looks if str(tmp_path) in str(where)]))
    assert configs[0].data.val_size == 0.1
    assert all(config.data is configs[0].data for config in configs)
    assert num_looks == [num_looks[0]] * 4
    assert num_looks[0] > 0


@pytest.mark.parametrize("value", ["[${seed},2]", "{a:[{b:${seed}}]}"])
def test_a_reference_within_a_list_is_to_the_runs_own_value(value):
    with initialised():
        composer = Composer(lambda overrides: compose("train", overrides))
        for seed in (1, 2):
            words = [f"+callbacks.own={{_target_:mine.Own,values:'{value}'}}", f"seed={seed}"]
            hydras = OmegaConf.to_container(compose("train", words), resolve=True)
            assert composer.config(words) == hydras


def test_planning_needs_no_torch(start_fresh):
    out, imports = start_fresh("plan", "model=mlp", PYTHONPROFILEIMPORTTIME="1").communicate()
    assert "669,706" in out
    assert " torch" not in imports
