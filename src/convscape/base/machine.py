"""What this process may use and what it ran on: devices, memory, hardware, commit."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base.cores import in_groups
from convscape.base.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def has_native_bf16(device: Device) -> bool:
    """Whether a device computes in bfloat16 natively, without converting."""
    if device.kind == "cuda":
        import torch

        return torch.cuda.get_device_capability(device.index)[0] >= 8
    if device.kind == "cpu" and sys.platform == "linux":
        flags = _proc("cpuinfo")
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def devices() -> list[str]:
    """The devices of this machine, as `trainer.device` calls them."""
    import torch

    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(["cuda", *gpus] if gpus else []), *mps]


@dataclass(frozen=True)
class Device:
    """cpu, cuda or mps, with an index if one was given."""

    kind: str
    index: int | None = None

    def __str__(self) -> str:
        """The device as torch calls it: cuda:1."""
        return self.kind if self.index is None else f"{self.kind}:{self.index}"


def named_device(name: str) -> Device:
    """The device that `trainer.device` means on this machine."""
    kind, _, index = name.partition(":")
    if kind == "auto":
        here = devices()
        kind = next(kind for kind in ("mps", "cuda", "cpu") if kind in here)  # as Lightning does
    return Device(kind, int(index) if index else None)


def first_here(*names: str) -> Device:
    """The first of these devices that this machine has, or else the fastest one."""
    known = devices()
    # Lightning counts from mps:0, and there is no other
    asked = ("mps" if name == "mps:0" else name for name in names)
    return named_device(next((name for name in asked if name in known), "auto"))


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor` on `device`, without waiting for the copy where that is safe.

    On MPS the copy may read memory freed meanwhile: https://github.com/pytorch/pytorch/issues/189690.
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


def check_device(name: str, count: int = 1) -> None:
    """Refuse a device that this machine lacks, or more GPUs than it has.

    Raises:
        ConfigError: saying what is allowed.
    """
    here = ["auto", *devices()]
    if name not in here:
        raise ConfigError(
            f"trainer.device={name} is not on this machine; allowed: {', '.join(here)}"
        )
    gpus = sum(":" in each for each in here)
    if name in ("auto", "cuda") and 0 < gpus < count:
        raise ConfigError(f"trainer.devices={count}: this machine has {gpus}")


# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NO_GLIBC = (OSError, AttributeError, TypeError)  # TypeError: on Windows
_OMP_PAUSE_SOFT = 1  # omp.h's


def keep_freed_memory() -> None:
    """Let the C library keep freed memory instead of returning it to the system.

    Each training step frees the same megabytes and asks for them again; every page that comes new
    from the system faults when it is first touched. Without these faults a CNN trains and predicts
    up to three times as fast, see benchmarks/README.md. Only glibc has these settings.
    """
    with suppress(*_NO_GLIBC):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)


def give_freed_memory_back() -> None:
    """Return the memory that `keep_freed_memory` kept: the next run may be smaller."""
    with suppress(*_NO_GLIBC):
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def flushing_denormals() -> Iterator[None]:
    """Let torch's kernels round results below 1.2e-38 to 0, with which a CPU computes much slower.

    Adam's averages for a unit that no image activates any more halve every few steps until they are
    that small, and stay there. Each step then waits for them: benchmarks/README.md.

    Threads that are started inside keep the mode for as long as they live, those of a library that
    is imported inside too.
    """
    import numpy as np
    import torch

    np.finfo(np.float32), np.finfo(np.float64)  # NumPy before 2.4 warns if it first looks inside
    was_flushing = (torch.tensor(1e-39) * 1).item() == 0
    try:
        _flush_denormals(True)
        yield
    finally:
        _flush_denormals(was_flushing)


def _flush_denormals(flush: bool) -> None:
    """Set it for this thread, and for those that compute for it, however many there will be."""
    import torch

    torch.set_flush_denormal(flush)
    _end_helpers()


def _end_helpers() -> None:
    """End the threads that compute for this one; the next computation that needs some starts them.

    Only GNU's OpenMP needs that: its threads keep the mode they were started with, and a forked
    process waits forever for those of the process it was forked from.
    """
    with suppress(*_NO_GLIBC):
        ctypes.CDLL(None).omp_pause_resource_all(_OMP_PAUSE_SOFT)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_end_helpers)


@contextmanager
def without_cuda_probing() -> Iterator[None]:
    """Without a GPU, stop torch's optimisers from looking for NVIDIA's library at every step.

    The search takes a tenth of a small network's step. The environment is restored at the end:
    a process started later, such as a cluster job, may have a GPU.
    """
    import torch

    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if not torch.cuda.is_available():
        os.environ[name] = ""
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


@contextmanager
def collecting_garbage() -> Iterator[None]:
    """On exit, free reference cycles, such as Lightning's trainer and everything it holds.

    Only objects created inside are searched: torch and other modules add 400,000 more.
    """
    gc.collect(1)  # otherwise young objects would be old ones after the thaw
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


def reset_peak_memory(device: str) -> None:
    """Start measuring `peak_memory` again."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "ascii")  # resets VmHWM, see man 5 proc


def peak_memory(device: str) -> int | None:
    """Peak memory in bytes: of a GPU that has its own memory, otherwise of the process.

    None if the system does not report it.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    measured = _kibibytes("self/status", "VmHWM")
    if measured or resource is None:
        return measured or None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory(device: str) -> int:
    """Bytes still available to this process: on the GPU, or within its limits and the machine's."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device.startswith("mps"):
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = [_kibibytes("meminfo", "MemAvailable")] if _proc("meminfo") else []
    if resource is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free.append(limit - _kibibytes("self/status", "VmSize"))
    free += [limit - held for limit, held in _memory_granted()]
    return max(0, min(free, default=0))


def memory_limit() -> int | None:
    """Bytes that this process could have if nothing else ran on the machine or in its container.

    None if the system does not report them.
    """
    limits = [_kibibytes("meminfo", "MemTotal"), *(limit for limit, _ in _memory_granted())]
    return min(filter(None, limits), default=None)


def _memory_granted() -> Iterator[tuple[int, int]]:
    """The limit of each control group above this process, and its use, in bytes.

    The page cache does not count as used: it is given up as soon as the memory is needed.
    """
    versions = {
        "": ("memory.max", "memory.current", ""),
        "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    }
    for controller, (limit, used, prefix) in versions.items():
        for texts in in_groups(controller, limit, used, "memory.stat"):
            with suppress(ValueError):  # "max" where there is no limit
                stat = dict(line.split() for line in texts[2].splitlines())
                cached = sum(
                    int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive")
                )
                yield int(texts[0]), max(0, int(texts[1] or 0) - cached)


def _kibibytes(file: str, key: str) -> int:
    """The value of a line of a file in /proc, in bytes; 0 if it is missing."""
    for line in _proc(file).splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


@functools.cache
def cpu_name() -> str:
    """The processor as its maker calls it."""
    for line in _proc("cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def git_state() -> dict[str, Any]:
    """The commit of this code, and whether tracked files differ; None outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode("utf-8", "replace").strip()


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text("utf-8")
    except OSError:
        return ""
