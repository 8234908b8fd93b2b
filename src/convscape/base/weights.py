"""Weights in a file: a checkpoint, a state dict or safetensors. No code in it can run."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convscape.base.distribution import install
from convscape.base.errors import ConfigError
from convscape.base.layer_names import bare_name

# what torch.load raises on bytes that are not a checkpoint: a pickle is a list of instructions
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Weights:
    """Tensors by `bare_name`, and the names of the classes that they predict, if known.

    - `are_averages`: whether they are the averages of a run with trainer.ema, or the weights that
      it trains; None without trainer.ema.
    """

    tensors: Mapping[str, Tensor]
    classes: list[str] = field(default_factory=list)
    are_averages: bool | None = None

    @property
    def checksum(self) -> str:
        """A hash of every number, its name and the classes: twelve hex digits."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for name, tensor in sorted(self.tensors.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:12]


def read_plain(path: Path) -> Any:
    """The plain values and tensors that torch wrote to `path`, on the CPU.

    Raises:
        ConfigError: if it is damaged, not such a file, or asks to run code.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other versions
            return torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    # torch's message recommends loading it anyway
    if match := re.search(r"GLOBAL (\S+)|(?:function|class) (\S+) (?:was|is) not", str(error)):
        called = match[1] or match[2]
        return f"it wants to call {called}, which no checkpoint needs: save a state_dict() instead"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return "it is damaged or not a checkpoint"


def read_weights(path: Path) -> Weights:
    """The weights in a checkpoint, of a run or of another program, or in a .safetensors file.

    Raises:
        ConfigError: if it has none that can be read.
    """
    stat = path.stat()
    return _read_weights(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)  # the runs of a grid share it
def _read_weights(path: Path, *_: int) -> Weights:
    if path.suffix == ".safetensors":
        return Weights({bare_name(n): t for n, t in _read_safetensors(path).items()})
    content = read_plain(path)
    found = content
    for key in (
        "state_dict",
        "model_state_dict",
        "model",
    ):  # Lightning and timm; torch; torchvision
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            found = content[key]
            break
    if not isinstance(found, dict) or not any(isinstance(v, Tensor) for v in found.values()):
        raise ConfigError(f"{path} holds no weights: allowed: a checkpoint, or a dict of tensors")
    tensors = {bare_name(str(name)): v for name, v in found.items() if isinstance(v, Tensor)}
    if any(tensor.layout is not torch.strided for tensor in tensors.values()):
        raise ConfigError(f"{path} holds sparse tensors; allowed: dense ones")
    are_averages = _value(content, "callbacks", "WeightAverage", "is_shown")
    return Weights(
        tensors, _classes(content), are_averages if isinstance(are_averages, bool) else None
    )


def _classes(content: Mapping[str, Any]) -> list[str]:
    names = _value(content, "hyper_parameters", "training", "classes")
    is_known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_known else []


def _value(content: Any, *keys: str) -> Any:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise ConfigError(f"{path} needs safetensors: {install('safetensors')}") from None
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, *BROKEN) as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}") from None
    return found
