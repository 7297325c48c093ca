"""Connections with limits: time for a request, frames a second, silence, unsent answers.

uvicorn parses whatever arrives before the application sees a message. These protocols check what
it does not: see the constants.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import h11
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CTRL_OPCODES, Frame
from websockets.http11 import Request

REQUEST_SECONDS = 10.0
"""Time from the first byte of a request, or from the connection, to its last byte."""

MAX_HEADER_BYTES = 65_536
"""Size of a request without its body. Cookies of all servers of a host come with each request."""

MAX_HANDSHAKE_LINE, MAX_HANDSHAKE_HEADERS = 8000, 120
"""What the WebSocket library parses, rounded down."""

FRAMES_PER_SECOND, FRAME_BURST = 250.0, 500.0
"""WebSocket frames of any kind: pings, pongs and fragments too."""

LARGE_FRAME, LARGE_FRAME_COST = 1024, 0.1
"""A frame of at least so many bytes is a piece of an upload and counts as less."""

UPLOAD_BYTES_PER_SECOND = 4096
"""A client that sends at least so much of a message is not silent: its network is slow."""

UPLOADED = "glassworld.uploaded"
"""In the state of a WebSocket: a function that returns how many bytes of messages have come."""

PARSED_BYTES = 2048
"""Received bytes are parsed in pieces, so that the limit holds within one large read."""

PING_SECONDS, PONG_SECONDS = 4.0, 8.0
"""How often a client is pinged, and how long it may take to answer."""

UNREAD_SECONDS = 30.0
"""How long an HTTP client may read nothing of its answer."""

CLOSING_SECONDS = 2.0
"""How long a closed connection may take to answer and to send the rest before it is cut."""


class TokenBucket:
    """Allow `rate` units a second on average and `burst` at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._tokens, self._counted_at = burst, time.monotonic()

    def take(self, units: float) -> bool:
        """Take units; return False if there are not enough."""
        now = time.monotonic()
        earned = (now - self._counted_at) * self._rate
        self._tokens = min(self._burst, self._tokens + earned) - units
        self._counted_at = now
        return self._tokens >= 0

    def drain(self, units: float) -> None:
        """Take units, as far as there are any, without a refusal."""
        self._tokens = max(0.0, self._tokens - units)


class LimitedHttp(H11Protocol):
    """HTTP with a time limit on requests, and an answer to handshakes that are too large."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None
    _is_websocket = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first request."""
        super().connection_made(transport)
        self._watch_request()

    def data_received(self, data: bytes) -> None:
        """Parse `data`, and stop the time when the request is complete."""
        super().data_received(data)
        self._watch_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the time."""
        self._stop_watching()
        self._stop_waiting()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the time in which the client has to read."""
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that time."""
        self._stop_waiting()
        super().resume_writing()

    def _stop_waiting(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _watch_request(self) -> None:
        incomplete = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if self._is_websocket or not incomplete or self.transport.is_closing():
            self._stop_watching()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self._cut)

    def _stop_watching(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        self._deadline = None
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request, or hang up if its answer has begun already."""
        self._answer_and_close(400, msg)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Pass the handshake on without cookies, which nobody here reads."""
        self._is_websocket = True
        self.headers = [header for header in self.headers if header[0] != b"cookie"]
        lines = [len(event.target), *(len(name) + len(value) for name, value in self.headers)]
        if max(lines) > MAX_HANDSHAKE_LINE or len(self.headers) > MAX_HANDSHAKE_HEADERS:
            self._answer_and_close(431, "The headers are too large.")
        else:
            super().handle_websocket_upgrade(event)

    def _answer_and_close(self, status: int, text: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=text.encode("ascii")),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:  # the application may be about to answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class LimitedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket that limits frames, and is cut when its client no longer reads."""

    _checking: asyncio.TimerHandle | None = None
    _refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start to check that a closed connection ends."""
        super().connection_made(transport)
        self.close_timeout = CLOSING_SECONDS  # for the client's side of the closing handshake
        self._frames = TokenBucket(FRAMES_PER_SECOND, FRAME_BURST)
        self._uploaded = 0  # bytes of messages, also of one that is not complete
        self._uploaded_at_ping = 0
        self._check_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the checks."""
        if self._checking is not None:
            self._checking.cancel()
        super().connection_lost(exc)

    def _check_closing(self) -> None:
        """Cut the connection if it has been closing since the last check.

        Closing waits for what is not sent yet: for ever, if the client does not read.
        """
        if self.transport.is_closing():
            self.transport.abort()
        else:
            self._checking = self.loop.call_later(CLOSING_SECONDS, self._check_closing)

    def data_received(self, data: bytes) -> None:
        """Parse `data` in pieces, until a limit is exceeded."""
        for start in range(0, len(data), PARSED_BYTES):
            if self._refused:
                return
            piece = data[start : start + PARSED_BYTES]
            self._uploaded += len(piece)
            self.conn.receive_data(piece)
            self.handle_events()
            if self.conn.parser_exc is not None and not self._refused:
                self._refused = True
                self.handle_parser_exception()

    def handle_events(self) -> None:
        """Count the frames that have been parsed, and handle them if they are not too many."""
        events = self.conn.events_received()
        frames = [event for event in events if isinstance(event, Frame)]
        self._uploaded -= sum(len(frame.data) for frame in frames if frame.opcode in CTRL_OPCODES)
        if not self._frames.take(sum(map(_cost, frames))):
            self._refuse(1008, f"too many messages; send at most {FRAMES_PER_SECOND:.0f} a second")
            return
        self.conn.events = events  # the base class takes them
        super().handle_events()

    def handle_connect(self, event: Request) -> None:
        """Accept a handshake, and let the application see uploads before they are complete."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope["state"][UPLOADED] = lambda: self._uploaded

    def _refuse(self, code: int, reason: str) -> None:
        """Close the connection because of what the client sent, and parse nothing more.

        What still arrives is read and dropped for a while: otherwise, the system would reset the
        connection before the client reads the reason.
        """
        self._refused = True
        if self.close_sent:
            return
        self.conn.fail(code, reason)
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        self.close_timer = self.loop.call_later(CLOSING_SECONDS, self.transport.close)

    def handle_parser_exception(self) -> None:
        """Close the connection, also if it failed before the handshake was complete."""
        if self.conn.close_sent is not None:
            super().handle_parser_exception()
        else:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006, "reason": ""})
            self.close_sent = True
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on; refuse text that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self._refuse(1007, "text is not UTF-8; change its encoding")
                return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Answer a ping, unless the client does not read the answers."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # drops the answer

    def send_keepalive_ping(self) -> None:
        """Send a ping, and note how much has come before it."""
        self._uploaded_at_ping = self._uploaded
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Close the connection, and tell the application, which may be waiting for a message.

        While an upload comes, wait on: the client's answer comes after it.
        """
        if uploads(self._uploaded - self._uploaded_at_ping, PONG_SECONDS):
            self._uploaded_at_ping = self._uploaded
            self.pong_timer = self.loop.call_later(PONG_SECONDS, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1011, "reason": "no pong"})

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message; raise `ClientDisconnected` if the connection has been closed."""
        if self.close_sent and message["type"] in ("websocket.send", "websocket.close"):
            raise ClientDisconnected
        await super().send(message)


def uploads(size: int, seconds: float) -> bool:
    """Return whether a client that sent `size` bytes in `seconds` is not silent."""
    return size >= UPLOAD_BYTES_PER_SECOND * seconds


def _cost(frame: Frame) -> float:
    return LARGE_FRAME_COST if len(frame.data) >= LARGE_FRAME else 1.0


def uvicorn_limits() -> dict[str, Any]:
    """Return the options of `uvicorn.Config` that set these limits."""
    return {
        "http": LimitedHttp,
        "ws": LimitedWebSocket,
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
        "ws_ping_interval": PING_SECONDS,
        "ws_ping_timeout": PONG_SECONDS,
    }
