"""How many runs per minute does a sweep finish, one at a time and one on each core?

    python benchmarks/sweeps.py

With hydra/launcher=joblib each run has one core; one at a time, it has one core or, by default, all
of them. The sweeps take turns, in separate processes; starting the workers, planning and the report
are included.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
WAYS = {
    "one at a time, one core": ["trainer.threads=1"],
    "one at a time, all cores": [],
    "one on each core": ["hydra/launcher=joblib"],
}


def main() -> None:
    """Print medians and ranges, write results/sweeps.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--overrides", nargs="*", default=[], help="of every run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/sweeps.json")
    arguments = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(arguments.repetitions):
        for name, way in WAYS.items():
            rates[name].append(runs_per_minute(arguments.runs, [*way, *arguments.overrides]))
    print("runs per minute, median (range); ratio to one at a time on one core")  # noqa: T201
    slowest = statistics.median(rates["one at a time, one core"])
    for name, values in rates.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        ratio = middle / slowest
        print(f"  {name:<24} {middle:5.1f}  ({low:.1f} to {high:.1f})  {ratio:5.2f}")  # noqa: T201
    arguments.out.write_text(json.dumps(rates, indent=1) + "\n")


def runs_per_minute(num_runs: int, overrides: list[str]) -> float:
    """For a sweep over seeds of the default network on the bundled digits."""
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), "-m", "name=bench"]
    command += [f"seed=range({num_runs})", *overrides]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return 60 * num_runs / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
