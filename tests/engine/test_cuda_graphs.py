"""Captured passes: the same frames from fixed inputs."""

from __future__ import annotations

import numpy as np
import pytest

from glassworld.engine.batch import SessionBatch
from tests.support import tiny
from tests.support.same_frames import WALK, assert_same_frames, capturing_world


@pytest.mark.slow
def test_passes_from_fixed_inputs_equal_plain_ones() -> None:
    first, second = (
        world.start(tiny.picture(), seed=1) for world in (capturing_world(), tiny.world())
    )
    assert_same_frames(first, second, 6)
    saved = first.save(), second.save()
    assert_same_frames(first, second, 2)
    first.restore(saved[0])  # in new storage: what was captured over the old one is not used
    second.restore(saved[1])
    assert_same_frames(first, second, 4)


@pytest.mark.slow
def test_batched_passes_from_fixed_inputs_equal_plain_ones() -> None:
    captured, plain = capturing_world(), tiny.world()
    sessions = [captured.start(tiny.picture(), seed=seed) for seed in range(2)]
    alone = [plain.start(tiny.picture(), seed=seed) for seed in range(2)]
    for session, other in zip(sessions, alone, strict=True):
        assert_same_frames(session, other, 4)
    batch = SessionBatch(sessions)
    for _ in range(4):
        for frames, other in zip(batch.step([WALK, WALK]), alone, strict=True):
            assert np.abs(frames.astype(int) - other.step(WALK)).max() <= 1
