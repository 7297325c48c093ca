"""The runner's images: continuous from move to move, different by direction, color and posture."""

from dataclasses import replace

import numpy as np
import pytest

from glassworld.training.sources.runner.course import (
    KEYS,
    LEFT,
    MOVE_FRAMES,
    Key,
    RunState,
    Travel,
    move,
    start_state,
)
from glassworld.training.sources.runner.motion import first_view, view_of
from glassworld.training.sources.runner.renderer import render

RED = np.array([222, 44, 44])


def free_state() -> RunState:
    return replace(start_state(3), cell=1, lane=0)


def last_frame(state: RunState, *keys: Key) -> tuple[np.ndarray, RunState]:
    """Return the last frame of some moves, and the state after them."""
    for key in keys:
        step = move(state, key)
        state = step.after
    return render(view_of(step, MOVE_FRAMES)), state


@pytest.mark.parametrize("key", ["nomove", "leftside", "rightside", "turnleft", "turnright"])
def test_move_ends_where_the_next_begins(key: Key) -> None:
    frame, state = last_frame(free_state(), key)
    assert (frame == render(first_view(state))).all()


@pytest.mark.parametrize("keys", [("jump", "nomove"), ("slide", "nomove")])
def test_jump_and_slide_end_upright_after_two_moves(keys: tuple[Key, ...]) -> None:
    frame, state = last_frame(free_state(), *keys)
    assert (frame == render(first_view(state))).all()


def test_turn_ends_in_the_view_of_the_next_corridor() -> None:
    for seed in range(6):
        state = start_state(seed)
        side = state.corridor.exits[0]
        state = replace(state, cell=state.corridor.last_cell - seed % 3)
        frame, after = last_frame(state, "turnleft" if side == LEFT else "turnright", "nomove")
        assert after.heading == (state.heading + side) % 4
        difference = np.abs(frame.astype(float) - render(first_view(after)))
        assert difference.mean() < 0.5


def test_halves_of_a_turn_join() -> None:
    """The last frame of the first half shows the same from both corridors' coordinates."""
    state = start_state(0)
    side = state.corridor.exits[0]
    for distance in range(3):
        state = replace(state, cell=state.corridor.last_cell - distance, lane=0)
        inward = move(state, "turnleft" if side == LEFT else "turnright")
        outward = move(inward.after, "nomove")
        before, after = view_of(inward, MOVE_FRAMES), view_of(outward, 0)
        assert inward.travel is Travel.TURN_IN
        assert after.yaw == pytest.approx(before.yaw - side * np.pi / 2)
        center = 3.0 * state.corridor.last_cell
        for x, z, x_after, z_after in (
            (before.x, before.z, after.x, after.z),
            (before.camera[0], before.camera[1], after.camera[0], after.camera[1]),
        ):
            assert x_after == pytest.approx(-side * (z - center))
            assert z_after == pytest.approx(side * x)


def test_jump_lifts_the_runner_and_slide_lowers_it() -> None:
    def vest(key: Key) -> tuple[int, int]:
        frame, _ = last_frame(free_state(), key)
        rows = np.nonzero((np.abs(frame[24:, 36:60].astype(int) - RED) < 40).all(-1))[0]
        return int(rows.min()), int(np.ptp(rows))

    upright, jump, slide = vest("nomove"), vest("jump"), vest("slide")
    assert jump[0] < upright[0] - 5
    assert slide[0] > upright[0] + 3
    assert slide[1] < upright[1] - 3


def test_side_keys_move_the_runner_across_the_image() -> None:
    def column(key: Key) -> float:
        frame, _ = last_frame(free_state(), key)
        return float(np.nonzero((np.abs(frame[36:].astype(int) - RED) < 40).all(-1))[1].mean())

    assert column("leftside") < column("nomove") - 5
    assert column("rightside") > column("nomove") + 5


def test_heading_and_sky_change_the_panorama() -> None:
    state = free_state()
    tops = {
        render(first_view(replace(state, heading=heading)))[:20].tobytes() for heading in range(4)
    }
    skies = {render(first_view(replace(state, seed=seed)))[:6].tobytes() for seed in range(4)}
    assert len(tops) == len(skies) == 4


def test_images_have_crisp_flat_areas() -> None:
    flat = []
    for seed in range(8):
        frame = render(first_view(start_state(seed))).astype(int)[30:]
        flat.append((np.abs(np.diff(frame, axis=1)).sum(-1) <= 3).mean())
    assert np.mean(flat) > 0.6


def test_fallen_obstacle_is_gone() -> None:
    for seed in range(40):
        state = start_state(seed)
        if not state.corridor.rows:
            continue
        row = state.corridor.rows[0]
        state = replace(state, cell=row.cell, lane=row.lanes[0])
        hit = move(state, "nomove")
        assert hit.travel is Travel.HIT
        assert hit.after.knocked_down == (row.cell,)
        assert (render(first_view(state)) != render(first_view(hit.after))).any()
        return
    pytest.fail("no course has obstacles")


def test_every_frame_of_every_key_is_drawn() -> None:
    for key in KEYS:
        step = move(free_state(), key)
        for frame in range(1, MOVE_FRAMES + 1):
            assert render(view_of(step, frame)).shape == (64, 96, 3)


@pytest.mark.parametrize(("lane", "key"), [(-1, "turnleft"), (1, "turnright"), (1, "rightside")])
def test_wall_beside_the_runner_does_not_hide_it(lane: int, key: Key) -> None:
    def vest_pixels(frame: np.ndarray) -> int:
        return int((np.abs(frame[24:].astype(int) - RED) < 60).all(-1).sum())

    state = replace(free_state(), lane=lane)
    step = move(state, key)
    upright = vest_pixels(render(first_view(state)))
    for frame in range(1, MOVE_FRAMES + 1):
        assert vest_pixels(render(view_of(step, frame))) > 0.6 * upright
