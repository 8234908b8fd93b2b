"""The laboratory from Python: the same configs, checks and run folders as from the shell.

A mistake raises `ConfigError`, which is a ValueError, with the message that the shell prints.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import notebook
from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError, RunFailed
from convscape.base.values import typed_value
from convscape.config.check import check
from convscape.config.schema import Config
from convscape.runs.folder import fresh_run
from convscape.runs.resolved import ResolvedRun
from convscape.runs.words import allow

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from convscape.data.module import ImageDataModule
    from convscape.doctor.answer import Answer
    from convscape.geometry.plan import Plan
    from convscape.models.classifier import ImageClassifier
    from convscape.trained.load import TrainedRun


def compose(*overrides: str) -> dict[str, Any]:
    """The config that `overrides` ask for, as plain values, even if something else uses Hydra here.

    Raises:
        ConfigError: if there is no such key or choice.
    """
    from convscape.config.typed import refuse_misread
    from convscape.sweeps.grid import refuse_grid

    words = [str(override) for override in overrides]
    refuse_grid(words, f"convscape.train_sweep({', '.join(map(repr, words))}, name=...)")
    refuse_misread(words)
    with _hydra(overrides) as composer:
        return _resolved(composer(words))


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return plain


@contextmanager
def _hydra(overrides: Sequence[str]) -> Iterator[Callable[[list[str]], DictConfig]]:
    """A function to compose configs with Hydra; `overrides` that it refuses raise ConfigError."""
    from convscape.config.directory import composing

    with _explained(overrides), composing() as composer:
        yield composer


@contextmanager
def _explained(overrides: Sequence[str]) -> Iterator[None]:
    """What Hydra refuses of `overrides` is a ConfigError."""
    from convscape.config.sentences import explain

    try:
        yield
    except Exception as error:
        sentence = explain(error, overrides)
        if sentence is None:
            raise
        raise ConfigError(sentence) from None


def plan(*overrides: str) -> Plan:
    """The layers of the network that `overrides` ask for; it prints as a table.

    print(convscape.plan("data=mnist", "model.kernel_size=7"))

    A network built from plain arguments has its own: convscape.CNN((1, 28, 28), 10,
    channels=[8]).plan

    Raises:
        ConfigError: if an override is wrong, or your own model is asked for.
        InfeasibleGeometry: naming the layer, its input and what would work.
    """
    planned = check(compose(*overrides)).plan()
    if planned is None:
        raise ConfigError("the shapes of your own network are known only once it is built")
    return planned


def diagnose(*words: str, run: TrainedRun | None = None) -> Answer:
    """Why a network does not learn: what the doctor finds, with overrides that it has tried.

    print(convscape.diagnose("data=mnist", "optimizer.lr=1"))
    convscape.diagnose(run=run).findings

    - `words`: overrides, or the folder of a run, as on the command line of scripts/doctor.py;
      rules=[mypackage.rule] too.
    - `run`: a loaded run, instead of its folder.

    Raises:
        ConfigError: if the words are wrong.
        DataError: if the data set is missing or damaged, or is not the run's.
    """
    from convscape.doctor.command import answer

    given = list(map(str, words))
    if run is not None:
        if given and "=" not in given[0]:
            raise ConfigError(f"{given[0]}: run={run.path} is given; allowed: one of the two")
        # the run's own packages are allowed already; those that are given come last, and count
        known = ",".join(run.config.allow_packages)
        if known and not any(word.startswith("allow_packages=") for word in given):
            given.append(f"allow_packages=[{known}]")
        given = [str(run.path), *given]
    with _explained(given):
        return answer(given)


def data_module(
    name: str = "digits", *, seed: int = 0, allow_packages: Sequence[str] = (), **settings: Any
) -> ImageDataModule:
    """The data set `name`, split and cut into batches, with the defaults of conf/data/<name>.yaml.

    convscape.data_module("mnist", batch_size=256, augment={"shift": 2})

    - `seed`: for the order of the training images and their augmentation.
    - `allow_packages`: packages that your own data set or augmentation may come from.
    - `settings`: keys of the config's data section.

    Raises:
        ConfigError: if there is no such data set, key or value.
        DataError: if the data set is missing or damaged, or too small.
    """
    composed = compose(f"data={name}")
    data = _merged(composed["data"], _as_yaml(settings))
    given = {"data": data, "seed": seed, "allow_packages": list(allow_packages)}
    config = check(composed | given)
    from convscape.training import run as training

    return training.data_module(ResolvedRun(config))


def train(
    *overrides: str, model: ImageClassifier | None = None, data: ImageDataModule | None = None
) -> TrainedRun:
    """Train one run into <output_dir>/runs, and return it with the weights of its best epoch.

    convscape.train("data=mnist", "model.kernel_size=5")
    convscape.train("trainer.max_epochs=3", model=model, data=data)

    - `overrides`: as on the command line of scripts/train.py, including resume=<run folder>.
    - `model`: a CNN, MLP or Sequential, or an instance of your own subclass of one of them or of
      ImageClassifier. It is trained in place, starting from its current weights, and ends with the
      best epoch's. Its `training` decides optimiser, loss, clipping and normalisation unless an
      override says otherwise.
    - `data`: from `data_module`.

    Raises:
        ConfigError: if the input is wrong.
        RunFailed: if the run diverged, ran out of memory or failed otherwise.
        KeyboardInterrupt: if it was interrupted; resume=<run folder> continues.
    """
    from convscape.base.terminal import say
    from convscape.training.going_on import going_on
    from convscape.training.unread import refuse_unread

    composed, words = _described(list(overrides), model, data)
    result, told = None, []
    if composed["resume"] is not None:
        if model is not None or data is not None:
            raise ConfigError("resume continues with that run's own model and data; give none here")
        again = going_on(composed, list(overrides))
        run, place, told = again.run, again.place, again.words
        path, result = again.path, again.result
    else:
        run = ResolvedRun(check(composed), words)
        refuse_unread(run.config, is_alone=True)
        place = fresh_run(run)
    if run.config.trainer.devices > 1:
        raise ConfigError(f"trainer.devices must be 1 in Python, not in {command_name('train')}")
    run.plan  # noqa: B018  refuses impossible networks before torch is imported
    if run.config.trainer.progress != "off":
        say(*told, *filter(None, [run.config.choice]), file=sys.stderr)
    from convscape.trained import load
    from convscape.training import run as training

    if model is not None and model.plan is not None:
        _check_fit(model.plan, run.config)
    if result is None or result.status != "ok":
        with place as path:
            result = training.train(run, path, model=model)
    if result.status == "interrupted":
        packages = run.config.allow_packages
        words = [f"resume={path}", *([allow(packages)] if packages else [])]
        raise KeyboardInterrupt(f"to continue: convscape.train({', '.join(map(repr, words))})")
    if result.error is not None:
        raise RunFailed(f"{result.status}: {result.why}; more in {path / 'run.log'}", path)
    if model is None:
        return load.load_run(path, run.config.allow_packages)
    return load.TrainedRun(path, run.config, model.eval())


def train_sweep(*overrides: str, name: str) -> pd.DataFrame:
    """Train a grid of runs, one after another, and return them as `load_sweep` does.

    convscape.train_sweep("model.kernel_size=3,5,7", "seed=range(3)", name="kernels")

    The same as scripts/train.py -m: the whole grid is checked first, repeating the call finishes
    what is missing, and the folder <output_dir>/sweeps/<name> holds the runs, report.html and
    figures/. A run that fails does not stop the others: its `status` says so.

    - `overrides`: as on the command line, with several values for each key to vary.

    Raises:
        ConfigError: if the input is wrong, or `name` belongs to another sweep.
        KeyboardInterrupt: if it was interrupted; call it again to continue.
    """
    from convscape.reports.results import load_sweep
    from convscape.sweeps.grid import shared_config
    from convscape.sweeps.run import folder_of_sweep, run_in_sweep, run_sweep, say_line
    from convscape.sweeps.words import LiveTable

    arguments = [*overrides, f"name={name}"]
    for argument in overrides:
        if re.match(r"[+~]*(hydra[./]|name=)", argument):
            raise ConfigError(
                f"{argument}: in Python a sweep takes name=... as an argument, and runs in this "
                f"process; {command_name('train')} -m takes Hydra's launchers"
            )
    tell = LiveTable().add if notebook.is_here() else say_line
    with _hydra(arguments) as composer:

        def launch(jobs: Sequence[Sequence[str]], first: int) -> None:
            for number, job in enumerate(jobs, first):
                run_in_sweep(check(_resolved(composer(list(job)))), list(job), number, tell)

        cfg, preset = shared_config(arguments)
        code = run_sweep(cfg, preset, arguments, composer, launch)
    folder = folder_of_sweep(cfg, arguments)
    if code > 1:
        raise KeyboardInterrupt(f"{folder} is not finished; call it again to continue")
    return load_sweep(folder)


def _described(
    overrides: list[str], model: ImageClassifier | None, data: ImageDataModule | None
) -> tuple[dict[str, Any], list[str]]:
    """The config of overrides and objects, and overrides that say nearly the same."""
    for key, thing in (("model", model), ("data", data)):
        for override in overrides:
            if thing is not None and re.match(rf"[+~]*{key}[.=@]", override):
                raise ConfigError(
                    f"{override}: the {key} is given as an object; set this where you create it"
                )
    sections: dict[str, dict[str, Any]] = {}
    words: list[str] = []
    if data is not None:
        sections["data"] = _data_section(data)
        words.append(f"data={sections['data']['name']}")
        if data.seed:
            words.append(f"seed={data.seed}")
    if model is not None:
        sections["model"] = _model_section(model)
        words += _words_of_model(sections["model"])
        told = dict(model.hparams.get("training") or {})
        if any(re.match(r"optimizer[.=]", override) for override in overrides):
            told.pop("optimizer", None)
        words += _words_of_training(told, data)
    composed = compose(*words, *overrides)
    for key, section in sections.items():
        differing = _merged(composed[key], section) if key == "data" else section
        words += _differences(key, composed[key], differing)
        composed[key] = differing
    if words_of_packages := [word for word in words if word.startswith("allow_packages=")]:
        # the class is already imported
        package = words_of_packages[0].partition("=")[2].strip("[]")
        composed["allow_packages"] = [*composed["allow_packages"], package]
    return composed, [*words, *overrides]


def _data_section(data: ImageDataModule) -> dict[str, Any]:
    if getattr(data, "config", None) is None:
        raise ConfigError(
            "data: no config describes this data module, so a run folder could not either; create "
            "it with convscape.data_module(...), or train it in your own loop"
        )
    assert data.config is not None
    return data.config


def _model_section(model: ImageClassifier) -> dict[str, Any]:
    """The model section that describes a model, as in conf/model/*.yaml."""
    from convscape.models.classifier import ImageClassifier
    from convscape.models.networks import MODELS

    if not isinstance(model, ImageClassifier) or type(model) is ImageClassifier:
        raise ConfigError(
            f"model: a {type(model).__name__} is not a convscape.CNN, MLP or Sequential; your "
            "own class trains with 'model=own', 'model._target_=<package>.<Class>' and "
            "'allow_packages=[<package>]'"
        )
    if type(model) not in MODELS.values():
        return _own_section(model)
    section = compose(f"model={type(model).__name__.lower()}")["model"]
    given = {key: value for key, value in model.hparams.items() if key in section}
    chosen = {"loss": model.loss_name, "label_smoothing": model.label_smoothing}
    return section | _as_yaml(given) | chosen


def _own_section(model: ImageClassifier) -> dict[str, Any]:
    """The model section that describes a user's model, as in conf/model/own.yaml."""
    from convscape.models.networks import PlannedClassifier, takes_keywords

    kind = type(model)
    if kind.__module__ == "__main__" or "." in kind.__qualname__:
        raise ConfigError(
            f"model: no later command can find the class {kind.__qualname__} of {kind.__module__}; "
            "move it to the top level of its own module"
        )
    wanted = inspect.signature(kind).parameters
    takes_all = isinstance(model, PlannedClassifier) and takes_keywords(wanted)
    offered = ("input_shape", "num_classes", "training")
    named = [k for k, p in wanted.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    unknown = [name for name in named if name not in (*offered, *model.hparams)]
    if unknown:
        raise ConfigError(
            f"model: {kind.__qualname__} does not record its arguments: "
            f"{', '.join(unknown)}; call self.save_hyperparameters() in its __init__"
        )
    arguments = {
        key: value
        for key, value in model.hparams.items()
        if key not in offered and (takes_all or key in named)
    }
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **_as_yaml(arguments)}


def _words_of_model(section: Mapping[str, Any]) -> Iterator[str]:
    """The overrides that choose a model's class, and build a user's."""
    package, _, name = section["_target_"].partition(".")
    if package == "convscape":
        yield f"model={name.rpartition('.')[2].lower()}"
        return
    yield from ("model=own", f"model._target_={package}.{name}", f"allow_packages=[{package}]")
    yield from (f"+model.{k}={typed_value(v)}" for k, v in section.items() if k != "_target_")


def _words_of_training(training: Mapping[str, Any], data: ImageDataModule | None) -> Iterator[str]:
    """A model's training settings as overrides, except those that follow from the data."""
    optimizer = dict(training.get("optimizer") or {})
    if optimizer:
        yield f"optimizer={optimizer.pop('name')}"
        yield from (f"optimizer.{key}={typed_value(_as_yaml(v))}" for key, v in optimizer.items())
    if training.get("gradient_clip_norm") is not None:
        yield f"trainer.gradient_clip_norm={training['gradient_clip_norm']}"
    for key in ("mean", "std"):
        if key in training and (data is None or list(training[key]) != getattr(data, key)):
            yield f"data.{key}={typed_value(_as_yaml(training[key]))}"


def _differences(key: str, before: Any, after: Any) -> Iterator[str]:
    """Overrides that turn one section into the other."""
    if key == "model.layers":
        if before != after:
            yield "~model.layers"
            yield f"+model.layers={typed_value(after)}"
    elif isinstance(after, dict):
        for name, value in after.items():
            yield from _differences(f"{key}.{name}", before.get(name), value)
    elif before != after:
        yield f"{key}={typed_value(after)}"


def _check_fit(plan: Plan, config: Config) -> None:
    image_shape, num_classes = config.image_shape
    takes = tuple(plan.input_shape), plan.layers[-1].output_shape[0]
    if takes != (image_shape, num_classes):
        described = [
            f"{'x'.join(map(str, shape))} and {count} classes"
            for shape, count in (takes, (image_shape, num_classes))
        ]
        raise ConfigError(
            f"the model takes images of {described[0]}, and data={config.data.name} has "
            f"{described[1]}"
        )


def _merged(section: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(section)
    for key, value in settings.items():
        before = merged.get(key)
        both = isinstance(before, dict) and isinstance(value, Mapping)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _as_yaml(value: Any) -> Any:
    """The value as YAML would give it."""
    if isinstance(value, Mapping):
        return {key: _as_yaml(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_yaml(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
