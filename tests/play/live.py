"""A real server in a thread, with the tiny world in it."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Self

import numpy as np
import tiny
import uvicorn
from PIL import Image

from glassworld.engine.world import World
from glassworld.play.hall import Hall, Stage
from glassworld.play.pictures import StartingPicture
from glassworld.play.protocol import MOST_UPLOAD
from glassworld.play.server import create_app


def _example(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


PlayClient = _example("play_client").PlayClient


def pictures(world: World) -> list[StartingPicture]:
    size = (world.spec.width, world.spec.height)
    smooth = tiny.picture().resize(size)
    return [
        StartingPicture("smooth", smooth),
        StartingPicture("<b>grey</b>", Image.fromarray(np.full((*size[::-1], 3), 99, np.uint8))),
    ]


class Answer(NamedTuple):
    """What an HTTP request got."""

    status: int
    headers: Any
    body: bytes


class Live:
    """`with Live() as live: ...`; `changes` are the world's."""

    def __init__(
        self, seats: int = 4, token: str | None = None, port: int = 0, **changes: Any
    ) -> None:
        world = tiny.world(**changes)
        self.loop: asyncio.AbstractEventLoop
        self.ready = threading.Event()
        self.hall = Hall(seats)
        app = create_app(
            self.hall, lambda: Stage(world, pictures(world)), token, lambda _: self._opened()
        )
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        config = uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_max_size=MOST_UPLOAD + 1024,
            log_level="critical",
            timeout_graceful_shutdown=3,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    def _opened(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready.set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        assert not self._thread.is_alive()

    @property
    def ws(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws"

    def client(self, query: str = "") -> Any:
        return PlayClient(self.ws + query)

    def get(self, path: str, **headers: str) -> Answer:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answer(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def tasks(self) -> int:
        """Asyncio tasks of the server."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(10)
