"""Where a run's metrics go besides its history: TensorBoard, CSV, Weights & Biases, MLflow.

All of them are Lightning loggers, and get the same names, numbers and hyper-parameters. None of
them changes a result, and an unreachable server costs one warning: the run continues without it.

The tables are not Lightning's `CSVLogger`: that removes metrics.csv when a run is resumed, appends
to a link that a stranger may have put there, and after a kill ends in the middle of a line.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

from convscape.base import parts
from convscape.base.distribution import install
from convscape.base.errors import ConfigError
from convscape.base.files import lock, make_folder, refuse_links_below, write_atomic
from convscape.base.quick_lightning import pl
from convscape.base.sections import Part
from convscape.base.terminal import say, without_secrets
from convscape.config.schema import Config, LoggerConfig, MlflowConfig, WandbConfig
from convscape.runs.folder import RunFolder, local_rank
from convscape.runs.result import Result, Status
from convscape.training import hparams
from convscape.training.events import EventLogger, add_layout

logger = logging.getLogger("convscape")

SERVER_TIMEOUT_S = 10  # how long a server may take to answer before the run continues without it
FINISH_TIMEOUT_S = 60  # how long the last numbers may take to reach a server


@dataclass(frozen=True)
class RunInfo:
    """What a tracking library is told about a run when it begins."""

    folder: RunFolder
    name: str
    group: str  # the same for runs that differ only in the seed
    hparams: dict[str, Any]
    tags: dict[str, Any]
    output_dir: Path

    @property
    def ids_file(self) -> Path:
        """The file with the ids by which the tracking libraries know the run."""
        return self.folder.path / "loggers.json"

    @property
    def is_continued(self) -> bool:
        """Whether the run continues from a checkpoint."""
        return self.folder.last_checkpoint.is_file()


def check_installed(chosen: LoggerConfig) -> None:
    """Refuse loggers whose library is missing, naming the extra that installs it.

    Raises:
        ConfigError: naming it.
    """
    needed = {"wandb": ("wandb",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
    for name, modules in needed.items():
        if getattr(chosen, name) is not None and not all(map(find_spec, modules)):
            raise ConfigError(f"logger={name} is not installed; {install(name)}")


def build(config: Config, folder: RunFolder, result: Result) -> list[pl.loggers.Logger]:
    """The Lightning loggers that `config` names; TensorBoard's comes first."""
    chosen, packages = config.logger, config.allow_packages
    facts = RunInfo(
        folder=folder,
        name=result.run,
        group=hparams.trial_id(config),
        hparams=hparams.hyperparameters(config, result.overrides),
        tags={"seed": config.seed, "fingerprint": result.fingerprint},
        output_dir=Path(config.output_dir).absolute(),
    )
    loggers: list[pl.loggers.Logger] = []
    if chosen.tensorboard is not None:
        loggers.append(EventLogger(folder.path))
    if chosen.csv is not None:
        loggers.append(FailSafeLogger("csv", lambda: CsvLogger(facts)))
    if (wandb := chosen.wandb) is not None:
        loggers.append(FailSafeLogger("wandb", lambda: open_wandb(wandb, facts)))
    if (mlflow := chosen.mlflow) is not None:
        loggers.append(FailSafeLogger("mlflow", lambda: open_mlflow(mlflow, facts)))
    for name, part in chosen.named.items():
        parts.check("logger", f"logger.{name}._target_", part.target, part.arguments, packages)
        loggers.append(FailSafeLogger(name, partial(open_named, name, part, packages, facts)))
    return loggers


def open_named(
    name: str, part: Part, allow_packages: Sequence[str], run: RunInfo
) -> pl.loggers.Logger:
    """A logger that the config names; Lightning's own write to <run>/loggers/<name>."""
    folder = run.folder.path / "loggers" / name
    make_folder(folder, within=run.folder.path)
    if part.target.partition(".")[0] not in allow_packages:  # others could create links themselves
        refuse_links_below(folder, within=run.folder.path)
    key = f"logger.{name}._target_"
    tracked: pl.loggers.Logger = parts.build("logger", key, part, allow_packages, folder=folder)
    tracked.log_hyperparams(run.hparams | run.tags)
    return tracked


def begin(
    loggers: list[pl.loggers.Logger], config: Config, overrides: list[str], *, is_new: bool
) -> None:
    """Open each record, or continue it; for the first process of a run only."""
    for each in loggers:
        if isinstance(each, FailSafeLogger):
            each.start()
        elif is_new and isinstance(each, EventLogger):
            add_layout(each.experiment, config.added_metrics)
            hparams.begin_session(each.experiment, config, overrides)


def end(loggers: list[pl.loggers.Logger], result: Result) -> None:
    """Close each record.

    Raises:
        OSError: if the disk does not take the last events.
    """
    for each in loggers:
        if isinstance(each, FailSafeLogger):
            each.end(result.status)
        elif isinstance(each, EventLogger):
            if result.status == "ok" and local_rank() == 0:
                hparams.end_session(each.experiment, result)
            each.close()


class FailSafeLogger(pl.loggers.Logger):
    """Passes everything on to a Lightning logger until that fails for the first time.

    - `open_`: makes the logger and begins its record, including the hyper-parameters.

    The record is closed by `end`, not when Lightning finalizes its loggers: that happens after
    training, and the test is still to come.
    """

    def __init__(self, kind: str, open_: Callable[[], pl.loggers.Logger]) -> None:
        super().__init__()
        self._kind, self._open = kind, open_
        self._inner: pl.loggers.Logger | None = None

    @property
    def name(self) -> str:
        """Which logger it is."""
        return self._kind

    @property
    def version(self) -> str:
        """Empty: the run folder identifies the run."""
        return ""

    def start(self) -> None:
        """Begin the record, or give up with a warning."""

        def work() -> None:
            self._inner = self._open()

        self._guarded(work)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: they were passed when the record began."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Pass on `metrics` of the optimiser step `step`; DDP's other processes pass on nothing."""
        if (inner := self._inner) is not None:
            self._guarded(lambda: inner.log_metrics(dict(metrics), step or 0))

    def end(self, status: Status) -> None:
        """Close the record; the logger hears "success", "interrupted" or "failed"."""
        if (inner := self._inner) is not None:
            words = {"ok": "success", "interrupted": "interrupted"}
            self._guarded(lambda: inner.finalize(words.get(status, "failed")))
        self._inner = None

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the library's, about its own internals
                work()
        except Exception as error:  # noqa: BLE001  whatever a server does, the run continues
            self._inner = None
            reason = shorten(f"{type(error).__name__}: {without_secrets(str(error))}", 200)
            sentence = f"logger={self._kind} failed, the run continues without it: {reason}"
            logger.warning("%s", sentence)
            say(f"warning: {sentence}", file=sys.stderr)


class CsvLogger(pl.loggers.Logger):
    """metrics.csv and hparams.csv; a number that is logged again replaces the earlier one."""

    name, version = "csv", ""

    def __init__(self, run: RunInfo) -> None:
        super().__init__()
        self._path = run.folder.path / "metrics.csv"
        self._values: dict[tuple[int, str], float] = {}
        if run.is_continued and self._path.is_file():
            with self._path.open(encoding="utf-8") as file:
                self._values = {
                    (int(r["step"]), r["metric"]): float(r["value"]) for r in csv.DictReader(file)
                }
        rows = list((run.hparams | run.tags).items())
        self._folder = run.folder.path
        table = _table(("name", "value"), rows)
        write_atomic(self._folder / "hparams.csv", table, within=self._folder)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: they were written when the record began."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the tables again, with `metrics` of the optimiser step `step` added."""
        self._values |= {(step or 0, name): float(value) for name, value in metrics.items()}
        rows = [(step, name, value) for (step, name), value in self._values.items()]
        table = _table(("step", "metric", "value"), rows)
        write_atomic(self._path, table, within=self._folder)


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([header, *rows])
    return text.getvalue()


class WandbLogger(pl.loggers.WandbLogger):
    """Lightning's logger, for several runs in one process and for resumed runs."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Give W&B the step: Lightning lets it count calls, from 0 in a run resumed offline."""
        self.experiment.log({**metrics, "trainer/global_step": step}, step=step)

    def finalize(self, status: str) -> None:
        """Finish now: Lightning waits for the process to end, and another run would continue it."""
        self.experiment.finish(exit_code=0 if status == "success" else 1)


def open_wandb(settings: WandbConfig, run: RunInfo) -> WandbLogger:
    """A wandb run with its files in <run>/wandb; a resumed run keeps its id."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    identity = _remembered(run, "wandb") or uuid.uuid4().hex[:12]
    is_online = settings.mode == "online"
    if is_online and not _is_logged_in(wandb):
        raise RuntimeError("there is no account; `wandb login`, or logger.wandb.mode=offline")
    tracked = wandb.init(
        project=settings.project,
        entity=settings.entity,
        mode=settings.mode,
        id=identity,
        resume="allow" if is_online else None,
        name=run.name,
        group=run.group,
        config=run.hparams | run.tags,
        dir=str(run.folder.path),
        reinit="create_new",  # and leave alone a run that our caller began
        settings=wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
            init_timeout=SERVER_TIMEOUT_S,
            login_timeout=SERVER_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
        ),
    )
    _remember(run, "wandb", identity)
    return WandbLogger(experiment=tracked)


def _is_logged_in(wandb: Any) -> bool:
    """Whether there is an API key; without one wandb would ask at the terminal and wait."""
    return bool(wandb.Api(timeout=SERVER_TIMEOUT_S).api_key)


class MlflowLogger(pl.loggers.MLFlowLogger):
    """Lightning's logger, with uncut values and a separate status for interrupted runs."""

    def log_hyperparams(self, params: Any) -> None:
        """Log whole values: Lightning cuts them at 250 characters, MLflow takes 6,000."""
        from mlflow.entities import Param

        parameters = [Param(key, str(value)) for key, value in params.items()]
        self.experiment.log_batch(self.run_id, params=parameters)

    def finalize(self, status: str = "success") -> None:
        """Close the run with the status that MLflow has for `status`."""
        super().finalize("KILLED" if status == "interrupted" else status)


def open_mlflow(settings: MlflowConfig, run: RunInfo) -> MlflowLogger:
    """An MLflow run, on a server or in a file; a resumed run keeps its id."""
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SERVER_TIMEOUT_S)),
    ):
        os.environ.setdefault(name, value)
    import mlflow

    for noisy in ("mlflow", "alembic", "urllib3", "lightning.pytorch.loggers.mlflow"):
        logging.getLogger(noisy).setLevel(logging.ERROR)

    file = run.output_dir / "mlflow.db"
    uri = settings.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{file}"
    before = _remembered(run, "mlflow")
    # several runs that start together would each create the tables and the experiment
    with lock(run.output_dir / ".mlflow.lock", within=run.output_dir), _same_tracking_uri(mlflow):
        tracked = MlflowLogger(
            settings.experiment,
            run_name=run.name,
            tracking_uri=uri,
            tags={key: str(value) for key, value in run.tags.items()} | {"group": run.group},
            # with a file, MLflow would put them in whichever folder the command was typed
            artifact_location=(
                None if uri.startswith("http") else (run.output_dir / "mlflow").as_uri()
            ),
            run_id=before,
        )
        identity = tracked.run_id
    assert identity is not None
    if before is not None:
        tracked.experiment.update_run(identity, status="RUNNING")
    tracked.log_hyperparams(run.hparams)
    _remember(run, "mlflow", identity)
    return tracked


@contextmanager
def _same_tracking_uri(mlflow: Any) -> Iterator[None]:
    """Undo Lightning's process-wide address: the next run may have another one."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


def _remembered(run: RunInfo, kind: str) -> str | None:
    """The id by which the tracking library knows a resumed run."""
    if not run.is_continued or not run.ids_file.is_file():
        return None
    identity: str | None = json.loads(run.ids_file.read_text("utf-8")).get(kind)
    return identity


def _remember(run: RunInfo, kind: str, identity: str) -> None:
    before = json.loads(run.ids_file.read_text("utf-8")) if run.ids_file.is_file() else {}
    text = json.dumps({**before, kind: identity}) + "\n"
    write_atomic(run.ids_file, text, within=run.folder.path)
