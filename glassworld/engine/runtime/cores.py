"""How many cores the other processes of this machine leave free (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

STATISTICS = Path("/proc/stat")
IDLE_FIELDS = slice(3, 5)  # idle, and waiting for a disk

MIN_INTERVAL = 0.5
"""Seconds between two readings. The kernel counts in hundredths of a second."""


class CPUTime(NamedTuple):
    """Seconds since some point in the past."""

    clock: float
    idle: float  # of the cores that this process may use, together
    own: float  # CPU time of this process, all of its threads together


def read_cpu_time(statistics: Path = STATISTICS) -> CPUTime | None:
    """Read the times of the cores that this process may use; None where the system hides them.

    The lines of /proc/stat are "cpu0 user nice system idle iowait ...", in clock ticks.
    """
    try:
        cores = {f"cpu{index}" for index in os.sched_getaffinity(0)}
        tick = 1 / os.sysconf("SC_CLK_TCK")
        lines = [line.split() for line in statistics.read_text("ascii").splitlines()]
        idle = [int(n) for name, *fields in lines if name in cores for n in fields[IDLE_FIELDS]]
        return CPUTime(time.perf_counter(), tick * sum(idle), time.process_time()) if idle else None
    except (OSError, AttributeError, ValueError):
        return None  # another system, or a container without /proc


class CoreMeter:
    """Measures how many cores are idle or used by this process itself."""

    def __init__(self, read: Callable[[], CPUTime | None] = read_cpu_time) -> None:
        self._read = read
        self._last = read()
        self._free: float | None = None

    def free(self) -> float | None:
        """Return the mean number of cores that others left free since the reading before.

        None until there are two readings, or if the system does not tell.
        """
        now, last = self._read(), self._last
        if now is None or last is None:
            return None
        seconds = now.clock - last.clock
        if seconds >= MIN_INTERVAL:
            used = max(0.0, now.own - last.own)  # starts from 0 after a fork
            self._free = max(0.0, now.idle - last.idle + used) / seconds
            self._last = now
        return self._free


CORES = CoreMeter()
"""Of this process."""
