"""Compare sessions of two worlds that must give the same frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from glassworld.engine.actions.track import Action
from glassworld.engine.pipeline import ExecutionPlan
from glassworld.engine.session import Session
from glassworld.engine.world import World
from tests.support import tiny

WALK = Action((1, 0, 0, 0), (0, 0.1))


def assert_same_frames(session: Session, expected: Session, blocks: int) -> None:
    """Step both sessions forward; their frames may differ by 1 of 255."""
    for _ in range(blocks):
        difference = session.step(WALK).astype(int) - expected.step(WALK)
        assert np.abs(difference).max() <= 1


def capturing_world() -> World:
    """Return a world whose passes run from fixed inputs, as CUDA graphs do on a GPU."""
    return replace(tiny.world(), plan=ExecutionPlan(cuda_graphs=True))
