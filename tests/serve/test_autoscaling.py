"""How many workers a world gets."""

from __future__ import annotations

import pytest

from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.serve.autoscaling import IDLE_SECONDS, IdleClock, Load, wanted_workers
from glassworld.serve.options import WorldOptions

WORLD = WorldOptions("w", LoadOptions(), workers=1, max_workers=4, seats=4)


@pytest.mark.parametrize(
    ("load", "workers"),
    [
        (Load(0, 0, 0, 1), 1),
        (Load(3, 0, 0, 1), 1),  # one seat is free
        (Load(4, 0, 0, 1), 2),
        (Load(4, 5, 0, 1), 3),
        (Load(90, 9, 0, 4), 4),
        (Load(2, 0, 0.1, 1), 2),  # frames come late
        (Load(1, 0, 0.1, 1), 1),  # more workers do not help a single player
        (Load(0, 0, 0, 3), 1),
    ],
)
def test_workers_follow_seats_queue_and_late_frames(load: Load, workers: int) -> None:
    assert wanted_workers(WORLD, load) == workers


def test_worker_is_drained_only_after_a_while() -> None:
    clock = IdleClock()
    assert not clock.is_over(True, 0)
    assert not clock.is_over(True, IDLE_SECONDS - 1)
    assert not clock.is_over(False, IDLE_SECONDS)
    assert not clock.is_over(True, IDLE_SECONDS + 1)
    assert clock.is_over(True, 2 * IDLE_SECONDS + 1)
    assert not clock.is_over(True, 2 * IDLE_SECONDS + 2)
