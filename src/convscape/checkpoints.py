"""Reading a checkpoint, which may be a stranger's: plain values and weights, and no code of its."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from convscape.errors import ConfigError
from convscape.losses import read_as_before

# what torch.load raises on bytes that are no checkpoint: the pickle in it is instructions
BROKEN = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError,
    RuntimeError, TypeError, ValueError, pickle.UnpicklingError,
)  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The plain values and tensors in `path`, on the CPU.

    Raises:
        ConfigError: if it is damaged, is no checkpoint of a run, or asks for code to be run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that it was not made for
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except BROKEN as error:
        raise ConfigError(f"{path} cannot be read: {_reason(error)}") from None
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ConfigError(f"{path} cannot be read: it is not the checkpoint of a run")
    arguments = checkpoint.get("hyper_parameters")
    if isinstance(arguments, dict):
        read_as_before(arguments.get("training"))
    return checkpoint


def _reason(error: BaseException) -> str:
    # torch's own words recommend to load it all the same
    if match := re.search(r"GLOBAL (\S+)|(?:function|class) (\S+) (?:was|is) not", str(error)):
        return f"it wants to call {match[1] or match[2]}, which no checkpoint needs"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    return "it is damaged or no checkpoint"
