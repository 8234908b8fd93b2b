"""Films the page of a run: python docs/living_film.py <run> writes living.gif; needs Chromium.

A 3 is drawn on the pad, a map of the second convolution is chosen, and its window slides. With
--shots <folder> the page is written as pictures instead: three sizes, light and dark.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from convscape.living.page import write_page
from convscape.trained.load import load_run

FILM = Path(__file__).with_name("living.gif")
SCREEN = {"width": 1280, "height": 800}
WIDTH = 880  # of the film
# scales of the page's colours: zero is the paper, positive and negative have a hue each
PAPER, INK = (255, 255, 255), (29, 39, 51)
POSITIVE, NEGATIVE = (194, 65, 12), (29, 78, 216)
NUM_STEPS = 14  # colours per scale; more make no visible difference, and cost a megabyte
SHOTS: dict[str, dict[str, Any]] = {
    "laptop": {"viewport": SCREEN},
    "laptop-dark": {"viewport": SCREEN, "color_scheme": "dark"},
    "wide": {"viewport": {"width": 1920, "height": 1080}},
    "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True},
}
# of the pad's width and height
THREE = (
    (0.30, 0.24), (0.42, 0.16), (0.58, 0.17), (0.67, 0.27), (0.62, 0.40), (0.47, 0.48),
    (0.62, 0.54), (0.70, 0.67), (0.63, 0.80), (0.46, 0.86), (0.30, 0.78),
)  # fmt: skip


class Camera:
    """Takes pictures of a page, with the pointer where it is."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._at = (0.0, 0.0)
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []  # ms

    def move(self, x: float, y: float) -> None:
        self._at = (x, y)
        self._page.mouse.move(x, y)

    def take(self, milliseconds: int = 90) -> None:
        """A frame, taken once the page has finished drawing."""
        self._page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        picture = Image.open(BytesIO(self._page.screenshot())).convert("RGB")
        x, y = self._at
        pen = ImageDraw.Draw(picture)
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), outline="#c2410c", width=3)
        height = round(WIDTH * picture.height / picture.width)
        self.frames.append(picture.resize((WIDTH, height), Image.Resampling.LANCZOS))
        self.durations.append(milliseconds)


def film(page: Page) -> Camera:
    """A drawn digit, a map with its links, and its window on the way."""
    camera = Camera(page)
    page.evaluate("convscape.state.set({selection: null})")
    page.get_by_role("button", name="Clear").click()
    pad = page.locator("canvas.pad").bounding_box()
    assert pad is not None
    for step, (across, down) in enumerate(_between(THREE)):
        camera.move(pad["x"] + across * pad["width"], pad["y"] + down * pad["height"])
        if step == 0:
            page.mouse.down()
        camera.take()
    page.mouse.up()
    camera.take(900)
    for map_ in (4, 5, 9, 10):
        camera.move(*_tile(page, "block2.conv", map_))
        camera.take(350)
    page.mouse.click(*_tile(page, "block2.conv", 10))
    camera.take(900)
    for unit in range(24, 60, 3):
        row, column = divmod(unit, 11)
        page.evaluate(
            "([row, column]) => convscape.state.set("
            "{selection: {...convscape.state.get().selection, row, column}})",
            [row, column],
        )
        camera.take(180)
    camera.durations[-1] = 1500
    return camera


def _between(points: tuple[tuple[float, float], ...]) -> Iterator[tuple[float, float]]:
    """The points, and the midpoints between them."""
    for (x, y), (to_x, to_y) in pairwise(points):
        yield x, y
        yield (x + to_x) / 2, (y + to_y) / 2
    yield points[-1]


def _tile(page: Page, layer: str, map_: int) -> tuple[float, float]:
    """The middle of a map on the screen."""
    x, y = page.evaluate(
        """([layer, map]) => {
          const column = convscape.view.layout().columns.find(each => each.node.name === layer);
          const tile = convscape.layout.tile(column, map);
          const stage = document.querySelector('.over').getBoundingClientRect();
          return [stage.left + tile.x + tile.width / 2, stage.top + tile.y + tile.height / 2];
        }""",
        [layer, map_],
    )
    return x, y


def save(camera: Camera, path: Path) -> None:
    """One palette for all frames, so that only moving parts are stored again."""
    ramps = ((PAPER, POSITIVE), (PAPER, NEGATIVE), (POSITIVE, INK), (NEGATIVE, INK), (PAPER, INK))
    colors = [
        round(a + (b - a) * step / (NUM_STEPS - 1))
        for start, end in ramps
        for step in range(NUM_STEPS)
        for a, b in zip(start, end, strict=True)
    ]
    palette = Image.new("P", (1, 1))
    palette.putpalette([*colors, *(0, 0, 0)])  # a digit's background
    frames = [each.quantize(palette=palette, dither=Image.Dither.NONE) for each in camera.frames]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=camera.durations, loop=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("run", type=Path, help="of a CNN with two blocks, as data=mnist trains it")
    parser.add_argument("--shots", type=Path, help="write pictures of the page here")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder) / "page.html"
        write_page(load_run(words.run), path)
        chromium = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )

        def opened(**options: Any) -> Page:
            page = chromium.new_context(offline=True, **options).new_page()
            page.goto(path.as_uri())
            page.wait_for_timeout(500)
            return page

        if words.shots is None:
            save(film(opened(viewport=SCREEN)), FILM)
        else:
            words.shots.mkdir(parents=True, exist_ok=True)
            for name, options in SHOTS.items():
                whole = name == "phone"  # this scrolls
                opened(**options).screenshot(path=words.shots / f"{name}.png", full_page=whole)
        chromium.close()


if __name__ == "__main__":
    main()
