"""The driver of worlds of the road: it stays on the road by the frames alone."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from glassworld.engine.actions.track import Action
from glassworld.engine.world import World
from glassworld.training.eval.driving import (
    SteeringRegressor,
    drive_source,
    drive_world,
    learn_to_drive,
    steer,
)
from glassworld.training.sources.drive import MOUSE_LIMIT, DriveSource
from glassworld.training.sources.source import Frame


class RoadWorld:
    """The simulator as a world, which begins where the source is."""

    def __init__(self, source: DriveSource, seed: int) -> None:
        self.source, self.seed = source, seed

    def start(self, start_image: Image.Image) -> RoadWorld:
        assert (self.source.reset(self.seed) == np.asarray(start_image)).all()
        return self

    def step(self, action: Action) -> Frame:
        return self.source.step(action)


def test_driver_drives_on_and_steers_within_the_limits() -> None:
    torch.manual_seed(0)
    driver, source = SteeringRegressor(), DriveSource()
    action = driver.action(source.reset(1))
    assert action.keyboard == (1, 0)
    assert action.mouse is not None
    assert abs(action.mouse[1]) <= MOUSE_LIMIT
    assert steer(9.0).mouse == (0, MOUSE_LIMIT)


def test_drive_world_of_the_simulator_shows_what_the_source_shows() -> None:
    torch.manual_seed(0)
    driver, source = SteeringRegressor(), DriveSource()
    truth = drive_source(source, 3, 4, driver)
    assert truth.shape == (13, 64, 96, 3)
    generated = drive_world(cast(World, RoadWorld(source, 3)), truth[0], driver, 4)
    np.testing.assert_array_equal(generated, truth)


def test_drive_source_by_its_pose_stays_near_the_middle() -> None:
    source = DriveSource()
    drive_source(source, 5, 20)
    assert abs(source.offset) < 0.5


@pytest.mark.slow
def test_learn_to_drive_stays_on_the_road_by_the_frames() -> None:
    source = DriveSource()
    driver = learn_to_drive(source, frames=600, steps=150)

    def mean_offset(seed: int, driver: SteeringRegressor | None) -> float:
        """Return the mean distance to the middle over twenty seconds."""
        frame, offsets = source.reset(seed), []
        for _ in range(60):
            frame = source.step(steer(0.0) if driver is None else driver.action(frame))[-1]
            offsets.append(abs(source.offset))
        return float(np.mean(offsets))

    assert mean_offset(1, driver) < 0.5 * mean_offset(1, None)
