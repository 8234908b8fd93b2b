"""A probe's answer as kept in a run folder. The file may be damaged, or a stranger's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from convscape.base.files import read_bytes

MAX_BYTES = 2**26  # the occlusion maps of large images
MAX_SHOWN = 100  # images in a figure

# an accuracy, or a loss of accuracy
Share = Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=-(10**6), le=10**6)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True)

    wanted: dict[str, Any]
    asked: dict[str, Any]
    numbers: dict[str, Share]

    def names(self) -> list[str]:
        """The names of its numbers."""
        raise NotImplementedError

    def fits(self) -> bool:
        """Whether its lists fit together."""
        return True


class _Shift(_Kept):
    offsets: Annotated[list[Pixels], Field(min_length=3)]
    acc: list[list[Share]]

    def names(self) -> list[str]:
        distances = (offset for offset in self.offsets if offset >= 0)
        return [*(f"shift/acc_{distance}" for distance in distances), "shift/consistency"]

    def fits(self) -> bool:
        is_a_range = self.offsets == sorted(set(self.offsets)) and self.offsets[-1] > 0
        return is_a_range and np.shape(self.acc) == (len(self.offsets),) * 2


class _Permute(_Kept):
    def names(self) -> list[str]:
        return ["permute/acc_before", "permute/acc"]


class _Canvas(_Kept):
    sides: Annotated[list[Pixels], Field(min_length=1)]

    def names(self) -> list[str]:
        return [f"canvas/acc_{side}" for side in self.sides]


class _Occlude(_Kept):
    maps: list[list[list[Share]]]
    images: Annotated[list[list[list[list[Byte]]]], Field(max_length=MAX_SHOWN)]
    labels: list[Annotated[str, Field(max_length=1000)]]

    def names(self) -> list[str]:
        return ["occlude/largest_drop"]

    def fits(self) -> bool:
        count, channels, *size = np.shape(self.images)
        places = np.shape(self.maps)
        is_whole = channels in (1, 3) and len(size) == 2 and len(places) == 3
        is_whole = is_whole and 0 not in (count, *size, *places)
        return is_whole and places[0] == len(self.labels) == count


class _Prune(_Kept):
    fractions: Annotated[list[Share], Field(min_length=1)]
    acc: list[Share]

    def names(self) -> list[str]:
        return ["prune/removable"]

    def fits(self) -> bool:
        return len(self.acc) == len(self.fractions)


_KINDS: dict[str, type[_Kept]] = {
    "shift": _Shift,
    "permute": _Permute,
    "canvas": _Canvas,
    "occlude": _Occlude,
    "prune": _Prune,
}


def read_answer(file: Path, wanted: Mapping[str, Any]) -> dict[str, Any] | None:
    """The answer in `file`, if it is complete and answers what is `wanted`.

    - `wanted`: plain values, as stored: "probe", "split", "num_images", its settings.
    """
    try:
        kept = _KINDS[wanted["probe"]].model_validate_json(read_bytes(file, MAX_BYTES))
        is_whole = kept.fits()
    except (OSError, ValueError):  # missing, or not an answer
        return None
    count = kept.asked.get("num_images")
    asked = {key: value for key, value in wanted.items() if key != "other_data"}
    is_asked = kept.wanted == wanted and kept.asked == asked | {"num_images": count}
    is_asked = is_asked and type(count) is int and 0 < count <= wanted["num_images"]
    if not (is_whole and is_asked and {*kept.numbers} == {*kept.names()}):
        return None
    return kept.model_dump()
