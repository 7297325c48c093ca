"""A WebSocket that speaks the protocol and limits the size, rate and time of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from glassworld.play import protocol
from glassworld.play.limits.connections import UPLOADED, TokenBucket, uploads

SEND_TIMEOUT = 20.0
"""Seconds without progress after which a client counts as gone."""

CLOSE_TIMEOUT = 2.0
"""Seconds to wait for the client's side of the closing handshake."""

SILENCE_SECONDS = 15.0
"""A client that sends nothing for so long loses its slot; the page sends a ping each second.
An upload may take longer, as long as enough of it comes in each such time."""

MESSAGES_PER_SECOND, BURST = 100.0, 200.0
UPLOAD_COST, MEGAPIXEL_COST = 20.0, 5.0
"""An upload counts as this many messages, and as more for each megapixel. The parts of a session
file count by their sizes: one of the largest as an upload."""

SESSION_COST = 40.0

MAX_REASON_BYTES = 120
"""Length of a close reason; the WebSocket protocol allows 123."""


class ClientSocket:
    """An accepted WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._messages = TokenBucket(MESSAGES_PER_SECOND, BURST)
        self._session_bytes = 0  # of a session file, still to come

    @property
    def host(self) -> str:
        """The name under which the client reaches this server."""
        return self._socket.url.hostname or ""

    async def receive(self, silence_allowed: bool = False) -> protocol.ClientMessage | bytes:
        """Return the next message; bytes are an uploaded image or a part of a session file.

        Raises `ProtocolError` for an invalid message or too long a silence, and
        `WebSocketDisconnect` when the client goes.
        """
        message = await (self._socket.receive() if silence_allowed else self._receive_in_time())
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        data: bytes | None = message.get("bytes")
        if not self._messages.take(1 if data is None else self._upload_cost(len(data))):
            raise protocol.ProtocolError(
                f"too many messages; send at most {MESSAGES_PER_SECOND:.0f} a second"
            )
        if data is None:
            return protocol.decode_message(message["text"])
        if len(data) > protocol.MAX_UPLOAD_BYTES:
            size = protocol.MAX_UPLOAD_BYTES >> 20
            raise protocol.ProtocolError(f"binary message too large; send at most {size} MiB")
        return data

    async def _receive_in_time(self) -> Message:
        """Return the next message; raise `ProtocolError` if neither it nor enough of it comes."""
        uploaded: Callable[[], int] = self._socket.scope["state"][UPLOADED]
        receiving = asyncio.ensure_future(self._socket.receive())
        try:
            while True:
                before = uploaded()
                await asyncio.wait((receiving,), timeout=SILENCE_SECONDS)
                if receiving.done():
                    return receiving.result()
                if not uploads(uploaded() - before, SILENCE_SECONDS):
                    raise protocol.ProtocolError(
                        f"no message for {SILENCE_SECONDS:.0f} seconds; send a ping now and then"
                    )
        finally:
            receiving.cancel()

    def _upload_cost(self, size: int) -> float:
        """Return as how many messages a binary one counts."""
        if self._session_bytes <= 0:
            return UPLOAD_COST
        self._session_bytes -= size
        return max(1.0, UPLOAD_COST * size / protocol.MAX_UPLOAD_BYTES)

    def expect_session(self, size: int) -> None:
        """Count the next `size` bytes as parts of one session file, however small they are."""
        self._session_bytes = size

    def charge_session(self) -> None:
        """Let a session file cost more than its messages, because its check takes blocks."""
        self._messages.drain(SESSION_COST)

    def charge_pixels(self, pixels: int) -> None:
        """Let an upload cost by its pixels: the next messages must be fewer, for some seconds."""
        self._messages.drain(MEGAPIXEL_COST * pixels / 1e6)

    async def send_message(self, message: protocol.ServerMessage) -> None:
        """Send a control message."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._socket.send_text(protocol.encode_message(message))

    async def send_notice(self, text: str) -> None:
        """Send a text for the player; the session continues."""
        await self.send_message(protocol.NoticeMessage(text))

    async def send_frame(self, message: bytes) -> None:
        """Send a binary message: a frame header and an encoded image."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._socket.send_bytes(message)

    async def close(self, code: int, reason: str, is_error: bool = True) -> None:
        """Close the connection; send the reason of an error first."""
        try:
            if is_error:
                await self.send_message(protocol.ErrorMessage(reason))
            short = reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
            async with asyncio.timeout(SEND_TIMEOUT):
                await self._socket.close(code, short)
            async with asyncio.timeout(CLOSE_TIMEOUT):
                # Read what is still in flight; the client's close message comes after it.
                while (await self._socket.receive())["type"] != "websocket.disconnect":
                    pass
        except (WebSocketDisconnect, TimeoutError, RuntimeError):
            return  # the client has closed the connection already
