"""Textbook claims put to the test: conf/claim/*.yaml names arms, probes and what is expected.

The arms of a claim are trained on the same data, splits, epochs and seeds. The verdict compares
what is expected with the interval of a paired difference over the seeds.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convscape.base import files
from convscape.base.cores import available_cores
from convscape.base.distribution import command_name
from convscape.base.errors import CannotWrite, ConfigError
from convscape.base.machine import check_device
from convscape.base.stopping import is_told_to_stop, stop_file
from convscape.base.terminal import say, wrapped
from convscape.claims.answer import ClaimResult, Run
from convscape.claims.book import budget_in_words, table_of, title_of, write_answer
from convscape.claims.claim import BLACK_GROUND, load
from convscape.claims.findings import findings_of, labels_of, look_at, overall, question_of
from convscape.config.check import check
from convscape.config.compose import Composer
from convscape.config.metrics import not_logged
from convscape.geometry.window import InfeasibleGeometry
from convscape.reports.looks import UNFINISHED, look_until_settled
from convscape.reports.verdicts import Budget, seed_by_seed
from convscape.runs.folder import RunFolder
from convscape.runs.progress import ToDo, note_to_do
from convscape.runs.resolved import ResolvedRun
from convscape.sweeps import live
from convscape.sweeps.grid import UNTIL_KEYS, refuse_grid, work_of
from convscape.sweeps.run import SweepStopped, path_of_run, stop_of, train_if_missing
from convscape.sweeps.states import find_results
from convscape.sweeps.words import counter, line
from convscape.training.unread import UnreadInGrid

if TYPE_CHECKING:
    from convscape.claims.claim import Claim, Mode
    from convscape.claims.findings import Rows
    from convscape.config.compose import Compose
    from convscape.config.schema import Config
    from convscape.runs.result import Result


def run_claim(
    name: str,
    overrides: Sequence[str],
    mode: Mode,
    compose: Compose,
    *,
    output_dir: Path = Path("outputs"),
    seeds: int | None = None,
    until: tuple[int, int] | None = None,
    jobs: int | None = None,
) -> ClaimResult:
    """Train what is missing, run the probes, and write answer.json, figures and report.html.

    - `overrides`: for all arms, on top of the claim's own.
    - `until`: the least and the most seeds, added one by one until every statement is settled, by
      intervals that hold however often you look; replaces `seeds`.
    - `jobs`: runs at a time; by default one per core.

    Raises:
        ConfigError: before anything is trained, if the input is wrong.
        SweepStopped: if nothing more can be written.
    """
    start = time.perf_counter()
    claim = load(name)
    command = " ".join([command_name("claim"), name, f"mode={mode}", *overrides])
    name = Path(name).stem
    folder = output_dir / "claims" / name
    runs = plan_claim(claim, overrides, mode, compose, seeds if until is None else until[1])
    _check(name, claim, runs[0].config)
    budget = budget_in_words(claim, mode, runs)
    say(*wrapped(f"claim {name}: {claim.question}"), *wrapped(budget, "  "))
    jobs = jobs or available_cores()
    if until is None:
        probes = _run_all(runs, claim.probes, folder, jobs)
    else:
        runs, probes = _until_settled(claim, runs, folder, jobs, until)
        budget = f"until=verdict, {len(runs)} runs of: {budget}"
    results = find_results(folder)
    done = _done(runs, results, probes)
    rows = _rows(done)
    _refuse_not_logged(claim, rows)
    if until is None:
        is_complete = not any(_will_go_on(results.get(run.fingerprint)) for run in runs)
        look = look_at(folder, claim, runs, rows, is_complete=is_complete)
    else:
        look = look_until_settled(folder, question_of(runs))
    findings = findings_of(claim, rows, look)
    say(*(line for words in look.remarks for line in wrapped(words)))
    answer = ClaimResult(
        *(name, claim.question, claim.claim, mode, overall(findings), findings),
        arms=table_of(claim, rows),
        budget=budget,
        command=command,
        seconds=round(time.perf_counter() - start, 1),
        unfinished=list(_unfinished(runs, results)),
        environment=done[0][1].environment if done else {},
    )
    write_answer(answer, claim, done, folder)
    return answer


def _refuse_not_logged(claim: Claim, rows: Rows) -> None:
    logged = {name for _, numbers in rows for name in numbers}
    for statement in claim.statements if rows else ():
        if statement.metric not in logged:
            raise ConfigError(f"metric {not_logged(statement.metric, logged)}")


def _will_go_on(result: Result | None) -> bool:
    return result is None or result.status in UNFINISHED


def _unfinished(runs: Sequence[Run], results: Mapping[str, Result]) -> Iterator[str]:
    """The runs that did not finish, in words."""
    for run in runs:
        result = results.get(run.fingerprint)
        if result is None or result.status != "ok":
            status = "not started" if result is None else result.status
            yield f"{_title(run)}: {status}"


def _title(run: Run) -> str:
    return f"{title_of(run.labels)}, seed {run.config.seed}"


def _done(
    runs: Sequence[Run],
    results: Mapping[str, Result],
    probes: Mapping[str, list[dict[str, Any]]],
) -> list[tuple[Run, Result, list[dict[str, Any]]]]:
    """The finished runs, each with its result and the probes' answers."""
    return [
        (run, results[run.fingerprint], probes[run.fingerprint])
        for run in runs
        if run.fingerprint in results and results[run.fingerprint].status == "ok"
    ]


def _rows(done: Sequence[tuple[Run, Result, list[dict[str, Any]]]]) -> Rows:
    return [(run, _numbers(result, answers)) for run, result, answers in done]


def _until_settled(
    claim: Claim, runs: Sequence[Run], folder: Path, jobs: int, until: tuple[int, int]
) -> tuple[list[Run], dict[str, list[dict[str, Any]]]]:
    """The runs needed to settle every statement, with their probes' answers."""
    asked: list[Run] = []
    probes: dict[str, list[dict[str, Any]]] = {}
    arms = {title_of(run.labels): run.labels for run in runs}
    question = question_of(runs)

    def train(cells: Collection[str], seeds: Sequence[int]) -> bool:
        wanted = [run for run in runs if title_of(run.labels) in cells and run.config.seed in seeds]
        asked.extend(wanted)
        probes.update(_run_all(wanted, claim.probes, folder, jobs, is_open=True))
        return True

    def unsettled() -> list[str]:
        rows = _rows(_done(asked, find_results(folder), probes))
        look = look_until_settled(folder, question)
        findings = findings_of(claim, rows, look)
        sides = [
            labels_of(side)
            for each, found in zip(claim.statements, findings, strict=True)
            if found.verdict == "undecided"
            for side in (each.arm, each.than)
            if side is not None
        ]
        return [
            title
            for title, labels in arms.items()
            if any(side.items() <= labels.items() for side in sides)
        ]

    seed_by_seed(list(arms), Budget(*until, max(1, jobs // len(arms))), train, unsettled)
    return asked, probes


def plan_claim(
    claim: Claim,
    overrides: Sequence[str],
    mode: Mode,
    compose: Compose,
    seeds: int | None = None,
) -> list[Run]:
    """Every run of a claim, arm by arm, each with all its seeds.

    Raises:
        ConfigError: if an override is wrong, or an arm cannot exist.
    """
    refuse_grid([word for word in overrides if word.startswith("sweep=")])
    for word in overrides:
        if word.lstrip("+~").partition("=")[0] in UNTIL_KEYS:
            raise ConfigError(
                f"{word}: a claim does not read it; its statements contain the margin, and "
                "until=verdict seeds=3..30 sets the number of seeds"
            )
    budget = claim.budget(mode)
    composer = Composer(compose)
    unread = UnreadInGrid()
    runs = []
    for labels, own in claim.all_arms():
        for seed in range(budget.seeds if seeds is None else seeds):
            words = _last_of_each(
                [*claim.base, *budget.overrides, *own, *overrides, f"seed={seed}"]
            )
            config = check(composer.config(words))
            unread.add(config)
            try:
                config.plan()
            except InfeasibleGeometry as error:
                if claim.grid:  # not every cell of a grid has to be possible
                    continue
                raise InfeasibleGeometry(f"{title_of(labels)}: {error}") from None
            runs.append(Run(labels, config, words))
    if not runs:
        raise ConfigError("no run is left; a claim needs seeds=1 or more, and possible networks")
    unread.refuse(claim.grid)
    return runs


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """Of several values for a key only the last, at the position of the first."""
    return list({word.partition("=")[0]: word for word in overrides}.values())


def _check(name: str, claim: Claim, config: Config) -> None:
    """Refuse mistakes that would only show once the arms are trained.

    Raises:
        ConfigError: if a probe does not apply, the device does not exist, there are too few images,
            or the images reach their border and the claim moves them over a black background.
    """
    from convscape.data.variants import border_brightness
    from convscape.trained.probes import check_settings
    from convscape.training.build import data_module

    check_device(config.trainer.device)
    for probe in claim.probes:
        settings = {key: v for key, v in probe.items() if key not in ("name", "num_images")}
        check_settings(probe["name"], config.image_shape[0], settings)
    run = ResolvedRun(config)
    data_module(run)
    brightness = border_brightness(run.image_set)
    if claim.needs_black_ground and brightness > BLACK_GROUND:
        raise ConfigError(
            f"claim {name} moves objects over a black background, and the images of "
            f"data={config.data.name} reach their border (mean {brightness:.2f} of 1 there); "
            "allowed: digits, mnist, fashion_mnist, or similar pictures of your own"
        )


def _run_all(
    runs: Sequence[Run],
    probes: Sequence[dict[str, Any]],
    folder: Path,
    jobs: int,
    *,
    is_open: bool = False,
) -> dict[str, list[dict[str, Any]]]:
    """The probes' answers by fingerprint, after training what is missing; [] for failed runs.

    - `is_open`: whether more runs than these may follow.
    """
    unique = list({run.fingerprint: run for run in runs}.values())
    todo = {run.fingerprint: work_of(run.config, run.plan.macs) for run in unique if run.plan}
    with suppress(CannotWrite), files.explained(folder):  # the first run says so too
        files.make_folder(folder, within=folder)
        note_to_do(folder, ToDo(time.time(), todo, is_open=is_open))
    titles = {run.fingerprint: _title(run) for run in unique}
    jobs = min(jobs, len(unique))
    threads = 1 if jobs > 1 else None
    tasks = [
        (run.config.model_dump(by_alias=True), run.overrides, folder, list(probes), threads)
        for run in unique
    ]
    found = {}
    style = unique[0].config.trainer.progress
    with live.table(folder, style, has_answer=False, has_lines=False, titles=titles):
        for number, (place, (answers, result)) in enumerate(_each(tasks, folder, jobs), 1):
            fingerprint = unique[place].fingerprint
            found[fingerprint] = answers
            if result is not None:
                left = "" if live.is_here() else live.time_left_of(folder)()
                named = replace(result, run=titles[fingerprint])
                say(line(named, counter(number, len(unique)), left))
    return found


def _each(tasks: Sequence[tuple[Any, ...]], folder: Path, jobs: int) -> Iterator[tuple[int, Any]]:
    """The result of `_work` for each task, with the task's index, as they finish."""
    if jobs == 1:
        yield from ((place, _work(*task)) for place, task in enumerate(tasks))
        return
    with stop_file(folder) as tell_workers, ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        places = {pool.submit(_work, *task): place for place, task in enumerate(tasks)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except BaseException:
            tell_workers()  # a worker may already have its next task
            pool.shutdown(cancel_futures=True)
            raise


def _work(
    config: dict[str, Any],
    overrides: list[str],
    folder: Path,
    probes: list[dict[str, Any]],
    threads: int | None,
) -> tuple[list[dict[str, Any]], Result | None]:
    """One run, in any process: train it if it is missing, and run the probes.

    Raises:
        KeyboardInterrupt: if the run was interrupted; `SweepStopped` if nothing can be written.
    """
    if is_told_to_stop():
        raise KeyboardInterrupt
    from convscape.trained.probes import ask_and_keep

    config["trainer"] |= {"progress": "off", "threads": threads or config["trainer"]["threads"]}
    run = ResolvedRun(check(config), overrides)
    try:
        result = train_if_missing(run, folder)
    except CannotWrite as error:
        raise SweepStopped(str(error)) from None
    if result is not None and result.status == "interrupted":
        raise stop_of(result)
    path = path_of_run(run, folder)
    kept = RunFolder(path).read_result()
    if kept is None or kept.status != "ok":
        return [], result
    answers = []
    for probe in probes:
        settings = {key: v for key, v in probe.items() if key not in ("name", "num_images")}
        try:
            answer = ask_and_keep(path, probe["name"], probe["num_images"], "test", **settings)
        except CannotWrite as error:
            raise SweepStopped(str(CannotWrite(path, error.error))) from None
        answers.append(answer)
    return answers, result


def _numbers(result: Result, answers: list[dict[str, Any]]) -> dict[str, float]:
    numbers = dict(result.metrics)
    for answer in answers:
        numbers |= answer["numbers"]
    for cost in ("num_parameters", "macs"):
        numbers[cost] = float(getattr(result, cost) or 0)
    return numbers
