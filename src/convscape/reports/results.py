"""The runs of sweep folders as one table: what was swept, the results, what cannot be read."""

from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from convscape.base.distribution import command_name
from convscape.base.errors import ConfigError
from convscape.base.files import read_bytes, read_yaml
from convscape.base.values import hint, typed_value
from convscape.config.losses import with_full_name
from convscape.config.metrics import Metric, metric
from convscape.runs.fingerprint import flat_config, with_later_keys
from convscape.runs.folder import RunFolder
from convscape.runs.names import file_name, short_value
from convscape.runs.result import Result

COSTS = ("num_parameters", "macs", "seconds/fit")
NUMBERS = (
    *("num_parameters", "macs", "receptive_field_height", "receptive_field_width"),
    *("samples_per_second", "peak_memory_bytes", "best_epoch"),
)
Read = Callable[[Path], Result | str]  # see `read_result`
MAX_LETTERS = 200  # in a swept value, such as a whole network written as layers
_CONTINUOUS_FROM = 9  # distinct numbers: from a search rather than a grid


@dataclass(frozen=True)
class SweptKey:
    """A config key that differs between runs.

    - `levels`: its values as a user types them, in order; the first is the baseline.
    - `numbers`: the same as numbers, if all are numbers.
    - `together`: keys that changed in step with this one and cannot be told apart from it.
    """

    name: str
    levels: tuple[str, ...]
    numbers: tuple[float, ...] | None
    together: tuple[str, ...] = ()

    @property
    def is_continuous(self) -> bool:
        """Whether there are too many values to compare one by one."""
        return self.numbers is not None and len(self.levels) >= _CONTINUOUS_FROM

    @property
    def words(self) -> str:
        """The key in a sentence: kernel size."""
        leaf = self.name.rpartition(".")[2]
        return self.name if leaf == "name" else leaf.replace("_", " ")


@dataclass(frozen=True)
class RunTable:
    """All runs on one data set.

    - `frame`: a row per run: `run`, `status`, `reason`, `seed`, every swept key (categories, None
      where a run has no such key), every number of `result.json`, `command`, `environment/*`.
    - `keys`: all swept keys; `by`: those that make a configuration; the others are averaged over.
    - `monitors`: what chose the finished runs' epochs, each with its direction, most runs first.
    - `notes`: sentences about what could not be shown; filled while figures are drawn.
    """

    data: str
    frame: pd.DataFrame
    keys: list[SweptKey]
    by: list[SweptKey]
    metrics: list[str]
    monitors: list[Metric]
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> pd.DataFrame:
        """The runs that finished."""
        return self.frame[self.frame["status"] == "ok"]


@dataclass
class Reading:
    """What folders contained: runs with their folders, and what was left out, and why."""

    runs: list[tuple[Path, Result]] = field(default_factory=list)
    unreadable: list[tuple[Path, str]] = field(default_factory=list)
    num_duplicates: int = 0


def read_runs(folders: Iterable[Path], read: Read | None = None) -> Reading:
    """Every run in `folders`; of runs with the same fingerprint, one that is ok, or else the first.

    - `read`: instead of `read_result`, such as one with a cache.

    Raises:
        ConfigError: if a folder is missing or holds no run.
    """
    reading = Reading()
    found: dict[str, tuple[Path, Result]] = {}
    for folder in folders:
        for path in _run_folders(folder):
            result = (read or read_result)(RunFolder(path).result_file)
            if isinstance(result, str):
                reading.unreadable.append((path, result))
                continue
            before = found.get(result.fingerprint)
            reading.num_duplicates += before is not None
            if before is None or (result.status == "ok") > (before[1].status == "ok"):
                found[result.fingerprint] = (path, result)
    reading.runs = list(found.values())
    if not reading.runs:
        path, reason = reading.unreadable[0]
        raise ConfigError(
            f"none of the {len(reading.unreadable)} result.json can be read; the first, of {path}: "
            f"{reason}"
        )
    return reading


def _run_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; give one such as outputs/sweeps/<sweep>")
    if _is_run(folder):
        return [folder]
    paths = sorted(path for path in folder.iterdir() if _is_run(path))
    if not paths:
        inner = sorted({file.parent.parent for file in folder.glob("*/*/result.json")})
        near = f"; did you mean {' or '.join(map(str, inner[:3]))}?" if inner else ""
        raise ConfigError(f"{folder} holds no run folders (with a result.json each){near}")
    return paths


def _is_run(path: Path) -> bool:
    folder = RunFolder(path)
    return os.path.isfile(folder.result_file) or os.path.isfile(folder.config_file)


def read_result(file: Path) -> Result | str:
    """The result in `file`, or why there is none."""
    try:
        return Result.from_json(read_bytes(file))
    except FileNotFoundError:
        return "there is no result.json"
    except (OSError, ValueError) as error:
        return f"result.json is damaged: {error}"


def load_sweep(*folders: str | Path) -> pd.DataFrame:
    """The runs of sweep folders as a table: a row per run, a column per swept key and number.

    `status` is not "ok" for runs that were impossible or failed, and `reason` says why; `data` is
    the data set. `load_sweep("outputs/sweeps/geometry").groupby("model.stride")["val/acc"].mean()`.

    Raises:
        ConfigError: if a folder is missing or holds no run.
    """
    paths = [Path(folder) for folder in folders]
    found = tables(read_runs(paths), orders=[typed_order(path) for path in paths])
    return pd.concat([table.frame.assign(data=table.data) for table in found], ignore_index=True)


def tables(
    reading: Reading, by: Sequence[str] = (), orders: Sequence[dict[str, str]] = ()
) -> list[RunTable]:
    """One table per data set, since accuracies on different images cannot be compared.

    - `by`: keys that make a configuration; empty: all swept keys.
    - `orders`: values of keys as typed for a sweep, to keep their order.

    Raises:
        ConfigError: if a key of `by` was not swept.
    """
    groups: dict[str, list[tuple[Path, Result]]] = {}
    for data, run in zip(_data_sets(reading.runs), reading.runs, strict=True):
        groups.setdefault(data, []).append(run)
    return [_table(data, runs, by, orders) for data, runs in groups.items()]


def _data_sets(runs: list[tuple[Path, Result]]) -> list[str]:
    """The data set of each run by name; if several share a name, also by what they are."""
    configs = [result.config.get("data", {}) for _, result in runs]
    # size and channels change the pixels of the same data set
    kinds = [str([c.get(k) for k in ("name", "image_size", "channels")]) for c in configs]
    names = [_short(str(config.get("name", "data"))) for config in configs]
    for kind in set(kinds):
        places = [place for place, each in enumerate(kinds) if each == kind]
        sums = [runs[place][1].data_checksum for place in places]
        if len({*sums} - {None}) > 1:
            apart = _told_apart([configs[place] for place in places], sums)
            for place, words in zip(places, apart, strict=True):
                names[place] = file_name([names[place], *words])
    return names


def _told_apart(configs: Sequence[dict[str, Any]], sums: Sequence[str | None]) -> list[list[str]]:
    """Words for each run's data: the values that decide its checksum, its root, or the checksum."""
    values = pd.DataFrame([dict(flat_config({"data": config})) for config in configs], dtype=object)
    known = np.array([each is not None for each in sums])  # a run that never started has none
    codes = pd.factorize(np.array(sums, object)[known])[0]
    deciding = [
        key
        for key in values
        if (own := pd.factorize(values[key][known].map(str))[0]).any() and _decides(codes, own)
    ]
    words = [
        [
            f"{key.rpartition('.')[2]}{short_value(typed_value(value))}"
            for key in deciding
            if (value := values.at[place, key]) is not None
        ]
        for place in values.index
    ]
    roots = [str(config.get("root")) for config in configs]
    of_root = {root: each for root, each in zip(roots, sums, strict=True) if each is not None}
    for mine in {str(each): each for each in words}.values():
        same = [place for place, each in enumerate(words) if each == mine]
        if len({sums[place] for place in same} - {None}) > 1:  # its files differ
            for place in same:
                checksum = sums[place] or of_root.get(roots[place], "unknown")
                words[place] = [*mine, Path(roots[place]).name, checksum]
    return words


def _table(
    data: str,
    runs: list[tuple[Path, Result]],
    by: Sequence[str],
    orders: Sequence[dict[str, str]],
) -> RunTable:
    results = [result for _, result in runs]
    values = pd.DataFrame([_as_typed(result) for result in results], dtype=object)
    typed = {o.lstrip("+~").partition("=")[0]: None for r in results for o in r.overrides}
    names, together = _swept(values, list(typed))
    keys = []
    for name in names:
        labels = values[name].dropna().unique().tolist()
        order = next((o[name] for o in orders if name in o), "")
        levels = _ordered(labels, order)
        keys.append(SweptKey(name, levels, _numbers(levels), tuple(together.get(name, ()))))
    frame = pd.DataFrame([_numbers_of(path, result) for path, result in runs])
    for name in NUMBERS:  # None is NaN: a user's own network has no MACs
        frame[name] = pd.to_numeric(frame[name])
    for key in keys:
        frame[key.name] = pd.Categorical(values[key.name], list(key.levels), ordered=True)
    metrics = list(dict.fromkeys(metric for result in results for metric in result.metrics))
    chosen = Counter(r.monitor for r in results if r.status == "ok" and r.monitor is not None)
    monitors = [monitor for monitor, _ in chosen.most_common()]
    return RunTable(data, frame, keys, _chosen(keys, by, values), metrics, monitors)


def _as_typed(result: Result) -> dict[str, str]:
    config = with_later_keys(result.config)
    # a fold is not a choice but a part of the images: folds are averaged within a seed
    return {k: _short(typed_value(v)) for k, v in flat_config(config) if k != "data.fold"}


def _short(text: str) -> str:
    """A value shortened to fit a table; long values that differ stay different."""
    text = text.encode(errors="backslashreplace").decode()  # pandas cannot hash a lone surrogate
    if len(text) <= MAX_LETTERS:
        return text
    return f"{text[:MAX_LETTERS]}...{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _swept(values: pd.DataFrame, typed: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Keys that differ, without those that only follow another key; and which follow which.

    optimizer=sgd,adam changes a dozen keys and is one choice.
    """
    codes = {name: pd.factorize(values[name], use_na_sentinel=False)[0] for name in values}
    differing = [name for name in values if codes[name].any()]
    heads = [name for name in differing if "." not in name]
    asked = [name for name in typed if name in differing]
    kept: list[str] = []
    together: dict[str, list[str]] = {}
    for name in dict.fromkeys([*heads, *asked, *differing]):
        may_follow = name not in asked or values[name].nunique() == 1
        for other in kept:
            in_step = _decides(codes[name], codes[other])
            if _decides(codes[other], codes[name]) and (may_follow or in_step):
                if in_step and not name.startswith(f"{other}."):
                    together.setdefault(other, []).append(name)
                break
        else:
            kept.append(name)
    return sorted(kept, key=lambda k: (asked + differing).index(k)), together


def _decides(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether each value of `one` comes with a single value of `other`."""
    pairs = one.astype(np.int64) * (int(other.max()) + 1) + other
    return len(np.unique(pairs)) == len(np.unique(one))


def _ordered(labels: list[str], typed: str) -> tuple[str, ...]:
    """In the order typed for the sweep; otherwise numerically or alphabetically."""
    places = {
        label: match.start()
        for label in labels
        if (match := re.search(rf"(?<![\w.-]){re.escape(label)}(?![\w.-])", typed))
    }
    if len(places) == len(labels):
        return tuple(sorted(labels, key=places.__getitem__))
    return tuple(sorted(labels, key=_natural))


def _natural(label: str) -> list[Any]:
    if (number := _number(label)) is not None:
        return [(0, number, "")]
    parts = re.split(r"([0-9]+)", label)
    return [(1, 0.0, "")] + [(0, float(p), "") if p.isdecimal() else (1, 0.0, p) for p in parts]


def _number(label: str) -> float | None:
    with suppress(ValueError):
        return number if math.isfinite(number := float(label)) else None
    return None


def _numbers(levels: Sequence[str]) -> tuple[float, ...] | None:
    found = [number for level in levels if (number := _number(level)) is not None]
    return tuple(found) if len(found) == len(levels) else None


def _chosen(keys: list[SweptKey], by: Sequence[str], values: pd.DataFrame) -> list[SweptKey]:
    known = {key.name: key for key in keys}
    swept = ", ".join(known) or "nothing"
    for name in by:
        if name in known:
            continue
        if name in values:
            raise ConfigError(
                f"--by {name}: it was not swept, or only in step with another key; swept: {swept}"
            )
        raise ConfigError(f"--by {name}: no such key; swept: {swept}{hint(name, known)}")
    return [known[name] for name in dict.fromkeys(by)] or keys


def _numbers_of(path: Path, result: Result) -> dict[str, Any]:
    """One run as a row, without its swept keys."""
    height, width = result.receptive_field or (None, None)
    overrides = with_full_name(result.overrides, result.config)
    row = {
        "run": result.run,
        "status": result.status,
        "reason": result.why,
        "seed": result.seed,
        "fold": dict(flat_config(result.config)).get("data.fold"),
        **{name: value for name, value in result.metrics.items() if name not in _NO_METRICS},
        "num_parameters": result.num_parameters,
        "macs": result.macs,
        "receptive_field_height": height,
        "receptive_field_width": width,
        **{f"seconds/{phase}": value for phase, value in result.seconds.items()},
        "samples_per_second": result.samples_per_second,
        "peak_memory_bytes": result.peak_memory_bytes,
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "global_step": result.global_step,
        "data_checksum": result.data_checksum,
        **{f"environment/{name}": value for name, value in result.environment.items()},
        "overrides": overrides,
        "command": command(overrides),
        "folder": str(path),
    }
    return {name: _held(value) for name, value in row.items()}


_NO_METRICS = ("run", "status", "reason", "seed", "fold")  # other columns


def _held(value: Any) -> Any:
    """A number as the table can hold it: integers of 64 bits, others as floats."""
    return float(value) if isinstance(value, int) and abs(value) >= 2**63 else value


def command(overrides: Iterable[str], seeds: Sequence[int] = ()) -> str:
    """The command line that repeats a run, or with several `seeds` a configuration."""
    words = list(overrides)
    if len(seeds) > 1:
        words = [word for word in words if not word.startswith("seed=")]
        words = ["-m", *words, f"seed={','.join(map(str, seeds))}"]
    return f"{command_name('train')} {shlex.join(words)}"


UNRANKED = Metric("")  # if nothing says what is better or worse


def ranking_metric(table: RunTable, asked: str | None) -> Metric:
    """What to rank by: as asked for, or what chose the runs' epochs.

    - `asked`: a metric's name, or max:<name> or min:<name> if its direction is not known.

    If no run has validation, that is a training metric; `UNRANKED` if there is nothing to rank by.

    Raises:
        ConfigError: if no run has the metric, or its direction is not known.
    """
    ok = table.ok
    known = [
        name
        for name in [*table.metrics, *COSTS, "samples_per_second"]
        if name in ok and pd.api.types.is_numeric_dtype(ok[name]) and ok[name].notna().any()
    ]
    if asked is None:
        candidates = list(table.monitors)
        if not any(metric(name).split == "val" for name in table.metrics):
            candidates += [metric("train/acc"), metric("train/loss")]
        return next((each for each in candidates if each.name in known), UNRANKED)
    head, _, tail = asked.partition(":")
    name, mode = (tail, head) if head in ("max", "min") and tail else (asked, None)
    if known and name not in known:
        raise ConfigError(
            f"--rank {asked}: no run of data={table.data} has it; allowed: {', '.join(known)}"
            f"{hint(name, known)}"
        )
    try:
        found = metric(name, mode)  # type: ignore[arg-type]
    except ConfigError as error:
        raise ConfigError(f"--rank {asked}: {error}") from None
    found = next((m for m in table.monitors if m.name == name and mode is None), found)
    if found.direction is None:
        raise ConfigError(
            f"--rank {name}: it is not known whether more of it is better; give --rank max:{name} "
            f"or --rank min:{name}"
        )
    return found


def typed_order(folder: Path) -> dict[str, str]:
    """Keys and values of a sweep as typed, from its sweep.yaml; empty without one."""
    try:
        definition = read_yaml(folder / "sweep.yaml")
    except (OSError, ValueError):
        return {}
    pairs = definition.items() if isinstance(definition, dict) else ()
    return {str(key): str(value) for key, value in pairs}
