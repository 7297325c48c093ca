"""Decide who may connect: check the host and origin of every request, and the token."""

from __future__ import annotations

import hmac
from collections.abc import Collection
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

LOOPBACK = ("127.0.0.1", "localhost", "::1")

OPEN_PATHS = ("/", "/healthz")
OPEN_FOLDERS = ("/static/", "/files/")
"""Reachable without a token: the page itself, and files whose names are secret."""

TICKET_PATHS, TICKET_FOLDERS = ("/ws", "/healthz"), ("/pictures/", "/files/")
"""Reachable at a server whose sockets need tickets: its players have the page from elsewhere."""

_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


_WITH_WORKERS = _HEADERS["content-security-policy"].replace(
    "img-src 'self' blob:; connect-src 'self'",
    "img-src 'self' blob: http: https:; connect-src 'self' ws: wss:",
)

ROLE_HEADERS = {
    "server": _HEADERS,
    "worker": _HEADERS | {"cross-origin-resource-policy": "cross-origin"},
    "ingress": _HEADERS | {"content-security-policy": _WITH_WORKERS},
}
"""The page of an ingress shows images of workers and opens their sockets."""

Role = Literal["server", "worker", "ingress"]


class AccessControl:
    """Middleware around the whole application.

    Any web page can send a browser here. So the origin of a WebSocket, and of a request that
    changes something, must be this server, and without a token the host must be one of `hosts`;
    otherwise a foreign name could resolve to this machine (DNS rebinding). None allows any host.

    Each socket of a "worker" needs a ticket, which the application checks: its players have the
    page from an "ingress".
    """

    def __init__(
        self,
        app: ASGIApp,
        token: str | None,
        role: Role = "server",
        hosts: Collection[str] | None = LOOPBACK,
    ) -> None:
        self._app, self._token, self._role, self._hosts = app, token, role, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with status 403 or close code 1008."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send, ROLE_HEADERS[self._role]))
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, refusal)(scope, receive, send)
        else:
            await PlainTextResponse(refusal + "\n", 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Return why the request is refused, or None."""
        if self._role == "worker":
            path = scope["path"]
            is_open = path in TICKET_PATHS or path.startswith(TICKET_FOLDERS)
            return None if is_open else "not for players"
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts = self._hosts if self._token is None else None
        if hosts is not None and _host_name(f"//{host}") not in hosts:
            return "this server accepts connections from this machine only"
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if changes and origin is not None and _host_and_port(origin) != host.lower():
            return "pages of other sites may not connect"
        if self._token is not None and not _is_open(scope):
            token = QueryParams(scope["query_string"]).get("token", "")
            if not hmac.compare_digest(token.encode(), self._token.encode()):
                return "missing or wrong token; use the address that the server printed"
        return None


def _is_open(scope: Scope) -> bool:
    path = scope["path"]
    return scope["type"] == "http" and (path in OPEN_PATHS or path.startswith(OPEN_FOLDERS))


def _host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _host_and_port(url: str) -> str | None:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def _with_headers(send: Send, added: dict[str, str]) -> Send:
    """Wrap `send` so that it adds headers to responses."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in added.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
