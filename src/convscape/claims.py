"""Textbook claims put to the test: conf/claim/*.yaml names arms, probes and what is expected.

The arms of a claim are trained on the same data, splits, epochs and seeds. What is expected is
compared with the interval of a paired difference over the seeds, and that gives the verdict.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from convscape.cli import CONFIG_DIR, say
from convscape.config import Config, check
from convscape.errors import CannotWrite, ConfigError
from convscape.files import read_yaml, write_whole
from convscape.geometry import InfeasibleGeometry, format_table
from convscape.machine import available_cores, check_device
from convscape.metrics import Metric, metric, not_logged
from convscape.runs import Result, RunFolder, fingerprint
from convscape.sections import Section
from convscape.statistics import CONFIDENCE, Estimate, estimate
from convscape.sweep import (
    Compose,
    Composer,
    SweepStopped,
    find_results,
    line,
    path_of_run,
    refuse_grid,
    stop_of,
    train_if_missing,
)
from convscape.unread import UnreadInGrid
from convscape.values import hint, mistake

Mode = Literal["quick", "full"]
Verdict = Literal["supported", "not supported", "undecided"]
Labels = dict[str, str]  # what sets a run apart from the others: its arm, or its cell of the grid

FOLDER = CONFIG_DIR / "claim"
BLACK_GROUND = 0.2  # mean of the border, 0..1, up to which black that comes in goes unnoticed


# --- what conf/claim/*.yaml holds -------------------------------------------------------------


class Statement(Section):
    """`arm` is expected to be lower or higher than `than` by `by`, or equal to it within `by`.

    An arm is named, or given by keys of the grid; without `than` it is compared with zero.
    """

    says: str
    metric: str
    arm: str | dict[str, Any]
    than: str | dict[str, Any] | None = None
    expect: Literal["lower", "higher", "equal"]
    by: Annotated[float, Field(gt=0)]


class Budget(Section):
    """What every arm gets in a mode."""

    seeds: Annotated[int, Field(ge=1)]
    overrides: list[str]


class Claim(Section):
    """A question, the networks that answer it, and what the textbook expects."""

    question: str
    claim: str
    needs_black_ground: bool = False
    base: list[str]
    arms: dict[str, list[str]] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    probes: list[dict[str, Any]] = Field(default_factory=list)
    statements: Annotated[list[Statement], Field(min_length=1)]
    quick: Budget
    full: Budget
    quick_seconds: float  # measured on two cores, as the README says

    def budget(self, mode: Mode) -> Budget:
        """Of that mode."""
        return self.quick if mode == "quick" else self.full

    def all_arms(self) -> Iterator[tuple[Labels, list[str]]]:
        """Each arm: its labels, and its overrides."""
        for name, overrides in self.arms.items():
            yield {"arm": name}, overrides
        if self.grid:
            for values in itertools.product(*self.grid.values()):
                cell = {key: str(v) for key, v in zip(self.grid, values, strict=True)}
                yield cell, [f"{key}={value}" for key, value in cell.items()]


def names() -> list[str]:
    """Every claim."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str) -> Claim:
    """The claim of that name, or of a file of one's own.

    Raises:
        ConfigError: if there is none, or its file is wrong.
    """
    path = Path(name) if name.endswith(".yaml") else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"there is no claim {name!r}; allowed: list, all, {', '.join(names())}, "
            "or a file <claim>.yaml"
            f"{hint(name, names())}"
        )
    try:
        return Claim.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        mistakes = [mistake(".".join(map(str, each["loc"])), each) for each in error.errors()]
        raise ConfigError("\n".join(f"{path}: {each}" for each in mistakes)) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None


# --- running one ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One arm with one seed."""

    labels: Labels
    config: Config
    overrides: list[str]
    fingerprint: str


@dataclass
class Finding:
    """A statement with its effect: the mean difference over the seeds, and its interval."""

    says: str
    metric: str
    effect: float
    low: float | None
    high: float | None
    n: int
    expect: str
    by: float
    verdict: Verdict


@dataclass
class Answer:
    """What `answer.json` holds; the numbers of arms are means over seeds with half an interval."""

    claim: str
    question: str
    says: str
    mode: Mode
    verdict: Verdict
    findings: list[Finding]
    arms: list[dict[str, Any]]
    budget: str
    command: str
    seconds: float
    unfinished: list[str] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)


def run_claim(
    name: str,
    overrides: Sequence[str],
    mode: Mode,
    compose: Compose,
    *,
    output_dir: Path = Path("outputs"),
    seeds: int | None = None,
    jobs: int | None = None,
) -> Answer:
    """Train what is missing, ask the probes, and write answer.json, figures and report.html.

    - `overrides`: for all arms alike, on top of the claim's own.
    - `jobs`: runs at a time; a core each unless given.

    Raises:
        ConfigError: before anything is trained, if the input is wrong.
        SweepStopped: if nothing can be written any more.
    """
    start = time.perf_counter()
    claim = load(name)
    command = " ".join(["python scripts/claim.py", name, f"mode={mode}", *overrides])
    name = Path(name).stem
    folder = output_dir / "claims" / name
    runs = plan(claim, overrides, mode, compose, seeds)
    _check(name, claim, runs[0].config)
    budget = budget_in_words(claim, mode, runs)
    say(f"claim {name}: {claim.question}", f"  {budget}")
    probes = _run_all(runs, claim.probes, folder, jobs or available_cores())
    results = find_results(folder)
    done = [
        (run, results[run.fingerprint], probes[run.fingerprint])
        for run in runs
        if run.fingerprint in results and results[run.fingerprint].status == "ok"
    ]
    rows = [(run, _numbers(result, answers)) for run, result, answers in done]
    logged = {name for _, numbers in rows for name in numbers}
    for statement in claim.statements if rows else ():
        if statement.metric not in logged:
            raise ConfigError(f"metric {not_logged(statement.metric, logged)}")
    findings = [_finding(statement, rows) for statement in claim.statements]
    answer = Answer(
        *(name, claim.question, claim.claim, mode, overall(findings), findings),
        arms=_table(claim, rows),
        budget=budget,
        command=command,
        seconds=round(time.perf_counter() - start, 1),
        unfinished=[
            f"{_title(run.labels)}, seed {run.config.seed}: "
            + (results[run.fingerprint].status if run.fingerprint in results else "not begun")
            for run in runs
            if run not in [one for one, _, _ in done]
        ],
        environment=done[0][1].environment if done else {},
    )
    _write(answer, claim, done, folder)
    return answer


def plan(
    claim: Claim,
    overrides: Sequence[str],
    mode: Mode,
    compose: Compose,
    seeds: int | None = None,
) -> list[Run]:
    """Every run of a claim, the seeds of an arm one after the other.

    Raises:
        ConfigError: if an override is wrong, or an arm cannot exist.
    """
    refuse_grid([word for word in overrides if word.startswith("sweep=")])
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
            unread.add(config, [word.lstrip("+~").partition("=")[0] for word in words])
            try:
                config.plan()
            except InfeasibleGeometry as error:
                if claim.grid:  # not every cell of a grid need be possible
                    continue
                raise InfeasibleGeometry(f"{_title(labels)}: {error}") from None
            runs.append(Run(labels, config, words, fingerprint(config)))
    if not runs:
        raise ConfigError("no run is left; a claim needs seeds=1 or more, and possible networks")
    unread.refuse(claim.grid)
    return runs


def _last_of_each(overrides: Sequence[str]) -> list[str]:
    """Of several values for a key the last one, where it stood first."""
    return list({word.partition("=")[0]: word for word in overrides}.values())


def _check(name: str, claim: Claim, config: Config) -> None:
    """Refuse what would only show once the arms are trained.

    Raises:
        ConfigError: if a probe cannot be asked, there is no such device, there are too few images,
            or the images reach their border where the claim moves them over a black ground.
    """
    from convscape.probes import check_settings
    from convscape.scenes import border_brightness
    from convscape.training import data_module

    check_device(config.trainer.device)
    for probe in claim.probes:
        settings = {key: v for key, v in probe.items() if key not in ("name", "num_images")}
        check_settings(probe["name"], config.image_shape[0], settings)
    image_set = config.load_images()
    data_module(config, image_set, macs=None)
    brightness = border_brightness(image_set)
    if claim.needs_black_ground and brightness > BLACK_GROUND:
        raise ConfigError(
            f"claim {name} moves objects over a black ground, and the images of "
            f"data={config.data.name} reach their border (mean {brightness:.2f} of 1 there); "
            "allowed: digits, mnist, fashion_mnist, or such pictures of your own"
        )


def _run_all(
    runs: Sequence[Run], probes: Sequence[dict[str, Any]], folder: Path, jobs: int
) -> dict[str, list[dict[str, Any]]]:
    """The probes' answers by fingerprint, after training what is missing; [] for what failed."""
    unique = list({run.fingerprint: run for run in runs}.values())
    jobs = min(jobs, len(unique))
    threads = 1 if jobs > 1 else None
    tasks = [
        (run.config.model_dump(by_alias=True), run.overrides, folder, list(probes), threads)
        for run in unique
    ]
    found = {}
    for number, (place, (answers, result)) in enumerate(_each(tasks, jobs), 1):
        found[unique[place].fingerprint] = answers
        if result is not None:
            title = f"{_title(unique[place].labels)}, seed {result.seed}"
            say(f"  {line(replace(result, run=title), f'[{number}/{len(unique)}]')}")
    return found


def _each(tasks: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[tuple[int, Any]]:
    """What `_work` gives for each task, with the task's place, as they are done."""
    if jobs == 1:
        yield from ((place, _work(*task)) for place, task in enumerate(tasks))
        return
    context = get_context("spawn")
    is_over = context.Event()  # a worker has its next task already when the user interrupts
    with ProcessPoolExecutor(jobs, context, _remember, (is_over,)) as pool:
        places = {pool.submit(_work, *task): place for place, task in enumerate(tasks)}
        try:
            for future in as_completed(places):
                yield places[future], future.result()
        except BaseException:
            is_over.set()
            pool.shutdown(cancel_futures=True)
            raise


_is_over: Any = None  # of a worker process: the event that the others share


def _remember(is_over: Any) -> None:
    global _is_over
    _is_over = is_over


def _work(
    config: dict[str, Any],
    overrides: list[str],
    folder: Path,
    probes: list[dict[str, Any]],
    threads: int | None,
) -> tuple[list[dict[str, Any]], Result | None]:
    """One run in whatever process: train it if it is missing, and ask the probes.

    Raises:
        KeyboardInterrupt: if the run was interrupted; `SweepStopped` if nothing can be written.
    """
    if _is_over is not None and _is_over.is_set():
        raise KeyboardInterrupt
    from convscape.probes import ask_and_keep

    config["trainer"] |= {"progress": "off", "threads": threads or config["trainer"]["threads"]}
    checked = check(config)
    try:
        result = train_if_missing(checked, folder, overrides)
    except CannotWrite as error:
        raise SweepStopped(str(error)) from None
    if result is not None and result.status == "interrupted":
        raise stop_of(result)
    path = path_of_run(checked, folder, overrides)
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


# --- what comes out ---------------------------------------------------------------------------


def _numbers(result: Result, answers: list[dict[str, Any]]) -> dict[str, float]:
    numbers = dict(result.metrics)
    for answer in answers:
        numbers |= answer["numbers"]
    for cost in ("num_parameters", "macs"):
        numbers[cost] = float(getattr(result, cost) or 0)
    return numbers


def _finding(statement: Statement, rows: Sequence[tuple[Run, dict[str, float]]]) -> Finding:
    """The paired difference of the statement's two sides, averaged over the other keys per seed."""

    def values(side: str | dict[str, Any]) -> dict[Any, float]:
        wanted = {"arm": side} if isinstance(side, str) else {k: str(v) for k, v in side.items()}
        found = {}
        for run, numbers in rows:
            if wanted.items() <= run.labels.items() and statement.metric in numbers:
                rest = tuple((k, v) for k, v in run.labels.items() if k not in wanted)
                found[run.config.seed, rest] = numbers[statement.metric]
        return found

    ours = values(statement.arm)
    others = dict.fromkeys(ours, 0.0) if statement.than is None else values(statement.than)
    by_seed: dict[int, list[float]] = {}
    for key in sorted(ours.keys() & others.keys()):
        by_seed.setdefault(key[0], []).append(ours[key] - others[key])
    means = [sum(differences) / len(differences) for differences in by_seed.values()]
    effect = estimate(means) if means else Estimate(float("nan"), 0)
    low, high = interval(effect)
    return Finding(
        *(statement.says, statement.metric, effect.mean, low, high, effect.n),
        *(statement.expect, statement.by, verdict(statement.expect, statement.by, effect)),
    )


def interval(effect: Estimate) -> tuple[float | None, float | None]:
    """Of the mean of two values or more; of values that are all equal it has no width."""
    if effect.n < 2:
        return None, None
    width = effect.half_width or 0.0
    return effect.mean - width, effect.mean + width


def verdict(expect: str, by: float, effect: Estimate) -> Verdict:
    """Supported if the whole interval is where it is expected, not supported if none of it is."""
    low, high = interval(effect)
    if low is None or high is None:
        return "undecided"
    if expect == "equal":
        if -by <= low and high <= by:
            return "supported"
        return "not supported" if low > by or high < -by else "undecided"
    if expect == "lower":
        low, high = -high, -low
    if low >= by:
        return "supported"
    return "not supported" if high < by else "undecided"


def overall(findings: Sequence[Finding]) -> Verdict:
    """A claim stands with all of its statements, and falls with one."""
    verdicts = {finding.verdict for finding in findings}
    if verdicts == {"supported"}:
        return "supported"
    return "not supported" if "not supported" in verdicts else "undecided"


def _table(claim: Claim, rows: Sequence[tuple[Run, dict[str, float]]]) -> list[dict[str, Any]]:
    """A row per arm: parameters, MACs, and each metric that a statement is about."""
    names = dict.fromkeys(["test/acc", *(statement.metric for statement in claim.statements)])
    table = []
    for labels, _ in claim.all_arms():
        mine = [numbers for run, numbers in rows if run.labels == labels]
        if not mine:
            continue
        row: dict[str, Any] = {"arm": _title(labels), "n": len(mine)}
        row |= {cost: int(mine[0][cost]) for cost in ("num_parameters", "macs")}
        for name in names:
            values = [numbers[name] for numbers in mine if name in numbers]
            if values:  # a module of one's own may log no test/acc
                each = estimate(values)
                row[name] = {"mean": each.mean, "half_width": each.half_width}
        table.append(row)
    return table


def _title(labels: Labels) -> str:
    if "arm" in labels:
        return labels["arm"]
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in labels.items())


def budget_in_words(claim: Claim, mode: Mode, runs: Sequence[Run]) -> str:
    """What every arm gets, and how long it takes."""
    data, trainer = runs[0].config.data, runs[0].config.trainer
    seeds = len({run.config.seed for run in runs})
    images = "all" if data.train_size is None else f"{data.train_size:,}"
    return (
        f"{len(runs)} runs ({len(runs) // seeds} arms x {seeds} seeds) on {images} images of "
        f"{data.name}, {trainer.max_epochs} epochs each; "
        f"{duration(claim, mode)} on two cores of an AMD EPYC"
    )


def duration(claim: Claim, mode: Mode) -> str:
    """As measured for the quick mode; the full one in proportion to its images."""
    seconds = claim.quick_seconds * (1 if mode == "quick" else _ratio(claim))
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def _ratio(claim: Claim) -> float:
    """How many times the images of the quick mode the full one trains on."""

    def images(budget: Budget) -> float:
        given = dict(word.split("=", 1) for word in [*claim.base, *budget.overrides])
        size = given.get("data.train_size", "null")
        per_epoch = 55_000.0 if size == "null" else float(size)
        return per_epoch * float(given["trainer.max_epochs"]) * budget.seeds

    return images(claim.full) / images(claim.quick)


def in_words(answer: Answer) -> list[str]:
    """For the terminal: the arms, what was found, and the verdict."""
    lines = [format_table(*table_cells(answer))]
    lines += [f"{f.verdict}: {f.says}: {_amount(f)}" for f in answer.findings]
    lines += [f"unfinished: {name}" for name in answer.unfinished]
    lines.append(f"{answer.claim}: {answer.verdict.upper()}")
    return lines


def table_cells(answer: Answer) -> tuple[list[list[str]], list[int]]:
    """The table of the arms as text, header first, and which columns hold numbers."""
    metrics = metrics_of(answer)
    header = ["arm", "parameters", "MACs", *[each.title for each in metrics]]
    rows = [header]
    for arm in answer.arms:
        row = [arm["arm"], f"{arm['num_parameters']:,}", f"{arm['macs']:,}"]
        for each in metrics:
            number = arm.get(each.name, {"mean": float("nan"), "half_width": None})
            text = each.number(number["mean"])
            if number["half_width"] is not None:
                text += f" ± {each.number(number['half_width'])}"
            row.append(text)
        rows.append(row)
    return rows, list(range(1, len(header)))


def metrics_of(answer: Answer) -> list[Metric]:
    """What the table of the arms shows besides costs."""
    return [metric(key) for key in dict.fromkeys(itertools.chain(*answer.arms)) if "/" in key]


def _amount(finding: Finding) -> str:
    measure = metric(finding.metric)
    scale, digits = measure.scale, measure.digits
    unit = " points" if measure.is_share else ""
    text = f"{finding.metric} {scale * finding.effect:+.{digits}f}"
    if finding.low is not None and finding.high is not None:
        text += f" ({scale * finding.low:+.{digits}f} to {scale * finding.high:+.{digits}f})"
    expected = {"lower": "at most -", "higher": "at least +", "equal": "within ±"}[finding.expect]
    return f"{text}{unit}, n = {finding.n}; expected {expected}{scale * finding.by:g}"


def _write(
    answer: Answer,
    claim: Claim,
    done: Sequence[tuple[Run, Result, list[dict[str, Any]]]],
    folder: Path,
) -> None:
    """answer.json, the figures of the probes, and the report of the runs."""
    write_whole(folder / "answer.json", json.dumps(asdict(answer), indent=1), within=folder)
    if not done:
        return
    from convscape.probe_figures import CAPTIONS, draw_arms, draw_probe
    from convscape.report import write_report

    arms = draw_arms(answer.arms, metrics_of(answer), folder / "figures", folder)
    pictures = [(CAPTIONS["arms"], arms)]
    for number, probe in enumerate(claim.probes):
        by_arm: dict[str, list[dict[str, Any]]] = {}
        for run, _, answers in done:
            by_arm.setdefault(_title(run.labels), []).append(answers[number])
        path = draw_probe(probe["name"], by_arm, folder / "figures", folder)
        if path is not None:
            pictures.append((CAPTIONS[probe["name"]], path))
    heading = [answer.question, answer.says, answer.budget]
    heading += [f"{f.verdict}: {f.says}: {_amount(f)}." for f in answer.findings]
    heading.append(f"Verdict: {answer.verdict}.")
    paths = {path_of_run(run.config, folder, run.overrides): None for run, _, _ in done}
    write_report([folder], only=list(paths), heading=heading, pictures=pictures)


def overview() -> str:
    """Every claim with its question and time, as a table."""
    claims = {name: load(name) for name in names()}
    rows = [("claim", "question", "quick", "full")]
    rows += [
        (name, claim.question, duration(claim, "quick"), duration(claim, "full"))
        for name, claim in claims.items()
    ]
    return format_table(rows)


def book(answers: Sequence[Answer], figures: Mapping[str, Sequence[str]]) -> str:
    """All answers as Markdown; `figures` are links to pictures by claim."""
    if not answers:
        return ""
    environment, modes = answers[0].environment, {answer.mode for answer in answers}
    command = "the commands below"
    if len(modes) == 1:
        command = f"`python scripts/claim.py all mode={answers[0].mode}`"
    lines = [
        "# The claims",
        "",
        f"Measured with {command} on {environment.get('cpu')}, torch "
        f"{environment.get('torch')}. Intervals are "
        f"{100 * CONFIDENCE:.0f} % intervals of Student's t over seeds; a verdict compares the "
        "interval with what was expected before.",
        "",
        "| claim | verdict |",
        "|---|---|",
        *[f"| [{a.claim}](#{a.claim}): {a.says} | {a.verdict} |" for a in answers],
    ]
    for answer in answers:
        (header, *rows), _ = table_cells(answer)
        lines += ["", f"## {answer.claim}", "", f"{answer.question} {answer.says}", ""]
        lines += [f"{answer.budget}: `{answer.command}`", ""]
        lines += [f"- **{f.verdict}**: {f.says}: {_amount(f)}" for f in answer.findings]
        lines += ["", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
        for picture in figures.get(answer.claim, ()):
            lines += ["", f"![{answer.claim}]({picture})"]
    return "\n".join([*lines, ""])


def write_book(answers: Sequence[Answer], folder: Path) -> Path:
    """`book` of the answers as claims.md beside their folders, with links to their figures."""
    figures = {}
    for answer in answers:
        names = ["arms", "shift", "prune", "occlude"]
        if load(answer.claim).grid:  # arms differ in more than one key
            names = ["main_effects"]
        paths = [folder / answer.claim / "figures" / f"{name}.png" for name in names]
        figures[answer.claim] = [p.relative_to(folder).as_posix() for p in paths if p.is_file()]
    path = folder / "claims.md"
    write_whole(path, book(answers, figures), within=folder)
    return path
