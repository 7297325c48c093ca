"""A procedural closed road and what stands beside it, by seed.

The road is a closed curve around the origin, given by its radius as a function of the angle. So the
distance of a point to the road's middle needs no search: it follows from the curve at the point's
own angle, to first order in the distance.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

TABLE_SIZE = 32_768
"""Angles at which the curve is stored: a step is 0.01 units long."""
MEAN_RADIUS = 42.0
HARMONICS = range(2, 8)
SHARPEST_TURN = 0.09
"""Highest curvature in 1 / units: a radius of 11 units."""
STEEPEST = 0.7
"""Highest change of the radius per distance around the origin."""
LARGEST_WAVES = 12.0
"""Size of the waves in units, which is reduced until the curve keeps both limits."""
LANDMARK_SPACING = (7.0, 11.0)
LANDMARK_OFFSET = (4.4, 6.0)
LANDMARK_KINDS = ("house", "house", "tree", "pine", "sign")
LANDMARK_COLORS = 6
"""Colors that a landmark may have, by number."""


class RoadPoint(NamedTuple):
    """Where points [...] lie relative to the road.

    Attributes
    ----------
    offset
        Distance to the middle of the road in units, to the right positive.
    along
        Distance along the road in units.
    """

    offset: Floats
    along: Floats


class Landmark(NamedTuple):
    """A house, a tree or a sign beside the road."""

    x: float
    y: float
    kind: str
    color: int


class Road:
    """A closed road that is driven counterclockwise.

    Parameters
    ----------
    rng
        Draws the curve and the landmarks.

    Attributes
    ----------
    length
        Length of the road in units.
    landmarks
        What stands beside it.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        angle = np.linspace(0, 2 * np.pi, TABLE_SIZE, endpoint=False)
        radius, slope, curvature = _draw_curve(rng, angle)
        step = np.hypot(radius, slope) * (2 * np.pi / TABLE_SIZE)
        self.length = float(step.sum())
        hypotenuse = np.hypot(radius, slope)
        self._radius = radius.astype(np.float32)
        self._cosine = (radius / hypotenuse).astype(np.float32)
        self._sine = (slope / hypotenuse).astype(np.float32)
        self._along = (np.cumsum(step) - step).astype(np.float32)
        self._curvature = curvature.astype(np.float32)
        self.landmarks = self._draw_landmarks(rng)

    def locate(self, x: Floats | np.float32, y: Floats | np.float32) -> RoadPoint:
        """Return where points lie relative to the road."""
        index = self._index(x, y)
        excess = np.hypot(x, y) - self._radius[index]
        along = self._along[index] + excess * self._sine[index]
        return RoadPoint(excess * self._cosine[index], along)

    def direction(self, x: float, y: float) -> float:
        """Return the heading of the road beside a point, in radians counterclockwise from x."""
        index = int(self._index(np.float32(x), np.float32(y)))
        angle = index * (2 * np.pi / TABLE_SIZE)
        return float(angle + np.pi / 2 - np.arctan2(self._sine[index], self._cosine[index]))

    def curvature(self, along: float) -> float:
        """Return the curvature at a distance along the road, in 1 / units, to the left positive."""
        return float(self._curvature[self._index_along(along)])

    def point(self, along: float, offset: float = 0.0) -> tuple[float, float]:
        """Return x, y at a distance along the road and an offset to the right."""
        index = self._index_along(along)
        angle = index * (2 * np.pi / TABLE_SIZE)
        heading = angle + np.pi / 2 - np.arctan2(self._sine[index], self._cosine[index])
        x, y = self._radius[index] * np.cos(angle), self._radius[index] * np.sin(angle)
        return float(x + offset * np.sin(heading)), float(y - offset * np.cos(heading))

    def _index(self, x: Floats | np.float32, y: Floats | np.float32) -> NDArray[np.int32]:
        turns = np.arctan2(y, x) * np.float32(TABLE_SIZE / (2 * np.pi))
        index: NDArray[np.int32] = turns.astype(np.int32) & (TABLE_SIZE - 1)
        return index

    def _index_along(self, along: float) -> int:
        return int(np.searchsorted(self._along, along % self.length)) % TABLE_SIZE

    def _draw_landmarks(self, rng: np.random.Generator) -> list[Landmark]:
        """Place landmarks along both sides, none of them near the start of the table twice."""
        landmarks, along, side = [], 0.0, 1.0
        while along < self.length - LANDMARK_SPACING[0]:
            x, y = self.point(along, side * float(rng.uniform(*LANDMARK_OFFSET)))
            kind = LANDMARK_KINDS[int(rng.integers(len(LANDMARK_KINDS)))]
            landmarks.append(Landmark(x, y, kind, int(rng.integers(LANDMARK_COLORS))))
            along += float(rng.uniform(*LANDMARK_SPACING))
            side = -side
        return landmarks


def _draw_curve(
    rng: np.random.Generator, angle: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Draw the radius at each angle; return it, its derivative and the curvature."""
    waves = [(k, rng.normal() / k**1.2, rng.uniform(0, 2 * np.pi)) for k in HARMONICS]

    def curve(angle: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        radius = MEAN_RADIUS + size * sum(a * np.cos(k * angle + p) for k, a, p in waves)
        slope = -size * sum(a * k * np.sin(k * angle + p) for k, a, p in waves)
        bend = -size * sum(a * k * k * np.cos(k * angle + p) for k, a, p in waves)
        return (
            radius,
            slope,
            (radius**2 + 2 * slope**2 - radius * bend) / np.hypot(radius, slope) ** 3,
        )

    size = LARGEST_WAVES
    while True:
        radius, slope, curvature = curve(angle[:: TABLE_SIZE // 512])
        if np.abs(curvature).max() <= SHARPEST_TURN and np.abs(slope / radius).max() < STEEPEST:
            radius, slope, curvature = curve(angle)
            return radius, slope, curvature
        size *= 0.95
