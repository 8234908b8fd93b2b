"""What is used of other packages: all of it declared, and of their insides still as it was."""

import ast
import importlib.metadata
import re
import sys
import tomllib
import warnings
from contextlib import contextmanager

import hydra
import optuna
import pytest
import torch
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from lightning_utilities.core import imports
from omegaconf import OmegaConf
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    check_distribution_compatibility,
)
from packaging.requirements import Requirement
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from convscape.base import quick_lightning
from convscape.base.quick_lightning import LightningEnvironment, pl
from convscape.config import hydra_insides
from convscape.config.directory import CONFIG_DIR, composing
from convscape.runs.folder import new_result
from convscape.runs.resolved import ResolvedRun
from convscape.sweeps.study import SharedStudy
from convscape.training import hparams, torch_insides
from convscape.training.events import EventLogger, add_layout

from .conftest import ROOT
from .test_config import checked

SOURCES = {p: ast.parse(p.read_text("utf-8")) for p in sorted((ROOT / "src").rglob("*.py"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REQUIRED = {Requirement(each).name: Requirement(each) for each in PROJECT["dependencies"]}
EXTRA = {
    Requirement(each).name: Requirement(each)
    for extra in PROJECT["optional-dependencies"].values()
    for each in extra
}

# what is not public and is used all the same, and the files that may
INSIDES = {
    "lightning": (("base/quick_lightning.py",), r"fit_loop|epoch_loop|(from|import) lightning\."),
    "lightning-utilities": (("base/quick_lightning.py",), r"lightning_utilities"),
    "torch": (
        ("models/compiled_steps.py", "models/quick_steps.py", "training/torch_insides.py"),
        r"torch\.jit|torch\.utils\.tensorboard|torch\.[\w.]*\b_[a-z]",
    ),
    "tensorboard": (
        ("board/plugin.py", "training/hparams.py"),
        r"tensorboard\.(plugins|summary|backend)",
    ),
    "hydra-core": (
        ("config/hydra_insides.py",),
        r"GlobalHydra|hydra\.initialize\b|hydra\._internal\.config|override_parser|_gh_",
    ),
    "optuna": (
        ("sweeps/database.py", "sweeps/study.py"),
        r"\._(storage|trial_id|study|suggest)|check_distribution_comp",
    ),
}


@contextmanager
def of(distribution):
    """Whatever goes wrong, it says where to look."""
    places, _ = INSIDES[distribution]
    try:
        yield
    except Exception as error:  # noqa: BLE001  an import, an attribute, an assertion
        pytest.fail(
            f"{distribution} {importlib.metadata.version(distribution)} has changed what "
            f"src/convscape/{' and '.join(places)} uses of its insides: {type(error).__name__}: "
            f"{error}. Mend it there, or keep the upper bound of {distribution} in pyproject.toml"
        )


def code_of(tree):
    """The code without its docstrings and comments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return ast.unparse(tree)


@pytest.mark.parametrize("distribution", INSIDES)
def test_insides_are_used_where_that_is_known_and_bounded(distribution):
    places, words = INSIDES[distribution]
    users = {path for path, tree in SOURCES.items() if re.search(words, code_of(tree))}
    assert users == {ROOT / "src" / "convscape" / place for place in places}
    declared = (REQUIRED | EXTRA)[distribution]
    assert any(each.operator == "<" for each in declared.specifier), declared
    assert importlib.metadata.version(distribution) in declared.specifier


def imported(tree):
    """The first part of every name that a module imports, wherever it does."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    homes = importlib.metadata.packages_distributions()
    names = {name for tree in SOURCES.values() for name in imported(tree)}
    names -= {"convscape", "hydra_plugins", *sys.stdlib_module_names}
    found = {name: {d.lower() for d in homes.get(name, [name])} for name in names}
    declared = {name.lower() for name in REQUIRED | EXTRA}
    assert {name: homes for name, homes in found.items() if not homes & declared} == {}
    assert {name.lower() for name in REQUIRED} <= set().union(*found.values())


# --- one test for each bound ------------------------------------------------------------------


class Stepping(pl.LightningModule):
    """Counts steps that Lightning does not see."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(1, 1)
        self.done, self.validated = [], 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())

    def training_step(self, batch):
        self.done.append(quick_lightning.num_batches_done(self.trainer))
        quick_lightning.count_steps(self.trainer, 3)

    def validation_step(self, batch):
        self.validated += 1


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec")
def test_lightning_counts_steps_and_validates_again(tmp_path):
    def trainer():
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0, "max_epochs": 1}
        return pl.Trainer(accelerator="cpu", plugins=[LightningEnvironment()], **quiet)

    class Stop(pl.Callback):
        def on_validation_batch_end(self, trainer, *_):
            quick_lightning.validate_again(trainer)
            trainer.save_checkpoint(tmp_path / "stopped.ckpt")

    class Restart(pl.Callback):
        def on_validation_start(self, trainer, *_):
            quick_lightning.validate_from_its_beginning(trainer)

    def batches():
        return torch.utils.data.DataLoader(torch.zeros(2, 1))

    with of("lightning"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, first = Stepping(), trainer()
        first.callbacks.append(Stop())
        first.fit(module, batches(), batches())
        assert (module.done, first.global_step, module.validated) == ([1, 2], 6, 2)
        module, again = Stepping(), trainer()
        again.callbacks.append(Restart())
        again.fit(module, batches(), batches(), ckpt_path=tmp_path / "stopped.ckpt")
        assert (module.done, again.global_step, module.validated) == ([], 6, 2)


def test_lightnings_requirements_are_asked_as_before_once_it_is_imported():
    with of("lightning-utilities"):
        assert imports.package_available("scipy")
        assert imports.RequirementCache("scipy>=1")
        assert not imports.package_available("no_such_package")
        assert not quick_lightning._is_installed_and_needed("scipy")
        assert not quick_lightning._is_met_and_needed(imports.RequirementCache("scipy>=1"))


def test_torch_traces_a_network_and_writes_to_a_file_of_ours(tmp_path):
    class Kept:
        def __init__(self):
            self.events = []

        def add_event(self, event):
            self.events.append(event)

        def flush(self):
            pass

        close = flush

    with of("torch"):
        network = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
        graph = torch_insides.trace(network, torch.zeros(1, 3))
        operations = {node.op for node in graph.node if node.op.startswith("aten::")}
        assert {"aten::linear", "aten::relu"} <= operations
        kept = Kept()
        writer = torch_insides.SummaryWriter(str(tmp_path), kept)
        writer.add_traced(graph)
        writer.add_scalar("loss", 0.5, 7)
        writer.close()
        assert [event.WhichOneof("what") for event in kept.events] == ["graph_def", "summary"]
        assert kept.events[1].step == 7
        assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_what_is_written_for_its_hparams(tmp_path):
    with of("tensorboard"):
        logger = EventLogger(tmp_path)
        config = checked("model=mlp")
        add_layout(logger.experiment, [])
        hparams.begin_session(logger.experiment, config, [])
        hparams.end_session(logger.experiment, new_result(ResolvedRun(config)))
        logger.close()
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        tags = events.PluginTagToContent("hparams")
        assert set(tags) == {
            f"_hparams_/{name}" for name in ("experiment", "session_start_info", "session_end_info")
        }
        assert b"model.hidden" in tags["_hparams_/session_start_info"]
        assert events.PluginTagToContent("custom_scalars")


def test_entry_points_are_looked_for_once():
    with of("lightning"):
        for _ in range(2):
            pl.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False)
        assert quick_lightning.registry.entry_points.cache_info().hits


def test_hydra_can_be_begun_within_hydra_and_reads_overrides():
    with (
        of("hydra-core"),
        hydra.initialize_config_dir(str(CONFIG_DIR / "model"), version_base="1.3"),
    ):
        with (
            hydra_insides.without_hydra(),
            hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"),
        ):
            assert hydra.compose("train", ["seed=3"]).seed == 3
        assert hydra.compose("mlp").hidden == [512, 512]
        (swept,) = hydra_insides.parse_overrides(["seed=range(3)"])
        assert isinstance(swept.value(), hydra_insides.RangeSweep)
        assert swept.is_sweep_override()


@pytest.mark.parametrize(
    "words",
    [
        ["model=mlp", "seed=3", "model.hidden=[7]", "+model.more={a: 1}", "++seed=4"],
        ["seed=1,2", "sweep=geometry", "~trainer.threads", "hydra.job.env_copy=[PATH]"],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.job.name=x", "~scheduler"],
        ["trainer={max_epochs: 3}", "hydra.runtime.choices.model=x", "model=cnn,mlp"],
        ["nothing=3", "model=mlp"],
        ["model=nothing", "seed=3"],
    ],
)
@pytest.mark.parametrize("mode", [RunMode.RUN, RunMode.MULTIRUN])
def test_what_was_merged_before_is_composed_as_hydra_does(words, mode):
    def outcome(loader):
        try:
            cfg = loader.load_configuration("train", words, mode)
        except HydraException as error:
            return type(error), str(error)
        flags = [node._metadata.flags for node in (cfg, cfg.hydra, cfg.hydra.job)]
        return OmegaConf.to_container(cfg, resolve=False), flags

    with of("hydra-core"), composing():
        ours = GlobalHydra.instance().config_loader()
        assert type(ours) is not ConfigLoaderImpl
        assert outcome(ours) == outcome(ConfigLoaderImpl(ours.get_search_path())) == outcome(ours)


def test_beside_a_folder_that_may_not_be_listed_is_composed_all_the_same(tmp_path, as_nobody):
    (tmp_path / "train.yaml").write_text("seed: 1\n")
    (tmp_path / "closed").mkdir(mode=0)
    with (
        of("hydra-core"),
        hydra_insides.composed_once(),
        hydra_insides.without_hydra(),
        hydra.initialize_config_dir(str(tmp_path), version_base="1.3"),
        as_nobody(),
    ):
        assert hydra.compose("train", ["seed=2"]) == {"seed": 2}
    (tmp_path / "closed").chmod(0o700)


def test_a_file_that_was_merged_before_is_read_again_once_it_has_changed(tmp_path):
    file, folder = tmp_path / "train.yaml", str(tmp_path)
    with of("hydra-core"), hydra_insides.composed_once(), hydra_insides.without_hydra():
        for value in (1, 22, 3):
            file.write_text(f"seed: {value}\ndefaults: [_self_, {{optional model: small}}]\n")
            with hydra.initialize_config_dir(folder, version_base="1.3"):
                assert hydra.compose("train") == {"seed": value}
                assert hydra.compose("train", ["seed=5"]) == {"seed": 5}
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "small.yaml").write_text("hidden: 7\n")
        with hydra.initialize_config_dir(folder, version_base="1.3"):
            assert hydra.compose("train", ["model.hidden=8"]) == {"seed": 3, "model": {"hidden": 8}}
            (tmp_path / "model" / "small.yaml").unlink()
            elsewhere = tmp_path / "elsewhere.yaml"
            (tmp_path / "model" / "small.yaml").symlink_to(elsewhere)
            for value in (1, 22):
                elsewhere.write_text(f"hidden: {value}\n")
                assert hydra.compose("train").model == {"hidden": value}


def test_optuna_lets_a_trial_be_taken_up_with_the_values_that_it_has(tmp_path):
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    shared = SharedStudy(optuna.create_study(), tmp_path, space, has_heartbeat=False)
    with of("optuna"), shared.at_work():
        left = shared.study.ask()
        x = left.suggest_float("x", 0, 1)
        trial = shared.next_trial(1)
        assert (trial.number, shared.next_trial(1)) == (left.number, None)
        assert shared.values(trial)["x"] == x
        shared.tell(trial, [0.5])
        (ended,) = shared.trials()
        assert (ended.value, ended.params["x"], len(ended.params)) == (0.5, x, 2)
        with pytest.raises(ValueError, match="dynamic value space"):
            check_distribution_compatibility(
                CategoricalDistribution(["a"]), CategoricalDistribution(["b"])
            )
