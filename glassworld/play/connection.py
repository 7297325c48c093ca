"""One connected player: handle the messages of the client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.play import protocol
from glassworld.play.capture import MAX_EVENTS, BlockCapture
from glassworld.play.client_socket import ClientSocket
from glassworld.play.downloads import offer_capture
from glassworld.play.frame_streamer import FrameStreamer
from glassworld.play.live_session import BlockResult, LiveSession, PlayerInput
from glassworld.play.recording import write_failure
from glassworld.play.server_state import ServerState

logger = logging.getLogger("glassworld.play")

UPLOAD = "upload"
"""The id of the image uploaded last."""

MAX_IDLE_SECONDS, CHECK_SECONDS = 10.0, 0.5
"""A capture ends if its session generates nothing for so long: there is one profiler for all."""


class PlayerConnection:
    """A client that holds a slot. However it leaves, its session is closed exactly once."""

    def __init__(self, state: ServerState, socket: ClientSocket) -> None:
        self.state, self.socket = state, socket
        self.streamer = FrameStreamer(state, socket, self._after_block)
        self.pacer = self.streamer.pacer
        self.images = {str(index): image for index, image in enumerate(state.images)}
        self._last_start = ("0", state.world.spec.seed)  # image id and seed
        self._recording: tuple[LiveSession, str] | None = None  # that runs, and its key
        self._capture_of_session: BlockCapture | None = None
        self._uploading: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._background_tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the client until it leaves; raise `ProtocolError` for an invalid message."""
        await self.socket.send_message(self._hello())
        jobs = (self._receive, self.streamer.request_blocks, self.streamer.send_frames)
        tasks = [asyncio.create_task(job()) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            pending = [*tasks, *self._background_tasks]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            self._end_session()

    def _hello(self) -> protocol.HelloMessage:
        world = self.state.world
        spec, space = world.spec, world.space
        return protocol.HelloMessage(
            version=protocol.VERSION,
            world=world.name,
            note=world.note,
            mode=spec.mode,
            width=spec.width,
            height=spec.height,
            frame_rate=spec.frame_rate,
            block_frames=round(self.pacer.block_seconds * spec.frame_rate),
            idle=space.idle,
            has_mouse=space.has_mouse,
            controls=[
                protocol.ControlInfo(control.name, control.key, control.column, control.mouse)
                for control in space.controls
            ],
            pictures=[protocol.ImageInfo(id, image.name) for id, image in self.images.items()],
        )

    async def _receive(self) -> None:
        """Handle messages; answer with a notice what cannot be done now."""
        while True:
            message = await self.socket.receive()
            try:
                if isinstance(message, bytes):
                    self._upload(message)
                else:
                    await self._handle(message)
            except InputError as error:
                await self._notice(str(error))
            except TimeoutError:
                raise  # the client does not read
            except OSError as error:  # such as a full disk
                await self._notice(f"The server cannot do that: {write_failure(error)}.")
            self.streamer.notify()

    async def _handle(self, message: protocol.ClientMessage) -> None:
        match message:
            case protocol.ActMessage():
                self._act(message)
            case protocol.SeenMessage():
                self.pacer.seen(message.frame)
            case protocol.PingMessage():
                await self.socket.send_message(protocol.PongMessage(message.id))
            case protocol.StartMessage():
                await self._start(message)
            case protocol.PauseMessage():
                self.pacer.pause()
            case protocol.ResumeMessage():
                self.pacer.resume()
            case protocol.StepMessage():
                self.pacer.step()
            case protocol.RewindMessage():
                await self._rewind(message)
            case protocol.RecordMessage():
                await self._record(message)
            case protocol.RecoverMessage():
                self._recover(message)
            case protocol.CaptureMessage():
                await self._capture(message)

    def _upload(self, data: bytes) -> None:
        """Decode an uploaded image while play continues."""
        if self._uploading is not None and not self._uploading.done():
            raise InputError("wait until the server has read your last image")
        self._uploading = self._run_in_background(self._decode(data))

    async def _decode(self, data: bytes) -> None:
        spec = self.state.world.spec
        try:
            image, pixels = await self.state.image_decoder.decode(
                data, "your image", spec.height, spec.width
            )
        except InputError as error:
            await self._notice(str(error))
            return
        self.socket.charge_pixels(pixels)
        self.images[UPLOAD] = image
        await self.socket.send_message(protocol.ImageMessage(*image.image.size))

    def _act(self, message: protocol.ActMessage) -> None:
        pressed = self.state.world.space.press(message.keys)
        mouse = None
        if pressed.mouse is not None:
            vertical, horizontal = np.clip(np.add(pressed.mouse, message.mouse), -1, 1)
            mouse = (float(vertical), float(horizontal))
        self.streamer.input = PlayerInput(message.id, Action(pressed.keyboard, mouse))

    async def _start(self, message: protocol.StartMessage) -> None:
        last_id, last_seed = self._last_start
        image_id = last_id if message.picture is None else message.picture
        seed = last_seed if message.seed is None else message.seed
        if image_id == UPLOAD and self._uploading is not None:
            await asyncio.wait([self._uploading])
        if image_id not in self.images:
            raise InputError("no such start image; choose another or upload yours again")
        image, world = self.images[image_id], self.state.world
        self._last_start, self.streamer.encoding = (image_id, seed), message.encoding
        recording_key = self._end_session()
        if recording_key is not None:
            self._run_in_background(self._send_recording(recording_key))
        self.pacer.restart(0, 0)
        session = await self.state.device_thread.run(lambda: LiveSession(world, image, seed))
        await self.socket.send_message(protocol.StartedMessage(seed, image_id))
        await self.streamer.send_still(np.asarray(image.image), 0, 0)
        self.streamer.session = session

    async def _rewind(self, message: protocol.RewindMessage) -> None:
        session = self.streamer.current_session()
        target = max(0, self.pacer.blocks_shown - message.blocks)
        self.streamer.session = None  # no block starts during the rewind
        self.pacer.restart(self.pacer.next_block, 0)
        try:
            await self.state.device_thread.run(lambda: session.rewind(target))
        finally:
            self.streamer.session = session
        block, frame = session.next_block, session.frame_count
        self.pacer.restart(block, frame)
        await self.socket.send_message(protocol.RewoundMessage(block))
        await self.streamer.send_still(session.last_frame, block, frame)

    async def _record(self, message: protocol.RecordMessage) -> None:
        session = self.streamer.current_session()
        if message.on:
            await self.state.device_thread.run(session.record)
            key = self.state.recordings.start()
            self._recording = session, key
            await self.socket.send_message(protocol.RecordingMessage(on=True, key=key))
        elif self._recording is None:
            await self._notice("nothing has been recorded yet")
            await self.socket.send_message(protocol.RecordingMessage(on=False))
        else:
            self._run_in_background(self._send_recording(self._stop_recording()))

    def _stop_recording(self) -> str:
        """Let the running recording be written; return its key."""
        assert self._recording is not None
        (session, key), self._recording = self._recording, None
        rate = self.state.world.spec.frame_rate
        self.state.recordings.finish(key, session.stop_recording, rate)
        return key

    def _recover(self, message: protocol.RecoverMessage) -> None:
        """Send the recording of a lost connection, which the server may not have missed yet."""
        if self._recovering is not None and not self._recovering.done():
            raise InputError("wait until the server has sent your last recording")
        self._recovering = self._run_in_background(self._send_recording(message.key))

    async def _send_recording(self, key: str) -> None:
        """Send the files of a recording when they are written, or why there are none."""
        try:
            message = await self.state.recordings.message(key)
        except InputError as error:
            await self._notice(str(error))
            message = protocol.RecordingMessage(on=False, key=key)
        await self.socket.send_message(message)

    async def _capture(self, message: protocol.CaptureMessage) -> None:
        session = self.streamer.current_session()
        if self.state.capture is not None:
            raise InputError("a capture is already running; wait until it is done")
        path = self.state.downloads.new_path("trace.json.gz")
        limit = MAX_EVENTS if self.state.slots_taken > 1 else None
        capture = BlockCapture(path, message.blocks, limit)
        self.state.capture = self._capture_of_session = capture
        await self.state.device_thread.run(lambda: session.capture(capture))
        self._run_in_background(self._end_idle_capture(session, capture))

    async def _end_idle_capture(self, session: LiveSession, capture: BlockCapture) -> None:
        """End the capture if its session stops generating, so that others may capture."""
        active_at = time.monotonic()
        while time.monotonic() - active_at < MAX_IDLE_SECONDS:
            await asyncio.sleep(CHECK_SECONDS)
            if self._capture_of_session is not capture:
                return
            if self.streamer.block_requested:
                active_at = time.monotonic()
        await self.state.device_thread.run(session.discard_capture)
        if self._capture_of_session is capture:  # the device thread may just have finished it
            self._release_capture(capture)
            await self._notice("The capture ended without its blocks, because play is paused.")

    def _release_capture(self, capture: BlockCapture) -> None:
        """Let others capture."""
        if self._capture_of_session is capture:
            self._capture_of_session = None
        if self.state.capture is capture:
            self.state.capture = None

    async def _after_block(self, session: LiveSession, block: BlockResult) -> None:
        if block.recording_end is not None:
            await self._notice(block.recording_end)
            if self._recording is not None and self._recording[0] is session:
                self._run_in_background(self._send_recording(self._stop_recording()))
        if block.capture is not None:
            self._capture_of_session = None  # from here on, it ends with its export
            self._run_in_background(self._send_capture(block.capture))

    def _end_session(self) -> str | None:
        """Close the session; return the key of its recording, if one was running."""
        recording_key = self._stop_recording() if self._recording is not None else None
        self.streamer.end_session()
        if self._capture_of_session is not None:
            self._release_capture(self._capture_of_session)
        return recording_key

    async def _notice(self, text: str) -> None:
        await self.socket.send_message(protocol.NoticeMessage(text))

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` while play continues; cancel it when the client leaves."""
        task = asyncio.create_task(_until_disconnect(work))
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
        return task

    async def _send_capture(self, capture: BlockCapture) -> None:
        try:
            message = await offer_capture(
                self.state.downloads, capture, lambda: self._release_capture(capture)
            )
        except Exception as error:  # as above
            logger.warning("a capture could not be written: %s", error)
            await self._notice(f"The capture could not be written: {write_failure(error)}.")
            return
        await self.socket.send_message(message)
        if capture.blocks < capture.requested:
            await self._notice(
                f"The trace has {capture.blocks} of {capture.requested} blocks: "
                "a longer one would stop the frames of the other players."
            )


async def _until_disconnect(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; end quietly if the client has left meanwhile."""
    with suppress(WebSocketDisconnect, TimeoutError):
        await work
