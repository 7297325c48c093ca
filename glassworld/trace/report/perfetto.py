"""Serve one trace on loopback to the Perfetto page, which fetches it by itself."""

from __future__ import annotations

from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import copyfileobj
from threading import Event, Thread
from urllib.parse import quote

from glassworld.errors import TraceError

ORIGIN = "https://ui.perfetto.dev"


def perfetto_address(path: Path, port: int) -> str:
    """Return the address of the page that fetches `path`. It allows only port 9001 of loopback."""
    if not path.is_file():
        raise TraceError(f"{path}: no such trace; give the path of a trace file")
    return f"{ORIGIN}/#!/?url=http://127.0.0.1:{port}/{quote(path.name)}"


def serve_once(path: Path, port: int) -> None:
    """Serve `path` at 127.0.0.1:`port` until it has been fetched once.

    Raises `TraceError` if the port is taken.
    """
    fetched = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != f"/{quote(path.name)}":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Access-Control-Allow-Origin", ORIGIN)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(path.stat().st_size))
            self.end_headers()
            with path.open("rb") as file:
                copyfileobj(file, self.wfile)
            fetched.set()

        def handle(self) -> None:
            with suppress(ConnectionError):  # the browser went away: it will ask again
                super().handle()

        def log_message(self, format: str, *args: object) -> None:
            return

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise TraceError(f"port {port}: {error.strerror}; name another with --port") from error
    server.daemon_threads = True  # a browser may hold connections open that it never uses
    with server:
        Thread(target=server.serve_forever, daemon=True).start()
        fetched.wait()
        server.shutdown()
