"""The shapes of the runner's course, in the coordinates of a corridor."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from glassworld.training.sources.runner.course import LEFT, RIGHT, Corridor, Obstacle, RunState
from glassworld.training.sources.runner.motion import CELL, LANE
from glassworld.training.sources.runner.palette import (
    BLACK,
    CRATE,
    CRATE_SIDE,
    CRATE_TOP,
    RED,
    THEMES,
    WHITE,
    YELLOW,
    Sky,
    Theme,
    mixed,
)
from glassworld.training.sources.runner.quads import QuadBuilder, Quads, Span, join_quads

_HALF = CELL
"""Half the width of a corridor, so that a junction is two cells long."""
_ACROSS: Span = (-_HALF, _HALF)
_WALL, _CAP, _GATE = 3.1, 0.5, 5.4
"""Heights of walls, of the cap on top, and of the wall at the end of a corridor."""
_PEEK = 3
"""So many cells behind an exit are drawn before the runner comes near it."""
_BOTH = (LEFT, RIGHT)


@lru_cache(maxsize=4)
def floor_quads(state: RunState, sky: Sky) -> Quads:
    """Return what lies flat on the ground, in the order in which to draw it."""
    corridor = state.corridor
    parts = [_floor(-1, corridor.length, sky)]
    if state.entered_by:
        parts.append(_floor(-5, -1, sky).turned(-state.entered_by))
    center = CELL * corridor.last_cell
    for side in corridor.exits:
        behind = _floor(1, _drawn_length(state, side), sky)
        parts.append(behind.turned(side).moved(center))
    parts += [
        _beam_shadow(sky).moved(CELL * (row.cell + 0.5))
        for row in corridor.rows
        if row.obstacle is Obstacle.BEAM and row.cell not in state.knocked_down
    ]
    return join_quads(parts)


@lru_cache(maxsize=4)
def upright_quads(state: RunState, fallen: float) -> Quads:
    """Return everything that stands.

    Parameters
    ----------
    state
        Where the runner is.
    fallen
        How far the obstacle of the current cell has fallen, 0..1.
    """
    corridor = state.corridor
    center = CELL * corridor.last_cell
    parts = [_corridor(corridor), *_entry(state)]
    parts += [
        _obstacles(row.obstacle, row.lanes, fallen if row.cell == state.cell else 0.0).moved(
            CELL * (row.cell + 0.5)
        )
        for row in corridor.rows
        if row.cell not in state.knocked_down
    ]
    for side in corridor.exits:
        parts += [part.turned(side).moved(center) for part in _behind_exit(state, side)]
    return join_quads(parts)


def _drawn_length(state: RunState, side: int) -> int:
    """Return how many cells of the corridor behind an exit are drawn."""
    near = state.cell >= state.corridor.length - 4
    return state.behind(side).length if near else 1 + _PEEK


def _behind_exit(state: RunState, side: int) -> Iterator[Quads]:
    """Yield what stands behind an exit, around the center of its junction."""
    behind = state.behind(side)
    if _drawn_length(state, side) < behind.length:
        yield _walls(1, 1 + _PEEK, _BOTH, THEMES[behind.theme])
        return
    yield _corridor(behind)
    for row in behind.rows:
        yield _obstacles(row.obstacle, row.lanes, 0.0).moved(CELL * (row.cell + 0.5))


def _entry(state: RunState) -> Iterator[Quads]:
    """Yield what stands around the junction through which the runner came."""
    theme = THEMES[state.theme_before]
    if not state.entered_by:
        yield _walls(-2, 1, _BOTH, THEMES[state.corridor.theme])
        return
    yield _walls(-5, -1, _BOTH, theme).turned(-state.entered_by)
    yield _gate((state.entered_by,), theme).moved(CELL).turned(-state.entered_by)


@lru_cache(maxsize=256)
def _corridor(corridor: Corridor) -> Quads:
    """Return the walls of a corridor, without those of the junction behind."""
    theme, end = THEMES[corridor.theme], corridor.length - 2
    closed = tuple(side for side in _BOTH if side not in corridor.exits)
    parts = [
        _walls(1, end, _BOTH, theme),
        _walls(end, corridor.length, closed, theme),
        _gate(corridor.exits, theme).moved(CELL * corridor.length),
    ]
    return join_quads(parts)


@lru_cache(maxsize=256)
def _floor(first: int, last: int, sky: Sky) -> Quads:
    """Return the floor of the cells `first` to `last`, the latter not included."""
    quads = QuadBuilder()
    for cell in range(first, last):
        near, far = cell * CELL, cell * CELL + CELL
        quads.level(_ACROSS, (near, far), 0.0, sky.floor)
        quads.level(_ACROSS, (near, near + 0.7), 0.0, sky.joint, sky.floor)
        for lane in (-LANE / 2, LANE / 2):
            quads.level((lane - 0.1, lane + 0.1), (near, far), 0.0, sky.joint, sky.floor)
    return quads.build()


@lru_cache(maxsize=256)
def _walls(first: int, last: int, sides: tuple[int, ...], theme: Theme) -> Quads:
    """Return the walls beside the cells `first` to `last`, the latter not included."""
    quads = QuadBuilder()
    for cell in range(first, last):
        near, far = cell * CELL, cell * CELL + CELL
        for side in sides:
            x = side * _HALF
            quads.anchor = (x, (near + far) / 2)
            quads.along(x, (near, far), (0.0, _WALL), theme.panel)
            quads.along(x, (near, near + 0.7), (0.0, _WALL), theme.pillar, theme.panel)
            quads.along(x, (near, far), (_WALL - _CAP, _WALL), theme.cap)
    return quads.build()


@lru_cache(maxsize=64)
def _gate(exits: tuple[int, ...], theme: Theme) -> Quads:
    """Return the wall at the end of a corridor, at z = 0, with an arrow to each open side."""
    quads = QuadBuilder()
    quads.across(_ACROSS, 0.0, (0.0, _GATE), theme.pillar)
    quads.across(_ACROSS, -0.01, (_GATE - _CAP, _GATE), theme.cap)
    for side in exits:
        tail = 0.0 if len(exits) == 2 else -side * 2.2
        quads.across((min(tail, side * 0.8), max(tail, side * 0.8)), -0.02, (2.3, 3.3), WHITE)
        quads.arrow_head((side * 0.8, side * 2.6), -0.02, (1.3, 4.3), WHITE)
    return quads.build()


@lru_cache(maxsize=64)
def _obstacles(obstacle: Obstacle, lanes: tuple[int, ...], fallen: float) -> Quads:
    """Return a row of obstacles at z = 0, standing or partly fallen."""
    quads, stands = QuadBuilder(), 1 - fallen
    if obstacle is Obstacle.HURDLE:
        quads.level(_ACROSS, (-0.2, 0.5), 1.0 * stands, WHITE)
        quads.across(_ACROSS, -0.2, (0.0, 1.0 * stands), RED)
    elif obstacle is Obstacle.BEAM:
        low = 1.5 * stands
        quads.level(_ACROSS, (-0.2, 0.6), low + 0.9, WHITE)
        quads.across(_ACROSS, -0.2, (low, low + 0.9), YELLOW)
        quads.across(_ACROSS, -0.21, (low, low + 0.3), BLACK)
    else:
        for lane in lanes:
            _add_crate(quads, LANE * lane, stands)
    return quads.build()


def _add_crate(quads: QuadBuilder, middle: float, stands: float) -> None:
    quads.anchor = (middle, 0.0)
    top, x, z = 2.2 * stands, (middle - 0.85, middle + 0.85), (-0.7, 0.7)
    for edge in sorted(x, key=abs, reverse=True):
        quads.along(edge, z, (0.0, top), CRATE_SIDE)
    quads.level(x, z, top, CRATE_TOP)
    quads.across(x, z[0], (0.0, top), CRATE)
    quads.across((x[0] + 0.35, x[1] - 0.35), z[0] - 0.01, (0.4 * stands, 1.8 * stands), CRATE_TOP)


@lru_cache(maxsize=16)
def _beam_shadow(sky: Sky) -> Quads:
    quads = QuadBuilder()
    quads.level(_ACROSS, (-0.5, 0.9), 0.0, mixed(sky.joint, BLACK, 0.4))
    return quads.build()
