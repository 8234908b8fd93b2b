"""Training images placed on new canvases in each epoch, batch by batch on their device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from convscape.base import machine
from convscape.data.augment import shifted
from convscape.data.cache import Scene
from convscape.data.variants import CLUTTER_SHARE, pixel_order


class Canvases:
    """Draws of a `scene`; an image's place is a function of (seed, image), not of its batch.

    - `objects`: the scene's objects, uint8 (N, C, h, w), on their device.
    """

    def __init__(self, scene: Scene, objects: Tensor) -> None:
        self.scene, self.objects = scene, objects
        self._seed: int | None = None
        self._places: list[tuple[Tensor, Tensor]] = []  # tops and lefts (N,), with the image's last
        self._pieces: list[tuple[Tensor, int, int]] = []  # from which objects, and where in them
        self._order: Tensor | None = None
        if scene.permute is not None:
            order = pixel_order(scene.permute, scene.side**2)
            self._order = torch.from_numpy(order).to(objects.device)

    def draw(self, seed: int, chosen: Tensor, device: torch.device) -> Tensor:
        """Canvases uint8 (B, C, side, side) with the images `chosen` (B,), on `device`."""
        if seed != self._seed:
            self._draw_places(seed)
        canvases = self._laid(self.objects.index_select(0, chosen), *self._places[-1], chosen)
        piece = self._piece
        for (others, top, left), place in zip(self._pieces, self._places, strict=False):
            strewn = self.objects.index_select(0, others[chosen])
            strewn = strewn[:, :, top : top + piece, left : left + piece]
            canvases = torch.maximum(canvases, self._laid(strewn, *place, chosen))
        if self._order is not None:
            canvases = canvases.flatten(2).index_select(2, self._order).view(canvases.shape)
        return machine.moved(canvases, device)

    @property
    def _piece(self) -> int:
        """The side of a piece of clutter, in pixels."""
        return max(self.objects.shape[2:]) // CLUTTER_SHARE

    def _draw_places(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        count, _, height, width = self.objects.shape
        side, piece = self.scene.side, self._piece

        def below(high: int, size: int) -> Tensor:
            draw = torch.randint(high, (size,), generator=generator)
            return draw.to(self.objects.device)

        self._places = [(below(side - height + 1, count), below(side - width + 1, count))]
        self._pieces = []
        for _ in range(self.scene.num_clutter):
            others = torch.randperm(count, generator=generator).to(self.objects.device)
            top, left = (int(below(size - piece + 1, 1)) for size in (height, width))
            self._pieces.append((others, top, left))
            place = below(side - piece + 1, count), below(side - piece + 1, count)
            self._places.insert(-1, place)
        self._seed = seed

    def _laid(self, things: Tensor, tops: Tensor, lefts: Tensor, chosen: Tensor) -> Tensor:
        """Pictures (B, C, h, w) on black canvases, at the places of the images `chosen`."""
        side = self.scene.side
        down, right = side - things.shape[2], side - things.shape[3]
        corner = F.pad(things, (0, right, 0, down))
        if not max(down, right):
            return corner
        return shifted(corner, tops[chosen], lefts[chosen], max(down, right))
