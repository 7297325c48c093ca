"""Captured passes: the same frames from fixed inputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from glassworld.engine.actions.track import Action
from glassworld.engine.batch import SessionBatch
from glassworld.engine.pipeline import ExecutionPlan
from glassworld.engine.session import Session
from glassworld.engine.world import World
from tests.support import tiny

WALK = Action((1, 0, 0, 0), (0, 0.1))


def assert_same_walk(made: Session, expected: Session, blocks: int) -> None:
    for _ in range(blocks):
        difference = made.step(WALK).astype(int) - expected.step(WALK)
        assert np.abs(difference).max() <= 1


def capturing() -> World:
    """Return a world whose passes run from fixed inputs, as CUDA graphs do on a GPU."""
    return replace(tiny.world(), plan=ExecutionPlan(cuda_graphs=True))


def test_passes_from_fixed_inputs_equal_plain_ones() -> None:
    first, second = (world.start(tiny.picture(), seed=1) for world in (capturing(), tiny.world()))
    assert_same_walk(first, second, 6)
    saved = first.save(), second.save()
    assert_same_walk(first, second, 2)
    first.restore(saved[0])  # in new storage: what was captured over the old one is not used
    second.restore(saved[1])
    assert_same_walk(first, second, 4)


def test_batched_passes_from_fixed_inputs_equal_plain_ones() -> None:
    captured, plain = capturing(), tiny.world()
    sessions = [captured.start(tiny.picture(), seed=seed) for seed in range(2)]
    alone = [plain.start(tiny.picture(), seed=seed) for seed in range(2)]
    for session, other in zip(sessions, alone, strict=True):
        assert_same_walk(session, other, 4)
    batch = SessionBatch(sessions)
    for _ in range(4):
        for frames, other in zip(batch.step([WALK, WALK]), alone, strict=True):
            assert np.abs(frames.astype(int) - other.step(WALK)).max() <= 1
