"""The colors of the runner's world: few, strong and flat."""

from __future__ import annotations

from typing import NamedTuple

Color = tuple[int, int, int]
"""Red, green and blue, 0..255."""


class Theme(NamedTuple):
    """The colors of a corridor's walls: panels, pillars and the cap on top."""

    panel: Color
    pillar: Color
    cap: Color


class Sky(NamedTuple):
    """The colors of the surroundings."""

    top: Color
    middle: Color
    low: Color
    sun: Color
    hills: Color
    peaks: Color
    ground: Color
    floor: Color
    joint: Color


THEMES = (
    Theme((38, 128, 190), (24, 92, 150), (120, 205, 245)),
    Theme((214, 92, 48), (164, 62, 30), (255, 170, 110)),
    Theme((44, 150, 92), (26, 110, 66), (140, 225, 150)),
    Theme((128, 74, 176), (92, 48, 136), (205, 160, 245)),
    Theme((206, 158, 38), (156, 114, 20), (255, 224, 120)),
    Theme((196, 62, 110), (146, 38, 80), (255, 150, 185)),
)
SKIES = (
    Sky(
        top=(70, 150, 235),
        middle=(130, 195, 250),
        low=(200, 232, 252),
        sun=(255, 246, 170),
        hills=(92, 170, 96),
        peaks=(74, 112, 150),
        ground=(96, 176, 84),
        floor=(226, 212, 180),
        joint=(190, 172, 138),
    ),
    Sky(
        top=(92, 56, 140),
        middle=(232, 104, 112),
        low=(255, 186, 110),
        sun=(255, 240, 150),
        hills=(120, 60, 110),
        peaks=(84, 44, 96),
        ground=(150, 84, 96),
        floor=(232, 204, 184),
        joint=(194, 158, 146),
    ),
    Sky(
        top=(16, 22, 66),
        middle=(34, 52, 116),
        low=(74, 104, 170),
        sun=(246, 246, 224),
        hills=(22, 58, 84),
        peaks=(92, 104, 170),
        ground=(28, 66, 78),
        floor=(176, 184, 210),
        joint=(134, 144, 178),
    ),
    Sky(
        top=(40, 160, 160),
        middle=(124, 214, 190),
        low=(228, 246, 206),
        sun=(255, 214, 110),
        hills=(60, 130, 120),
        peaks=(226, 236, 240),
        ground=(216, 190, 120),
        floor=(238, 226, 196),
        joint=(204, 188, 148),
    ),
)
NAVY, SKIN = (28, 36, 84), (255, 214, 150)
RED, WHITE, YELLOW, BLACK = (222, 44, 44), (250, 246, 236), (250, 204, 40), (36, 34, 44)
CRATE, CRATE_TOP, CRATE_SIDE = (58, 62, 84), (150, 160, 190), (40, 42, 60)


def mixed(color: Color, other: Color, share: float) -> Color:
    """Return a color with a share of another."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(color, other, strict=True))
    return red, green, blue
