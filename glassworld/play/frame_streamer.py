"""Shows one player's walk: has its blocks made and sends their frames when they are due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import numpy.typing as npt

from glassworld.errors import InputError
from glassworld.play import protocol as wire
from glassworld.play.client_socket import ClientSocket
from glassworld.play.images import encode
from glassworld.play.live_session import BlockResult, FrameChunk, LiveSession, PlayerInput
from glassworld.play.pacing import FramePacer, QueuedFrame
from glassworld.play.server_state import ServerState
from glassworld.specs import TIME_FACTOR


class FrameStreamer:
    """The walk that is on, its frames and their clock.

    `after_block` hears of every block made, also of those that nobody will see.
    """

    def __init__(
        self,
        hall: ServerState,
        channel: ClientSocket,
        after_block: Callable[[LiveSession, BlockResult], Awaitable[None]],
    ) -> None:
        spec = hall.world.spec
        self.hall, self.channel, self.after_block = hall, channel, after_block
        self.order = PlayerInput(0, hall.world.space.press(()))  # the newest; the worker reads it
        self.playback = FramePacer(spec.frame_rate, spec.frames_per_block * TIME_FACTOR)
        self.walk: LiveSession | None = None
        self.encoding: wire.Encoding = "png"
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Look again whether there is something to do."""
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def make_blocks(self) -> None:
        """Have blocks made, one at a time, as playing asks for them."""
        while True:
            await self._until(lambda: self.walk is not None and self.playback.wants_block())
            walk, epoch, asked = self.walk, self.playback.epoch, time.perf_counter()
            assert walk is not None
            parts = Parts()
            making = self.hall.rounds.make(walk, lambda: self.order, parts.put)
            making.add_done_callback(parts.end)
            try:
                encoding = await self._take_in(parts, epoch, asked)
                block = await making
            finally:
                making.cancel()
            took = time.perf_counter() - asked
            self.hall.metrics.block(block.timing.seconds)
            if epoch == self.playback.epoch:
                await self._report(block, asked, encoding, took)
            await self.after_block(walk, block)

    async def _take_in(self, parts: Parts, epoch: int, asked: float) -> float:
        """Queue a block's frames as they are made; the seconds that encoding them took."""
        place, encoding, left = 0, 0.0, self.hall.world.spec.frames_per_block
        while (part := await parts.next()) is not None:
            left -= 1
            pictures, seconds = await asyncio.to_thread(_encoded, part, self.encoding)
            encoding += seconds
            if epoch == self.playback.epoch:
                frames = self._framed(part, place, pictures)
                self.playback.add(frames, time.perf_counter() - asked)
                if not left:
                    self.playback.block_done()
                self.changed()
            place += len(pictures)
        return encoding

    def _framed(self, part: FrameChunk, place: int, pictures: list[bytes]) -> list[QueuedFrame]:
        queued = []
        for index, picture in enumerate(pictures, place):
            frame, number = part.first + index, part.number
            header = wire.FrameHeader(wire.FRAME, self.encoding, index, number, frame, part.action)
            queued.append(QueuedFrame(number, frame, header.pack() + picture))
        return queued

    async def _report(self, block: BlockResult, asked: float, encoding: float, took: float) -> None:
        await self.channel.tell(
            wire.Block(
                number=block.number,
                frames=len(block.frames),
                action=block.action,
                seconds=block.timing.seconds,
                waited=max(0.0, block.timing.begun - asked),
                stages=[*block.timing.stages, wire.StageTime("Encode", 1e3 * encoding)],
                queued=len(self.playback.queue),
                stalls=self.playback.stalls,
                slow=took > len(block.frames) * self.playback.period,
            )
        )

    async def send(self) -> None:
        """Send frames as they fall due."""
        playback = self.playback
        while True:
            starved = not playback.queue
            await self._until(playback.may_send)
            stalls = playback.stalls
            wait = playback.wait(time.perf_counter(), starved)
            self.hall.metrics.stalls += playback.stalls - stalls
            if wait > 0:
                await asyncio.sleep(wait)
                if not playback.may_send():
                    continue
            await self.channel.deliver(playback.take(time.perf_counter()).message)
            self.hall.metrics.frames += 1
            self.changed()

    async def still(self, picture: npt.NDArray[np.uint8], block: int, frame: int) -> None:
        """Show `picture` at once: what was there before `frame`."""
        header = wire.FrameHeader(wire.STILL, "png", 0, block, frame, self.order.id)
        await self.channel.deliver(header.pack() + encode(picture[None], "png")[0])

    def running(self) -> LiveSession:
        """The walk, an `InputError` if there is none."""
        if self.walk is None:
            raise InputError("start a walk first")
        return self.walk

    def leave(self) -> None:
        """End the walk, if there is one."""
        if self.walk is not None:
            self.hall.rounds.end(self.walk)
            self.walk = None


class Parts:
    """A block's parts, handed from the worker's thread to the event loop's."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[FrameChunk | None] = asyncio.Queue()

    def put(self, part: FrameChunk) -> None:
        """From the worker's thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, part)

    def end(self, _: object) -> None:
        """From the loop's own: no part follows."""
        self._queue.put_nowait(None)

    async def next(self) -> FrameChunk | None:
        """The next part; None after the last."""
        return await self._queue.get()


def _encoded(part: FrameChunk, encoding: wire.Encoding) -> tuple[list[bytes], float]:
    """A part's pictures encoded, once they are here, and the seconds that took."""
    frames = part.frames.wait(slice(part.row, part.row + 1))[0].numpy()
    began = time.perf_counter()
    return encode(frames, encoding), time.perf_counter() - began
