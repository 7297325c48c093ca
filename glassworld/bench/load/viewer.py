"""A simulated viewer: takes a seat, presses random keys, and shows the frames that come."""

from __future__ import annotations

import asyncio
import json
import random
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from glassworld.bench.load.jitter_buffer import JitterBuffer
from glassworld.errors import InputError, MissingExtraError
from glassworld.play.protocol import FRAME, VERSION, unpack_frame

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import ConnectionClosed, WebSocketException
except ModuleNotFoundError:
    raise MissingExtraError("websockets", "play") from None

TIMEOUT = 60.0

KEY_SECONDS = (0.3, 2.0)
"""How long a viewer holds a key, at least and at most."""

NO_SESSIONS = (404, 405)
"""Statuses of a server that gives out no seats: `glassworld play`, which is its own worker."""


class SeatRefusedError(Exception):
    """The server has no seat for this viewer."""


@dataclass
class Viewing:
    """What a viewer has seen since its warm-up."""

    seconds: float = 0.0
    frames: int = 0
    on_time: int = 0
    stalls: int = 0
    moves: int = 0  # to other workers
    refused: bool = False
    failure: str = ""
    input_to_frame: list[float] = field(default_factory=list)  # seconds
    block_seconds: list[float] = field(default_factory=list)
    late: list[tuple[float, float]] = field(default_factory=list)  # time since the start, seconds


class Viewer:
    """Watches for some time, at the content rate of the world."""

    def __init__(self, url: str, seed: int, warm_up: float, seconds: float) -> None:
        self._url, self._random = url, random.Random(seed)
        self._warm_up, self._seconds = warm_up, seconds
        self._keys: list[str] = []
        self._acts = 0
        self._sent: dict[int, float] = {}
        self._buffer: JitterBuffer | None = None
        self.viewing = Viewing()

    async def watch(self) -> Viewing:
        """Watch until the time is up; a refusal or a failure is noted in the result."""
        try:
            address = await asyncio.to_thread(find_seat, self._url)
            await self._watch_from(address)
        except SeatRefusedError:
            self.viewing.refused = True
        except (OSError, TimeoutError, WebSocketException, InputError) as error:
            self.viewing.failure = f"{type(error).__name__}: {error}"
        return self.viewing

    async def _watch_from(self, address: str) -> None:
        """Watch from one worker after another, as the server moves the session."""
        began = time.perf_counter()
        start = True
        while True:
            async with connect(address, max_size=None, close_timeout=1) as socket:
                hello = json.loads(await asyncio.wait_for(socket.recv(), TIMEOUT))
                if hello["type"] == "full":
                    raise SeatRefusedError
                if start:
                    await self._start(socket, hello)
                moved = await self._play(socket, began)
            if moved is None:
                return
            address, start = moved, False
            self.viewing.moves += 1

    async def _start(self, socket: ClientConnection, hello: dict[str, Any]) -> None:
        self._keys = [control["key"] for control in hello["controls"]]
        self._buffer = JitterBuffer(hello["frame_rate"])
        seed = self._random.randrange(1000)
        await socket.send(json.dumps({"type": "start", "version": VERSION, "seed": seed}))

    async def _play(self, socket: ClientConnection, began: float) -> str | None:
        """Show frames until the time is up (None) or the session moves (its new address)."""
        pressing = asyncio.create_task(self._press_keys(socket))
        try:
            while time.perf_counter() - began < self._warm_up + self._seconds:
                message = await asyncio.wait_for(socket.recv(), TIMEOUT)
                now = time.perf_counter()
                if isinstance(message, bytes):
                    await self._show(socket, message, now, now - began)
                    continue
                control = json.loads(message)
                if control["type"] == "block" and now - began >= self._warm_up:
                    self.viewing.block_seconds.append(control["seconds"])
                elif control["type"] == "moved":
                    return with_ticket(control)
                elif control["type"] == "error":
                    raise InputError(control["text"])
        finally:
            pressing.cancel()
            with suppress(asyncio.CancelledError, ConnectionClosed):
                await pressing
        return None

    async def _show(
        self, socket: ClientConnection, message: bytes, now: float, since: float
    ) -> None:
        """Show a frame, and note how late it is and which input it answers."""
        header = unpack_frame(message)[0]
        await socket.send(json.dumps({"type": "seen", "frame": header.frame}))
        if header.kind != FRAME:
            return
        buffer, viewing = self._buffer, self.viewing
        assert buffer is not None
        shown = buffer.add(now)
        sent = self._sent.pop(header.action, None)
        if since < self._warm_up:
            buffer.reset_counts()
            return
        viewing.late.append((since - self._warm_up, shown.late))
        viewing.frames, viewing.on_time = buffer.frames, buffer.on_time
        viewing.stalls, viewing.seconds = buffer.stalls, since - self._warm_up
        if sent is not None:
            viewing.input_to_frame.append(shown.time - sent)

    async def _press_keys(self, socket: ClientConnection) -> None:
        """Hold one random key after another, until canceled."""
        while True:
            await asyncio.sleep(self._random.uniform(*KEY_SECONDS))
            self._acts += 1
            self._sent[self._acts] = time.perf_counter()
            act = {"type": "act", "id": self._acts, "keys": [self._random.choice(self._keys)]}
            await socket.send(json.dumps(act))


def with_ticket(seat: dict[str, Any]) -> str:
    """Return the address of a worker's WebSocket, with the ticket that it asks for."""
    return f"{seat['url']}?ticket={quote(seat['ticket'], safe='')}"


def find_seat(url: str) -> str:
    """Return the address of the WebSocket that a viewer of a server's page opens.

    A fleet is asked for a seat; raises `SeatRefusedError` if it has none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InputError(f"url {url!r:.80}: must be a page, such as http://127.0.0.1:8765/")
    sessions = f"{parts.scheme}://{parts.netloc}/sessions"
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(sessions, b"{}", headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            seat = json.load(response)
    except urllib.error.HTTPError as error:
        if error.code == 429:
            raise SeatRefusedError from None
        if error.code not in NO_SESSIONS:
            raise InputError(
                f"{url}: answers with status {error.code}; check its address"
            ) from None
    except urllib.error.URLError as error:
        raise InputError(f"{url}: no server there ({error.reason}); start one") from None
    else:
        return with_ticket(seat)
    scheme = "wss" if parts.scheme == "https" else "ws"
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{parts.netloc}/ws{query}"
