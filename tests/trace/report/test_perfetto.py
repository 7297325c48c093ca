"""Serving a trace to the Perfetto page."""

import socket
import threading
import time
import urllib.error
import urllib.request

import pytest

from glassworld.errors import TraceError
from glassworld.trace.report.perfetto import perfetto_address, serve_once


def test_trace_is_served_until_it_is_fetched(run):
    path = run()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = perfetto_address(path, port)
    assert address == f"https://ui.perfetto.dev/#!/?url=http://127.0.0.1:{port}/run.json"
    serving = threading.Thread(target=serve_once, args=(path, port))
    serving.start()
    local = address.partition("url=")[2]
    idle = _connected(port)  # a browser opens connections it may never use
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(local + "x")
    refused.value.close()
    with urllib.request.urlopen(local) as response:
        assert response.headers["Access-Control-Allow-Origin"] == "https://ui.perfetto.dev"
        assert response.read() == path.read_bytes()
    serving.join(timeout=30)
    assert not serving.is_alive()
    idle.close()


def _connected(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("nothing listens")


def test_port_in_use_is_one_clear_line(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(TraceError, match="--port"):
            serve_once(run(), taken.getsockname()[1])
