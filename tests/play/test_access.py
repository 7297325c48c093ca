"""Access control: hosts, origins, tokens and paths."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.live import RATE, LiveServer


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/files/../../etc/passwd",
        "/files/..%2f..%2fetc%2fpasswd",
        "/pictures/..%2f0",
        "/pictures/99",
        "/etc/passwd",
    ],
)
def test_path_outside_the_served_files_is_not_found(live: LiveServer, path: str) -> None:
    assert live.get(path).status == 404


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["/", "/static/", "/files/", "/pictures/"]), st.text(max_size=40))
def test_any_path_other_than_the_served_ones_is_not_found(
    live: LiveServer, folder: str, name: str
) -> None:
    # The router's patterns end in `$`, which accepts one line break at the end.
    pages = {page + end for page in ("", "healthz", "metrics") for end in ("", "\n")}
    served = {"/": pages, "/pictures/": {"0", "1"}}.get(folder, set())
    path = folder + quote(name, safe="")
    assert (live.get(path).status == 200) == (name in served)


def is_refused(url: str, **arguments: Any) -> bool:
    """Return whether the server answers a WebSocket handshake with status 403."""
    try:
        with connect(url, **arguments):
            return False
    except InvalidStatus as error:
        return error.response.status_code == 403


def test_websocket_of_another_site_is_refused(live: LiveServer) -> None:
    assert is_refused(live.ws, origin="http://evil.example")
    assert is_refused(live.ws, origin="null")
    assert is_refused(live.ws, origin=f"http://127.0.0.1:{live.port + 1}")
    assert not is_refused(live.ws, origin=f"http://127.0.0.1:{live.port}")


def test_host_that_is_not_loopback_is_refused(live: LiveServer) -> None:
    assert live.get("/", Host="evil.example").status == 403
    assert live.get("/healthz", Host=f"localhost:{live.port}").status == 200


def test_server_with_token_requires_it_except_for_the_page_and_health() -> None:
    with LiveServer(token="secret", frame_rate=RATE) as live:
        assert is_refused(live.ws)
        assert is_refused(live.ws + "?token=wrong")
        assert live.get("/metrics").status == 403
        assert live.get("/pictures/0").status == 403
        assert live.get("/pictures/0?token=secret").status == 200
        assert live.get("/healthz").status == 200
        assert live.get("/").status == 200
        with live.client("?token=secret") as client:
            client.start()
