"""Random changes to a batch of images, on its device, drawn separately for each image."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from convscape.data.mixing import mixed, pasted
from convscape.data.pixels import as_kept
from convscape.data.rand_augment import MOST, rand_augmented

# as in torchvision's RandomErasing: share of the area, aspect ratio, tries to find one that fits
ERASED_AREA = (0.02, 0.33)
ERASED_RATIO = (0.3, 3.3)
ERASING_TRIES = 10


@dataclass(frozen=True)
class Augment:
    """Changes images at random: uint8 (N, C, H, W) in and out. Options at 0 or false cost nothing.

    Images of a float data set are float32 in and out, and neither rounded nor clipped.

    - `shift`: up to this many pixels up, down, left and right; the gap is filled with black.
    - `flip`: left and right are swapped in half of the images.
    - `rotate`: up to this many degrees either way about the centre; the gap is filled with black.
    - `cutout`: a black square with this side in pixels around a random pixel, clipped at the
      border (DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552).
    - `brightness`, `contrast`: a factor between 1 - this and 1 + this, on the values or on their
      distance from the image's mean; 0..1.
    - `rand_augment`: two of fourteen operations for each image, with this strength, 1 to 30; for
      bytes only. See `rand_augment.py`.
    - `random_erasing`: the probability that a rectangle of an image becomes noise (Zhong 2020,
      https://arxiv.org/abs/1708.04896).
    - `own`: functions that take and return such images, called in order. What they draw from
      torch's global generators is repeatable with the seed.
    - `mixup`, `cutmix`: finally, `mix` combines two images into one; see `mixing.py`.
    """

    shift: int = 0
    flip: bool = False
    rotate: float = 0
    cutout: int = 0
    brightness: float = 0
    contrast: float = 0
    rand_augment: int = 0
    random_erasing: float = 0
    mixup: float = 0
    cutmix: float = 0
    own: tuple[Callable[[Tensor], Tensor], ...] = ()

    def __post_init__(self) -> None:
        _check("shift", self.shift, int, math.inf, "a whole number of pixels, 0 or more")
        _check("flip", self.flip, bool, True, "true or false")
        _check("rotate", self.rotate, (int, float), 180, "0 to 180 degrees")
        _check("cutout", self.cutout, int, math.inf, "a whole number of pixels, 0 or more")
        _check("brightness", self.brightness, (int, float), 1, "0 to 1")
        _check("contrast", self.contrast, (int, float), 1, "0 to 1")
        _check("rand_augment", self.rand_augment, int, MOST, f"a whole number, 0 to {MOST}")
        _check("random_erasing", self.random_erasing, (int, float), 1, "a probability, 0 to 1")
        _check("mixup", self.mixup, (int, float), 100, "0 to 100")
        _check("cutmix", self.cutmix, (int, float), 100, "0 to 100")

    @property
    def mixes(self) -> bool:
        """Whether `mix` combines images, which makes their labels soft."""
        return bool(self.mixup or self.cutmix)

    def mix(self, images: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) mixed in pairs, and soft labels (N, num_classes) from ids (N,)."""
        return mixed(images, labels, num_classes, self.mixup, self.cutmix)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Changed copies of `images`, drawn from `generator` (None: torch's own)."""
        num, _, height, width = images.shape

        def uniform(low: float, high: float, *more: int) -> Tensor:
            device = generator.device if generator is not None else images.device
            draw = torch.rand(num, *more, generator=generator, device=device)
            return (draw * (high - low) + low).to(images.device)

        def integers(low: int, high: int) -> Tensor:
            """Integers from `low` to `high`, inclusive."""
            return uniform(low, high + 1).floor().clamp(max=high).long()

        if self.rotate:
            images = rotated(images, uniform(-self.rotate, self.rotate))
        if self.shift:
            down, right = (integers(-self.shift, self.shift) for _ in range(2))
            # an image moved by its full side is already black
            down, right = down.clamp(-height, height), right.clamp(-width, width)
            images = shifted(images, down, right, min(self.shift, max(height, width)))
        if self.flip:
            images = flipped(images, uniform(0, 1) < 0.5)
        if self.brightness:
            images = brightened(images, uniform(1 - self.brightness, 1 + self.brightness))
        if self.contrast:
            images = contrasted(images, uniform(1 - self.contrast, 1 + self.contrast))
        if self.rand_augment:
            images = rand_augmented(images, self.rand_augment, generator)
        if self.cutout:
            rows, columns = integers(0, height - 1), integers(0, width - 1)
            images = cut_out(images, rows, columns, self.cutout)
        if self.random_erasing:
            chosen = uniform(0, 1) < self.random_erasing
            box = rectangles(height, width, lambda low, high: uniform(low, high, ERASING_TRIES))
            images = erased(images, chosen, *box, noise=uniform(0, 1, *images.shape[1:]))
        for change in self.own:
            images = _changed_by(change, images)
        return images


def shifted(images: Tensor, down: Tensor, right: Tensor, most: int) -> Tensor:
    """Image n moved `down[n]` and `right[n]` pixels, at most `most`; the gap is black."""
    num, channels, height, width = images.shape
    padded = images.new_zeros(num, channels, height + 2 * most, width + 2 * most)
    padded[:, :, most : most + height, most : most + width] = images
    # A shifted image is one run of `width` pixels per row: a view has all possible runs, and
    # index_select copies the wanted ones. Three times as fast as indexing single pixels.
    row_stride, plane_stride = padded.stride(2), padded.stride(1)
    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    planes = torch.arange(num * channels, device=images.device).view(num, channels, 1)
    rows = most - down[:, None, None] + torch.arange(height, device=images.device)
    starts = planes * plane_stride + rows * row_stride + (most - right)[:, None, None]
    return runs.index_select(0, starts.flatten()).view(num, channels, height, width)


def flipped(images: Tensor, flip: Tensor) -> Tensor:
    """Image n with left and right swapped if `flip[n]`."""
    num = len(images)
    both = torch.cat([images, images.flip(3)])
    return both.index_select(0, torch.arange(num, device=images.device) + num * flip)


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Image n rotated counter-clockwise by `degrees[n]` about its centre; bilinear, gaps black."""
    height, width = images.shape[2:]
    angle = torch.deg2rad(degrees)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # affine_grid counts both axes from -1 to 1, so rotating a rectangle scales by its sides' ratio
    to_source = torch.stack(
        [cos, -sin * height / width, zero, sin * width / height, cos, zero], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(to_source, list(images.shape), align_corners=False)
    return as_kept(images, F.grid_sample(images.float(), grid, align_corners=False))


def brightened(images: Tensor, factors: Tensor) -> Tensor:
    """Image n times `factors[n]`."""
    return as_kept(images, images * factors[:, None, None, None])


def contrasted(images: Tensor, factors: Tensor) -> Tensor:
    """Image n with its distance from its mean times `factors[n]`."""
    values = images.float()
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    return as_kept(images, mean + (values - mean) * factors[:, None, None, None])


def cut_out(images: Tensor, rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Image n with a black square whose middle pixel is (`rows[n]`, `columns[n]`).

    A square of even `side` reaches one pixel further up and left than down and right.
    """
    height, width = images.shape[2:]
    down = torch.arange(height, device=images.device) - rows[:, None] + side // 2
    right = torch.arange(width, device=images.device) - columns[:, None] + side // 2
    in_rows, in_columns = (down >= 0) & (down < side), (right >= 0) & (right < side)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


def rectangles(
    height: int, width: int, uniform: Callable[[float, float], Tensor]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, bottom, left and right of a random rectangle in each image; ends are exclusive.

    Drawn as by torchvision's RandomErasing: the area and the log of the ratio are uniform, the
    first try that fits is taken, and if none does, the rectangle is empty.

    - `uniform`: draws (N, tries) numbers between two bounds.
    """
    area = uniform(*ERASED_AREA) * height * width
    ratio = uniform(*(math.log(end) for end in ERASED_RATIO)).exp()
    tall, wide = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (tall < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide, down, right = (
        values.gather(1, first).squeeze(1) for values in (tall, wide, uniform(0, 1), uniform(0, 1))
    )
    tall, wide = (side * fits.any(1) for side in (tall, wide))
    top, left = (down * (height - tall + 1)).floor(), (right * (width - wide + 1)).floor()
    return top, top + tall, left, left + wide


def erased(
    images: Tensor,
    chosen: Tensor,
    top: Tensor,
    bottom: Tensor,
    left: Tensor,
    right: Tensor,
    *,
    noise: Tensor,
) -> Tensor:
    """Image n with noise between the sides of its rectangle, if `chosen[n]`.

    - `noise`: (N, C, H, W) of 0 to 1; 1 is the brightest value of a byte, or of the batch.
    """
    if images.dtype == torch.uint8:
        noise = (noise * 256).clamp(max=255).to(torch.uint8)
    else:
        low, high = images.aminmax()
        noise = low + noise * (high - low)
    return pasted(images, noise, top, torch.where(chosen, bottom, top), left, right)


def _changed_by(change: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    changed = change(images)
    if changed.dtype != images.dtype or changed.shape != images.shape:
        raise ValueError(
            f"data.augment.own: {change.__module__}.{change.__name__} made {changed.dtype} "
            f"{tuple(changed.shape)} of {images.dtype} {tuple(images.shape)}; allowed: the same"
        )
    return changed


def _check(
    key: str, value: object, kind: type | tuple[type, ...], most: float, allowed: str
) -> None:
    is_bool = isinstance(value, bool)
    if not isinstance(value, kind) or is_bool != (kind is bool) or not 0 <= value <= most:  # type: ignore[operator]
        raise ValueError(f"augment.{key}={value!r}; allowed: {allowed}")
