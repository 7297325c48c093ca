"""A WebSocket with our protocol on it: typed messages, bounded in size, rate and time."""

from __future__ import annotations

import asyncio
import time

from starlette.websockets import WebSocket, WebSocketDisconnect

from glassworld.play import protocol as wire

SEND_SECONDS = 20.0
"""A client that takes nothing for this long is gone."""

PARTING_SECONDS = 2.0

MESSAGES_PER_SECOND = 100
BURST = 200
UPLOAD_COST = 20
"""An upload counts for this many messages."""

LONGEST_REASON = 120
"""Bytes of a close reason; the WebSocket protocol has room for 123."""


class ClientSocket:
    """An accepted WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._allowance, self._counted = float(BURST), time.monotonic()

    async def receive(self) -> wire.ClientMessage | bytes:
        """The next message, a picture as bytes.

        Raises `ProtocolError` for what must not be sent, `WebSocketDisconnect` at the end.
        """
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code") or 1005)
        data: bytes | None = message.get("bytes")
        self._count(1 if data is None else UPLOAD_COST)
        if data is None:
            return wire.decode(message["text"])
        if len(data) > wire.MOST_UPLOAD:
            raise wire.ProtocolError("picture too large")
        return data

    def _count(self, messages: int) -> None:
        """A token bucket over what the client sends."""
        now = time.monotonic()
        earned = (now - self._counted) * MESSAGES_PER_SECOND
        self._allowance = min(BURST, self._allowance + earned) - messages
        self._counted = now
        if self._allowance < 0:
            raise wire.ProtocolError("too many messages")

    async def tell(self, message: wire.ServerMessage) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._socket.send_text(wire.encode(message))

    async def deliver(self, message: bytes) -> None:
        async with asyncio.timeout(SEND_SECONDS):
            await self._socket.send_bytes(message)

    async def close(self, code: int, reason: str) -> None:
        """Say why and close."""
        try:
            await self.tell(wire.Error(reason))
            short = reason.encode()[:LONGEST_REASON].decode(errors="ignore")
            async with asyncio.timeout(SEND_SECONDS):
                await self._socket.close(code, short)
            async with asyncio.timeout(PARTING_SECONDS):
                # What is still on its way must be read, or the client's farewell is never heard.
                while (await self._socket.receive())["type"] != "websocket.disconnect":
                    pass
        except (WebSocketDisconnect, TimeoutError, RuntimeError):
            return  # it is gone already
