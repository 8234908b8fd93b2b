"""How fast each kind of device computes, and what follows: steps per call, whether bf16 gains."""

from __future__ import annotations

# FLOP/s that training reaches, in round numbers: a guess too low only means shorter calls.
# cpu: two cores, measured, see benchmarks/README.md. cuda and mps: not measured; a tenth of the
# fp32 peak of an A100 (19.5 TFLOP/s, NVIDIA's data sheet) and of an M1 (2.6 TFLOP/s, Apple's).
FLOPS = {"cpu": 50e9, "cuda": 2e12, "mps": 0.25e12}
CALL_SECONDS = 0.25
MAX_STEPS_PER_CALL = 50

# MACs per image from which bf16 is faster than fp32.
# cpu: measured, see benchmarks/README.md. cuda: not measured; autocast launches some three more
# kernels per layer and pass, about 100 us in a step of a small network, which is what an A100 at
# half its peak takes in fp32 for 1.3 million MACs and 128 images.
MIN_MACS_FOR_BF16 = {"cpu": 150_000, "cuda": 1_300_000}


def steps_per_execution(macs: int, batch_size: int, kind: str = "cpu") -> int:
    """Optimiser steps per `training_step` that last about a quarter of a second on such a device.

    Long enough that Lightning's half millisecond per call does not show, short enough that a
    signal is heard at once. A step costs about three forward passes of 2 FLOP per MAC.

    - `macs`: of one image.
    - `kind`: "cpu", "cuda" or "mps".
    """
    seconds = 6 * macs * batch_size / FLOPS[kind]
    most = MAX_STEPS_PER_CALL
    return max(1, min(most, int(CALL_SECONDS / seconds))) if seconds else most


def gains_from_bf16(macs: int, kind: str) -> bool:
    """Whether a network of so many MACs per image is faster in bf16, where the hardware has it."""
    return kind in MIN_MACS_FOR_BF16 and macs >= MIN_MACS_FOR_BF16[kind]
