"""How fast each kind of device computes, and what follows: steps per call, whether bf16 helps."""

from __future__ import annotations

# FLOP/s that training reaches, in round numbers: too low a guess only means shorter calls.
# cpu: two cores, measured, see benchmarks/README.md. cuda and mps: not measured; a tenth of the
# fp32 peak of an A100 (19.5 TFLOP/s, NVIDIA's data sheet) and of an M1 (2.6 TFLOP/s, Apple's).
FLOPS = {"cpu": 50e9, "cuda": 2e12, "mps": 0.25e12}
CALL_SECONDS = 0.25
MAX_STEPS_PER_CALL = 50

# MACs per image from which bf16 is faster than fp32.
# cpu: measured, see benchmarks/README.md. cuda: not measured; autocast launches about three more
# kernels per layer and pass, about 100 us per step of a small network: the time that an A100 at
# half its peak needs in fp32 for 1.3 million MACs and 128 images.
MIN_MACS_FOR_BF16 = {"cpu": 150_000, "cuda": 1_300_000}


def steps_per_execution(macs: int, batch_size: int, kind: str = "cpu") -> int:
    """Optimiser steps per `training_step` that take about a quarter of a second on such a device.

    Long enough to hide Lightning's half millisecond per call, short enough to react to a signal
    promptly. A step costs about three forward passes of 2 FLOP per MAC.

    - `macs`: of one image.
    - `kind`: "cpu", "cuda" or "mps".
    """
    seconds = 6 * macs * batch_size / FLOPS[kind]
    most = MAX_STEPS_PER_CALL
    return max(1, min(most, int(CALL_SECONDS / seconds))) if seconds else most


def gains_from_bf16(macs: int, kind: str) -> bool:
    """Whether a network of this many MACs per image is faster in bf16, if the hardware has it."""
    return kind in MIN_MACS_FOR_BF16 and macs >= MIN_MACS_FOR_BF16[kind]
