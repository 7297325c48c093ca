"""How the collector plays: seeded policies that cover the maze and every action.

A policy is a generator of segments: it is told how far the nearest wall ahead is and says what
to hold next and for how long. Lengths are counted in latent frames (four content frames), because a
model of this kind sees an action only at that grain.
"""

from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np


class HeldInput(NamedTuple):
    """What is held, for how many latent frames."""

    length: int
    keyboard: tuple[float, float, float, float]
    mouse: tuple[float, float]


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
_NEAR_UNITS = 70.0


class Player:
    """Draws what the policies need; one seed, one sequence.

    Args:
        rng: the source of every choice.
        block_aligned: hold actions for whole blocks of three latent frames, as live play does.
    """

    def __init__(self, rng: np.random.Generator, block_aligned: bool) -> None:
        self.rng = rng
        self.block_aligned = block_aligned
        self._first = True

    def length(self) -> int:
        """Latent frames to hold; the first block has one less, as the picture is its first."""
        first, self._first = self._first, False
        if self.block_aligned:
            blocks = int(self.rng.choice([1, 2], p=[0.8, 0.2]))
            return 3 * blocks - int(first)
        return int(self.rng.choice(6, p=[0.15, 0.15, 0.4, 0.1, 0.1, 0.1])) + 1

    def mouse(self, turn: float) -> tuple[float, float]:
        """A turn (-1, 0 or 1), now and then twice as fast, now and then with a useless tilt."""
        tilt = float(self.rng.choice([-0.1, 0.0, 0.1], p=[0.05, 0.9, 0.05]))
        speed = 0.2 if self.rng.random() < 0.1 else 0.1
        return tilt, turn * speed

    def turn(self, idle: float) -> float:
        """-1 (left), 0 with probability `idle`, or 1 (right)."""
        if self.rng.random() < idle:
            return 0.0
        return float(self.rng.choice([-1.0, 1.0]))


def wander(player: Player) -> Policy:
    """Walk where there is room, turn to where there is: covers the map."""
    clearance = yield HeldInput(player.length(), STILL, player.mouse(player.turn(0.5)))
    side = player.turn(0.0)
    while True:
        if clearance < _NEAR_UNITS:
            keys = STILL if player.rng.random() < 0.8 else BACK
            clearance = yield HeldInput(player.length(), keys, player.mouse(side))
        else:
            curve = player.mouse(player.turn(0.65))
            clearance = yield HeldInput(player.length(), FORWARD, curve)
            side = player.turn(0.0)


def scatter(player: Player) -> Policy:
    """Any keys with any turn."""
    while True:
        keys = _WALKS[int(player.rng.integers(len(_WALKS)))]
        if player.rng.random() < 0.15:
            keys = STILL
        yield HeldInput(player.length(), keys, player.mouse(player.turn(0.5)))


def look_around(player: Player) -> Policy:
    """Turn on the spot, long and to both sides, with steps and pauses in between."""
    while True:
        turn = player.turn(0.0)
        for _ in range(int(player.rng.integers(1, 5))):
            yield HeldInput(player.length(), STILL, player.mouse(turn))
        keys = (STILL, FORWARD, BACK, LEFT, RIGHT)[int(player.rng.integers(5))]
        yield HeldInput(player.length(), keys, player.mouse(0.0))


def retrace(player: Player) -> Policy:
    """Go somewhere and come back by the opposite actions in the opposite order."""
    opposite = {FORWARD: BACK, BACK: FORWARD, LEFT: RIGHT, RIGHT: LEFT, STILL: STILL}
    choices = (FORWARD, FORWARD, LEFT, RIGHT, STILL)
    while True:
        way = []
        for _ in range(int(player.rng.integers(1, 4))):
            keys = choices[int(player.rng.integers(len(choices)))]
            turn = player.turn(0.0 if keys == STILL else 0.6)
            way.append(HeldInput(player.length(), keys, player.mouse(turn)))
            yield way[-1]
        for length, keys, (tilt, turn) in reversed(way):
            yield HeldInput(length, opposite[keys], (tilt, -turn))


def bump(player: Player) -> Policy:
    """Push into walls, slide along them, stand before them."""
    while True:
        for _ in range(int(player.rng.integers(2, 4))):
            yield HeldInput(player.length(), FORWARD, player.mouse(0.0))
        yield HeldInput(player.length(), STILL, player.mouse(0.0))
        keys = (FORWARD, LEFT, RIGHT, STILL)[int(player.rng.integers(4))]
        yield HeldInput(player.length(), keys, player.mouse(player.turn(0.2)))


def rest(player: Player) -> Policy:
    """Go a few steps, then stand for long: what shows nothing new must stay as it is."""
    while True:
        for _ in range(int(player.rng.integers(0, 4))):
            keys = _WALKS[int(player.rng.integers(len(_WALKS)))]
            yield HeldInput(player.length(), keys, player.mouse(player.turn(0.5)))
        for _ in range(int(player.rng.integers(4, 10))):
            yield HeldInput(player.length(), STILL, (0.0, 0.0))


POLICIES: dict[str, tuple[Callable[[Player], Policy], float]] = {
    "wander": (wander, 0.45),
    "scatter": (scatter, 0.15),
    "look_around": (look_around, 0.15),
    "retrace": (retrace, 0.1),
    "bump": (bump, 0.05),
    "rest": (rest, 0.1),
}
"""Every policy with its share of the episodes."""
