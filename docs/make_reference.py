"""Writes docs/reference.md: every config key, from conf/*.yaml and the classes of config.py.

python docs/make_reference.py
"""

import json
import re
import sys
import types
import typing
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from omegaconf import OmegaConf
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from convscape.base.documents import json_schema
from convscape.base.values import MAX_INTEGER
from convscape.config import kinds, schema
from convscape.config.directory import CONFIG_DIR, composing
from convscape.config.metrics import METRICS
from convscape.geometry.kinds import ACTIVATIONS
from convscape.geometry.layers import POOLINGS

PAGE = Path(__file__).with_name("reference.md")
SCHEMA = PAGE.with_name("schema.json")
HEAD = """\
# Every key

*Made by `python docs/make_reference.py` from the files in `conf/` and the types in
`src/convscape/config/`; a test compares.*

A choice is made with `<group>=<preset>`, a key is set with `<group>.<key>=<value>`. A size is `3`
or `3x5` (height x width). "Or one per block" means a list such as `[5,3x3]`, with an entry for each
block of a CNN. `null` means no value. A key that is not in a preset's file needs a `+` in front. If
a default differs between presets, all are given.
"""
MAX_LETTERS = 300  # letters of a default; the layers of a deep network would take more
PER_BLOCK = ", or one per block"
# values that are checked by a function, not by a type
WORDS = (
    (kinds.Sizes, "a size" + PER_BLOCK),
    (kinds.OptionalSizes, "a size or `null`" + PER_BLOCK),
    (kinds.Paddings, "`valid`, `same`, `circular`, pixels on each side (`1`, `0x2`)" + PER_BLOCK),
    (kinds.Groups, "an integer >= 1" + PER_BLOCK),
    (kinds.Flags, "`true`, `false`" + PER_BLOCK),
    (kinds.Probabilities, "0 <= number < 1" + PER_BLOCK),
    (kinds.Activations, ", ".join(f"`{name}`" for name in ACTIVATIONS) + PER_BLOCK),
    (kinds.PoolKinds, ", ".join(f"`{name}`" for name in (*POOLINGS, "none")) + PER_BLOCK),
    (kinds.SeedRange, "`3..30`: at least 3 and at most 30; `30`: at most 30"),
    (kinds.Device, "`auto`, `cpu`, `cuda`, `cuda:<n>`, `mps`"),
)
KEYS_BY_HAND = {
    "data.image_size": "a size or `null`",
    "data.val_size": "images, or a fraction < 1, `null`",
}


def page() -> str:
    """The whole page."""
    parts = [HEAD, *_root(), *_group("data", "digits"), *_group("model", "cnn")]
    parts += [*_group("optimizer", "adam"), *_group("scheduler", "one_cycle")]
    parts += [*_group("trainer", "default"), *_group("logger", "tensorboard"), *_search()]
    parts += _presets_only("experiment", "Recipes: choices from several groups at once.")
    parts += _presets_only("sweep", "Grids for `python scripts/train.py -m sweep=<preset>`.")
    parts += _presets_only("claim", "What `python scripts/claim.py <preset>` puts to the test.")
    parts += _presets_only("hydra/launcher", "Launchers for sweeps, besides Hydra's own.")
    parts += _metrics()
    return "\n".join(parts) + "\n"


# --- sections ---------------------------------------------------------------------------------


def _root() -> list[str]:
    sections = [name for name in schema.Config.model_fields if (CONFIG_DIR / name).is_dir()]
    sections.append("parent")  # written by resume=, never by a user
    composed = _composed()
    rows = _rows(schema.Config, "", {"": composed}, _comments([CONFIG_DIR / "train.yaml"]))
    rows = [row for row in rows if row[0].strip("`").partition(".")[0] not in sections]
    return ["## The run as a whole", "", *_table(rows)]


def _group(group: str, default: str) -> list[str]:
    """A section with a table for each config class among a group's presets."""
    files = _files(group, default)
    comments = _comments(files)
    comments |= _comments([CONFIG_DIR / "train.yaml"], group)
    lines = [f"## {group}", "", *_preset_list(files, default)]
    by_class: dict[type[BaseModel], dict[str, Any]] = {}
    for file in files:
        words = [f"{group}={file.stem}"]
        words += [f"{group}._target_=mypackage.name"] * (file.stem == "own")
        section = _composed(*words)[group]
        for kind in _classes(schema.Config, group, section):
            by_class.setdefault(kind, {})[file.stem] = section
    for kind, sections in by_class.items():
        names = ", ".join(f"`{group}={name}`" for name in sections)
        if len(by_class) > 1:
            lines += [f"### {names}", "", _doc(kind), ""]
        own = _comments([file for file in files if file.stem in sections])
        lines += _table(_rows(kind, f"{group}.", sections, comments | own))
    return lines


def _search() -> list[str]:
    from convscape.sweeps.search_config import SearchConfig

    files = _files("search", "geometry")
    sections = {file.stem: _composed(f"search={file.stem}")["search"] for file in files}
    comments = _comments(files)
    rows = _rows(SearchConfig, "search.", sections, comments)
    rows = [row for row in rows if not row[0].startswith("`search.space")]
    rows.append(("`search.space`", "per key: `choices`, or `low`, `high`, `log`", "see the file",
                 comments["search.space"]))  # fmt: skip
    head = "Spaces for `python scripts/search.py search=<preset>`."
    return ["## search", "", head, "", *_preset_list(files, "geometry"), *_table(rows)]


def _presets_only(group: str, head: str) -> list[str]:
    files = sorted((CONFIG_DIR / group).glob("*.yaml"))
    return [f"## {group}", "", head, "", *_preset_list(files, None)]


def _metrics() -> list[str]:
    head = (
        "What `trainer.monitor`, `search.objectives`, a claim's `metric` and `--rank` of "
        "`scripts/report.py` name. For any other metric, logged by your own module, say which way "
        "is better: `trainer.monitor_mode=max`, `--rank max:val/f1`. A report ranks by what the "
        "runs were chosen by, unless `--rank` says otherwise. `<n>` is a number of pixels."
    )
    lines = ["## metrics", "", head, "", "| metric | better | written in |", "|---|---|---|"]
    for name, metric in METRICS.items():
        better = {"max": "higher", "min": "lower", None: "not known"}[metric.direction]
        lines.append(f"| `{name}` | {better} | {metric.unit or 'a number'} |")
    return lines


def _preset_list(files: list[Path], default: str | None) -> list[str]:
    lines = []
    for file in files:
        words = " (default)" if file.stem == default else ""
        said = _first_sentence(file)
        lines.append(f"- `{file.stem}`{words}" + (f": {said}" if said else ""))
    return [*lines, ""]


def _first_sentence(file: Path) -> str:
    """A file's description at its top; for a claim, its question."""
    text = file.read_text("utf-8")
    if match := re.match(r"question: (.*)", text):
        return match[1]
    lines = [line for line in text.splitlines() if not line.startswith("# @package")]
    head = []
    for line in lines:
        if not line.startswith("# ") or line.startswith("#   "):
            break
        head.append(line[2:])
    return re.split(r"(?<=[.?;])\s", " ".join(head), maxsplit=1)[0].rstrip(";")


def _files(group: str, first: str) -> list[Path]:
    """The presets of a group, the default first and `own` last."""
    files = sorted((CONFIG_DIR / group).glob("*.yaml"))
    return sorted(files, key=lambda file: (file.stem != first, file.stem == "own"))


# --- rows -------------------------------------------------------------------------------------

Row = tuple[str, str, str, str]


def _rows(
    kind: type[BaseModel], prefix: str, sections: dict[str, Any], comments: dict[str, str]
) -> list[Row]:
    """A row per key: name, what is allowed, default, meaning."""
    rows: list[Row] = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for field, info in kind.model_fields.items():
        name = info.alias or field
        key = prefix + name
        inner = _section_of(hints[field])
        present = {preset: s[name] for preset, s in sections.items() if name in s}
        if inner is not None:
            present = {preset: value for preset, value in present.items() if value is not None}
            rows += _rows(inner, f"{key}.", present, comments)
            continue
        allowed = KEYS_BY_HAND.get(key) or _allowed(hints[field])
        meaning = comments.get("data.mean" if key == "data.std" else key, "")
        if (name == "name" and prefix) or (
            get_origin(hints[field]) is Literal and name == "_target_"
        ):
            continue  # the preset's name: it is chosen with the group
        rows.append((f"`{key}`", allowed, _defaults(present, info), meaning))
    return rows


def _section_of(hint: Any) -> Any:
    """The class of a sub-section, which may be absent."""
    options = [o for o in get_args(hint) if o is not type(None)] if _is_union(hint) else [hint]
    is_section = len(options) == 1 and isinstance(options[0], type)
    return options[0] if is_section and issubclass(options[0], BaseModel) else None


def _classes(parent: type[BaseModel], group: str, section: dict[str, Any]) -> list[Any]:
    """The class that checks a composed section."""
    checked = schema.Config.model_validate(_composed_as(group, section))
    return [type(getattr(checked, group))]


def _composed_as(group: str, section: dict[str, Any]) -> dict[str, Any]:
    composed = _composed(resolve=True)
    resolved = OmegaConf.create({**composed, group: section})
    plain: Any = OmegaConf.to_container(resolved, resolve=True)
    return plain


def _defaults(present: dict[str, Any], info: FieldInfo) -> str:
    if not present:
        return _value(info.get_default(call_default_factory=True))
    values: dict[str, list[str]] = {}
    for preset, value in present.items():
        values.setdefault(_value(value), []).append(preset)
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} {', '.join(presets)}" for value, presets in values.items())


def _value(value: Any) -> str:
    from convscape.base.values import typed_value

    text = "{}" if value == {} else typed_value(value)
    if len(text) > MAX_LETTERS:
        return "the value in"
    return f"`{text}`" if text else "`''`"


def _allowed(hint: Any) -> str:
    """A type in words."""
    for known, words in WORDS:
        if hint == known:
            return words
    if _is_union(hint):
        return ", ".join(dict.fromkeys(_allowed(option) for option in get_args(hint)))
    if hint is type(None):
        return "`null`"
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) is Annotated:
        inner, *rules = get_args(hint)
        return _bounded(_allowed(inner), rules)
    if get_origin(hint) is list:
        return f"a list: {_allowed(get_args(hint)[0])}"
    names = {int: "an integer", float: "a number", bool: "`true`, `false`", str: "a word"}
    return names.get(hint) or ("keys and values" if get_origin(hint) is dict else "any value")


def _bounded(words: str, rules: list[Any]) -> str:
    flat = [rule for r in rules for rule in (r.metadata if isinstance(r, FieldInfo) else [r])]
    low = next((f"{r.ge:g} <= " for r in flat if isinstance(r, Ge)), "")
    low = next((f"{r.gt:g} < " for r in flat if isinstance(r, Gt)), low)
    high = next((f" <= {r.le:g}" for r in flat if isinstance(r, Le) and r.le != MAX_INTEGER), "")
    high = next((f" < {_number(r.lt)}" for r in flat if isinstance(r, Lt)), high)
    shortest = next((r.min_length for r in flat if isinstance(r, MinLen)), None)
    longest = next((r.max_length for r in flat if isinstance(r, MaxLen)), None)
    if shortest and shortest == longest:
        return f"{words}, {shortest} of them"
    if shortest:
        return f"{words}, {shortest} or more"
    if not high and low:
        return f"{words} {'>=' if '=' in low else '>'} {low.split()[0]}"
    return low + re.sub("^an? ", "", words) + high if low or high else words


def _number(value: float) -> str:
    return "2^32" if value == 2**32 else f"{value:g}"


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _doc(kind: type[BaseModel]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _table(rows: list[Row]) -> list[str]:
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for row in rows:
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in row[:3])
                     + " | " + row[3].replace("<", "\\<").replace("|", "\\|") + " |")  # fmt: skip
    return [*lines, ""]


# --- conf/ ------------------------------------------------------------------------------------


@cache
def _composed(*words: str, resolve: bool = False) -> dict[str, Any]:
    with composing() as compose:
        plain: Any = OmegaConf.to_container(compose([*words]), resolve=resolve)
    return plain


def _comments(files: list[Path], section: str = "") -> dict[str, str]:
    """The comment beside or above each key in YAML files; the first file that has one counts."""
    found: dict[str, str] = {}
    for file in files:
        lines = file.read_text("utf-8").splitlines()
        is_global = lines[0].startswith("# @package _global_")
        group = "" if is_global or file.parent == CONFIG_DIR else f"{file.parent.name}."
        path: list[tuple[int, str]] = []
        above: list[str] = []
        seen: list[str] = []
        for line in lines:
            if match := re.match(r" *# (?!@)(.*)", line):
                above.append(match[1])
                continue
            match = re.match(r"( *)([\w.]+):(?:\s|$)(.*)", line)
            if match:
                indent = len(match[1])
                path = [(i, name) for i, name in path if i < indent] + [(indent, match[2])]
                key = group + ".".join(name for _, name in path)
                comment = re.search(r"(?:^|\s)# (.*)", match[3])
                is_first = not any(key.startswith(group) for key in seen)  # above is the head
                words = comment[1] if comment else "" if is_first else " ".join(above)
                seen.append(key)
                words = words.partition(". These are")[0]  # about the numbers of one preset
                if words and (not section or key.startswith(f"{section}.")):
                    found.setdefault(key, words)
            above = []
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n{SCHEMA}\n")
