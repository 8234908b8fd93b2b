"""Run folders written from a known model, for tests of what is made of them."""

import csv
import itertools

import numpy as np
import yaml

from convscape.runs.folder import RunFolder
from convscape.runs.result import Result
from tests.test_config import composed

LEVELS = {
    "model.kernel_size": [3, 5, 7],
    "model.stride": [1, 2],
    "model.padding": ["valid", "same"],
}
# points of validation accuracy that each value adds, as fractions
TRUTH = {
    "model.kernel_size": {3: 0.0, 5: 0.010, 7: 0.015},
    "model.stride": {1: 0.0, 2: -0.008},
    "model.padding": {"valid": 0.0, "same": 0.0},
    "data.fold": {0: 0.0, 1: 0.020},
}
MACS = {3: 1_000_000, 5: 2_500_000, 7: 5_000_000}


def accuracy(cell, noise=0.0):
    """Of the linear model: 0.95, what each value adds, and noise."""
    return 0.95 + sum(TRUTH[key][value] for key, value in cell.items()) + noise


def write_runs(folder, seeds=3, noise=0.002, levels=LEVELS, **changes):
    """One finished run for each cell and seed; 7 with stride 2 and valid is impossible."""
    rng = np.random.default_rng(0)
    base = composed()
    for key in ("name", "output_dir", "resume", "retry", "fail_fast", "extend", "allow_packages"):
        base.pop(key)
    for number, (seed, *values) in enumerate(itertools.product(range(seeds), *levels.values())):
        cell = dict(zip(levels, values, strict=True))
        result = finished_run(base, cell, seed, accuracy(cell, rng.normal(0, noise)), number)
        if values == [7, 2, "valid"]:
            result.metrics, result.num_parameters, result.macs = {}, None, None
            result.seconds, result.receptive_field = {}, None
            result.fail("infeasible", ValueError("block 2: a 7x7 kernel does not fit"))
        for name, value in changes.items():
            setattr(result, name, value)
        write_run(folder / f"run{number:05d}", result)
    definition = {key: ",".join(map(str, values)) for key, values in levels.items()}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(definition))


def finished_run(base, cell, seed, acc, number):
    """A result with the accuracy `acc` and costs that depend on the cell alone."""
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for key, value in cell.items():
        section, _, leaf = key.partition(".")
        config[section][leaf] = value
    config["seed"] = seed
    stride = cell.get("model.stride", 1)
    return Result(
        run=f"run{number}",
        fingerprint=f"{number:08x}",
        status="ok",
        config=config,
        overrides=[f"{key}={value}" for key, value in cell.items()] + [f"seed={seed}"],
        seed=seed,
        num_parameters=10_000 * cell.get("model.kernel_size", 3),
        macs=MACS.get(cell.get("model.kernel_size"), 10**6) // stride**2,
        receptive_field=[10, 10],
        metrics={"val/acc": acc, "test/acc": acc - 0.001, "val/loss": 1 - acc},
        best_epoch=3,
        epochs=3,
        seconds={"setup": 0.1, "fit": 2.0 + cell.get("model.kernel_size", 3), "test": 0.1},
        samples_per_second=5000.0,
        data_checksum="abc",
        environment={"torch": "2.15.0", "cpu": "a processor", "git_commit": "0123456"},
    )


def write_run(path, result):
    """The folder of a run with its result and a rising history."""
    folder = RunFolder(path)
    folder.create(result)
    if result.status == "ok":
        final = result.metrics["val/acc"]
        with folder.history_file.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["epoch", "val/acc"])
            writer.writeheader()
            for epoch, part in enumerate((0.8, 0.95, 1.0), 1):
                writer.writerow({"epoch": epoch, "val/acc": final * part})


def a_claim(words, **changes):
    """The first screen of a claim with one finding, as `board.document` takes it."""
    facts = {"name": "test/acc", "title": "test/acc (%)", "scale": 100, "unit": "%", "digits": 2}
    finding = {"says": words, "words": words, "verdict": "supported", "metric": facts}
    finding |= {"mean": 0.05, "low": 0.03, "high": 0.07, "expect": "higher", "by": 0.02} | changes
    first = {"question": words, "says": words, "budget": words, "verdict": finding["verdict"]}
    return first | {"findings": [finding]}
