"""A walk over the wire: frames, keys, pauses, rewinding, recordings, pictures, captures."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glassworld.engine.actions.files import load_actions, recorded_noise
from tests.support import tiny
from tests.support.live import RATE, LiveServer, until


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


def test_health_metrics_and_the_page(live: LiveServer) -> None:
    assert live.get("/healthz").status == 200
    metrics = live.get("/metrics").body.decode()
    assert "glassworld_ready 1" in metrics
    assert "glassworld_block_seconds_count" in metrics
    page = live.get("/")
    assert b"<title>glassworld</title>" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert live.get("/static/main.js").status == 200
    assert pixels(live.get("/pictures/0").body).shape == (32, 48, 3)


def test_a_walk(live: LiveServer) -> None:
    with live.client() as client:
        assert client.hello["version"] == 1
        assert (client.hello["width"], client.hello["height"]) == (48, 32)
        assert client.hello["controls"][0]["key"] == "w"
        client.start(seed=3)
        frames = list(client.frames(45))
        assert [frame.number for frame in frames] == list(range(45))
        assert [frame.block for frame in frames[7:11]] == [0, 0, 1, 1]
        act = client.hold("w", "j")
        seen = next(frame for frame in client.frames(200) if frame.action == act)
        assert seen.block <= frames[-1].block + 3
        block = client.wait_for("block")
        names = [stage["name"] for stage in block["stages"]]
        assert {"Denoise t=1000", "Update caches", "Decode", "Encode"} <= set(names)
        assert 0 < sum(stage["ms"] for stage in block["stages"]) < 20_000


def test_frames_come_at_the_content_rate(live: LiveServer) -> None:
    with live.client() as client:
        client.start()
        list(client.frames(9))
        began = time.monotonic()
        list(client.frames(2 * RATE))
        assert time.monotonic() - began > 1.8  # never faster; how much slower is the machine's


def test_pause_step_and_rewind(live: LiveServer) -> None:
    with live.client() as client:
        client.start(seed=1)
        walk = {frame.number: frame.image for frame in client.frames(40)}
        client.send("pause")
        client.send("ping", id=1)
        client.wait_for("pong")
        paused = live.state.metrics.frames
        time.sleep(0.3)
        assert live.state.metrics.frames == paused
        client.send("step")
        assert until(lambda: live.state.metrics.frames > paused)
        client.send("rewind", blocks=2)
        back = client.wait_for("rewound")["number"]
        client.send("resume")
        again = list(client.frames(12))
        assert again[0].block == back
        assert again[0].number == (9 + 12 * (back - 1) if back else 0)
        same = [frame for frame in again if frame.number in walk]
        assert same
        assert all(frame.image == walk[frame.number] for frame in same)


def test_the_same_seed_is_the_same_walk_and_keys_change_it(live: LiveServer) -> None:
    walks = []
    for keys in ((), (), ("w", "l")):
        with live.client() as client:
            client.hold(*keys)
            client.start(seed=11)
            walks.append([frame.image for frame in client.frames(33)])
    assert walks[0] == walks[1]
    assert walks[0][9:] != walks[2][9:]


def test_a_recording_replays_bit_for_bit(live: LiveServer, tmp_path: Path) -> None:
    """Through changing keys, a camera and a rewind."""
    world = tiny.world(frame_rate=RATE)
    with live.client() as client:
        client.start(image="1", seed=21)
        client.send("record", on=True)
        client.wait_for("recording")
        seen = {}
        for keys in ("w", "wl", "", "aj"):
            client.hold(*keys, mouse=(0.05, -0.02))
            seen.update({frame.number: frame.image for frame in client.frames(20)})
        client.send("rewind", blocks=2)
        client.wait_for("rewound")
        client.hold("s")
        seen.update({frame.number: frame.image for frame in client.frames(30)})
        client.send("pause")
        client.send("record", on=False)
        tape = client.wait_for("recording")
    files = {name: live.get(tape[name]).body for name in ("video", "actions", "picture")}
    (tmp_path / "walk.json").write_bytes(files["actions"])
    (tmp_path / "picture.png").write_bytes(files["picture"])
    script = json.loads(files["actions"])
    assert tape["frames"] == len(script["keyboard"]) - script["first_frame"]
    assert files["video"][4:8] == b"ftyp"

    track = load_actions(tmp_path / "walk.json", world.space)
    noise = recorded_noise(tmp_path / "walk.json")
    assert noise == (21, "blocks")
    latents = (len(track) - 1) // 4 + 1
    run = world.generate(tmp_path / "picture.png", latents, noise.seed, track, noise=noise.draw)
    last = max(number for number in seen if number < len(run.frames))
    compared = [number for number in seen if number <= last]
    assert len(compared) > 60
    for number in compared:
        np.testing.assert_array_equal(pixels(seen[number]), run.frames[number])


def test_a_recording_ends_before_the_walk_that_follows(live: LiveServer) -> None:
    """Both messages in one segment, as a page sends them that starts anew while it records."""
    with live.client() as client:
        client.start()
        client.send("record", on=True)
        list(client.frames(12))
        live.loop.call_soon_threadsafe(time.sleep, 0.3)
        client.send("record", on=False)
        client.send("start", version=1)
        list(client.frames(3 * RATE))
        tapes = [each for each in client.messages if each["type"] == "recording"]
        assert [tape["on"] for tape in tapes] == [True, False]
        assert tapes[1]["frames"] >= 9
        assert live.get(tapes[1]["video"]).body[4:8] == b"ftyp"


def test_a_picture_of_ones_own(live: LiveServer) -> None:
    buffer = io.BytesIO()
    tiny.picture(90, 70).save(buffer, "JPEG")
    with live.client() as client:
        client.socket.send(buffer.getvalue())
        assert client.wait_for("picture")["width"] == 48
        client.start(image="upload")
        assert len(list(client.frames(9))) == 9


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 60, b"<svg/>"])
def test_a_bad_picture_is_explained_and_the_walk_goes_on(live: LiveServer, data: bytes) -> None:
    with live.client() as client:
        client.start()
        client.socket.send(data)
        assert "image" in client.wait_for("notice")["text"]
        assert len(list(client.frames(9))) == 9


def test_a_huge_picture_is_refused_by_its_header(live: LiveServer) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 4000)).save(buffer, "PNG")
    with live.client() as client:
        client.socket.send(buffer.getvalue())
        assert "16 megapixels" in client.wait_for("notice")["text"]


def test_a_capture_and_its_report(live: LiveServer) -> None:
    with live.client() as client:
        client.start()
        client.send("capture", blocks=1)
        answer = client.wait_for("captured")
    trace = live.get(answer["trace"])
    assert trace.body[:2] == b"\x1f\x8b"
    report = live.get(answer["report"])
    assert report.status == 200
    assert b"Denoising_Step" in report.body
    assert report.headers["content-security-policy"].startswith("sandbox")
