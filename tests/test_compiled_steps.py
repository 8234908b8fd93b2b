"""Compiled steps are those of `quick_steps` but for rounding; resumed runs end on the same bits."""

import errno
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._inductor.exc import InductorError

from convscape.base.errors import ConfigError, Stopped
from convscape.models import MLP, compiled_steps
from convscape.models.compiled_steps import NUM_STEPS, CompiledSteps, Shape, _Function
from convscape.models.quick_steps import AdamState, DenseChain, bound_step
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training.build import build_model
from convscape.training.compiling import _shape_of_steps

from .dying import train_apart
from .test_config import checked
from .test_resume import assert_equal_runs, bits

SMALL = [
    *("model=mlp", "model.hidden=[16]", "data.batch_size=32", "trainer.max_epochs=3"),
    *("trainer.steps_per_execution=10", "trainer.threads=1", "trainer.precision=fp32"),
    *("trainer.progress=off", "visual=off"),
]


@pytest.mark.parametrize("seed", range(20))
def test_what_is_compiled_takes_the_steps_that_single_ones_would(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    shape = draw.choice([(1, 5, 4), (3, 4, 4)])
    training = {
        "mean": [draw.random() for _ in range(shape[0])],
        "std": [0.5 + draw.random() for _ in range(shape[0])],
        "optimizer": {
            "name": draw.choice(["adam", "adamw"]),
            "lr": 0.01,
            "betas": [draw.choice([0.8, 0.9]), 0.99],
            "weight_decay": draw.choice([0.0, 0.1]),
        },
    }
    knobs = {
        "hidden": [draw.choice([3, 8]) for _ in range(draw.randrange(4))],
        "activation": draw.choice(["relu", "tanh", "sigmoid"]),
    }
    models = [MLP(shape, 4, **knobs, training=training).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [model.configure_optimizers() for model in models]
    batches = [
        (torch.randint(0, 256, (6, *shape), dtype=torch.uint8), torch.randint(0, 4, (6,)))
        for _ in range(2 + NUM_STEPS)
    ]
    rates = torch.linspace(0.01, 0.02, NUM_STEPS)
    for model, optimizer in zip(models, optimizers, strict=True):
        single_steps(model, optimizer, batches[:2], [0.01, 0.01])
    expected = single_steps(models[0], optimizers[0], batches[2:], rates.tolist())

    model, state = models[1], AdamState.of(optimizers[1])
    kind = Shape.of(
        DenseChain.of(model.network),
        batches[0][0].shape,
        len(model.scale),
        training["optimizer"]["name"] == "adamw",
    )
    images, labels = zip(*batches[2:], strict=True)
    numbers = map(torch.tensor, state.numbers)
    kept = *state.parameters, *state.averages, *state.squares, model.scale, model.shift
    function = _Function(kind)
    given = *kept, *numbers, state.steps[0], rates, *images, *labels
    assert [each.shape for each in given] == [each.shape for each in function.example()]
    with torch.no_grad():
        found = function(*given)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    other = AdamState.of(optimizers[0])
    for name in ("parameters", "averages", "squares"):
        torch.testing.assert_close(getattr(state, name), getattr(other, name))


def single_steps(model, optimizer, batches, rates):
    """Take them one by one: losses (n,), logits (n, N, K)."""
    losses, all_logits = [], []
    for (images, labels), rate in zip(batches, rates, strict=True):
        chain, step = DenseChain.of(model.network), bound_step(optimizer)
        optimizer.param_groups[0]["lr"] = rate
        logits, loss = chain.gradients(model.normalize(images), labels)
        step()
        losses.append(loss)
        all_logits.append(logits)
    return torch.stack(losses), torch.stack(all_logits)


@pytest.mark.parametrize(
    "override",
    [
        *("model.dropout=0.1", "model.batch_norm=true", "model.label_smoothing=0.1"),
        *("model.loss=mse", "optimizer=sgd", "trainer.precision=bf16"),
        *("trainer.gradient_clip_norm=1", "trainer.ema=0.9"),
    ],
)
def test_steps_are_compiled_only_where_they_do_all_that_single_ones_do(override):
    for overrides, is_suited in ((SMALL, True), ([*SMALL, override], False)):
        run = ResolvedRun(checked(*overrides))
        assert (_shape_of_steps(build_model(run), run) is not None) == is_suited


SHAPE = Shape((20, 3), (None,), (6, 1, 5, 4), 1, False)


def test_compiled_steps_are_kept_where_only_their_user_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor_name")  # as torch does
    for given in ("", "here", None):  # a relative one does not count
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path) if given is None else given)
        home = tmp_path if given is None else Path.home() / ".cache"
        assert SHAPE.file.parent == home / "convscape"


def test_compiled_steps_that_cannot_be_kept_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"file.convscape .*set XDG_CACHE_HOME to another"):
        CompiledSteps(SHAPE)


def test_a_damaged_file_of_compiled_steps_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    SHAPE.file.parent.mkdir()
    SHAPE.file.write_bytes(b"half")
    with pytest.raises(RuntimeError, match="ZIP archive"):
        compiled_steps._loaded(SHAPE.file)
    load = compiled_steps._loaded
    whole = SimpleNamespace(run=print)
    monkeypatch.setattr(
        compiled_steps, "_loaded", lambda f: whole if f.read_bytes() == b"whole" else load(f)
    )
    monkeypatch.setattr(compiled_steps, "_compiled", lambda shape: b"whole")
    assert CompiledSteps(SHAPE)._run is print


@pytest.mark.parametrize(
    ("inner", "expected", "said"),
    [
        (Stopped("by SIGINT"), Stopped, "by SIGINT"),
        (OSError(errno.ENOSPC, "No space left"), ConfigError, r"cannot write .*: No space left"),
        (RuntimeError("cc1plus"), ConfigError, "no working C.. compiler .*cc1plus"),
    ],
)
def test_what_ends_a_compilation_is_said(tmp_path, monkeypatch, inner, expected, said):
    def fail(*args, **kwargs):
        raise InductorError(inner, None)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    with pytest.raises(expected, match=said):
        CompiledSteps(SHAPE)


@pytest.mark.long
def test_compiled_steps_are_kept_and_a_killed_run_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "convscape"
    compiled = [*SMALL, "trainer.compile=true"]
    assert train_apart(compiled, tmp_path / "whole") == "ok"
    (kept,) = cache.glob("steps-*.pt2")
    written = kept.stat().st_mtime_ns
    assert train_apart(compiled, tmp_path / "killed", "epoch", 1) is None
    assert train_apart(compiled, tmp_path / "killed") == "ok"
    assert_equal_runs(RunFolder(tmp_path / "killed"), RunFolder(tmp_path / "whole"))
    assert list(cache.glob("steps-*.pt2")) == [kept]
    assert kept.stat().st_mtime_ns == written

    assert train_apart(SMALL, tmp_path / "single") == "ok"
    ours, theirs = (bits(RunFolder(tmp_path / n).last_checkpoint) for n in ("whole", "single"))
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours)  # they were taken
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)
