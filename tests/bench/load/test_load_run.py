"""Simulated viewers against a server of the tiny world in this process."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from glassworld.bench.load import viewer
from glassworld.bench.load.run import (
    LoadTestOptions,
    load_plot,
    run_load_test,
    summarize_viewings,
    watch_together,
)
from glassworld.bench.load.viewer import SeatRefusedError, Viewing, find_seat
from glassworld.cli import main
from glassworld.errors import InputError
from tests.support.live import RATE, LiveServer


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(viewer, "KEY_SECONDS", (0.05, 0.2))
    with LiveServer(slots=2, frame_rate=RATE) as server:
        yield f"http://127.0.0.1:{server.port}/"


@pytest.mark.slow
def test_viewers_are_measured_and_one_without_a_seat_is_counted(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, plot = tmp_path / "load.json", tmp_path / "load.svg"
    options = LoadTestOptions(3, 1 / 60, url, json_file=path, plot=plot)
    figures = run_load_test(options, warm_up=0.5)
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(figures))
    assert (figures["watched"], figures["refused"], figures["failures"]) == (2, 1, [])
    assert 0 < figures["deadline_attainment"] <= 1
    assert figures["frames"] > RATE / 2
    assert figures["input_to_frame_ms"]["p50"] > 0
    assert figures["block_ms"]["p99"] >= figures["block_ms"]["p50"] > 0
    assert figures["megabytes_per_session"] is None
    assert plot.read_text(encoding="utf-8").startswith("<svg")
    said = capsys.readouterr().out
    assert "players: 2 watched, 1 were refused a seat" in said
    assert "memory per session: not measured" in said


def test_load_without_a_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "load", "--url", "http://127.0.0.1:1/", "--minutes", "0.01"]) == 2
    assert "no server there" in capsys.readouterr().err
    with pytest.raises(InputError, match="must be a page"):
        find_seat("ftp://127.0.0.1/")
    with pytest.raises(InputError, match="at most 1000 players"):
        run_load_test(LoadTestOptions(players=2000))


class _Fleet(http.server.BaseHTTPRequestHandler):
    """An ingress with one seat."""

    seats = 1

    def do_POST(self) -> None:
        status, body = 429, b"{}"
        if _Fleet.seats:
            _Fleet.seats, status = _Fleet.seats - 1, 200
            body = json.dumps(
                {"session": "s", "ticket": "a+b", "url": "ws://127.0.0.1:9/ws"}
            ).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_fleet_is_asked_for_a_seat_and_refuses_the_next_viewer() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Fleet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_port}/"
        assert find_seat(address) == "ws://127.0.0.1:9/ws?ticket=a%2Bb"
        with pytest.raises(SeatRefusedError):
            find_seat(address)
        viewings = asyncio.run(watch_together(address, 1, 0, 1))
        assert [viewing.refused for viewing in viewings] == [True]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_figures_of_all_viewers_are_summed() -> None:
    first = Viewing(10, 120, 120, 0, input_to_frame=[0.5, 0.7], late=[(1.0, 0.0)])
    second = Viewing(20, 200, 190, 3, input_to_frame=[0.9], late=[(2.0, 1.0)])
    figures = summarize_viewings([first, second, Viewing(refused=True)])
    assert figures["deadline_attainment"] == 310 / 320
    assert figures["stalls_per_minute"] == 6
    assert figures["fps"] == [12, 10]
    assert figures["input_to_frame_ms"] == {"p50": 700, "p95": 900, "p99": 900}
    assert figures["block_ms"] == {}
    assert load_plot([first, second]).count("<polyline") == 2
