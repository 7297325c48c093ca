"""What is far away in the runner's world: sky, landmarks that show the direction, and hills."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from glassworld.training.sources.runner.camera import (
    FOCAL,
    FULL_HEIGHT,
    FULL_WIDTH,
    HORIZON,
    Point,
)
from glassworld.training.sources.runner.palette import BLACK, RED, WHITE, Color, Sky, mixed

_LIMIT = 62.0
"""Degrees from the center of the view at which a landmark is surely out of sight."""
_HILL_STEP, _HILL_STEPS = 6, 9
"""Degrees between the corners of the hills, and how many are drawn to either side."""


def sky_image(sky: Sky, horizon: float) -> Image.Image:
    """Return a new drawing of sky and ground, with the horizon in a row."""
    top = FULL_HEIGHT - round(horizon)
    return _backdrop(sky).crop((0, top, FULL_WIDTH, top + FULL_HEIGHT))


def draw_panorama(draw: ImageDraw.ImageDraw, sky: Sky, azimuth: float, horizon: float) -> None:
    """Draw the landmarks and the hills that one sees in a direction (radians to the right)."""
    degrees = math.degrees(azimuth)

    def place(across: float, elevation: float) -> Point:
        column = FULL_WIDTH / 2 + FOCAL * math.tan(math.radians(across))
        return column, horizon - FOCAL * math.tan(math.radians(elevation))

    for landmark in _landmarks(sky):
        center = (landmark.center - degrees + 180) % 360 - 180
        if abs(center) < _LIMIT:
            outline = [place(center + across, elevation) for across, elevation in landmark.outline]
            draw.polygon(outline, fill=landmark.color)
    middle = round(degrees / _HILL_STEP)
    hills = [
        place(index * _HILL_STEP - degrees, 2.2 + 1.2 * math.sin(index * math.radians(36)))
        for index in range(middle - _HILL_STEPS, middle + _HILL_STEPS + 1)
    ]
    low = horizon + 2
    draw.polygon([(hills[0][0], low), *hills, (hills[-1][0], low)], fill=sky.hills)


class _Landmark(NamedTuple):
    """Something far away.

    Attributes
    ----------
    center
        Direction in degrees to the right.
    outline
        Degrees from the center and elevation in degrees.
    color
        Its color.
    """

    center: float
    outline: tuple[Point, ...]
    color: Color


@lru_cache(maxsize=8)
def _landmarks(sky: Sky) -> tuple[_Landmark, ...]:
    """Return what shows the direction: sun, peaks, temple, volcano, and clouds between them."""
    light, dark, cloud = sky.peaks, mixed(sky.peaks, BLACK, 0.25), mixed(sky.low, WHITE, 0.6)
    landmarks = [_Landmark(0, _disc(0, 12, 5.5), sky.sun)]
    for degrees in (45, 135, 225, 315):
        for offset, elevation, radius in ((-6, 13, 2.6), (6, 13, 2.6), (0, 14, 3.6)):
            landmarks.append(_Landmark(degrees, _disc(offset, elevation, radius), cloud))
    for left, top, right, height in ((-14, -4, 6, 15), (0, 10, 20, 10)):
        landmarks.append(_Landmark(90, ((left, 0), (top, height), (right, 0)), light))
        landmarks.append(_Landmark(90, ((top + 2, 0), (top, height), (right, 0)), dark))
    for half, step in ((13.0, 4.5), (9.0, 9.0), (5.0, 13.5)):
        for edge, color in ((-half, light), (0.3 * half, dark)):
            outline = ((edge, 0.0), (edge, step), (half, step), (half, 0.0))
            landmarks.append(_Landmark(180, outline, color))
    landmarks.append(_Landmark(270, ((-14, 0), (-4, 13), (4, 13), (14, 0)), dark))
    crater = ((-4, 13), (-2.5, 9.5), (-0.5, 11), (1.5, 9), (4, 13))
    landmarks.append(_Landmark(270, crater, RED))
    return tuple(landmarks)


def _disc(across: float, elevation: float, radius: float) -> tuple[Point, ...]:
    angles = np.linspace(0, 2 * math.pi, 24, endpoint=False)
    circle = zip(np.cos(angles).tolist(), np.sin(angles).tolist(), strict=True)
    return tuple((across + radius * x, elevation + radius * y) for x, y in circle)


@lru_cache(maxsize=8)
def _backdrop(sky: Sky) -> Image.Image:
    """Return a gradient of the sky above the ground, with the horizon in the middle row."""
    half = FULL_HEIGHT
    elevation = np.linspace(half / HORIZON, 0, half)
    parts = np.array([sky.low, sky.middle, sky.top], np.float64)
    rows = np.stack([np.interp(elevation, (0, 0.45, 1), part) for part in parts.T], -1)
    pixels = np.concatenate([rows, np.tile(np.array(sky.ground, np.float64), (half, 1))])
    return Image.fromarray(np.repeat(pixels[:, None].astype(np.uint8), FULL_WIDTH, axis=1))
