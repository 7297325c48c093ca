"""The drive world: its physics, what it keeps in view, its determinism."""

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.errors import ActionError
from glassworld.training.data.collect import record_episodes
from glassworld.training.eval.metrics import turn_pixels
from glassworld.training.sources.drive import TOP_REVERSE, TOP_SPEED, DriveSource
from glassworld.training.sources.road_renderer import RAIL_OFFSET
from glassworld.training.sources.source import Frame

STILL = Action((0.0, 0.0), (0.0, 0.0))
GO = Action((1.0, 0.0), (0.0, 0.0))
STOP = Action((0.0, 1.0), (0.0, 0.0))
LEFT = Action((1.0, 0.0), (0.0, -0.1))
RIGHT = Action((1.0, 0.0), (0.0, 0.1))


def _drive(source: DriveSource, action: Action, blocks: int) -> Frame:
    return np.concatenate([source.step(action) for _ in range(blocks)])


def test_first_block_is_the_start_image_and_later_blocks_have_four_frames() -> None:
    source = DriveSource(3)
    start_image = source.reset()
    assert start_image.shape == (64, 96, 3)
    assert start_image.dtype == np.uint8
    first, second = source.step(GO), source.step(GO)
    assert (first.shape, second.shape) == ((1, 64, 96, 3), (4, 64, 96, 3))
    assert (first[0] == start_image).all()


def test_reset_with_a_seed_gives_the_frames_of_a_new_source() -> None:
    source, new = DriveSource(1), DriveSource(2)
    _drive(source, LEFT, 3)
    source.reset(2)
    assert (_drive(source, RIGHT, 6) == _drive(new, RIGHT, 6)).all()
    assert (source.reset() != new.reset(3)).any()


def test_car_at_rest_keeps_its_view_and_rolls_to_a_stop() -> None:
    source = DriveSource(4)
    assert (_drive(source, STILL, 4) == source.start_image).all()
    _drive(source, GO, 6)
    _drive(source, STILL, 6)
    view = _drive(source, STILL, 4)
    assert source.speed == 0
    assert (view == view[0]).all()


def test_speed_has_limits_and_the_car_stops_before_it_reverses() -> None:
    source = DriveSource(5)
    speeds = []
    for action in [GO] * 8 + [STOP] * 12:
        source.step(action)
        speeds.append(source.speed)
    assert max(speeds) == TOP_SPEED
    assert min(speeds) == -TOP_REVERSE
    assert 0.0 in speeds


@pytest.mark.parametrize("seed", range(6))
def test_steering_turns_the_car_and_the_view_to_the_side_of_the_mouse(seed: int) -> None:
    turned = {}
    for name, action in (("left", LEFT), ("right", RIGHT)):
        source = DriveSource(seed)
        _drive(source, GO, 4)
        frames = _drive(source, action, 3)
        turned[name] = (source.angle, turn_pixels(frames))
    assert turned["left"][0] > turned["right"][0] + 0.3
    assert turned["left"][1] < turned["right"][1] - 20


@pytest.mark.parametrize("action", [LEFT, RIGHT, Action((1.0, 0.0), (0.0, 1.0))])
def test_road_stays_in_view_whatever_the_driver_does(action: Action) -> None:
    source = DriveSource(7)
    road = np.array(source.reset(8) * 0 + source.scenery.palette.road)
    for _ in range(40):
        frames = source.step(action)
        is_road = np.abs(frames.astype(int) - road).max(-1) <= 3
        assert is_road.mean((1, 2)).min() > 0.1
        assert abs(source.offset) < RAIL_OFFSET
    source.step(STOP)


@pytest.mark.slow
def test_policies_stay_between_the_rails_and_rest_now_and_then() -> None:
    episodes = record_episodes("drive", 8, 61, (0, 0))
    assert episodes.keyboard.shape == (8, 61, 2)
    assert np.abs(episodes.pose[..., 0]).max() < RAIL_OFFSET
    assert (episodes.pose.std((0, 1)) > 0.5).all()
    assert (episodes.pose.std((0, 1)) < 2).all()


def test_advance_refuses_the_keys_of_another_mode() -> None:
    with pytest.raises(ActionError, match="keyboard has 4 keys: this world takes 2, forward, back"):
        DriveSource().advance((1.0, 0.0, 0.0, 0.0))
