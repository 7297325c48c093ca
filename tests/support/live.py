"""Run a real server with the tiny world in a thread, and clients for it."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
from PIL import Image
from websockets.exceptions import ConnectionClosed

from glassworld.engine.world import World
from glassworld.play.app import create_app
from glassworld.play.images import StartImage
from glassworld.play.launch import http_server
from glassworld.play.server_state import LoadedWorld, ServerState
from tests.support import tiny
from tests.support.paths import ROOT

RATE = 48  # four times the world's own frame rate, so the tests take a quarter of the time


def until(condition: Callable[[], Any], seconds: float = 20) -> bool:
    """Return whether `condition` becomes true within `seconds`."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def close_reason(client: Any) -> tuple[int, str]:
    """Wait for the server to close the connection; return the code and the reason."""
    try:
        while True:
            client.socket.recv(20)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (0, "")


def _example(name: str) -> ModuleType:
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


play_client = _example("play_client")
PlayClient = play_client.PlayClient


def start_images(world: World) -> list[StartImage]:
    """Return two start images; the second has a name that would be HTML."""
    size = (world.spec.width, world.spec.height)
    smooth = tiny.picture().resize(size)
    gray = Image.fromarray(np.full((*size[::-1], 3), 99, np.uint8))
    return [StartImage("smooth", smooth), StartImage("<b>gray</b>", gray)]


class HttpResponse(NamedTuple):
    """The response to an HTTP request."""

    status: int
    headers: Any
    body: bytes


class RawSocket:
    """A WebSocket whose client sends frames of any kind and reads nothing unless asked."""

    def __init__(self, port: int, headers: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n".encode()
        )
        self.answer = self.socket.recv(4096)
        while self.answer.startswith(b"HTTP/1.1 101") and b'"hello"' not in self.answer:
            self.answer += self.socket.recv(4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_frames(
        self, opcode: int, payload: bytes = b"", count: int = 1, fin: bool = True
    ) -> bool:
        """Send frames; return False if the server has hung up."""
        assert len(payload) < 126
        mask = b"\0\0\0\0"
        frame = bytes([opcode | 0x80 * fin, 0x80 | len(payload)]) + mask + payload
        try:
            self.socket.sendall(frame * count)
        except OSError:
            return False
        return True

    def ends(self, seconds: float) -> bool:
        """Read until the server hangs up; return False if it does not within `seconds`."""
        self.socket.settimeout(seconds)
        end = time.monotonic() + seconds
        try:
            while self.socket.recv(65_536):
                if time.monotonic() > end:
                    return False
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        return True


class LiveServer:
    """A server for a `with`; `changes` change the spec of its tiny world.

    With `may_load` the server loads the world only after that event. `send_buffer` is the size of
    each connection's send buffer in bytes.
    """

    def __init__(
        self,
        slots: int = 4,
        token: str | None = None,
        port: int = 0,
        may_load: threading.Event | None = None,
        send_buffer: int | None = None,
        flight_recorder_seconds: float = 0,
        **changes: Any,
    ) -> None:
        self.world = tiny.world(**changes)
        self.loop: asyncio.AbstractEventLoop
        self.may_load, self.ready = may_load, threading.Event()
        self.state = ServerState(slots, None, flight_recorder_seconds, "glassworld generate")
        app = create_app(self.state, self._load, token, lambda _: self._on_loaded())
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer is not None:  # connections inherit it
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self._socket.bind(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        self._server = http_server(app, "critical")
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def _load(self) -> LoadedWorld:
        if self.may_load is not None:
            self.may_load.wait(60)
        return LoadedWorld(self.world, start_images(self.world))

    def _on_loaded(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.may_load is not None or self.ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()

    @property
    def ws(self) -> str:
        """The address of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}/ws"

    def client(self, query: str = "") -> Any:
        """Return a client, to be connected by a `with`."""
        return PlayClient(self.ws + query)

    def get(self, path: str, **headers: str) -> HttpResponse:
        """Return the response to a GET request."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return HttpResponse(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return HttpResponse(error.code, error.headers, error.read())

    def transports(self) -> list[asyncio.Transport]:
        """Return the transports of all connections."""
        return [connection.transport for connection in self._server.server_state.connections]

    def tasks(self) -> int:
        """Return the number of the server's asyncio tasks."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)
