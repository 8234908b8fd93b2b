"""What runs are measured by: the name, direction, unit and digits of each metric. No torch.

Of a user's own metric only the name is known; `trainer.monitor_mode` says which direction is
better, which is never guessed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from convscape.base.errors import ConfigError
from convscape.base.values import hint

Direction = Literal["max", "min"]

MONITOR = "val/acc"  # the default, and the only choice before `trainer.monitor`
EPOCH_METRICS = ("train/loss", "train/acc", "val/loss", "val/acc")  # logged by all our networks


@dataclass(frozen=True)
class Metric:
    """A number that runs are chosen, ranked or compared by.

    - `direction`: "max" if higher is better, "min" if lower is; None if unknown.
    - `unit`: follows the written number; fractions of right answers are written in "%".
    - `digits`: after the decimal point of the written number.
    """

    name: str
    direction: Direction | None = None
    unit: str = ""
    digits: int = 4

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better."""
        return self.direction == "max"

    @property
    def is_share(self) -> bool:
        """Whether it is a fraction, written in percent."""
        return self.unit == "%"

    @property
    def scale(self) -> int:
        """The factor from the stored to the written number."""
        return 100 if self.is_share else 1

    @property
    def title(self) -> str:
        """The name and unit, for an axis."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def split(self) -> str | None:
        """The split that it is measured on: train, val or test; None for a cost."""
        split, _, leaf = self.name.partition("/")
        return split if leaf and split in ("train", "val", "test") else None

    @property
    def on_test(self) -> str:
        """The name of the same metric on the test images: test/f1 of val/f1."""
        return f"test/{self.name.partition('/')[2]}"

    def number(self, value: float) -> str:
        """The value as written, without its unit."""
        return f"{self.scale * value:,.{self.digits}f}"

    def written(self, value: float) -> str:
        """The value as written: 98.61 %."""
        return f"{self.number(value)} {self.unit}".rstrip()

    def is_better(self, value: float, than: float) -> bool:
        """Whether `value` is better; anything is better than NaN, and NaN than nothing."""
        if math.isnan(value) or math.isnan(than):
            return not math.isnan(value)
        return value > than if self.higher_is_better else value < than


def _shares(direction: Direction | None, *names: str) -> Iterable[Metric]:
    return (Metric(name, direction, "%", 2) for name in names)


# The names of probes contain their setting: <n> is a number of pixels.
METRICS = {
    metric.name: metric
    for metric in (
        *(Metric(f"{split}/loss", "min") for split in ("train", "val", "test")),
        *_shares("max", "train/acc", "val/acc", "test/acc"),
        *_shares("max", "shift/acc_<n>", "shift/consistency", "canvas/acc_<n>"),
        *_shares("max", "permute/acc", "permute/acc_before", "prune/removable"),
        Metric("occlude/largest_drop", digits=2),
        Metric("num_parameters", "min", digits=0),
        Metric("macs", "min", digits=0),
        *(Metric(f"seconds/{phase}", "min", "s", 1) for phase in ("setup", "fit", "test")),
        Metric("samples_per_second", "max", "images/s", 0),
        Metric("peak_memory_bytes", "min", "bytes", 0),
    )
}


# Which direction is better, for torchmetrics' multiclass metrics.
TORCHMETRICS: dict[str, Direction] = {
    **dict.fromkeys(("AUROC", "Accuracy", "AveragePrecision", "CohenKappa", "ExactMatch"), "max"),
    **dict.fromkeys(("F1Score", "FBetaScore", "JaccardIndex", "MatthewsCorrCoef"), "max"),
    **dict.fromkeys(("Precision", "Recall", "Specificity", "NegativePredictiveValue"), "max"),
    **dict.fromkeys(("CalibrationError", "HammingDistance", "HingeLoss"), "min"),
}


def added_metrics(targets: Mapping[str, str]) -> dict[str, Metric]:
    """What `metrics` adds to loss and accuracy, by name: val/f1 of {f1: torchmetrics.F1Score}."""
    kinds = {leaf: target.rpartition(".")[2] for leaf, target in targets.items()}
    return {
        f"{split}/{leaf}": Metric(
            f"{split}/{leaf}", TORCHMETRICS.get(kind.removeprefix("Multiclass"))
        )
        for leaf, kind in kinds.items()
        for split in ("train", "val", "test")
    }


def metric(name: str, direction: Direction | None = None) -> Metric:
    """The metric of this name; `direction` is for a metric that is not in the table.

    Raises:
        ConfigError: if it contradicts the table.
    """
    known = METRICS.get(re.sub(r"_\d+$", "_<n>", name))
    if known is None:
        return Metric(name, direction)
    if direction is not None and known.direction not in (None, direction):
        better = "higher" if known.higher_is_better else "lower"
        raise ConfigError(
            f"{name} is better the {better} it is, but {direction} says the opposite; leave it out"
        )
    return Metric(name, known.direction or direction, known.unit, known.digits)


def monitor_named(
    name: str | None, mode: str, added: Mapping[str, Metric] | None = None
) -> Metric | None:
    """What `trainer.monitor` and `trainer.monitor_mode` choose by; None: the last epoch.

    - `added`: as `added_metrics` gives them.

    Raises:
        ConfigError: if it cannot choose.
    """
    if name is None:
        return None
    if name.partition("/")[0] == "test":
        raise ConfigError(
            f"trainer.monitor={name}: the test images are not used to choose; "
            f"allowed: a metric of val/ or train/{hint(name, EPOCH_METRICS)}"
        )
    try:
        found = metric(name, mode if mode in ("max", "min") else None)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"trainer.monitor_mode={mode}: {error}") from None
    if found.direction is None and added is not None:
        found = added.get(name, found)
    if found.direction is None:
        raise ConfigError(
            f"trainer.monitor={name}: it is not known whether higher is better; add "
            f"trainer.monitor_mode=max or trainer.monitor_mode=min{hint(name, EPOCH_METRICS)}"
        )
    return found


def check_logged(chosen: Metric | None, added: Iterable[str] = ()) -> None:
    """Refuse to choose by a metric that our networks do not log.

    - `added`: names of other metrics that are logged.

    Raises:
        ConfigError: with the metrics that are logged.
    """
    known = [*EPOCH_METRICS, *(name for name in added if not name.startswith("test/"))]
    if chosen is not None and chosen.name not in known:
        raise ConfigError(
            f"trainer.monitor={chosen.name}: allowed: {', '.join(known)}, null"
            f"{hint(chosen.name, known)}"
        )


def monitor_of(config: Mapping[str, Any]) -> Metric | None:
    """What a run was chosen by, from the config in its result.json, which may be a stranger's."""
    trainer = config.get("trainer")
    keys = trainer if isinstance(trainer, dict) else {}
    name = keys.get("monitor", MONITOR)
    if not isinstance(name, str):
        return None
    parts = config.get("metrics")
    added = added_metrics(
        {leaf: str(part.get("_target_")) for leaf, part in parts.items() if isinstance(part, dict)}
        if isinstance(parts, dict)
        else {}
    )
    try:
        return monitor_named(name, str(keys.get("monitor_mode", "auto")), added)
    except ConfigError:
        return None


def not_logged(name: str, logged: Iterable[str]) -> str:
    """The message about a metric that a run does not have."""
    names = sorted(each for each in logged if "/" in each)
    if not names:
        return f"{name} was not logged, and no other metric was"
    known = ", ".join(names)
    return f"{name} is not among what was logged: {known}{hint(name, names)}"
