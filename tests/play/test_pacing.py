"""Pacing on a clock of the tests' own: no time passes."""

from __future__ import annotations

import pytest

from glassworld.play.pacing import MARGIN_SECONDS, SAFETY_FACTOR, FramePacer, QueuedFrame

RATE, FRAMES, PART = 12, 12, 4


class Player:
    """Runs a pacer in steps of 5 ms; making a block takes `makes` seconds.

    Its frames are there when it is done, or with `parts` a third of them after each third.
    """

    def __init__(self, makes: float, sees: bool = True, parts: bool = False) -> None:
        self.pacer, self.makes, self.sees = FramePacer(RATE, FRAMES), makes, sees
        self.part = PART if parts else FRAMES
        self.now, self.number = 0.0, 0
        self.making: float | None = None  # since when
        self.added = 0
        self.sent: list[tuple[float, int]] = []
        self.begun: list[float] = []
        self.most_queued = 0
        self.starved = True

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.make()
            self.send()
            self.now += 0.005

    def make(self) -> None:
        if self.making is None and self.pacer.wants_block():
            self.making, self.added = self.now, 0
            self.begun.append(self.now)
        if self.making is None:
            return
        after = self.now - self.making
        if after >= self.makes * (self.added + self.part) / FRAMES:
            block, numbers = self.pacer.next_block, range(self.number, self.number + self.part)
            self.pacer.add_frames([QueuedFrame(block, each, b"") for each in numbers], after)
            self.number += self.part
            self.added += self.part
            self.most_queued = max(self.most_queued, len(self.pacer.queue))
        if self.added == FRAMES:
            self.pacer.finish_block()
            self.making = None

    def send(self) -> None:
        if not self.pacer.can_send():
            self.starved = self.starved or not self.pacer.queue
            return
        if self.pacer.seconds_until_due(self.now, self.starved) == 0:
            frame = self.pacer.pop_frame(self.now)
            self.sent.append((self.now, frame.frame))
            if self.sees:
                self.pacer.seen(frame.frame)
        self.starved = not self.pacer.queue


@pytest.mark.parametrize("parts", [False, True])
def test_frames_keep_the_content_rate_without_stalls(parts: bool) -> None:
    player = Player(makes=0.4, parts=parts)
    player.run(20)
    first, last = player.sent[0][0], player.sent[-1][0]
    assert abs((len(player.sent) - 1) / (last - first) - RATE) < 0.1
    assert player.pacer.stalls == 0
    assert [number for _, number in player.sent] == list(range(len(player.sent)))


def test_at_most_one_block_waits_when_the_next_is_begun() -> None:
    player = Player(makes=0.4)
    player.run(20)
    assert player.most_queued <= 2 * FRAMES
    player = Player(makes=0.05)
    player.run(20)
    assert player.most_queued < 1.4 * FRAMES  # a quick server begins late, to see the newest keys


def test_parts_let_a_block_begin_later_and_see_newer_keys() -> None:
    delays = []
    for parts in (False, True):
        player = Player(makes=0.6, parts=parts)
        player.run(20)
        shown = [now for now, number in player.sent if number % FRAMES == 0]
        delays.append(max(b - a for a, b in zip(player.begun[4:], shown[4:], strict=False)))
        assert player.pacer.stalls == 0
    assert delays[1] < delays[0] - 0.4  # its first frames are there after a third of the time


def test_a_block_that_is_shown_is_done_though_its_caches_are_not() -> None:
    pacer = FramePacer(RATE, FRAMES)
    for place in range(0, FRAMES, PART):
        pacer.add_frames([QueuedFrame(0, place + each, b"") for each in range(PART)], 0.1)
    pacer.finish_block()
    pacer.pause()
    for _ in range(FRAMES):
        pacer.pop_frame(0.0)
    pacer.step()
    assert pacer.wants_block()


def test_parts_that_come_too_slowly_delay_the_whole_block() -> None:
    pacer = FramePacer(RATE, FRAMES)
    for place, after in ((0, 0.1), (PART, 0.6), (2 * PART, 0.7)):
        pacer.add_frames([QueuedFrame(0, place + each, b"") for each in range(PART)], after)
    pacer.finish_block()
    late = 0.6 - PART / RATE  # of the second; the first would have allowed less
    assert pacer.lead == pytest.approx(SAFETY_FACTOR * late + MARGIN_SECONDS)


def test_a_slow_server_stalls_and_says_so() -> None:
    player = Player(makes=1.5)
    player.run(15)
    assert player.pacer.stalls >= 5
    gaps = [b - a for (a, _), (b, _) in zip(player.sent, player.sent[1:], strict=False)]
    assert max(gaps) > 0.3


def test_pause_stops_and_resuming_is_no_stall() -> None:
    player = Player(makes=0.2)
    player.run(3)
    player.pacer.pause()
    count, blocks = len(player.sent), len(player.begun)
    player.run(5)
    assert len(player.sent) == count
    assert len(player.begun) <= blocks + 1
    player.pacer.resume()
    player.run(2)
    assert len(player.sent) > count + 20
    assert player.pacer.stalls == 0


def test_step_plays_to_the_end_of_a_block() -> None:
    player = Player(makes=0.2)
    player.run(1.7)
    player.pacer.pause()
    for _ in range(3):
        player.pacer.step()
        player.run(3)
        assert len(player.sent) % FRAMES == 0
    assert player.pacer.stalls == 0


def test_a_client_that_sees_nothing_is_waited_for() -> None:
    player = Player(makes=0.2, sees=False)
    player.run(20)
    assert len(player.sent) <= 2 * RATE + 1
    assert len(player.begun) <= 5
    assert player.pacer.stalls == 0


def test_restart_forgets_what_was_queued() -> None:
    player = Player(makes=0.2)
    player.run(3)
    epoch = player.pacer.epoch
    player.pacer.restart(1, 9)
    assert not player.pacer.queue
    assert player.pacer.epoch == epoch + 1
    assert player.pacer.next_block == 1
