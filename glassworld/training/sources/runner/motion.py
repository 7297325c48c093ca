"""The continuous motion between two states of the runner: where camera and body are in each frame.

Coordinates are those of the corridor in which a move begins: x to the right, z forward from the
center of the junction behind, height up, in units of about a meter.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from glassworld.training.sources.runner.course import (
    ENTRY_CELL,
    MOVE_FRAMES,
    Move,
    Posture,
    RunState,
    Travel,
)

CELL = 3.0
"""Length of a cell. The runner takes one in a move, so it runs 9 units per second."""
LANE = 2.0
"""Distance between the middles of two lanes."""
JUMP_HEIGHT = 1.9
CAMERA_HEIGHT, CAMERA_DISTANCE = 3.0, 4.8
_CAMERA_FOLLOWS = 0.5
"""How far the camera follows the runner to the side."""
_CAMERA_RISES, _CAMERA_SINKS = 0.2, 0.3

_RUN = (0.0, 0.25, 0.5, 0.75, 1.0)
_BOUNCE = (0.0, 0.25, 0.4, 0.15, 0.0)
_SIDESTEP = (0.0, 0.3, 0.7, 0.93, 1.0)
_RISE = (0.0, 0.4375, 0.75, 0.9375, 1.0)  # 1 - (1 - t)^2: half a parabola
_DROP = (1.0, 0.6, 0.15, 0.0, 0.0)
_SWING = (0.0, 0.6, 1.0, 0.5, 0.0)
_SHAKE = (0.0, 0.4, 1.0, -0.6, 0.0)
_SWING_ANGLE = math.radians(15)


class RunnerView(NamedTuple):
    """One frame of the course: what the renderer draws.

    Attributes
    ----------
    state
        The state in whose corridor the coordinates are.
    x
        The runner's place, to the right of the middle.
    z
        The runner's place, forward.
    lane
        The lane, a fraction while it changes.
    height
        Of the runner's feet over the floor.
    crouch
        0 upright, 1 as low as possible.
    stride
        0..3, or -1 where the runner stands.
    tilt
        Of the body to the right, in radians.
    camera
        x, z and height of the camera.
    yaw
        Direction of the camera, in radians to the right of the corridor's.
    shake
        Of the camera, up, in units at a distance of one.
    fallen
        How far the obstacle of the current cell has fallen, 0..1.
    """

    state: RunState
    x: float
    z: float
    lane: float
    height: float
    crouch: float
    stride: int
    tilt: float
    camera: tuple[float, float, float]
    yaw: float
    shake: float
    fallen: float


def first_view(state: RunState) -> RunnerView:
    """Return the view of a state in which the runner runs on."""
    x, z = state.lane * LANE, state.cell * CELL
    camera = (_CAMERA_FOLLOWS * x, z - CAMERA_DISTANCE, CAMERA_HEIGHT)
    return RunnerView(state, x, z, state.lane, 0.0, 0.0, 0, 0.0, camera, 0.0, 0.0, 0.0)


def view_of(move: Move, frame: int) -> RunnerView:
    """Return the view after `frame` of the four frames of a move, 1..4."""
    height, crouch = _height(move, frame), _crouch(move, frame)
    swing = move.swing * _SWING[frame]
    lane = move.before.lane + move.lane_change * _SIDESTEP[frame]
    offset = LANE * (lane - move.before.lane)
    offset += 0.4 * (move.nudge + move.swing) * _SWING[frame]
    bounces = move.travel in (Travel.HIT, Travel.BUMP)
    shake = 0.045 * _SHAKE[frame] if bounces else 0.0
    tilt = 0.35 * _SWING[frame] * (move.lane_change + move.nudge + move.swing)
    tilt += 0.7 * _SWING[frame] * (1 if move.before.lane <= 0 else -1) * bounces
    if move.travel in (Travel.TURN_IN, Travel.TURN_OUT):
        x, z, camera_x, camera_z, yaw = _turning(move, frame, offset)
    else:
        x = LANE * move.before.lane + offset
        z = CELL * (move.before.cell + _progress(move.travel, frame))
        camera_x, camera_z, yaw = _CAMERA_FOLLOWS * x, z - CAMERA_DISTANCE, _SWING_ANGLE * swing
    camera_height = CAMERA_HEIGHT + _CAMERA_RISES * height - _CAMERA_SINKS * crouch
    return RunnerView(
        state=move.before,
        x=x,
        z=z,
        lane=lane,
        height=height,
        crouch=crouch,
        stride=-1 if _stands(move, frame) else frame % MOVE_FRAMES,
        tilt=tilt,
        camera=(camera_x, camera_z, camera_height),
        yaw=yaw,
        shake=shake,
        fallen=(0.0, 0.0, 0.4, 0.8, 1.0)[frame] if move.travel is Travel.HIT else 0.0,
    )


def _progress(travel: Travel, frame: int) -> float:
    """Return how many cells the runner is past the start of a move."""
    if travel is Travel.RUN:
        return _RUN[frame]
    return 0.0 if travel is Travel.WAIT else _BOUNCE[frame]


def _stands(move: Move, frame: int) -> bool:
    return move.travel is Travel.WAIT or (move.travel is Travel.BUMP and frame == MOVE_FRAMES)


def _height(move: Move, frame: int) -> float:
    """Return the height of the feet."""
    if move.rises:
        return JUMP_HEIGHT * _RISE[frame]
    if move.falls and move.travel is not Travel.HIT:
        return JUMP_HEIGHT * _RISE[MOVE_FRAMES - frame]
    if move.before.posture is Posture.IN_AIR:
        return JUMP_HEIGHT * _DROP[frame]
    return 0.0


def _crouch(move: Move, frame: int) -> float:
    """Return how low the body is."""
    low_before = move.before.posture is Posture.SLIDING
    if move.after.posture is Posture.SLIDING:
        return 1.0 if low_before else (0.0, 0.6, 1.0, 1.0, 1.0)[frame]
    if move.slides:
        return (1.0, 1.0, 1.0, 0.5, 0.0)[frame]
    return 0.4 if low_before and frame == 1 else 0.0


def _turning(move: Move, frame: int, offset: float) -> tuple[float, float, float, float, float]:
    """Return x and z of runner and camera, and the yaw, in one half of a turn.

    The runner follows a quadratic Bezier curve whose control point is where the lane before the
    turn meets the same lane after it, and hurries at first, so that it stays before the camera. The
    camera goes straight, which keeps it inside the walls.
    """
    outward = move.travel is Travel.TURN_OUT
    turn = move.before.turn if outward else move.after.turn
    assert turn is not None
    share = (frame / MOVE_FRAMES + outward) / 2
    side, lane = turn.side, LANE * turn.lane
    begin, end = (lane, -CELL * turn.distance), (side * CELL * ENTRY_CELL, -side * lane)
    corner = (lane, max(begin[1], end[1]))
    ahead = share * (1.6 - 0.6 * share)
    body = [
        (1 - ahead) ** 2 * a + 2 * ahead * (1 - ahead) * b + ahead**2 * c
        for a, b, c in zip(begin, corner, end, strict=True)
    ]
    eased = (share + share * share * (3 - 2 * share)) / 2
    near, far = _CAMERA_FOLLOWS * lane, CELL * ENTRY_CELL - CAMERA_DISTANCE
    eye = [
        near + eased * (side * far - near),
        begin[1] - CAMERA_DISTANCE + eased * (-side * near - begin[1] + CAMERA_DISTANCE),
    ]
    yaw = side * math.pi / 2 * eased
    lane_offset = offset + LANE * ((move.before.lane - turn.lane) if outward else 0)
    for point, follows in ((body, 1.0), (eye, _CAMERA_FOLLOWS)):
        point[0] += follows * lane_offset * math.cos(yaw)
        point[1] -= follows * lane_offset * math.sin(yaw)
    if outward:  # into the coordinates of the corridor behind the turn
        body, eye = [-side * body[1], side * body[0]], [-side * eye[1], side * eye[0]]
        return body[0], body[1], eye[0], eye[1], yaw - side * math.pi / 2
    center = CELL * move.before.corridor.last_cell
    return body[0], body[1] + center, eye[0], eye[1] + center, yaw
