"""From options to a running server."""

from __future__ import annotations

import os
import secrets
import socket
import time
import webbrowser
from contextlib import suppress
from dataclasses import dataclass, field

from rich.console import Console

from glassworld.engine.checkpoint.locate import locate_world
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError, MissingExtraError

# Waiting threads that spin would keep the frames from being sent in time; read when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import uvicorn
    from starlette.applications import Starlette

    from glassworld.play.access import LOOPBACK
    from glassworld.play.app import create_app
    from glassworld.play.protocol import MOST_UPLOAD
    from glassworld.play.server_state import (
        LoadedWorld,
        ServerState,
        open_stage,
    )
except ModuleNotFoundError as missing:
    raise MissingExtraError(f"{missing.name}, which playing in the browser needs", "play") from None

LARGEST_MESSAGE = MOST_UPLOAD + 1024

SECONDS_TO_LEAVE = 3
"""How long connections may take to end after Ctrl-C."""


@dataclass(frozen=True)
class PlayOptions:
    """What the command line was given; see its help for each."""

    host: str = "127.0.0.1"
    port: int = 8765
    open_page: bool = True
    load: LoadOptions = field(default_factory=LoadOptions)


def serve(options: PlayOptions) -> None:
    """Listen until Ctrl-C. Raises `InputError` for an address or a world that cannot be used."""
    console, began = Console(), time.perf_counter()
    locate_world(options.load)  # refused before there is an address to go to
    listening = _listen(options.host, options.port)
    token = None if options.host in LOOPBACK else secrets.token_urlsafe(16)
    address = _address(options.host, listening.getsockname()[1], token)
    hall, failures = ServerState(), list[Exception]()

    def opened(failure: Exception | None) -> None:
        if failure is not None:
            failures.append(failure)
            server.should_exit = True
            return
        from glassworld.engine.acceleration.parts import hint  # torch: the page comes first

        advice = hint(hall.world.device, options.load.accelerate)
        for said in filter(None, (hall.world.note, advice)):
            console.print(said, highlight=False, soft_wrap=True)
        console.print(f"ready after {time.perf_counter() - began:.1f} s; Ctrl-C ends it")

    def load() -> LoadedWorld:
        return open_stage(options.load)

    server = http_server(create_app(hall, load, token, opened))
    console.print(f"play at {address}", highlight=False, soft_wrap=True)
    if options.open_page:
        webbrowser.open(address)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listening])
    if failures:
        raise failures[0]


def http_server(app: Starlette, log_level: str = "warning") -> uvicorn.Server:
    """The server around the application; pictures are compressed already, so nothing else is."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_max_size=LARGEST_MESSAGE,
            ws_per_message_deflate=False,
            log_level=log_level,
            timeout_graceful_shutdown=SECONDS_TO_LEAVE,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections from now on; they wait until the server runs."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"{host} port {port}: cannot listen there ({error.strerror}); "
            "try another --host or --port"
        ) from None


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
