"""How close does each layer come to a core's peak?

    python benchmarks/layers.py
    python benchmarks/layers.py --networks resnet20 --rounds 30

Times the forward pass and the backward passes to the input and to the weights of each layer that
multiplies, alone, at its shape in the network, and a large matrix product in the same precision.
CPU time of one thread: all of these take turns in each round, so that a busy machine distorts the
ratios less. The floating-point operations are those of the plan: two for each MAC.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import convscape
from convscape.base.machine import keep_freed_memory
from convscape.geometry import Conv, Plan
from convscape.geometry.plan import LayerPlan
from convscape.models import ImageClassifier
from convscape.models.modules import MODULES, build_network

BATCH_SIZE = 128
NETWORKS = {
    "cnn": ["data=mnist", "model=cnn"],
    "cnn_color": ["data=cifar10", "model=cnn_color"],
    "resnet20": ["data=cifar10", "model=resnet20"],
}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WAYS = ("forward", "to the input", "to the weights")
STEP, PEAK = "step", "matrix product"
PEAK_SIZE = 1024


def layers_of(plan: Plan) -> list[LayerPlan]:
    """The layers that multiply, in the order of the network."""
    return [row for row in plan.all_layers if row.macs]


def work_of(plan: Plan, dtype: torch.dtype) -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Name, floating-point operations and a function: the peak, each way of a layer, the step."""
    square = torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype)
    yield PEAK, 2 * PEAK_SIZE**3, partial(torch.mm, square, square)
    total = 0
    for number, row in enumerate(layers_of(plan)):
        module = MODULES[type(row.layer)](row.layer, row.input_shape).to(dtype)
        inputs = _random(row.input_shape, dtype).requires_grad_()
        if isinstance(row.layer, Conv):
            module.to(memory_format=torch.channels_last)
        outputs = module(inputs)
        gradient = torch.randn_like(outputs)
        flop = 2 * row.macs * BATCH_SIZE
        back = partial(torch.autograd.grad, outputs, grad_outputs=gradient, retain_graph=True)
        learned = tuple(module.parameters())
        works = {
            "forward": partial(module, inputs.detach()),
            "to the input": partial(back, inputs),
            "to the weights": partial(back, learned),
        }
        for way, work in works.items():
            if number or way != "to the input":  # nothing asks for the gradient of images
                yield f"{row.name} {way}", flop, work
                total += flop
    yield STEP, total, _step_of(plan, dtype)


def _random(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    values = torch.randn(BATCH_SIZE, *shape).to(dtype)
    return values.to(memory_format=torch.channels_last) if values.ndim == 4 else values


def _step_of(plan: Plan, dtype: torch.dtype) -> Callable[[], None]:
    """A step as a run takes it, on bytes that have been picked already."""
    model = ImageClassifier(build_network(plan)).train()
    optimizer: torch.optim.Optimizer = model.configure_optimizers()
    images = torch.randint(0, 256, (BATCH_SIZE, *plan.input_shape), dtype=torch.uint8)
    labels = torch.arange(BATCH_SIZE) % 10

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            loss = model.loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def measure(plan: Plan, dtype: torch.dtype, rounds: int) -> dict[str, dict[str, float]]:
    """Of each work: milliseconds (median), and its FLOP/s as a share of the peak's.

    The peak is the matrix product at its fastest: what slows it down is another's.
    """
    works = list(work_of(plan, dtype))
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in works}
    for is_warm in [False, *[True] * rounds]:
        for name, _, work in works:
            start = time.thread_time()
            work()
            if is_warm:
                seconds[name].append(time.thread_time() - start)
    speeds = {name: flop / min(seconds[name]) for name, flop, _ in works}
    return {
        name: {
            "ms": 1e3 * statistics.median(seconds[name]),
            "gflops": speeds[name] / 1e9,
            "share": speeds[name] / speeds[PEAK],
        }
        for name, _, _ in works
    }


def main() -> None:
    """Print a table for each network and precision, write results/layers.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/layers.json")
    arguments = parser.parse_args()
    keep_freed_memory()  # as a run does
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    for network in arguments.networks:
        plan = convscape.plan(*NETWORKS[network])
        found[network] = {
            precision: measure(plan, dtype, arguments.rounds)
            for precision, dtype in PRECISIONS.items()
        }
        for precision, works in found[network].items():
            print_table(f"{network}, {precision}", plan, works)
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


def print_table(title: str, plan: Plan, works: dict[str, dict[str, float]]) -> None:
    """Milliseconds and share of the peak of each layer; then all layers beside the step."""
    peak, step = works[PEAK], works[STEP]
    print(f"\n{title}: {peak['gflops']:.0f} GFLOP/s in a matrix product")  # noqa: T201
    print(f"  {'ms (share of the peak)':<24}" + "".join(f"{way:>18}" for way in WAYS))  # noqa: T201
    for row in layers_of(plan):
        cells = [works.get(f"{row.name} {way}") for way in WAYS]
        words = [f"{cell['ms']:.2f} ({cell['share']:.0%})" if cell else "" for cell in cells]
        print(f"  {row.name:<24}" + "".join(f"{word:>18}" for word in words))  # noqa: T201
    layers = sum(work["ms"] for name, work in works.items() if name not in (PEAK, STEP))
    print(  # noqa: T201
        f"  a step takes {step['ms']:.1f} ms, these layers {layers / step['ms']:.0%} of it; "
        f"the step computes at {step['share']:.0%} of the peak"
    )


if __name__ == "__main__":
    main()
