"""How many workers a world needs, by its seats and by late frames. Without any I/O."""

from __future__ import annotations

import math
from typing import NamedTuple

from glassworld.serve.options import WorldOptions

HEADROOM = 0.25
"""The share of a worker's seats that should be free for the next players, at least one."""

MISSED_SHARE = 0.02
"""With more stalls than this per frame sent, the workers have too many players."""

IDLE_SECONDS = 15.0
"""How long a worker must have been too many before it is drained."""


class Load(NamedTuple):
    """The load of one world."""

    taken: int  # seats
    waiting: int  # players in the queue
    missed_share: float  # stalls per frame sent, recently
    workers: int  # that load, or take players


def wanted_workers(world: WorldOptions, load: Load) -> int:
    """Return how many workers the world should have."""
    spare = max(1, math.ceil(HEADROOM * world.seats))
    needed = math.ceil((load.taken + load.waiting + spare) / world.seats)
    if load.missed_share > MISSED_SHARE and load.taken > 1:
        needed = max(needed, load.workers + 1)
    return min(max(needed, world.workers), world.max_workers)


class IdleClock:
    """Says when a world has had more workers than it needs for long enough."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_over(self, too_many: bool, now: float) -> bool:
        """Return whether there have been too many for `IDLE_SECONDS`; then begin again."""
        if not too_many:
            self._since = None
        elif self._since is None:
            self._since = now
        elif now - self._since >= IDLE_SECONDS:
            self._since = None
            return True
        return False
