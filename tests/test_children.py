"""Children of the networks that ship, as docs/extending.md promises them."""

import sys
import textwrap

import pytest
import torch

import convscape
from convscape.base.errors import ConfigError, Stopped
from convscape.runs.resolved import ResolvedRun
from convscape.training.build import build_model
from convscape.training.run import train
from tests.conftest import TINY
from tests.test_config import checked

OWN = """
    import torch
    from convscape import CNN, ImageClassifier

    class Inverted(CNN):
        '''The network of CNN on the negative, whatever its knobs.'''

        def normalize(self, images):
            return super().normalize(255 - images)

    class Narrow(CNN):
        def __init__(self, input_shape, num_classes, width=4):
            super().__init__(input_shape, num_classes, channels=[width])

    class Linear(ImageClassifier):
        def __init__(self, input_shape, num_classes, *, scale=1.0):
            network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(num_classes))
            network(torch.zeros(1, *input_shape))
            super().__init__(network, loss="mse")
            self.save_hyperparameters(logger=False)

    class Wide(torch.nn.Module):
        def __init__(self, num_classes, extra=1):
            super().__init__()
            self.head = torch.nn.Linear(784, num_classes + extra)

        def forward(self, images):
            return self.head(images.flatten(1))

    class Forgetful(ImageClassifier):
        def __init__(self, num_classes, width):
            super().__init__(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10)))
"""
SHORT = [*TINY[1:], "visual=off", "trainer.precision=fp32", "trainer.progress=off"]


@pytest.fixture(autouse=True)
def children(tmp_path, monkeypatch):
    (tmp_path / "childparts.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("childparts", None)


def words(name, *more):
    target = f"model._target_=childparts.{name}"
    return ["model=own", target, "allow_packages=[childparts]", *SHORT, *more]


@pytest.mark.parametrize(
    ("name", "more"),
    [("Inverted", ["+model.channels=[4]", "+model.dropout=0.2"]), ("Narrow", []), ("Linear", [])],
)
def test_a_child_trains_resumes_and_is_evaluated(tmp_path, name, more):
    config = checked(*words(name, *more))

    def stop(row):
        raise Stopped("after its first epoch")

    whole = train(ResolvedRun(config), tmp_path / "whole")
    assert whole.status == "ok", whole.error
    assert train(ResolvedRun(config), tmp_path / "stopped", on_epoch=stop).status == "interrupted"
    assert train(ResolvedRun(config), tmp_path / "stopped").metrics == whole.metrics
    assert whole.macs > 0
    run = convscape.load_run(tmp_path / "stopped", allow_packages=["childparts"])
    assert type(run.model).__name__ == name
    images, labels = run.data.tensors("test")
    acc = (run.logits(images).argmax(1) == labels).double().mean().item()
    assert acc == pytest.approx(whole.metrics["test/acc"])
    assert acc > 0.2  # of ten classes: it has learned


def test_its_loss_is_its_own_and_its_optimiser_the_configs():
    config = checked(*words("Linear", "optimizer=sgd", "optimizer.lr=0.01"))
    model = build_model(ResolvedRun(config))
    assert model.loss_name == "logits_mse"
    assert model.optimizer_arguments["name"] == "sgd"


def test_a_child_is_exported(command, tmp_path):
    run = tmp_path / "run"
    train(ResolvedRun(checked(*words("Narrow"))), run)
    answer = command("export", run, "--format", "torch_export", "--allow-packages", "childparts")
    assert answer.code == 0, answer.err + answer.out


def test_a_child_is_handed_over_as_an_object(tmp_path):
    import childparts

    model = childparts.Narrow((1, 28, 28), 10, width=3)
    run = convscape.train(*SHORT, f"output_dir={tmp_path / 'outputs'}", model=model)
    assert run.model is model
    again = convscape.load_run(run.path, allow_packages=["childparts"])
    assert again.config.model.arguments == {"width": 3}
    images = run.data.tensors("test")[0][:8]
    torch.testing.assert_close(again.logits(images), run.logits(images))


def test_an_object_that_no_folder_could_rebuild_is_refused():
    import childparts

    class Local(convscape.CNN):
        pass

    with pytest.raises(ConfigError, match="move it to the top level of its own module"):
        convscape.train(model=Local((1, 28, 28), 10, channels=[4]))
    with pytest.raises(ConfigError, match=r"width; call self\.save_hyperparameters\(\)"):
        convscape.train(model=childparts.Forgetful(10, width=3))


@pytest.mark.parametrize("extra", [1, -1])
def test_a_network_with_more_or_fewer_outputs_than_classes_is_refused(command, extra):
    answer = command("train", *words("Wide", f"+model.extra={extra}"))
    assert answer.code == 2, answer.err
    assert (
        f"answers N images with a tensor (N, {10 + extra}); allowed: logits (N, 10)" in answer.err
    )


def test_explain_and_probe_take_a_child_whose_package_is_allowed(command, tmp_path):
    assert command("train", *words("Narrow")).code == 0
    (run,) = tmp_path.glob("outputs/runs/*")
    for script, *asked in (("explain", "3"), ("probe", "shift", "max=2", "step=2")):
        way_out = "--allow-packages childparts"
        assert f"add {way_out}," in command(script, run, *asked).err
        answer = command(script, run, *asked, *way_out.split())
        assert answer.code == 0, answer.err
