"""How long is the wait? Seconds until a command answers, and until the first optimiser step.

    python benchmarks/startup.py

Each is a separate process; the commands take turns.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN = [sys.executable, str(ROOT / "scripts" / "train.py")]
STEP = ["trainer.max_steps=1", "data.val_size=0", "trainer.progress=off"]
COMMANDS = {
    "import torch": [sys.executable, "-c", "import torch"],
    "import torch, lightning": [sys.executable, "-c", "import torch, lightning.pytorch"],
    "train.py --help": [*TRAIN, "--help"],
    "train.py --cfg job": [*TRAIN, "--cfg", "job"],
    "plan.py sweep=geometry": [
        *(sys.executable, str(ROOT / "scripts" / "plan.py"), "sweep=geometry"),
    ],
    "train.py, one step, test included": [*TRAIN, *STEP],
}


def main(repetitions: int = 3) -> None:
    """Print medians and ranges, write results/startup.json."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repetitions + 1):
            for name, command in COMMANDS.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
    for name, all_times in seconds.items():
        times = all_times[1:]  # the first round warms the disk
        low, high = min(times), max(times)
        median = statistics.median(times)
        print(f"{name:<36} {median:6.2f} s  ({low:.2f} to {high:.2f})")  # noqa: T201
    results = ROOT / "benchmarks" / "results" / "startup.json"
    results.write_text(json.dumps(seconds, indent=1) + "\n")


if __name__ == "__main__":
    main()
