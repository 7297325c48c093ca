"""Colored quads in space, the only shape of the runner's world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassworld.training.sources.runner.palette import Color

Span = tuple[float, float]
Corner = tuple[float, float, float]


class Quads(NamedTuple):
    """Quads in the order in which to draw them, as far as their anchors are equally far away.

    Attributes
    ----------
    corners
        [n, 4, 3] as x, height, z.
    anchors
        [n, 2] as x, z: the place by whose distance the quads of all objects are ordered.
    colors
        [n, 3]: the color nearby.
    far_colors
        [n, 3]: the color that details take in the distance, where they would flicker.
    """

    corners: NDArray[np.float64]
    anchors: NDArray[np.float64]
    colors: NDArray[np.float64]
    far_colors: NDArray[np.float64]

    def turned(self, side: int) -> Quads:
        """Return them turned by a quarter to a side, around x = z = 0."""
        corners = self.corners[..., ::-1] * (side, 1.0, -side)
        return self._replace(corners=corners, anchors=self.anchors[..., ::-1] * (side, -side))

    def moved(self, z: float) -> Quads:
        """Return them moved forward."""
        corners, anchors = self.corners.copy(), self.anchors.copy()
        corners[..., 2] += z
        anchors[..., 1] += z
        return self._replace(corners=corners, anchors=anchors)


def join_quads(parts: Iterable[Quads]) -> Quads:
    """Join parts, each behind the one before in the order of drawing."""
    return Quads(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


class QuadBuilder:
    """Collects quads."""

    def __init__(self) -> None:
        self._corners: list[list[Corner]] = []
        self._anchors: list[tuple[float, float]] = []
        self._colors: list[Color] = []
        self._far_colors: list[Color] = []
        self.anchor = (0.0, 0.0)
        """The anchor of the quads to come."""

    def level(
        self, x: Span, z: Span, height: float, color: Color, far: Color | None = None
    ) -> None:
        """Add a level quad."""
        corners = ((x[0], z[0]), (x[0], z[1]), (x[1], z[1]), (x[1], z[0]))
        self._add([(a, height, b) for a, b in corners], color, far)

    def along(
        self, x: float, z: Span, height: Span, color: Color, far: Color | None = None
    ) -> None:
        """Add an upright quad along the corridor."""
        (near, end), (low, high) = z, height
        self._add([(x, low, near), (x, high, near), (x, high, end), (x, low, end)], color, far)

    def across(self, x: Span, z: float, height: Span, color: Color) -> None:
        """Add an upright quad across the corridor."""
        (left, right), (low, high) = x, height
        self._add([(left, low, z), (left, high, z), (right, high, z), (right, low, z)], color)

    def arrow_head(self, x: Span, z: float, height: Span, color: Color) -> None:
        """Add an upright triangle across the corridor that points from x[0] to x[1]."""
        (base, point), (low, high) = x, height
        tip = (point, (low + high) / 2, z)
        self._add([(base, low, z), (base, high, z), tip, tip], color)

    def _add(self, corners: list[Corner], color: Color, far: Color | None = None) -> None:
        self._corners.append(corners)
        self._anchors.append(self.anchor)
        self._colors.append(color)
        self._far_colors.append(far or color)

    def build(self) -> Quads:
        """Return the collected quads."""
        count = len(self._corners)
        return Quads(
            np.array(self._corners, np.float64).reshape(count, 4, 3),
            np.array(self._anchors, np.float64).reshape(count, 2),
            np.array(self._colors, np.float64).reshape(count, 3),
            np.array(self._far_colors, np.float64).reshape(count, 3),
        )
