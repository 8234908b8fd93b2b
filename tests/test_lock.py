"""What a config may not name: nothing of it is called, from wherever it comes."""

import copy
import datetime
import functools
import json
import sys

import pytest
import yaml

from convscape.base import parts
from convscape.base.errors import ConfigError
from convscape.config.check import check
from convscape.runs.resolved import ResolvedRun
from convscape.runs.resume import resumed
from convscape.training.build import build_callbacks, build_metrics
from tests.conftest import TINY
from tests.test_config import composed

# nothing of these is allowed at any door
NOWHERE = [
    "os.system",
    "os.popen",
    "posix.system",
    "subprocess.Popen",
    "subprocess.run",
    "shutil.rmtree",
    "builtins.eval",
    "builtins.exec",
    "builtins.open",
    "builtins.__import__",
    "builtins.getattr",
    "importlib.import_module",
    "runpy.run_path",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "ctypes.CDLL",
    "socket.socket",
    "urllib.request.urlopen",
    "webbrowser.open",
    "pathlib.Path",
    "code.InteractiveInterpreter",
    "types.FunctionType",
    "functools.partial",
    "operator.attrgetter",
    "torch.load",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.utils.model_zoo.load_url",
    "torch.compile",
    "torch.optim.os.system",
    "torch.optim.sys.exit",
    "torch.optim.optimizer.warnings.warn",
    "torch.optim.lr_scheduler.types.FunctionType",
    "torch.optim.lr_scheduler.partial",
    "torch.optim.swa_utils.AveragedModel",
    "torch.optim.lr_scheduler.warnings.warn",
    "torch.nn.Linear",
    "torch.nn.functional.cross_entropy",
    "torch.nn.modules.loss.warnings.warn",
    "torch.nn.utils.clip_grad_norm_",
    "torch.nn.modules.loss.F.torch",
    "torch.nn.parallel.DataParallel",
    "torch.utils.data.DataLoader",
    "torch.distributed.launcher.api.elastic_launch",
    "torchmetrics.functional.torch.load",
    "torchmetrics.utilities.imports.sys.exit",
    "torchmetrics.text.BERTScore",
    "torchmetrics.image.fid.FrechetInceptionDistance",
    "torchmetrics.multimodal.CLIPScore",
    "torchmetrics.MetricCollection",
    "torchmetrics.os.system",
    "lightning.pytorch.Trainer",
    "lightning.pytorch.callbacks.os.system",
    "lightning.fabric.Fabric",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.callbacks.checkpoint.Checkpoint.x",
    "lightning.pytorch.loggers.os.remove",
    "lightning.pytorch.loggers.wandb.os.system",
    "torchvision.models._api.load_state_dict_from_url",
    "torchvision.models.os.system",
    "torchvision.models.get_weight",
    "torchvision.models.list_models",
    "torchvision.models.ResNet18_Weights",
    "torchvision.models.detection.fasterrcnn_resnet50_fpn",
    "torchvision.models.segmentation.fcn_resnet50",
    "torchvision.datasets.MNIST",
    "torchvision.io.read_file",
    "torchvision.models.register_model",
    "hydra.utils.instantiate",
    "hydra.utils.get_method",
    "omegaconf.OmegaConf.load",
    "yaml.unsafe_load",
    "numpy.load",
    "numpy.ctypeslib.load_library",
    "pandas.read_pickle",
    "joblib.load",
    "cloudpickle.loads",
    "convscape.cli.run_command",
    "convscape.api.train",
    "convscape.data.cache.load_or_build",
    "convscape.base.files.remove",
    "convscape.models.classifier.torch.load",
    "tests.own_parts.os.system",
    "mypackage",
    "mypackage..Net",
    ".mypackage.Net",
    "mypackage.Net.",
    "mypackage.Net()",
    "mypackage.__init__.x",
    "__main__.Net",
    "mypackage._hidden.Net",
    "mypackage.class.Net",
    "mypackage/Net",
    "../mypackage.Net",
    "mypackage:Net",
    "mypackage.Net;os.system",
    "",
    "my package.Net",
    "a" * 600 + ".b",
]
DOORS = [
    "model",
    "loss",
    "optimizer",
    "scheduler",
    "metrics",
    "callbacks",
    "logger",
    "data",
    "augment",
]


@functools.cache
def small():
    return composed(*TINY)


def with_part(door, target, **arguments):
    """The config of a small run with that part at that door, as a file or a stored run holds it."""
    config = copy.deepcopy(small())
    part = {"_target_": target, **arguments}
    if door in ("metrics", "callbacks"):
        config[door] = {"x": part}
    elif door == "logger":
        config["logger"]["x"] = part
    elif door == "augment":
        config["data"]["augment"]["own"] = [target]
    elif door == "data":
        config["data"] |= {"name": "own", "_target_": target, "arguments": arguments}
    else:
        config[door] = part | ({"lr": 0.1} if door == "optimizer" else {})
    return config


def look_for(config, how=parts.find):
    """Everything that it names."""
    for door, key, part in check(config).parts():
        how(door, key, part.target if how is parts.find else part, ())


@pytest.mark.parametrize("door", DOORS)
def test_what_no_door_lets_in(door):
    before = set(sys.modules)
    for target in NOWHERE:
        with pytest.raises(ConfigError):
            look_for(with_part(door, target))
    assert len(NOWHERE) > 100
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    assert not new & {"mypackage", "webbrowser", "runpy", "cloudpickle"}


AT_OTHER_DOORS = {
    "optimizer": ["torch.optim.Optimizerr", "torch.optim.lr_scheduler.StepLR"],
    "scheduler": ["torch.optim.SGD", "torch.optim.lr_scheduler.EPOCH_DEPRECATION_WARNING"],
    "loss": ["torch.nn.Module", "torch.nn.MSELoss.forward", "torch.nn.modules.loss.Tensor"],
    "metrics": ["torchmetrics.Metric", "torchmetrics.functional.accuracy"],
    "callbacks": [
        "lightning.pytorch.callbacks.callback.Any",
        "lightning.pytorch.loggers.CSVLogger",
    ],
    "logger": ["lightning.pytorch.callbacks.Timer", "lightning.pytorch.loggers.logger.ABC"],
    "model": ["torchvision.models.resnet.ResNet.forward", "torchvision.models.resnet.Tensor"],
}


@pytest.mark.parametrize(
    ("door", "target"), [(door, each) for door, names in AT_OTHER_DOORS.items() for each in names]
)
def test_what_only_another_door_lets_in(door, target):
    with pytest.raises(ConfigError):
        look_for(with_part(door, target), parts.build)


ARGUMENTS = [
    {"_partial_": True},
    {"_args_": [1]},
    {"_convert_": "all"},
    {"_recursive_": True},
    {"inner": {"_target_": "os.system", "command": "touch pwned"}},
    {"inner": [{"deep": {"_target_": "os.system"}}]},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
@pytest.mark.parametrize("door", [door for door in DOORS if door != "augment"])
def test_arguments_are_plain_values(door, arguments):
    """Also where the package is allowed."""
    config = with_part(door, "mypackage.Part", **arguments) | {"allow_packages": ["mypackage"]}
    with pytest.raises(ConfigError, match="arguments are numbers, words, lists"):
        check(config)


WRITES = {
    "lightning.pytorch.callbacks.ModelCheckpoint": ("callbacks", "dirpath"),
    "lightning.pytorch.callbacks.OnExceptionCheckpoint": ("callbacks", "dirpath"),
    "lightning.pytorch.loggers.CSVLogger": ("logger", "save_dir"),
    "lightning.pytorch.loggers.TensorBoardLogger": ("logger", "save_dir"),
}


@pytest.mark.parametrize("target", WRITES)
@pytest.mark.parametrize(
    "place",
    ["/tmp/x", "~/x", "../x", "a/../../x", "http://example.org", "file:x", "$HOME", "\\\\a\\b"],
)
def test_a_trusted_part_writes_nowhere_else(target, place):
    door, key = WRITES[target]
    for value in (place, f" {place}", [place], {"inner": place}):
        config = with_part(door, target, **{key: value})
        with pytest.raises(ConfigError, match="writes inside the run folder"):
            check(config)
        check(config | {"allow_packages": ["lightning"]})


def test_what_it_writes_is_in_the_run_folder(tmp_path):
    words = {"dirpath": "mine", "monitor": "val/loss", "filename": "{epoch}"}
    target = "lightning.pytorch.callbacks.ModelCheckpoint"
    run = ResolvedRun(check(with_part("callbacks", target, **words)))
    (callback,) = build_callbacks(run, tmp_path)
    assert callback.dirpath == str(tmp_path / "callbacks" / "x" / "mine")


@pytest.mark.parametrize(
    "target",
    [
        *(
            f"lightning.pytorch.loggers.{name}Logger"
            for name in ("Wandb", "MLFlow", "Comet", "Lit")
        ),
        "lightning.pytorch.callbacks.SpikeDetection",
        "lightning.pytorch.callbacks.BatchSizeFinder",
    ],
)
def test_what_may_reach_more_is_to_be_allowed(target):
    door = "logger" if "loggers" in target else "callbacks"
    with pytest.raises(ConfigError, match="may reach more than the run folder"):
        check(with_part(door, target))
    check(with_part(door, target) | {"allow_packages": ["lightning"]})


@pytest.mark.parametrize("value", [datetime.date(2020, 1, 1), b"x", {1, 2}, [b"x"]], ids=str)
def test_values_that_only_yaml_has_are_one_sentence(value):
    config = with_part("callbacks", "lightning.pytorch.callbacks.Timer", duration=value)
    with pytest.raises(ConfigError, match="allowed: numbers, words"):
        check(config)


def test_the_networks_of_torchvision_are_the_very_ones():
    for target in ("quantization.resnet18", "quantization.resnet.resnet18"):
        with pytest.raises(ConfigError, match="allowed: a network"):
            look_for(with_part("model", f"torchvision.models.{target}"))
    with pytest.raises(ConfigError, match="knows its classes"):
        check(with_part("model", "torchvision.models.resnet18", num_classes=1000))


def test_a_stored_run_does_not_say_to_whom_it_is_told(tmp_path, capsys):
    config = composed(*TINY, "logger=[mlflow,wandb]")
    config["logger"]["mlflow"]["tracking_uri"] = "http://stranger.example"
    config["logger"]["wandb"] |= {"mode": "online", "entity": "stranger"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    asked = composed() | {"resume": str(tmp_path)}
    run = resumed(asked, []).run
    assert run.config.logger.mlflow.tracking_uri is None
    assert run.config.logger.wandb.mode == "offline"
    assert "comes from the run folder" in capsys.readouterr().err
    run = resumed(asked | {"allow_packages": ["mlflow", "wandb"]}, []).run
    assert run.config.logger.mlflow.tracking_uri == "http://stranger.example"
    assert run.config.logger.wandb.mode == "online"


@pytest.mark.parametrize("key", ["weights", "weights_backbone", "pretrained"])
@pytest.mark.parametrize("target", ["torchvision.models.get_model", "torchvision.models.resnet18"])
def test_weights_are_not_downloaded(target, key):
    with pytest.raises(ConfigError, match="no weights are downloaded"):
        check(with_part("model", target, **{key: "DEFAULT"}))


@pytest.mark.parametrize("door", DOORS)
def test_a_stored_run_allows_nothing(door, command, tmp_path):
    """A folder that allows its own package, and one that names what may run at once."""
    for target in ("stranger.Part", "os.system", "torch.hub.load"):
        folder = tmp_path / "run"
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (tmp_path / "stranger.py").write_text("open('pwned', 'w')")
        config = with_part(door, target) | {"allow_packages": ["stranger", "os", "torch"]}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "checkpoints" / "best.ckpt").write_bytes(b"")
        (folder / "result.json").write_text(json.dumps({"run": "x", "status": "interrupted"}))
        for words in (["train", f"resume={folder}"], ["evaluate", folder], ["explain", folder, 0]):
            answer = command(*words)
            assert answer.code == 2, answer.out + answer.err
            assert target in answer.err, answer.err
    assert not list(tmp_path.rglob("pwned"))


def test_a_config_file_is_locked_as_the_command_line_is(command, tmp_path):
    for words in (
        ["optimizer._target_=os.system"],
        ["+callbacks.x._target_=subprocess.Popen", "+callbacks.x.args=[touch,pwned]"],
        ["loss._target_=builtins.exec", "+loss.source=x"],
        ["data._target_=shutil.rmtree", "+data.arguments.path=x"],
        ["+logger.x._target_=torch.load", "+logger.x.f=x"],
    ):
        answer = command("train", *TINY, *words)
        assert (answer.code, "allowed: " in answer.err) == (2, True), answer.err
    assert not list(tmp_path.rglob("pwned"))


def test_a_metric_is_built_from_its_home_alone():
    from convscape.base.sections import Part

    part = Part.model_validate({"_target_": "torchmetrics.wrappers.BootStrapper"})
    with pytest.raises(ConfigError, match="allowed: a metric of torchmetrics"):
        build_metrics({"x": part}, 10, ())
