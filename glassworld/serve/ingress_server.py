"""The ingress as an actor: a web server in a thread, started again by Ray if its process dies."""

from __future__ import annotations

import asyncio
import threading

from glassworld.play.launch import http_server, listen_on
from glassworld.serve.ingress import create_ingress
from glassworld.serve.options import FleetOptions


class IngressServer:
    """Serves the ingress on the fleet's port."""

    def __init__(self, options: FleetOptions) -> None:
        listening = listen_on(options.host, options.port)
        server = http_server(create_ingress(options), "critical")
        serve = server.serve(sockets=[listening])
        threading.Thread(target=asyncio.run, args=(serve,), daemon=True).start()

    def ping(self) -> None:
        """Return, as a sign of life."""
