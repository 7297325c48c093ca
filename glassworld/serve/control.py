"""The control port: the status page, metrics and draining. It listens on this machine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from glassworld.play.access import AccessControl
from glassworld.serve.fleet_status import Status, fleet_metrics, status_json, status_page
from glassworld.serve.ray_cluster import DIRECTORY, actor_errors, actor_named, answer

STYLE = Path(__file__).resolve().parent / "static" / "fleet.css"

CALL_SECONDS = 5.0


def create_control() -> Starlette:
    """Return the application."""
    return Starlette(
        routes=[
            Route("/", _page),
            Route("/static/fleet.css", _style),
            Route("/status", _status),
            Route("/metrics", _metrics),
            Route("/drain/{worker}", _drain, methods=["POST"]),
        ],
        middleware=[Middleware(AccessControl, token=None)],
        exception_handlers=dict.fromkeys(actor_errors(), _unavailable),
    )


async def _ask(method: str, *arguments: str) -> Any:
    call = getattr(actor_named(DIRECTORY), method).remote(*arguments)
    return await answer(call, CALL_SECONDS)


async def _page(request: Request) -> Response:
    status: Status = await _ask("status")
    return HTMLResponse(status_page(status))


async def _style(request: Request) -> Response:
    return Response(STYLE.read_bytes(), media_type="text/css")


async def _status(request: Request) -> Response:
    return JSONResponse(status_json(await _ask("status")))


async def _metrics(request: Request) -> Response:
    text = fleet_metrics(await _ask("status"))
    return Response(text, media_type="text/plain; version=0.0.4")


async def _drain(request: Request) -> Response:
    worker = request.path_params["worker"]
    if not await _ask("drain", worker):
        return PlainTextResponse(f"no worker {worker}\n", 404)
    return PlainTextResponse(f"draining {worker}\n", 202)


async def _unavailable(request: Request, error: Exception) -> Response:
    return PlainTextResponse("the directory is starting; try again\n", 503)
