"""Pacing, on a simulated clock."""

from __future__ import annotations

import pytest

from glassworld.play.pacing import MARGIN, FramePacer, QueuedFrame

RATE, FRAMES, CHUNK = 12, 12, 4


class Player:
    """Run a pacer in steps of 5 ms; generating a block takes `block_seconds`.

    Its frames arrive when it is complete, or with `chunks` a third of them after each third.
    """

    def __init__(
        self,
        block_seconds: float,
        acknowledges: bool = True,
        chunks: bool = False,
        frames: int = FRAMES,
    ) -> None:
        self.pacer, self.block_seconds = FramePacer(RATE, frames), block_seconds
        self.frames = frames
        self.acknowledges = acknowledges
        self.chunk = CHUNK if chunks else frames
        self.now, self.number = 0.0, 0
        self.started: float | None = None  # the block being generated
        self.added = 0
        self.sent: list[tuple[float, int]] = []
        self.starts: list[float] = []
        self.most_queued = 0
        self.queue_was_empty, self.was_awaited = True, False

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.generate()
            self.send()
            self.now += 0.005

    def generate(self) -> None:
        if self.started is None and self.pacer.seconds_until_block(self.now) == 0:
            self.started, self.added = self.now, 0
            self.starts.append(self.now)
        if self.started is None:
            return
        after = self.now - self.started
        if after >= self.block_seconds * (self.added + self.chunk) / self.frames:
            block, numbers = self.pacer.next_block, range(self.number, self.number + self.chunk)
            self.pacer.add_frames([QueuedFrame(block, number, b"") for number in numbers], after)
            self.number += self.chunk
            self.added += self.chunk
            self.most_queued = max(self.most_queued, len(self.pacer.queue))
        if self.added == self.frames:
            self.pacer.finish_block()
            self.started = None

    def send(self) -> None:
        if self.queue_was_empty and self.pacer.queue:
            self.queue_was_empty = False
            self.was_awaited = not self.pacer.client_is_behind
        if not self.pacer.can_send():
            return
        if self.pacer.seconds_until_due(self.now, self.was_awaited) == 0:
            frame = self.pacer.pop_frame(self.now)
            self.sent.append((self.now, frame.frame))
            if self.acknowledges:
                self.pacer.seen(frame.frame)
            self.queue_was_empty, self.was_awaited = not self.pacer.queue, False


@pytest.mark.parametrize("chunks", [False, True])
def test_frames_are_sent_at_the_frame_rate_without_stalls(chunks: bool) -> None:
    player = Player(block_seconds=0.4, chunks=chunks)
    player.run(20)
    first, last = player.sent[0][0], player.sent[-1][0]
    assert abs((len(player.sent) - 1) / (last - first) - RATE) < 0.1
    assert player.pacer.stalls == 0
    assert [number for _, number in player.sent] == list(range(len(player.sent)))


def test_block_starts_only_when_at_most_one_block_is_queued() -> None:
    player = Player(block_seconds=0.4)
    player.run(20)
    assert player.most_queued <= 2 * FRAMES
    player = Player(block_seconds=0.05)
    player.run(20)
    assert player.most_queued < 1.4 * FRAMES  # a fast server starts late


def test_chunks_let_blocks_start_later_and_react_to_newer_keys() -> None:
    delays = []
    for chunks in (False, True):
        player = Player(block_seconds=0.6, chunks=chunks)
        player.run(20)
        shown = [now for now, number in player.sent if number % FRAMES == 0]
        delays.append(max(b - a for a, b in zip(player.starts[4:], shown[4:], strict=False)))
        assert player.pacer.stalls == 0
    assert delays[1] < delays[0] - 0.4  # the first frames arrive after a third of the time


@pytest.mark.parametrize("block_seconds", [0.1, 0.15])
def test_short_block_starts_as_late_as_is_safe_between_two_frames(block_seconds: float) -> None:
    player = Player(block_seconds, frames=CHUNK)
    player.run(20)
    shown = [now for now, number in player.sent if number % CHUNK == 0]
    leads = [b - a for a, b in zip(player.starts, shown, strict=False)][4:]
    safe = block_seconds + MARGIN * CHUNK / RATE
    step = 0.005
    assert max(leads) <= safe + 3 * step  # the block's end is seen a step late
    assert min(leads) >= safe - 2 * step
    assert player.pacer.stalls == 0


def test_block_is_finished_when_its_last_frames_are_queued() -> None:
    pacer = FramePacer(RATE, FRAMES)
    for first in range(0, FRAMES, CHUNK):
        pacer.add_frames([QueuedFrame(0, first + index, b"") for index in range(CHUNK)], 0.1)
    pacer.finish_block()
    pacer.pause()
    for _ in range(FRAMES):
        pacer.pop_frame(0.0)
    pacer.step()
    assert pacer.seconds_until_block(0.0) == 0


def test_slow_later_chunk_counts_as_delay_of_the_block() -> None:
    pacer = FramePacer(RATE, FRAMES)
    for first, after in ((0, 0.1), (CHUNK, 0.6), (2 * CHUNK, 0.7)):
        pacer.add_frames([QueuedFrame(0, first + index, b"") for index in range(CHUNK)], after)
    pacer.finish_block()
    delay = 0.6 - CHUNK / RATE  # of the second chunk; the others are in time
    assert pacer.lead == pytest.approx(delay + MARGIN * pacer.block_seconds)


def test_slow_server_counts_stalls() -> None:
    player = Player(block_seconds=1.5)
    player.run(15)
    assert player.pacer.stalls >= 5
    gaps = [b - a for (a, _), (b, _) in zip(player.sent, player.sent[1:], strict=False)]
    assert max(gaps) > 0.3


def test_pause_stops_frames_and_resuming_is_no_stall() -> None:
    player = Player(block_seconds=0.2)
    player.run(3)
    player.pacer.pause()
    count, blocks = len(player.sent), len(player.starts)
    player.run(5)
    assert len(player.sent) == count
    assert len(player.starts) <= blocks + 1
    player.pacer.resume()
    player.run(2)
    assert len(player.sent) > count + 20
    assert player.pacer.stalls == 0


def test_step_while_paused_plays_to_the_end_of_a_block() -> None:
    player = Player(block_seconds=0.2)
    player.run(1.7)
    player.pacer.pause()
    for _ in range(3):
        player.pacer.step()
        player.run(3)
        assert len(player.sent) % FRAMES == 0
    assert player.pacer.stalls == 0


def test_client_that_acknowledges_nothing_is_waited_for() -> None:
    player = Player(block_seconds=0.2, acknowledges=False)
    player.run(20)
    assert len(player.sent) <= 2 * RATE + 1
    assert len(player.starts) <= 5
    assert player.pacer.stalls == 0


def test_frame_that_came_while_the_client_was_behind_is_no_stall() -> None:
    player = Player(block_seconds=1.2)  # slower than real time, so the queue runs empty
    player.run(6)
    player.acknowledges = False  # the page is hidden
    player.run(30)
    stalls = player.pacer.stalls
    player.acknowledges = True
    player.pacer.seen(player.sent[-1][1])
    player.run(0.5)
    assert player.pacer.stalls == stalls
    assert player.pacer.stall_seconds < 1
    player.run(6)
    assert player.pacer.stalls > stalls


def test_restart_drops_the_queue() -> None:
    player = Player(block_seconds=0.2)
    player.run(3)
    epoch = player.pacer.epoch
    player.pacer.restart(1, 9)
    assert not player.pacer.queue
    assert player.pacer.epoch == epoch + 1
    assert player.pacer.next_block == 1
