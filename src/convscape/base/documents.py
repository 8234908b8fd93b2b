"""What commands print with --json: one document each, nothing else on stdout.

The documents are defined here as types, a report's in `report_document`; `docs/json.md` describes
them in words and `docs/schema.json` as JSON Schema. A key is never renamed or removed without a new
version number after the document's name; keys may be added. NaN and infinity are written as null.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from typing import Any, Literal

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from convscape.base.report_document import Estimate, Report
from convscape.base.terminal import say

VERSION = 1
Interval = tuple[float, float]


# --- compare ----------------------------------------------------------------------------------


class Side(TypedDict):
    """One of the two networks compared, over these `seeds`.

    `ensemble_acc` is the accuracy of a majority vote over the seeds.
    """

    name: str
    seeds: list[int]
    mean: float | None
    half_width: float | None
    acc_interval_over_images: Interval
    calibration_error: float
    ensemble_acc: float
    always_wrong: list[int]
    num_parameters: int | None
    macs: int | None


class Difference(TypedDict):
    """A key of the config, or a version; the values are as you would type them."""

    key: str
    a: str
    b: str


class McNemar(TypedDict):
    """The images that only one of the two gets right, and the exact test on them."""

    only_first: int
    only_second: int
    p: float


class Compare(TypedDict):
    """`convscape compare`; each difference is b minus a."""

    schema: str
    metric: str
    direction: Literal["max", "min"] | None
    a: Side
    b: Side
    verdict: Literal["better", "worse", "higher", "lower", "equal", "unclear", "unknown"]
    sentence: str
    test: Literal["images", "paired seeds", "unpaired seeds"] | None
    p: float | None
    difference: float | None
    interval_over_images: Interval | None
    over_seeds: Estimate | None
    mcnemar: McNemar | None
    differences: list[Difference]
    split: Literal["val", "test"]
    num_images: int
    flipped: list[int]


# --- plan -------------------------------------------------------------------------------------


class PlannedLayer(TypedDict):
    """A row of the layer table; `depth` counts the layers around it."""

    name: str
    kind: str
    what: str
    depth: int
    input_shape: list[int]
    output_shape: list[int]
    num_parameters: int
    macs: int
    receptive_field: list[int]


class PlannedRun(TypedDict):
    """A run that would be trained, or why it cannot be; only a single run has `layers`."""

    name: str
    fingerprint: str
    overrides: list[str]
    possible: bool
    reason: str | None
    num_parameters: int | None
    macs: int | None
    receptive_field: list[int] | None
    layers: list[PlannedLayer] | None


class Plan(TypedDict):
    """`convscape plan`."""

    schema: str
    keys: list[str]
    runs: list[PlannedRun]
    num_duplicates: int
    remarks: list[str]


# --- seeds ------------------------------------------------------------------------------------


class Noise(TypedDict):
    """How much a run varies with its seed, and the runs that show it."""

    sd: float
    error: float | None
    num_runs: int
    freedom: int
    source: Literal["of this grid", "of other networks on these data", "none"]


class NeededSeeds(TypedDict):
    """Seeds needed to compare one value of a key with the key's first value.

    `num_seeds` detect a difference of `margin`; `smallest` maps numbers of seeds to the smallest
    difference that they detect. `over_images` is half the width of the 95 % interval over other
    test images, which more seeds do not narrow; if it was not measured, an upper bound.
    """

    key: str
    level: str
    base: str
    sd: float
    num_seeds: int | None
    smallest: dict[str, float]
    over_images: float | None
    over_images_is_measured: bool


class SeedsCase(TypedDict):
    """An answer; without any runs there is one for each of several error rates."""

    noise: Noise
    comparisons: list[NeededSeeds]
    num_seeds: int | None
    num_runs: int | None
    seconds: float | None


class Seeds(TypedDict):
    """`convscape seeds`."""

    schema: str
    metric: str
    direction: Literal["max", "min"] | None
    margin: float | None
    power: float
    num_images: dict[str, int]
    cases: list[SeedsCase]
    seconds_are_guessed: bool
    command: str | None


# --- doctor -----------------------------------------------------------------------------------


class Trial(TypedDict):
    """A training of a few steps; `acc` and `macro_acc` are on validation, if there is a split."""

    steps: int
    is_finite: bool
    first_loss: float | None
    loss: float | None
    acc: float
    macro_acc: float
    train_acc: float
    seconds: float


class Symptom(TypedDict):
    """What a rule has found, and overrides that were tried and fix it.

    `before` and `after` are trials without and with `mend`, which also removes `goes_too`.
    """

    rule: str
    says: str
    measured: str
    why: str
    mend: list[str]
    goes_too: list[str]
    advice: str | None
    before: Trial | None
    after: Trial | None


class Doctor(TypedDict):
    """`convscape doctor`; the most important findings come first."""

    schema: str
    subject: str
    is_run: bool
    is_healthy: bool
    trial: Trial | None
    findings: list[Symptom]
    notes: list[str]
    num_rules: int
    seconds: float


# --- claim and evaluate -----------------------------------------------------------------------


class Finding(TypedDict):
    """A statement of a claim, its effect and its interval over seeds.

    `look` says what the interval is valid for: the first look, a later one, or any number of looks.
    """

    says: str
    metric: str
    effect: float | None
    low: float | None
    high: float | None
    n: int
    look: str
    expect: Literal["higher", "lower", "equal"]
    by: float
    verdict: Literal["supported", "not supported", "undecided"]


class ClaimAnswer(TypedDict):
    """The `answer.json` of a claim; the numbers of arms are means and half-widths of intervals."""

    claim: str
    question: str
    says: str
    mode: Literal["quick", "full"]
    verdict: Literal["supported", "not supported", "undecided"]
    findings: list[Finding]
    arms: list[dict[str, Any]]
    budget: str
    command: str
    seconds: float
    unfinished: list[str]
    environment: dict[str, Any]
    folder: str


class Claim(TypedDict):
    """`convscape claim`; one answer, or with `all` one for each claim."""

    schema: str
    answers: list[ClaimAnswer]


class ListedClaim(TypedDict):
    """A claim, and how long its quick mode takes on two cores."""

    name: str
    question: str
    quick_seconds: float


class Claims(TypedDict):
    """`convscape claim list`."""

    schema: str
    claims: list[ListedClaim]


class Temperature(TypedDict):
    """Fitted on `num_images` of the validation split; pairs are (before, after) scaling."""

    value: float
    num_images: int
    calibration_error: Interval
    log_loss: Interval


@with_config(ConfigDict(extra="allow"))
class Evaluate(TypedDict):
    """`convscape evaluate`; also has <split>/loss, <split>/acc and every added metric."""

    schema: str
    run: str
    data: str
    split: Literal["train", "val", "test"]
    num_images: int
    flip: bool  # whether the answer for each image includes its mirror image
    weights: Literal["trained", "averaged"]  # averaged by trainer.ema
    classes: list[str]
    class_acc: list[float | None]
    confusion: list[list[int]]  # a row per true class, a column per answer
    temperature: Temperature | None


KINDS: dict[str, type] = {
    "compare": Compare,
    "report": Report,
    "plan": Plan,
    "seeds": Seeds,
    "claim": Claim,
    "claims": Claims,
    "evaluate": Evaluate,
    "doctor": Doctor,
}


def print_document(kind: str, make: Callable[[], Mapping[str, Any]]) -> None:
    """Print what `make` returns as JSON of that kind; anything it prints goes to stderr.

    - `kind`: a name of `KINDS`.
    """
    with redirect_stdout(sys.stderr):
        document = {"schema": f"convscape.{kind}/{VERSION}", **make()}
    say(json.dumps(_plain(document), indent=1, allow_nan=False))


def _plain(value: Any) -> Any:
    """The value with None for numbers that are not finite, and lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def json_schema() -> dict[str, Any]:
    """The JSON Schema of every document, by name."""
    from pydantic import TypeAdapter

    return {name: TypeAdapter(kind).json_schema() for name, kind in KINDS.items()}
