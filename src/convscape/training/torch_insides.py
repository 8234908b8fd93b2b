"""The parts of torch used here that are not public: its event writer, and the graph it traces.

This is why pyproject.toml bounds torch; tests/test_insides.py says what a newer one changed.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor, nn
from torch.utils.tensorboard import writer as torch_writer
from torch.utils.tensorboard._pytorch_graph import parse


class _FileWriter(torch_writer.FileWriter):
    def __init__(self, events: Any) -> None:
        self.event_writer = events


class SummaryWriter(torch_writer.SummaryWriter):
    """Torch's writer, on our own event file.

    - `folder`: where the file is.
    - `events`: the file, with the methods of TensorBoard's `EventFileWriter`.
    """

    file_writer: Any
    all_writers: Any

    def __init__(self, folder: str, events: Any) -> None:
        self._ours = _FileWriter(events)
        super().__init__(folder)

    def _get_file_writer(self) -> Any:
        self.file_writer = self._ours
        self.all_writers = {self.log_dir: self._ours}
        return self._ours

    def add_summary(self, summary: Summary, step: int | None = None) -> None:
        """Write a summary that torch has no method for."""
        self._ours.add_summary(summary, step)

    def add_traced(self, graph: GraphDef) -> None:
        """Write the graph of `trace`."""
        self._ours.add_event(Event(graph_def=graph.SerializeToString()))


def trace(network: nn.Module, images: Tensor) -> GraphDef:
    """The operations on `images` and the weights, each in the module that it belongs to.

    The same graph as the writer's `add_graph`, which registers every module in TorchScript for the
    life of the process, 1.6 MB for twelve modules, and takes six times as long.
    """
    names = {module: name for name, module in network.named_modules(prefix="__module")}
    for module in names:
        if not hasattr(module, "original_name"):  # a part compiled by TorchScript has one
            module.original_name = type(module).__name__
    jit = torch.jit._trace
    jit._trace_module_map = {m: name for m, name in names.items() if m is not network}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from torch.jit
            traced, _ = torch.jit._get_trace_graph(network, (images,))
    finally:
        jit._trace_module_map = None
    weights = list(jit._unique_state_dict(network))
    for value, name in zip(list(traced.inputs())[1:], weights, strict=True):
        value.setDebugName(name)
    nodes = parse(traced, network)
    places: dict[str, str] = {}
    for node in nodes:
        for name in node.input:
            weight = name.removeprefix("input/")
            if weight in weights:
                scope = node.name.rpartition("/")[0]
                places.setdefault(name, f"{scope}/{weight.rpartition('.')[2]}")
    for node in nodes:
        node.name = places.get(node.name, node.name)
        node.input[:] = [places.get(name, name) for name in node.input]
    return GraphDef(node=nodes)
