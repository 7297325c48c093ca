"""The check of live play, against a server of the tiny world in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from glassworld.bench.play import check as play
from glassworld.cli import main
from tests.support.live import RATE, LiveServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[play.PlayServer]:
    """Start a server in this process, which also measures its resources."""
    if not play.PROCESSES.is_dir():
        pytest.skip("memory and files of a process are read from /proc")
    monkeypatch.setattr(play, "WARM_UP", 0.5)
    monkeypatch.setattr(play, "PLAYERS", 2)
    process: Any = SimpleNamespace(pid=os.getpid())
    with LiveServer(frame_rate=RATE) as live:
        yield play.PlayServer(process, live.port, 0.0)


@pytest.mark.slow
def test_players_are_measured_beside_clients_that_do_not_read(server: play.PlayServer) -> None:
    assert play.measure_beside_stuck(server, 1)["fps"] > 0
    figures = play.measure_players(server, 1)
    assert all(player["fps"] > 0 for player in figures["players"])
    assert figures["megabytes_without"] > 0


@pytest.mark.slow
def test_nothing_is_left_of_connections_that_come_and_go(server: play.PlayServer) -> None:
    figures = play.measure_leaks(server, 4)
    assert figures["after"]["sessions"] == 0
    assert figures["after"]["tasks"] <= figures["before"]["tasks"]
    assert figures["after"]["files"] > 0


def test_frame_rate_counts_the_frames_after_a_time() -> None:
    rate = play.frame_rate([0.0, 5.0, 5.5, 6.5], since=5.0)
    assert rate == {"fps": pytest.approx(2 / 1.5), "longest_gap": 1.0}


def test_percentile_takes_the_value_below_which_a_fraction_lies() -> None:
    assert play.percentile([3, 1, 2, 4], 0.5) == 3
    assert play.percentile([3, 1, 2, 4], 1.0) == 4


def test_promises_are_compared_with_the_figures() -> None:
    resources = {"sessions": 0, "tasks": 5, "files": 20, "megabytes": 300}
    figures: dict[str, Any] = {
        "ready_seconds": 3,
        "browser": {
            "content_rate": 12,
            "fps": 12,
            "stalls": 0,
            "block_seconds": 1,
            "key_to_frame_ms": {"p95": 1500},
        },
        "four": {"players": [{"fps": 6.0}, {"fps": 7.0}]},
        "stuck": {"fps": 12},
        "come_and_go": {"before": resources, "after": resources},
    }
    assert all(play.kept_promises(figures).values())
    figures["browser"]["stalls"] = 1
    figures["four"]["players"][0]["fps"] = 3.0
    broken = [name for name, kept in play.kept_promises(figures).items() if not kept]
    assert broken == ["no stalls", "four players share alike"]


def test_without_chromium_the_check_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("glassworld.bench.play.check.shutil.which", lambda name: None)
    assert main(["bench", "play"]) == 2
    assert "needs Chromium and playwright" in capsys.readouterr().err
