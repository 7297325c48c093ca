"""The captures that one player asks for, from the request to the files."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any

from glassworld.errors import InputError
from glassworld.play.client_socket import ClientSocket
from glassworld.play.frame_streamer import FrameStreamer
from glassworld.play.live_session import LiveSession
from glassworld.play.protocol import CapturedMessage
from glassworld.play.recording import write_failure
from glassworld.play.server_state import ServerState
from glassworld.play.traces.block_capture import MAX_EVENTS, BlockCapture
from glassworld.play.traces.offered_trace import TRACE_NAME, offer_trace

logger = logging.getLogger("glassworld.play")

MAX_IDLE_SECONDS, CHECK_SECONDS = 10.0, 0.5
"""A capture ends if its session generates nothing for so long: there is one profiler for all."""


class SessionCapture:
    """The capture of a player's session: one at a time, and one for all players of the server."""

    def __init__(self, state: ServerState, streamer: FrameStreamer, socket: ClientSocket) -> None:
        self._state, self._streamer, self._socket = state, streamer, socket
        self._running: BlockCapture | None = None

    @property
    def is_running(self) -> bool:
        """Whether blocks of the session are being captured."""
        return self._running is not None

    async def start(self, session: LiveSession, blocks: int) -> BlockCapture:
        """Profile the session's next blocks; raise `InputError` if another capture is running."""
        if self._state.capture is not None:
            raise InputError("a capture is already running; wait until it is done")
        limit = MAX_EVENTS if self._state.slots_taken > 1 else None
        capture = BlockCapture(self._state.downloads.new_path(TRACE_NAME), blocks, limit)
        self._state.capture = self._running = capture
        await self._state.device_thread.run(lambda: session.capture(capture))
        return capture

    async def end_if_idle(self, session: LiveSession, capture: BlockCapture) -> None:
        """Wait for the capture; end it if its session stops generating, so that others may."""
        active_at = time.monotonic()
        while time.monotonic() - active_at < MAX_IDLE_SECONDS:
            await asyncio.sleep(CHECK_SECONDS)
            if self._running is not capture:
                return
            if self._streamer.block_requested:
                active_at = time.monotonic()
        await self._state.device_thread.run(session.discard_capture)
        if self._running is capture:  # the device thread may just have finished it
            self.release()
            await self._socket.send_notice(
                "The capture ended without a trace: no block was generated for a while. "
                "Resume play, then capture again."
            )

    async def discard(self, session: LiveSession) -> None:
        """End the capture of `session`, if there is one, without a trace."""
        if self._running is not None:
            await self._state.device_thread.run(session.discard_capture)
            self.release()

    def release(self) -> None:
        """Let others capture, if a capture was running; its session has ended it."""
        if self._running is not None:
            self._let_others(self._running)
            self._running = None

    def _let_others(self, capture: BlockCapture) -> None:
        if self._state.capture is capture:
            self._state.capture = None

    def finish(self, capture: BlockCapture) -> Coroutine[Any, Any, None]:
        """Write the trace of a capture that has its blocks, and its report; send their addresses.

        From the call on, the capture no longer ends with its session.
        """
        self._running = None
        return self._send_files(capture)

    async def _send_files(self, capture: BlockCapture) -> None:
        loop = asyncio.get_running_loop()

        def export() -> None:
            try:
                capture.export()
            finally:
                loop.call_soon_threadsafe(self._let_others, capture)

        try:
            offered = await offer_trace(self._state.downloads, capture.path, export)
        except Exception as error:  # whatever happened, the player learns of it
            logger.warning("a capture could not be written: %s", error)
            await self._socket.send_notice(
                f"The capture could not be written: {write_failure(error)}."
            )
            return
        await self._socket.send_message(CapturedMessage(offered.trace, offered.report))
        if capture.blocks < capture.requested:
            await self._socket.send_notice(
                f"The trace has {capture.blocks} of {capture.requested} blocks: "
                "more of them would stop the frames of the other players."
            )
