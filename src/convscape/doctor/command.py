"""From the command line to a case, and to what is printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from omegaconf import OmegaConf

from convscape.base import parts
from convscape.base.documents import print_document
from convscape.base.errors import ConfigError
from convscape.base.stopping import stops
from convscape.base.terminal import say
from convscape.config.directory import composing
from convscape.config.hydra_insides import parse_overrides
from convscape.config.typed import refuse_misread
from convscape.doctor.answer import Answer
from convscape.doctor.case import Case
from convscape.doctor.examine import examine
from convscape.doctor.rules import Rule
from convscape.models import ImageClassifier
from convscape.runs import data as run_data
from convscape.runs.folder import RunFolder
from convscape.runs.latest import named
from convscape.sweeps.grid import refuse_grid
from convscape.trained.load import load_run

OWN_WORDS = ("rules", "allow_packages")  # which are not in a run folder


def diagnose(words: Sequence[str], *, is_json: bool) -> None:
    """Examine what `words` describe, and print what was found.

    Raises:
        ConfigError: if the words are wrong.
    """
    with stops():
        if is_json:
            print_document("doctor", lambda: answer(words).as_dict())
            return
        with redirect_stdout(sys.stderr):
            found = answer(words)
    say(str(found))


def answer(words: Sequence[str]) -> Answer:
    """What is found in what `words` describe, overrides or a run.

    Raises:
        ConfigError: if the words are wrong.
    """
    words, targets, packages = _take_rules(words)
    rules = own_rules(targets, packages)
    is_run = bool(words) and "=" not in words[0]
    case = _case_of_run(words, packages) if is_run else _case_of_words(words)
    subject = str(named(words[0])) if is_run else " ".join(words)
    return Answer(subject, is_run, examine(case, rules))


def own_rules(targets: Sequence[str], packages: Sequence[str]) -> list[Rule]:
    """The user's rules that `targets` name: functions from a `Case` to a `Finding` or None.

    Raises:
        ConfigError: if one is not allowed, missing, or not a function.
    """
    return [parts.find("rules", "rules", target, packages) for target in targets]


def _take_rules(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The words without `rules=[...]`, and the values of that and of `allow_packages`."""
    found: dict[str, list[str]] = {key: [] for key in OWN_WORDS}
    others = []
    for word in words:
        key = word.partition("=")[0]
        if key not in OWN_WORDS:
            others.append(word)
            continue
        value: Any = parse_overrides([word])[0].value()
        if not isinstance(value, list):
            raise ConfigError(f"{word}: allowed: a list, as in {key}=[mypackage.name]")
        found[key] = [str(each) for each in value]
        if key == "allow_packages":
            others.append(word)
    return others, found["rules"], found["allow_packages"]


def _case_of_words(words: Sequence[str]) -> Case:
    refuse_grid(words)
    refuse_misread(words)
    with composing() as compose:
        composed: Any = OmegaConf.to_container(compose(list(words)), resolve=True)
    if composed["resume"] is not None:
        raise ConfigError(f"resume={composed['resume']}: give the run alone: {composed['resume']}")
    return Case(composed)


def _case_of_run(words: Sequence[str], packages: Sequence[str]) -> Case:
    """The case of a run, even one that diverged before its first checkpoint."""
    place, *others = (word for word in words if not word.startswith("allow_packages="))
    others, places = run_data.take_places(others)
    if others:
        raise ConfigError(
            f"{others[0]}: a run keeps its own config; to change it, give overrides and no run"
        )
    folder = RunFolder(named(place))
    stored = run_data.with_places(folder.read_config(), places)
    stored |= {"allow_packages": list(packages), "resume": None}
    case = Case(stored)
    case.run.image_set = run_data.load_images(case.config)
    way_out = "; restore those it was trained on, or examine a config: give overrides and no run"
    run_data.check_same(case.run.image_set, folder.read_result(), way_out=way_out)
    if folder.best_checkpoint.is_file() and case.can_train:
        model = load_run(folder.path, packages, **places).model  # type: ignore[arg-type]
        case.trained = model if isinstance(model, ImageClassifier) else None
    return case
