"""Words for file names: what was chosen, in letters, digits and "._-" only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from convscape.runs.fingerprint import FINGERPRINT_EXCLUDES, SECTIONS

if TYPE_CHECKING:
    from convscape.config.schema import Config


def short_value(value: str) -> str:
    """A value from the command line as a word: 0.00312 for 0.0031240057, 1e30 for 1e+30.

    Only the long values drawn by a search are rounded, and never to a whole number.
    """
    if re.fullmatch(r"\d*\.\d{5,}", value):
        short = f"{float(value):.3g}"
        is_drawn = len(value.partition(".")[2]) > 8
        if float(short) == float(value) or (is_drawn and not float(short).is_integer()):
            value = short
    # a plus would become a minus, which replaces characters that file names cannot have
    return re.sub(r"(?<![\w.])\+(?=[\d.])|(?<=[\d.][eE])\+(?=\d)", "", value)


def file_name(words: Sequence[str], longest: int = 80) -> str:
    """`words` as one name of at most `longest` letters; whole words are dropped, none is cut."""
    safe = [re.sub(r"[^A-Za-z0-9_.-]+", "-", word) for word in words]
    name = "_".join(safe).strip("-.")
    if len(name) <= longest:
        return name
    kept = [safe[0]]
    for word in safe[1:]:
        if len("_".join([*kept, word])) <= longest:
            kept.append(word)
    name = "_".join(kept).strip("-.")
    if len(name) > longest:  # a single word, such as a long list: its first entries
        name = re.sub(r"[-_][^-_]*$", "", name[: longest + 1])
    return name.rstrip("-._")


def _short_source(run: str) -> str:
    """The fingerprint at the end of a run folder's name, or a file's name."""
    path = Path(run)
    name = path.parent.parent.name if path.parent.name == "checkpoints" else path.name
    match = re.search(r"-([0-9a-f]{8})$", name)
    return match[1] if match else Path(name).stem


_SHORT = {"learning_rate": "lr", "batch_size": "bs", "weight_decay": "wd", "max_epochs": "ep"}
_IN_TITLE = {
    "model",
    "model._target_",
    "model.kernel_size",
    "model.stride",
    "model.padding",
    "model.hidden",
}


def run_name(config: Config, overrides: list[str], digest: str) -> str:
    """A readable name, such as cnn_k5_s2_same_lr0.01-3f9a1c2b.

    It contains the network, the user's other choices that matter to the result, and `digest`, the
    fingerprint.
    """
    words = [config.model.title]
    # the last one wins
    chosen = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
    for key, value in chosen.items():
        section, _, leaf = key.partition(".")
        matters = section in (*SECTIONS, "seed")
        if not matters or key in _IN_TITLE or leaf in FINGERPRINT_EXCLUDES.get(section, ()):
            continue
        if key in ("init_from", "init_from.run"):
            words += [f"from-{_short_source(value)}"] * (value != "null")
            continue
        if key.endswith("_target_") or value == "own":
            words += [value.rpartition(".")[2]] * (value != "own")
            continue
        # pool1.size says more than size
        inner = key.partition(".layers.")[2].replace(".layers.", ".")
        last = inner or key.rpartition(".")[2]
        word = _SHORT.get(last, last) if leaf or last == "seed" else ""
        words.append(word + short_value(value))
    return f"{file_name(words)}-{digest}"
