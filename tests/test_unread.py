"""Keys that nothing reads are refused, whoever sets them; those that something reads are not."""

import sys
import textwrap

import pytest

import convscape
from convscape.base.errors import ConfigError
from convscape.runs.resolved import ResolvedRun
from convscape.training import unread
from convscape.training.build import data_module
from convscape.training.unread import refuse_unread
from tests.conftest import TINY
from tests.dying import train_apart
from tests.test_config import checked
from tests.test_metrics import OWN

LIT = ["model=own", "model._target_=unreadparts.Lit", "allow_packages=[unreadparts]"]
NET = """
    class Net(torch.nn.Module):
        def __init__(self, num_classes):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, num_classes))

        def forward(self, images):
            return self.net(images)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "unreadparts.py").write_text(textwrap.dedent(OWN) + textwrap.dedent(NET))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("unreadparts", None)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.download=true"], "data.download=true: data=digits has nothing to download"),
        (["+data.test_fraction=0.3"], "data=digits has its own test images"),
        (["+data.on_unreadable=skip"], "data=digits reads no picture files"),
        (["+data.arguments.noise=3"], "data.arguments={noise:3}: data=digits calls no function"),
        (["data=digits", "+data._target_=a.b"], "data._target_=a.b: data=digits calls no function"),
        (["model.pool=none", "model.pool_size=3"], "model.pool_size=3: model.pool=none"),
        (["model.pool=[none,none]", "model.pool_stride=1"], "model.pool_stride=1"),
        (["model.dense_dropout=0.5"], "model.dense_dropout=0.5: model.dense=[]"),
        (["model=mlp", "model.hidden=[]", "model.dropout=0.5"], "model.dropout=0.5: model.hidden"),
        (["data.val_size=0", "trainer.early_stopping=2"], "data.val_size=0 leaves no image"),
        (
            ["data.val_size=0", "trainer.monitor=val/loss"],
            "trainer.monitor=val/loss: data.val_size",
        ),
        (["trainer.monitor=null", "trainer.early_stopping=2"], "nothing that could get better"),
        (["visual=full", "logger=[csv]"], "visual=full: its pictures go to TensorBoard"),
        (["name=mine"], "name=mine: this is one run"),
        (["retry=true"], "sweep with -m, or leave it out"),
    ],
)
def test_what_nothing_reads_is_refused(overrides, words):
    with pytest.raises(ConfigError) as error:
        refuse_unread(checked(*overrides), is_alone=True)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.download=false", "model.pool=none", "model.pool_size=2"],
        ["model.pool=[max,none]", "model.pool_size=3"],
        ["model.dense=[8]", "model.dense_dropout=0.5"],
        ["data.val_size=0"],
        ["data.val_size=0", "trainer.monitor=train/loss", "trainer.early_stopping=2"],
        ["visual=off", "logger=[csv]"],
        ["optimizer=sgd", "scheduler=constant", "trainer.gradient_clip_norm=1"],
        ["data=mnist", "data.download=false"],
    ],
)
def test_what_something_reads_is_not(overrides):
    refuse_unread(checked(*overrides), is_alone=True)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("optimizer.lr=0.1", "optimizer.lr=0.1"),
        ("optimizer=sgd", "optimizer=sgd"),
        ("scheduler=cosine", "scheduler=cosine"),
        ("trainer.steps_per_execution=4", "trainer.steps_per_execution=4"),
    ],
)
def test_a_module_with_its_own_training_names_what_it_ignores(command, own, override, key):
    answer = command("train", *LIT, override)
    assert answer.code == 2
    assert f"{key}: unreadparts.Lit is a LightningModule with its own training" in answer.err
    refuse_unread(checked(*LIT[:1], "model._target_=unreadparts.Net", *LIT[2:], override))
    refuse_unread(checked(*LIT, "trainer.steps_per_execution=1", "trainer.gradient_clip_norm=1"))


def test_a_sweep_a_plan_and_python_refuse_it_too(command, own):
    grid = [*LIT, "optimizer.lr=0.005,0.1", "name=grid"]
    for script, words in (("train", ["-m", *grid]), ("plan", grid)):
        answer = command(script, *words)
        assert (answer.code, "unreadparts.Lit" in answer.err) == (2, True), answer.err
    both = ["model=own", "model._target_=unreadparts.Lit,unreadparts.Net", LIT[2]]
    assert "unreadparts.Lit" in command("plan", *both, "optimizer.lr=0.005,0.1").err
    with pytest.raises(ConfigError, match=r"data\.download=true"):
        convscape.train("data.download=true", *TINY)
    with pytest.raises(ConfigError, match=r"model\.pool_size=3"):
        convscape.train_sweep("model.pool=none", "model.pool_size=3", "seed=0,1", name="grid")


def test_a_grid_in_which_some_runs_read_a_key_is_made(command):
    answer = command("plan", "model.pool=max,none", "model.pool_size=2,3")
    assert answer.code == 0, answer.err
    assert "1 duplicate is left out" in answer.out


def test_a_grid_looks_up_each_default_once(monkeypatch):
    looked_up, real = [], unread._file

    def noted(name):
        looked_up.append(name)
        return real(name)

    monkeypatch.setattr(unread, "_file", noted)
    grid = unread.UnreadInGrid()
    for kernel_size in (2, 3, 5):
        grid.add(checked("model.pool=none", f"model.kernel_size={kernel_size}"))
    assert looked_up
    assert len(set(looked_up)) == len(looked_up)


@pytest.mark.parametrize(
    ("experiment", "sweep", "code"),
    [
        ("trainer: {freeze: loaded, freeze_epochs: 1}", "init_from=null,{run}", 0),
        ("trainer: {freeze: loaded}", "seed=0,1", 2),
        ("model: {pool_size: 3}", "model.pool=max,none", 0),
        ("model: {pool_size: 3}", "model.pool=none seed=0,1", 2),
    ],
)
def test_what_an_experiment_sets_is_read_where_one_of_the_runs_reads_it(
    command, tmp_path, made_once, experiment, sweep, code
):
    def make(folder):
        train_apart([*TINY, "trainer.max_epochs=1"], folder / "run")

    place = tmp_path / "conf" / "experiment"
    place.mkdir(parents=True)
    (place / "mine.yaml").write_text(f"# @package _global_\n{experiment}\n")
    words = sweep.format(run=made_once("to_begin_with", make) / "run").split()
    answer = command("plan", "experiment=mine", *TINY, *words)
    assert answer.code == code, answer.out + answer.err
    assert ("leave it out" in answer.err) == (code == 2)


def test_one_batch_is_one_step_of_ones_own_module(own):
    for words, steps in (([], 1), (["trainer.steps_per_execution=4"], 1)):  # of a stored config
        run = ResolvedRun(checked(*LIT, *words))
        data = data_module(run, steps_per_execution=run.steps_per_execution)
        assert data.steps_per_execution == steps


def test_gradients_of_ones_own_module_are_clipped(command, own, tmp_path):
    words = [*LIT, *TINY[1:], "trainer.monitor=null", "visual=off", "trainer.max_epochs=1"]
    for norm in ("null", "1e-12"):
        words_of_run = [*words, f"trainer.gradient_clip_norm={norm}", f"output_dir=clip{norm}"]
        assert command("train", *words_of_run).code == 0
    weights = [
        convscape.load_run(next(folder.glob("runs/*")), ["unreadparts"]).model.net[1].weight
        for folder in sorted(tmp_path.glob("clip*"))
    ]
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    clipped, free = (each.detach() for each in weights)
    assert (clipped - free).abs().max() > 1e-3  # the clipped one has not moved


def test_a_search_refuses_what_its_trials_do_not_read_or_choose_themselves(command, own):
    pytest.importorskip("optuna")
    answer = command("search", "search=learning", "optimizer.lr=0.01", *TINY)
    assert answer.code == 2
    assert "leave it out, or take the key out of the space with ~search.space.optimizer.lr" in (
        answer.err
    )
    answer = command("search", "search=learning", *LIT)
    assert (answer.code, "search.space.optimizer: unreadparts.Lit" in answer.err) == (2, True)


def test_the_way_out_of_a_space_works_when_it_is_typed(command):
    pytest.importorskip("optuna")
    words = ["search=learning", "optimizer.lr=0.01", "~search.space.optimizer.lr", *TINY]
    answer = command("search", *words, "search.trials=1", "trainer.max_epochs=1", "visual=off")
    assert answer.code == 0, answer.err
    assert "1 trained" in answer.out
    assert "optimizer.lr" not in answer.out


# --- without validation -----------------------------------------------------------------------


def test_without_validation_it_is_said_what_is_kept(command):
    answer = command("train", *TINY[:2], "data.val_size=0", "trainer.max_epochs=1", "visual=off")
    assert answer.code == 0, answer.err
    assert (
        "data.val_size=0: without validation the weights of the last epoch are kept" in answer.out
    )


def test_a_share_that_is_no_image_is_no_validation(command):
    words = [*TINY[:2], "data.val_size=0.0001", "trainer.max_epochs=1", "visual=off"]
    answer = command("train", *words)
    assert answer.code == 0, answer.err
    assert (
        "data.val_size=0.0001 is less than one image: the weights of the last epoch" in answer.err
    )
    answer = command("train", *words, "trainer.early_stopping=2")
    assert (answer.code, "is less than one image to validate on" in answer.err) == (2, True), (
        answer.err
    )
