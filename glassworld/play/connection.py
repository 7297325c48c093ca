"""One connected player: what its messages do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from starlette.websockets import WebSocketDisconnect

from glassworld.engine.actions.track import Action
from glassworld.errors import InputError
from glassworld.play import protocol as wire
from glassworld.play.client_socket import ClientSocket
from glassworld.play.frame_streamer import FrameStreamer
from glassworld.play.images import prepare
from glassworld.play.live_session import BlockResult, FinishedRecording, LiveSession, PlayerInput
from glassworld.play.results import captured, recorded
from glassworld.play.server_state import ServerState

UPLOAD = "upload"
"""The name that a start gives to the picture uploaded last."""


class PlayerConnection:
    """A client with a seat. Its session is released once, however it leaves."""

    def __init__(self, hall: ServerState, channel: ClientSocket) -> None:
        self.hall, self.channel = hall, channel
        self.projector = FrameStreamer(hall, channel, self._after_block)
        self.playback = self.projector.playback
        self.pictures = {str(index): picture for index, picture in enumerate(hall.pictures)}
        self._start_at = ("0", hall.world.spec.seed)
        self._trace: Path | None = None
        self._chores: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve until the client is gone, or raise what it must not do."""
        await self.channel.tell(self._hello())
        jobs = (self._receive, self.projector.make_blocks, self.projector.send)
        tasks = [asyncio.create_task(job()) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            pending = [*tasks, *self._chores]
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            self._leave()

    def _hello(self) -> wire.Hello:
        spec, space = self.hall.world.spec, self.hall.world.space
        return wire.Hello(
            version=wire.VERSION,
            world=self.hall.world.name,
            note=self.hall.world.note,
            mode=spec.mode,
            width=spec.width,
            height=spec.height,
            frame_rate=spec.frame_rate,
            block_frames=round(self.playback.block_seconds * spec.frame_rate),
            idle=space.idle,
            has_mouse=space.has_mouse,
            controls=[wire.ControlInfo(c.name, c.key, c.column, c.mouse) for c in space.controls],
            pictures=[wire.PictureInfo(key, each.name) for key, each in self.pictures.items()],
        )

    async def _receive(self) -> None:
        while True:
            message = await self.channel.receive()
            try:
                if isinstance(message, bytes):
                    await self._upload(message)
                else:
                    await self._take(message)
            except InputError as error:
                await self.channel.tell(wire.Notice(str(error)))
            self.projector.changed()

    async def _take(self, message: wire.ClientMessage) -> None:
        match message:
            case wire.Act():
                self._act(message)
            case wire.Seen():
                self.playback.seen(message.frame)
            case wire.Ping():
                await self.channel.tell(wire.Pong(message.id))
            case wire.Start():
                await self._start(message)
            case wire.Pause():
                self.playback.pause()
            case wire.Resume():
                self.playback.resume()
            case wire.Step():
                self.playback.step()
            case wire.Rewind():
                await self._rewind(message)
            case wire.Record():
                await self._record(message)
            case wire.Capture():
                await self._capture(message)

    async def _upload(self, data: bytes) -> None:
        spec = self.hall.world.spec
        picture = await asyncio.to_thread(prepare, data, "your picture", spec.height, spec.width)
        self.pictures[UPLOAD] = picture
        await self.channel.tell(wire.Picture(*picture.image.size))

    def _act(self, message: wire.Act) -> None:
        pressed = self.hall.world.space.press(message.keys)
        mouse = None
        if pressed.mouse is not None:
            vertical, horizontal = np.clip(np.add(pressed.mouse, message.mouse), -1, 1)
            mouse = (float(vertical), float(horizontal))
        self.projector.order = PlayerInput(message.id, Action(pressed.keyboard, mouse))

    async def _start(self, message: wire.Start) -> None:
        key = self._start_at[0] if message.picture is None else message.picture
        seed = self._start_at[1] if message.seed is None else message.seed
        if key not in self.pictures:
            raise InputError("that picture is not here; choose another or upload it again")
        picture, world = self.pictures[key], self.hall.world
        self._start_at, self.projector.encoding = (key, seed), message.encoding
        self._leave()
        self.playback.restart(0, 0)
        walk = await self.hall.worker.run(lambda: LiveSession(world, picture, seed))
        await self.channel.tell(wire.Started(seed, key))
        await self.projector.still(np.asarray(picture.image), 0, 0)
        self.projector.walk = walk

    async def _rewind(self, message: wire.Rewind) -> None:
        walk = self.projector.running()
        target = max(0, self.playback.begun - message.blocks)
        self.projector.walk = None  # nothing is to be made meanwhile
        self.playback.restart(self.playback.next_block, 0)
        try:
            snapshot = await self.hall.worker.run(lambda: walk.rewind(target))
        finally:
            self.projector.walk = walk
        self.playback.restart(snapshot.block, snapshot.frame)
        await self.channel.tell(wire.Rewound(snapshot.block))
        await self.projector.still(snapshot.still, snapshot.block, snapshot.frame)

    async def _record(self, message: wire.Record) -> None:
        walk = self.projector.running()
        if message.on:
            await self.hall.worker.run(walk.record)
            await self.channel.tell(wire.RecordingStatus(on=True))
        else:
            await self._end_recording(walk)

    async def _capture(self, message: wire.Capture) -> None:
        walk = self.projector.running()
        if self.hall.capturing is not None:
            raise InputError("a capture is running; wait until it is done")
        path = self.hall.shelf.place("trace.json.gz")
        self.hall.capturing, self._trace = self, path
        await self.hall.worker.run(lambda: walk.capture(path, message.blocks))

    async def _after_block(self, walk: LiveSession, block: BlockResult) -> None:
        if block.film_full:
            await self.channel.tell(wire.Notice("The recording is full and ends here."))
            await self._end_recording(walk)
        if block.captured and self._trace is not None:
            path, self._trace, self.hall.capturing = self._trace, None, None
            self._chore(self._end_capture(path))

    def _leave(self) -> None:
        self.projector.leave()
        if self.hall.capturing is self:
            self.hall.capturing = self._trace = None

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        """Something that takes its time beside the play."""
        task = asyncio.create_task(_unless_gone(work))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _end_recording(self, walk: LiveSession) -> None:
        try:
            tape = await self.hall.worker.run(walk.stop_recording)
        except InputError as error:
            await self.channel.tell(wire.Notice(str(error)))
            await self.channel.tell(wire.RecordingStatus(on=False))
            return
        self._chore(self._offer(tape))

    async def _offer(self, tape: FinishedRecording) -> None:
        rate = self.hall.world.spec.frame_rate
        try:
            done = await asyncio.to_thread(recorded, self.hall.shelf, tape, rate)
        except OSError as error:
            await self.channel.tell(wire.Notice(f"The recording could not be written: {error}"))
            done = wire.RecordingStatus(on=False)
        await self.channel.tell(done)

    async def _end_capture(self, path: Path) -> None:
        await self.channel.tell(await captured(self.hall.shelf, path))


async def _unless_gone(work: Coroutine[Any, Any, None]) -> None:
    """Do it; that the client has left meanwhile is no fault."""
    with suppress(WebSocketDisconnect, TimeoutError):
        await work
