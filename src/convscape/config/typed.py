"""What is wrong with arguments of a command line, and what to type instead.

All advice has been tried: Hydra composes it, and the config accepts it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convscape.base.errors import ConfigError
from convscape.config import aliases
from convscape.config.check import check, impossible, keys_in, switched_off
from convscape.config.directory import choices, composing, groups, groups_with
from convscape.config.hydra_insides import Override, parse_overrides

OPENING, CLOSING = "[({", "])}"


def no_option(option: str, words: Sequence[str]) -> str:
    """About an option such as `--epochs` among `words`: the override that is meant."""
    place = next(place for place, word in enumerate(words) if word.partition("=")[0] == option)
    value = words[place].partition("=")[2]
    following = words[place + 1 : place + 2]
    if not value and following and not re.search(r"^-|=", following[0]):
        value = following[0]
    others = [word for word in words if not word.startswith("-") and "=" in word]
    key = option.lstrip("-")
    named = key.replace("-", "_")
    advice = advice_on(named, value, others) or "; keys are set by key=value, --help shows some"
    return f"{option}: there is no such option{advice}"


def advice_on(key: str, value: str, others: Sequence[str]) -> str | None:
    """What to write for an unknown key, next to `others`, which exist."""
    known = known_keys(others)
    beside = [w for w in others if (k := w.partition("=")[0]) in known or k in groups()]
    return aliases.advice(key, value, known, lambda way: refusal([*beside, *way]))


def put_together(word: str, words: Sequence[str]) -> tuple[list[str], str] | None:
    """The overrides with what spaces have split at `word` as the last, and how to write that."""
    place = list(words).index(word) if word in words else None
    after = list(words[place + 1 :]) if place is not None else []
    before = words[place - 1] if place else ""
    how, joined = "without spaces", _joined(word, before, after)
    is_pair = after and not any(re.search("^-|=", each) for each in (word, after[0]))
    if joined is None and is_pair and not groups_with(word):
        how, joined = "with =", f"{word}={_joined(after[0], '', after[1:]) or after[0]}"
    if joined is None or _parsed(joined) is None:
        return None
    beside = [w for w in words if w != word and re.search("[^=]=.", w)]
    others = [w for w in beside if _parsed(w) is not None]
    return [*others, joined], f"{word}: write it {how}: {shell(joined)}"


def unreadable(word: str, words: Sequence[str]) -> str:
    """About an override that Hydra cannot read: how to write it, or why that fails too."""
    others = [w for w in words if w != word and _parsed(w) is not None]
    key, _, value = word.partition("=")
    ways = [way for way in _other_forms(key, value) if refusal([*others, way]) is None]
    if ways:
        return f"cannot read {word}; write {' or '.join(map(shell, ways))}"
    quoted = f"{key}='{value}'"
    if value and "'" not in value and _parsed(quoted) is not None:
        why = refusal([*others, quoted])
        return why or f"cannot read {word}; its value needs quotes: {shell(quoted)}"
    homes = groups_with(word)
    meant = f"; write {homes[0]}={word}" if homes and word.isidentifier() else ""
    return f"cannot read {word}; an override looks like key=value{meant}"


def _joined(word: str, before: str, after: Sequence[str]) -> str | None:
    """Join what a shell has split at spaces: [32, 64], data = mnist."""
    if before.endswith("="):
        return before + word
    if "=" not in word and after[:1] and after[0].startswith("="):
        return word + after[0] + (after[1] if after[0] == "=" and len(after) > 1 else "")
    joined = word
    for following in after:
        if _depth(joined) <= 0:
            break
        is_next = joined[-1] in f",:{OPENING}" or following[0] in f",{CLOSING}"
        joined += following if is_next else f",{following}"
    return joined if joined != word and _depth(joined) == 0 else None


def _depth(text: str) -> int:
    return sum((char in OPENING) - (char in CLOSING) for char in text)


def _other_forms(key: str, value: str) -> Iterator[str]:
    """(3,5) rewritten as a size and as a list, {relu,tanh} as a list."""
    match = re.fullmatch(r"[({](.*)[)}]", value)
    if match:
        yield from several(key, match[1])


def several(key: str, values: str) -> Iterator[str]:
    """Two numbers as one with a decimal point, or as height x width; several values as a list."""
    if comma := re.fullmatch(r"(-?\d+),(\d+)", values):
        yield f"{key}={comma[1]}.{comma[2]}"
    if sides := re.fullmatch(r"(\d+), ?(\d+)", values):
        height, width = sides.groups()
        size = height if height == width else f"{height}x{width}"
        if re.search(r"size|stride|padding|dilation", key):
            yield f"{key}={size}"
    yield f"{key}=[{values.replace(' ', '')}]"


def ambiguous(key: str, values: str, words: Sequence[str]) -> str:
    """About several values without -m: a sweep, a list or a size, whichever the config accepts."""
    others = [w for w in words if not w.startswith(f"{key}=")]
    singles = values.split(",")
    ways = [way for way in several(key, values) if refusal([*others, way]) is None]
    written = f"write {' or '.join(map(shell, ways))}" if ways else ""
    if all(refusal([*others, f"{key}={value}"]) is None for value in singles):
        written = "several values are a sweep, add -m" + (f"; or {written}" if written else "")
    return f"{key}={values}: {written or 'allowed: one value'}"


def refused_in_grid(error: ConfigError, cell: Sequence[str], arguments: Sequence[str]) -> str:
    """Why a cell of a grid is refused, and what to type if its values were meant as one list.

    - `cell`: its overrides; `arguments`: what was typed for all of them.
    """
    refused = {line.partition("=")[0] for line in str(error).splitlines()}
    others = [word for word in cell if word.partition("=")[0] not in refused]
    for argument in arguments:
        key, _, values = argument.partition("=")
        if key not in refused or not re.fullmatch(r"[^\[({]+,[^\[({]+", values):
            continue
        ways = [way for way in several(key, values) if refusal([*others, way]) is None]
        if ways:
            written = " or ".join(map(shell, ways))
            return f"{argument}: {key} takes no single numbers or words; write {written}"
    return str(error)


def without(key: str, others: Sequence[str]) -> str:
    """`key=value` that switches off a key which cannot be left out, if such a value exists."""
    try:
        return switched_off(key, _composed(list(others))) or ""
    except (HydraException, OmegaConfBaseException):
        return ""


def refuse_misread(words: Sequence[str]) -> None:
    """Refuse what Hydra would read differently from what is meant.

    Raises:
        ConfigError: with what to write.
    """
    for word in words:
        meant = _choice(word) or _number_with_point(word, words) or _left_by_the_shell(word)
        if meant is not None:
            raise ConfigError(f"{word}: {meant}")


def _choice(word: str) -> str | None:
    """About optimizer.name=sgd, which gives one optimiser another's name but not its keys."""
    key, _, values = word.lstrip("+").partition("=")
    group = key.partition(".")[0]
    if key == "model._target_":
        values = re.sub(r"\b(convscape\.)?models\.", "", values).lower()
    elif key not in ("optimizer.name", "scheduler.name", "data.name"):
        return None
    names = set(choices(group))
    if not set(values.split(",")) <= names:
        return None
    return f"that changes the name but not the keys that come with it; write {group}={values}"


def _left_by_the_shell(word: str) -> str | None:
    """About 'data.root=$HOME/x', which names a folder with that literal name.

    The value from the environment is not printed: a stranger's text must not make us print it.
    """
    key, _, value = word.partition("=")
    folder = value.strip("'\"")
    name = re.search(r"\$[A-Za-z_]\w*", folder)
    if key not in ("data.root", "data.cache_dir") or name is None or Path(folder).is_dir():
        return None
    return (
        f"the shell has left {name[0]} as it is because of the single quotes around it; with "
        f'double quotes, "{key}={folder}", it fills in the folder'
    )


def _number_with_point(word: str, words: Sequence[str]) -> str | None:
    """About optimizer.weight_decay=0,001, a sweep over 0 and 1."""
    key, _, value = word.partition("=")
    if not re.fullmatch(r"-?\d+,0\d+", value):
        return None
    point = f"{key}={value.replace(',', '.')}"
    others = [w for w in words if (p := _parsed(w)) is not None and not p.is_sweep_override()]
    return None if refusal([*others, point]) is not None else f"write {point}"


def refusal(words: Sequence[str]) -> str | None:
    """Why the config refuses overrides; None if it accepts them."""
    try:
        return refused(words)
    except (HydraException, OmegaConfBaseException):
        return "Hydra cannot read it"


def refused(words: Sequence[str]) -> str | None:
    """As `refusal`.

    Raises:
        HydraException, OmegaConfBaseException: if they cannot be composed.
    """
    try:
        composed = _composed(list(words))
        composed.pop("search", None)  # a search reads it
        return impossible(check(composed))
    except ConfigError as error:
        return str(error)


def known_keys(words: Iterable[str]) -> list[str]:
    """Every key of the config made by the choices among `words` (model=mlp, ...)."""
    choices = [word for word in words if re.fullmatch(r"[\w/]+=\w+", word)]
    for overrides in (choices, []):
        try:
            composed = _composed(overrides, resolve=False)
        except HydraException:
            continue
        return list(keys_in(composed))
    return []


def _composed(words: list[str], resolve: bool = True) -> dict[str, Any]:
    with composing() as compose:
        composed: Any = OmegaConf.to_container(compose(words), resolve=resolve)
    return composed


def _parsed(word: str) -> Override | None:
    try:
        return parse_overrides([word])[0]
    except HydraException:
        return None


def shell(word: str) -> str:
    """The word as typed into a shell, quoted if necessary."""
    if re.fullmatch(r"[\w.,:=+~/\[\]{}@%-]+", word) and "{" not in word:
        return word
    return shlex.quote(word) if re.search(r'["$`\\!]', word) else f'"{word}"'
