"""The answer of `seeds`, as plain values (`base.documents.Seeds`) and in words."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

from convscape.base.distribution import command_name
from convscape.base.documents import print_document
from convscape.base.errors import ConfigError
from convscape.base.options import take_count
from convscape.base.terminal import format_table, say, wrapped
from convscape.base.values import counted
from convscape.config.directory import composing
from convscape.reports.power import MOST, POWER
from convscape.sweeps.seeds import ERRORS, Grid, train_pilot
from convscape.sweeps.words import duration

if TYPE_CHECKING:
    from convscape.config.metrics import Metric
    from convscape.sweeps.seeds import Noise

OWN_WORDS = ("pilot=", "margin=")
SHOWN = (3, 5, 10, 20, 30)  # numbers of seeds


def say_seeds(words: Sequence[str], is_json: bool) -> int:
    """Answer the command line's words, after a pilot if they ask for one.

    Raises:
        ConfigError: if the words are wrong.
    """
    given = dict(word.partition("=")[::2] for word in words if word.startswith(OWN_WORDS))
    grid_words = [w for w in words if not w.startswith((*OWN_WORDS, "-m", "--multirun"))]
    num_seeds = take_count(given, "pilot")
    margin = _margin(given.get("margin"))
    aside = redirect_stdout(sys.stderr) if is_json else nullcontext()
    with aside, composing() as compose:
        if num_seeds is not None:
            if num_seeds < 2:
                raise ConfigError(
                    "pilot=1: allowed: 2 or more, since one seed alone shows no noise"
                )
            code = train_pilot(grid_words, num_seeds, compose)
            if code:
                return code
        grid = Grid(grid_words, compose)
        document = as_document(grid, margin)
    if is_json:
        print_document("seeds", lambda: document)
    else:
        say(*in_words(grid, document, margin))
    return 0


def _margin(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        margin = float(text)
    except ValueError:
        margin = 0.0
    if not (0 < margin < float("inf")):
        raise ConfigError(f"margin={text}: allowed: more than 0, such as 0.5 for 0.5 points")
    return margin


def as_document(grid: Grid, margin: float | None) -> dict[str, Any]:
    """Everything that is known before training; `margin` as typed."""
    scaled = None if margin is None else margin / grid.metric.scale
    known = grid.noise()
    noises = [known] if known is not None else [grid.noise(error) for error in ERRORS]
    seconds, is_guessed = grid.seconds()
    cases = [_case(grid, noise, scaled, seconds) for noise in noises if noise is not None]
    num = cases[0]["num_seeds"] if known is not None and cases else None
    return {
        "metric": grid.metric.name,
        "direction": grid.metric.direction,
        "margin": scaled,
        "power": POWER,
        "num_images": grid.num_images,
        "cases": cases,
        "seconds_are_guessed": is_guessed,
        "command": None if num is None else grid.command(num),
    }


def _case(
    grid: Grid, noise: Noise, margin: float | None, seconds: list[float | None]
) -> dict[str, Any]:
    contrasts, test = grid.contrasts
    needed = grid.needed(noise, margin)
    found = []
    for one, (effect, contrast) in zip(needed, contrasts, strict=True):
        over_images = grid.over_images(contrast, noise.error)
        found.append(
            {
                "key": effect.key.name,
                "level": effect.level,
                "base": effect.base,
                "sd": one.sd,
                "num_seeds": one.num_seeds,
                "smallest": {str(n): test.smallest(n) * one.sd for n in SHOWN},
                "over_images": None if over_images is None else over_images[0],
                "over_images_is_measured": over_images is not None and over_images[1],
            }
        )
    numbers = [one.num_seeds for one in needed]
    most = None if any(n is None for n in numbers) else max(filter(None, numbers))
    times = [t for t, can_be in zip(seconds, grid.possible, strict=True) if can_be]
    total = None if most is None or None in times else most * sum(filter(None, times))
    return {
        "noise": {
            name: getattr(noise, name) for name in ("sd", "error", "num_runs", "freedom", "source")
        },
        "comparisons": found,
        "num_seeds": most,
        "num_runs": None if most is None else most * len(times),
        "seconds": total,
    }


def in_words(grid: Grid, document: dict[str, Any], margin: float | None) -> list[str]:
    """The same for a person."""
    metric, cases = grid.metric, document["cases"]
    pilot = (
        f"{command_name('seeds')} ... pilot=4 trains four seeds of each network and tells you more"
    )
    if not cases:
        return [f"nothing is known about {metric.name} on these data; {pilot}"]
    measured = cases[0]["noise"]["source"] != "none"
    lines = _noise(metric, cases[0]["noise"], grid) if measured else wrapped(
        "noise: there is no run on these data yet, so it depends on how many answers will be "
        f"wrong; networks that hardly learn vary more; {pilot}"
    )  # fmt: skip
    lines.append("")
    lines += _table_of_errors(metric, cases, margin) if not measured else _table(
        metric, cases[0], margin
    )  # fmt: skip
    lines += ["", *_not_seen(grid, cases, margin)]
    if measured and margin is not None:
        lines += ["", *_cost(document)]
        if document["command"] is not None:
            lines.append(f"train:  {document['command']}")
    elif margin is None:
        lines += wrapped("margin=0.5 says how many seeds it takes to see 0.5 points")
    return lines


def _noise(metric: Metric, noise: dict[str, Any], grid: Grid) -> list[str]:
    runs = counted(noise["num_runs"], "run")
    error = "" if noise["error"] is None else f", {100 * noise['error']:.1f} % wrong"
    expected = " and the noise expected for that many images" if grid.num_measured_by else ""
    lines = wrapped(
        f"noise: {metric.name} varies by {_size(metric, noise['sd'])} from seed to seed, judging "
        f"by {runs} {noise['source']}{error}{expected}"
    )
    if noise["freedom"] < 4:
        lines += wrapped(
            "  that is few; pilot=4 trains four seeds of each network and tells you more"
        )
    return lines


def _size(metric: Metric, value: float) -> str:
    number = f"{metric.scale * value:.{metric.digits}f}"
    return f"{number} points" if metric.is_share else number


def _name(one: dict[str, Any]) -> str:
    leaf = one["key"].rpartition(".")[2].replace("_", " ")
    return f"{leaf} {one['level']} instead of {one['base']}"


def _num(value: int | None) -> str:
    return f"over {MOST:,}" if value is None else str(value)


def _table(metric: Metric, case: dict[str, Any], margin: float | None) -> list[str]:
    """A row per comparison."""
    unit = " points" if metric.is_share else ""
    header = ["a difference of", "varies by"]
    header += [f"seeds for {margin:g}{unit}"] if margin is not None else []
    rows = [[*header, *(f"{n} seeds see" for n in SHOWN)]]
    for one in case["comparisons"]:
        row = [_name(one), f"{metric.scale * one['sd']:.{metric.digits}f}"]
        row += [_num(one["num_seeds"])] if margin is not None else []
        seen = (one["smallest"][str(n)] for n in SHOWN)
        rows.append([*row, *(f"{metric.scale * value:.{metric.digits}f}" for value in seen)])
    first = 2 + (margin is not None)
    droppable = [first + place for place in (4, 1, 3, 0, 2)]
    return [
        format_table(rows, range(1, len(rows[0])), droppable),
        *wrapped(f"{'in points; ' * bool(unit)}seen: clear in {100 * POWER:.0f} of 100 sweeps"),
    ]


def _table_of_errors(
    metric: Metric, cases: list[dict[str, Any]], margin: float | None
) -> list[str]:
    """A row per error rate, for the comparison that takes the most seeds."""
    header = ["wrong answers", "a run varies by"]
    header += [f"seeds for {margin:g} points"] if margin is not None else []
    rows = [[*header, "10 seeds see"]]
    for case in cases:
        row = [f"{100 * case['noise']['error']:.0f} %"]
        row.append(f"{metric.scale * case['noise']['sd']:.2f}")
        row += [_num(case["num_seeds"])] if margin is not None else []
        seen = max(one["smallest"]["10"] for one in case["comparisons"])
        rows.append([*row, f"{metric.scale * seen:.2f}"])
    return [
        format_table(rows, range(4)),
        *wrapped(f"in points; seen: clear in {100 * POWER:.0f} of 100 sweeps"),
    ]


def _not_seen(grid: Grid, cases: list[dict[str, Any]], margin: float | None) -> list[str]:
    """What no number of seeds can show on these images."""
    num = grid.num_measured_by
    widths = [one["over_images"] for case in cases for one in case["comparisons"]]
    known = [width for width in widths if width is not None]
    if num is None or not known:
        return []
    is_measured = all(one["over_images_is_measured"] for one in cases[0]["comparisons"])
    low, high = min(known) * 100, max(known) * 100
    amount = f"{high:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
    can = "move" if is_measured else "may move"
    lines = wrapped(
        f"not seen by any number of seeds: {num:,} other images {can} a difference by +- {amount} "
        f"points (95 %), and one of these images is {100 / num:.2g}"
    )
    split = str(grid.metric.split)
    if margin is not None and margin < low and is_measured:
        lines += wrapped(
            f"so margin={margin:g} only holds for these {split} images: on other images it cannot "
            "be told from no difference"
        )
    if split == "val" and (num_test := grid.num_images["test"]):
        ratio = (num / num_test) ** 0.5
        lines += wrapped(f"on the {num_test:,} test images it is {ratio:.2g} times that")
    return lines


def _cost(document: dict[str, Any]) -> list[str]:
    case = document["cases"][0]
    if case["num_seeds"] is None:
        return wrapped(f"more than {MOST:,} seeds: choose a larger margin, or more images")
    runs = counted(case["num_runs"], "run")
    if case["seconds"] is None:
        return [f"{runs}; a pilot tells how long they take"]
    how = "by their MACs, at a guessed rate" if document["seconds_are_guessed"] else (
        "as long as the existing ones took"
    )  # fmt: skip
    return wrapped(f"cost:  {runs}, {duration(case['seconds'])} one after the other ({how})")
