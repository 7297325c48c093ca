"""Start the server: listen, print the address, load the world, run until Ctrl-C."""

from __future__ import annotations

import gc
import os
import secrets
import socket
import time
import webbrowser
from contextlib import suppress
from dataclasses import dataclass, field

from rich.console import Console

from glassworld.errors import InputError, MissingExtraError

# Spinning worker threads would delay the frames. Torch reads this when it loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import uvicorn
    from starlette.types import ASGIApp

    from glassworld.engine.acceleration.parts import hint
    from glassworld.engine.checkpoint.locate import locate_world
    from glassworld.engine.checkpoint.options import LoadOptions
    from glassworld.play.access import LOOPBACK
    from glassworld.play.app import create_app
    from glassworld.play.limits.connections import uvicorn_limits
    from glassworld.play.limits.log import limit_log
    from glassworld.play.protocol import MAX_UPLOAD_BYTES, LateFrameInfo
    from glassworld.play.recording import replay_command
    from glassworld.play.server_state import (
        LoadedWorld,
        ServerState,
        open_world,
    )
    from glassworld.play.traces.flight_flag import DEFAULT_SECONDS
    from glassworld.play.traces.flight_recorder import late_frame_line
    from glassworld.profiling.capture import initialize_profiler
except ModuleNotFoundError as missing:
    raise MissingExtraError(f"{missing.name}, which playing in the browser needs", "play") from None

MAX_MESSAGE_BYTES = MAX_UPLOAD_BYTES + 1024

SHUTDOWN_SECONDS = 3
"""How long connections may take to close after Ctrl-C."""


@dataclass(frozen=True)
class PlayOptions:
    """The options of the command line; its help describes them."""

    host: str = "127.0.0.1"
    port: int = 8765
    open_page: bool = True
    load: LoadOptions = field(default_factory=LoadOptions)
    flight_recorder: int = DEFAULT_SECONDS


def serve(options: PlayOptions) -> None:
    """Serve until Ctrl-C; raise `InputError` for an unusable address or world."""
    console, started = Console(), time.perf_counter()
    locate_world(options.load)  # fails before the address is printed
    listening = listen_on(options.host, options.port)
    token = None if options.host in LOOPBACK else secrets.token_urlsafe(16)
    address = _address(options.host, listening.getsockname()[1], token)
    state = ServerState(
        flight_recorder_seconds=options.flight_recorder,
        replay=replay_command(options.load, show_paths=token is None),
    )
    failures = list[Exception]()

    def on_late_frame(late: LateFrameInfo) -> None:
        console.print(late_frame_line(late, address), highlight=False, soft_wrap=True)

    if state.flight_recorder is not None:
        state.flight_recorder.observers.add(on_late_frame)

    def on_loaded(failure: Exception | None) -> None:
        if failure is not None:
            failures.append(failure)
            server.should_exit = True
            return
        advice = hint(state.world.device, options.load.accelerate, options.load.dtype)
        for line in filter(None, (state.world.note, advice)):
            console.print(line, highlight=False, soft_wrap=True)
        console.print(f"ready after {time.perf_counter() - started:.1f} s; press Ctrl-C to stop")

    try:
        server = http_server(
            create_app(state, lambda: world_to_serve(options.load), token, on_loaded)
        )
        initialize_profiler()
        console.print(f"play at {address}", highlight=False, soft_wrap=True)
        if options.open_page:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        state.close()  # an early or a second Ctrl-C skips the application's own end
    if failures:
        raise failures[0]


def world_to_serve(options: LoadOptions) -> LoadedWorld:
    """Load a world for a process that does nothing but serve it."""
    loaded = open_world(options)
    exempt_from_garbage_collection()
    return loaded


def exempt_from_garbage_collection() -> None:
    """Let the garbage collector skip every object that exists now.

    There are 200,000 when a world is loaded. A collection of all of them holds Python's lock for
    0.2 s, and nobody gets a frame or an answer meanwhile.
    """
    gc.collect()
    gc.freeze()


def http_server(app: ASGIApp, log_level: str = "warning") -> uvicorn.Server:
    """Return a server for the application; it compresses nothing, since images already are."""
    config = uvicorn.Config(
        app,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        log_level=log_level,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        **uvicorn_limits(),
    )
    limit_log()
    return uvicorn.Server(config)


def listen_on(host: str, port: int, flags: str = "--host or --port") -> socket.socket:
    """Return a listening socket; connections wait in its backlog until the server runs.

    Raises `InputError`, which advises other values for `flags`, if it cannot listen.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise InputError(
            f"{host} port {port}: cannot listen there ({error.strerror}); try another {flags}"
        ) from None


def _address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")
