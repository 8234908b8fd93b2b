"""The user's own pictures: each file read as an array of the wanted shape."""

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from convscape.base.values import hint
from convscape.data.cache import DataError
from convscape.data.stretch import Stretch

if TYPE_CHECKING:
    from PIL import Image

Shape = tuple[int, int, int]  # (C, H, W)

SAMPLES = ("china", "flower", "digit")
NAMED_PICTURES = f"a picture file, {', '.join(SAMPLES[:-1])} or {SAMPLES[-1]}"
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue: ITU-R BT.601
# what Pillow's decoders raise on damaged files, besides DecompressionBombError
BROKEN_PICTURE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class Picture(NamedTuple):
    """A file, its class, and values that show whether it has changed; -1 if unknown."""

    path: str
    label: int
    size: int  # bytes
    mtime_ns: int


def split_by_name(
    names: Sequence[str], labels: Sequence[int], fraction: float
) -> tuple[list[int], list[int]]:
    """Indices of two parts, the second with `fraction` of each class (at least one of two or more).

    The hash of its name decides which part a picture falls into, so that adding or removing a few
    changes little, and neither a seed nor a library's random numbers matter.
    """
    ranked: dict[int, list[tuple[bytes, int]]] = {}
    for index, (name, label) in enumerate(zip(names, labels, strict=True)):
        rank = hashlib.blake2b(os.fsencode(name), digest_size=8)
        ranked.setdefault(label, []).append((rank.digest(), index))
    second: set[int] = set()
    for members in ranked.values():
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        second.update(index for _, index in sorted(members)[:count])
    return [i for i in range(len(names)) if i not in second], sorted(second)


def split_of_tree(
    pictures: Sequence[Picture], classes: Sequence[str], root: Path, fraction: float
) -> tuple[list[Picture], list[Picture]]:
    """Pictures below `root` for training and for testing, split by name as in `split_by_name`.

    Raises:
        DataError: if a class has only one picture.
    """
    labels = [picture.label for picture in pictures]
    for label, count in enumerate(np.bincount(labels)):
        if count < 2:
            raise DataError(
                f"class {classes[label]!r} in {str(root)!r} has only one picture, too few to "
                "split into train and test; add some, or say which are for testing"
            )
    names = [Path(os.path.relpath(picture.path, root)).as_posix() for picture in pictures]
    train, test = split_by_name(names, labels, fraction)
    return [pictures[i] for i in train], [pictures[i] for i in test]


def read_picture(path: str | Path, shape: Shape) -> np.ndarray:
    """A picture file as uint8 (C, H, W), whatever its size, mode and format.

    It is turned upright (EXIF), and only the first frame of an animation counts. Transparent parts
    become white. 16 bits are scaled to 8 over their full range. Grey (C = 1) is the luma of ITU-R
    601. Resizing works like torchvision's Resize and CenterCrop: the aspect ratio is kept, and the
    excess is cropped on both sides.

    Raises:
        DataError: if it cannot be read.
    """
    from PIL import ImageOps

    channels, height, width = shape
    with _readable(path), _opened(path) as image:
        # lets JPEG decode at an eighth to a half of its size, if that is still large enough
        image.draft(None, (2 * max(height, width),) * 2)
        upright = ImageOps.exif_transpose(image)
        return _fitted(_flattened(upright, channels), shape)


def read_photograph(
    name: str | Path, longest_side: int, grey: bool = False
) -> tuple[np.ndarray, str]:
    """A picture file in its own proportions as uint8 (C, H, W), and what was done to it in words.

    Grey pictures keep their one channel, all others have three. `name` may also be one of
    `SAMPLES`, which come with scikit-learn. Pictures larger than `longest_side` are scaled down.

    Raises:
        DataError: if it cannot be read.
    """
    from PIL import ImageOps

    allowed = f"; allowed: {NAMED_PICTURES}{hint(name, SAMPLES)}"
    with (
        _readable(name, allowed),
        _sample(str(name)) if name in SAMPLES else _opened(name) as image,
    ):
        words = f"{Path(name).name}, {image.width}x{image.height}"
        image.draft(None, (2 * longest_side,) * 2)
        upright = ImageOps.exif_transpose(image)
        is_grey = grey or upright.mode in ("1", "L", "LA", "I", "I;16")
        flat = _flattened(upright, 1 if is_grey else 3)
        if max(flat.size) > longest_side:
            flat = ImageOps.contain(flat, (longest_side, longest_side))
            words += f" scaled down to {flat.width}x{flat.height}"
        pixels = np.asarray(flat)
    return np.atleast_3d(pixels).transpose(2, 0, 1), words


def _opened(path: str | Path) -> "Image.Image":
    from PIL import Image

    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is not a file")  # a pipe would block forever
    return Image.open(path)


def _sample(name: str) -> "Image.Image":
    from PIL import Image

    spec = find_spec("sklearn")  # found without an import, which takes a second
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "datasets"
    if name != "digit":
        return Image.open(folder / "images" / f"{name}.jpg")
    first = np.loadtxt(folder / "data" / "digits.csv.gz", delimiter=",", max_rows=1)
    values = np.round(first[:64].reshape(8, 8) * (255 / 16))  # they are 0 to 16
    return Image.fromarray(values.astype(np.uint8))


@contextmanager
def _readable(path: str | Path, allowed: str = "") -> Iterator[None]:
    """Turn any error of Pillow on a damaged picture into a `DataError`.

    - `allowed`: what is said behind the name of one that does not exist.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except FileNotFoundError:
        raise DataError(f"there is no picture {str(path)!r}{allowed}") from None
    except UnidentifiedImageError:
        if Path(path).suffix.lower() not in SUFFIXES:
            kinds = ", ".join(suffix.removeprefix(".") for suffix in SUFFIXES)
            raise DataError(f"{str(path)!r} is not a picture; allowed: {kinds}") from None
        raise DataError(f"{str(path)!r} holds no picture; repair or delete it") from None
    except (*BROKEN_PICTURE, Image.DecompressionBombError) as error:
        why = f"{error.strerror or error}" if isinstance(error, OSError) else str(error)
        raise DataError(
            f"cannot read the picture {str(path)!r} ({why or type(error).__name__}); "
            "repair or delete it"
        ) from error


def describe_fit(path: str | Path, shape: Shape) -> str:
    """What `read_picture` does to a picture, in words: "640x480 RGB, cut to 480x480, ...".

    Raises:
        DataError: if it cannot be read.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _readable(path), Image.open(path) as image:
        mode, frames = image.mode, getattr(image, "n_frames", 1)
        turned = image.getexif().get(0x0112, 1) != 1  # the EXIF tag of the orientation
        inner = ImageOps.exif_transpose(image).size if turned else image.size
    scale = min(inner[0] / width, inner[1] / height)
    kept = (round(width * scale), round(height * scale))
    words = [f"{inner[0]}x{inner[1]} {mode}"]
    words += ["first frame"] if frames > 1 else []
    words += ["turned upright"] if turned else []
    words += [f"cut to {kept[0]}x{kept[1]}"] if kept != inner else []
    words += [f"resized to {width}x{height}"] if inner != (width, height) else []
    wanted = "L" if channels == 1 else "RGB"
    words += [f"made {'grey' if wanted == 'L' else 'RGB'}"] if mode != wanted else []
    return ", ".join(words)


def as_array(image: "Image.Image") -> np.ndarray:
    """A picture as (C, H, W) in its own number type: grey, or colour without transparency.

    Pictures of 16 or 32 bits keep their values.
    """
    if image.mode not in ("L", "RGB", "I", "F") and not image.mode.startswith("I;16"):
        image = _flattened(image, 1 if image.mode in ("1", "LA") else 3)
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def resized(images: np.ndarray, shape: Shape) -> np.ndarray:
    """Images (N, C, H, W), uint8 or float32, brought to another (C, H, W) as by `read_picture`.

    Channels can only change between grey and colour.
    """
    from PIL import Image

    if images.shape[1:] == shape:
        return images
    result = np.empty((len(images), *shape), dtype=images.dtype)
    is_usual = images.dtype == np.uint8 and images.shape[1] in (1, 3)
    for index, image in enumerate(images):
        if is_usual:
            pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0).copy()
            result[index] = _fitted(_flattened(Image.fromarray(pixels), shape[0]), shape)
        else:
            planes = [_fitted(Image.fromarray(plane.copy()), (1, *shape[1:])) for plane in image]
            result[index] = _with_channels(np.concatenate(planes), shape[0])
    return result


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """An image (C, H, W) turned to `channels` channels; of floats, if they change."""
    if len(image) == channels:
        return image
    if len(image) == 1:
        return image.repeat(channels, 0)
    return np.tensordot(LUMA, image, 1)[None]


class Picked:
    """Some images of an array (N, C, H, W), copied only a few at a time.

    An array that is mapped from a file may be larger than memory.
    """

    def __init__(self, images: np.ndarray, which: Sequence[int]) -> None:
        self._images, self._which = images, np.array(which)
        self.shape, self.dtype = (len(which), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        """The number of images."""
        return len(self._which)

    def __getitem__(self, some: slice) -> np.ndarray:
        """A copy of some images, (n, C, H, W)."""
        chosen: np.ndarray = self._images[self._which[some]]
        return chosen


NUM_AT_ONCE = 4096


def pieces(
    images: np.ndarray | Picked,
    labels: np.ndarray,
    shape: Shape,
    step: int = NUM_AT_ONCE,
    stretch: Stretch | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of images (n, C, H, W) of this shape and their labels (n,)."""
    for start in range(0, len(images), step):
        some = slice(start, start + step)
        pixels = images[some] if stretch is None else stretch.pixels(images[some])
        yield resized(pixels, shape), labels[some].astype(np.int64)


def _flattened(image: "Image.Image", channels: int) -> "Image.Image":
    """The picture as 8-bit grey or colour, without transparency."""
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError("its 32-bit values have no known range: save it with 8 or 16 bits")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image)
        image = page
    return image.convert("L" if channels == 1 else "RGB")


def _fitted(image: "Image.Image", shape: Shape) -> np.ndarray:
    from PIL import Image, ImageOps

    channels, height, width = shape
    if image.size != (width, height):
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, channels).transpose(2, 0, 1)
