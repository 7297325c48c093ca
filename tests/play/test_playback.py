"""Pacing on a clock of the tests' own: no time passes."""

from __future__ import annotations

from glassworld.play.playback import Playback, QueuedFrame

RATE, FRAMES = 12, 12


class Player:
    """Runs a playback in steps of 5 ms; making a block takes `makes` seconds."""

    def __init__(self, makes: float, sees: bool = True) -> None:
        self.playback, self.makes, self.sees = Playback(RATE, FRAMES), makes, sees
        self.now, self.number = 0.0, 0
        self.making: tuple[float, float] | None = None
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
        if self.making is None and self.playback.wants_block():
            self.making = (self.now, self.now + self.makes)
            self.begun.append(self.now)
        if self.making is not None and self.now >= self.making[1]:
            block = self.playback.next_block
            first = self.number
            self.number += FRAMES
            frames = [QueuedFrame(block, first + index, b"") for index in range(FRAMES)]
            self.playback.add(frames, self.now - self.making[0])
            self.making = None
            self.most_queued = max(self.most_queued, len(self.playback.queue))

    def send(self) -> None:
        if not self.playback.may_send():
            self.starved = self.starved or not self.playback.queue
            return
        if self.playback.wait(self.now, self.starved) == 0:
            frame = self.playback.take(self.now)
            self.sent.append((self.now, frame.frame))
            if self.sees:
                self.playback.seen(frame.frame)
        self.starved = not self.playback.queue


def test_frames_keep_the_content_rate_without_stalls() -> None:
    player = Player(makes=0.4)
    player.run(20)
    first, last = player.sent[0][0], player.sent[-1][0]
    assert abs((len(player.sent) - 1) / (last - first) - RATE) < 0.1
    assert player.playback.stalls == 0
    assert [number for _, number in player.sent] == list(range(len(player.sent)))


def test_at_most_one_block_waits_when_the_next_is_begun() -> None:
    player = Player(makes=0.4)
    player.run(20)
    assert player.most_queued <= 2 * FRAMES
    player = Player(makes=0.05)
    player.run(20)
    assert player.most_queued < 1.4 * FRAMES  # a quick server begins late, to see the newest keys


def test_a_slow_server_stalls_and_says_so() -> None:
    player = Player(makes=1.5)
    player.run(15)
    assert player.playback.stalls >= 5
    gaps = [b - a for (a, _), (b, _) in zip(player.sent, player.sent[1:], strict=False)]
    assert max(gaps) > 0.3


def test_pause_stops_and_resuming_is_no_stall() -> None:
    player = Player(makes=0.2)
    player.run(3)
    player.playback.pause()
    count, blocks = len(player.sent), len(player.begun)
    player.run(5)
    assert len(player.sent) == count
    assert len(player.begun) <= blocks + 1
    player.playback.resume()
    player.run(2)
    assert len(player.sent) > count + 20
    assert player.playback.stalls == 0


def test_step_plays_to_the_end_of_a_block() -> None:
    player = Player(makes=0.2)
    player.run(1.7)
    player.playback.pause()
    for _ in range(3):
        player.playback.step()
        player.run(3)
        assert len(player.sent) % FRAMES == 0
    assert player.playback.stalls == 0


def test_a_client_that_sees_nothing_is_waited_for() -> None:
    player = Player(makes=0.2, sees=False)
    player.run(20)
    assert len(player.sent) <= 2 * RATE + 1
    assert len(player.begun) <= 5
    assert player.playback.stalls == 0


def test_restart_forgets_what_was_queued() -> None:
    player = Player(makes=0.2)
    player.run(3)
    epoch = player.playback.epoch
    player.playback.restart(1, 9)
    assert not player.playback.queue
    assert player.playback.epoch == epoch + 1
    assert player.playback.next_block == 1
