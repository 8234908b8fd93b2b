"""torch's event writer as `torch_writer`, imported without TensorFlow.

TensorBoard takes all of TensorFlow where it is installed, which costs seconds, and ends the process
where both bring a compiler of their own. A module named `notf` tells it to do without.
"""

import sys
from types import ModuleType

sys.modules.setdefault("tensorboard.compat.notf", ModuleType("tensorboard.compat.notf"))

from torch.utils.tensorboard import writer as torch_writer  # noqa: E402

__all__ = ["torch_writer"]
