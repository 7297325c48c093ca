"""A session over the wire: input, pause, rewind, recordings, uploads, captures."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glassworld.engine.actions.files import RecordedNoise, load_actions, recorded_noise
from tests.support import tiny
from tests.support.live import RATE, LiveServer, until


def pixels(image: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(image)))


def test_frames_are_numbered_and_carry_the_newest_input(live: LiveServer) -> None:
    with live.client() as client:
        assert client.hello["version"] == 1
        assert (client.hello["width"], client.hello["height"]) == (48, 32)
        assert client.hello["controls"][0]["key"] == "w"
        client.start(seed=3)
        frames = list(client.frames(21))
        assert [frame.number for frame in frames] == list(range(21))
        assert [frame.block for frame in frames[7:11]] == [0, 0, 1, 1]
        act = client.hold("w", "j")
        with_input = next(frame for frame in client.frames(200) if frame.action == act)
        assert with_input.block <= frames[-1].block + 3
        block = client.wait_for("block")
        names = [stage["name"] for stage in block["stages"]]
        assert {"Denoise t=1000", "Update caches", "Decode", "Encode"} <= set(names)
        generating = [stage["ms"] for stage in block["stages"] if stage["name"] != "Encode"]
        assert 0 < sum(generating) <= 1000 * block["seconds"] + 1


def test_message_that_cannot_be_done_gets_a_notice(live: LiveServer) -> None:
    with live.client() as client:
        for kind, fields in (
            ("rewind", {}),
            ("record", {"on": True}),
            ("capture", {}),
            ("start", {"version": 1, "picture": "../../etc/passwd"}),
            ("act", {"id": 1, "keys": ["<img src=x>"]}),
        ):
            client.send(kind, **fields)
            assert client.wait_for("notice")["text"]


def test_pause_step_and_rewind(live: LiveServer) -> None:
    with live.client() as client:
        client.start(seed=1)
        before = {frame.number: frame.image for frame in client.frames(34)}
        client.send("pause")
        client.send("ping", id=1)
        client.wait_for("pong")
        paused = live.state.metrics.frames
        time.sleep(0.2)
        assert live.state.metrics.frames == paused
        client.send("step")
        assert until(lambda: live.state.metrics.frames > paused)
        client.send("rewind", blocks=2)
        block = client.wait_for("rewound")["number"]
        client.send("resume")
        again = list(client.frames(12))
        assert again[0].block == block
        assert again[0].number == (9 + 12 * (block - 1) if block else 0)
        shown_before = [frame for frame in again if frame.number in before]
        assert shown_before
        assert all(frame.image == before[frame.number] for frame in shown_before)


def test_equal_seeds_give_equal_frames_and_keys_change_them(live: LiveServer) -> None:
    sessions = []
    for keys in ((), (), ("w", "l")):
        with live.client() as client:
            client.hold(*keys)
            client.start(seed=11)
            sessions.append([frame.image for frame in client.frames(21)])
    assert sessions[0] == sessions[1]
    assert sessions[0][9:] != sessions[2][9:]


@pytest.mark.slow
def test_recording_with_a_rewind_replays_bit_for_bit(live: LiveServer, tmp_path: Path) -> None:
    world = tiny.world(frame_rate=RATE)
    with live.client() as client:
        client.start(image="1", seed=21)
        client.send("record", on=True)
        client.wait_for("recording")
        shown = {}
        for keys in ("w", "wl", "", "aj"):
            client.hold(*keys, mouse=(0.05, -0.02))
            shown.update({frame.number: frame.image for frame in client.frames(15)})
        client.send("rewind", blocks=2)
        client.wait_for("rewound")
        client.hold("s")
        shown.update({frame.number: frame.image for frame in client.frames(24)})
        client.send("pause")
        client.send("record", on=False)
        recording = client.wait_for("recording")
    files = {name: live.get(recording[name]).body for name in ("video", "actions", "picture")}
    (tmp_path / "walk.json").write_bytes(files["actions"])
    (tmp_path / "picture.png").write_bytes(files["picture"])
    script = json.loads(files["actions"])
    assert recording["frames"] == len(script["keyboard"]) - script["first_frame"]
    assert files["video"][4:8] == b"ftyp"

    track = load_actions(tmp_path / "walk.json", world.space)
    noise = recorded_noise(tmp_path / "walk.json")
    assert noise == RecordedNoise(21, "blocks")
    latents = (len(track) - 1) // 4 + 1
    run = world.generate(tmp_path / "picture.png", latents, noise.seed, track, noise=noise.mode)
    replayed = [number for number in shown if number < len(run.frames)]
    assert len(replayed) > 45
    for number in replayed:
        np.testing.assert_array_equal(pixels(shown[number]), run.frames[number])


def test_recording_stopped_with_a_restart_belongs_to_the_first_session(live: LiveServer) -> None:
    """The page sends both messages at once when a player restarts during a recording."""
    with live.client() as client:
        client.start()
        client.send("record", on=True)
        list(client.frames(12))
        live.loop.call_soon_threadsafe(time.sleep, 0.2)
        client.send("record", on=False)
        client.send("start", version=1)
        recordings: list[dict[str, Any]] = []
        while len(recordings) < 2:
            list(client.frames(RATE // 4))
            recordings = [m for m in client.messages if m["type"] == "recording"]
        assert [recording["on"] for recording in recordings] == [True, False]
        assert recordings[1]["frames"] >= 9
        assert live.get(recordings[1]["video"]).body[4:8] == b"ftyp"


def test_uploaded_image_is_cropped_and_starts_a_session(live: LiveServer) -> None:
    buffer = io.BytesIO()
    tiny.picture(90, 70).save(buffer, "JPEG")
    with live.client() as client:
        client.socket.send(buffer.getvalue())
        assert client.wait_for("picture")["width"] == 48
        client.start(image="upload")
        assert len(list(client.frames(9))) == 9


def test_invalid_images_get_a_notice_and_the_session_continues(live: LiveServer) -> None:
    with live.client() as client:
        client.start()
        for data in (b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 60, b"<svg/>"):
            client.socket.send(data)
            assert "image" in client.wait_for("notice")["text"]
        assert len(list(client.frames(9))) == 9


def test_huge_image_is_refused_by_its_header(live: LiveServer) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 4000)).save(buffer, "PNG")
    with live.client() as client:
        client.socket.send(buffer.getvalue())
        assert "16 megapixels" in client.wait_for("notice")["text"]


@pytest.mark.slow  # the report is made by another process
def test_capture_offers_the_trace_and_its_report(live: LiveServer) -> None:
    with live.client() as client:
        client.start()
        client.send("capture", blocks=1)
        captured = client.wait_for("captured")
    trace = live.get(captured["trace"])
    assert trace.body[:2] == b"\x1f\x8b"
    report = live.get(captured["report"])
    assert report.status == 200
    assert b"Denoising_Step" in report.body
    assert report.headers["content-security-policy"].startswith("sandbox")
