"""The road: a closed curve, and where points lie relative to it."""

import numpy as np
import pytest

from glassworld.training.sources.road import SHARPEST_TURN, Road


@pytest.mark.parametrize("seed", range(3))
def test_locate_returns_the_offset_and_the_distance_of_a_point(seed: int) -> None:
    road = Road(np.random.default_rng(seed))
    for along in np.linspace(1, road.length - 1, 9):
        for offset in (-2.0, 0.0, 1.5):
            x, y = road.point(float(along), offset)
            found = road.locate(np.float32(x), np.float32(y))
            assert found.offset == pytest.approx(offset, abs=0.15)
            assert found.along == pytest.approx(along, abs=0.5)


def test_road_is_closed_and_its_turns_have_a_limit() -> None:
    road = Road(np.random.default_rng(5))
    assert np.allclose(road.point(0.0), road.point(road.length), atol=0.1)
    bends = [abs(road.curvature(along)) for along in np.linspace(0, road.length, 200)]
    assert max(bends) <= SHARPEST_TURN * 1.02
    assert max(bends) > 0.04


def test_direction_follows_the_road() -> None:
    road = Road(np.random.default_rng(6))
    for along in np.linspace(0, road.length, 20):
        (x, y), (next_x, next_y) = road.point(float(along)), road.point(float(along) + 0.5)
        heading = np.arctan2(next_y - y, next_x - x)
        difference = np.angle(np.exp(1j * (heading - road.direction(x, y))))
        assert abs(difference) < 0.1
