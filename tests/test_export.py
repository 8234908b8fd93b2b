"""scripts/export.py: the file answers as the checkpoint does, without this package."""

import importlib.util
import json
import random
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convscape.geometry.kinds import ACTIVATIONS
from convscape.geometry.window import InfeasibleGeometry
from convscape.models.networks import CNN
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.runs.result import Result
from convscape.trained import export
from convscape.trained.load import load_run
from convscape.training.build import build_model
from convscape.training.run import train
from tests.conftest import ROOT, TINY
from tests.test_config import checked

PRESETS = sorted(
    p.stem for p in (ROOT / "conf" / "model").glob("*.yaml") if p.stem not in ("own", "torchvision")
)


def needs(format):
    missing = [name for name in export.NEEDS[format] if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


FORMATS = [pytest.param(name, marks=needs(name)) for name in export.NEEDS]


@pytest.fixture(scope="module")
def run_path(tmp_path_factory):
    """A trained run with what plain ONNX cannot say: SAME at stride 2 on an even size."""
    path = tmp_path_factory.mktemp("run")
    geometry = ("model.padding=same", "model.stride=2", "model.batch_norm=true")
    overrides = (*TINY, "data.train_size=null", *geometry)
    assert train(ResolvedRun(checked(*overrides), list(overrides)), path).status == "ok"
    return path


@pytest.fixture(scope="module")
def run(run_path):
    return load_run(run_path)


def random_images(shape, num_images=1000):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num_images, *shape), dtype=torch.uint8, generator=generator)


def logits_by_onnx(content, images):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def assert_onnx_agrees(model, images):
    """As promised: within 1e-5 of the largest logit, or of 1, for any number of images."""
    model.eval()
    network = export.PixelsToLogits(model.network, model.scale, model.shift)
    content = export.to_onnx(network, images.shape[1:], {})
    with torch.inference_mode():
        expected = model(images)
    tolerance = 1e-5 * max(1, expected.abs().max())
    for batch in (slice(None), slice(0, 1), slice(3, 10)):
        differences = (logits_by_onnx(content, images[batch]) - expected[batch]).abs().amax(1)
        num_others = int((~(differences <= tolerance)).sum())
        assert num_others <= export.most_undecided(model, len(differences)), differences.max()


def pass_some(model, images):
    """Give batch norm something to have learned."""
    model.train()
    with torch.no_grad():
        model(images[:64])


@needs("onnx")
@pytest.mark.parametrize("preset", PRESETS)
def test_onnx_agrees_on_a_thousand_images_for_every_preset(preset):
    run = ResolvedRun(checked(f"model={preset}"))
    torch.manual_seed(0)
    model = build_model(run)
    images = torch.from_numpy(run.image_set.train_images[:1000].copy())
    pass_some(model, images)
    assert_onnx_agrees(model, images)


SIZES = [1, 2, 3, 4, 5, "1x3", "4x2"]
PADDINGS = ["valid", "same", "circular", 1, "0x2"]
KNOBS = {
    "channels": [[4], [4, 8], [4, 4, 8]],
    "kernel_size": SIZES,
    "stride": [1, 2, 3, "1x2"],
    "padding": PADDINGS,
    "dilation": [1, 1, 2],
    "pool": ["max", "avg", "blur", "aps", "none"],
    "pool_size": [2, 3, "2x3"],
    "pool_stride": [None, 1, 2],
    "pool_padding": PADDINGS,
    "pool_ceil_mode": [False, True],
    "batch_norm": [False, True],
    "activation": ACTIVATIONS,
    "head": ["flatten", "global_avg", "global_max"],
    "dense": [[], [12]],
}
SHAPES = [(1, 28, 28), (3, 20, 17), (1, 9, 30)]


def drawn_network(shape, knobs):
    torch.manual_seed(0)
    training = {"mean": [0.3] * shape[0], "std": [0.25] * shape[0]}
    return CNN(shape, 10, training=training, **knobs)


def assert_drawn_network_agrees(shape, model):
    images = random_images(shape)
    pass_some(model, images)
    assert_onnx_agrees(model, images)


@pytest.mark.long
@needs("onnx")
@settings(
    max_examples=5,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=[
        hypothesis.HealthCheck.filter_too_much,  # many geometries cannot exist
        hypothesis.HealthCheck.too_slow,
    ],
)
@given(
    st.sampled_from(SHAPES),
    st.fixed_dictionaries({knob: st.sampled_from(values) for knob, values in KNOBS.items()}),
)
def test_onnx_agrees_for_drawn_geometries(shape, knobs):
    try:
        model = drawn_network(shape, knobs)
    except InfeasibleGeometry:
        hypothesis.reject()
    assert_drawn_network_agrees(shape, model)


@pytest.mark.long
@needs("onnx")
def test_where_two_grids_of_polyphase_pooling_are_alike_the_last_bit_decides():
    knobs = {"channels": [4, 4, 8], "kernel_size": 1, "stride": "1x2", "padding": "0x2"}
    knobs |= {"pool": "aps", "pool_padding": "circular", "activation": "none", "head": "global_avg"}
    model, images = drawn_network((1, 9, 30), knobs), random_images((1, 9, 30))
    assert_onnx_agrees(model, images)  # in up to ten of a thousand images
    assert export.most_undecided(model, 1000) == 10
    assert export.most_undecided(drawn_network((1, 9, 30), {"channels": [4]}), 1000) == 0


@needs("onnx")
@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_onnx_agrees_for_two_hundred_drawn_geometries(part):
    draw = random.Random(part)
    done = 0
    while done < 50:
        shape = draw.choice(SHAPES)
        knobs = {knob: draw.choice(values) for knob, values in KNOBS.items()}
        try:
            model = drawn_network(shape, knobs)
        except InfeasibleGeometry:
            continue
        done += 1
        print(shape, knobs)  # noqa: T201  shown where it fails
        assert_drawn_network_agrees(shape, model)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_is_checked_on_a_thousand_images_and_says_so(command, run_path, format):
    answer = command("export", run_path, "--format", format)
    assert answer.code == 0, answer.err
    path = run_path / f"model{export.SUFFIXES[format]}"
    first, second = answer.out.splitlines()
    opset = f", opset {export.OPSET}" if format == "onnx" else ""
    assert first == f"{path}: {path.stat().st_size:,} bytes{opset}"
    assert second.startswith("checked on 1,000 images of digits: logits differ by at most ")
    assert not answer.err


@needs("onnx")
def test_an_onnx_file_says_what_goes_in_and_where_it_comes_from(command, run, tmp_path):
    import onnx

    path = tmp_path / "digits.onnx"
    assert command("export", run.path, "--format", "onnx", "--out", path).code == 0
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    (images,) = model.graph.input
    assert [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim] == [
        *("batch", 1, 28, 28)
    ]
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    result = RunFolder(run.path).read_result()
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(found["classes"]) == list("0123456789")
    assert found["fingerprint"] == result.fingerprint
    assert float(found["test_acc"]) == result.metrics["test/acc"]
    assert "uint8 (N, 1, 28, 28), grey, pixels 0 to 255" in found["input"]


@pytest.mark.parametrize("format", [p for p in FORMATS if p.values[0] != "safetensors"])
def test_a_file_does_not_tell_of_the_machine_that_wrote_it(run, format, tmp_path):
    path = tmp_path / "model"
    export.export(run, format, path)
    for place in (ROOT, Path(torch.__file__).parent, Path.home() / "x"):
        assert str(place).encode() not in path.read_bytes()


def test_a_torch_export_file_answers_any_number_of_images(run, tmp_path):
    export.export(run, "torch_export", tmp_path / "model.pt2")
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    images, _ = run.data.tensors("test")
    for batch in (images[:1], images[:7], images):
        torch.testing.assert_close(program(batch), run.model(batch), rtol=1e-5, atol=1e-5)
    assert json.loads(extra["metadata.json"])["data"] == "digits"


@needs("safetensors")
def test_a_network_is_rebuilt_from_its_safetensors_file_by_plain_code(run, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = tmp_path / "model.safetensors"
    export.export(run, "safetensors", path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    model = CNN(**json.loads(metadata["arguments"]))
    weights = load_file(path)
    model.load_state_dict(weights)
    images, _ = run.data.tensors("test")
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), run.model(images))
        # and without the package's classes: pixel * scale + shift, then the first convolution
        scale, shift = (torch.tensor(json.loads(metadata[key])) for key in ("scale", "shift"))
        inputs = images * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
        padded = torch.nn.functional.pad(inputs, (0, 1, 0, 1))
        conv = torch.nn.functional.conv2d(padded, weights["network.block1.conv.weight"], stride=2)
        torch.testing.assert_close(conv, run.model.network.block1.conv(inputs))
    assert json.loads(metadata["config"])["model"]["stride"] == 2


@pytest.mark.parametrize("format", FORMATS)
def test_the_run_stays_as_it_was(run, format, tmp_path):
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    strides = [p.stride() for p in run.model.parameters()]
    export.export(run, format, tmp_path / "model")
    assert all(torch.equal(before[n], t) for n, t in run.model.state_dict().items())
    assert strides == [p.stride() for p in run.model.parameters()]


def test_a_file_that_answers_otherwise_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "TOLERANCE", -1.0)  # then nothing is close enough
    with pytest.raises(export.LogitsDiffer, match=r"no file was written"):
        export.export(run, "torch_export", tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


OWN = """
import lightning, torch

class Net(torch.nn.Module):
    def __init__(self, input_shape, num_classes, width=8):
        super().__init__()
        pixels = input_shape[0] * input_shape[1] * input_shape[2]
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(pixels, width), torch.nn.Linear(width, num_classes)
        )

    def forward(self, images):
        return self.layers(images)

class Lit(lightning.LightningModule):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.net = Net(input_shape, num_classes)

    def forward(self, images):
        return self.net(images)

    def training_step(self, batch, index):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def test_step(self, batch, index):
        self.log("test/acc", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
"""


@pytest.mark.parametrize("kind", ["Net", "Lit"])
def test_a_network_of_ones_own_is_exported_too(command, tmp_path, monkeypatch, kind):
    (tmp_path / "exported_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "exported_nets", raising=False)
    own = ["model=own", f"model._target_=exported_nets.{kind}", "allow_packages=[exported_nets]"]
    path = tmp_path / "run"
    assert train(ResolvedRun(checked(*own, *TINY[1:]), own), path).status == "ok"
    for format in export.NEEDS:
        if all(importlib.util.find_spec(name) for name in export.NEEDS[format]):
            answer = command(
                "export", path, "--format", format, "--allow-packages", "exported_nets"
            )
            assert answer.code == 0, answer.err


def test_without_the_data_set_the_check_is_on_noise(run_path, tmp_path, monkeypatch):
    def gone(config):
        raise export.DataError("not here")

    run = load_run(run_path)
    monkeypatch.setattr(type(run.config), "load_images", gone)
    answer = str(export.export(run, "torch_export", tmp_path / "model.pt2"))
    assert "1,000 images of noise (the data of the run are not here)" in answer


def test_a_run_without_a_checkpoint_is_one_sentence(command, run_path, tmp_path):
    config = RunFolder(run_path).read_config()
    RunFolder(tmp_path / "run").create(Result("cnn", "12345678", config=config))
    answer = command("export", tmp_path / "run", "--format", "torch_export")
    assert answer.code == 2
    assert answer.err.startswith(f"error: {tmp_path / 'run'} has no checkpoints/best.ckpt")
    assert answer.err.count("\n") == 1


def test_a_missing_extra_is_named_before_anything_is_loaded(command, run_path, monkeypatch):
    monkeypatch.setitem(export.NEEDS, "onnx", ("onnx", "no_such_package"))
    answer = command("export", run_path, "--format", "onnx")
    assert answer.code == 2
    assert answer.err == "error: --format onnx needs no_such_package; pip install -e '.[onnx]'\n"


def test_a_place_that_cannot_be_written_is_one_sentence(command, run_path, tmp_path):
    answer = command(
        *("export", run_path, "--format", "torch_export"), "--out", tmp_path / "none" / "model.pt2"
    )
    assert (answer.code, answer.out) == (2, "")
    assert "No such file or directory" in answer.err
