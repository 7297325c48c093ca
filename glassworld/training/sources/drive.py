"""A car on a procedural road: new road, landmarks and sky by seed, drawn in numpy.

W accelerates, S brakes and then reverses, the mouse steers while the car moves. The car cannot
leave the road: guard rails deflect it, and it never turns far from the road's direction. So there
is always a road in view, and a world that learned this has no trap.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from glassworld.engine.actions.track import Action
from glassworld.training.sources.drive_policies import POLICIES, Driver
from glassworld.training.sources.road import Road, RoadPoint
from glassworld.training.sources.road_palette import PALETTES
from glassworld.training.sources.road_renderer import RoadRenderer, View, draw_scenery
from glassworld.training.sources.source import (
    ActionPair,
    Frame,
    HeldInput,
    Keyboard,
    Mouse,
    Source,
    WorldFormat,
)

TOP_SPEED, TOP_REVERSE = 3.5, 1.2
"""In units per second; the road is four units wide."""
ACCELERATION, BRAKING, DRAG = 2.4, 5.0, 2.0
"""In units per second squared. Without input the drag stops the car within two seconds."""
MOUSE_LIMIT = 0.2
TURN_PER_UNIT = 1.5
"""Curvature in 1 / units per mouse unit: a mouse of 0.1 drives a circle of 6.7 units radius."""
WIDEST_OFFSET = 1.75
"""Distance from the middle of the road at which the car touches a rail."""
CLOSEST_OFFSET = 1.9
"""Distance from the middle at which the car could only drive along the rail, or away from it."""
WIDEST_ANGLE = np.radians(40.0)
"""Largest angle between the car and the road."""
RAIL_SPEED = 0.6
"""Share of the top speed along a rail."""
START_OFFSET, START_ANGLE = 0.8, 0.12
"""Limits of the start: units from the middle, radians from the road's direction."""


class DriveSource(Source):
    """A car on a closed road. The same seed and actions give the same frames.

    Parameters
    ----------
    seed
        Determines the road, its surroundings and the start of every reset.
    """

    format = WorldFormat("gta_drive")

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self, seed: int | None = None) -> Frame:
        """Start at rest on a new road (see `Source.reset`)."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        rng = np.random.default_rng(int(self._rng.integers(2**62)))
        self.road = Road(rng)
        self.scenery = draw_scenery(rng, PALETTES)
        size = (self.format.height, self.format.width)
        self._renderer = RoadRenderer(*size, self.road, self.scenery)
        along = float(rng.uniform(0, self.road.length))
        self.x, self.y = self.road.point(along, float(rng.uniform(-START_OFFSET, START_OFFSET)))
        angle = float(rng.uniform(-START_ANGLE, START_ANGLE))
        self._side = float(rng.choice([-1.0, 1.0]))
        self.heading = self.road.direction(self.x, self.y) + angle
        self.speed = 0.0
        return self.start_blocks(self._render(0.0, False))

    def advance(self, keyboard: Keyboard, mouse: Mouse | None = None) -> Frame:
        """Hold an action for one content frame (see `Source.advance`)."""
        self.check_keyboard(keyboard)
        forward, back = keyboard
        steering = float(np.clip(mouse[1] if mouse else 0.0, -MOUSE_LIMIT, MOUSE_LIMIT))
        seconds = 1 / self.format.frame_rate
        self.speed = _next_speed(self.speed, forward, back, seconds)
        distance = self.speed * seconds
        self.heading -= self._side * TURN_PER_UNIT * steering * distance
        self.x += distance * float(np.cos(self.heading))
        self.y += distance * float(np.sin(self.heading))
        self._stay_on_road()
        return self._render(steering / MOUSE_LIMIT, back > forward)

    @property
    def offset(self) -> float:
        """Distance from the middle of the road in units, to the right of the view positive."""
        return self._side * float(self._located.offset)

    @property
    def angle(self) -> float:
        """Angle between the car and the road in radians, to the left of the view positive."""
        difference = self.heading - self.road.direction(self.x, self.y)
        return self._side * float(np.angle(np.exp(1j * difference)))

    def curvature(self, ahead: float) -> float:
        """Return the road's curvature so many units ahead, to the left of the view positive."""
        return self._side * self.road.curvature(float(self._located.along) + ahead)

    @property
    def pose(self) -> tuple[float, ...]:
        """Offset, angle, speed and the curvatures here and eight units ahead, about unit std."""
        return (
            self.offset,
            4 * self.angle,
            self.speed / 2 - 1,
            20 * self.curvature(0.0),
            20 * self.curvature(8.0),
        )

    def policy(self, rng: np.random.Generator) -> Iterator[HeldInput]:
        """Yield the inputs of one of the `POLICIES`, chosen by its share."""
        shares = [share for _, share in POLICIES.values()]
        name = str(rng.choice(list(POLICIES), p=shares))
        return POLICIES[name][0](Driver(self.steering, rng))

    def evaluation_actions(self, rng: np.random.Generator) -> Iterator[Action]:
        """Yield the actions of a driver who stays on the road and changes lanes."""
        for held in Driver(self.steering, rng, keys=True).cruise():
            for _ in range(held.length):
                yield Action(held.keyboard, held.mouse)

    def mismatched(self, action: Action) -> Action:
        """Swap the keys, or press W if none is pressed, and steer to the other side."""
        keyboard = action.keyboard[::-1] if any(action.keyboard) else (1.0, 0.0)
        _, across = action.mouse or (0.0, 0.0)
        return Action(keyboard, (0.0, -across))

    @property
    def action_pairs(self) -> Mapping[str, ActionPair]:
        """Steering while driving; going, braking and standing."""
        left, right, go, stop = (self.format.space.press(k) for k in ("w a", "w d", "w", "s"))
        return {
            "turn": ActionPair(left, right, go, turns=True),
            "go_brake": ActionPair(go, stop, go),
            "forward_back": ActionPair(go, stop, self.format.idle),
            "still_moving": ActionPair(self.format.idle, go, self.format.idle),
        }

    def steering(self, target: float) -> float:
        """Return the mouse value that leads to an offset from the middle."""
        error = self.offset - target
        wanted = self.angle - self.curvature(2.0) - 0.25 * error
        return float(wanted / TURN_PER_UNIT)

    @property
    def _located(self) -> RoadPoint:
        return self.road.locate(np.float32(self.x), np.float32(self.y))

    def _render(self, lean: float, braking: bool) -> Frame:
        """Render the view, mirrored where the road is driven clockwise."""
        view = View(self.x, self.y, self.heading, self._side * lean, braking)
        frame = self._renderer.render(view)
        return frame if self._side > 0 else np.ascontiguousarray(frame[:, ::-1])

    def _stay_on_road(self) -> None:
        """Keep the car between the rails, and its angle to the road within limits.

        Toward a rail the largest angle falls with the distance to it. So the car glides along a
        rail, and never faces it.
        """
        offset, direction = float(self._located.offset), self.road.direction(self.x, self.y)
        side, excess = float(np.sign(offset)), abs(offset) - WIDEST_OFFSET
        if excess > 0:
            self.x -= side * excess * float(np.sin(direction))
            self.y += side * excess * float(np.cos(direction))
            self.speed = min(self.speed, RAIL_SPEED * TOP_SPEED)
        angle = self._side * self.angle
        outward = WIDEST_ANGLE * max(0.0, 1 - (offset / CLOSEST_OFFSET) ** 2)
        low, high = (-outward, WIDEST_ANGLE) if side > 0 else (-WIDEST_ANGLE, outward)
        self.heading += float(np.clip(angle, low, high)) - angle


def _next_speed(speed: float, forward: float, back: float, seconds: float) -> float:
    """Return the speed after so many seconds of pedals, within the limits."""
    if forward > back:
        rate = BRAKING if speed < 0 else ACCELERATION
        return min(TOP_SPEED, speed + rate * (forward - back) * seconds)
    if back > forward:
        rate = BRAKING if speed > 0 else ACCELERATION
        lowest = 0.0 if speed > 0 else -TOP_REVERSE  # The car stops before it reverses.
        return max(lowest, speed - rate * (back - forward) * seconds)
    slowed = max(0.0, abs(speed) - DRAG * seconds)
    return float(np.copysign(slowed, speed)) if slowed else 0.0
