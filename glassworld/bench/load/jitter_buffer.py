"""A player at a constant rate with a small buffer: when each frame is shown, and which are late."""

from __future__ import annotations

from typing import NamedTuple

BUFFER_SECONDS = 0.1
"""How long the first frame waits, so that later ones may come this much too late."""


class ShownFrame(NamedTuple):
    """When a frame was shown, and how many seconds after it was due it came."""

    time: float
    late: float


class JitterBuffer:
    """Shows frames at a constant rate. Times are seconds of any clock.

    A frame is on time if it comes at most one frame time after it is due. A later one is a stall:
    the player fills its buffer again, and later frames are due later by as much.
    """

    def __init__(self, frame_rate: float, seconds: float = BUFFER_SECONDS) -> None:
        self.period, self.seconds = 1 / frame_rate, seconds
        self.frames = self.on_time = self.stalls = 0
        self._due: float | None = None

    def add(self, arrival: float) -> ShownFrame:
        """Take the next frame, which arrives now; return when it is shown."""
        due = arrival + self.seconds if self._due is None else self._due
        late, shown = arrival - due, max(arrival, due)
        self.frames += 1
        if late <= self.period:
            self.on_time += 1
            self._due = due + self.period
        else:
            self.stalls += 1
            shown = arrival + self.seconds
            self._due = shown + self.period
        return ShownFrame(shown, late)

    def reset_counts(self) -> None:
        """Count from here on; the frames' schedule stays."""
        self.frames = self.on_time = self.stalls = 0
