"""Session files over the wire: saved, loaded, and refused; acknowledged acts."""

from __future__ import annotations

from typing import Any

import pytest

from glassworld.play.protocol import MAX_SESSION_BYTES
from tests.support.live import RATE, LiveServer

PART = 2**20


def load(client: Any, data: bytes) -> None:
    client.send("load", bytes=len(data))
    for start in range(0, len(data), PART):
        client.socket.send(data[start : start + PART])


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
