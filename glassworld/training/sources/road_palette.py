"""Colors of the drive world and the shapes of its landmarks and of the car, drawn here."""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Sprite = NDArray[np.float32]

SPRITE_SIZE = 64
"""Side of a sprite in pixels."""
_DRAWN_SIZE = 4 * SPRITE_SIZE


class Palette(NamedTuple):
    """The colors of one time of day, 0..255."""

    sky_top: Color
    sky_bottom: Color
    sun: Color
    far_hills: Color
    near_hills: Color
    grass: Color
    dark_grass: Color
    shoulder: Color
    road: Color
    kerb: Color
    bar: Color
    rail: Color
    rail_stripe: Color


PALETTES = (
    Palette(  # noon
        (58, 132, 224),
        (188, 224, 248),
        (255, 250, 214),
        (134, 168, 206),
        (70, 128, 104),
        (98, 176, 66),
        (82, 158, 58),
        (196, 176, 120),
        (84, 86, 96),
        (214, 48, 44),
        (246, 246, 240),
        (226, 228, 232),
        (206, 54, 50),
    ),
    Palette(  # evening
        (62, 56, 128),
        (255, 170, 104),
        (255, 226, 130),
        (150, 92, 134),
        (82, 58, 104),
        (120, 124, 60),
        (104, 108, 54),
        (170, 128, 96),
        (74, 66, 82),
        (250, 196, 60),
        (255, 240, 214),
        (236, 210, 196),
        (110, 60, 120),
    ),
    Palette(  # morning
        (120, 172, 222),
        (255, 214, 216),
        (255, 246, 236),
        (176, 166, 204),
        (104, 134, 150),
        (134, 190, 106),
        (116, 172, 92),
        (214, 196, 164),
        (104, 104, 114),
        (60, 120, 206),
        (250, 250, 250),
        (240, 238, 236),
        (60, 120, 206),
    ),
    Palette(  # desert
        (70, 150, 214),
        (250, 232, 190),
        (255, 252, 226),
        (204, 140, 104),
        (168, 92, 66),
        (226, 184, 112),
        (212, 168, 98),
        (190, 146, 92),
        (96, 84, 82),
        (240, 240, 236),
        (252, 224, 90),
        (238, 230, 216),
        (190, 72, 52),
    ),
    Palette(  # night
        (14, 18, 52),
        (60, 78, 132),
        (244, 244, 226),
        (40, 50, 96),
        (24, 34, 66),
        (30, 74, 66),
        (26, 64, 58),
        (70, 76, 92),
        (44, 46, 62),
        (36, 200, 196),
        (240, 240, 250),
        (176, 186, 214),
        (220, 70, 130),
    ),
)

LANDMARK_COLORS: tuple[Color, ...] = (
    (224, 62, 54),
    (248, 196, 48),
    (60, 118, 216),
    (244, 244, 240),
    (240, 130, 44),
    (150, 76, 176),
)
_CROWNS: tuple[Color, ...] = (
    (40, 122, 60),
    (70, 150, 50),
    (24, 100, 84),
    (206, 120, 40),
    (222, 110, 150),
    (110, 160, 40),
)
"""Colors of trees, by the same numbers."""


@cache
def landmark_sprite(kind: str, color: int) -> Sprite:
    """Return a landmark as float32 [64, 64, 4]: red, green, blue in 0..255, opacity in 0..1."""
    image = Image.new("RGBA", (_DRAWN_SIZE, _DRAWN_SIZE))
    _SHAPES[kind](ImageDraw.Draw(image), color)
    return _reduced(image)


def _reduced(image: Image.Image) -> Sprite:
    """Average an image down, weighing colors by their opacity."""
    pixels = np.asarray(image, np.float32).reshape(SPRITE_SIZE, 4, SPRITE_SIZE, 4, 4)
    opacity = pixels[..., 3:] / 255
    total = opacity.sum((1, 3))
    color = (pixels[..., :3] * opacity).sum((1, 3)) / np.maximum(total, 1e-6)
    return np.concatenate([color, total / 16], -1).astype(np.float32)


def _shade(color: Color, factor: float) -> Color:
    red, green, blue = (min(255, round(channel * factor)) for channel in color)
    return red, green, blue


def _draw_house(draw: ImageDraw.ImageDraw, color: int) -> None:
    wall = LANDMARK_COLORS[color]
    roof = _shade(LANDMARK_COLORS[(color + 2) % len(LANDMARK_COLORS)], 0.75)
    draw.rectangle((28, 112, 228, 256), wall)
    draw.polygon([(8, 116), (128, 24), (248, 116)], roof)
    draw.rectangle((104, 172, 152, 256), _shade(wall, 0.4))
    for left in (48, 172):
        draw.rectangle((left, 146, left + 36, 190), (250, 240, 170))


def _draw_tree(draw: ImageDraw.ImageDraw, color: int) -> None:
    crown = _CROWNS[color]
    draw.rectangle((112, 150, 144, 256), (104, 72, 48))
    draw.ellipse((34, 14, 222, 186), crown)
    draw.ellipse((58, 26, 152, 112), _shade(crown, 1.2))


def _draw_pine(draw: ImageDraw.ImageDraw, color: int) -> None:
    crown = _shade(_CROWNS[color % 3], 0.85)
    draw.rectangle((114, 200, 142, 256), (92, 64, 44))
    draw.polygon([(48, 214), (128, 6), (208, 214)], crown)
    draw.polygon([(48, 214), (128, 6), (120, 214)], _shade(crown, 1.25))


def _draw_sign(draw: ImageDraw.ImageDraw, color: int) -> None:
    board = LANDMARK_COLORS[color]
    for left in (56, 180):
        draw.rectangle((left, 130, left + 20, 256), (90, 90, 96))
    draw.rectangle((12, 40, 244, 164), (250, 250, 250))
    draw.rectangle((26, 54, 230, 150), board)
    mark = (250, 250, 250) if sum(board) < 560 else (40, 44, 60)
    draw.ellipse((92, 66, 164, 138), mark)


_SHAPES = {"house": _draw_house, "tree": _draw_tree, "pine": _draw_pine, "sign": _draw_sign}


@cache
def car_sprite(lean: int, braking: bool) -> Sprite:
    """Return the player's car from behind, as `landmark_sprite` does; `lean` is -4 to 4."""
    image = Image.new("RGBA", (_DRAWN_SIZE, _DRAWN_SIZE))
    draw = ImageDraw.Draw(image)
    body, shift = (232, 60, 48), 7 * lean
    for left in (26, 186):
        draw.rounded_rectangle((left, 186, left + 44, 250), 12, (26, 26, 32))
    draw.rounded_rectangle((12, 138, 244, 226), 26, body)
    cabin = [(56 + shift, 142), (86 + 2 * shift, 72), (170 + 2 * shift, 72), (200 + shift, 142)]
    draw.polygon(cabin, _shade(body, 0.82))
    glass = [(72 + shift, 136), (94 + 2 * shift, 84), (162 + 2 * shift, 84), (184 + shift, 136)]
    draw.polygon(glass, (60, 84, 110))
    lamp = (255, 236, 120) if braking else (140, 20, 24)
    for left in (26, 190):
        draw.rectangle((left, 156, left + 40, 182), lamp)
    draw.rectangle((84, 188, 172, 212), (240, 240, 236))
    return _reduced(image)
