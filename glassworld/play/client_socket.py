"""A WebSocket that speaks the protocol and limits the size, rate and time of messages."""

from __future__ import annotations

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from glassworld.play import protocol

SEND_TIMEOUT = 20.0
"""Seconds without progress after which a client counts as gone."""

CLOSE_TIMEOUT = 2.0
"""Seconds to wait for the client's side of the closing handshake."""

MESSAGES_PER_SECOND = 100
BURST = 200
UPLOAD_COST = 20
"""An upload counts as this many messages."""

MAX_REASON_BYTES = 120
"""Length of a close reason; the WebSocket protocol allows 123."""


class ClientSocket:
    """An accepted WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._allowance, self._counted_at = float(BURST), time.monotonic()

    async def receive(self) -> protocol.ClientMessage | bytes:
        """Return the next message; bytes are an uploaded image.

        Raises `ProtocolError` for an invalid message, `WebSocketDisconnect` when the client goes.
        """
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        data: bytes | None = message.get("bytes")
        self._count(1 if data is None else UPLOAD_COST)
        if data is None:
            return protocol.decode_message(message["text"])
        if len(data) > protocol.MAX_UPLOAD_BYTES:
            raise protocol.ProtocolError("image too large")
        return data

    def _count(self, messages: int) -> None:
        """Take messages from a token bucket; raise `ProtocolError` if it is empty."""
        now = time.monotonic()
        earned = (now - self._counted_at) * MESSAGES_PER_SECOND
        self._allowance = min(BURST, self._allowance + earned) - messages
        self._counted_at = now
        if self._allowance < 0:
            raise protocol.ProtocolError("too many messages")

    async def send_message(self, message: protocol.ServerMessage) -> None:
        """Send a control message."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._socket.send_text(protocol.encode_message(message))

    async def send_frame(self, message: bytes) -> None:
        """Send a binary message: a frame header and an encoded image."""
        async with asyncio.timeout(SEND_TIMEOUT):
            await self._socket.send_bytes(message)

    async def close(self, code: int, reason: str) -> None:
        """Send the reason and close the connection."""
        try:
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
