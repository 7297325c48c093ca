"""Seeded scripted policies that cover every key, every obstacle, and mistakes.

A policy is a generator. It receives the state between two moves and yields the key of the next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from glassworld.training.sources.runner.course import (
    KEYS,
    LEFT,
    Key,
    Obstacle,
    ObstacleRow,
    Posture,
    RunState,
)

Policy = Generator[Key, RunState, None]

_OTHER_KEYS: tuple[Key, ...] = KEYS[1:]


def skilled(rng: np.random.Generator) -> Policy:
    """Get past every obstacle and turn at every junction, sometimes with a flourish."""
    state = yield "nomove"
    turn_at = int(rng.integers(1, 4))
    while True:
        if state.in_turn_zone and state.corridor.length - state.cell <= turn_at:
            key = _turn_key(state, rng)
            turn_at = int(rng.integers(1, 4))
        else:
            key = _key_past(state, rng) or _flourish(rng)
        state = yield key


def careless(rng: np.random.Generator) -> Policy:
    """Play as `skilled`, but do the wrong thing at many obstacles, and miss junctions."""
    skill = skilled(rng)
    key, misses = next(skill), False
    while True:
        state = yield key
        key = skill.send(state)
        if state.turn is not None:
            misses = bool(rng.random() < 0.6)
        if misses and state.in_turn_zone:
            key = "nomove" if rng.random() < 0.7 else _any_key(rng)
        elif state.row_ahead is not None and rng.random() < 0.5:
            key = "nomove" if rng.random() < 0.4 else _any_key(rng)


def mash_keys(rng: np.random.Generator) -> Policy:
    """Hold random keys for one to three moves; turn at a junction before long."""
    state = yield "nomove"
    while True:
        key = _any_key(rng) if rng.random() < 0.75 else "nomove"
        if state.in_turn_zone and rng.random() < 0.35:
            key = _turn_key(state, rng)
        for _ in range(int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))):
            state = yield key


def idle(rng: np.random.Generator) -> Policy:
    """Press almost nothing: run into everything, wait at walls."""
    while True:
        yield "nomove" if rng.random() < 0.95 else _any_key(rng)


POLICIES: dict[str, tuple[Callable[[np.random.Generator], Policy], float]] = {
    "skilled": (skilled, 0.45),
    "careless": (careless, 0.25),
    "mash_keys": (mash_keys, 0.2),
    "idle": (idle, 0.1),
}
"""The policies, each with its share of the episodes."""


def _any_key(rng: np.random.Generator) -> Key:
    return _OTHER_KEYS[int(rng.integers(len(_OTHER_KEYS)))]


def _flourish(rng: np.random.Generator) -> Key:
    """Return a key that nothing asks for, now and then."""
    if rng.random() < 0.7:
        return "nomove"
    keys: tuple[Key, ...] = ("jump", "slide", "leftside", "rightside", "leftside", "rightside")
    return keys[int(rng.integers(len(keys)))] if rng.random() < 0.85 else _any_key(rng)


def _turn_key(state: RunState, rng: np.random.Generator) -> Key:
    side = state.corridor.exits[int(rng.integers(len(state.corridor.exits)))]
    return "turnleft" if side == LEFT else "turnright"


def _key_past(state: RunState, rng: np.random.Generator) -> Key | None:
    """Return the key that the obstacles ahead ask for now, early in half of the cases."""
    ahead, next_row = state.row_ahead, None if state.turn else state.row_in(1)
    if ahead is not None and state.lane in ahead.lanes:
        return _answer(state, ahead)
    early = rng.random() < 0.5
    if next_row is not None and state.lane in next_row.lanes and early:
        return _answer(state, next_row)
    return None


def _answer(state: RunState, row: ObstacleRow) -> Key | None:
    if row.obstacle is Obstacle.HURDLE:
        return None if state.posture is Posture.IN_AIR else "jump"
    if row.obstacle is Obstacle.BEAM:
        return None if state.posture is Posture.SLIDING else "slide"
    free = [lane for lane in (-1, 0, 1) if lane not in row.lanes]
    nearest = min(free, key=lambda lane: abs(lane - state.lane))
    return "leftside" if nearest < state.lane else "rightside"
