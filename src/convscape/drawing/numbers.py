"""Pictures that show their numbers: an image as a matrix, and a window that moves over one."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from PIL.Image import Image as Picture

from convscape import geometry
from convscape.base.errors import ConfigError
from convscape.base.values import hint
from convscape.data.pictures import NAMED_PICTURES, SAMPLES, read_photograph
from convscape.drawing.kernels import (
    KERNELS,
    SlidingWindow,
    Step,
    conv_layer,
    filtered,
    parse_kernel,
    parse_matrix,
    pool_layer,
    shown,
)
from convscape.drawing.sheets import FAINT, GAP, INK, PAPER, Scale, font, sheet, text_width, tile
from convscape.geometry.layers import Conv

WINDOW = (213, 94, 0)  # the window and its result
PADDING = (232, 232, 232)
LINE = (190, 190, 190)
LIGHT = np.array([[222, 235, 247], [255, 255, 255], [253, 230, 214]], float)
MAX_CELLS = 28  # a side of a matrix whose numbers can be read
HEADING, TEXT = 15, 13


def pixels_as_numbers(image: np.ndarray, title: str) -> Picture:
    """An image (C, H, W) uint8 of 1 or 3 channels, with each channel's values, 0 to 1, in cells."""
    channels, height, width = image.shape
    if max(height, width) > MAX_CELLS:
        raise ValueError(f"{height}x{width} cells cannot be read; at most {MAX_CELLS} a side")
    cell = 34
    names = ("red", "green", "blue") if channels == 3 else ("",)
    panel = (width * cell, height * cell)
    size = (
        max(channels * (panel[0] + 2 * GAP), text_width(title, HEADING) + 2 * GAP),
        60 + panel[1] + GAP,
    )
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), title, INK, font(HEADING))
    for index, (name, values) in enumerate(zip(names, image, strict=True)):
        left, top = GAP + index * (panel[0] + 2 * GAP), 56
        draw.text((left, 34), name, INK, font(TEXT))
        for (row, column), value in np.ndenumerate(values):
            x, y = left + column * cell, top + row * cell
            level = int(value)
            if channels == 3:
                color = tuple(level if channel == index else 0 for channel in range(3))
                ink = INK if index == 1 and level > 185 else PAPER
            else:
                color = (level,) * 3
                ink = INK if level > 120 else PAPER
            draw.rectangle((x, y, x + cell, y + cell), fill=color, outline=FAINT)
            _write(draw, (x, y), cell, f"{value / 255:.2f}", ink, 11)
    return canvas


class MovingWindow:
    """Draws a window that slides over a matrix, one picture for each of its positions.

    - `is_flipped`: whether the kernel was flipped by 180 degrees, as true convolution does.
    """

    def __init__(self, window: SlidingWindow, is_flipped: bool = False) -> None:
        self.window = window
        (top, bottom), (left, right) = window.pads
        height, width = window.matrix.shape
        self.padded_shape = height + top + bottom, width + left + right
        if max(self.padded_shape) > MAX_CELLS:
            raise ConfigError(
                f"the padded input has {self.padded_shape[0]}x{self.padded_shape[1]} cells; "
                f"allowed: {MAX_CELLS} a side, so that the numbers can be read"
            )
        self.cell = (
            48 if max(self.padded_shape) <= 9 else 38 if max(self.padded_shape) <= 14 else 30
        )
        what = "true convolution" if is_flipped else "cross-correlation"
        kind = f"{what}, " if isinstance(window.layer, Conv) else ""
        output = "x".join(map(str, window.output_shape))
        self.title = f"{kind}{window.layer.describe()}: {height}x{width} gives {output}"
        self._in_colors = Scale(LIGHT, *_limits(window.matrix))
        self._out_colors = Scale(LIGHT, *_limits(window.output))
        self._panels = self._layout()

    def _layout(self) -> dict[str, tuple[int, int]]:
        """The upper left corner of each matrix."""
        top = 66
        kernel_width = 0 if self.window.kernel is None else self.window.kernel.shape[1]
        x_kernel = GAP + self.padded_shape[1] * self.cell + 40
        x_output = x_kernel + (kernel_width * self.cell + 40 if kernel_width else 0)
        return {"input": (GAP, top), "kernel": (x_kernel, top), "output": (x_output, top)}

    @property
    def size(self) -> tuple[int, int]:
        """Pixels (width, height) of each picture; even, as films require."""
        rows, columns = self.window.output_shape
        kernel_rows = 0 if self.window.kernel is None else self.window.kernel.shape[0]
        width = self._panels["output"][0] + max(columns * self.cell, 60) + GAP
        width = max(width, text_width(self.title, HEADING) + 2 * GAP, 360)
        tallest = max(self.padded_shape[0], rows, kernel_rows)
        last = self.window.step(rows - 1, columns - 1)
        lines = max(
            len(_wrapped(s.in_words(), width - 2 * GAP)) for s in (self.window.step(0, 0), last)
        )
        height = self._panels["input"][1] + tallest * self.cell + 48 + 19 * (lines + 1)
        return width + width % 2, height + height % 2

    def frames(self) -> Iterator[Picture]:
        """All positions, row by row."""
        size = self.size
        return (self.frame(step, size) for step in self.window.steps())

    def frame(self, step: Step, size: tuple[int, int] | None = None) -> Picture:
        """The window at one position: what it reads, its weights, and the result."""
        canvas = Image.new("RGB", size or self.size, PAPER)
        draw = ImageDraw.Draw(canvas)
        draw.text((GAP, GAP), self.title, INK, font(HEADING))
        for name, (x, y) in self._panels.items():
            if name != "kernel" or self.window.kernel is not None:
                draw.text((x, y - 24), name, INK, font(TEXT))
        self._draw_input(draw, step)
        if self.window.kernel is not None:
            for (row, column), weight in np.ndenumerate(self.window.kernel):
                self._draw_cell(draw, "kernel", row, column, shown(weight), PAPER, ink=WINDOW)
        self._draw_output(draw, step)
        y = self._panels["input"][1] + self._rows() * self.cell + 14
        place = f"row {step.row + 1}, column {step.column + 1} of the output"
        draw.text((GAP, y), place, FAINT, font(TEXT))
        for number, line in enumerate(_wrapped(step.in_words(), canvas.width - 2 * GAP), 1):
            draw.text((GAP, y + 19 * number), line, INK, font(TEXT))
        return canvas

    def _rows(self) -> int:
        kernel_rows = 0 if self.window.kernel is None else self.window.kernel.shape[0]
        return max(self.padded_shape[0], self.window.output_shape[0], kernel_rows)

    def _draw_input(self, draw: ImageDraw.ImageDraw, step: Step) -> None:
        window = self.window
        top, left = window.pads[0][0], window.pads[1][0]
        height, width = window.matrix.shape
        outside = "0" if isinstance(window.layer, Conv) else ""  # pooling leaves padding out
        for row in range(self.padded_shape[0]):
            for column in range(self.padded_shape[1]):
                y, x = row - top, column - left
                if 0 <= y < height and 0 <= x < width:
                    value = window.matrix[y, x]
                    color = tuple(self._in_colors.paint(np.array(value)).tolist())
                    self._draw_cell(draw, "input", row, column, shown(value), color)
                else:
                    self._draw_cell(draw, "input", row, column, outside, PADDING, ink=FAINT)
        rows, columns = window.places(step.row, step.column)
        corner_x, corner_y = self._panels["input"]
        for i, row in enumerate(rows + top):
            for j, column in enumerate(columns + left):
                x, y = corner_x + column * self.cell, corner_y + row * self.cell
                draw.rectangle((x, y, x + self.cell, y + self.cell), outline=WINDOW, width=3)
                if step.weights is not None:
                    weight = f"*{shown(step.weights[i, j])}"
                    place = (x + self.cell - 5, y + self.cell - 4)
                    draw.text(place, weight, WINDOW, font(10), anchor="rs")

    def _draw_output(self, draw: ImageDraw.ImageDraw, step: Step) -> None:
        rows, columns = self.window.output_shape
        now = step.row * columns + step.column
        for index in range(rows * columns):
            row, column = divmod(index, columns)
            value = self.window.output[row, column]
            if index > now:
                self._draw_cell(draw, "output", row, column, "", PAPER)
                continue
            color = tuple(self._out_colors.paint(np.array(value)).tolist())
            self._draw_cell(draw, "output", row, column, shown(value), color)
        x, y = self._panels["output"]
        x, y = x + step.column * self.cell, y + step.row * self.cell
        draw.rectangle((x, y, x + self.cell, y + self.cell), outline=WINDOW, width=3)

    def _draw_cell(
        self,
        draw: ImageDraw.ImageDraw,
        panel: str,
        row: int,
        column: int,
        text: str,
        color: tuple[int, ...],
        ink: tuple[int, int, int] = INK,
    ) -> None:
        x, y = self._panels[panel]
        x, y = x + column * self.cell, y + row * self.cell
        draw.rectangle((x, y, x + self.cell, y + self.cell), fill=color, outline=LINE)
        _write(draw, (x, y), self.cell, text, ink, 14 if self.cell > 40 else 11)


def _limits(values: np.ndarray) -> tuple[float, float]:
    limit = float(np.abs(values).max()) or 1.0
    return -limit, limit


def _write(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    cell: int,
    text: str,
    ink: tuple[int, int, int],
    size: int,
) -> None:
    """A number in the middle of its cell, small enough to fit."""
    while size > 6 and text_width(text, size) > cell - 4:
        size -= 1
    middle = (corner[0] + cell / 2, corner[1] + cell / 2)
    draw.text(middle, text, ink, font(size), anchor="mm")


def _wrapped(text: str, width: int) -> list[str]:
    """Lines that fit the width, broken at spaces."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, TEXT) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save_film(frames: Sequence[Picture], path: Path, frames_per_second: float) -> None:
    """Write a GIF that loops, or with ffmpeg an MP4.

    Raises:
        ConfigError: if an MP4 is wanted and ffmpeg is not installed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".gif":
        frames[0].save(
            path,
            save_all=True,
            append_images=frames[1:],
            duration=round(1000 / frames_per_second),
            loop=0,
        )
        return
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ConfigError(f"{path}: an MP4 needs ffmpeg, which is not installed; a .gif does not")
    with tempfile.TemporaryDirectory() as folder:
        save_frames(frames, Path(folder))
        command = [ffmpeg, "-loglevel", "error", "-y", "-framerate", str(frames_per_second)]
        command += ["-i", f"{folder}/%04d.png", "-pix_fmt", "yuv420p", str(path)]
        subprocess.run(command, check=True)


def save_frames(frames: Sequence[Picture], folder: Path) -> None:
    """Write 0001.png, 0002.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames, 1):
        frame.save(folder / f"{number:04d}.png")


def read_matrix(text: str, patch: str) -> np.ndarray:
    """A matrix: typed, of a size such as 7x7, or a patch of a picture in grey, from 0 to 1.

    Raises:
        ConfigError: if it is none of these.
    """
    if any(sign in text for sign in "; ,") and any(letter.isdigit() for letter in text):
        return parse_matrix(text)
    if re.fullmatch(r"\d+(x\d+)?", text):
        height, width = geometry.parse_size(text)
        # small whole numbers, the same on every machine, that do not repeat soon
        return np.arange(height * width).reshape(height, width) * 7 % 10.0
    if text not in SAMPLES and not Path(text).exists():
        allowed = f'a size such as 7x7, a matrix such as "1 2; 3 4", {NAMED_PICTURES}'
        raise ConfigError(f"there is no {text!r}; allowed: {allowed}{hint(text, SAMPLES)}")
    place = re.fullmatch(r"(\d+)x(\d+)\+(\d+)\+(\d+)", patch)
    if place is None:
        raise ConfigError(f"--patch={patch}; allowed: height x width + top + left, as in 7x7+0+0")
    height, width, top, left = map(int, place.groups())
    image, words = read_photograph(text, 1024, grey=True)
    cut = image[0, top : top + height, left : left + width]
    if cut.shape != (height, width) or not cut.size:
        raise ConfigError(f"--patch={patch} does not lie within {words}")
    return cut / 255


def film(
    matrix: np.ndarray,
    *,
    kernel: str = "identity",
    pool: str | None = None,
    pool_size: str = "2",
    stride: str | None = None,
    padding: str = "valid",
    dilation: str = "1",
    flipped: bool = False,
) -> MovingWindow:
    """The moving window of a convolution or a pool; the arguments are those of scripts/window.py.

    film(parse_matrix("9 4 1; 1 1 1; 1 2 1"), kernel="0 2 1; 4 1 0; 1 0 1").frames()

    Raises:
        ConfigError: if they do not parse or the window does not fit.
    """
    if pool is not None:
        return MovingWindow(SlidingWindow(matrix, pool_layer(pool, pool_size, stride, padding)))
    weights = parse_kernel(kernel)
    layer = conv_layer(weights, stride or "1", padding, dilation)
    window = SlidingWindow(matrix, layer, weights)
    return MovingWindow(window.flipped if flipped else window, flipped)


def kernel_sheet(
    image: np.ndarray,
    words: str,
    kernels: Sequence[str] = tuple(KERNELS),
    *,
    stride: str = "1",
    padding: str = "same",
    dilation: str = "1",
    flipped: bool = False,
    signed: bool = False,
) -> Picture:
    """An image (C, H, W) uint8 called `words`, and the results of kernels, channel by channel.

    The arguments are those of scripts/kernels.py: names or matrices; `flipped` is true convolution,
    `signed` shows 0 as grey, so that negative values show.

    Raises:
        ConfigError: if they do not parse or a window does not fit.
    """
    tiles, captions = [tile(image, 320)], [words]
    for name in kernels:
        kernel = parse_kernel(name)
        layer = conv_layer(kernel, stride, padding, dilation)
        result = filtered(image, kernel, layer, flipped=flipped, signed=signed)
        tiles.append(tile(result, 320))
        size = f"{result.shape[2]}x{result.shape[1]}"
        captions.append(f"{name.strip()}\n{layer.describe()}: {size}")
    what = "true convolution" if flipped else "cross-correlation"
    values = "0 is grey" if signed else "below 0 is black, above 1 white"
    return sheet(f"{what}, channel by channel; {values}", tiles, captions, 4)
