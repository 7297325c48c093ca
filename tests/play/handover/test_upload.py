"""Session files over the wire: saved, loaded, and refused; acknowledged acts."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from typing import Any

import pytest

from glassworld.play.block_scheduler import DeviceThread
from glassworld.play.downloads import DownloadStore
from glassworld.play.handover.upload import offer_session
from glassworld.play.images import StartImage
from glassworld.play.live_session import LiveSession
from glassworld.play.protocol import MAX_SESSION_BYTES
from tests.support import tiny
from tests.support.live import RATE, LiveServer, until

PART = 2**20


def load(client: Any, data: bytes) -> None:
    client.send("load", bytes=len(data))
    for start in range(0, len(data), PART):
        client.socket.send(data[start : start + PART])


def test_parts_of_a_refused_session_are_no_images(live: LiveServer) -> None:
    with live.client() as client:
        client.send("load", bytes=MAX_SESSION_BYTES + PART)
        assert "too large" in client.wait_for("notice")["text"]
        for _ in range(MAX_SESSION_BYTES // PART + 1):
            client.socket.send(bytes(PART))
        client.socket.send(b"GIF89a")  # is an image again
        assert "not a PNG" in client.wait_for("notice")["text"]
        notices = [message for message in client.messages if message["type"] == "notice"]
        assert len(notices) == 2


@pytest.mark.slow
def test_session_is_saved_and_goes_on_in_another_connection() -> None:
    with LiveServer(frame_rate=RATE) as live:
        with live.client() as client:
            client.start(seed=5)
            frames = list(client.frames(30))
            client.send("save")
            saved = client.wait_for("saved")
            frames += client.frames(60)
        data = live.get(saved["file"]).body
        with live.client() as client:
            load(client, data)
            loaded = client.wait_for("loaded")
            assert (loaded["number"], loaded["seed"]) == (saved["number"], 5)
            again = list(client.frames(12))
    assert again[0].block == saved["number"]
    known = {frame.number: frame.image for frame in frames}
    compared = [frame for frame in again if frame.number in known]
    assert compared
    assert all(frame.image == known[frame.number] for frame in compared)
    with LiveServer(frame_rate=24) as other, other.client() as client:
        load(client, data)
        assert "saved from another world" in client.wait_for("notice")["text"]
        load(client, b"nonsense")
        assert "not a saved session" in client.wait_for("notice")["text"]
        client.send("load", bytes=MAX_SESSION_BYTES + 1)
        assert "too large" in client.wait_for("notice")["text"]
        client.send("join", next=0)
        assert "no session to join" in client.wait_for("notice")["text"]


@pytest.mark.slow
def test_changes_during_a_load_wait_for_the_loaded_session() -> None:
    with LiveServer(frame_rate=RATE) as live, live.client() as client:
        client.start(seed=5)
        list(client.frames(40))
        client.send("save")
        data = live.get(client.wait_for("saved")["file"]).body

        load(client, data)
        client.send("rewind")  # of the loaded session, whose earlier blocks are not kept
        client.send("record", on=True)
        client.wait_for("loaded")
        assert "no earlier block" in client.wait_for("notice")["text"]
        client.wait_for("recording")
        list(client.frames(24))
        client.send("record", on=False)
        assert client.wait_for("recording")["frames"]

        load(client, data)
        client.send("start", version=1, picture="1", seed=9)
        client.wait_for("loaded")
        assert client.wait_for("started")["seed"] == 9
        assert [(frame.block, frame.number) for frame in client.frames(2)] == [(0, 0), (0, 1)]
        client.send("start", version=1)
        assert client.wait_for("started") == {"type": "started", "seed": 9, "picture": "1"}


def test_acts_are_acknowledged_when_received_and_when_applied() -> None:
    with LiveServer(frame_rate=RATE) as live, live.client() as client:
        client.start()
        act = client.hold("w")
        assert client.wait_for("ack") == {"type": "ack", "id": act, "block": None}
        applied = client.wait_for("ack")
        assert applied["id"] == act
        frame = next(frame for frame in client.frames(100) if frame.action == act)
        assert frame.block == applied["block"]


def test_session_file_of_a_player_who_has_left_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, downloads, device = tiny.world(), DownloadStore(), DeviceThread()
    image = tiny.picture().resize((world.spec.width, world.spec.height))
    writing, may_write = threading.Event(), threading.Event()

    def pack(*_: object) -> bytes:
        writing.set()
        may_write.wait(20)
        return b"a session"

    async def leave_while_it_is_written() -> None:
        live = LiveSession(world, StartImage("smooth", image), seed=3)
        saving = asyncio.create_task(offer_session(live, device, downloads))
        await asyncio.to_thread(writing.wait, 20)
        saving.cancel()
        await asyncio.wait([saving])
        may_write.set()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=20)  # the loop goes on, as a server's does
        assert await asyncio.to_thread(until, is_empty)

    def is_empty() -> bool:
        return [path.name for path in folder.iterdir()] == ["lock"]

    monkeypatch.setattr("glassworld.play.handover.upload.pack_session", pack)
    folder = downloads.new_path("").parent
    with closing(device), closing(downloads):
        asyncio.run(leave_while_it_is_written())
