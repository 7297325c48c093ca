"""When frames are sent and when blocks are begun: the pacing of one player, free of any I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

MARGIN = 0.15
"""Seconds that a block should be ready before it is due."""

CAUTION = 1.25
"""The latest of the last blocks, times this, is how late the next is expected to be."""

MOST_BEHIND = 2.0
"""Seconds of frames that a client may leave unseen before the server waits for it."""


class QueuedFrame(NamedTuple):
    """A frame that waits for its time."""

    block: int
    frame: int
    message: bytes


class FramePacer:
    """Frames that wait, and the clock they are sent by.

    Frames come in parts of a block, each as soon as it is made. A block is begun as late as is
    safe, so that it sees the newest action: when what is queued lasts about as long as the last
    blocks would have had it wait, and never with more than one block's frames waiting. Times are
    seconds of any steady clock.
    """

    def __init__(self, frame_rate: int, block_frames: int) -> None:
        self.frame_rate, self.period = frame_rate, 1 / frame_rate
        self.block_seconds = block_frames / frame_rate
        self.queue: deque[QueuedFrame] = deque()
        self.playing = True
        self.stalls = 0
        self.epoch = 0
        self.restart(0, 0)

    def restart(self, block: int, frame: int) -> None:
        """Go on with `block`, which begins at `frame`, and forget everything queued."""
        self.epoch += 1
        self.queue.clear()
        self.next_block = self.begun = block
        self._until = -1  # the last block that may be played while paused
        self._due: float | None = None
        self._sent = self._seen = frame
        self._added, self._late = 0, 0.0  # of the block that is being made
        self._lates: deque[float] = deque(maxlen=16)

    def pause(self) -> None:
        self.playing, self._until, self._due = False, -1, None

    def resume(self) -> None:
        self.playing, self._due = True, None

    def step(self) -> None:
        """While paused, play to the end of the block that is next to be sent."""
        if not self.playing:
            self._until = self.queue[0].block if self.queue else self.next_block
            self._due = None

    def seen(self, frame: int) -> None:
        """The client has shown `frame`."""
        self._seen = max(self._seen, min(frame + 1, self._sent))

    def add(self, frames: Sequence[QueuedFrame], after: float) -> None:
        """Queue a part of a block, there `after` seconds from when the block was asked for."""
        self.queue.extend(frames)
        # A later part is due later: it delays the block only by what goes beyond that.
        self._late = max(self._late, after - self._added * self.period)
        self._added += len(frames)

    def block_done(self) -> None:
        """The part added last was the block's last."""
        self.next_block += 1
        self._lates.append(self._late)
        self._added, self._late = 0, 0.0

    @property
    def lead(self) -> float:
        """Seconds before the queue runs dry at which the next block should be begun."""
        if not self._lates:
            return self.block_seconds
        return min(CAUTION * max(self._lates) + MARGIN, self.block_seconds)

    def wants_block(self) -> bool:
        """Whether the next block should be begun now."""
        allowed = self.playing or self.next_block <= self._until
        return allowed and len(self.queue) * self.period <= self.lead

    def may_send(self) -> bool:
        """Whether a frame is waiting that the player and the client want."""
        if not self.queue or self._sent - self._seen > MOST_BEHIND * self.frame_rate:
            return False
        return self.playing or self.queue[0].block <= self._until

    def wait(self, now: float, starved: bool) -> float:
        """Seconds until the next frame is due. `starved`: there was none when last looked."""
        if self._due is None:
            self._due = now
        if now - self._due > self.period:
            self.stalls += starved
            self._due = now
        return max(0.0, self._due - now)

    def take(self, now: float) -> QueuedFrame:
        """The next frame, to be sent now."""
        taken = self.queue.popleft()
        self._due = (now if self._due is None else self._due) + self.period
        self._sent = taken.frame + 1
        self.begun = taken.block + 1
        return taken
