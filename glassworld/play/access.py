"""Decide who may connect: check the host and origin of every request, and the token."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

LOOPBACK = ("127.0.0.1", "localhost", "::1")

OPEN_PATHS = ("/", "/healthz")
OPEN_FOLDERS = ("/static/", "/files/")
"""Reachable without a token: the page itself, and files whose names are secret."""

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


class AccessControl:
    """Middleware around the whole application.

    Any web page can send a browser here. So the origin of a WebSocket must be this server, and
    without a token the host must be a loopback name; otherwise a foreign name could resolve to
    this machine (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it with status 403 or close code 1008."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await WebSocketClose(1008, refusal)(scope, receive, send)
        else:
            await PlainTextResponse(refusal + "\n", 403)(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        """Return why the request is refused, or None."""
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._token is None and _host_name(f"//{host}") not in LOOPBACK:
            return "this server accepts connections from this machine only"
        is_socket = scope["type"] == "websocket"
        if is_socket and origin is not None and _host_and_port(origin) != host.lower():
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


def _with_headers(send: Send) -> Send:
    """Wrap `send` so that it adds the security headers to responses."""

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return send_with_headers
