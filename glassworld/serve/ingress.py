"""The ingress: the page, and seats for players. It needs no secret and controls nothing.

`POST /sessions` takes a JSON object, all of whose fields may be missing: `world`; `token` and
`next` of a session to go on with; `queue` of a player who waits. It answers with `session`,
`ticket` and `url`; or with 429, `Retry-After`, `queue` and `place`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from glassworld.play.access import LOOPBACK, AccessControl
from glassworld.play.app import MEDIA_TYPES, STATIC
from glassworld.play.launch import http_server, listen_on
from glassworld.play.limits.connections import TokenBucket
from glassworld.serve.directory import RETRY_SECONDS, SessionReply, SessionRequest
from glassworld.serve.options import FleetOptions
from glassworld.serve.ray_cluster import DIRECTORY, actor_errors, actor_named, answer

logger = logging.getLogger("glassworld.serve")

DIRECTORY_SECONDS = 70.0
"""How long the directory may take; bringing a session back is the longest."""

REQUESTS_PER_SECOND, REQUEST_BURST = 5.0, 50.0
"""Requests for sessions from one address."""

MAX_ADDRESSES = 10_000
"""Addresses that are remembered; the one that asked least recently is forgotten first."""

MAX_BODY_BYTES = 4096

Text = Annotated[str, Meta(max_length=1024)]


class RequestBody(Struct, forbid_unknown_fields=True):
    """The body of `POST /sessions`."""

    world: Text | None = None
    token: Text | None = None
    next: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0
    queue: Text | None = None


def create_ingress(options: FleetOptions) -> ASGIApp:
    """Return the application."""
    endpoints = _IngressEndpoints(options)
    app = Starlette(
        routes=[
            Route("/", endpoints.page),
            Route("/static/{name}", endpoints.page_file),
            Route("/sessions", endpoints.sessions, methods=["POST"]),
            Route("/worlds", endpoints.worlds),
            Route("/healthz", endpoints.health),
        ]
    )
    hosts = (*LOOPBACK, *options.public_hosts) if options.host in LOOPBACK else None
    return AccessControl(app, None, "ingress", hosts)


class IngressServer:
    """The ingress as an actor: a server in a thread, started again by Ray if its process dies."""

    def __init__(self, options: FleetOptions) -> None:
        listening = listen_on(options.host, options.port)
        server = http_server(create_ingress(options), "critical")
        serve = server.serve(sockets=[listening])
        threading.Thread(target=asyncio.run, args=(serve,), daemon=True).start()

    def ping(self) -> None:
        """Return, as a sign of life."""


class AddressLimits:
    """Limits how often one address may ask for sessions."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def allows(self, address: str) -> bool:
        """Count a request; return False if there are too many."""
        bucket = self._buckets.pop(address, None)
        bucket = bucket or TokenBucket(REQUESTS_PER_SECOND, REQUEST_BURST)
        self._buckets[address] = bucket
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        allowed = bucket.take(1)
        bucket.drain(0)  # a refused request costs nothing
        return allowed


class _IngressEndpoints:
    """The handlers of the routes."""

    def __init__(self, options: FleetOptions) -> None:
        self._options, self._limits = options, AddressLimits()
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir()}
        page = self._files["index.html"].decode()
        self._page = page.replace('data-sessions=""', 'data-sessions="/sessions"')

    async def page(self, request: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def page_file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            return PlainTextResponse("not found\n", 404)
        return Response(self._files[name], media_type=MEDIA_TYPES[Path(name).suffix])

    async def health(self, request: Request) -> Response:
        return PlainTextResponse("ready\n")

    async def worlds(self, request: Request) -> Response:
        return JSONResponse([world.name for world in self._options.worlds])

    async def sessions(self, request: Request) -> Response:
        """Reserve a seat, or say why there is none."""
        if not self._limits.allows(self._address(request)):
            return _refusal(429, "too many requests from your address; wait some seconds")
        try:
            body = msgspec.json.decode(await _body(request) or b"{}", type=RequestBody)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refusal(400, f"malformed request: {error}")
        asked = SessionRequest(body.world, body.token, body.next, body.queue)
        started = time.perf_counter()
        try:
            call = actor_named(DIRECTORY).request_session.remote(asked)
            reply: SessionReply = await answer(call, DIRECTORY_SECONDS)
        except actor_errors() as error:
            logger.warning("the directory does not answer: %s", type(error).__name__)
            return _refusal(503, "the fleet is starting; try again")
        logger.debug("a seat took %.1f ms", 1e3 * (time.perf_counter() - started))
        return self._response(request, reply)

    def _response(self, request: Request, reply: SessionReply) -> Response:
        if reply.status != 200:
            return _refusal(reply.status, reply.reason, queue=reply.queue, place=reply.place)
        host = request.url.hostname or "127.0.0.1"
        url = self._options.address(host, reply.node, reply.port)
        return JSONResponse({"session": reply.session, "ticket": reply.ticket, "url": url})

    def _address(self, request: Request) -> str:
        """Return the player's address: behind a trusted proxy, the one that it names."""
        address = request.client.host if request.client else ""
        if address in self._options.trusted_proxies:
            forwarded = request.headers.get("x-forwarded-for", "")
            return forwarded.rpartition(",")[2].strip() or address
        return address


async def _body(request: Request) -> bytes:
    """Return the body; one that is too long is cut, and then malformed."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            break
    return body[: MAX_BODY_BYTES + 1]


def _refusal(status: int, reason: str, **fields: Any) -> Response:
    headers = {"retry-after": str(RETRY_SECONDS)} if status in (429, 503) else {}
    given = {name: value for name, value in fields.items() if value}
    return JSONResponse({"error": reason, **given}, status, headers)
