"""From a run to one offline HTML file: the document, the scripts and the style in one page."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from convscape.base.errors import CannotWrite
from convscape.base.files import make_folder, write_atomic
from convscape.base.pages import embedded
from convscape.living import beside, timeline
from convscape.living.document import document, missing_data, obstacle
from convscape.trained import explain
from convscape.trained.explain import Chosen, choose_image
from convscape.trained.load import TrainedRun
from convscape.trained.predict import warning_of_negatives

# in the order that they run in
SCRIPTS = (
    *("engine", "state", "fit", "change", "weights", "curves", "pad", "inputs", "score"),
    *("graph", "steps", "links", "colors", "layout", "keys", "view"),
    *("cards", "kinds", "detail", "unlike", "answer", "timeline", "beside", "changes", "main"),
)


def write_page(
    run: TrainedRun,
    path: Path,
    image: str | None = None,
    split: str = "test",
    invert: bool = False,
    other: TrainedRun | None = None,
) -> list[str]:
    """Write the page of a run; returns a sentence about it.

    A network that a page cannot compute gets a page about one image; the sentence says why.

    - `image`, `split`, `invert`: what the page opens with, as `choose_image` takes them.
    - `other`: a run whose network is shown next to this one.

    Raises:
        ConfigError: if there is no such image, its data are missing, or `other` does not fit.
        CannotWrite: if the page cannot be written.
    """
    second = None if other is None else beside.facts(run, other)
    reason = obstacle(run)
    if reason is not None and image is None:
        image = "0"
    chosen = None if image is None else choose_image(run, image, split, invert)
    if reason is None:
        values = values_of(run, chosen) | {"beside": second}
        if second is not None and other is not None:
            second["right"] = beside.num_right(other, values["images"], run)
        write(html(values), path)
        about = "draw in it, drop a picture, click on a map" if chosen is None else chosen.name
        lines = [f"{path}: {about}; open it in a browser"]
        if (missing := missing_data(run)) is not None:
            lines.append(f"no test images in it: {missing}")
    else:
        assert chosen is not None
        explain.write_page(run, chosen.image, chosen.name, chosen.label, path)
        lines = [f"{path}: {chosen.name}; open it in a browser", f"this image alone: {reason}"]
    if chosen is not None and chosen.looks_inverted:
        lines.append(warning_of_negatives(1, 1))
    return lines


def values_of(run: TrainedRun, chosen: Chosen | None = None) -> dict[str, Any]:
    """What a page of this network stores, including the epochs that the run has kept.

    - `chosen`: the image that it opens with.
    """
    return document(run, chosen) | {"timeline": timeline.facts(run), "beside": None}


def html(values: dict[str, Any]) -> str:
    """The page of a document."""
    return rendered("page", values, SCRIPTS, ("page",))


def rendered(
    template: str, values: dict[str, Any], script_names: Sequence[str], style_names: Sequence[str]
) -> str:
    """A page with its scripts and styles inside; its policy allows no others.

    - `values`: plain values, which the page reads as JSON; `title` is one of them.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("convscape.living", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    static = files("convscape.living") / "static"
    scripts = [(static / f"{name}.js").read_text("utf-8") for name in script_names]
    style = "".join((static / f"{name}.css").read_text("utf-8") for name in style_names)
    return environment.get_template(f"{template}.html.j2").render(
        title=values["title"], **embedded(values, scripts, style)
    )


def write(page: str, path: Path) -> None:
    """Write a page, completely or not at all.

    Raises:
        CannotWrite: if it cannot be written.
    """
    try:
        make_folder(path.parent, within=path.parent)
        write_atomic(path, page, within=path.parent)
    except OSError as error:
        raise CannotWrite(path.parent, error, "--out <page>.html") from None
