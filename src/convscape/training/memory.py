"""How much memory training takes, and what to do when there is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from convscape.geometry.plan import Plan
    from convscape.runs.resolved import ResolvedRun


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # how oneDNN, C++ and a library that cannot be mapped put it
    words = ("can't allocate memory", "bad_alloc", "Cannot allocate memory", "could not create a")
    return isinstance(error, RuntimeError | OSError) and any(w in str(error) for w in words)


# For a training step in fp32 and in bf16: measured 4.7 to 5.8 and 2.3 to 3.1 for six CNNs with
# batches of 512 on the CPU, by the growth of VmHWM; an MLP took 7.4 in fp32
BYTES_PER_ACTIVATION = (5.2, 2.8)
BYTES_PER_PARAMETER = 16  # the parameter, its gradient, and the two numbers that Adam keeps


def training_bytes(plan: Plan, batch_size: int, in_bf16: bool) -> int:
    """Estimated memory for batches of that size; it may be a third too low or too high."""
    per_image = plan.num_activations * BYTES_PER_ACTIVATION[in_bf16]
    return round(per_image * batch_size + plan.num_parameters * BYTES_PER_PARAMETER)


def advice_on_memory(run: ResolvedRun, free_bytes: int) -> str:
    """How much was needed, and the batch size that would fit."""
    plan, asked, in_bf16 = run.plan, run.config.data.batch_size, run.uses_bf16
    if plan is None:
        return "a smaller data.batch_size or data.eval_batch_size takes less"
    needed = training_bytes(plan, asked, in_bf16)
    words = (
        f"batches of {asked:,} take an estimated {_in_mib(needed)}, "
        f"and {_in_mib(free_bytes)} were free"
    )
    sizes = [asked >> shift for shift in range(1, asked.bit_length())]
    fits = [n for n in sizes if training_bytes(plan, n, in_bf16) < 0.7 * free_bytes]
    if needed < 0.7 * free_bytes:
        return f"{words}; data.eval_batch_size takes memory too"
    return f"{words}; " + (f"try data.batch_size={fits[0]}" if fits else "no batch size fits")


def _in_mib(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"
