"""Pictures of what a network is and does, as sheets of tiles: filters, feature maps, mistakes.

They are drawn with Pillow alone, a sheet in milliseconds, which a run can afford during training.
Values become colours; the scale is below the sheet. When to draw is decided elsewhere.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont
from PIL.Image import Image as Picture
from PIL.Image import Resampling

from convscape.drawing.fonts import font_for

TILE = 76  # approximate side of a tile, in pixels
GAP = 8
INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
BETWEEN = (200, 200, 200)  # pictures of which white may be a part
# TensorBoard shows a picture about half as wide as this: letters of TEXT have 11 pixels there
CARD, TEXT = 620, 22
SMALL = 11  # letters of pictures that are viewed at full size
MAX_CLASSES_WITH_NAMES = 20  # classes of a confusion matrix; more would be unreadable
NUM_PAIRS = 5  # classes that are named if not all can be

# Okabe and Ito's blue and vermilion, https://jfly.uni-koeln.de/color/, with white for zero
DIVERGING = np.array([[0, 114, 178], [255, 255, 255], [213, 94, 0]], float)
# viridis at nine equal steps, https://bids.github.io/colormap/
SEQUENTIAL = np.array(
    [
        *([68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141]),
        *([39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]),
    ],
    float,
)
GREYS = np.array([[0, 0, 0], [255, 255, 255]], float)
BLUES = np.array([[255, 255, 255], [0, 114, 178], [0, 40, 80]], float)


@dataclass(frozen=True)
class Scale:
    """The values that the colours stand for: the first for `low`, the last for `high`."""

    colors: np.ndarray
    low: float
    high: float

    @classmethod
    def around_zero(cls, values: ArrayLike) -> Scale:
        """Blue below zero, white at zero, orange above, up to the largest value."""
        limit = _round_up(float(np.abs(values).max(initial=0)))
        return cls(DIVERGING, -limit, limit)

    @classmethod
    def of(cls, values: ArrayLike) -> Scale:
        """Dark to bright from zero, or centred on zero if some values are negative."""
        values = np.asarray(values)
        if values.min(initial=0) < 0:
            return cls.around_zero(values)
        return cls(SEQUENTIAL, 0, _round_up(float(values.max(initial=0))))

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Colours (..., 3) uint8 of `values` (...)."""
        position = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        position = np.nan_to_num(position) * (len(self.colors) - 1)
        places = np.arange(len(self.colors))
        channels = [np.interp(position, places, channel) for channel in self.colors.T]
        return np.stack(channels, -1).round().astype(np.uint8)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, ...: scales rarely change, so steps can be compared."""
    if not value or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def images_with_captions(
    title: str, images: np.ndarray, captions: Sequence[str], columns: int | None = None
) -> Picture:
    """A sheet of images (N, C, H, W), each with its caption below, one line per row.

    - `columns`: images per row of a TensorBoard card; None: eight, with small letters.
    """
    title += which_channels(images.shape[1])
    if columns is None:
        return sheet(title, [tile(image) for image in images], captions, 8)
    tiles = [tile(image, _side(columns, images)) for image in images]
    return sheet(title, tiles, captions, columns, text=TEXT)


def _side(columns: int, images: np.ndarray) -> int:
    """The side of a tile of `images` (N, C, H, W) with this many columns: a whole multiple."""
    side, longest = (CARD - GAP) // columns - GAP, max(images.shape[2:])
    return side // longest * longest or side


def filters(before: np.ndarray, after: np.ndarray, limit: int = 16) -> Picture:
    """Kernels (N, C, H, W) of a first layer: at the start, and below each how it is now.

    Three channels are shown as the red, green and blue of one colour; otherwise the first channel
    is shown, with white for zero.
    """
    pairs = np.stack([before[:limit], after[:limit]], axis=1)
    scale = _filter_scale(Scale.around_zero(pairs), before.shape[1])
    side = _side(8, before)
    stacks = [_stacked([_filter_tile(scale, kernel, side) for kernel in pair]) for pair in pairs]
    captions = [str(number) for number in range(1, len(stacks) + 1)]
    title = f"first layer, filters 1 to {len(pairs)} of {len(after)}: initial above, current below"
    return sheet(title + _which_kernels(before.shape[1]), stacks, captions, 8, scale, TEXT)


def learned(title: str, kernels: np.ndarray, scale: Scale) -> Picture:
    """Kernels (N, C, H, W) of a first layer, drawn as by `filters`."""
    channels = kernels.shape[1]
    scale = _filter_scale(scale, channels)
    tiles = [_filter_tile(scale, kernel) for kernel in kernels]
    captions = [str(number) for number in range(1, len(tiles) + 1)]
    return sheet(title + _which_kernels(channels), tiles, captions, 16, scale)


def _filter_scale(scale: Scale, channels: int) -> Scale:
    return Scale(GREYS, scale.low, scale.high) if channels == 3 else scale


def _filter_tile(scale: Scale, kernel: np.ndarray, size: int = TILE) -> Picture:
    is_rgb = len(kernel) == 3
    return tile(scale.paint(kernel)[..., 0] if is_rgb else _painted(scale, kernel[0]), size)


def _which_kernels(channels: int) -> str:
    return "" if channels in (1, 3) else f"; channel 1 of {channels}"


def feature_maps(
    name: str, images: np.ndarray, maps: np.ndarray, captions: Sequence[str], limit: int = 6
) -> Picture:
    """A row for each of the images (N, C, H, W): the image, then its maps (N, M, H, W)."""
    num_maps = maps.shape[1]
    num = min(limit, num_maps)
    scale = Scale.of(maps[:, :num])
    sides = [_side(limit + 1, each) for each in (images, maps)]
    tiles, texts = [], []
    for image, own_maps, caption in zip(images, maps, captions, strict=True):
        tiles += [
            tile(image, sides[0]),
            *(tile(_painted(scale, each), sides[1]) for each in own_maps[:num]),
        ]
        texts += [caption, *(str(number) for number in range(1, num + 1))]
    height, width = maps.shape[2:]
    title = f"{name}: maps 1 to {num} of {num_maps}, {height}x{width}"
    title += which_channels(images.shape[1])
    return sheet(title, tiles, texts, num + 1, scale, TEXT)


def mistakes(
    split: str,
    images: np.ndarray,
    labels: Sequence[str],
    predicted: Sequence[str],
    probabilities: Sequence[float],
) -> Picture:
    """The misclassified images (N, C, H, W), the worst first."""
    title = f"worst mistakes on the {split} split"
    captions = [
        f"is {label}\nsaid {answer}\n{100 * probability:.0f} % sure"
        for label, answer, probability in zip(labels, predicted, probabilities, strict=True)
    ]
    return images_with_captions(title, images, captions, columns=4)


def confusion_matrix(split: str, counts: np.ndarray, classes: Sequence[str]) -> Picture:
    """A row per true class, a column per answer; colours are shares of the row, 0 to 100 %."""
    num = len(classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    correct = f"{100 * np.trace(counts) / max(counts.sum(), 1):.2f} % of {counts.sum():,} right"
    titles = [f"{split} split: {correct}", "row: true class, column: answer"]
    is_named = num <= MAX_CLASSES_WITH_NAMES
    labels = [clipped(name, 170, TEXT) for name in classes] if is_named else []
    titles += [] if is_named else _most_confused(counts, classes)
    titles = [clipped(line, CARD - 2 * GAP, TEXT) for line in titles]
    left = GAP + max([text_width(label, TEXT) + GAP for label in labels], default=0)
    side = max(1, (CARD - left - GAP) // num)
    is_upright = all(text_width(label, TEXT) <= side for label in labels)
    top = GAP + len(titles) * _line(TEXT) + GAP
    top += (_line(TEXT) if is_upright else left) if labels else 0
    scale = Scale(BLUES, 0, 100)
    cells = np.kron(scale.paint(100 * shares), np.ones((side, side, 1), np.uint8))
    canvas = Image.new("RGB", (max(CARD, left + len(cells) + GAP), top + len(cells) + 60), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, line in enumerate(titles):
        draw.text((GAP, GAP + number * _line(TEXT)), line, INK, font_for(line, TEXT))
    canvas.paste(Image.fromarray(cells), (left, top))
    for index, label in enumerate(labels):
        middle, letters = index * side + side // 2, font_for(label, TEXT)
        draw.text((left - GAP, top + middle), label, INK, letters, anchor="rm")
        if is_upright:
            draw.text((left + middle, top - 4), label, INK, letters, anchor="mb")
        else:
            turned = Image.new("L", (left, _line(TEXT)), 0)
            ImageDraw.Draw(turned).text((4, _line(TEXT) // 2), label, 255, letters, anchor="lm")
            place = (left + middle - _line(TEXT) // 2, top - left)
            canvas.paste(INK, place, turned.rotate(90, expand=True))
        for column in map(int, np.flatnonzero(counts[index])):
            ink = PAPER if shares[index, column] > 0.45 else INK
            place = (left + column * side + side // 2, top + middle)
            draw.text(place, _short(int(counts[index, column]), side), ink, font(TEXT), anchor="mm")
    draw.rectangle((left - 1, top - 1, left + len(cells), top + len(cells)), outline=FAINT)
    _draw_scale(draw, scale, (left, top + len(cells) + 18), " % of the row", TEXT)
    return canvas


def _most_confused(counts: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The classes that are most often confused, a line for each pair."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NUM_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [
        f"{wrong[true, answer]}x {classes[true]} taken for {classes[answer]}"
        for true, answer in pairs
        if wrong[true, answer]
    ]


def _short(count: int, width: int) -> str:
    """A count as it fits: 1135, 1.1k, 1k, or nothing."""
    words = (str(count), f"{count / 1000:.1f}k", f"{count / 1000:.0f}k")
    return next((word for word in words if text_width(word, TEXT) <= width), "")


def _line(size: int) -> int:
    """The distance from one line of text to the next."""
    return size + size // 4 + 1


def viewable(images: np.ndarray) -> np.ndarray:
    """Images (N, C, H, W) of 0 to 255 as they can be shown: uint8 with one channel or three.

    Of two channels the first is shown, of more than three the first three as red, green and blue.
    """
    seen = images[:, : 3 if images.shape[1] > 2 else 1]
    return seen if seen.dtype == np.uint8 else seen.round().clip(0, 255).astype(np.uint8)


def which_channels(num_channels: int) -> str:
    """The end of a title: which channels `viewable` shows, if not all."""
    if num_channels in (1, 3):
        return ""
    which = "1" if num_channels == 2 else "1 to 3 as red, green and blue"
    return f"; of {num_channels} channels {which}"


def tile(pixels: np.ndarray, size: int = TILE) -> Picture:
    """Pixels (C, H, W) as a picture of about `size`: scaled up by a whole number, or down."""
    (channels,) = viewable(pixels[None])
    channels = channels if len(channels) == 3 else np.repeat(channels, 3, 0)
    picture = Image.fromarray(np.ascontiguousarray(channels.transpose(1, 2, 0)))
    factor = size / max(picture.size)
    if factor >= 1:
        factor = max(1, round(factor))
        return picture.resize((picture.width * factor, picture.height * factor), Resampling.NEAREST)
    smaller = (max(1, round(s * factor)) for s in picture.size)
    return picture.resize((next(smaller), next(smaller)), Resampling.BOX)


def _painted(scale: Scale, values: np.ndarray) -> np.ndarray:
    """Colours (3, H, W) of values (H, W)."""
    return scale.paint(values).transpose(2, 0, 1)


def _stacked(tiles: Sequence[Picture]) -> Picture:
    height = sum(each.height for each in tiles) + GAP * (len(tiles) - 1)
    canvas = Image.new("RGB", (tiles[0].width, height), BETWEEN)
    y = 0
    for each in tiles:
        canvas.paste(each, (0, y))
        y += each.height + GAP
    return canvas


def sheet(
    title: str,
    tiles: Sequence[Picture],
    captions: Sequence[str],
    columns: int,
    scale: Scale | None = None,
    text: int = SMALL,
) -> Picture:
    """Tiles in rows under a title, each with its caption below, and the scale of the colours.

    A caption may continue below tiles that have none.

    - `text`: the size of the letters; with large ones the title takes as many lines as it needs.
    """
    columns = max(1, min(columns, len(tiles)))
    width = max((each.width for each in tiles), default=TILE)
    height = max((each.height for each in tiles), default=TILE)
    line = _line(text)
    caption_height = line * max((words.count("\n") + 1 for words in captions), default=1) + 4
    rows = -(-len(tiles) // columns)
    is_large = text > SMALL
    across = columns * (width + GAP) + GAP
    across = max(across, CARD) if is_large else max(across, text_width(title, text + 2) + 2 * GAP)
    titles = _broken(title, across - 2 * GAP, text) if is_large else [title]
    size_of_title = text if is_large else text + 2
    top = 2 * GAP + len(titles) * _line(size_of_title)
    bottom = 2 * line + 4 if scale else 0
    size = (across, top + rows * (height + caption_height + GAP) + bottom)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, words in enumerate(titles):
        draw.text((GAP, GAP + number * line), words, INK, font_for(words, size_of_title))
    for index, (each, caption) in enumerate(zip(tiles, captions, strict=True)):
        x = GAP + index % columns * (width + GAP)
        y = top + index // columns * (height + caption_height + GAP)
        canvas.paste(each, (x, y))
        draw.rectangle((x - 1, y - 1, x + each.width, y + each.height), outline=BETWEEN)
        others = captions[index + 1 : (index // columns + 1) * columns]
        free = next((place for place, other in enumerate(others) if other), len(others))
        room = (free + 1) * (width + GAP) - 2
        for number, words in enumerate(caption.split("\n")):
            place = (x, y + height + 3 + number * line)
            draw.text(place, clipped(words, room, text), INK, font_for(words, text))
    if scale:
        _draw_scale(draw, scale, (GAP, size[1] - bottom), text=text)
    return canvas


def as_png(picture: Picture) -> bytes:
    """A colour picture as a PNG file, in a third of the time that Pillow takes.

    Each row is stored as the difference from the one above (filter 2 of
    https://www.w3.org/TR/png-3/): zero for most rows of a tile. The file is a fifth larger.
    """
    pixels = np.asarray(picture)
    height, width, _ = pixels.shape
    rows = np.full((height, 1 + 3 * width), 2, np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    rows[1:, 1:] -= pixels.reshape(height, -1)[:-1]
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),  # RGB with 8 bits each
        (b"IDAT", zlib.compress(rows.tobytes(), level=2)),
        (b"IEND", b""),
    ):
        checksum = zlib.crc32(kind + data)
        content += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    return content


def _broken(title: str, width: int, size: int) -> list[str]:
    """A title split into lines."""
    lines = [""]
    for word in title.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [clipped(line, width, size) for line in lines]


def _draw_scale(
    draw: ImageDraw.ImageDraw,
    scale: Scale,
    place: tuple[int, int],
    unit: str = "",
    text: int = SMALL,
) -> None:
    """A bar of the colours, between their lowest and highest value."""
    x, y = place
    height, middle = text + 3, y + (text + 3) // 2
    low, high = f"{scale.low:g}", f"{scale.high:g}{unit}"
    draw.text((x, middle), low, INK, font(text), anchor="lm")
    x += text_width(low, text) + 6
    for step, color in enumerate(scale.paint(np.linspace(scale.low, scale.high, 120))):
        draw.line((x + step, y, x + step, y + height), tuple(color.tolist()))
    draw.rectangle((x - 1, y - 1, x + 120, y + height), outline=FAINT)
    draw.text((x + 126, middle), high, INK, font(text), anchor="lm")


def font(size: int) -> ImageFont.FreeTypeFont:
    """The font of numbers and English words."""
    return font_for("", size)


@lru_cache(10_000)  # most words appear again in the next picture
def text_width(text: str, size: int) -> int:
    """The width of the longest line in pixels."""
    return math.ceil(max(font_for(line, size).getlength(line) for line in text.split("\n")))


def clipped(text: str, width: int, size: int) -> str:
    """As much of the text as fits, with an ellipsis if it is cut."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(f"{text}…", size) > width:
        text = text[:-1]
    return f"{text}…"
