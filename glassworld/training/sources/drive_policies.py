"""Seeded scripted drivers that cover the road and every action.

Lengths are in latent frames (four content frames each). Half the drivers press keys, whose steering
is all or nothing. The others move the mouse by any amount.
"""

from collections.abc import Callable, Iterator

import numpy as np

from glassworld.training.sources.source import HeldInput, Keyboard

STILL: Keyboard = (0.0, 0.0)
GO: Keyboard = (1.0, 0.0)
STOP: Keyboard = (0.0, 1.0)

KEY_STEERING = 0.1
"""What a key for steering adds to the mouse."""
LANE = 1.2
"""Largest offset that drivers aim at, in units."""

Steering = Callable[[float], float]
"""Returns the mouse value that leads to an offset from the road's middle."""


class Driver:
    """A driver with a lane and a habit of steering.

    Parameters
    ----------
    steering
        How to reach a lane.
    rng
        The source of every choice.
    keys
        Steer by keys; None chooses at random.
    """

    def __init__(
        self, steering: Steering, rng: np.random.Generator, keys: bool | None = None
    ) -> None:
        self.steering, self.rng = steering, rng
        self.keys = bool(rng.random() < 0.5) if keys is None else keys
        self.noise = float(rng.uniform(0.0, 0.05))
        self.lane = self._draw_lane()

    def _draw_lane(self) -> float:
        return float(self.rng.uniform(-LANE, LANE))

    def length(self) -> int:
        """Draw for how many latent frames to hold an input, mostly one."""
        return int(self.rng.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))

    def steer(self) -> tuple[float, float]:
        """Return the mouse movement that leads to the lane, with noise."""
        value = self.steering(self.lane) + float(self.rng.normal(0, self.noise))
        return 0.0, self._limited(value)

    def random_steering(self, idle: float) -> tuple[float, float]:
        """Draw a mouse movement to one side, or none with probability `idle`."""
        if self.rng.random() < idle:
            return 0.0, 0.0
        side = float(self.rng.choice([-1.0, 1.0]))
        return 0.0, side * (KEY_STEERING if self.keys else float(self.rng.uniform(0.03, 0.2)))

    def _limited(self, value: float) -> float:
        if self.keys:
            return KEY_STEERING * float(np.sign(value)) * (abs(value) > 0.3 * KEY_STEERING)
        return float(np.clip(value, -2 * KEY_STEERING, 2 * KEY_STEERING))

    def hold(self, keyboard: Keyboard, latent_frames: int) -> Iterator[HeldInput]:
        """Hold a pedal for so long and keep to the lane."""
        while latent_frames > 0:
            length = min(self.length(), latent_frames)
            yield HeldInput(length, keyboard, self.steer())
            latent_frames -= length

    def cruise(self) -> Iterator[HeldInput]:
        """Drive, change lanes, let the car roll now and then."""
        while True:
            yield from self.hold(GO, int(self.rng.integers(6, 24)))
            self.lane = self._draw_lane()
            if self.rng.random() < 0.25:
                yield from self.hold(STILL, int(self.rng.integers(1, 4)))

    def weave(self) -> Iterator[HeldInput]:
        """Steer to random sides, along rails too."""
        while True:
            for _ in range(int(self.rng.integers(2, 7))):
                length = int(self.rng.integers(1, 5))
                keys = GO if self.rng.random() < 0.85 else STILL
                yield HeldInput(length, keys, self.random_steering(0.25))
            yield from self.hold(GO, int(self.rng.integers(2, 9)))

    def stop_and_go(self) -> Iterator[HeldInput]:
        """Start, brake, reverse, roll and pause."""
        while True:
            yield from self.hold(GO, int(self.rng.integers(3, 13)))
            yield from self.hold(STOP, int(self.rng.integers(1, 7)))
            if self.rng.random() < 0.5:
                yield from self.hold(STILL, int(self.rng.integers(1, 6)))

    def scatter(self) -> Iterator[HeldInput]:
        """Press anything."""
        pedals = (GO, GO, GO, STOP, STILL, (1.0, 1.0))
        while True:
            keys = pedals[int(self.rng.integers(len(pedals)))]
            yield HeldInput(self.length(), keys, self.random_steering(0.4))

    def rest(self) -> Iterator[HeldInput]:
        """Drive a little, then stand for long, so that the model learns to hold a view."""
        while True:
            yield from self.hold(GO, int(self.rng.integers(0, 12)))
            yield HeldInput(int(self.rng.integers(14, 30)), STILL, (0.0, 0.0))


POLICIES: dict[str, tuple[Callable[[Driver], Iterator[HeldInput]], float]] = {
    "cruise": (Driver.cruise, 0.45),
    "weave": (Driver.weave, 0.25),
    "stop_and_go": (Driver.stop_and_go, 0.12),
    "scatter": (Driver.scatter, 0.08),
    "rest": (Driver.rest, 0.1),
}
"""The policies, each with its share of the episodes."""
