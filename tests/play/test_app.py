"""The application: its pages, waiting for the world, a full server, a failing session."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.error import URLError

import pytest
from PIL import Image
from websockets.sync.client import connect

from tests.support.live import RATE, LiveServer, close_reason, until


def test_pages_health_and_metrics(live: LiveServer) -> None:
    assert live.get("/healthz").status == 200
    metrics = live.get("/metrics").body.decode()
    assert "glassworld_ready 1" in metrics
    assert "glassworld_block_seconds_count" in metrics
    page = live.get("/")
    assert b"<title>glassworld</title>" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert live.get("/static/main.js").status == 200
    assert Image.open(io.BytesIO(live.get("/pictures/0").body)).size == (48, 32)


def status_of(live: LiveServer, path: str) -> int:
    """Return the status of a response, 0 while nothing listens."""
    try:
        return live.get(path).status
    except URLError:
        return 0


def test_clients_before_the_world_is_loaded_wait_or_give_their_slot_back() -> None:
    may_load = threading.Event()
    with LiveServer(slots=1, frame_rate=RATE, may_load=may_load) as live:
        assert until(lambda: status_of(live, "/healthz") == 503)
        with connect(live.ws):
            assert until(lambda: live.state.slots_taken == 1)
        assert until(lambda: live.state.slots_taken == 0)
        with connect(live.ws) as early:
            early.send('{"type": "pause"}')
            assert json.loads(early.recv(10)) == {
                "type": "error",
                "text": "wait for hello before you send anything",
            }
        assert until(lambda: live.state.slots_taken == 0)
        waiting = live.client()
        threading.Timer(0.2, may_load.set).start()
        with waiting as client:
            client.start()
            assert len(list(client.frames(9))) == 9
        assert live.get("/healthz").status == 200


def test_failing_session_closes_with_a_reason_and_the_others_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with LiveServer(frame_rate=RATE) as live, live.client() as other:
        other.start()
        with live.client() as client, monkeypatch.context() as patch:
            patch.setattr(live.world.networks.vision, "forward", None)
            client.send("start", version=1)
            assert close_reason(client) == (
                1011,
                "the session failed (TypeError); see the server's log",
            )
        assert len(list(other.frames(24))) == 24
        assert until(lambda: live.state.slots_taken == 1)
        with live.client() as client:
            client.start()


def test_full_server_says_so_until_a_slot_is_free() -> None:
    with LiveServer(slots=1, frame_rate=RATE) as live:
        with live.client() as first:
            first.start()
            with connect(live.ws) as second:
                assert json.loads(second.recv(10)) == {"type": "full", "seats": 1}
            assert "glassworld_refused_total 1" in live.get("/metrics").body.decode()
        assert until(lambda: live.state.slots_taken == 0)
        with live.client() as third:
            third.start()


def test_four_players_all_get_their_frames(live: LiveServer) -> None:
    together = threading.Barrier(4)

    def play(_: int) -> int:
        with live.client() as client:
            together.wait(20)
            client.start()
            return len(list(client.frames(21)))

    with ThreadPoolExecutor(4) as players:
        assert list(players.map(play, range(4))) == [21] * 4
    assert until(lambda: live.state.slots_taken == 0)
