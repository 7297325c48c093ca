"""The runner's body, seen from behind: legs, arms, a red vest and a head."""

from __future__ import annotations

import math

from PIL import ImageDraw

from glassworld.training.sources.runner.camera import Camera, Point
from glassworld.training.sources.runner.motion import RunnerView
from glassworld.training.sources.runner.palette import (
    BLACK,
    NAVY,
    RED,
    SKIN,
    YELLOW,
    Color,
    mixed,
)

_FEET = {-1: (0.0, 0.0), 0: (0.0, 0.55), 1: (0.1, 0.2), 2: (0.55, 0.0), 3: (0.2, 0.1)}
"""Height of the left and the right foot, by stride."""


def draw_shadow(draw: ImageDraw.ImageDraw, camera: Camera, view: RunnerView, floor: Color) -> None:
    """Draw the runner's shadow on a floor, which shows how high the runner is."""
    column, row, scale = camera.place(view.x, 0.0, view.z)
    wide = scale * (0.6 - 0.12 * view.height) * (1 + 0.3 * view.crouch)
    tall = 0.42 * wide
    box = (column - wide, row - tall, column + wide, row + tall)
    draw.ellipse(box, fill=mixed(floor, BLACK, 0.45))


def draw_runner(draw: ImageDraw.ImageDraw, camera: Camera, view: RunnerView) -> None:
    """Draw the runner from behind: legs, body, arms and head."""
    column, row, scale = camera.place(view.x, view.height, view.z)
    wide, tall = scale * (1 + 0.35 * view.crouch), scale * (1 - 0.58 * view.crouch)
    sine, cosine = math.sin(view.tilt), math.cos(view.tilt)

    def place(x: float, y: float) -> Point:
        x, y = x * wide, y * tall
        return column + x * cosine + y * sine, row + x * sine - y * cosine

    def shape(corners: tuple[Point, ...], color: Color) -> None:
        draw.polygon([place(*corner) for corner in corners], fill=color)

    in_air = view.height > 0.3
    left, right = (0.35, 0.35) if in_air else _FEET[view.stride]
    for side, foot in ((-1, left), (1, right)):
        x = side * 0.24
        shape(((x - 0.17, foot), (x - 0.17, 0.9), (x + 0.17, 0.9), (x + 0.17, foot)), NAVY)
    hand = 1.75 if in_air else 0.85
    for side, swing in ((-1, right), (1, left)):
        x, end = side * 0.64, hand + 0.5 * swing * (not in_air)
        shape(((x - 0.13, 1.4), (x - 0.13, end), (x + 0.13, end), (x + 0.13, 1.4)), SKIN)
    for edge, color in ((0.09, NAVY), (0.0, RED)):  # an outline, because hurdles are red too
        low, high, waist, chest = 0.75 - edge, 1.5 + edge, 0.4 + edge, 0.52 + edge
        shape(((-waist, low), (-chest, high), (chest, high), (waist, low)), color)
    shape(((-0.26, 0.85), (-0.26, 1.35), (0.26, 1.35), (0.26, 0.85)), YELLOW)
    middle, size = place(0.0, 1.78), 0.32 * min(wide, scale)
    box = (middle[0] - size, middle[1] - size, middle[0] + size, middle[1] + size)
    draw.ellipse(box, fill=NAVY)
