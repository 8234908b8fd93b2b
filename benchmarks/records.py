"""Train a recipe with ten seeds, and print its row for records.md if it reaches the goal.

    python benchmarks/records.py experiment=mnist_99

The arguments are overrides for scripts/train.py. The runs are one sweep in a temporary folder, one
after the other in one process; the seconds are those of training, as in result.json.
"""

import argparse
import json
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

import convscape
from convscape.reports.statistics import estimate

NUM_SEEDS = 10


def main() -> int:
    """Exit status 0 if the mean of the seeds reaches the goal, else 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--goal", type=float, default=99.0, help="test accuracy in %%, mean")
    parser.add_argument("overrides", nargs="+", help="as for scripts/train.py, without a seed")
    arguments = parser.parse_args()
    results = trained(arguments.overrides)
    accuracy = estimate(100 * np.array([each["metrics"]["test/acc"] for each in results]))
    print(row(results, accuracy, arguments.overrides))  # noqa: T201
    reached = accuracy.mean >= arguments.goal
    if not reached:
        print(f"no entry: the mean is below {arguments.goal:g} %", file=sys.stderr)  # noqa: T201
    return 0 if reached else 1


def trained(overrides: list[str]) -> list[dict]:
    """The results of the runs, in the order of their seeds."""
    with tempfile.TemporaryDirectory() as folder:
        convscape.train_sweep(
            *overrides,
            f"seed=range({NUM_SEEDS})",
            f"output_dir={folder}",
            "trainer.progress=off",
            name="record",
        )
        files = sorted(Path(folder).glob("sweeps/record/*/result.json"))
        results = [json.loads(file.read_text("utf-8")) for file in files]
    for each in results:
        if each["status"] != "ok":
            sys.exit(f"seed {each['seed']}: {each['status']}: {each['error']}")
    return sorted(results, key=lambda each: each["seed"])


def row(results: list[dict], accuracy, overrides: list[str]) -> str:
    """The row for the table in records.md."""
    seconds = [each["seconds"]["fit"] for each in results]
    where = results[0]["environment"]
    cells = (
        f"{np.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
        f"{accuracy.mean:.2f} ± {accuracy.half_width:.2f} %",
        f"{where['cpu']}, {where['threads']} threads, {where['precision']}",
        f"torch {where['torch']}",
        f"`{shlex.join(overrides)}`",
        datetime.now(UTC).date().isoformat(),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
