"""From the shell to the code: one-sentence errors, and what the commands print.

Nothing heavy is imported before it is needed: --help does not even import Hydra.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from convscape.base.distribution import command_name, install
from convscape.base.errors import ConfigError, code_of_stop
from convscape.base.options import take_count, take_flag, take_option
from convscape.base.stopping import stops
from convscape.base.surroundings import Surroundings
from convscape.base.terminal import say
from convscape.config.directory import CONFIG_DIR, VARIABLE, choices, groups

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from omegaconf import DictConfig

    from convscape.claims.answer import ClaimResult
    from convscape.runs.resolved import ResolvedRun
    from convscape.runs.result import Result


def run_hydra(task: Callable[[DictConfig], None], config_name: str) -> NoReturn:
    """Run `task` on the config that the command line asks for, and exit with its code."""
    head = (CONFIG_DIR / f"{config_name}.yaml").read_text("utf-8").partition("\ndefaults:")[0]
    answer_help(re.sub("^# ?", "", head, flags=re.MULTILINE))
    import hydra

    from convscape.config.hydra_insides import composed_once, options, with_own

    os.environ["HYDRA_FULL_ERROR"] = "1"  # exceptions reach us and not the terminal
    surroundings = Surroundings()

    def guarded(cfg: DictConfig) -> None:
        if _in_sweep():
            with surroundings.restored():
                task(cfg)
        else:  # Hydra prints its own line for an exception that leaves a task
            run_command(lambda: task(cfg))

    # Hydra's parser does not allow overrides on both sides of -m
    words = with_own(sys.argv[1:])
    sys.argv[1:] = sorted(words, key=lambda word: word not in ("-m", "--multirun"))
    command = hydra.main(version_base="1.3", config_path=str(CONFIG_DIR), config_name=config_name)

    def checked() -> None:
        refuse_options(options())
        with composed_once():
            command(guarded)()

    run_command(checked)


def refuse_options(allowed: Iterable[str] = ()) -> None:
    """Refuse `--epochs 5` and the like, naming the override that was meant."""
    options = [word.partition("=")[0] for word in sys.argv[1:] if re.match("--?[A-Za-z]", word)]
    if stray := next((option for option in options if option not in allowed), None):
        from convscape.config.typed import no_option

        raise ConfigError(no_option(stray, sys.argv[1:]))


def words_and_places(
    parser: ArgumentParser, *, may_be_other: bool = True
) -> tuple[list[str], dict[str, str]]:
    """The command line of a script that takes a run, without what it says about the run's data.

    `data.root=...` and `data.cache_dir=...` may be anywhere in it; they are returned as `root` and
    `cache_dir`. The parser gets the options that every such script has: those named in the messages
    that refuse a run.

    - `may_be_other`: whether the data may differ from the run's.
    """
    parser.add_argument(
        "--allow-packages", nargs="+", default=[], help="packages with your own parts"
    )
    if may_be_other:
        parser.add_argument(
            "--other-data",
            action="store_true",
            help="even if the data are not those it was trained on",
        )
    parser.add_argument_group(
        "data.root=<folder>, data.cache_dir=<folder>",
        "where the data of the run are now, if they have moved",
    )
    words = sys.argv[1:]
    if not any(word.startswith("data.") for word in words):
        return words, {}
    from convscape.runs.data import take_places

    try:
        return take_places(words)
    except ConfigError as error:
        parser.error(str(error))


def run_folder(text: str) -> Path:
    """The folder of a run, for argparse; `latest` is the newest."""
    return _named(text, "runs")


def sweep_folder(text: str) -> Path:
    """The folder of a sweep, for argparse; `latest` is the newest."""
    return _named(text, "sweeps")


def _named(text: str, kind: Literal["runs", "sweeps"]) -> Path:
    from convscape.runs import folder, latest

    try:
        place = latest.named(text, kind)
        if kind == "runs":  # refused here, it does not wait for torch
            folder.RunFolder(place).read_config()
    except ConfigError as error:  # argparse would print its usage too
        sys.exit(_refuse(str(error)))
    return place


def run_command(command: Callable[[], Any]) -> NoReturn:
    """Run `command` and exit; a user's mistake gives one sentence on stderr and exit code 2.

    Ctrl-C and SIGTERM raise KeyboardInterrupt anywhere; a second one ends it immediately.
    """
    try:
        with stops():
            code = command() or 0
    except ConfigError as error:
        code = _refuse(str(error))
    except KeyboardInterrupt as stop:
        code = code_of_stop(stop)
    except BrokenPipeError:  # as in `... | head`: the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        from convscape.config.sentences import explain

        sentence = explain(error)
        if sentence is None:
            raise
        code = _refuse(sentence)
    sys.exit(code)


def new_parser(doc: str | None) -> ArgumentParser:
    """The parser of a script described by `doc`, with the command's name as typed."""
    from convscape.base.arguments import Parser

    name = command_name(Path(sys.argv[0]).stem.removeprefix("convscape "))
    return Parser(name, _as_typed(doc or ""))


def _as_typed(text: str) -> str:
    """A help text with its commands as they are typed here."""
    return re.sub(r"(python )?scripts/(\w+)\.py", lambda match: command_name(match[2]), text)


def answer_help(head: str) -> None:
    """On --help print `head` and all choices, and exit; --config-dir is applied first."""
    _take_config_dir()
    if not {"--help", "-h"} & set(sys.argv[1:]):
        return
    width = max(map(len, groups()))
    lines = [f"  {group:<{width}} = {', '.join(choices(group))}" for group in groups()]
    say(_as_typed(head.strip()), "", "Choices (conf/<name>/*.yaml hold their keys):", *lines)
    say("", f"--config-dir <folder>, {VARIABLE} or a conf/ in the working folder adds your own.")
    sys.exit(0)


def _take_config_dir() -> None:
    """Apply --config-dir <folder> from the command line to this process and those it starts."""
    words = sys.argv[1:]
    for place, word in enumerate(words):
        option, equals, folder = word.partition("=")
        if option not in ("--config-dir", "-cd"):
            continue
        rest = words[place + 1 :]
        if not equals:
            folder, *rest = rest or [""]
        if not Path(folder or " ").is_dir():
            sys.exit(_refuse(f"{option} {folder}: allowed: a folder with your model/, data/ ..."))
        os.environ[VARIABLE] = str(Path(folder).absolute())
        sys.argv[1:] = [*words[:place], *rest]
        return


MAX_LETTERS = 10_000  # of an error message: it may quote a stranger's file


def _refuse(sentence: str) -> int:
    from convscape.base.values import shortened

    say(f"error: {shortened(sentence, MAX_LETTERS)}", file=sys.stderr)
    return 2


def train_task(cfg: DictConfig) -> None:
    """Train one run of scripts/train.py; exits with its status's code."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from convscape.config.check import check
    from convscape.runs.data import describe
    from convscape.runs.folder import fresh_run, local_rank
    from convscape.runs.resolved import ResolvedRun
    from convscape.runs.words import exit_code, summary
    from convscape.training.going_on import going_on
    from convscape.training.unread import refuse_unread

    overrides = list(HydraConfig.get().overrides.task)
    if local_rank() > 0:  # Lightning has started this command again, for DDP
        _help(cfg, overrides)
        return
    from convscape.config.typed import refuse_misread
    from convscape.sweeps.grid import refuse_grid
    from convscape.sweeps.run import run_in_sweep

    composed: Any = OmegaConf.to_container(cfg, resolve=True)
    if _in_sweep():
        run_in_sweep(check(composed), overrides, HydraConfig.get().job.num)
        return
    refuse_grid(overrides)
    refuse_misread(overrides)
    if composed["resume"] is not None:
        again = going_on(composed, overrides)
        run, place, words = again.run, again.place, again.words
        if again.result is not None and again.result.status == "ok":
            say("this run is finished:", *summary(again.result, again.path))
            say("for longer:  the same command with trainer.max_epochs=<more>")
            return
    else:
        run, words = ResolvedRun(check(composed), overrides), []
        refuse_unread(run.config, is_alone=True)
        place = fresh_run(run)
    plan, choice = run.plan, run.config.choice
    say(*([str(plan), *plan.remarks] if plan is not None else []), *describe(run.config))
    say(*([choice] if choice is not None else []), *words)
    with place as path:
        os.environ[_RUN_PATH] = str(path)
        result = _trained(run, path, is_new=composed["resume"] is None)
    say(*summary(result, path))
    sys.exit(exit_code(result))


def _trained(run: ResolvedRun, path: Path, is_new: bool) -> Result:
    from convscape.runs.folder import RunFolder

    folder = RunFolder(path)
    if is_new:
        folder.begin(run)  # so it can be resumed even if it is stopped right now
    try:
        from convscape.training.run import train  # torch and lightning, once the input is checked

        return train(run, path)
    except KeyboardInterrupt as stop:  # during these imports
        result = folder.begin(run)
        result.fail("interrupted", stop)
        folder.write(result)
        return result


_RUN_PATH = "CONVSCAPE_RUN_PATH"  # tells DDP's other processes which run to join


def _help(cfg: DictConfig, overrides: list[str]) -> None:
    """Take part in the training led by the first process, which prints and writes for all."""
    from convscape.config.check import check
    from convscape.runs.folder import RunFolder
    from convscape.runs.resolved import ResolvedRun
    from convscape.training.run import train

    path = Path(os.environ[_RUN_PATH])
    stored = RunFolder(path).read_config() | {"allow_packages": list(cfg.allow_packages)}
    train(ResolvedRun(check(stored), overrides), path)


def _in_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.get().mode == RunMode.MULTIRUN


def plan_command() -> None:
    """Print what the command line would train, without training.

    Raises:
        ConfigError: if the input is wrong, or the only network asked for is impossible.
    """
    from convscape.config.directory import composing
    from convscape.config.hydra_insides import parse_overrides
    from convscape.sweeps.grid import plan_sweep, shared_config
    from convscape.sweeps.words import duplicates

    is_json, figure = take_flag("--json"), take_option("--figure")
    refuse_options(("-m", "--multirun"))
    arguments = [a for a in sys.argv[1:] if a not in ("-m", "--multirun")]
    with composing() as compose:
        parsed = parse_overrides(arguments)
        _, params = shared_config(arguments)
        hydras = [str(p.input_line) for p in parsed if re.match("hydra[./]", p.key_or_group)]
        plan = plan_sweep(
            [argument for argument in arguments if argument not in hydras],
            params,
            lambda overrides: compose([*hydras, *overrides]),
            is_sweep=len(arguments) < len(sys.argv) - 1,  # -m was among the words
        )
    if len(plan.runs) == 1 and plan.runs[0].reason is not None:
        raise ConfigError(plan.runs[0].reason)
    if figure is not None:
        from convscape.sweeps.figure import write_figure

        write_figure(plan, Path(figure))
    if is_json:
        from convscape.base.documents import print_document
        from convscape.sweeps.document import as_document

        print_document("plan", lambda: as_document(plan))
        return
    if len(plan.runs) > 1:
        possible = len(plan.feasible)
        say(str(plan), f"{len(plan.runs)} runs, {possible} possible", *duplicates(plan))
        return
    (run,) = plan.runs
    if run.plan is None:
        from convscape.training.measure import size_of  # torch, and the user's package

        size = run.size or size_of(next(iter(plan.part_configs.values())))
        macs = "" if size.macs is None else f", {size.macs:,} MACs for one image"
        say(f"{size.num_parameters:,} parameters{macs}; its layers are known only to its class")
        return
    say(str(run.plan), *run.plan.remarks)


def seeds_command() -> int:
    """Print how many seeds the command line's grid takes."""
    from convscape.sweeps.seeds_answer import say_seeds

    is_json = take_flag("--json")
    refuse_options(("-m", "--multirun"))
    return say_seeds(sys.argv[1:], is_json)


def search_command() -> int:
    """Work on the search that the command line describes.

    Raises:
        ConfigError: if the input is wrong.
    """
    from hydra.errors import HydraException

    from convscape.config.directory import composing
    from convscape.config.sentences import explain
    from convscape.config.typed import refuse_misread
    from convscape.sweeps.grid import refuse_grid

    try:
        from convscape.sweeps.search import run_search
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ConfigError(f"a search needs Optuna: {install('search')}") from None

    refuse_options()
    # the preset on the command line, or the default one, gives the search its name
    preset = next((a for a in sys.argv[1:] if a.startswith("search=")), "search=geometry")
    others = [argument for argument in sys.argv[1:] if argument != preset]
    arguments = [preset, f"name={preset.partition('=')[2]}", *others]
    refuse_misread(others)
    refuse_grid([argument for argument in others if argument.lstrip("+").startswith("sweep=")])
    with composing() as compose:
        try:
            cfg = compose(arguments)
        except HydraException as error:
            raise ConfigError(explain(error, arguments)) from None
        return run_search(cfg, arguments, compose)


def claim_command() -> int:
    """Test the claims on the command line; returns 1 if one of their runs failed.

    Raises:
        ConfigError: if the input is wrong.
    """
    from convscape.base.documents import print_document
    from convscape.claims.book import in_words, overview, write_book
    from convscape.claims.claim import names, take_until
    from convscape.claims.document import answers_document, claims_document
    from convscape.claims.run import run_claim
    from convscape.config.directory import composing
    from convscape.runs.folder import output_folder
    from convscape.sweeps.run import SweepStopped

    is_json = take_flag("--json")
    refuse_options()
    name, *words = sys.argv[1:] or ["list"]
    if name == "list":
        say(overview()) if not is_json else print_document("claims", claims_document)
        return 0
    given = dict(word.partition("=")[::2] for word in words)
    mode = given.pop("mode", "quick")
    if mode not in ("quick", "full"):
        raise ConfigError(f"mode={mode}: allowed: quick, full")
    until = take_until(given)
    seeds, jobs = (take_count(given, key) for key in ("seeds", "jobs"))
    output_dir = output_folder(given.pop("output_dir", "outputs"))
    overrides = [word for word in words if word.partition("=")[0] in given]
    folders: dict[Path, ClaimResult] = {}
    aside = redirect_stdout(sys.stderr) if is_json else nullcontext()
    with aside, composing() as compose:
        for each in names() if name == "all" else [name]:
            folder = output_dir / "claims" / Path(each).stem
            try:
                answer = run_claim(
                    each,
                    overrides,
                    mode,  # type: ignore[arg-type]
                    compose,
                    output_dir=output_dir,
                    seeds=seeds,
                    until=until,
                    jobs=jobs,
                )
            except SweepStopped as stop:
                say(f"error: {stop}", "the same command finishes the rest", file=sys.stderr)
                return 1
            say(*in_words(answer), f"report:  {folder}/report.html")
            folders[folder] = answer
        if name == "all":
            say(f"the book: {write_book(list(folders.values()), output_dir / 'claims')}")
    if is_json:
        print_document("claim", lambda: answers_document(folders))
    return 1 if any(answer.unfinished for answer in folders.values()) else 0
