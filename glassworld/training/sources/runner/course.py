"""The course of the runner: corridors, obstacles, and the rules by which a key changes the state.

The course is a chain of straight corridors, each of which ends in a junction. It has no end: what
lies behind a junction is drawn from the seed, the number of the junction and the side taken.

Everything happens in moves of four content frames, one latent frame. A move takes the runner one
cell forward, or leaves it in place. So a state between two moves is discrete (corridor, cell, lane
and a few flags), and all frames between two states follow from the key.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

import numpy as np

MOVE_FRAMES = 4
"""Content frames of a move."""
LEFT, RIGHT = -1, 1
THEMES = 6
"""Number of colors of corridors."""
TURN_ZONE = 3
"""A turn is possible in so many cells before the end of a corridor."""
ENTRY_CELL = 1
"""The cell at which a turn ends, counted from the center of the junction."""
WAITING_MOVES = 3
"""After so many moves in front of the wall at the end, the runner turns by itself."""

Key = Literal["nomove", "jump", "slide", "turnleft", "turnright", "leftside", "rightside"]
KEYS: tuple[Key, ...] = get_args(Key)
"""The columns of the keyboard of the mode `templerun`, in order."""

_TURN_KEYS = {"turnleft": LEFT, "turnright": RIGHT}
_LANE_KEYS = {"leftside": LEFT, "rightside": RIGHT}
_LANES_OF_BLOCKS = ((-1,), (0,), (1,), (-1, 0), (0, 1), (-1, 1))


class Obstacle(Enum):
    """What stands in the way, and the key that gets past it."""

    HURDLE = "jump"
    BEAM = "slide"
    BLOCK = "leftside or rightside"


class ObstacleRow(NamedTuple):
    """Obstacles of one kind in some lanes, half a cell after the start of `cell`."""

    cell: int
    obstacle: Obstacle
    lanes: tuple[int, ...]


class Corridor(NamedTuple):
    """A straight part of the course.

    Attributes
    ----------
    number
        How many corridors come before it.
    length
        Cells from the center of the junction behind to the wall at the end. The center of the next
        junction is one cell before that wall.
    theme
        Index of its color.
    exits
        The open sides of its end: LEFT, RIGHT or both.
    rows
        The obstacles, from near to far.
    """

    number: int
    length: int
    theme: int
    exits: tuple[int, ...]
    rows: tuple[ObstacleRow, ...]

    @property
    def last_cell(self) -> int:
        """The cell at the center of the next junction."""
        return self.length - 1


@lru_cache(maxsize=4096)
def make_corridor(seed: int, number: int, side: int, theme_before: int) -> Corridor:
    """Draw the corridor with this number that one enters by turning to `side`.

    Its color differs from the color of the one before, and from that of the corridor opposite.
    """
    rng = np.random.default_rng((seed, number, side + 1))
    length = int(rng.integers(9, 16))
    hue = int(np.random.default_rng((seed, number)).integers(1, THEMES // 2))
    theme = (theme_before + (hue if side == LEFT else hue + THEMES // 2)) % THEMES
    exits = ((LEFT,), (RIGHT,), (LEFT, RIGHT))[int(rng.choice(3, p=(0.35, 0.35, 0.3)))]
    return Corridor(number, length, theme, exits, tuple(_draw_rows(rng, length)))


def _draw_rows(rng: np.random.Generator, length: int) -> list[ObstacleRow]:
    """Draw obstacles that leave room to react, and none in the zone of the turn."""
    rows = []
    cell = ENTRY_CELL + 2 + int(rng.integers(2))
    while cell < length - TURN_ZONE - 1:
        obstacle = (Obstacle.HURDLE, Obstacle.BEAM, Obstacle.BLOCK)[int(rng.integers(3))]
        lanes: tuple[int, ...] = (-1, 0, 1)
        if obstacle is Obstacle.BLOCK:
            lanes = _LANES_OF_BLOCKS[int(rng.integers(len(_LANES_OF_BLOCKS)))]
        rows.append(ObstacleRow(cell, obstacle, lanes))
        cell += int(rng.integers(3, 6))
    return rows


class Posture(Enum):
    """What the body does when a move begins."""

    UPRIGHT = "upright"
    IN_AIR = "in the air"
    SLIDING = "sliding"


class Turn(NamedTuple):
    """The second half of a turn that is still to come.

    Attributes
    ----------
    side
        LEFT or RIGHT.
    distance
        Cells before the center of the junction at which the turn began.
    lane
        The lane in which it began.
    """

    side: int
    distance: int
    lane: int


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The whole state between two moves.

    Attributes
    ----------
    seed
        Determines the course ahead.
    corridor
        Where the runner is.
    cell
        How far in it.
    lane
        -1 (left), 0 or 1.
    heading
        Quarter turns to the right since the start, 0..3.
    posture
        What the body does.
    turn
        The turn that the last move began, if any.
    knocked_down
        Cells of this corridor whose obstacles fell.
    waiting
        Moves spent in front of the wall at the end.
    entered_by
        The side of the turn that led here; 0 at the start.
    theme_before
        Color of the corridor before.
    """

    seed: int
    corridor: Corridor
    cell: int
    lane: int = 0
    heading: int = 0
    posture: Posture = Posture.UPRIGHT
    turn: Turn | None = None
    knocked_down: tuple[int, ...] = ()
    waiting: int = 0
    entered_by: int = 0
    theme_before: int = 0

    @property
    def in_turn_zone(self) -> bool:
        """Whether a turn to an open side would begin now."""
        return self.turn is None and self.cell >= self.corridor.length - TURN_ZONE

    @property
    def row_ahead(self) -> ObstacleRow | None:
        """The row of obstacles that the next move reaches, if any stands."""
        if self.turn is not None:
            return None
        return self.row_in(0)

    def row_in(self, moves: int) -> ObstacleRow | None:
        """Return the row of obstacles that a run reaches after so many moves, if any stands."""
        cell = self.cell + moves
        for row in self.corridor.rows:
            if row.cell == cell and cell not in self.knocked_down:
                return row
        return None

    def behind(self, side: int) -> Corridor:
        """Return the corridor behind an exit of this one."""
        return make_corridor(self.seed, self.corridor.number + 1, side, self.corridor.theme)


def start_state(seed: int) -> RunState:
    """Return a random start in the first corridor of the course of this seed.

    One in four is so near to the junction that a turn is possible.
    """
    rng = np.random.default_rng((seed, 0xC0))
    corridor = make_corridor(seed, 0, RIGHT, int(rng.integers(THEMES)))
    zone = corridor.length - TURN_ZONE
    first, last = (zone, corridor.last_cell) if rng.random() < 0.25 else (ENTRY_CELL, zone)
    return RunState(
        seed=seed,
        corridor=corridor,
        cell=int(rng.integers(first, last)),
        lane=int(rng.integers(-1, 2)),
        heading=int(rng.integers(4)),
        theme_before=int(rng.integers(THEMES)),
    )


class Travel(Enum):
    """How a move goes along the course."""

    RUN = "runs a cell"
    HIT = "hits an obstacle, which falls, and bounces back"
    BUMP = "runs into the wall at the end and bounces back"
    WAIT = "stands in front of the wall"
    TURN_IN = "first half of a turn"
    TURN_OUT = "second half of a turn"


class Move(NamedTuple):
    """What one move does: the whole effect of a key in a state.

    Attributes
    ----------
    before
        The state before the move.
    after
        The state after the move.
    travel
        How it goes along the course.
    side
        Of a turn: LEFT or RIGHT; else 0.
    swing
        The view swings to this side and back, because no turn is possible there; else 0.
    lane_change
        -1, 0 or 1.
    nudge
        The runner leaves the outer lane for the wall on this side and returns; else 0.
    rises
        The first half of a jump.
    falls
        The second half of a jump.
    drops
        A slide ends the jump: falls at once.
    slides
        The runner is low in the middle of the move.
    """

    before: RunState
    after: RunState
    travel: Travel
    side: int
    swing: int
    lane_change: int
    nudge: int
    rises: bool
    falls: bool
    drops: bool
    slides: bool


def move(state: RunState, key: Key) -> Move:
    """Return the move that a key makes in a state."""
    wanted = _LANE_KEYS.get(key, 0)
    lane = min(max(state.lane + wanted, -1), 1)
    in_air = state.posture is Posture.IN_AIR
    rises = key == "jump" and not in_air
    drops = key == "slide" and in_air
    falls = in_air and not drops
    slides = key == "slide" or (state.posture is Posture.SLIDING and not rises)
    travel, side = _travel(state, key, lane, rises or falls, slides)
    if travel is Travel.HIT:
        rises = slides = drops = False
    posture = Posture.IN_AIR if rises else Posture.UPRIGHT
    if key == "slide" and travel is not Travel.HIT:
        posture = Posture.SLIDING
    after = replace(_moved(state, travel, side), lane=lane, posture=posture)
    turn_key = _TURN_KEYS.get(key, 0)
    swing = turn_key if travel in (Travel.RUN, Travel.BUMP, Travel.WAIT) else 0
    lane_change = lane - state.lane
    nudge = wanted - lane_change
    return Move(state, after, travel, side, swing, lane_change, nudge, rises, falls, drops, slides)


def _travel(state: RunState, key: Key, lane: int, in_air: bool, low: bool) -> tuple[Travel, int]:
    """Return how a move goes along the course, and the side of a turn."""
    if state.turn is not None:
        return Travel.TURN_OUT, state.turn.side
    side = _TURN_KEYS.get(key, 0)
    if state.in_turn_zone and side in state.corridor.exits:
        return Travel.TURN_IN, side
    if state.cell == state.corridor.last_cell:
        if state.waiting >= WAITING_MOVES:
            return Travel.TURN_IN, state.corridor.exits[0]
        return (Travel.WAIT if state.waiting else Travel.BUMP), 0
    row = state.row_ahead
    cleared = row is None or lane not in row.lanes
    if row is not None and row.obstacle is Obstacle.HURDLE:
        cleared = cleared or in_air
    if row is not None and row.obstacle is Obstacle.BEAM:
        cleared = cleared or low
    return (Travel.RUN if cleared else Travel.HIT), 0


def _moved(state: RunState, travel: Travel, side: int) -> RunState:
    """Return the state after a move along the course; lane and posture are the caller's."""
    if travel is Travel.RUN:
        return replace(state, cell=state.cell + 1)
    if travel is Travel.HIT:
        return replace(state, knocked_down=(*state.knocked_down, state.cell))
    if travel is Travel.TURN_IN:
        distance = state.corridor.last_cell - state.cell
        return replace(
            state,
            corridor=state.behind(side),
            cell=0,
            heading=(state.heading + side) % 4,
            turn=Turn(side, distance, state.lane),
            knocked_down=(),
            waiting=0,
            entered_by=side,
            theme_before=state.corridor.theme,
        )
    if travel is Travel.TURN_OUT:
        return replace(state, turn=None, cell=ENTRY_CELL)
    return replace(state, waiting=state.waiting + 1)
