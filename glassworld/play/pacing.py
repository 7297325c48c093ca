"""Decide when to send each frame and when to start each block, for one player, without any I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

MARGIN = 0.05
"""How long before it is due a block is ready that takes as long as the slowest recent one.

As a share of a block's length."""

LEAST_SECONDS = 1e-6
"""What is less counts as nothing, because the sums of times are rounded."""

RECENT_BLOCKS = 16

MAX_UNSEEN_SECONDS = 2.0
"""How many seconds of frames a client may leave unseen before the server waits for it."""


class QueuedFrame(NamedTuple):
    """A frame that waits until it is due."""

    block: int
    frame: int
    message: bytes


class FramePacer:
    """The queue of frames of one player and the clock that releases them.

    Frames arrive in chunks, each as soon as it is decoded. To react to the newest input, a block
    starts as late as is safe: a little longer before its first frame is due than the slowest of the
    recent blocks took, and never with more than one block of frames in the queue. Times are seconds
    of any monotonic clock.
    """

    def __init__(self, frame_rate: int, block_frames: int) -> None:
        self.frame_rate, self.period = frame_rate, 1 / frame_rate
        self.block_seconds = block_frames / frame_rate
        self.queue: deque[QueuedFrame] = deque()
        self._recent: deque[QueuedFrame] = deque(maxlen=round(MAX_UNSEEN_SECONDS * frame_rate) + 1)
        self.playing = True
        self.stalls, self.stall_seconds = 0, 0.0  # their number; how late the last one was
        self.epoch = 0  # increased by each restart; frames of an earlier epoch are obsolete
        self.restart(0, 0)

    def restart(self, block: int, frame: int) -> None:
        """Drop all queued frames and continue with `block`, whose first frame is `frame`."""
        self.epoch += 1
        self.queue.clear()
        self._recent.clear()
        self.next_block = self.blocks_shown = block
        self._step_end = -1  # last block to play while paused
        self._due: float | None = None
        self._sent = self._seen = frame
        self._chunk_frames, self._delay = 0, 0.0  # of the block being generated
        self._delays: deque[float] = deque(maxlen=RECENT_BLOCKS)

    def unconfirmed_frames(self) -> list[QueuedFrame]:
        """Return the frames that may not have reached the client, the oldest first."""
        return [*self._recent, *self.queue]

    def continue_with(self, frames: Sequence[QueuedFrame], block: int, frame: int) -> None:
        """Queue `frames`, and go on after them with `block`, whose first frame is `frame`."""
        first = frames[0].frame if frames else frame
        self.restart(block, first)
        self.queue.extend(frames)
        if frames:
            self.blocks_shown = frames[0].block

    def pause(self) -> None:
        """Send no more frames."""
        self.playing, self._step_end, self._due = False, -1, None

    def resume(self) -> None:
        """Send frames again; the pause does not count as a stall."""
        self.playing, self._due = True, None

    def step(self) -> None:
        """Play to the end of the block whose frame is next, if the session is paused."""
        if not self.playing:
            self._step_end = self.queue[0].block if self.queue else self.next_block
            self._due = None

    def seen(self, frame: int) -> None:
        """Note that the client has shown `frame`."""
        self._seen = max(self._seen, min(frame + 1, self._sent))

    def add_frames(self, frames: Sequence[QueuedFrame], seconds: float) -> None:
        """Queue a chunk of a block that arrived `seconds` after the block was requested."""
        self.queue.extend(frames)
        # A later chunk is due later, so only the time beyond that delays the block.
        self._delay = max(self._delay, seconds - self._chunk_frames * self.period)
        self._chunk_frames += len(frames)

    def finish_block(self) -> None:
        """Note that the last chunk completed its block."""
        self.next_block += 1
        self._delays.append(self._delay)
        self._chunk_frames, self._delay = 0, 0.0

    @property
    def lead(self) -> float:
        """Seconds before its first frame is due at which the next block starts."""
        longest = self.block_seconds + self.period
        if not self._delays:
            return longest
        return min(max(self._delays) + MARGIN * self.block_seconds, longest)

    def seconds_until_block(self, now: float) -> float | None:
        """Return how long the next block has to wait; None: until a frame is sent or longer."""
        allowed = self.playing or self.next_block <= self._step_end
        queued = len(self.queue) * self.period
        if not allowed or queued > min(self.lead, self.block_seconds):
            return None
        until_next = 0.0 if self._due is None else max(0.0, self._due - now)
        seconds = until_next + queued - self.lead
        return seconds if seconds > LEAST_SECONDS else 0.0

    def can_send(self) -> bool:
        """Return whether a frame is queued and neither a pause nor a slow client holds it back."""
        if not self.queue or self.client_is_behind:
            return False
        return self.playing or self.queue[0].block <= self._step_end

    @property
    def client_is_behind(self) -> bool:
        """Whether the client has too many frames to show, such as a page that is hidden."""
        return self._sent - self._seen > MAX_UNSEEN_SECONDS * self.frame_rate

    def seconds_until_due(self, now: float, was_awaited: bool) -> float:
        """Return how long the next frame has to wait, and count a stall if it is too late.

        A late frame is a stall if it `was_awaited`: the queue was empty before it, and the client
        was not behind when it came.
        """
        if self._due is None:
            self._due = now
        if now - self._due > self.period:
            if was_awaited:
                self.stalls, self.stall_seconds = self.stalls + 1, now - self._due
            self._due = now
        return max(0.0, self._due - now)

    def pop_frame(self, now: float) -> QueuedFrame:
        """Remove and return the next frame, to be sent now."""
        frame = self.queue.popleft()
        self._recent.append(frame)
        self._due = (now if self._due is None else self._due) + self.period
        self._sent = frame.frame + 1
        self.blocks_shown = frame.block + 1
        return frame
