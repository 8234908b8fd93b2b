"""From the shell to the code: errors as one sentence, and what the commands print.

Nothing heavy is imported before it is needed: --help answers before Hydra is.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from convscape.errors import CannotWrite, ConfigError, code_of_stop, stopped_by

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from omegaconf import DictConfig

    from convscape.config import Config
    from convscape.runs import Result

CONFIG_DIR = Path(__file__).resolve().parents[2] / "conf"


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print to the terminal; by default to stdout.

    Names of files and classes may be a stranger's: what would steer the terminal is not printed,
    and no secret of an address.
    """
    if lines:
        text = without_secrets("\n".join(lines))
        print(_STEERING.sub("\N{REPLACEMENT CHARACTER}", text), flush=True, file=file)


# control characters but for tab and newline, turns of the writing direction, bytes that are no text
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SECRET = re.compile(
    r"(\w://[^\s/:@]*:)\S+(@)|(https?://)[^\s/:@]+(@)|(?i:(?<=[?&]password=)[^\s&'\"]+)"
)


def without_secrets(text: str) -> str:
    """`text` with three stars for the passwords and tokens of addresses."""
    return _SECRET.sub(r"\1\3***\2\4", text)


def run_hydra(task: Callable[[DictConfig], None], config_name: str) -> NoReturn:
    """Run `task` on the config that the command line asks for, and exit with its code."""
    head = (CONFIG_DIR / f"{config_name}.yaml").read_text("utf-8").partition("\ndefaults:")[0]
    answer_help(re.sub("^# ?", "", head, flags=re.MULTILINE))
    import hydra

    from convscape.hydra_insides import options

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions come to us and not to the terminal

    def guarded(cfg: DictConfig) -> None:
        if _in_sweep():
            task(cfg)
        else:  # Hydra prints a line of its own for an exception that leaves a task
            run_command(lambda: task(cfg))

    # Hydra's parser does not take overrides on both sides of -m
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    command = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)

    def checked() -> None:
        _refuse_options(options())
        command(guarded)()

    run_command(checked)


def _refuse_options(allowed: Iterable[str] = ()) -> None:
    """Refuse `--epochs 5` and the like with the override that is meant."""
    options = [word.partition("=")[0] for word in sys.argv[1:] if re.match("--?[A-Za-z]", word)]
    if stray := next((option for option in options if option not in allowed), None):
        from convscape.typed import no_option

        raise ConfigError(no_option(stray, sys.argv[1:]))


def words_and_places(parser: ArgumentParser) -> tuple[list[str], dict[str, str]]:
    """The command line of a script that takes a run, without what it says of the run's data.

    `data.root=...` and `data.cache_dir=...` may stand anywhere in it; they come as `root` and
    `cache_dir`.
    """
    parser.add_argument_group(
        "data.root=<folder>, data.cache_dir=<folder>",
        "where the data of the run are now, if not where they were",
    )
    words = sys.argv[1:]
    if not any(word.startswith("data.") for word in words):
        return words, {}
    from convscape.run_data import take_places

    try:
        return take_places(words)
    except ConfigError as error:
        parser.error(str(error))


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Run `command` and exit; a user's mistake is one sentence on stderr and exit code 2.

    Ctrl-C and SIGTERM raise KeyboardInterrupt wherever it is; a second one ends at once.
    """
    try:
        with _stops():
            code = command() or 0
    except ConfigError as error:
        code = _refuse(str(error))
    except KeyboardInterrupt as stop:
        code = code_of_stop(stop)
    except BrokenPipeError:  # as in `... | head`: whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        from convscape.hydra_errors import explain

        sentence = explain(error)
        if sentence is None:
            raise
        code = _refuse(sentence)
    sys.exit(code)


@contextmanager
def _stops() -> Iterator[None]:
    received: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if received:
            os._exit(128 + signum)
        received.append(signum)
        hand_on(signum)
        raise KeyboardInterrupt(stopped_by(signum))

    before = {signum: signal.signal(signum, stop) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def hand_on(signum: int) -> bool:
    """Stop the worker processes of this one too; whether there are any.

    They get the other one of the two signals: a terminal has sent them the same one already, and a
    second one of a kind ends a run at once.
    """
    import multiprocessing

    other = signal.SIGTERM if signum == signal.SIGINT else signal.SIGINT
    workers = [process.pid for process in multiprocessing.active_children()]
    for pid in workers:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, other)
    return bool(workers)


def answer_help(head: str) -> None:
    """On --help print `head` and every choice there is, and exit."""
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return
    groups = [folder for folder in sorted(CONFIG_DIR.iterdir()) if folder.is_dir()]
    width = max(len(folder.name) for folder in groups)
    choices = [
        f"  {folder.name:<{width}} = " + ", ".join(sorted(f.stem for f in folder.glob("*.yaml")))
        for folder in groups
        if folder.name != "hydra"
    ]
    say(head.strip(), "", "Choices (conf/<name>/*.yaml hold their keys):", *choices)
    sys.exit(0)


MOST_LETTERS = 10_000  # of what is wrong: it may quote a stranger's file


def _refuse(sentence: str) -> int:
    from convscape.values import shortened

    say(f"error: {shortened(sentence, MOST_LETTERS)}", file=sys.stderr)
    return 2


# --- scripts/train.py -------------------------------------------------------------------------


def train_task(cfg: DictConfig) -> None:
    """One run of scripts/train.py; exits with the code of its status."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from convscape.config import check
    from convscape.run_data import describe
    from convscape.runs import RunFolder, fresh_run, helper_rank
    from convscape.unread import refuse_unread

    overrides = list(HydraConfig.get().overrides.task)
    if helper_rank() > 0:  # Lightning has started this command once more, for DDP
        _help(cfg, overrides)
        return
    from convscape.sweep import refuse_grid, run_in_sweep

    composed: Any = OmegaConf.to_container(cfg, resolve=True)
    if _in_sweep():
        run_in_sweep(check(composed), overrides, HydraConfig.get().job.num)
        return
    refuse_grid(overrides)
    if composed["resume"] is not None:
        config, old_path, overrides = resumed(composed, overrides)
        result = RunFolder(old_path).read_result()
        if result is not None and result.status == "ok":
            say("this run is finished:", *summary(result, old_path))
            return
        place = RunFolder(old_path).held()
    else:
        config = check(composed)
        refuse_unread(config, is_alone=True)
        place = fresh_run(config, overrides)
    plan = config.plan()
    say(*([str(plan), *plan.remarks] if plan is not None else []), *describe(config))
    say(*([config.choice] if config.choice is not None else []))
    with place as path:
        os.environ[_RUN_PATH] = str(path)
        result = _trained(config, path, overrides, is_new=composed["resume"] is None)
    say(*summary(result, path))
    sys.exit(exit_code(result))


def _trained(config: Config, path: Path, overrides: list[str], is_new: bool) -> Result:
    from convscape.runs import RunFolder

    folder = RunFolder(path)
    if is_new:
        folder.begin(config, overrides)  # so that it can go on if it is stopped right now
    try:
        from convscape.training import train  # torch and lightning, once the input is right

        return train(config, path, overrides)
    except KeyboardInterrupt as stop:  # while they are imported
        result = folder.begin(config, overrides)
        result.fail("interrupted", stop)
        folder.write(result)
        return result


_RUN_PATH = "CONVSCAPE_RUN_PATH"  # tells the helpers of DDP which run they are to help


def _help(cfg: DictConfig, overrides: list[str]) -> None:
    """Take part in the training that the first process leads; it speaks and writes for all."""
    from convscape.config import check
    from convscape.runs import RunFolder
    from convscape.training import train

    path = Path(os.environ[_RUN_PATH])
    stored = RunFolder(path).read_config() | {"allow_packages": list(cfg.allow_packages)}
    train(check(stored), path, overrides)


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def resumed(composed: dict[str, Any], overrides: list[str]) -> tuple[Config, Path, list[str]]:
    """The config and folder of the run to go on with, and what was typed when it began.

    Where its data are now may be said anew; the run folder then keeps that.

    Raises:
        ConfigError: if it is no run, is asked to change, or its data are gone.
    """
    from convscape.config import check
    from convscape.run_data import check_there, take_places, with_places
    from convscape.runs import RunFolder

    kept = r"(resume|allow_packages|data\.root|data\.cache_dir)="
    changes = [o for o in overrides if not re.match(kept, o)]
    if changes:
        raise ConfigError(
            f"resume goes on with that run's own config; leave out {' '.join(changes)}"
        )
    folder = RunFolder(Path(composed["resume"]))
    _, places = take_places([o for o in overrides if o.startswith("data.")])
    stored = with_places(folder.read_config(), places)
    # a tracking library may write there: a stranger's run does not say where that is
    stored_place = Path(str(stored.get("output_dir"))).resolve()
    if not folder.path.resolve().is_relative_to(stored_place):
        stored["output_dir"] = composed["output_dir"]
    # which packages may be imported is never taken from a folder, which may be a stranger's
    config = check(stored | {"allow_packages": composed["allow_packages"]})
    result = folder.read_result()
    if result is None or result.status != "ok":
        check_there(config)
    return config, folder.path, result.overrides if result else []


def exit_code(result: Result) -> int:
    """The exit code of a run on its own: an interrupted one's says what interrupted it."""
    from convscape.runs import EXIT_CODES

    if result.status == "interrupted":
        assert result.error is not None
        is_about_the_disk = result.error["type"] == CannotWrite.__name__
        return 1 if is_about_the_disk else code_of_stop(result.error["message"])
    return EXIT_CODES[result.status]


def summary(result: Result, path: Path) -> list[str]:
    """What a person reads after a run."""
    from convscape.metrics import metric

    match result.status:
        case "ok":
            metrics, seconds = result.metrics, result.seconds.get("fit", 0.0)
            by = result.monitor
            chosen_by = [] if by is None else [by.on_test, by.name]
            names = dict.fromkeys([*chosen_by, "test/acc", "val/acc"])
            words = [
                *(
                    f"{name.replace('/', ' ')} {metric(name).written(metrics[name])}"
                    for name in names
                    if name in metrics
                ),
                f"epoch {result.best_epoch} of {result.epochs}",
                f"{seconds:.1f} s",
            ]
            if result.samples_per_second:
                words.append(f"{result.samples_per_second:,.0f} images/s")
            lines = [", ".join(words), f"run folder:  {path}"]
            if result.config.get("logger", {}).get("tensorboard") is not None:
                logdir = shlex.quote(str(path))
                lines.append(f"look at it:  tensorboard --host 127.0.0.1 --logdir {logdir}")
            return lines
        case "interrupted":
            assert result.error is not None
            command = f"python scripts/train.py resume={shlex.quote(str(path))}"
            return [
                f"interrupted after epoch {result.epochs}: {result.error['message']}",
                f"to go on:  {command}",
            ]
        case _:
            assert result.error is not None
            what = f"{result.status}: {result.error['type']}: {result.error['message']}"
            log = path / "run.log"
            return [what, f"more in {log}"] if log.is_file() else [what]


# --- scripts/plan.py --------------------------------------------------------------------------


def plan_command() -> None:
    """Say what the command line would train, and train nothing.

    Raises:
        ConfigError: if the input is wrong, or the only network asked for is impossible.
    """
    from hydra import compose, initialize_config_dir

    from convscape.hydra_insides import parse_overrides
    from convscape.sweep import duplicates, plan_sweep, shared_config

    _refuse_options(("-m", "--multirun"))
    arguments = [a for a in sys.argv[1:] if a not in ("-m", "--multirun")]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        parsed = parse_overrides(arguments)
        _, params = shared_config(arguments)
        hydras = [str(p.input_line) for p in parsed if re.match("hydra[./]", p.key_or_group)]
        plan = plan_sweep(
            [argument for argument in arguments if argument not in hydras],
            params,
            lambda overrides: compose("train", [*hydras, *overrides]),
        )
    if len(plan.runs) > 1:
        possible = len(plan.feasible)
        say(str(plan), f"{len(plan.runs)} runs, {possible} possible", *duplicates(plan))
        return
    (run,) = plan.runs
    if run.reason is not None:
        raise ConfigError(run.reason)
    words = "a network of your own: only building it tells its shapes"
    say(*([words] if run.plan is None else [str(run.plan), *run.plan.remarks]))


# --- scripts/search.py ------------------------------------------------------------------------


def search_command() -> int:
    """Work on the search that the command line describes.

    Raises:
        ConfigError: if the input is wrong.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    from convscape.hydra_errors import explain
    from convscape.sweep import refuse_grid

    try:
        from convscape.search import run_search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError("scripts/search.py needs Optuna: pip install -e '.[search]'") from None

    _refuse_options()
    # the preset of the command line, or the default one, gives the search its name
    preset = next((a for a in sys.argv[1:] if a.startswith("search=")), "search=geometry")
    others = [argument for argument in sys.argv[1:] if argument != preset]
    arguments = [preset, f"name={preset.partition('=')[2]}", *others]
    refuse_grid([argument for argument in others if argument.lstrip("+").startswith("sweep=")])
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        try:
            cfg = compose("train", arguments)
        except HydraException as error:
            raise ConfigError(explain(error, arguments)) from None
        return run_search(cfg, arguments, lambda overrides: compose("train", overrides))


# --- scripts/claim.py -------------------------------------------------------------------------


def claim_command() -> int:
    """Put the claims of the command line to the test; 1 if a run of theirs failed.

    Raises:
        ConfigError: if the input is wrong.
    """
    from hydra import compose, initialize_config_dir

    from convscape import claims
    from convscape.runs import output_folder
    from convscape.sweep import SweepStopped

    _refuse_options()
    name, *words = sys.argv[1:] or ["list"]
    if name == "list":
        say(claims.overview())
        return 0
    given = dict(word.partition("=")[::2] for word in words)
    mode = given.pop("mode", "quick")
    if mode not in ("quick", "full"):
        raise ConfigError(f"mode={mode}: allowed: quick, full")
    seeds, jobs = (_count(key, given.pop(key, None)) for key in ("seeds", "jobs"))
    output_dir = output_folder(given.pop("output_dir", "outputs"))
    overrides = [word for word in words if word.partition("=")[0] in given]
    chosen = claims.names() if name == "all" else [name]
    answers = []
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        for each in chosen:
            try:
                answer = claims.run_claim(
                    each,
                    overrides,
                    mode,  # type: ignore[arg-type]
                    lambda words: compose("train", words),
                    output_dir=output_dir,
                    seeds=seeds,
                    jobs=jobs,
                )
            except SweepStopped as stop:
                say(f"error: {stop}", "the same command finishes the rest", file=sys.stderr)
                return 1
            say(
                *claims.in_words(answer),
                f"report:  {output_dir / 'claims' / Path(each).stem}/report.html",
            )
            answers.append(answer)
    if name == "all":
        path = claims.write_book(answers, output_dir / "claims")
        say(f"the book: {path}")
    return 1 if any(answer.unfinished for answer in answers) else 0


def _count(key: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdigit() or not int(text):
        raise ConfigError(f"{key}={text}: allowed: an integer of 1 or more")
    return int(text)
