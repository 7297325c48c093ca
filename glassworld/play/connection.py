"""One connected player: handle the messages of the client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.play import protocol
from glassworld.play.client_socket import ClientSocket
from glassworld.play.frame_streamer import FrameStreamer
from glassworld.play.handover.session_bytes import unpack_untrusted
from glassworld.play.handover.suspended import Admission, SuspendedSession, pack_suspended
from glassworld.play.handover.upload import SessionUpload, offer_session
from glassworld.play.live_session import BlockResult, LiveSession, PlayerInput
from glassworld.play.recording import write_failure
from glassworld.play.server_state import ServerState
from glassworld.play.traces.session_capture import SessionCapture

NORMAL_CLOSURE = 1000

CHANGES = (
    protocol.StartMessage,
    protocol.RewindMessage,
    protocol.RecordMessage,
    protocol.CaptureMessage,
)
"""What cannot be done while the session moves."""

UPLOAD = "upload"
"""The id of the image uploaded last."""

FREEZE_SECONDS = 10.0
"""How long a block may take to end when its session is suspended."""

FAREWELL_SECONDS = 10.0
"""How long a client may take to leave for the server that its session has moved to."""


class PlayerConnection:
    """A client that holds a slot. However it leaves, its session is closed exactly once.

    With an `admission`, the server is one of several: the session is kept for its return.
    """

    def __init__(
        self, state: ServerState, socket: ClientSocket, admission: Admission | None = None
    ) -> None:
        self.state, self.socket, self._admission = state, socket, admission
        self._resumable = None if admission is None else admission.suspended
        self._moved, self._kicked = False, asyncio.Event()
        self._session_upload: SessionUpload | None = None
        self._transferring: asyncio.Task[None] | None = None  # a session file
        self.streamer = FrameStreamer(state, socket, self._after_block)
        self.pacer = self.streamer.pacer
        self.images = {str(index): image for index, image in enumerate(state.images)}
        self._last_start = ("0", state.world.spec.seed)  # image id and seed
        self._recording: tuple[LiveSession, str] | None = None  # that runs, and its key
        self._capture = SessionCapture(state, self.streamer, socket)
        self._uploading: asyncio.Task[None] | None = None
        self._recovering: asyncio.Task[None] | None = None
        self._background_tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the client until it leaves; raise `ProtocolError` for an invalid message."""
        if self._admission is not None:
            assert self.state.keeper is not None
            self.state.keeper.joined(self._admission.session, self)
        jobs = (self._receive, self.streamer.request_blocks, self.streamer.send_frames)
        tasks: list[asyncio.Task[Any]] = []
        try:
            await self.socket.send_message(self._hello())
            await self._show_late_frames()
            tasks += [asyncio.create_task(job()) for job in (*jobs, self._kicked.wait)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await asyncio.shield(asyncio.ensure_future(self._leave(tasks)))
        await self.socket.close(NORMAL_CLOSURE, "the session goes on elsewhere", is_error=False)

    async def _show_late_frames(self) -> None:
        """Send the list of flight recordings, now and whenever there is a new one."""
        recorder = self.state.flight_recorder
        if recorder is None:
            return
        recorder.observers.add(self._send_late_frames)
        if recorder.recordings:
            await self.socket.send_message(protocol.LateFramesMessage(recorder.recordings))

    def _send_late_frames(self, _: protocol.LateFrameInfo) -> None:
        assert self.state.flight_recorder is not None
        message = protocol.LateFramesMessage(self.state.flight_recorder.recordings)
        self._run_in_background(self.socket.send_message(message))

    async def _leave(self, tasks: list[asyncio.Task[Any]]) -> None:
        """End all tasks, then end the session or hand it to the keeper."""
        if self.state.flight_recorder is not None:
            self.state.flight_recorder.observers.discard(self._send_late_frames)
        streaming = tasks[1:2]
        suspended, self._resumable = self._resumable, None
        if self._admission is not None and not self._moved and not _has_failed(streaming):
            suspended = await self._suspend() or suspended
        pending = [*tasks, *self._background_tasks]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        self._end_session()
        if self._admission is not None:
            assert self.state.keeper is not None
            self.state.keeper.left(self._admission.session, suspended)
        elif suspended is not None:
            self.state.scheduler.close_session(suspended.live)

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
            token=None if self._admission is None else self._admission.token,
            resumed=self._resumable is not None,
            replay=self.state.replay,
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
                await self.socket.send_notice(str(error))
            except TimeoutError:
                raise  # the client does not read
            except OSError as error:  # such as a full disk
                await self.socket.send_notice(f"The server cannot do that: {write_failure(error)}.")
            self.streamer.notify()

    async def _handle(self, message: protocol.ClientMessage) -> None:
        if self._transferring is not None and isinstance(message, CHANGES):
            await asyncio.wait([self._transferring])  # a session that is being loaded comes first
        if self.streamer.frozen and isinstance(message, CHANGES):
            raise InputError("your session is moving to another server; try again")
        match message:
            case protocol.ActMessage():
                self._act(message)
                await self.socket.send_message(protocol.AckMessage(message.id))
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
                await self._start_capture(message.blocks)
            case protocol.JoinMessage():
                await self._join(message)
            case protocol.SaveMessage():
                self._transfer(self._save(self.streamer.current_session()))
            case protocol.LoadMessage():
                self._session_upload = SessionUpload(message.bytes)
                self.socket.expect_session(message.bytes)
                self._session_upload.check_size()

    def _upload(self, data: bytes) -> None:
        """Decode an uploaded image while play continues, or collect a session file."""
        if self._session_upload is not None:
            self._receive_session(self._session_upload, data)
            return
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
            await self.socket.send_notice(str(error))
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
        self._make_way()
        self.pacer.restart(0, 0)
        session = await self.state.device_thread.run(lambda: LiveSession(world, image, seed))
        await self.socket.send_message(protocol.StartedMessage(seed, image_id))
        await self.streamer.send_still(np.asarray(image.image), 0, 0)
        self._run_session(session)

    def _transfer(self, work: Coroutine[Any, Any, None]) -> None:
        """Write or read a session file while play continues, one at a time."""
        if self._transferring is not None and not self._transferring.done():
            work.close()
            raise InputError("wait until the server is done with your last session file")
        self._transferring = self._run_in_background(self._report_failure(work))

    async def _report_failure(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except InputError as error:
            await self.socket.send_notice(str(error))
        except OSError as error:
            await self.socket.send_notice(
                f"The session could not be written: {write_failure(error)}."
            )

    async def _save(self, session: LiveSession) -> None:
        await self.socket.send_message(
            await offer_session(session, self.state.device_thread, self.state.downloads)
        )

    def _receive_session(self, upload: SessionUpload, part: bytes) -> None:
        upload.add(part)
        if not upload.is_complete:
            return
        self._session_upload = None
        data = upload.file()
        if data is not None:
            self.socket.charge_session()
            self._transfer(self._load(data))

    async def _load(self, data: bytes) -> None:
        """Go on from a session file in place of the running session, once it is found good."""
        world = self.state.world
        live = await self.state.device_thread.run(lambda: unpack_untrusted(world, data))
        if self.streamer.frozen:
            self.state.scheduler.close_session(live)
            raise InputError("your session is moving to another server; load it again")
        self._make_way()
        self.images[UPLOAD] = live.start_image
        self._last_start = UPLOAD, live.seed
        self.pacer.restart(live.next_block, live.frame_count)
        self._run_session(live)
        await self.socket.send_message(protocol.LoadedMessage(live.next_block, live.seed))
        await self.streamer.send_still(live.last_frame, live.next_block, live.frame_count)

    def _make_way(self) -> None:
        """End the sessions that another one replaces, and send the recording that was running."""
        recording_key = self._end_session()
        if recording_key is not None:
            self._run_in_background(self._send_recording(recording_key))
        if self._resumable is not None:
            self.state.scheduler.close_session(self._resumable.live)
            self._resumable = None

    def _run_session(self, session: LiveSession) -> None:
        """Let the session's blocks be requested."""
        self.streamer.session = session
        if self._admission is not None:
            assert self.state.keeper is not None
            self.state.keeper.started(self._admission.session, session)

    async def _join(self, message: protocol.JoinMessage) -> None:
        """Go on with the session that was suspended, from the frame that the client lacks."""
        suspended, self._resumable = self._resumable, None
        if suspended is None:
            raise InputError("there is no session to join; start one")
        live, streamer = suspended.live, self.streamer
        frames = [frame for frame in suspended.frames if frame.frame >= message.next]
        self.pacer.continue_with(frames, live.next_block, live.frame_count)
        self.pacer.playing = suspended.playing
        if streamer.input.id == 0:  # an act that came before has priority
            streamer.input = suspended.input
        streamer.encoding = message.encoding or suspended.encoding
        self._last_start = suspended.image, live.seed
        if suspended.image == UPLOAD:
            self.images[UPLOAD] = live.start_image
        self._run_session(live)
        await self.socket.send_message(
            protocol.JoinedMessage(live.next_block, live.seed, suspended.image)
        )

    def _suspended(self) -> SuspendedSession:
        """Return the session as it is kept without this connection."""
        return SuspendedSession(
            self.streamer.current_session(),
            self.streamer.input,
            self._last_start[0],
            self.streamer.encoding,
            self.pacer.playing,
            self.pacer.unconfirmed_frames(),
        )

    async def _suspend(self) -> SuspendedSession | None:
        """Take the session from this connection at the end of its block, if there is one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FREEZE_SECONDS):
                await self.streamer.freeze()
                if self.streamer.session is None:
                    return None
                if self._recording is not None:
                    self._stop_recording()
                await self._capture.discard(self.streamer.session)
                suspended, self.streamer.session = self._suspended(), None
                return suspended
        return None

    def kick(self) -> None:
        """End the connection and suspend its session, because its player is back on another."""
        self._kicked.set()

    @property
    def is_movable(self) -> bool:
        """Whether the session can go to another server now: neither recorded nor captured."""
        transferring = self._transferring is not None and not self._transferring.done()
        busy = transferring or self._session_upload is not None or self._moved
        recorded = self._recording is not None or self._capture.is_running
        return self.streamer.session is not None and not busy and not recorded

    async def move(self, ship: Callable[[bytes], Awaitable[protocol.MovedMessage]]) -> None:
        """Send the session to another server at the end of its block, and the client after it.

        `ship` gets the session's bytes and returns the message for the client. The frames that
        are queued are still sent meanwhile. If `ship` raises, the session goes on here.
        """
        await self.streamer.freeze_with_full_queue()
        try:
            suspended = self._suspended()
            snapshot = await self.state.device_thread.run(suspended.live.take_snapshot)
            message = await ship(await asyncio.to_thread(pack_suspended, suspended, snapshot))
        except BaseException:
            self.streamer.frozen = False
            self.streamer.notify()
            raise
        self._moved = True
        with suppress(WebSocketDisconnect, TimeoutError):  # it asks for the session again
            await self.socket.send_message(message)
        asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self.kick)

    async def _rewind(self, message: protocol.RewindMessage) -> None:
        session = self.streamer.current_session()
        if not self.streamer.block_requested:  # which will be a block to go back to
            session.check_rewind()  # first: the frames that are queued stay
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
            await self.socket.send_notice("nothing has been recorded yet")
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
            await self.socket.send_notice(str(error))
            message = protocol.RecordingMessage(on=False, key=key)
        await self.socket.send_message(message)

    async def _start_capture(self, blocks: int) -> None:
        session = self.streamer.current_session()
        capture = await self._capture.start(session, blocks)
        self._run_in_background(self._capture.end_if_idle(session, capture))

    async def _after_block(self, session: LiveSession, block: BlockResult) -> None:
        if block.recording_end is not None:
            await self.socket.send_notice(block.recording_end)
            if self._recording is not None and self._recording[0] is session:
                self._run_in_background(self._send_recording(self._stop_recording()))
        if block.capture is not None:
            self._run_in_background(self._capture.finish(block.capture))

    def _end_session(self) -> str | None:
        """Close the session; return the key of its recording, if one was running."""
        recording_key = self._stop_recording() if self._recording is not None else None
        self.streamer.end_session()
        self._capture.release()
        return recording_key

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` while play continues; cancel it when the client leaves."""
        task = asyncio.create_task(_until_disconnect(work))
        self._background_tasks.add(task)
        task.add_done_callback(self._background_tasks.discard)
        return task


def _has_failed(tasks: list[asyncio.Task[Any]]) -> bool:
    """Return whether a task has ended because of anything but the client's leaving."""
    errors = [task.exception() for task in tasks if task.done() and not task.cancelled()]
    return any(not isinstance(error, WebSocketDisconnect | TimeoutError | None) for error in errors)


async def _until_disconnect(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; end quietly if the client has left meanwhile."""
    with suppress(WebSocketDisconnect, TimeoutError):
        await work
