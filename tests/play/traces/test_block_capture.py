"""Captures end with a trace or without one, but never with the session or the server."""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from glassworld.errors import InputError
from glassworld.play.traces.block_capture import BlockCapture, save_in_child
from glassworld.profiling.capture import Capture, save_trace
from tests.support.disk import fill, small_disk
from tests.support.live import RATE, LiveServer, until


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=RATE) as running:
        yield running


def finished_profiler() -> Any:
    capture = Capture(Path("unused"), "full")
    capture.start()
    torch.ones(2, 2) @ torch.ones(2, 2)
    capture.stop()
    profiler = capture.profiler
    capture.discard()
    capture.finish()
    return profiler


needs_forks = pytest.mark.skipif(sys.platform != "linux", reason="traces are written by forks")


@needs_forks
def test_trace_of_a_fork_is_that_of_this_process(tmp_path: Path) -> None:
    profiler = finished_profiler()
    save_in_child(profiler, tmp_path / "fork.json")
    save_trace(profiler, tmp_path / "here.json")
    written = (tmp_path / "fork.json").read_bytes()
    assert b"aten::mm" in written
    assert written.replace(b"fork.json", b"here.json") == (tmp_path / "here.json").read_bytes()


class EndsInForks:
    """A profiler that no fork can write: it ends the process, or takes for ever."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.process = seconds, os.getpid()

    def export_chrome_trace(self, path: str) -> None:
        if os.getpid() != self.process:
            time.sleep(self.seconds)
            os._exit(3)
        Path(path).write_text("{}", encoding="utf-8")


@needs_forks
@pytest.mark.parametrize("seconds", [0, 600])
def test_trace_is_written_here_if_the_fork_fails(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.play.traces.block_capture.CHILD_SECONDS", 0.5)
    save_in_child(EndsInForks(seconds), tmp_path / "trace.json")
    assert (tmp_path / "trace.json").read_text(encoding="utf-8") == "{}"


def traces(server: LiveServer) -> list[Path]:
    """Return the files of captures, finished or not."""
    folder = server.state.downloads.new_path("").parent
    return [path for path in folder.iterdir() if path.name != "lock"]


def is_free(server: LiveServer) -> bool:
    return server.state.capture is None and Capture.current is None


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["restart", "disconnect"])
def test_capture_whose_session_ends_early_is_discarded(server: LiveServer, leave: str) -> None:
    with server.client() as client:
        client.start()
        client.send("capture", blocks=8)
        list(client.frames(30))
        assert Capture.current is not None
        if leave == "restart":
            client.start()
            assert until(lambda: is_free(server))
    assert until(lambda: is_free(server))
    assert traces(server) == []


@pytest.mark.slow
def test_capture_of_a_paused_session_ends_by_itself(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        client.start()
        client.send("capture", blocks=8)
        list(client.frames(30))
        client.send("pause")
        monkeypatch.setattr("glassworld.play.traces.session_capture.MAX_IDLE_SECONDS", 0.5)
        assert "Resume play" in client.wait_for("notice")["text"]
        assert is_free(server)
        client.send("resume")
        assert len(list(client.frames(24))) == 24
    assert traces(server) == []


def test_profiler_that_cannot_start_ends_the_capture_with_a_notice(
    server: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server.client() as client:
        client.start()
        monkeypatch.setattr(Capture, "current", None)
        Capture(tmp_path / "other.json", "tags")  # of somebody else, in the same process
        client.send("capture", blocks=1)
        assert "capture could not be written" in client.wait_for("notice")["text"]
        assert len(list(client.frames(24))) == 24
        assert until(lambda: server.state.capture is None)


def test_finished_capture_that_nobody_exports_frees_the_profiler(tmp_path: Path) -> None:
    for discard_first in (True, False):
        capture = BlockCapture(tmp_path / "trace.json", 1)
        capture.start()
        assert capture.finish_block()
        if discard_first:
            capture.discard()
            with pytest.raises(InputError, match="session has ended"):
                capture.export()
            assert list(tmp_path.iterdir()) == []
        else:
            capture.export()
            capture.discard()
            assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
        assert Capture.current is None


def test_capture_beside_other_players_is_limited_by_its_events(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def count(capture: Capture) -> int:
        counts.append(len(capture.profiler.kineto_results.events()))
        return 30_000

    async def no_report(trace: Path, report: Path) -> None:
        pass  # by another process, which takes long on a busy machine

    monkeypatch.setattr(Capture, "event_count", property(count))
    monkeypatch.setattr("glassworld.play.traces.offered_trace._write_report", no_report)
    with server.client() as client, server.client():
        client.start()
        client.send("capture", blocks=8)
        trace = client.wait_for("captured")["trace"]
        assert "1 of 8 blocks" in client.wait_for("notice")["text"]
        assert counts[0] > 1000
        events = json.loads(gzip.decompress(server.get(trace).body))["traceEvents"]
        names = [str(event["name"]) for event in events]
        assert sum(re.fullmatch(r"2.3_Block_\d+", name) is not None for name in names) == 1


@pytest.mark.parametrize(("max_events", "blocks"), [(None, 3), (10**6, 3), (1, 1)])
def test_blocks_of_a_capture_fit_its_limit(
    tmp_path: Path, max_events: int | None, blocks: int
) -> None:
    capture = BlockCapture(tmp_path / "trace.json", 3, max_events)
    finished: list[bool] = []
    while not any(finished):
        capture.start()
        torch.ones(2).add(1)
        finished.append(capture.finish_block())
    assert len(finished) == blocks + (max_events is not None)  # one block is for counting
    assert (capture.blocks, capture.requested) == (blocks, 3)
    capture.export()
    assert (tmp_path / "trace.json").is_file()


def test_full_disk_ends_the_capture_with_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 200) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with LiveServer(frame_rate=RATE) as server, server.client() as client:
            client.start()
            fill(disk)
            client.send("capture", blocks=1)
            assert "the server's disk is full" in client.wait_for("notice")["text"]
            assert len(list(client.frames(24))) == 24
            assert until(lambda: is_free(server))
            assert traces(server) == []


def test_server_that_closes_during_a_capture_ends_it_on_the_device_thread() -> None:
    with LiveServer(frame_rate=RATE) as server:
        client = server.client().__enter__()
        client.start()
        client.send("capture", blocks=8)
        list(client.frames(30))
        assert Capture.current is not None
    assert Capture.current is None
