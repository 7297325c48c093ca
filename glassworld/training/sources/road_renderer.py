"""A renderer of the road in numpy: floor, guard rails, sky, hills, landmarks and the car.

Each pixel below the horizon shows a point of the floor, whose color follows from where it lies
relative to the road: edges are crisp at any distance. A guard rail is a vertical wall. A ray that
comes down to the rail's height above the road and to the floor beyond the rail has hit it. All is
drawn at twice the size and averaged down.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from glassworld.training.sources.road import Floats, Landmark, Road
from glassworld.training.sources.road_palette import (
    SPRITE_SIZE,
    Palette,
    Sprite,
    car_sprite,
    landmark_sprite,
)

SCALE = 2
"""Supersampling, each way."""
FIELD_OF_VIEW = 72.0
"""Horizontal, in degrees."""
CAMERA_HEIGHT = 1.0
HORIZON = 0.42
"""Share of the image above the horizon."""
ROAD_HALF_WIDTH, KERB_WIDTH = 2.0, 0.35
RAIL_OFFSET, RAIL_HEIGHT = 2.7, 0.5
BAR_HALF_WIDTH, BAR_PERIOD = 0.17, 6.0
"""The bars in the middle of the road are half as long as their period."""
GRASS_PERIOD = 12.0
FOG_START, FOG_END = 14.0, 44.0
"""Distances between which everything fades into the color above the horizon."""
BAR_FADE = (8.0, 20.0)
"""Distances between which the bars fade into the road."""
LANDMARK_SIZE, SIGN_SIZE = 3.4, 2.8
LANDMARK_FADE = (22.0, 27.0)
"""Distances between which landmarks appear. They are at least 8 pixels high."""
SUN_RADIUS = 0.085
"""In radians."""
CAR_SIZE = 0.36
"""Width of the car as a share of the image's."""

SURFACES = 8
GRASS, DARK_GRASS, SHOULDER, ROAD, KERB, BAR, RAIL, RAIL_STRIPE = range(SURFACES)


class View(NamedTuple):
    """Where the car is and what it does.

    Attributes
    ----------
    x
        Position in units.
    y
        Position in units.
    heading
        In radians, counterclockwise from x.
    lean
        How far the car steers, -1 (left) to 1 (right).
    braking
        Whether its lamps shine.
    """

    x: float
    y: float
    heading: float
    lean: float
    braking: bool


class Scenery(NamedTuple):
    """What is far away: colors, the azimuth of the sun in radians, waves of the hills' heights."""

    palette: Palette
    sun: float
    hills: NDArray[np.float64]


def draw_scenery(rng: np.random.Generator, palettes: tuple[Palette, ...]) -> Scenery:
    """Draw colors, the sun and the hills of an episode.

    `hills` is [2, 4, 3]: for each range of hills the frequency, the height in radians and the phase
    of its waves.
    """
    palette = palettes[int(rng.integers(len(palettes)))]
    frequency = np.stack([rng.integers(low, low + 4, 4) for low in (2, 5)])
    height = rng.uniform(0.008, 0.03, (2, 4))
    phase = rng.uniform(0, 2 * np.pi, (2, 4))
    hills = np.stack([frequency, height, phase], -1)
    return Scenery(palette, float(rng.uniform(0, 2 * np.pi)), hills)


class RoadRenderer:
    """Renders views of one road at one time of day.

    Parameters
    ----------
    height
        Height of a frame in pixels.
    width
        Width of a frame in pixels.
    road
        The road and its landmarks.
    scenery
        What is far away.
    """

    def __init__(self, height: int, width: int, road: Road, scenery: Scenery) -> None:
        self.road, self.scenery = road, scenery
        self.rows, self.columns = SCALE * height, SCALE * width
        self.focal = self.columns / 2 / np.tan(np.radians(FIELD_OF_VIEW / 2))
        self.horizon = round(HORIZON * self.rows)
        below = np.arange(self.rows - self.horizon) + 0.5
        self.depth = (self.focal * CAMERA_HEIGHT / below).astype(np.float32)[:, None]
        across = (np.arange(self.columns) + 0.5 - self.columns / 2) / self.focal
        self.across = across.astype(np.float32)
        self.azimuth = -np.arctan(across)
        self.palette = _row_palette(scenery.palette, self.depth)
        elevation = (self.horizon - np.arange(self.horizon) - 0.5) / self.focal
        self.elevation = elevation.astype(np.float32)[:, None]
        top, bottom = (np.array(c, np.float32) for c in scenery.palette[:2])
        share = np.clip(self.elevation / self.elevation.max(), 0, 1)[..., None] ** 0.8
        self.sky = np.broadcast_to(bottom + (top - bottom) * share, (*self._above, 3))

    @property
    def _above(self) -> tuple[int, int]:
        return self.horizon, self.columns

    def render(self, view: View) -> NDArray[np.uint8]:
        """Return the frame of a view: uint8 [H, W, 3]."""
        canvas = np.empty((self.rows, self.columns, 3), np.float32)
        self._draw_sky(canvas[: self.horizon], view)
        rail_depth = self._draw_floor(canvas[self.horizon :], view)
        for depth, across, landmark in self._visible_landmarks(view):
            self._draw_landmark(canvas, rail_depth, depth, across, landmark)
        self._draw_car(canvas, view)
        total = canvas[0::2, 0::2] + canvas[1::2, 0::2] + canvas[0::2, 1::2] + canvas[1::2, 1::2]
        return (total * np.float32(0.25) + np.float32(0.5)).astype(np.uint8)

    def _draw_sky(self, canvas: Floats, view: View) -> None:
        palette, sun, hills = self.scenery
        canvas[:] = self.sky
        azimuth = self.azimuth + view.heading
        away = np.angle(np.exp(1j * (azimuth - sun))).astype(np.float32)
        if np.abs(away).min() < SUN_RADIUS:
            disc = np.hypot(away[None], self.elevation - 0.24) < SUN_RADIUS
            canvas[disc] = palette.sun
        for waves, color, base in zip(hills, palette[3:5], (0.075, 0.03), strict=True):
            frequency, height, phase = waves.T[..., None]
            top = base + (height * np.sin(frequency * azimuth + phase)).sum(0)
            canvas[self.elevation < top.astype(np.float32)] = color

    def _draw_floor(self, canvas: Floats, view: View) -> Floats:
        """Draw floor and rails; return the distance of the rail in each pixel, else infinity."""
        ground = self.road.locate(*self._points(self.depth, view))
        offset = np.abs(ground.offset)
        index = _stripe(ground.along, GRASS_PERIOD)
        for limit, surface in (
            (RAIL_OFFSET, SHOULDER),
            (ROAD_HALF_WIDTH, KERB),
            (ROAD_HALF_WIDTH - KERB_WIDTH, ROAD),
        ):
            np.putmask(index, offset < limit, surface)
        middle = np.flatnonzero(offset < BAR_HALF_WIDTH)
        is_bar = _stripe(ground.along.take(middle), BAR_PERIOD) == 0
        index.put(middle[is_bar], BAR)

        top_depth = self.depth * np.float32(1 - RAIL_HEIGHT / CAMERA_HEIGHT)
        top_offset = np.abs(self.road.locate(*self._points(top_depth, view)).offset)
        rail = (top_offset < RAIL_OFFSET) & (offset > RAIL_OFFSET)
        down = (RAIL_OFFSET - top_offset[rail]) / (offset[rail] - top_offset[rail])
        index[rail] = np.where(np.abs(down - 0.45) < 0.2, RAIL_STRIPE, RAIL)
        index += SURFACES * np.arange(len(index), dtype=np.int32)[:, None]
        np.take(self.palette.reshape(-1, 3), index, 0, canvas)
        return np.where(rail, top_depth, np.float32(np.inf))

    def _points(self, depth: Floats, view: View) -> tuple[Floats, Floats]:
        """Return x, y of the points at a distance ahead, in every column."""
        forward_x, forward_y = np.float32(np.cos(view.heading)), np.float32(np.sin(view.heading))
        x = depth * (forward_x + forward_y * self.across) + np.float32(view.x)
        y = depth * (forward_y - forward_x * self.across) + np.float32(view.y)
        return x, y

    def _visible_landmarks(self, view: View) -> list[tuple[float, float, Landmark]]:
        """Return the distance ahead and to the right of landmarks in view, far ones first."""
        cosine, sine = np.cos(view.heading), np.sin(view.heading)
        visible = []
        for landmark in self.road.landmarks:
            x, y = landmark.x - view.x, landmark.y - view.y
            depth, across = x * cosine + y * sine, x * sine - y * cosine
            if 0.5 < depth < LANDMARK_FADE[1] and abs(across) < depth + LANDMARK_SIZE:
                visible.append((float(depth), float(across), landmark))
        return sorted(visible, key=lambda entry: -entry[0])

    def _draw_landmark(
        self, canvas: Floats, rail_depth: Floats, depth: float, across: float, landmark: Landmark
    ) -> None:
        size = SIGN_SIZE if landmark.kind == "sign" else LANDMARK_SIZE
        size *= self.focal / depth
        left = self.columns / 2 + across / depth * self.focal - size / 2
        bottom = self.horizon + CAMERA_HEIGHT / depth * self.focal
        near, far = LANDMARK_FADE
        opacity = min(1.0, (far - depth) / (far - near))
        free = np.ones((self.rows, 1), bool) & np.ones((1, self.columns), bool)
        free[self.horizon :] = rail_depth > depth
        fog = np.clip((depth - FOG_START) / (FOG_END - FOG_START), 0, 1)
        haze = np.array(self.scenery.palette.sky_bottom, np.float32)
        sprite = landmark_sprite(landmark.kind, landmark.color)
        _paste(canvas, sprite, (left, bottom - size, size), opacity, free, haze * fog, 1 - fog)

    def _draw_car(self, canvas: Floats, view: View) -> None:
        size = CAR_SIZE * self.columns
        left = (self.columns - size) / 2
        sprite = car_sprite(round(4 * view.lean), view.braking)
        _paste(canvas, sprite, (left, self.rows - 0.97 * size, size), 1.0)


def _stripe(along: Floats, period: float) -> NDArray[np.int32]:
    """Return 0 in the first half of each period and 1 in the second."""
    return (along * np.float32(2 / period)).astype(np.int32) & 1


def _row_palette(palette: Palette, depth: Floats) -> Floats:
    """Return the color of everything on the floor by row, with fog: [rows, 8, 3]."""
    colors = np.array(palette[5:8] + palette[8:], np.float32)
    colors = np.stack([colors] * len(depth))
    start, end = BAR_FADE
    fade = np.clip((depth - start) / (end - start), 0, 1)
    colors[:, BAR] += fade * (colors[:, ROAD] - colors[:, BAR])
    fog = np.clip((depth - FOG_START) / (FOG_END - FOG_START), 0, 1)[..., None]
    faded: Floats = colors + fog * (np.array(palette.sky_bottom, np.float32) - colors)
    return faded


def _paste(
    canvas: Floats,
    sprite: Sprite,
    place: tuple[float, float, float],
    opacity: float,
    free: NDArray[np.bool_] | None = None,
    light: Floats | float = 0.0,
    gain: float = 1.0,
) -> None:
    """Draw a sprite into a square of the canvas: left, top and side in pixels."""
    left, top, size = place
    rows, columns = canvas.shape[:2]
    first_row, first_column = max(0, round(top)), max(0, round(left))
    last_row, last_column = min(rows, round(top + size)), min(columns, round(left + size))
    if first_row >= last_row or first_column >= last_column:
        return
    row = (np.arange(first_row, last_row) + 0.5 - top) * SPRITE_SIZE / size
    column = (np.arange(first_column, last_column) + 0.5 - left) * SPRITE_SIZE / size
    row = row.clip(0, SPRITE_SIZE - 1).astype(int)[:, None]
    column = column.clip(0, SPRITE_SIZE - 1).astype(int)
    pixels = sprite[row, column]
    alpha = pixels[..., 3:] * np.float32(opacity)
    target = canvas[first_row:last_row, first_column:last_column]
    if free is not None:
        alpha = alpha * free[first_row:last_row, first_column:last_column, None]
    target += alpha * (pixels[..., :3] * np.float32(gain) + light - target)
