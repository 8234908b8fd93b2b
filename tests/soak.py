"""Trains, kills, fills, garbles and goes on, for a given time; then counts what was lost.

python tests/soak.py --seconds 600 --seed 1

Whatever happened to it, a run must end with the same bits as the one that was left alone, a sweep
with the same results, and no finished run may be trained twice. Exit code 1 if anything was lost.
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from convscape.runs.folder import RunFolder  # noqa: E402
from tests.dying import MOMENTS, train_apart, train_on_a_full_disk  # noqa: E402
from tests.test_numbers import damage  # noqa: E402
from tests.test_resume import differences, result_but_for_times  # noqa: E402

MOST_ATTEMPTS = 8
# what may be different from run to run: all of it has a state or draws random numbers
CHOICES = {
    "model": ["cnn", "mlp"],
    "optimizer": ["adam", "sgd", "adamw", "rmsprop"],
    "scheduler": ["one_cycle", "cosine", "constant"],
    "model.dropout": ["0", "0.3"],
    "model.batch_norm": ["true", "false"],
    "data.augment.shift": ["0", "2"],
    "trainer.precision": ["bf16", "fp32"],
    "trainer.steps_per_execution": ["1", "3", "auto"],
    "trainer.max_epochs": ["2", "3", "5"],
    "trainer.monitor": ["train/loss"],  # which is there without validation too
    "trainer.early_stopping": ["null", "1"],
    "visual": ["off", "light", "full"],
    "data.val_size": ["0", "150"],
}
ALWAYS = ["data.train_size=300", "data.batch_size=32", "data.eval_batch_size=50"]
ALWAYS += ["trainer.threads=1", "trainer.progress=off"]


class Lost(Exception):
    """Something that was there, or should be, is not."""


class Soak:
    """Injects faults until the time is over, and counts them by what they are."""

    def __init__(self, seconds: float, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.end = time.monotonic() + seconds
        self.folder = folder
        self.injected: collections.Counter[str] = collections.Counter()
        self.lost: list[str] = []
        self.faults: list[str] = []  # of the run under way
        self.runs = self.sweeps = 0

    def go_on(self) -> None:
        """Until the time is over."""
        while time.monotonic() < self.end:
            number = self.runs + self.sweeps
            place = self.folder / str(number)
            scene = self.sweep if number % 8 == 7 else self.run
            try:
                scene(place)
            except (AssertionError, Lost, OSError, subprocess.SubprocessError) as error:
                self.lost.append(f"{scene.__name__} {place}: {error}")

    # --- one run --------------------------------------------------------------------------

    def run(self, place: Path) -> None:
        """One that is disturbed up to `MOST_ATTEMPTS` times, beside one that is not."""
        self.runs += 1
        overrides = [f"seed={self.rng.randrange(1000)}", *ALWAYS]
        overrides += [f"{key}={self.rng.choice(values)}" for key, values in CHOICES.items()]
        whole, disturbed = RunFolder(place / "whole"), RunFolder(place / "disturbed")
        if train_apart(overrides, whole.path) != "ok":
            raise Lost(f"a run that was left alone ended badly: {overrides}")
        ending = None
        self.faults.clear()
        for _ in range(MOST_ATTEMPTS):
            ending = self.disturb(overrides, disturbed)
            if ending == "ok":
                break
        if ending != "ok" and train_apart(overrides, disturbed.path) != "ok":
            raise Lost(f"it did not finish: {overrides}")
        if different := differences(disturbed, whole):
            raise Lost("\n  ".join([str(overrides), *self.faults, *different]))

    def disturb(self, overrides: list[str], run: RunFolder) -> str | None:
        """One attempt with a fault of some kind; how it ended."""
        moments = [name for name in MOMENTS if name != "report" and "own" not in name]
        moment, number = self.rng.choice(moments), self.rng.randint(1, 8)
        fault = self.rng.choice(
            ["killed", "killed at a moment", "stopped", "clock set", "disk full", "file damaged"]
        )
        arguments = (overrides, run.path)
        self.faults.append(f"{fault}, {moment} {number}")
        if fault == "killed":
            ending = train_apart(*arguments, after_s=self.rng.uniform(0, 2))
        elif fault == "killed at a moment":
            ending = train_apart(*arguments, moment, number)
        elif fault == "stopped":
            signum = self.rng.choice([signal.SIGINT, signal.SIGTERM])
            ending = train_apart(*arguments, moment, number, signum)
        elif fault == "clock set":
            ending = train_apart(*arguments, moment, number, days=self.rng.choice([-1, 1]))
        elif fault == "disk full":
            ending = train_on_a_full_disk(*arguments, moment, number)
        else:
            files = [*run.path.glob("checkpoints/*.ckpt"), *run.path.glob("result.json")]
            if not files:
                return None
            damaged = self.rng.choice(files)
            damage(damaged)
            self.faults.append(f"{damaged.name} damaged")
            ending = train_apart(*arguments)
        if ending not in (None, "ok", "interrupted"):
            raise Lost(f"{fault} at {moment} {number} ended as {ending}: {overrides}")
        if ending != "ok" or fault in ("clock set", "file damaged"):
            self.injected[fault] += 1
        return ending

    # --- a sweep --------------------------------------------------------------------------

    def sweep(self, place: Path) -> None:
        """One of the command line, killed with its workers and started again until it is done."""
        self.sweeps += 1
        place.mkdir()
        script = [sys.executable, str(ROOT / "scripts" / "train.py")]
        command = [*script, "-m", *ALWAYS, "trainer.max_epochs=3", "model.dropout=0.2"]
        command += ["model.channels=[4]", "seed=range(4)", "name=disturbed"]
        folder = place / "outputs" / "sweeps" / "disturbed"
        finished: dict[Path, int] = {}
        for attempt in range(4):
            again = ["retry=true"] if attempt == 3 else []
            process = subprocess.Popen(
                [*command, *again],
                cwd=place,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if attempt < 3:
                time.sleep(self.rng.uniform(1, 9))
                if process.poll() is None:
                    kind = self.rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
                    os.killpg(process.pid, kind)
                    self.injected["sweep killed" if kind == 9 else "sweep stopped"] += 1
            said = process.communicate(timeout=120)[0].decode()
            if "Traceback" in said:
                raise Lost(said)
            for path in folder.glob("*/result.json"):
                result = RunFolder(path.parent).read_result()
                if result is None:
                    raise Lost(f"{path} is half")
                when = path.stat().st_mtime_ns
                if result.status == "ok" and finished.setdefault(path, when) != when:
                    raise Lost(f"{path} was finished and is trained again")
        if process.returncode:
            raise Lost(f"{command} ended with {process.returncode}: {said}")
        for path in finished:
            overrides = RunFolder(path.parent).read_result()
            assert overrides is not None
            alone = RunFolder(place / "alone" / path.parent.name)
            chosen = [*overrides.overrides, *ALWAYS, "name=disturbed"]
            if train_apart(chosen, alone.path) != "ok":
                raise Lost(f"{chosen} ended badly alone")
            ours, theirs = (result_but_for_times(run) for run in (RunFolder(path.parent), alone))
            if ours["metrics"] != theirs["metrics"]:
                raise Lost(f"{chosen}: {ours['metrics']} instead of {theirs['metrics']}")
        if len(finished) != 4:
            raise Lost(f"{len(finished)} of 4 runs are there")

    def table(self) -> str:
        """What was done and what it cost."""
        rows = [("fault", "injected")]
        rows += [(name, str(count)) for name, count in sorted(self.injected.items())]
        rows.append(("all", str(self.injected.total())))
        lines = [f"{name:<20} {count:>8}" for name, count in rows]
        lines.append(f"{self.runs} runs and {self.sweeps} sweeps of 4, lost: {len(self.lost)}")
        return "\n".join([*lines, *self.lost])


def main() -> None:
    """Read the command line, soak, say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.seconds:.0f} s", flush=True)  # noqa: T201
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["CONVSCAPE_CACHE"] = str(Path(folder) / "cache")
        soak = Soak(arguments.seconds, arguments.seed, Path(folder))
        soak.go_on()
        print(soak.table())  # noqa: T201
    sys.exit(1 if soak.lost else 0)


if __name__ == "__main__":
    main()
