"""How fast is training? Ours, the best loop by hand, the usual tutorial, Keras, and JAX by hand.

    make bench                        all variants that are installed
    python benchmarks/speed.py --repetitions 3 --networks cnn

The variants take turns, each in a separate process. Every epoch of a variant is followed by one of
the best hand-written loop, in another process that waits in between, and their ratio is taken: on a
noisy machine, runs minutes apart differ more than these two. The loop computes in the precision
that Convscape chooses on this machine. Images are random: their content does not affect the speed.
"""

import argparse
import importlib.util
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from convscape.runs.resolved import ResolvedRun

BATCH_SIZE, LR = 128, 1e-3
NETWORKS = {  # Convscape's overrides, and images of an epoch that lasts seconds
    "cnn": (["model=cnn"], 7_680),  # conv32-pool-conv64-pool-dense10, 34,826 parameters
    "mlp": (["model=mlp"], 30_720),  # 784-512-512-10
    "small_mlp": (["model=mlp", "model.hidden=[64]"], 60_000),  # 784-64-10
}
AfterEpoch = Callable[[], None]


def random_data(num_images: int) -> tuple[Any, Any]:
    """Images (N, 1, 28, 28) uint8 and labels (N,) of ten classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num_images, 1, 28, 28), dtype=np.uint8)
    return images, np.arange(num_images) % 10


def plain_network(network: str, pool_first: bool = False) -> Any:
    """The network in plain torch; ReLU and max pooling give the same result in either order."""
    from torch import nn

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        activation, pool = nn.ReLU(), nn.MaxPool2d(2)
        both = (pool, activation) if pool_first else (activation, pool)
        return [nn.Conv2d(inputs, outputs, 3), *both]

    if network == "cnn":
        return nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.Linear(1600, 10))
    widths = [784, 64] if network == "small_mlp" else [784, 512, 512]
    hidden = [
        layer
        for inputs, outputs in itertools.pairwise(widths)
        for layer in (nn.Linear(inputs, outputs), nn.ReLU())
    ]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(widths[-1], 10))


def best_loop(network: str, num_images: int, use_bf16: bool) -> Callable[[], int]:
    """An epoch of the best hand-written loop, with everything known to help; returns its images.

    Data in memory as normalised floats, channels_last, fused Adam, pooling before ReLU, metrics
    read once, freed memory kept by the C library, denormals flushed, and without a GPU no search
    for one in each step of Adam. In bf16 by autocast, as ours.
    """
    import torch
    import torch.nn.functional as F

    from convscape.base.machine import keep_freed_memory

    keep_freed_memory()
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    images, labels = map(torch.from_numpy, random_data(num_images))
    images = ((images / 255 - 0.1307) / 0.3081).to(memory_format=torch.channels_last)
    model = plain_network(network, pool_first=True).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)

    def epoch() -> int:
        losses, hits = [], []
        for chosen in torch.randperm(num_images).split(BATCH_SIZE):
            targets = labels.index_select(0, chosen)
            with torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
                logits = model(images.index_select(0, chosen))
                loss = F.cross_entropy(logits, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            hits.append((logits.detach().argmax(1) == targets).sum())
        torch.stack(losses).mean().item(), torch.stack(hits).sum().item()
        return num_images

    return epoch


class LoopByHand:
    """`best_loop` in a separate process, so that it does not affect the variant's process."""

    def __init__(self, network: str, num_images: int, in_fp32: bool) -> None:
        task = json.dumps([network, num_images, in_fp32])
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--loop", task],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def epoch(self) -> float:
        """Run an epoch and return its images per second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    @staticmethod
    def serve(network: str, num_images: int, in_fp32: bool) -> None:
        """The process's work: an epoch for each line on stdin."""
        epoch = best_loop(network, num_images, not in_fp32 and uses_bf16(network))
        for _ in sys.stdin:
            start = time.perf_counter()
            images = epoch()
            print(images / (time.perf_counter() - start), flush=True)  # noqa: T201


# --- the variants -----------------------------------------------------------------------------


def usual_loop(network: str, num_images: int, epochs: int, after_epoch: AfterEpoch) -> None:
    """A loop as it is usually written, though with its data in memory."""
    import torch
    import torch.nn.functional as F

    images, labels = map(torch.from_numpy, random_data(num_images))
    images = (images / 255 - 0.1307) / 0.3081
    model = plain_network(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    for _ in range(epochs):
        loss_sum = hits = 0.0
        for chosen in torch.randperm(num_images).split(BATCH_SIZE):
            logits = model(images[chosen])
            loss = F.cross_entropy(logits, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            hits += (logits.argmax(1) == labels[chosen]).sum().item()
        after_epoch()


def convscape(
    network: str, num_images: int, epochs: int, after_epoch: AfterEpoch, *overrides: str
) -> None:
    """Ours as a user runs it: Lightning, checkpoints, TensorBoard, history; without validation."""
    from convscape.config.schema import Config
    from convscape.data.cache import ImageSet
    from convscape.training import run as training

    images, labels = random_data(num_images)
    data = ImageSet(
        *("noise", tuple("0123456789"), images, labels, images[:100], labels[:100]),
        *((0.1307,), (0.3081,), "0"),
    )
    config = config_of(network, [f"trainer.max_epochs={epochs}", *overrides])
    Config.load_images = lambda self: data
    with tempfile.TemporaryDirectory() as folder:
        result = training.train(
            ResolvedRun(config), Path(folder) / "run", lambda row: after_epoch()
        )
    assert result.status == "ok", result.error


def config_of(network: str, overrides: Sequence[str]) -> Any:
    """Convscape's config for a network of the benchmark."""
    from omegaconf import OmegaConf

    from convscape.config.check import check
    from convscape.config.directory import composing

    settings = [*NETWORKS[network][0], f"optimizer.lr={LR}", "scheduler=constant"]
    settings += ["data.val_size=0", f"data.batch_size={BATCH_SIZE}", "trainer.progress=lines"]
    with composing() as compose:
        return check(OmegaConf.to_container(compose([*settings, *overrides]), resolve=True))


def convscape_nchw(
    network: str, num_images: int, epochs: int, after_epoch: AfterEpoch, *overrides: str
) -> None:
    """The same with torch's default memory format."""
    import torch

    torch.channels_last = torch.contiguous_format
    convscape(network, num_images, epochs, after_epoch, *overrides)


def tutorial(network: str, num_images: int, epochs: int, after_epoch: AfterEpoch) -> None:
    """The usual set-up: torchvision transforms per image, DataLoader, Lightning's defaults."""
    import lightning.pytorch as pl
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torchvision import transforms

    images, labels = random_data(num_images)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return num_images

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

    class Clock(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch > 0:  # only now is the previous epoch complete and saved
                after_epoch()

        def on_fit_end(self, *_: Any) -> None:
            after_epoch()

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs, default_root_dir=folder, callbacks=[Clock()]
        )
        loader = torch.utils.data.DataLoader(Pictures(), batch_size=BATCH_SIZE, shuffle=True)
        trainer.fit(Classifier(), loader)


def keras(network: str, num_images: int, epochs: int, after_epoch: AfterEpoch) -> None:
    """Keras 3 on the backend of KERAS_BACKEND, compiled, data in memory."""
    import keras as k
    import numpy as np

    images, labels = random_data(num_images)
    pixels = ((images.transpose(0, 2, 3, 1) / 255 - 0.1307) / 0.3081).astype(np.float32)
    if network == "cnn":
        layers = [
            *(k.layers.Conv2D(32, 3, activation="relu"), k.layers.MaxPooling2D()),
            *(k.layers.Conv2D(64, 3, activation="relu"), k.layers.MaxPooling2D()),
            k.layers.Flatten(),
        ]
    else:
        widths = [64] if network == "small_mlp" else [512, 512]
        layers = [k.layers.Flatten(), *(k.layers.Dense(width, "relu") for width in widths)]
    model = k.Sequential([k.Input((28, 28, 1)), *layers, k.layers.Dense(10)])
    model.compile(
        k.optimizers.Adam(LR),
        k.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    for _ in range(epochs):
        model.fit(pixels, labels, batch_size=BATCH_SIZE, verbose=0)
        after_epoch()


def jax_scan(network: str, num_images: int, epochs: int, after_epoch: AfterEpoch) -> None:
    """Dense layers in JAX: one compiled scan over all steps of an epoch, Adam by hand, in fp32.

    Without the last, incomplete batch: all steps of a scan have the same shapes.
    """
    import jax
    import numpy as np
    from jax import numpy as jnp

    images, labels = random_data(num_images)
    pixels = ((images.reshape(num_images, -1) / 255 - 0.1307) / 0.3081).astype(np.float32)
    inputs, targets = jnp.asarray(pixels), jnp.asarray(labels)
    num_steps = num_images // BATCH_SIZE
    start = [
        jnp.asarray(values.detach().numpy().T) for values in plain_network(network).parameters()
    ]

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        *hidden, (last, last_bias) = zip(weights[::2], weights[1::2], strict=True)
        for weight, bias in hidden:
            x = jnp.maximum(x @ weight + bias, 0)
        logits = x @ last + last_bias
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
        return -chosen.mean(), (logits.argmax(1) == y).sum()

    def step(state: Any, chosen: Any) -> Any:
        weights, means, squares, count = state
        of_both = jax.value_and_grad(loss_of, has_aux=True)
        sums, gradients = of_both(weights, inputs[chosen], targets[chosen])
        count += 1
        means = [0.9 * m + 0.1 * g for m, g in zip(means, gradients, strict=True)]
        squares = [0.999 * v + 0.001 * g * g for v, g in zip(squares, gradients, strict=True)]
        rate, share = LR / (1 - 0.9**count), 1 - 0.999**count
        weights = [
            w - rate * m / (jnp.sqrt(v / share) + 1e-8)
            for w, m, v in zip(weights, means, squares, strict=True)
        ]
        return (weights, means, squares, count), sums

    epoch = jax.jit(partial(jax.lax.scan, step), donate_argnums=0)
    zeros = [jax.tree.map(jnp.zeros_like, start) for _ in range(2)]
    state = (start, *zeros, jnp.float32(0))
    for _ in range(epochs):
        order = np.random.permutation(num_images)[: num_steps * BATCH_SIZE]
        state, (losses, hits) = epoch(state, order.reshape(num_steps, BATCH_SIZE))
        losses.mean().item(), hits.sum().item()
        after_epoch()


FP32 = "trainer.precision=fp32"
# function, its further arguments, environment
VARIANTS: dict[str, tuple[Callable[..., None], tuple[str, ...], dict[str, str]]] = {
    "convscape": (convscape, (), {}),
    "convscape, no pictures": (convscape, ("visual=off",), {}),
    "convscape, compiled": (convscape, ("trainer.compile=true",), {}),
    "convscape, fp32": (convscape, (FP32,), {}),
    "convscape, fp32 NCHW": (convscape_nchw, (FP32,), {}),
    "usual loop by hand": (usual_loop, (), {}),
    "tutorial with Lightning": (tutorial, (), {}),
    "Keras on TensorFlow": (keras, (), {"KERAS_BACKEND": "tensorflow"}),
    "Keras on JAX": (keras, (), {"KERAS_BACKEND": "jax"}),
    "JAX by hand, one scan an epoch": (jax_scan, (), {"KERAS_BACKEND": "jax"}),
}
# where a variant has nothing to say: only images have a memory format, and within a scan XLA's
# convolutions on the CPU are ten times slower than outside of it
LEFT_OUT: dict[Callable[..., None], tuple[str, ...]] = {
    convscape_nchw: ("mlp", "small_mlp"),
    jax_scan: ("cnn",),
}


def measure(variant: str, network: str, num_images: int, epochs: int) -> dict[str, list[float]]:
    """Images per second of each epoch but the first, of the variant and of the loop between."""
    function, arguments, _ = VARIANTS[variant]
    loop = LoopByHand(network, num_images, in_fp32=variant == "convscape, fp32")
    if function is tutorial:
        num_images //= 4  # it is slow
    speeds: dict[str, list[float]] = {"variant": [], "loop": []}
    mark = time.perf_counter()

    def after_epoch() -> None:
        nonlocal mark
        speeds["variant"].append(num_images / (time.perf_counter() - mark))
        speeds["loop"].append(loop.epoch())
        mark = time.perf_counter()

    function(network, num_images, epochs, after_epoch, *arguments)
    loop.close()
    return {name: all_speeds[1:] for name, all_speeds in speeds.items()}  # the first warms up


def uses_bf16(network: str) -> bool:
    """Whether Convscape trains the network in bf16 on this machine unless told otherwise."""
    return ResolvedRun(config_of(network, [])).uses_bf16


# --- the driver -------------------------------------------------------------------------------


def main() -> None:
    """Let the variants take turns; print a table for each network, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=1)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--images", type=int, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=6, help="the first is left out")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/speed.json")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--loop", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        LoopByHand.serve(*arguments.loop)
        return
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))  # noqa: T201
        return
    found: dict[str, dict[str, list[Any]]] = {network: {} for network in arguments.networks}
    for _ in range(arguments.repetitions):
        for network in arguments.networks:
            num_images = arguments.images or NETWORKS[network][1]
            for variant in arguments.variants:
                task = [variant, network, num_images, arguments.epochs]
                speeds = in_own_process(task)
                if speeds is not None:
                    found[network].setdefault(variant, []).append(speeds)
    for network, variants in found.items():
        print_table(network, variants)
    results = {**machine(), "images_per_second": found}
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


def in_own_process(task: list[Any]) -> dict[str, list[float]] | None:
    """`measure(*task)` in a process of its own; None where that is not possible."""
    variant, network = task[:2]
    environment = VARIANTS[variant][2]
    if environment and not importlib.util.find_spec(environment["KERAS_BACKEND"]):
        return None
    if network in LEFT_OUT.get(VARIANTS[variant][0], ()):
        return None
    process = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(task)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if process.returncode != 0:
        sys.exit(f"{network}: {variant}: {process.stderr.strip()}")
    speeds = json.loads(process.stdout.splitlines()[-1])
    median = statistics.median(speeds["variant"])
    print(f"{network}: {variant}: {median:,.0f} images/s", file=sys.stderr)  # noqa: T201
    return speeds


def print_table(network: str, variants: dict[str, list[dict[str, list[float]]]]) -> None:
    """Median and range over processes, and the ratio to the hand-written loop."""
    loops = [
        statistics.median(process["loop"])
        for variant, processes in variants.items()
        for process in processes
        if variant != "convscape, fp32"
    ]
    rows = {"best loop by hand": (loops, 1.0)}
    for variant, processes in variants.items():
        medians = [statistics.median(process["variant"]) for process in processes]
        ratios = [
            speed / by_hand
            for process in processes
            for speed, by_hand in zip(process["variant"], process["loop"], strict=True)
        ]
        rows[variant] = medians, statistics.median(ratios)
    print(f"\n{network}: images/s, median (range) of processes; times as fast as the loop")  # noqa: T201
    for name, (speeds, ratio) in rows.items():
        low, high = min(speeds), max(speeds)
        middle = statistics.median(speeds)
        print(f"  {name:<28} {middle:>9,.0f}  ({low:,.0f} to {high:,.0f})  {ratio:5.2f}")  # noqa: T201


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    import torch

    from convscape.base.cores import available_cores
    from convscape.base.machine import cpu_name

    return {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "batch_size": BATCH_SIZE,
        "bf16": [network for network in NETWORKS if uses_bf16(network)],
    }


if __name__ == "__main__":
    main()
