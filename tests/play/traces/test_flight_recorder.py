"""A late frame writes a trace of the seconds before it, seldom enough, and play goes on."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from glassworld.cli import main
from glassworld.play.protocol import LateFrameInfo
from glassworld.play.server_state import ServerState
from glassworld.play.traces.flight_recorder import FlightRecorder, late_frame_line
from glassworld.profiling import registry as tags
from glassworld.profiling.tags import is_active
from glassworld.trace import analyze
from glassworld.trace.analyzers.caveats import find_caveats
from tests.support.disk import fill, small_disk
from tests.support.live import RATE, LiveServer, until
from tests.support.slow_blocks import slow_blocks


class Clock:
    """A clock that a test sets.

    A minute passes only in blocks that are to be recorded: a busy machine has late frames of its
    own, before them.
    """

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def let_a_minute_pass_in(self, *blocks: int) -> Callable[[int], None]:
        """Return what to call with the number of a slow block."""

        def pass_minute(block: int) -> None:
            if block in blocks:
                self.now += 61

        return pass_minute


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make no reports: another process does, which takes long on a busy machine."""

    async def nothing(trace: Path, report: Path) -> None:
        pass

    monkeypatch.setattr("glassworld.play.traces.offered_trace._write_report", nothing)


@contextmanager
def recording_server(clock: Clock) -> Iterator[LiveServer]:
    server = LiveServer(frame_rate=RATE)
    recorder = server.state.flight_recorder = FlightRecorder(server.state.downloads, 30, clock)
    recorder._written_at = clock.now
    with server:
        yield server


def late_frames(client: Any) -> list[list[dict[str, Any]]]:
    """Return the lists of late frames that the client has received."""
    return [m["frames"] for m in client.messages if m["type"] == "late_frames"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_late_block_writes_one_trace_a_minute() -> None:
    clock = Clock()
    slow = slow_blocks(3, 4, 6, after=clock.let_a_minute_pass_in(3, 6))
    with recording_server(clock) as server, slow, server.client() as client:
        client.start()
        action = client.hold("w")
        [late] = client.wait_for("late_frames")["frames"]
        list(client.frames(12 * 5 + 6 - client.next_frame))  # past the second slow block
        assert server.state.metrics.stalls >= 2
        assert len(late_frames(client)) == 1
        first, second = client.wait_for("late_frames")["frames"]
        trace = gzip.decompress(server.get(late["trace"]).body)
    assert (first, first["block"], second["block"]) == (late, 3, 6)
    assert late["late"] > 1 / RATE
    assert abs(late["time"] - time.time()) < 60
    content = json.loads(trace)
    facts = content["glassworld"]["flight_recorder"]
    assert facts["late_frame"]["block"] == facts["late_block"]["block"] == 3
    assert facts["late_frame"]["action"] == action
    assert facts["late_frame"]["late_ms"] == pytest.approx(1e3 * late["late"])
    assert facts["late_block"]["first_frame"] <= late["frame"] <= facts["late_block"]["last_frame"]
    spans = {event["name"]: event for event in content["traceEvents"] if event["ph"] == "X"}
    assert spans["2.3_Block_3"]["dur"] >= 0.6e6
    assert spans["Player_1_Block_3"]["dur"] >= spans["2.3_Block_3"]["dur"]
    assert spans["Player_1_Block_3"]["args"] == facts["late_block"]
    assert spans["Late_Frame"]["dur"] == pytest.approx(1e6 * late["late"], abs=1)
    assert "2.3_Block_4" not in spans  # it ends with the late block


@pytest.mark.usefixtures("no_report")
def test_report_of_a_recording_names_the_late_frame_and_what_the_times_are(tmp_path: Path) -> None:
    path = tmp_path / "trace.json.gz"
    clock = Clock()
    slow = slow_blocks(2, after=clock.let_a_minute_pass_in(2))
    with recording_server(clock) as server, slow, server.client() as client:
        client.start()
        [late] = client.wait_for("late_frames")["frames"]
        path.write_bytes(server.get(late["trace"]).body)
    analysis = analyze(path)
    about, host = find_caveats(analysis)[:2]
    assert f"frame {late['frame']} of block 2 was sent {late['late']:.2f} s late" in about
    assert "CPU times only" in host
    blocks = {row.name: row.cpu_ms for row in analysis.tags if row.name.startswith("2.3_Block")}
    assert blocks["2.3_Block_2"] > 600
    stages = {row.name: row.cpu_ms for row in analysis.tags if len(row.path) == 1}
    assert stages[tags.PIPELINE_INFERENCE] >= sum(blocks.values())


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_oldest_recordings_are_deleted_and_the_next_player_gets_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glassworld.play.traces.flight_recorder.MAX_RECORDINGS", 2)
    clock, slow = Clock(), (2, 3, 4, 5)
    slowly = slow_blocks(*slow, after=clock.let_a_minute_pass_in(*slow))
    with recording_server(clock) as server, slowly:
        with server.client() as client:
            client.start()
            for _ in slow:
                client.wait_for("late_frames")
            lists = late_frames(client)
        assert [len(frames) for frames in lists] == [1, 2, 2, 2]
        gone, newest = lists[0][0]["trace"], lists[-1]
        assert server.get(gone).status == 404
        assert {server.get(frame["trace"]).status for frame in newest} == {200}
        with server.client() as client:
            assert client.wait_for("late_frames")["frames"] == newest


@pytest.mark.slow
def test_full_disk_loses_the_recording_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        clock = Clock()
        slow = slow_blocks(3, after=clock.let_a_minute_pass_in(3))
        with recording_server(clock) as server, slow, server.client() as client:
            client.start()
            fill(disk)
            list(client.frames(12 * 5))
            assert until(lambda: "flight recording" in caplog.text)
            assert len(list(client.frames(24))) == 24
            assert late_frames(client) == []
            folder = server.state.downloads.new_path("").parent
            assert [path.name for path in folder.iterdir()] == ["lock"]
    assert "the server's disk is full" in caplog.text


@pytest.mark.slow
def test_recorder_of_0_seconds_leaves_nothing() -> None:
    with LiveServer(frame_rate=RATE) as server, slow_blocks(2), server.client() as client:
        client.start()
        list(client.frames(12 * 4))
        assert server.state.metrics.stalls > 0
        assert (server.state.flight_recorder, late_frames(client)) == (None, [])
    assert not is_active()


def test_closed_recorder_listens_no_more() -> None:
    state = ServerState(flight_recorder_seconds=30)
    assert is_active()
    state.close()
    assert not is_active()


@pytest.mark.parametrize("seconds", ["-1", "601", "nan", "soon", "1.5"])
@pytest.mark.parametrize("command", ["play", "serve"])
def test_bad_seconds_are_one_line(
    command: str, seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--flight-recorder", seconds]) == 2
    error = capsys.readouterr().err
    assert "--flight-recorder" in error
    assert error.count("\n") == 1


def test_line_of_a_late_frame_names_it_and_its_report() -> None:
    late = LateFrameInfo(0.0, 28, 345, 17, 0.4123, "/files/trace", "/files/report")
    line = late_frame_line(late, "http://127.0.0.1:8765/?token=secret")
    clock = time.strftime("%H:%M:%S", time.localtime(0))
    assert line == (
        f"{clock} frame 345 of block 28 was 0.41 s late: http://127.0.0.1:8765/files/report"
    )
