"""How fast is training? Ours, the best loop by hand, the usual tutorial, and Keras, side by side.

    make bench                        all variants that are installed, 3 repetitions
    python benchmarks/speed.py --repetitions 5 --networks cnn

Every measurement is a process of its own, and the variants take turns, so that their ratios hold on
a noisy machine. Images are random: what they show does not matter to the clock.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NUM_IMAGES, BATCH_SIZE, LR = 6_400, 128, 1e-3
WARM_UP_EPOCHS, EPOCHS = 1, 2
NETWORKS = ("cnn", "mlp")  # conv32-pool-conv64-pool-dense10 (34,826 parameters), 784-512-512-10
RESULTS = Path(__file__).parent / "results" / "speed.json"


def random_data() -> tuple[Any, Any]:
    """Images (N, 1, 28, 28) uint8 and labels (N,)."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 1, 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, NUM_IMAGES)


def timed_epochs(run_epoch: Callable[[], None]) -> float:
    """Images per second, after warming up."""
    for _ in range(WARM_UP_EPOCHS):
        run_epoch()
    start = time.perf_counter()
    for _ in range(EPOCHS):
        run_epoch()
    return EPOCHS * NUM_IMAGES / (time.perf_counter() - start)


def plain_network(network: str) -> Any:
    """The network in plain torch."""
    from torch import nn

    if network == "mlp":
        dense = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
        return nn.Sequential(nn.Flatten(), *dense, nn.Linear(512, 10))
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1600, 10)),
    )


# --- the variants -----------------------------------------------------------------------------


def loop(network: str) -> float:
    """The best loop by hand: data in memory, channels_last, fused Adam, metrics once per epoch."""
    import torch
    import torch.nn.functional as F

    images, labels = map(torch.from_numpy, random_data())
    model = plain_network(network).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def epoch() -> None:
        losses, hits = [], []
        for chosen in torch.randperm(NUM_IMAGES).split(BATCH_SIZE):
            batch = images[chosen].to(torch.float32, memory_format=torch.channels_last)
            batch = batch.mul_(1 / (255 * 0.3081)).sub_(0.1307 / 0.3081)
            logits = model(batch)
            loss = F.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            hits.append((logits.detach().argmax(1) == labels[chosen]).sum())
        torch.stack(losses).mean().item(), torch.stack(hits).sum().item()

    return timed_epochs(epoch)


def convscape(network: str, steps: str = "auto") -> float:
    """Ours as a user runs it: Lightning, checkpoints, TensorBoard, history; validation left out."""
    import tempfile

    import numpy as np
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from convscape import train as training
    from convscape.cache import ImageSet
    from convscape.cli import CONFIG_DIR
    from convscape.config import Config, check

    images, labels = random_data()
    labels[:10] = np.arange(10)
    data = ImageSet(
        *("noise", tuple("0123456789"), images, labels, images[:100], labels[:100]),
        *((0.1307,), (0.3081,), "0"),
    )
    overrides = [f"model={network}", f"optimizer.lr={LR}", "scheduler=constant", "data.val_size=0"]
    overrides += [f"trainer.max_epochs={WARM_UP_EPOCHS + EPOCHS}", "trainer.progress=lines"]
    overrides += ["trainer.precision=fp32", f"trainer.steps_per_execution={steps}"]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = check(OmegaConf.to_container(compose("train", overrides), resolve=True))
    Config.load_images = lambda self: data
    marks = []
    with tempfile.TemporaryDirectory() as folder:
        result = training.train(
            config, Path(folder) / "run", overrides, lambda row: marks.append(time.perf_counter())
        )
    assert result.status == "ok", result.error
    return EPOCHS * NUM_IMAGES / (marks[-1] - marks[WARM_UP_EPOCHS - 1])


def convscape_step_by_step(network: str) -> float:
    """Ours with one optimiser step in each call of training_step."""
    return convscape(network, "1")


def tutorial(network: str) -> float:
    """The usual set-up: torchvision transforms per image, DataLoader, Lightning with all its on."""
    import tempfile

    import lightning.pytorch as pl
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torchvision import transforms

    images, labels = random_data()
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return NUM_IMAGES

        def __getitem__(self, index: int) -> Any:
            return transform(Image.fromarray(images[index, 0])), int(labels[index])

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = plain_network(network)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            logits = self.network(batch[0])
            loss = F.cross_entropy(logits, batch[1])
            acc = (logits.argmax(1) == batch[1]).float().mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
            self.log("train_acc", acc, on_step=True, on_epoch=True, prog_bar=True)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=LR)

    marks = []

    class Clock(pl.Callback):
        def on_train_epoch_end(self, *_: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=WARM_UP_EPOCHS + EPOCHS,
            default_root_dir=folder,
            callbacks=[Clock()],
        )
        loader = torch.utils.data.DataLoader(Pictures(), batch_size=BATCH_SIZE, shuffle=True)
        trainer.fit(Classifier(), loader)
    return EPOCHS * NUM_IMAGES / (marks[-1] - marks[WARM_UP_EPOCHS - 1])


def keras(network: str) -> float:
    """Keras 3 on the backend of KERAS_BACKEND, compiled, data in memory."""
    import keras as k
    import numpy as np

    images, labels = random_data()
    pixels = ((images.transpose(0, 2, 3, 1) / 255 - 0.1307) / 0.3081).astype(np.float32)
    if network == "mlp":
        layers = [k.layers.Flatten(), *(k.layers.Dense(512, "relu") for _ in range(2))]
    else:
        layers = [
            *(k.layers.Conv2D(32, 3, activation="relu"), k.layers.MaxPooling2D()),
            *(k.layers.Conv2D(64, 3, activation="relu"), k.layers.MaxPooling2D()),
            k.layers.Flatten(),
        ]
    model = k.Sequential([k.Input((28, 28, 1)), *layers, k.layers.Dense(10)])
    model.compile(
        k.optimizers.Adam(LR),
        k.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )

    def epoch() -> None:
        model.fit(pixels, labels, batch_size=BATCH_SIZE, verbose=0)

    return timed_epochs(epoch)


VARIANTS: dict[str, tuple[Callable[[str], float], dict[str, str]]] = {
    "loop by hand": (loop, {}),
    "convscape": (convscape, {}),
    "convscape, 1 step per call": (convscape_step_by_step, {}),
    "tutorial with Lightning": (tutorial, {}),
    "Keras on TensorFlow": (keras, {"KERAS_BACKEND": "tensorflow"}),
    "Keras on JAX": (keras, {"KERAS_BACKEND": "jax"}),
}


# --- the driver -------------------------------------------------------------------------------


def main() -> None:
    """Let the variants take turns; print a table, write results/speed.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--keras-python", default=sys.executable, help="one that has Keras")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        variant, network = json.loads(arguments.only)
        print(json.dumps(VARIANTS[variant][0](network)))  # noqa: T201
        return
    speeds: dict[str, dict[str, list[float]]] = {n: {} for n in arguments.networks}
    for _ in range(arguments.repetitions):
        for network in arguments.networks:
            for variant in VARIANTS:
                speed = measured(variant, network, arguments.keras_python)
                if speed is not None:
                    speeds[network].setdefault(variant, []).append(speed)
    for network, found in speeds.items():
        print_table(network, found)
    RESULTS.write_text(json.dumps({**machine(), "images_per_second": speeds}, indent=1) + "\n")


def measured(variant: str, network: str, keras_python: str) -> float | None:
    """Images per second of one process; None where the variant is not installed."""
    _, environment = VARIANTS[variant]
    python = keras_python if environment else sys.executable
    here = python == sys.executable
    if environment and here and not importlib.util.find_spec(environment["KERAS_BACKEND"]):
        return None
    process = subprocess.run(
        [python, __file__, "--only", json.dumps([variant, network])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if process.returncode != 0:
        print(f"{variant}: {process.stderr.strip().splitlines()[-1]}", file=sys.stderr)  # noqa: T201
        return None
    speed = float(process.stdout.splitlines()[-1])
    print(f"{network}: {variant}: {speed:,.0f} images/s", file=sys.stderr)  # noqa: T201
    return speed


def print_table(network: str, found: dict[str, list[float]]) -> None:
    """Median, range, and the ratio to the loop by hand, paired within each round."""
    base = found["loop by hand"]
    print(f"\n{network}: images/s, median (range) of {len(base)}; times as fast as the loop")  # noqa: T201
    for variant, speeds in found.items():
        ratio = statistics.median(s / b for s, b in zip(speeds, base, strict=False))
        low, high = min(speeds), max(speeds)
        median = statistics.median(speeds)
        print(f"  {variant:<28} {median:>9,.0f}  ({low:,.0f} to {high:,.0f})  {ratio:5.2f}")  # noqa: T201


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    import torch

    from convscape.machine import available_cores, cpu_name

    return {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "batch_size": BATCH_SIZE,
        "precision": "fp32",
    }


if __name__ == "__main__":
    main()
