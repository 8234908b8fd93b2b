"""A trained run as one file for other programs: ONNX, torch.export or safetensors.

Each file contains what its reader needs: the normalisation is built in or written down, and the
metadata say what goes in, which class is which, and where the network comes from.

    onnxruntime.InferenceSession("model.onnx").run(None, {"images": images})
    torch.export.load("model.pt2").module()(images)
    safetensors.torch.load_file("model.safetensors")

The first two take any number of uint8 images (N, C, H, W), and return logits (N, num_classes); if
the data set's values are not bytes, they take float32 images, see `data.stretch`. They compute in
fp32 even if the run was trained in bf16.
"""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import platform
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from convscape import geometry, models
from convscape.base import machine
from convscape.base.distribution import install
from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.files import write_atomic
from convscape.config.networks import OwnModelConfig
from convscape.data.cache import DataError
from convscape.data.pixels import scale_and_shift
from convscape.models.answers import check_forward
from convscape.models.modules import PolyphasePool2d
from convscape.runs.folder import RunFolder
from convscape.trained.load import TrainedRun

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch_export": (),
    "safetensors": ("safetensors",),
}
OPSET = 20  # from 2023: old enough for the runtimes in use, and the first with GELU
TOLERANCE = 1e-5  # of a difference relative to the largest logit, or to 1 if that is larger
NUM_CHECKED = 1000  # images


class PixelsToLogits(nn.Module):
    """A copy of a network with its normalisation, free of Lightning, on the CPU, in eval mode.

    - `scale`, `shift`: per channel, from pixels 0..255 to what the network takes.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("shift", shift.clone())
        # torch.export rejects weights in channels_last as not contiguous
        self.cpu().to(memory_format=torch.contiguous_format).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, num_classes) of uint8 images (N, C, H, W)."""
        return self.network(images.float() * self.scale + self.shift)


@dataclass(frozen=True)
class Export:
    """A written file, and how far its logits are from the checkpoint's.

    - `max_difference`: the largest over all logits of the checked images.
    - `tolerance`: the largest difference allowed.
    - `checked_on`: the images, in words.
    - `opset`: the ONNX opset.
    - `num_undecided`: images set aside, see `most_undecided`.
    - `remarks`: what else to know about its answers.
    """

    path: Path
    max_difference: float
    tolerance: float
    checked_on: str
    opset: int | None = None
    num_undecided: int = 0
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        aside = f"; {self.num_undecided} set aside: two grids tie in polyphase pooling"
        opset = f", opset {self.opset}" if self.opset is not None else ""
        lines = (
            f"{self.path}: {self.path.stat().st_size:,} bytes{opset}",
            f"checked on {self.checked_on}: logits differ by at most {self.max_difference:.1e} "
            f"(allowed: {self.tolerance:.1e}){aside if self.num_undecided else ''}",
            *self.remarks,
        )
        return "\n".join(lines)


def check_packages(format: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        ConfigError: with the command that installs them.
    """
    missing = [name for name in NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format {format} needs {', '.join(missing)}; {install(format)}")


class LogitsDiffer(ArithmeticError):
    """The file's logits differ from the checkpoint's; it was not written."""


def export(run: TrainedRun, format: str, path: Path | None = None) -> Export:
    """Write `run` to `path` (default: the run folder), if its logits equal the checkpoint's.

    Raises:
        ConfigError: if the format's packages are missing, or the file cannot be written.
        LogitsDiffer: if they do not.
    """
    check_packages(format)
    check_forward(run.model)
    path = path or run.path / f"model{SUFFIXES[format]}"
    opset = None
    match format:
        case "onnx":
            network = pixels_to_logits(run)
            content = to_onnx(network, run.image_shape, metadata(run), _pixel_type(run))
            opset = OPSET
        case "torch_export":
            network = pixels_to_logits(run)
            content = to_torch_export(network, run.image_shape, metadata(run), _pixel_type(run))
        case _:
            content = to_safetensors(run)
    images, checked_on = _images_to_check(run)
    with torch.inference_mode():
        expected = _checkpoint_logits(run, images)
        found = _file_logits(format, content, run, images)
    differences = (found - expected).abs().amax(1)
    tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
    agree = differences <= tolerance  # False for NaN
    num_others = int((~agree).sum())
    if num_others > most_undecided(run.model, len(images)):
        raise LogitsDiffer(
            f"the exported logits differ from the checkpoint's by {float(differences.max()):.1e} "
            f"(allowed: {tolerance:.1e}); no file was written"
        )
    try:
        write_atomic(path, content, within=path.parent)
    except OSError as error:
        raise CannotWrite(path.parent, error, f"--out <file>{SUFFIXES[format]}") from None
    difference = float(differences[agree].max())
    return Export(path, difference, tolerance, checked_on, opset, num_others, tuple(run.remarks))


def most_undecided(model: nn.Module, num_images: int) -> int:
    """How many images' logits may differ more: none, or one in a hundred with polyphase pooling.

    It chooses the strongest of several grids; if two are equally strong, the last bit decides.
    """
    chooses = any(isinstance(module, PolyphasePool2d) for module in model.modules())
    return num_images // 100 if chooses else 0


def pixels_to_logits(run: TrainedRun) -> PixelsToLogits:
    """The network of a run, from uint8 images to logits."""
    model = run.model
    if isinstance(model, models.ImageClassifier):
        return PixelsToLogits(model.network, model.scale, model.shift)
    return PixelsToLogits(model, *scale_and_shift(*run.normalization))


def metadata(run: TrainedRun) -> dict[str, str]:
    """Where the network comes from, what it takes and what it returns."""
    channels, height, width = run.image_shape
    result = RunFolder(run.path).read_result()
    colours = {1: "grey", 3: "red, green, blue"}.get(channels, f"{channels} channels")
    kind, made = str(_pixel_type(run)).removeprefix("torch."), ""
    if run.stretch is not None:
        offset, factor = run.stretch
        made = f"; a pixel is (value - {offset!r}) * {factor!r} of a value of the data set"
    entries: dict[str, Any] = {
        "input": f"images: {kind} (N, {channels}, {height}, {width}), {colours}, pixels 0 to 255, "
        f"not normalised; any N{made}",
        "output": "logits: float32 (N, num_classes); softmax turns them into probabilities",
        "classes": json.dumps(run.classes),
        "data": run.config.data.name,
        "model": run.config.model.target,
        "weights": run.weights or None,
        "seed": run.config.seed,
        "exported_with": json.dumps(
            {
                "convscape": version("convscape"),
                "torch": torch.__version__.partition("+")[0],
                "python": platform.python_version(),
                **machine.git_state(),
            }
        ),
    }
    if result is not None:
        entries |= {
            "run": result.run,
            "fingerprint": result.fingerprint,
            "test_acc": result.metrics.get("test/acc"),
            "num_parameters": result.num_parameters,
            "trained_with": json.dumps(result.environment),
        }
    return {key: str(value) for key, value in entries.items() if value is not None}


def _pixel_type(run: TrainedRun) -> torch.dtype:
    """The type of its data set's values: bytes or floats."""
    return torch.uint8 if run.stretch is None else torch.float32


def _images_to_check(run: TrainedRun) -> tuple[Tensor, str]:
    """Images (N, C, H, W) of the run's data set, test images first."""
    try:
        found = [run.data.tensors(split)[0] for split in ("test", "val", "train")]
    except DataError:
        generator = torch.Generator().manual_seed(0)
        shape = (NUM_CHECKED, *run.image_shape)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        images = images.to(_pixel_type(run))
        return images, f"{NUM_CHECKED:,} images of noise (the data of the run are not here)"
    images = torch.cat([images[:NUM_CHECKED] for images in found])[:NUM_CHECKED]
    return images, f"{len(images):,} images of {run.config.data.name}"


def to_onnx(
    network: PixelsToLogits,
    input_shape: geometry.Shape,
    metadata: dict[str, str],
    dtype: torch.dtype = torch.uint8,
) -> bytes:
    """An ONNX file for images of `input_shape` (C, H, W); the batch axis is dynamic."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # onnxscript 0.6 counts aloud
        warnings.simplefilter("ignore")  # the exporter's, about its dependencies
        program = torch.onnx.export(
            network,
            (_example(input_shape, dtype),),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["images"],
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # they contain paths of this machine's files
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    return model.SerializeToString()


def to_torch_export(
    network: PixelsToLogits,
    input_shape: geometry.Shape,
    metadata: dict[str, str],
    dtype: torch.dtype = torch.uint8,
) -> bytes:
    """A torch.export file; the metadata are its extra file "metadata.json"."""
    batch = torch.export.Dim("batch")
    example = (_example(input_shape, dtype),)
    program = torch.export.export(network, example, dynamic_shapes=({0: batch},))
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine's files
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"metadata.json": json.dumps(metadata)})
    return file.getvalue()


def _example(input_shape: geometry.Shape, dtype: torch.dtype) -> Tensor:
    """Two images: with one, the exporter would fix the batch axis at 1."""
    return torch.zeros(2, *input_shape, dtype=dtype)


def to_safetensors(run: TrainedRun) -> bytes:
    """The weights by their names in the checkpoint, and what is needed to rebuild the network.

    For a CNN or MLP: `CNN(**json.loads(metadata["arguments"]))`, then `load_state_dict`.
    """
    import safetensors.torch

    model = run.model
    config = run.config.model
    if isinstance(config, OwnModelConfig):
        arguments = config.arguments
    else:
        assert isinstance(model, models.ImageClassifier)
        arguments = dict(model.hparams)
    network = pixels_to_logits(run)
    entries = metadata(run) | {
        "format": "pt",
        "config": json.dumps(run.config.model_dump(by_alias=True)),
        "arguments": json.dumps(arguments),
        "scale": json.dumps(network.scale.flatten().tolist()),
        "shift": json.dumps(network.shift.flatten().tolist()),
        "input": metadata(run)["input"] + "; the network takes pixel * scale + shift",
    }
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(weights, metadata=entries)


def _checkpoint_logits(run: TrainedRun, images: Tensor) -> Tensor:
    """The checkpoint's logits in fp32 on the CPU, as the file computes."""
    if isinstance(run.model, models.ImageClassifier):
        return copy.deepcopy(run.model).cpu()(images)
    return pixels_to_logits(run)(images)


def _file_logits(format: str, content: bytes, run: TrainedRun, images: Tensor) -> Tensor:
    match format:
        case "onnx":
            import onnxruntime

            options = onnxruntime.SessionOptions()
            # errors only: it warns about shapes that it then infers itself
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
            return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        case "torch_export":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch 2.11's, about its own buffer
                program = torch.export.load(io.BytesIO(content))
            return program.module()(images)
        case _:
            return _from_safetensors(content, run)(images)


def _from_safetensors(content: bytes, run: TrainedRun) -> nn.Module:
    """The network rebuilt from the file alone; for a user's class only the weights are."""
    import safetensors.torch

    weights = safetensors.torch.load(content)
    if isinstance(run.config.model, OwnModelConfig):
        network = pixels_to_logits(run)
        is_classifier = isinstance(run.model, models.ImageClassifier)
        (network if is_classifier else network.network).load_state_dict(weights, strict=False)
        return network
    # the format: 8 bytes with the length of the JSON that follows
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    model = type(run.model)(**json.loads(header["__metadata__"]["arguments"]))
    model.load_state_dict(weights)
    return model.eval()
