"""A live server in simulated time: its pacing is the server's own code, its device a block time.

Each player's frames are paced by `FramePacer`, as in live play. One device generates the blocks of
all players who wait for one in a batch. A viewer with a jitter buffer judges the frames. What the
model leaves out: the network, the encoding of frames, and that first frames of a block are sent
while later ones are decoded.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, NamedTuple

from glassworld.bench.load.jitter_buffer import JitterBuffer
from glassworld.bench.play.check import percentile
from glassworld.errors import MissingExtraError
from glassworld.play.pacing import FramePacer, QueuedFrame

try:
    import simpy
except ModuleNotFoundError:
    raise MissingExtraError("simpy, which simulates servers,", "bench") from None

Events = Generator[Any, Any, None]

WARM_UP = 5.0
"""Simulated seconds that are not counted."""

INPUTS_PER_SECOND = 1.0

MOST_SESSIONS = 256
"""The most players of a server that are simulated."""


@dataclass(frozen=True)
class BatchTimes:
    """Measured seconds of a block for batches of several sizes.

    `spread`: measured ratios to the median, drawn from at random.
    """

    median: dict[int, float]
    spread: tuple[float, ...] = (1.0,)

    def at(self, sessions: int) -> float:
        """Return the median of a batch, between or beyond the measured sizes by a line."""
        sizes = sorted(self.median)
        if sessions in self.median:
            return self.median[sessions]
        if len(sizes) == 1:
            return self.median[sizes[0]] * sessions / sizes[0]
        upper = min(max(bisect.bisect(sizes, sessions), 1), len(sizes) - 1)
        low, high = sizes[upper - 1], sizes[upper]
        slope = (self.median[high] - self.median[low]) / (high - low)
        return max(self.median[low] + slope * (sessions - low), min(self.median.values()))

    def draw(self, sessions: int, chance: random.Random) -> float:
        """Return the time of one block."""
        return self.at(sessions) * chance.choice(self.spread)


class ServerPrediction(NamedTuple):
    """What players of one server get, and how busy its device is."""

    sessions: int
    deadline_attainment: float
    stalls_per_minute: float  # of a player
    input_to_frame_ms: dict[str, float]
    busy: float


class _Request(NamedTuple):
    player: int
    done: Any  # the simulation's event


class ServerModel:
    """One server with a device, and its players, for some simulated minutes."""

    def __init__(
        self, times: BatchTimes, sessions: int, frame_rate: int, block_frames: int, seed: int = 0
    ) -> None:
        self._times, self._frame_rate, self._block_frames = times, frame_rate, block_frames
        self._random = random.Random(seed)
        self._env = simpy.Environment()
        self._requests = simpy.Store(self._env)
        self._busy = 0.0
        self._players = [_Player(self, index) for index in range(sessions)]

    def run(self, minutes: float) -> ServerPrediction:
        """Simulate and count."""
        self._env.process(self._device())
        self._env.run(until=WARM_UP)
        for player in self._players:
            player.buffer.reset_counts()
            player.latencies.clear()
        self._busy = 0.0
        self._env.run(until=WARM_UP + 60 * minutes)
        buffers = [player.buffer for player in self._players]
        latencies = [1e3 * each for player in self._players for each in player.latencies]
        shares = (50, 95, 99) if latencies else ()
        return ServerPrediction(
            sessions=len(buffers),
            deadline_attainment=sum(b.on_time for b in buffers)
            / max(1, sum(b.frames for b in buffers)),
            stalls_per_minute=sum(b.stalls for b in buffers) / (minutes * len(buffers)),
            input_to_frame_ms={f"p{s}": percentile(latencies, s / 100) for s in shares},
            busy=min(1.0, self._busy / (60 * minutes)),
        )

    def _device(self) -> Events:
        """Generate the blocks of all who wait, batch by batch."""
        while True:
            batch = [(yield self._requests.get())]
            batch += self._requests.items
            self._requests.items.clear()
            for request in batch:
                self._players[request.player].block_began(self._env.now)
            seconds = self._times.draw(len(batch), self._random)
            yield self._env.timeout(seconds)
            self._busy += seconds
            for request in batch:
                request.done.succeed()


class _Player:
    """A player: requests blocks, sends frames when due, and shows them."""

    def __init__(self, model: ServerModel, index: int) -> None:
        self._model, self._index = model, index
        self._env, self._random = model._env, model._random
        self._pacer = FramePacer(model._frame_rate, model._block_frames)
        self.buffer = JitterBuffer(model._frame_rate)
        self.latencies: list[float] = []
        self._inputs: list[float] = []  # not seen by a block yet
        self._answered: dict[int, list[float]] = {}  # by block: the inputs that it was the first of
        self._changed = self._env.event()
        self._frame = 0
        for process in (self._press(), self._request_blocks(), self._send_frames()):
            self._env.process(process)

    def block_began(self, now: float) -> None:
        """Take the newest input: a block uses the one that is held when it begins."""
        self._answered[self._pacer.next_block] = self._inputs[-1:]
        self._inputs.clear()

    def _press(self) -> Events:
        while True:
            yield self._env.timeout(self._random.expovariate(INPUTS_PER_SECOND))
            self._inputs.append(self._env.now)

    def _notify(self) -> None:
        changed, self._changed = self._changed, self._env.event()
        changed.succeed()

    def _request_blocks(self) -> Events:
        pacer = self._pacer
        yield self._env.timeout(self._random.uniform(0, pacer.block_seconds))  # not all at once
        while True:
            while (seconds := pacer.seconds_until_block(self._env.now)) != 0:
                timer = [] if seconds is None else [self._env.timeout(seconds)]
                yield self._env.any_of([self._changed, *timer])
            asked, done = self._env.now, self._env.event()
            yield self._model._requests.put(_Request(self._index, done))
            yield done
            count = self._model._block_frames
            block = pacer.next_block
            frames = [QueuedFrame(block, self._frame + index, b"") for index in range(count)]
            self._frame += count
            pacer.add_frames(frames, self._env.now - asked)
            pacer.finish_block()
            self._notify()

    def _send_frames(self) -> Events:
        pacer = self._pacer
        while True:
            queue_was_empty = not pacer.queue
            while not pacer.can_send():
                yield self._changed
            seconds = pacer.seconds_until_due(self._env.now, queue_was_empty)
            if seconds > 0:
                yield self._env.timeout(seconds)
            frame = pacer.pop_frame(self._env.now)
            pacer.seen(frame.frame)
            shown = self.buffer.add(self._env.now).time
            self.latencies += [shown - sent for sent in self._answered.pop(frame.block, [])]
            self._notify()


def predict_server(
    times: BatchTimes, sessions: int, frame_rate: int, block_frames: int, minutes: float = 5.0
) -> ServerPrediction:
    """Return what `sessions` players of one server get."""
    return ServerModel(times, sessions, frame_rate, block_frames).run(minutes)


def find_seats(
    times: BatchTimes,
    frame_rate: int,
    block_frames: int,
    target: float,
    minutes: float = 5.0,
    most: int = MOST_SESSIONS,
) -> list[ServerPrediction]:
    """Find the most players of a server who reach the target, by doubling and then bisection.

    More players are taken to get no better frames.

    Parameters
    ----------
    times
        Seconds of a block.
    frame_rate
        Content frames a second.
    block_frames
        Frames of a block.
    target
        The share of frames on time.
    minutes
        Simulated for each number of players.
    most
        The largest number that is tried.

    Returns
    -------
    The predictions that reach the target, for more and more players. The last is for the most. The
    list is empty if one player alone does not get it.
    """
    enough: list[ServerPrediction] = []
    served, refused = 0, most + 1
    while served + 1 < refused:
        sessions = min(max(1, 2 * served), most) if refused > most else (served + refused) // 2
        prediction = predict_server(times, sessions, frame_rate, block_frames, minutes)
        if prediction.deadline_attainment < target:
            refused = sessions
        else:
            served = sessions
            enough.append(prediction)
    return enough
