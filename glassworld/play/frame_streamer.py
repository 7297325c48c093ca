"""Stream the frames of one player: request blocks, encode their frames, send them when due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from starlette.websockets import WebSocketDisconnect

from glassworld.engine.run_config import describe
from glassworld.errors import InputError
from glassworld.play import protocol
from glassworld.play.block_scheduler import BlockRequest
from glassworld.play.client_socket import ClientSocket
from glassworld.play.images import encode_images
from glassworld.play.live_session import BlockResult, FrameChunk, LiveSession, PlayerInput
from glassworld.play.pacing import FramePacer, QueuedFrame
from glassworld.play.server_state import ServerState
from glassworld.play.traces.flight_recorder import LateFrame, PlayedBlock
from glassworld.specs import TIME_FACTOR


class FrameStreamer:
    """The current session of a player, its frames and their pacing.

    Calls `on_block` after every block, also if nobody will see its frames.
    """

    def __init__(
        self,
        state: ServerState,
        socket: ClientSocket,
        on_block: Callable[[LiveSession, BlockResult], Awaitable[None]],
    ) -> None:
        spec = state.world.spec
        self.state, self.socket, self.on_block = state, socket, on_block
        self.input = PlayerInput(0, state.world.space.press(()))  # read by the device thread
        self.pacer = FramePacer(spec.frame_rate, spec.frames_per_block * TIME_FACTOR)
        self.session: LiveSession | None = None
        self.encoding: protocol.Encoding = "png"
        self.block_requested = False  # and not generated yet
        self.frozen = False  # no block starts
        self._player = state.flight_recorder.new_player() if state.flight_recorder else 0
        self._late_frame: LateFrame | None = None  # not recorded yet
        self._applied = 0  # the act under which the newest block was generated
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Wake the loops below, so that they look at the pacer again."""
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def request_blocks(self) -> None:
        """Request blocks, one at a time, as the pacer asks for them; never return."""
        while True:
            await self._until_block_is_due()
            session, epoch, requested = self.session, self.pacer.epoch, time.perf_counter()
            assert session is not None
            request = self.state.scheduler.request(session, lambda: self.input)
            self.block_requested = True
            try:
                encode_seconds = await self._queue_frames(request, epoch, requested)
                block = await request.result
            finally:
                request.result.cancel()
                self.block_requested = False
                self.notify()
            took = time.perf_counter() - requested
            self.state.metrics.count_block(block.seconds)
            self._keep_for_flight(session, block, requested, encode_seconds)
            if epoch == self.pacer.epoch:
                await self._report(block, requested, encode_seconds, took)
            await self.on_block(session, block)

    async def _until_block_is_due(self) -> None:
        while (seconds := self._seconds_until_request()) != 0:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    def _seconds_until_request(self) -> float | None:
        """Return how long the next block has to wait; None: until something changes."""
        if self.session is None or self.frozen:
            return None
        return self.pacer.seconds_until_block(time.perf_counter())

    async def freeze(self) -> None:
        """Let the running block end and start no more, until `frozen` is set to False."""
        self.frozen = True
        await self._until(lambda: not self.block_requested)

    async def freeze_with_full_queue(self) -> None:
        """Freeze when the queue is longest, so that its frames last until the session goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * self.pacer.block_seconds):
                await self._until(lambda: self.block_requested or not self.pacer.playing)
        await self.freeze()

    async def _acknowledge(self, chunk: FrameChunk) -> None:
        """Tell the client under which of its acts a block is generated, if that has changed."""
        if chunk.input_id != self._applied:
            self._applied = chunk.input_id
            with suppress(WebSocketDisconnect, TimeoutError):  # the frames are kept for its return
                await self.socket.send_message(protocol.AckMessage(chunk.input_id, chunk.block))

    async def _queue_frames(self, request: BlockRequest, epoch: int, requested: float) -> float:
        """Queue the frames of a block as they arrive; return the seconds spent encoding them."""
        index, encode_seconds = 0, 0.0
        chunks_left = self.state.world.spec.frames_per_block
        while (chunk := await request.next_chunk()) is not None:
            chunks_left -= 1
            if index == 0:
                await self._acknowledge(chunk)
            images, seconds = await asyncio.to_thread(_encode_chunk, chunk, self.encoding)
            encode_seconds += seconds
            if epoch == self.pacer.epoch:
                frames = frame_messages(
                    chunk.block, chunk.first_frame, chunk.input_id, images, self.encoding, index
                )
                self.pacer.add_frames(frames, time.perf_counter() - requested)
                if not chunks_left:
                    self.pacer.finish_block()
                self.notify()
            index += len(images)
        return encode_seconds

    async def _report(
        self, block: BlockResult, requested: float, encode_seconds: float, took: float
    ) -> None:
        """Send the times of a block to the player."""
        stages = [protocol.StageInfo(stage.name, stage.milliseconds) for stage in block.stages]
        await self.socket.send_message(
            protocol.BlockMessage(
                number=block.number,
                frames=len(block.frames),
                action=block.input_id,
                seconds=block.seconds,
                waited=max(0.0, block.started - requested),
                stages=[*stages, protocol.StageInfo("Encode", 1e3 * encode_seconds)],
                queued=len(self.pacer.queue),
                stalls=self.pacer.stalls,
                slow=took > len(block.frames) * self.pacer.period,
            )
        )

    async def send_frames(self) -> None:
        """Send each frame when it is due; never return."""
        pacer = self.pacer
        while True:
            queue_was_empty = not pacer.queue
            await self._until(lambda: bool(pacer.queue))
            was_awaited = queue_was_empty and not pacer.client_is_behind
            await self._until(pacer.can_send)
            stalls = pacer.stalls
            now = time.perf_counter()
            seconds = pacer.seconds_until_due(now, was_awaited)
            if pacer.stalls > stalls:
                self.state.metrics.stalls += 1
                self._note_late_frame(now)
            if seconds > 0:
                await asyncio.sleep(seconds)
                if not pacer.can_send():
                    continue
            await self.socket.send_frame(pacer.pop_frame(time.perf_counter()).message)
            self.state.metrics.frames += 1
            self.notify()

    def _note_late_frame(self, now: float) -> None:
        """Have the flight recorder show what made the next frame late, once its block is whole."""
        if self.state.flight_recorder is None or self._late_frame is not None:
            return
        header, _ = protocol.unpack_frame(self.pacer.queue[0].message)
        due = now - self.pacer.stall_seconds
        self._late_frame = LateFrame(
            self._player, header.block, header.frame, header.action, due, now
        )
        if not self.block_requested and self.session is not None:
            self._record_late_frame(self.session, now)

    def _keep_for_flight(
        self, session: LiveSession, block: BlockResult, requested: float, encode_seconds: float
    ) -> None:
        """Tell the flight recorder about a block, and about a late frame that waited for it."""
        if self.state.flight_recorder is None:
            return
        played = PlayedBlock(
            player=self._player,
            number=block.number,
            first_frame=block.first_frame,
            frames=len(block.frames),
            action=block.input_id,
            requested=requested,
            started=block.started,
            seconds=block.seconds,
            encode_seconds=encode_seconds,
            received=time.perf_counter(),
        )
        self.state.flight_recorder.add_block(played)
        self._record_late_frame(session, played.ended)

    def _record_late_frame(self, session: LiveSession, until: float) -> None:
        late, self._late_frame = self._late_frame, None
        if self.state.flight_recorder is not None and late is not None:
            config = describe(self.state.world, session.seed, None)
            del config["threads"]  # chosen for each block
            self.state.flight_recorder.record(late, until, config)

    async def send_still(self, image: npt.NDArray[np.uint8], block: int, frame: int) -> None:
        """Show `image` [H, W, 3] at once; it precedes frame `frame`."""
        header = protocol.FrameHeader(protocol.STILL, "png", 0, block, frame, self.input.id)
        await self.socket.send_frame(header.pack() + encode_images(image[None], "png")[0])

    def current_session(self) -> LiveSession:
        """Return the session; raise `InputError` if none is running."""
        if self.session is None:
            raise InputError("start a session first")
        return self.session

    def end_session(self) -> None:
        """Close the session, if one is running."""
        if self.session is not None:
            self.state.scheduler.close_session(self.session)
            self.session = None


def frame_messages(
    block: int,
    first_frame: int,
    input_id: int,
    images: list[bytes],
    encoding: protocol.Encoding,
    first_index: int = 0,
) -> list[QueuedFrame]:
    """Return the messages of a block's encoded images, from its image `first_index` on.

    `first_frame`: the number of the block's first frame in the session.
    """
    messages = []
    for index, image in enumerate(images, first_index):
        frame = first_frame + index
        header = protocol.FrameHeader(protocol.FRAME, encoding, index, block, frame, input_id)
        messages.append(QueuedFrame(block, frame, header.pack() + image))
    return messages


def _encode_chunk(chunk: FrameChunk, encoding: protocol.Encoding) -> tuple[list[bytes], float]:
    """Wait for the frames of a chunk; return them encoded and the seconds of the encoding."""
    frames = chunk.frames.wait(slice(chunk.row, chunk.row + 1))[0].numpy()
    started = time.perf_counter()
    return encode_images(frames, encoding), time.perf_counter() - started
