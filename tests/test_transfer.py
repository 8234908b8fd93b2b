"""Networks that begin with the weights of another run, and layers that do not learn."""

import json

import pytest
import torch
from safetensors.torch import save_file

from convscape.config.optimizers import OPTIMIZERS
from convscape.runs.folder import RunFolder
from convscape.runs.resolved import ResolvedRun
from convscape.training import run as training
from convscape.training.unread import refuse_unread
from tests.conftest import TINY
from tests.dying import train_apart
from tests.test_config import checked
from tests.test_resume import assert_equal_runs, stop_at

NETWORK = ["model.channels=[4,4]", "model.batch_norm=true", "visual=off", "data.batch_size=32"]
WORDS = [*TINY[1:], *NETWORK, "trainer.progress=off", "scheduler=constant"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source")
    assert train_apart(WORDS, path) == "ok"
    return RunFolder(path)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def trained(path, *words):
    config = checked(*WORDS, *words)
    refuse_unread(config)
    result = training.train(ResolvedRun(config, words), path)
    assert result.status == "ok", result.error
    return RunFolder(path)


def test_a_network_begins_where_another_ended(source, tmp_path, capsys):
    words = (f"init_from={source.path}", "trainer.max_epochs=1", "trainer.progress=lines")
    folder = trained(tmp_path, *words, "trainer.freeze=[block1,block2]")
    before, after = weights(source.best_checkpoint), weights(folder.best_checkpoint)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # nor do the running statistics of frozen layers
    assert changed == {"network.output.weight", "network.output.bias"}
    said = capsys.readouterr().out
    assert "5 layers with weights: 5 loaded, 0 new, 0 left" in said
    assert f"weights from {source.path}:\nlayer " in said  # a path may fill a line of its own
    assert "block2.conv, block2.batch_norm: frozen, batch-norm statistics included" in said
    assert "5 layers with weights" in (tmp_path / "run.log").read_text()
    result = folder.read_result()
    assert result.loaded == [
        "block1.conv", "block1.batch_norm", "block2.conv", "block2.batch_norm", "output"
    ]  # fmt: skip


def test_the_rest_begins_new_where_it_does_not_fit(source, tmp_path, capsys):
    """Three blocks in place of two, and a last layer that stands behind a new one."""
    words = ("model.channels=[4,4,4]", "model.padding=same", "trainer.progress=lines")
    words += ("trainer.freeze=loaded", "trainer.max_epochs=1")
    folder = trained(tmp_path, *words, f"init_from={source.path}")
    said = capsys.readouterr().out
    assert "7 layers with weights: 4 loaded, 3 new, 0 left" in said
    assert "new: it does not exist" in said
    assert "new: 10x100 there, 10x36 here" in said
    before, after = weights(source.best_checkpoint), weights(folder.best_checkpoint)
    for name in ("network.block1.conv.weight", "network.block2.batch_norm.running_mean"):
        assert torch.equal(before[name], after[name])


def test_layers_are_asked_for_by_name(source, tmp_path, command):
    words = [*WORDS, f"init_from={source.path}", "trainer.max_epochs=1", "trainer.freeze=loaded"]
    answer = command("train", *words, "init_from.layers=[block1]")
    assert answer.code == 0, answer.err
    (path,) = tmp_path.glob("outputs/runs/*")
    result = RunFolder(path).read_result()
    assert result.loaded == ["block1.conv", "block1.batch_norm"]
    word = f"init_from={source.path}"
    assert f"_from-{source.path.name}-" in ResolvedRun(checked(word), [word]).name
    before, after = weights(source.best_checkpoint), weights(RunFolder(path).best_checkpoint)
    name = "network.block1.conv.weight"
    assert torch.equal(before[name], after[name])
    assert not torch.equal(*(each["network.block2.conv.weight"] for each in (before, after)))


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_frozen_layers_learn_after_their_epochs_and_resume_is_exact(
    source, tmp_path, monkeypatch, optimizer
):
    """Stopped while they are frozen, and again when they are not: ten steps an epoch."""
    words = [f"init_from={source.path}", "trainer.freeze=loaded", "trainer.freeze_epochs=1"]
    words += ["init_from.layers=[block1,block2]", f"optimizer={optimizer}", "visual=full"]
    words += ["trainer.steps_per_execution=3"]
    config = checked(*WORDS, *[w.replace("init_from=", "init_from.run=") for w in words])
    whole, stopped = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "stopped")
    assert training.train(ResolvedRun(config, words), whole.path).status == "ok"
    for call in (2, 4):
        with monkeypatch.context() as patch:
            stop_at(patch, call)
            assert training.train(ResolvedRun(config, words), stopped.path).status == "interrupted"
    assert training.train(ResolvedRun(config, words), stopped.path).status == "ok"
    assert_equal_runs(stopped, whole)
    before, after = weights(source.best_checkpoint), weights(whole.last_checkpoint)
    first = "network.block1.batch_norm.running_mean"
    assert not torch.equal(before[first], after[first])


def test_the_fingerprint_is_that_of_the_weights_and_not_of_their_place(source, tmp_path):
    plain = ResolvedRun(checked(*WORDS))
    assert plain.config.init_from.run is None
    state = weights(source.best_checkpoint)
    ours = ResolvedRun(checked(*WORDS, f"init_from={source.path}"))
    torch.save(state, tmp_path / "a.pt")
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "b.safetensors"
    )
    files = [
        ResolvedRun(checked(*WORDS, f"init_from={tmp_path / f}")) for f in ("a.pt", "b.safetensors")
    ]
    assert files[0].fingerprint == files[1].fingerprint  # which do not know their classes
    state["network.output.bias"][0] += 1
    torch.save(state, tmp_path / "c.pt")
    other = ResolvedRun(checked(*WORDS, f"init_from={tmp_path / 'c.pt'}"))
    assert len({plain.fingerprint, ours.fingerprint, files[0].fingerprint, other.fingerprint}) == 4


def test_weights_of_torchvision_fit_its_networks_but_for_other_classes(tmp_path):
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=7).state_dict(), tmp_path / "squeezenet.pth")
    words = ["model=torchvision", "model.name=squeezenet1_1", "data.image_size=32"]
    words += ["data.channels=3", *WORDS[:3], "data.batch_size=64", "visual=off"]
    words += ["trainer.progress=off", "trainer.freeze=[features]", "trainer.max_epochs=1"]
    config = checked(*words, f"init_from={tmp_path / 'squeezenet.pth'}", "trainer.max_steps=2")
    result = training.train(ResolvedRun(config, words), tmp_path / "run")
    assert (result.status, len(result.loaded)) == ("ok", 25), result.error
    after = weights(RunFolder(tmp_path / "run").best_checkpoint)
    before = torch.load(tmp_path / "squeezenet.pth")
    assert torch.equal(after["network.features.0.weight"], before["features.0.weight"])
    assert after["network.classifier.1.weight"].shape[0] == 10


class Harmful:
    def __reduce__(self):
        return (print, ("it ran",))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["init_from=nowhere"], "init_from=nowhere: there is no such file; allowed: the folder"),
        (["init_from=harmful.ckpt"], "it wants to call print, which no checkpoint needs"),
        (["init_from=empty.ckpt"], "holds no weights"),
        (["init_from=broken.safetensors"], "cannot be read"),
        (
            ["init_from={source}", "model.kernel_size=5"],
            "nothing can be loaded: block1.conv: 4x1x3x3 t",
        ),
        (
            ["init_from={source}", "init_from.layers=[block3]"],
            "no layer 'block3' with weights; allow",
        ),
        (
            ["init_from={source}", "init_from.layers=[block2]", "model.kernel_size=[3,5]"],
            "init_from.layers: block2.conv cannot be loaded: 4x4x3x3 there, 4x4x5x5 here",
        ),
        (
            ["init_from={source}", "model.kernel_size=[5,3]", "model.padding=same"],
            "; init_from.layers=[block1.batch_norm,block2.conv,block2.batch_norm] loads what fits",
        ),
        (
            ["init_from={source}", "model.batch_norm=false"],
            "block1.conv: weight there, bias, weight here; layers there: block1.conv, ",
        ),
        (["init_from=nan.pt"], "block1.conv: it has weights that are not finite; init_from=null"),
        (["init_from=complex.pt"], "block1.conv: complex64 there, float32 here; init_from=null"),
        (["init_from=module.pt"], "Linear, which no checkpoint needs: save a state_dict() instead"),
        (["init_from={source}/result.json"], "or a file of weights; did you mean '{source}'?"),
        (["init_from={source}/checkpoints"], "has no checkpoints/best.ckpt; allowed: the folder"),
        (["init_from={source}/.."], "or a file of weights; did you mean '{source}'"),
        (["trainer.freeze=[blok1]"], "did you mean 'block1'?"),
        (["trainer.freeze=[flatten]"], "'flatten' with weights; allowed: block1, block2, output"),
        (["trainer.freeze=block1"], "trainer.freeze=block1: allowed: a list, such as [block1]"),
        (["trainer.freeze=[]"], "trainer.freeze=[]: allowed: a list of 1 or more"),
        (
            ["trainer.freeze=[block1,block2,output]"],
            "leave a layer out, as in trainer.freeze=[block1.conv,block1.batch_norm,block2",
        ),
        (
            ["init_from={source}", "trainer.freeze=loaded"],
            "leave a layer out, as in trainer.freeze=[block1.conv,block1.batch_norm,block2",
        ),
        (["trainer.freeze=loaded"], "init_from=null loads nothing; init_from=<run folder> does"),
        (["trainer.freeze_epochs=1"], "trainer.freeze=null freezes nothing"),
        (
            ["trainer.freeze=[block1]", "trainer.freeze_epochs=2"],
            "trainer.max_epochs=2 is not longer than that",
        ),
        (
            ["init_from.layers=[block1]"],
            "init_from=null loads nothing; init_from=<run folder> does",
        ),
    ],
)
def test_a_mistake_is_one_sentence(command, source, tmp_path, words, sentence):
    torch.save({"state_dict": {"a": Harmful()}}, tmp_path / "harmful.ckpt")
    torch.save({"a": 1}, tmp_path / "empty.ckpt")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    tensors = weights(source.best_checkpoint)
    torch.save(
        {name: t.to(torch.complex64) for name, t in tensors.items()}, tmp_path / "complex.pt"
    )
    torch.save({name: t * torch.nan for name, t in tensors.items()}, tmp_path / "nan.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    sentence = sentence.format(source=source.path)
    answer = command("train", *WORDS, *(word.format(source=source.path) for word in words))
    assert (answer.code, sentence in answer.err) == (2, True), answer.err
    assert "it ran" not in answer.out
    assert not list(tmp_path.glob("outputs/runs/*"))


def test_the_averages_of_a_run_are_what_the_next_begins_with(tmp_path, monkeypatch, capsys):
    words = ["trainer.ema=0.5", "trainer.steps_per_execution=1"]
    with monkeypatch.context() as patch:
        stop_at(patch, 13)  # in the second epoch, of ten steps
        run = ResolvedRun(checked(*WORDS, *words), words)
        assert training.train(run, tmp_path / "a").status == "interrupted"
    averaged = RunFolder(tmp_path / "a")
    for file, said in (
        (averaged.path, f"weights from {averaged.path}, averaged by trainer.ema:"),
        (averaged.last_checkpoint, ", as trained and not averaged by trainer.ema:"),
    ):
        path = tmp_path / f"from {file.name}"
        more = ["trainer.freeze=[block1,block2]", "trainer.max_epochs=1", "trainer.progress=lines"]
        capsys.readouterr()
        begun = trained(path, f"init_from={file}", *more)
        assert said in capsys.readouterr().out.replace("\n", " ").replace("  ", " ")
        there = averaged.best_checkpoint if file == averaged.path else file
        name = "network.block1.conv.weight"
        assert torch.equal(weights(begun.best_checkpoint)[name], weights(there)[name])


def test_a_run_that_is_begun_needs_its_source_no_more(source, tmp_path, monkeypatch):
    torch.save(weights(source.best_checkpoint), tmp_path / "a.pt")
    run = ResolvedRun(
        checked(
            *WORDS, f"init_from={tmp_path / 'a.pt'}", "trainer.freeze=loaded", "model.dense=[5]"
        )
    )
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        assert training.train(run, tmp_path / "run").status == "interrupted"
    (tmp_path / "a.pt").unlink()
    assert training.train(run, tmp_path / "run").status == "ok"
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored["config"]["init_from"]["checksum"] == run.config.init_from.checksum


def test_a_sweep_compares_with_and_without(command, source, tmp_path):
    words = [*WORDS, f"init_from=null,{source.path}", "seed=0,1", "name=transfer"]
    answer = command("train", "-m", *words)
    assert answer.code == 0, answer.err
    assert f"init from {source.path} instead of null: " in answer.out
    loaded = [file.read_text() for file in tmp_path.glob("outputs/sweeps/transfer/*/run.log")]
    assert sum("5 loaded, 0 new" in text for text in loaded) == 2
