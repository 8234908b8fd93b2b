"""Digits as several people draw them: strokes of points on a square of 0 to 100, down and right.

What is between two points is curved (Catmull and Rom 1974) unless a hand draws straight.
"""

from dataclasses import dataclass, replace
from math import cos, radians, sin

Point = tuple[float, float]


@dataclass(frozen=True)
class Drawn:
    """A digit that was drawn: strokes, each a list of points, and the pen's width."""

    digit: int
    hand: str
    strokes: tuple[tuple[Point, ...], ...]
    pen: float = 6.0

    def moved(self, hand, scale=1.0, right=0.0, down=0.0, slant=0.0, turn=0.0, wide=1.0, **others):
        """The same by another hand: changed about the middle of the square."""

        def place(point):
            x, y = (point[0] - 50) * wide, point[1] - 50
            x -= slant * y
            x, y = (
                x * cos(radians(turn)) - y * sin(radians(turn)),
                x * sin(radians(turn)) + y * cos(radians(turn)),
            )
            return 50 + scale * x + right, 50 + scale * y + down

        strokes = tuple(tuple(place(point) for point in stroke) for stroke in self.strokes)
        return replace(self, hand=hand, strokes=strokes, **others)

    def path(self, steps=8):
        """Its strokes as lines of many points."""
        return [_curve(stroke, steps) for stroke in self.strokes]


def _curve(points, steps):
    if len(points) < 3:
        return list(points)
    ends = [points[0], *points, points[-1]]
    found = []
    for a, b, c, d in zip(ends, ends[1:], ends[2:], ends[3:], strict=False):
        for step in range(steps):
            t = step / steps
            found.append(
                tuple(
                    0.5
                    * (
                        2 * q
                        + (r - p) * t
                        + (2 * p - 5 * q + 4 * r - s) * t**2
                        + (3 * q - p - 3 * r + s) * t**3
                    )
                    for p, q, r, s in zip(a, b, c, d, strict=True)
                )
            )
    return [*found, points[-1]]


ROUND = Drawn(
    3,
    "round",
    (
        (
            (30, 24), (40, 15), (55, 13), (67, 20), (70, 31), (63, 42), (48, 48),
            (62, 51), (72, 62), (71, 76), (59, 86), (43, 87), (28, 78),
        ),
    ),
)  # fmt: skip
FLAT = Drawn(
    3,
    "flat top",
    (
        ((28, 15), (29, 15), (50, 15), (71, 15), (72, 16), (61, 28), (46, 43), (45, 44),
         (60, 46), (72, 57), (72, 72), (61, 84), (44, 87), (28, 80)),
    ),
)  # fmt: skip
POINTED = Drawn(
    3,
    "pointed",
    (
        ((32, 18), (50, 12), (66, 18), (66, 30), (56, 42), (44, 49), (44, 50)),
        ((44, 50), (60, 52), (70, 64), (66, 80), (50, 88), (31, 82)),
    ),
)
LOOPED = Drawn(
    3,
    "looped",
    (
        (
            (29, 28), (36, 17), (52, 12), (66, 19), (66, 33), (54, 44), (44, 46), (42, 50),
            (48, 52), (55, 47), (66, 52), (73, 66), (66, 82), (50, 89), (34, 85), (27, 74),
        ),
    ),
)  # fmt: skip
HEAVY = Drawn(
    3,
    "small head",
    (
        (
            (37, 22), (46, 14), (57, 15), (62, 24), (56, 34), (45, 39),
            (61, 41), (75, 53), (76, 70), (64, 84), (44, 88), (25, 79),
        ),
    ),
)  # fmt: skip

THREES = [
    ROUND,
    FLAT,
    POINTED,
    LOOPED,
    HEAVY,
    ROUND.moved("thin", pen=1.5),
    FLAT.moved("thin", pen=1.5),
    LOOPED.moved("hairline, small", scale=0.5, pen=1),
    ROUND.moved("felt pen", pen=11),
    POINTED.moved("felt pen", pen=10),
    ROUND.moved("slanted", slant=0.35),
    FLAT.moved("slanted", slant=0.3, pen=4),
    HEAVY.moved("leaning back", slant=-0.25),
    ROUND.moved("in a corner", scale=0.32, right=-31, down=-31, pen=3),
    FLAT.moved("in a corner", scale=0.3, right=33, down=32, pen=4),
    POINTED.moved("small", scale=0.25, pen=2.5),
    LOOPED.moved("small", scale=0.3, right=20, down=-25, pen=3),
    HEAVY.moved("wide", wide=1.35, pen=5),
    FLAT.moved("narrow", wide=0.6, pen=5),
    ROUND.moved("turned", turn=12, right=10, scale=0.7),
]

ZERO = Drawn(
    0,
    "oval",
    (((52, 12), (36, 20), (27, 45), (32, 74), (48, 87), (65, 76), (73, 48), (66, 20), (50, 12)),),
)
ONE = Drawn(1, "bar", (((50, 12), (50, 88)),))
FLAGGED = Drawn(1, "flagged", (((38, 26), (53, 13)), ((53, 13), (52, 87))))
TWO = Drawn(
    2,
    "swan",
    (
        ((29, 30), (36, 16), (53, 12), (68, 22), (67, 38), (54, 56), (38, 72), (27, 86)),
        ((27, 86), (50, 85), (74, 85)),
    ),
)
LOOPED_TWO = Drawn(
    2,
    "looped",
    (
        (
            (30, 28), (38, 15), (56, 13), (67, 25), (62, 45), (46, 68), (34, 82), (27, 80),
            (32, 73), (45, 77), (60, 86), (74, 82),
        ),
    ),
)  # fmt: skip
FOUR = Drawn(4, "open", (((36, 14), (30, 52)), ((30, 52), (72, 50)), ((62, 18), (60, 88))))
CLOSED_FOUR = Drawn(4, "closed", (((60, 12), (26, 60)), ((26, 60), (76, 59)), ((60, 12), (60, 88))))
FIVE = Drawn(
    5,
    "capped",
    (
        ((36, 15), (33, 45)),
        ((33, 45), (50, 40), (67, 50), (70, 67), (60, 83), (44, 87), (28, 80)),
        ((36, 15), (69, 14)),
    ),
)
QUICK_FIVE = Drawn(
    5,
    "in one go",
    (((70, 14), (69, 14), (38, 15), (37, 16), (34, 44), (35, 45), (52, 41), (68, 53), (68, 72),
      (54, 86), (30, 83)),),
)  # fmt: skip
SIX = Drawn(
    6,
    "curled",
    (
        (
            (62, 12), (45, 26), (34, 48), (32, 70), (42, 86), (58, 86), (68, 73), (64, 59),
            (50, 54), (36, 63),
        ),
    ),
)  # fmt: skip
SEVEN = Drawn(7, "plain", (((26, 16), (73, 15)), ((73, 15), (56, 48), (45, 88))))
CROSSED = SEVEN.moved("crossed")
CROSSED = replace(CROSSED, strokes=(*CROSSED.strokes, ((40, 52), (68, 50))))
EIGHT = Drawn(
    8,
    "in one go",
    (
        (
            (66, 23), (52, 12), (37, 19), (37, 34), (52, 47), (67, 61), (67, 78), (51, 88),
            (35, 79), (35, 63), (50, 48), (64, 36), (66, 23),
        ),
    ),
)  # fmt: skip
RINGS = Drawn(
    8,
    "two rings",
    (
        ((50, 13), (37, 20), (37, 37), (50, 45), (63, 37), (63, 20), (50, 13)),
        ((50, 45), (34, 54), (33, 76), (50, 87), (67, 76), (66, 54), (50, 45)),
    ),
)
NINE = Drawn(
    9,
    "hooked",
    (
        (
            (67, 26), (55, 13), (38, 18), (33, 34), (44, 46), (58, 42), (67, 27), (67, 50),
            (64, 72), (52, 87), (36, 83),
        ),
    ),
)  # fmt: skip
STRAIGHT_NINE = Drawn(
    9,
    "straight",
    (
        ((64, 24), (52, 13), (37, 21), (36, 38), (49, 46), (62, 38), (65, 23)),
        ((65, 23), (62, 55), (58, 88)),
    ),
)

DIGITS = [
    ZERO,
    ZERO.moved("thin, slanted", slant=0.3, pen=2),
    ONE.moved("small, thin", scale=0.3, right=28, down=-20, pen=1.5),
    FLAGGED,
    TWO,
    LOOPED_TWO.moved("thin", pen=2),
    ROUND.moved("small, slanted", scale=0.4, slant=0.3, right=-22, down=15, pen=3),
    FLAT.moved("felt pen", pen=10),
    FOUR,
    CLOSED_FOUR.moved("in a corner", scale=0.33, right=30, down=30, pen=3),
    FIVE,
    QUICK_FIVE.moved("slanted", slant=0.25, pen=4),
    SIX,
    SIX.moved("small", scale=0.3, right=-25, down=-25, pen=3),
    SEVEN.moved("thin", pen=2),
    CROSSED,
    EIGHT,
    RINGS.moved("felt pen", pen=9),
    NINE.moved("leaning back", slant=-0.2, pen=5),
    STRAIGHT_NINE.moved("small", scale=0.4, right=20, pen=3),
]
