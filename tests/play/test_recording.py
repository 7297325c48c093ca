"""Recordings: limits, rewinds, and the action script."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glassworld.engine.actions.track import Action
from glassworld.engine.checkpoint.options import LoadOptions
from glassworld.errors import InputError
from glassworld.play.downloads import DownloadStore, RecordingStore
from glassworld.play.images import StartImage
from glassworld.play.recording import (
    FinishedRecording,
    HeldAction,
    Recording,
    action_script,
    replay_command,
)
from tests.support import tiny
from tests.support.disk import fill, small_disk
from tests.support.live import RATE, LiveServer


def frames(count: int) -> np.ndarray:
    return np.zeros((count, 2, 3, 3), np.uint8)


def test_recording_that_is_full_writes_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glassworld.play.recording.MAX_RECORDING_BYTES", 5 * 18)
    recording = Recording(0)
    assert recording.write(frames(4))
    assert not recording.write(frames(2))
    assert recording.frame_count == 4
    recording.close()


@pytest.mark.parametrize(
    ("rewind_to", "first_frame", "frame_count"), [(13, 9, 4), (9, 9, 0), (5, 5, 0), (40, 9, 12)]
)
def test_truncate_removes_the_frames_from_there_on(
    rewind_to: int, first_frame: int, frame_count: int
) -> None:
    recording = Recording(9)
    recording.write(frames(12))
    recording.truncate(rewind_to)
    assert (recording.first_frame, recording.frame_count) == (first_frame, frame_count)
    recording.write(frames(3))
    assert recording.frame_count == frame_count + 3
    recording.close()


def test_action_script_has_one_row_for_each_frame() -> None:
    held = [HeldAction(Action((1, 0), (0.1, 0)), 2), HeldAction(Action((0, 1), (0, 0)), 1)]
    assert json.loads(action_script("gta_drive", 7, held, 1)) == {
        "mode": "gta_drive",
        "seed": 7,
        "noise": "blocks",
        "picture": "picture.png",
        "first_frame": 1,
        "keyboard": [[1, 0], [1, 0], [0, 1]],
        "mouse": [[0.1, 0], [0.1, 0], [0, 0]],
    }
    assert "mouse" not in json.loads(
        action_script("templerun", 7, [HeldAction(Action((1,)), 1)], 0)
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows quotes in its own way")
def test_replay_command_names_a_folder_by_its_path_and_quotes_it(tmp_path: Path) -> None:
    world = tmp_path / "my worlds" / "the maze's"
    world.mkdir(parents=True)
    load = LoadOptions(world=os.path.relpath(world), dtype="mixed", accelerate=("int8", "layers"))
    words = shlex.split(replay_command(load, show_paths=True))
    assert words[:2] == ["glassworld", "generate"]
    assert words[2:8] == [
        "--world", str(world.resolve()), "--dtype", "mixed", "--accelerate", "int8,layers"
    ]  # fmt: skip
    assert words[8:] == ["--actions", "walk.json", "--img-path", "picture.png"]


def test_replay_command_hides_paths_from_players_on_other_machines(tmp_path: Path) -> None:
    (tmp_path / "world").mkdir()
    (tmp_path / "tiny.safetensors").touch()
    load = LoadOptions(world=tmp_path / "world", tiny_decoder=tmp_path / "tiny.safetensors")
    command = replay_command(load, show_paths=False)
    assert "--world PATH/TO/world --tiny-decoder PATH/TO/tiny.safetensors" in command
    assert str(tmp_path) not in command


@pytest.mark.parametrize("world", ["maze", "Skywork/Matrix-Game-2.0"])
@pytest.mark.parametrize("show_paths", [True, False])
def test_replay_command_keeps_names(world: str, show_paths: bool) -> None:
    load = LoadOptions(world=world, variant="universal")
    assert replay_command(load, show_paths) == (
        f"glassworld generate --world {world} --variant universal "
        "--actions walk.json --img-path picture.png"
    )


def test_disk_that_is_full_keeps_the_earlier_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        recording = Recording(0)
        assert recording.write(frames(100))
        with pytest.raises(OSError, match="No space left"):
            recording.write(frames(20_000))
        assert recording.frame_count == 100
        monkeypatch.setattr(tempfile, "tempdir", None)
        recording.write_video(tmp_path / "walk.mp4", 12)
        assert (tmp_path / "walk.mp4").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["during", "end"])
def test_full_disk_ends_the_recording_with_a_notice_and_play_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    with small_disk(tmp_path / "disk", 400) as disk:
        monkeypatch.setattr(tempfile, "tempdir", str(disk))
        with LiveServer(frame_rate=RATE) as live, live.client() as client:
            client.start()
            client.send("record", on=True)
            assert client.wait_for("recording")["on"]
            list(client.frames(12))
            fill(disk)
            if when == "end":
                client.send("record", on=False)
            assert "the server's disk is full" in client.wait_for("notice")["text"]
            assert not client.wait_for("recording")["on"]
            assert len(list(client.frames(24))) == 24
            (disk / "filler").unlink()
            client.send("record", on=True)
            assert client.wait_for("recording")["on"]
            list(client.frames(24))
            client.send("record", on=False)
            finished = client.wait_for("recording")
            assert live.get(finished["video"]).body[4:8] == b"ftyp"
            names = [path.name for path in disk.glob("glassworld-*/*")]
            assert len(names) == 4  # the lock, and the three files of the last recording


def record_some(client: Any) -> tuple[str, int]:
    """Record a block or more; return the recording's key and the last frame seen."""
    client.start(seed=5)
    client.send("record", on=True)
    key = client.wait_for("recording")["key"]
    frames = list(client.frames(24))
    return key, frames[-1].number


def stopped_recording(client: Any) -> dict[str, Any]:
    """Return the newest message about a recording that has stopped; wait for it if necessary."""
    for _ in range(100):
        stopped = [m for m in client.messages if m["type"] == "recording" and not m["on"]]
        if stopped:
            client.messages.clear()
            return dict(stopped[-1])
        list(client.frames(RATE // 4))
    raise AssertionError("no recording")


@pytest.mark.slow
@pytest.mark.parametrize("gone_before", [True, False])
def test_recording_of_a_lost_connection_is_sent_to_the_next_one(gone_before: bool) -> None:
    with LiveServer(frame_rate=RATE) as live:
        lost = live.client().__enter__()
        key, seen = record_some(lost)
        if gone_before:
            lost.socket.socket.shutdown(socket.SHUT_RDWR)
        with live.client() as client:
            client.start()
            client.send("recover", key=key)
            if not gone_before:  # the server has not missed the other connection yet
                list(client.frames(12))
                assert not [m for m in client.messages if m["type"] == "recording"]
                lost.socket.socket.shutdown(socket.SHUT_RDWR)
            recording = stopped_recording(client)
            assert recording["key"] == key
            script = json.loads(live.get(recording["actions"]).body)
            assert script["seed"] == 5
            assert script["first_frame"] + recording["frames"] == len(script["keyboard"]) > seen
            assert live.get(recording["video"]).body[4:8] == b"ftyp"
            assert live.get(recording["picture"]).body[:4] == b"\x89PNG"
            client.send("recover", key=key)  # again: the answer may have been lost too
            assert stopped_recording(client) == recording


def test_restart_during_a_recording_sends_it() -> None:
    with LiveServer(frame_rate=RATE) as live, live.client() as client:
        key, _ = record_some(client)
        client.start()
        recording = stopped_recording(client)
        assert (recording["key"], recording["frames"] >= 9) == (key, True)
        client.send("record", on=True)
        assert client.wait_for("recording")["key"] != key


def test_recording_that_is_not_kept_is_a_notice() -> None:
    with LiveServer(frame_rate=RATE) as live, live.client() as client:
        client.send("recover", key="unknown")
        assert "does not have your recording" in client.wait_for("notice")["text"]
        assert client.wait_for("recording")["key"] == "unknown"
        client.start()
        client.send("pause")
        client.send("record", on=True)
        key = client.wait_for("recording")["key"]
        client.send("record", on=False)
        assert "nothing has been recorded" in client.wait_for("notice")["text"]
        assert client.wait_for("recording")["key"] == key


def finish_recording(store: RecordingStore) -> str:
    """Let the store write a recording of twelve frames; return its key."""
    recording = Recording(0)
    recording.write(np.zeros((12, 32, 48, 3), np.uint8))
    image = StartImage("gray", tiny.picture().resize((48, 32)))
    key = store.start()
    store.finish(key, lambda: FinishedRecording(recording, "{}", image), 12)
    return key


def recording_store(downloads: DownloadStore) -> RecordingStore:
    """Return a store whose device thread is this one."""

    async def run(job: Callable[[], FinishedRecording]) -> FinishedRecording:
        return job()

    return RecordingStore(downloads, run)


def test_oldest_recordings_are_deleted_unless_their_players_know_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glassworld.play.downloads.MAX_KEPT", 2)
    downloads = DownloadStore()

    def files() -> int:
        return len(list(downloads.new_path("").parent.iterdir())) - 1  # without the lock

    async def finish_four() -> None:
        store = recording_store(downloads)
        known = finish_recording(store)
        video = (await store.message(known)).video
        forgotten, *_ = [finish_recording(store) for _ in range(3)]  # before it is written
        while store._writing:
            await asyncio.sleep(0.01)
        for key in (known, forgotten):
            with pytest.raises(InputError, match="keeps a recording for 10 minutes"):
                await store.message(key)
        assert downloads.offers(video)
        assert files() == 3 * 3

    asyncio.run(finish_four())
    downloads.close()


@pytest.mark.slow
def test_recording_nobody_asks_for_is_deleted_after_some_minutes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glassworld.play.downloads.KEEP_SECONDS", 1.0)
    downloads = DownloadStore()

    async def finish() -> None:
        store = recording_store(downloads)
        key = finish_recording(store)
        await store._recordings[key].done.wait()
        await asyncio.sleep(1.2)
        with pytest.raises(InputError, match="does not have your recording"):
            await store.message(key)
        assert [path.name for path in downloads.new_path("").parent.iterdir()] == ["lock"]

    asyncio.run(finish())
    downloads.close()


def test_recording_that_is_cancelled_stops_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(0)
    recording.write(frames(64))
    read = recording._read

    def read_and_cancel(size: int) -> bytes:
        recording.cancel()  # as another thread does
        return read(size)

    monkeypatch.setattr(recording, "_read", read_and_cancel)
    for _ in range(2):  # while it is written, and before
        with pytest.raises(InputError, match="server has ended"):
            recording.write_video(tmp_path / "walk.mp4", 12)
    assert list(tmp_path.iterdir()) == []


def test_server_that_ends_deletes_the_recordings_it_has_not_written() -> None:
    with LiveServer(frame_rate=RATE) as live:
        lost = live.client().__enter__()
        record_some(lost)
    # A file that stays open would be a ResourceWarning, and so an error.
