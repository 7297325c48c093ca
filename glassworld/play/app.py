"""The server: the page, its files, the WebSocket, health and metrics."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from glassworld.play import protocol as wire
from glassworld.play.access import AccessControl
from glassworld.play.client_socket import ClientSocket
from glassworld.play.connection import PlayerConnection
from glassworld.play.server_state import LoadedWorld, ServerState

STATIC = Path(__file__).resolve().parent / "static"

POLICY, FAILED, TRY_AGAIN = 1008, 1011, 1013
"""WebSocket close codes."""

REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:"
)
"""A report is a page of its own; names out of a trace must not reach the server."""

Opened = Callable[[Exception | None], None]
"""Hears that the world is ready, or why it could not be loaded."""


def create_app(
    hall: ServerState,
    load: Callable[[], LoadedWorld],
    token: str | None = None,
    opened: Opened | None = None,
) -> Starlette:
    """The application: serves at once, loads the world meanwhile, closes the hall at the end."""

    async def open_hall() -> None:
        failure: Exception | None = None
        try:
            await hall.open(load)
        except Exception as error:  # whatever it is, the one who started the server is told
            failure = error
        if opened is not None:
            opened(failure)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        opening = asyncio.create_task(open_hall())
        try:
            yield
        finally:
            opening.cancel()
            hall.close()

    desk = _Desk(hall)
    return Starlette(
        routes=[
            Route("/", desk.page),
            Route("/static/{name}", desk.page_file),
            Route("/pictures/{key}", desk.picture),
            Route("/files/{key}", desk.file),
            Route("/healthz", desk.health),
            Route("/metrics", desk.metrics),
            WebSocketRoute("/ws", desk.play),
        ],
        middleware=[Middleware(AccessControl, token=token)],
        lifespan=lifespan,
    )


class _Desk:
    """The routes. Whatever a client asks for is looked up, never used as a path."""

    def __init__(self, hall: ServerState) -> None:
        self.hall = hall
        self.page_files = {path.name: path.read_bytes() for path in STATIC.iterdir()}

    async def page(self, request: Request) -> Response:
        return Response(self.page_files["index.html"], media_type="text/html")

    async def page_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.page_files:
            return _not_found()
        return Response(self.page_files[name], media_type=mimetypes.guess_type(name)[0])

    async def picture(self, request: Request) -> Response:
        known = {str(index): picture for index, picture in enumerate(self.hall.pictures)}
        picture = known.get(request.path_params["key"])
        if picture is None:
            return _not_found()
        return Response(await asyncio.to_thread(picture.png), media_type="image/png")

    async def file(self, request: Request) -> Response:
        item = self.hall.shelf.get(request.path_params["key"])
        if item is None:
            return _not_found()
        if item.media_type == "text/html":
            return FileResponse(
                item.path,
                media_type=item.media_type,
                headers={"content-security-policy": REPORT_POLICY},
            )
        return FileResponse(item.path, media_type=item.media_type, filename=item.name)

    async def health(self, request: Request) -> Response:
        ready = self.hall.ready.is_set()
        return PlainTextResponse("ready\n" if ready else "starting\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        hall = self.hall
        tasks = len(asyncio.all_tasks())
        text = hall.metrics.text(hall.ready.is_set(), hall.taken, hall.worker.waiting, tasks)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def play(self, socket: WebSocket) -> None:
        await socket.accept()
        channel = ClientSocket(socket)
        with self.hall.seat() as seated:
            try:
                if seated:
                    await self._until_ready(channel)
                    await PlayerConnection(self.hall, channel).run()
                else:
                    await channel.tell(wire.Full(self.hall.seats))
                    await channel.close(TRY_AGAIN, "every seat is taken")
            except (WebSocketDisconnect, TimeoutError):
                return
            except wire.ProtocolError as error:
                self.hall.metrics.faults += 1
                await channel.close(POLICY, str(error))
            except Exception as error:  # the walk is lost: its player and the log are told
                await channel.close(FAILED, f"the walk failed: {type(error).__name__}")
                raise

    async def _until_ready(self, channel: ClientSocket) -> None:
        """Wait for the world; whoever leaves meanwhile gives the seat back."""
        ready = asyncio.create_task(self.hall.ready.wait())
        heard = asyncio.create_task(channel.receive())
        try:
            await asyncio.wait((ready, heard), return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                heard.result()
                raise wire.ProtocolError("wait for hello before you send anything")
        finally:
            ready.cancel()
            heard.cancel()


def _not_found() -> Response:
    return PlainTextResponse("not found\n", 404)
