"""The rules of the runner's course: what keys do, what obstacles stop, and that it never ends."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from glassworld.training.sources.runner.course import (
    ENTRY_CELL,
    KEYS,
    LEFT,
    RIGHT,
    WAITING_MOVES,
    Corridor,
    Key,
    Obstacle,
    ObstacleRow,
    Posture,
    RunState,
    Travel,
    make_corridor,
    move,
    start_state,
)

CENTER, ALL = (0,), (-1, 0, 1)


def state_before(
    obstacle: Obstacle | None = None,
    lanes: tuple[int, ...] = ALL,
    exits: tuple[int, ...] = (LEFT,),
    cell: int = 5,
) -> RunState:
    """Return a state in a corridor with a row of obstacles in cell 5, or without any."""
    rows = () if obstacle is None else (ObstacleRow(5, obstacle, lanes),)
    return RunState(seed=1, corridor=Corridor(0, 12, 0, exits, rows), cell=cell)


def travels(state: RunState, keys: list[Key]) -> list[Travel]:
    """Return how the moves of some keys go."""
    done = []
    for key in keys:
        step = move(state, key)
        done.append(step.travel)
        state = step.after
    return done


@pytest.mark.parametrize("key", KEYS)
def test_every_key_runs_on_where_the_way_is_free(key: Key) -> None:
    step = move(state_before(), key)
    assert step.travel is Travel.RUN
    assert step.after.cell == 6
    assert step.lane_change == {"leftside": -1, "rightside": 1}.get(key, 0)
    assert step.rises == (key == "jump")
    assert step.slides == (key == "slide")
    assert step.swing == {"turnleft": LEFT, "turnright": RIGHT}.get(key, 0)


@pytest.mark.parametrize(("key", "lane"), [("leftside", -1), ("rightside", 1)])
def test_lane_key_at_the_wall_only_nudges(key: Key, lane: int) -> None:
    step = move(replace(state_before(), lane=lane), key)
    assert (step.after.lane, step.lane_change, step.nudge) == (lane, 0, lane)


def test_jump_takes_two_moves_and_a_slide_ends_it() -> None:
    rise = move(state_before(), "jump")
    assert rise.after.posture is Posture.IN_AIR
    for key in ("nomove", "jump", "leftside"):
        fall = move(rise.after, key)
        assert fall.falls
        assert fall.after.posture is Posture.UPRIGHT
    drop = move(rise.after, "slide")
    assert drop.drops
    assert not drop.falls
    assert drop.after.posture is Posture.SLIDING


def test_slide_lasts_two_moves_or_as_long_as_its_key() -> None:
    down = move(state_before(), "slide")
    assert move(down.after, "nomove").slides
    assert move(down.after, "nomove").after.posture is Posture.UPRIGHT
    assert move(down.after, "slide").after.posture is Posture.SLIDING
    assert not move(down.after, "jump").slides


@pytest.mark.parametrize(
    ("obstacle", "passes"),
    [
        (Obstacle.HURDLE, {"jump"}),
        (Obstacle.BEAM, {"slide"}),
        (Obstacle.BLOCK, {"leftside", "rightside"}),
    ],
)
def test_obstacle_is_passed_by_its_keys_alone(obstacle: Obstacle, passes: set[Key]) -> None:
    lanes = CENTER if obstacle is Obstacle.BLOCK else ALL
    state = state_before(obstacle, lanes)
    for key in KEYS:
        expected = Travel.RUN if key in passes else Travel.HIT
        assert move(state, key).travel is expected, key


@pytest.mark.parametrize(("obstacle", "key"), [(Obstacle.HURDLE, "jump"), (Obstacle.BEAM, "slide")])
def test_obstacle_is_passed_by_its_key_one_move_earlier(obstacle: Obstacle, key: Key) -> None:
    early = state_before(obstacle, cell=4)
    assert travels(early, [key, "nomove"]) == [Travel.RUN, Travel.RUN]
    too_early = state_before(obstacle, cell=3)
    assert travels(too_early, [key, "nomove", "nomove"])[-1] is Travel.HIT


def test_hit_obstacle_falls_and_costs_one_move() -> None:
    state = replace(state_before(Obstacle.HURDLE), posture=Posture.SLIDING)
    hit = move(state, "nomove")
    assert hit.travel is Travel.HIT
    assert hit.after.cell == state.cell
    assert hit.after.posture is Posture.UPRIGHT
    assert hit.after.row_ahead is None
    assert move(hit.after, "nomove").after.cell == state.cell + 1


@pytest.mark.parametrize("cell", [9, 10, 11])
@pytest.mark.parametrize(("key", "side"), [("turnleft", LEFT), ("turnright", RIGHT)])
def test_turn_to_an_open_side_leads_into_the_next_corridor(key: Key, side: int, cell: int) -> None:
    state = replace(state_before(exits=(side,), cell=cell), heading=3)
    inward = move(state, key)
    outward = move(inward.after, "nomove")
    assert (inward.travel, outward.travel) == (Travel.TURN_IN, Travel.TURN_OUT)
    assert inward.side == outward.side == side
    assert outward.after.corridor == state.behind(side)
    assert outward.after.cell == ENTRY_CELL
    assert outward.after.heading == (3 + side) % 4


def test_turn_to_a_closed_side_or_too_early_swings_and_goes_on() -> None:
    for state in (state_before(exits=(RIGHT,), cell=9), state_before(exits=(LEFT,), cell=8)):
        step = move(state, "turnleft")
        assert (step.travel, step.swing) == (Travel.RUN, LEFT)


def test_missed_junction_ends_in_a_wait_and_a_turn_by_itself() -> None:
    state = state_before(exits=(RIGHT,), cell=11)
    waits = [Travel.WAIT] * (WAITING_MOVES - 1)
    expected = [Travel.BUMP, *waits, Travel.TURN_IN, Travel.TURN_OUT, Travel.RUN]
    assert travels(state, ["nomove"] * len(expected)) == expected
    waiting = move(state, "nomove").after
    assert move(waiting, "turnright").travel is Travel.TURN_IN
    assert move(waiting, "jump").rises


@pytest.mark.parametrize("keys", [KEYS, ("nomove",), ("turnleft",), ("jump",), ("slide",)])
def test_runner_never_gets_stuck_in_5000_moves(keys: tuple[Key, ...]) -> None:
    rng = np.random.default_rng(0)
    state, standing = start_state(2), 0
    for _ in range(5000):
        after = move(state, keys[int(rng.integers(len(keys)))]).after
        places = [(each.corridor.number, each.cell) for each in (state, after)]
        standing = standing + 1 if places[0] == places[1] else 0
        assert standing <= WAITING_MOVES
        state = after
    assert state.corridor.number > 150


def test_corridors_leave_room_to_react_and_change_color() -> None:
    for number in range(200):
        left, right = (make_corridor(5, number, side, 2) for side in (LEFT, RIGHT))
        assert len({left.theme, right.theme, 2}) == 3
        for corridor in (left, right):
            cells = [row.cell for row in corridor.rows]
            assert all(b - a >= 3 for a, b in pairwise(cells))
            assert all(ENTRY_CELL + 2 <= cell < corridor.length - 4 for cell in cells)
            assert set(corridor.exits) <= {LEFT, RIGHT}
            assert corridor.exits
        assert all(len(row.lanes) < 3 for row in left.rows if row.obstacle is Obstacle.BLOCK)


def test_course_depends_on_the_seed() -> None:
    assert start_state(1) == start_state(1)
    assert len({start_state(seed) for seed in range(20)}) == 20
