"""The ASGI application: the page, its files, the WebSocket, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from glassworld.play import protocol
from glassworld.play.access import AccessControl, Role
from glassworld.play.client_socket import ClientSocket
from glassworld.play.connection import PlayerConnection
from glassworld.play.handover.suspended import Admission, SessionElsewhereError
from glassworld.play.server_state import LoadedWorld, ServerState

STATIC = Path(__file__).resolve().parent / "static"

MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""By suffix of a page's file. `mimetypes` asks the registry of Windows, which other programs edit:
a browser refuses scripts that come as text/plain."""

POLICY_VIOLATION, INTERNAL_ERROR, TRY_AGAIN_LATER = 1008, 1011, 1013
"""WebSocket close codes."""

REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; font-src data:"
)
"""A report runs its own scripts on names from a trace, so it must not reach the server."""

OnLoaded = Callable[[Exception | None], None]
"""Called when the world is ready, or with the exception that loading it raised."""


def create_app(
    state: ServerState,
    load: Callable[[], LoadedWorld],
    token: str | None = None,
    on_loaded: OnLoaded | None = None,
) -> Starlette:
    """Return the application.

    It serves the page at once, loads the world meanwhile, and closes `state` at the end.
    """

    async def load_world() -> None:
        failure: Exception | None = None
        try:
            await state.load(load)
        except Exception as error:  # `on_loaded` raises or reports it
            failure = error
        if on_loaded is not None:
            on_loaded(failure)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        loading = asyncio.create_task(load_world())
        try:
            yield
        finally:
            loading.cancel()
            state.close()

    endpoints = _Endpoints(state)
    role: Role = "server" if state.keeper is None else "worker"
    return Starlette(
        routes=[
            Route("/", endpoints.page),
            Route("/static/{name}", endpoints.page_file),
            Route("/pictures/{key}", endpoints.start_image),
            Route("/files/{key}", endpoints.download),
            Route("/healthz", endpoints.health),
            Route("/metrics", endpoints.metrics),
            WebSocketRoute("/ws", endpoints.play),
        ],
        middleware=[Middleware(AccessControl, token=token, role=role)],
        lifespan=lifespan,
    )


class _Endpoints:
    """The handlers of the routes. They look names up in memory and never use them as paths."""

    def __init__(self, state: ServerState) -> None:
        self.state = state
        self.page_files = {path.name: path.read_bytes() for path in STATIC.iterdir()}

    async def page(self, request: Request) -> Response:
        return Response(self.page_files["index.html"], media_type="text/html")

    async def page_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self.page_files:
            return _not_found()
        return Response(self.page_files[name], media_type=MEDIA_TYPES[Path(name).suffix])

    async def start_image(self, request: Request) -> Response:
        images = {str(index): image for index, image in enumerate(self.state.images)}
        image = images.get(request.path_params["key"])
        if image is None:
            return _not_found()
        return Response(await asyncio.to_thread(image.png), media_type="image/png")

    async def download(self, request: Request) -> Response:
        download = self.state.downloads.get(request.path_params["key"])
        if download is None:
            return _not_found()
        if download.media_type == "text/html":
            return FileResponse(
                download.path,
                media_type=download.media_type,
                headers={"content-security-policy": REPORT_POLICY},
            )
        return FileResponse(download.path, media_type=download.media_type, filename=download.name)

    async def health(self, request: Request) -> Response:
        ready = self.state.ready.is_set()
        return PlainTextResponse("ready\n" if ready else "starting\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        state = self.state
        text = state.metrics.text(
            ready=state.ready.is_set(),
            slots_taken=state.slots_taken,
            waiting=state.device_thread.waiting,
            tasks=len(asyncio.all_tasks()),
        )
        return Response(text, media_type="text/plain; version=0.0.4")

    async def play(self, websocket: WebSocket) -> None:
        await websocket.accept()
        socket = ClientSocket(websocket)
        with self.state.slot() as has_slot:
            try:
                if has_slot:
                    await self._wait_until_ready(socket)
                    admission = await self._admit(websocket)
                    await PlayerConnection(self.state, socket, admission).run()
                else:
                    await socket.send_message(protocol.FullMessage(self.state.slots))
                    await socket.close(TRY_AGAIN_LATER, "the server is full; try again later")
            except (WebSocketDisconnect, TimeoutError):
                return
            except SessionElsewhereError as error:
                await socket.close(TRY_AGAIN_LATER, str(error), is_error=False)
            except protocol.ProtocolError as error:
                self.state.metrics.faults += 1
                await socket.close(POLICY_VIOLATION, str(error))
            except Exception as error:  # ends this session only; the server logs it
                name = type(error).__name__
                await socket.close(
                    INTERNAL_ERROR, f"the session failed ({name}); see the server's log"
                )
                raise

    async def _admit(self, websocket: WebSocket) -> Admission | None:
        """Check a player's ticket where one is needed; raise `ProtocolError` if it is not good."""
        if self.state.keeper is None:
            return None
        return await self.state.keeper.admit(websocket.query_params.get("ticket", ""))

    async def _wait_until_ready(self, socket: ClientSocket) -> None:
        """Wait for the world; raise if the client leaves or sends a message meanwhile."""
        ready = asyncio.create_task(self.state.ready.wait())
        message = asyncio.create_task(socket.receive(silence_allowed=True))
        try:
            await asyncio.wait((ready, message), return_when=asyncio.FIRST_COMPLETED)
            if message.done():
                message.result()
                raise protocol.ProtocolError("wait for hello before you send anything")
        finally:
            ready.cancel()
            message.cancel()


def _not_found() -> Response:
    return PlainTextResponse("not found\n", 404)
