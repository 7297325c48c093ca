"""Seeded scripted policies that cover the maze and every action.

A policy is a generator. It receives the distance to the nearest wall ahead and yields the input to
hold next and for how long.
"""

from collections.abc import Callable, Generator

import numpy as np

from glassworld.training.sources.source import LATENT_FRAMES_PER_SECOND, HeldInput

Policy = Generator[HeldInput, float, None]
Keys = tuple[float, float, float, float]

STILL: Keys = (0.0, 0.0, 0.0, 0.0)
FORWARD: Keys = (1.0, 0.0, 0.0, 0.0)
BACK: Keys = (0.0, 1.0, 0.0, 0.0)
LEFT: Keys = (0.0, 0.0, 1.0, 0.0)
RIGHT: Keys = (0.0, 0.0, 0.0, 1.0)
_WALKS: tuple[Keys, ...] = (
    *(FORWARD,) * 4,
    *(BACK,) * 2,
    *(LEFT, RIGHT) * 2,
    (1.0, 0.0, 1.0, 0.0),
    (1.0, 0.0, 0.0, 1.0),
    (0.0, 1.0, 1.0, 0.0),
    (0.0, 1.0, 0.0, 1.0),
    (1.0, 1.0, 0.0, 0.0),
)
_NEAR_WALL = 70.0
"""Distance in map units at which `wander` turns."""


class InputSampler:
    """Random lengths, turns and mouse movements for the policies.

    Parameters
    ----------
    rng
        The source of every choice.
    whole_seconds
        Hold inputs for whole seconds, counted from the start of the episode.
    """

    def __init__(self, rng: np.random.Generator, whole_seconds: bool) -> None:
        self.rng = rng
        self.whole_seconds = whole_seconds
        self._first = True

    def length(self) -> int:
        """Draw how many latent frames to hold an input.

        In whole seconds, the first length is one less: the start image is the first latent frame.
        """
        first, self._first = self._first, False
        if self.whole_seconds:
            seconds = int(self.rng.choice([1, 2], p=[0.8, 0.2]))
            return LATENT_FRAMES_PER_SECOND * seconds - int(first)
        return int(self.rng.choice(6, p=[0.15, 0.15, 0.4, 0.1, 0.1, 0.1])) + 1

    def mouse(self, turn: float) -> tuple[float, float]:
        """Draw a mouse movement for a turn (-1, 0 or 1).

        One in ten is twice as fast, and one in ten has a vertical part, which has no effect.
        """
        tilt = float(self.rng.choice([-0.1, 0.0, 0.1], p=[0.05, 0.9, 0.05]))
        speed = 0.2 if self.rng.random() < 0.1 else 0.1
        return tilt, turn * speed

    def turn(self, idle: float) -> float:
        """Draw -1 (left), 0 with probability `idle`, or 1 (right)."""
        if self.rng.random() < idle:
            return 0.0
        return float(self.rng.choice([-1.0, 1.0]))


def wander(sampler: InputSampler) -> Policy:
    """Walk while the way is free, else turn: covers the map."""
    clearance = yield HeldInput(sampler.length(), STILL, sampler.mouse(sampler.turn(0.5)))
    side = sampler.turn(0.0)
    while True:
        if clearance < _NEAR_WALL:
            keys = STILL if sampler.rng.random() < 0.8 else BACK
            clearance = yield HeldInput(sampler.length(), keys, sampler.mouse(side))
        else:
            curve = sampler.mouse(sampler.turn(0.65))
            clearance = yield HeldInput(sampler.length(), FORWARD, curve)
            side = sampler.turn(0.0)


def scatter(sampler: InputSampler) -> Policy:
    """Hold random keys with random turns."""
    while True:
        keys = _WALKS[int(sampler.rng.integers(len(_WALKS)))]
        if sampler.rng.random() < 0.15:
            keys = STILL
        yield HeldInput(sampler.length(), keys, sampler.mouse(sampler.turn(0.5)))


def look_around(sampler: InputSampler) -> Policy:
    """Turn on the spot, for long and to both sides, with steps and pauses in between."""
    while True:
        turn = sampler.turn(0.0)
        for _ in range(int(sampler.rng.integers(1, 5))):
            yield HeldInput(sampler.length(), STILL, sampler.mouse(turn))
        keys = (STILL, FORWARD, BACK, LEFT, RIGHT)[int(sampler.rng.integers(5))]
        yield HeldInput(sampler.length(), keys, sampler.mouse(0.0))


def retrace(sampler: InputSampler) -> Policy:
    """Walk a short path and return by the opposite inputs in reverse order."""
    opposite = {FORWARD: BACK, BACK: FORWARD, LEFT: RIGHT, RIGHT: LEFT, STILL: STILL}
    choices = (FORWARD, FORWARD, LEFT, RIGHT, STILL)
    while True:
        path = []
        for _ in range(int(sampler.rng.integers(1, 4))):
            keys = choices[int(sampler.rng.integers(len(choices)))]
            turn = sampler.turn(0.0 if keys == STILL else 0.6)
            path.append((sampler.length(), keys, sampler.mouse(turn)))
            yield HeldInput(*path[-1])
        for length, keys, (tilt, turn) in reversed(path):
            yield HeldInput(length, opposite[keys], (tilt, -turn))


def bump(sampler: InputSampler) -> Policy:
    """Push into walls, slide along them, stand in front of them."""
    while True:
        for _ in range(int(sampler.rng.integers(2, 4))):
            yield HeldInput(sampler.length(), FORWARD, sampler.mouse(0.0))
        yield HeldInput(sampler.length(), STILL, sampler.mouse(0.0))
        keys = (FORWARD, LEFT, RIGHT, STILL)[int(sampler.rng.integers(4))]
        yield HeldInput(sampler.length(), keys, sampler.mouse(sampler.turn(0.2)))


def rest(sampler: InputSampler) -> Policy:
    """Walk a few steps, then stand still for long, so that the model learns to hold a view."""
    while True:
        for _ in range(int(sampler.rng.integers(0, 4))):
            keys = _WALKS[int(sampler.rng.integers(len(_WALKS)))]
            yield HeldInput(sampler.length(), keys, sampler.mouse(sampler.turn(0.5)))
        for _ in range(int(sampler.rng.integers(4, 10))):
            yield HeldInput(sampler.length(), STILL, (0.0, 0.0))


POLICIES: dict[str, tuple[Callable[[InputSampler], Policy], float]] = {
    "wander": (wander, 0.45),
    "scatter": (scatter, 0.15),
    "look_around": (look_around, 0.15),
    "retrace": (retrace, 0.1),
    "bump": (bump, 0.05),
    "rest": (rest, 0.1),
}
"""The policies, each with its share of the episodes."""
