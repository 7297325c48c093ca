"""Serves one trace on loopback to the Perfetto page, which fetches it by itself."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import copyfileobj
from urllib.parse import quote

from glassworld.errors import TraceError

ORIGIN = "https://ui.perfetto.dev"


def perfetto_address(path: Path, port: int) -> str:
    """The page that fetches `path` from this machine. Perfetto allows port 9001 of loopback."""
    if not path.is_file():
        raise TraceError(f"{path}: no such trace")
    return f"{ORIGIN}/#!/?url=http://127.0.0.1:{port}/{quote(path.name)}"


def serve_once(path: Path, port: int) -> None:
    """Serve `path` at 127.0.0.1:`port` until it has been fetched once.

    Raises `TraceError` if the port is taken.
    """
    fetched = False

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal fetched
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
            fetched = True

        def log_message(self, format: str, *args: object) -> None:
            return

    try:
        server = HTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise TraceError(f"port {port}: {error.strerror}; name another with --port") from error
    with server:
        while not fetched:
            server.handle_request()
