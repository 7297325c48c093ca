"""Perspective: from the runner's world to points of the drawing."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassworld.training.sources.runner.motion import RunnerView
from glassworld.training.sources.runner.palette import Color
from glassworld.training.sources.runner.quads import Quads

HEIGHT, WIDTH = 64, 96
SCALE = 3
"""Pixels drawn per pixel returned, along each axis."""
FULL_HEIGHT, FULL_WIDTH = HEIGHT * SCALE, WIDTH * SCALE
FOCAL = 62.0 * SCALE
"""Focal length in drawn pixels: a field of view of 75 degrees."""
HORIZON = 24.0 * SCALE
"""Row of the horizon in the drawing, at rest."""
_NEAR, _EDGE = 0.5, 0.8
"""Depth before which nothing is drawn; tangent of half the field of view, a bit more."""
_FADE_START, _FADE_LENGTH = 8.0, 20.0
_HAZE_START, _HAZE_LENGTH, _HAZE_LIMIT = 12.0, 80.0, 0.6

Point = tuple[float, float]
"""Column and row in the drawing."""
_Array = NDArray[np.float64]


class Polygon(NamedTuple):
    """A polygon of the drawing.

    Attributes
    ----------
    distance
        Of its object from the camera.
    outline
        Its corners.
    color
        Its color at this distance.
    """

    distance: float
    outline: list[Point]
    color: Color


class Camera:
    """The camera of a view.

    Parameters
    ----------
    view
        Says where the camera is.
    """

    def __init__(self, view: RunnerView) -> None:
        self.x, self.z, self.height = view.camera
        self.azimuth = view.state.heading * math.pi / 2 + view.yaw
        self.horizon = HORIZON + FOCAL * view.shake
        self._sine, self._cosine = math.sin(view.yaw), math.cos(view.yaw)

    def distance(self, x: float, z: float) -> float:
        """Return the distance of a place, regardless of height."""
        return math.hypot(x - self.x, z - self.z)

    def place(self, x: float, height: float, z: float) -> tuple[float, float, float]:
        """Return column, row and scale (drawn pixels per unit) of a point before the camera."""
        x, z = x - self.x, z - self.z
        scale = FOCAL / max(x * self._sine + z * self._cosine, _NEAR)
        column = FULL_WIDTH / 2 + scale * (x * self._cosine - z * self._sine)
        return column, self.horizon + scale * (self.height - height), scale

    def project(self, quads: Quads, haze: Color) -> list[Polygon]:
        """Return the quads that the camera sees, in their order; far ones take the haze's color."""
        x, z = quads.corners[..., 0] - self.x, quads.corners[..., 2] - self.z
        depth = x * self._sine + z * self._cosine
        across = x * self._cosine - z * self._sine
        seen = (depth > _NEAR).any(1)
        for side in (-1, 1):
            seen &= (side * across < _EDGE * depth).any(1)
        quads = Quads(*(array[seen] for array in quads))
        points = np.stack([depth[seen], across[seen], quads.corners[..., 1] - self.height], -1)
        away = quads.anchors - np.array([self.x, self.z])
        distances = np.hypot(away[:, 0], away[:, 1]).tolist()
        colors = _colors(quads, points[..., 0].mean(1), haze)
        outlines = [
            self._outline(corners if near > _NEAR else _clipped(corners))
            for corners, near in zip(points.tolist(), points[..., 0].min(1).tolist(), strict=True)
        ]
        return [Polygon(*parts) for parts in zip(distances, outlines, colors, strict=True)]

    def _outline(self, corners: list[list[float]]) -> list[Point]:
        middle, horizon = FULL_WIDTH / 2, self.horizon
        return [
            (middle + FOCAL * across / depth, horizon - FOCAL * height / depth)
            for depth, across, height in corners
        ]


def _colors(quads: Quads, depth: _Array, haze: Color) -> list[Color]:
    """Return the colors at a depth: details fade, and all things take on the haze."""
    depth = depth[:, None]
    fade = np.clip((depth - _FADE_START) / _FADE_LENGTH, 0, 1)
    colors = quads.colors + fade * (quads.far_colors - quads.colors)
    share = np.clip((depth - _HAZE_START) / _HAZE_LENGTH, 0, _HAZE_LIMIT)
    colors = colors + share * (np.array(haze) - colors)
    return [(red, green, blue) for red, green, blue in colors.astype(int).tolist()]


def _clipped(corners: list[list[float]]) -> list[list[float]]:
    """Cut a polygon of (depth, across, height) at the near plane (Sutherland and Hodgman)."""
    kept = []
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        if start[0] > _NEAR:
            kept.append(start)
        if (start[0] > _NEAR) != (end[0] > _NEAR):
            share = (_NEAR - start[0]) / (end[0] - start[0])
            kept.append([a + share * (b - a) for a, b in zip(start, end, strict=True)])
    return kept
