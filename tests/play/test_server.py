from __future__ import annotations

import gc
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote

import numpy as np
import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live import Deaf, Live
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from glassworld.engine.action_files import load_actions, recorded_noise
from glassworld.engine.state import SessionState

RATE = 48  # four times the world's, so that the tests take a quarter of the time


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with Live(frame_rate=RATE) as running:
        yield running


def pixels(picture: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture)))


def until(condition: Any, seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def closed(client: Any) -> tuple[int, str]:
    """The close code and reason, whatever comes before them."""
    try:
        while True:
            client.socket.recv(20)
    except ConnectionClosed as end:
        return (end.rcvd.code, end.rcvd.reason) if end.rcvd is not None else (0, "")


def test_health_metrics_and_the_page(live: Live) -> None:
    assert live.get("/healthz").status == 200
    metrics = live.get("/metrics").body.decode()
    assert "glassworld_ready 1" in metrics
    assert "glassworld_block_seconds_count" in metrics
    page = live.get("/")
    assert b"<title>glassworld</title>" in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert live.get("/static/main.js").status == 200
    assert pixels(live.get("/pictures/0").body).shape == (32, 48, 3)


def test_a_walk(live: Live) -> None:
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


def test_frames_come_at_the_content_rate(live: Live) -> None:
    with live.client() as client:
        client.start()
        list(client.frames(9))
        began = time.monotonic()
        list(client.frames(2 * RATE))
        assert time.monotonic() - began > 1.8  # never faster; how much slower is the machine's


def test_pause_step_and_rewind(live: Live) -> None:
    with live.client() as client:
        client.start(seed=1)
        walk = {frame.number: frame.picture for frame in client.frames(40)}
        client.send("pause")
        client.send("ping", id=1)
        client.wait_for("pong")
        paused = live.hall.metrics.frames
        time.sleep(0.3)
        assert live.hall.metrics.frames == paused
        client.send("step")
        assert until(lambda: live.hall.metrics.frames > paused)
        client.send("rewind", blocks=2)
        back = client.wait_for("rewound")["number"]
        client.send("resume")
        again = list(client.frames(12))
        assert again[0].block == back
        assert again[0].number == (9 + 12 * (back - 1) if back else 0)
        same = [frame for frame in again if frame.number in walk]
        assert same
        assert all(frame.picture == walk[frame.number] for frame in same)


def test_the_same_seed_is_the_same_walk_and_keys_change_it(live: Live) -> None:
    walks = []
    for keys in ((), (), ("w", "l")):
        with live.client() as client:
            client.hold(*keys)
            client.start(seed=11)
            walks.append([frame.picture for frame in client.frames(33)])
    assert walks[0] == walks[1]
    assert walks[0][9:] != walks[2][9:]


def test_a_recording_replays_bit_for_bit(live: Live, tmp_path: Path) -> None:
    """Through changing keys, a camera and a rewind."""
    world = tiny.world(frame_rate=RATE)
    with live.client() as client:
        client.start(picture="1", seed=21)
        client.send("record", on=True)
        client.wait_for("recording")
        seen = {}
        for keys in ("w", "wl", "", "aj"):
            client.hold(*keys, mouse=(0.05, -0.02))
            seen.update({frame.number: frame.picture for frame in client.frames(20)})
        client.send("rewind", blocks=2)
        client.wait_for("rewound")
        client.hold("s")
        seen.update({frame.number: frame.picture for frame in client.frames(30)})
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


def test_a_recording_ends_before_the_walk_that_follows(live: Live) -> None:
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


def test_a_picture_of_ones_own(live: Live) -> None:
    buffer = io.BytesIO()
    tiny.picture(90, 70).save(buffer, "JPEG")
    with live.client() as client:
        client.socket.send(buffer.getvalue())
        assert client.wait_for("picture")["width"] == 48
        client.start(picture="upload")
        assert len(list(client.frames(9))) == 9


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 60, b"<svg/>"])
def test_a_bad_picture_is_explained_and_the_walk_goes_on(live: Live, data: bytes) -> None:
    with live.client() as client:
        client.start()
        client.socket.send(data)
        assert "picture" in client.wait_for("notice")["text"]
        assert len(list(client.frames(9))) == 9


def test_a_huge_picture_is_refused_by_its_header(live: Live) -> None:
    buffer = io.BytesIO()
    Image.new("1", (8000, 4000)).save(buffer, "PNG")
    with live.client() as client:
        client.socket.send(buffer.getvalue())
        assert "16 megapixels" in client.wait_for("notice")["text"]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", "malformed"),
        ("{", "malformed"),
        ('{"type": "fly"}', "malformed"),
        ('{"type": "start", "version": 9}', "malformed"),
        ("x" * 20_000, "too long"),
        (b"\0" * (8 * 2**20 + 1), "too large"),
    ],
)
def test_what_must_not_be_sent_closes_that_session_with_a_reason(
    live: Live, message: str | bytes, reason: str
) -> None:
    with live.client() as other:
        other.start()
        with live.client() as client:
            client.socket.send(message)
            code, said = closed(client)
            assert code == 1008
            assert reason in said
        assert len(list(other.frames(12))) == 12


def test_a_frame_over_the_servers_limit_is_cut_off(live: Live) -> None:
    with live.client() as client:
        with suppress(ConnectionClosed):
            client.socket.send(b"\0" * (9 * 2**20))
        # The server stops reading, so a reset may overtake its reason.
        assert closed(client)[0] in (1009, 0)
    assert live.get("/healthz").status == 200


def test_too_many_messages(live: Live) -> None:
    with live.client() as client:
        with suppress(ConnectionClosed):
            for number in range(2000):
                client.hold(str(number))
        assert "too many" in closed(client)[1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.text(max_size=30)
        | st.binary(max_size=60)
        | st.builds(
            lambda kind, fields: json.dumps({"type": kind, **fields}),
            st.sampled_from(["start", "act", "seen", "step", "rewind", "record", "capture"]),
            st.dictionaries(
                st.sampled_from(["version", "id", "keys", "frame", "blocks", "on", "picture"]), JSON
            ),
        ),
        max_size=6,
    )
)
def test_no_message_harms_the_server(live: Live, messages: list[str | bytes]) -> None:
    with live.client() as client:
        try:
            for message in messages:
                client.socket.send(message)
            client.send("ping", id=1)
            client.wait_for("pong")
        except ConnectionClosed:
            code, reason = closed(client)
            assert code == 1008
            assert reason
    assert live.get("/healthz").status == 200


def test_text_that_is_not_unicode(live: Live) -> None:
    with live.client() as client:
        client.socket.send(b"\xff\xfe", text=True)
        assert closed(client)[0] == 1007
    assert live.get("/healthz").status == 200


def test_fields_that_mean_nothing_here_are_explained(live: Live) -> None:
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


def test_whoever_leaves_while_the_world_loads_gives_the_seat_back() -> None:
    loading = threading.Event()
    with Live(seats=1, frame_rate=RATE, loading=loading) as live:
        assert until(lambda: answers(live, "/healthz") == 503)
        with connect(live.ws):
            assert until(lambda: live.hall.taken == 1)
        assert until(lambda: live.hall.taken == 0)
        with connect(live.ws) as hasty:
            hasty.send('{"type": "pause"}')
            assert json.loads(hasty.recv(10)) == {
                "type": "error",
                "text": "wait for hello before you send anything",
            }
        assert until(lambda: live.hall.taken == 0)
        waiting = live.client()
        threading.Timer(0.5, loading.set).start()
        with waiting as client:
            client.start()
            assert len(list(client.frames(9))) == 9
        assert live.get("/healthz").status == 200


def answers(live: Live, path: str) -> int:
    """The status of a request, 0 while nobody listens."""
    try:
        return live.get(path).status
    except URLError:
        return 0


def test_a_walk_that_fails_ends_with_a_reason_and_the_others_go_on() -> None:
    with Live(frame_rate=RATE) as live, live.client() as other:
        other.start()
        good = live.world.networks.vision
        with live.client() as client:
            live.world.networks = replace(live.world.networks, vision=None)
            client.send("start", version=1)
            assert closed(client) == (1011, "the walk failed: TypeError")
        live.world.networks = replace(live.world.networks, vision=good)
        assert len(list(other.frames(24))) == 24
        assert until(lambda: live.hall.taken == 1)
        with live.client() as client:
            client.start()


def test_full_says_so_and_a_seat_is_free_again() -> None:
    with Live(seats=1, frame_rate=RATE) as live:
        with live.client() as first:
            first.start()
            with connect(live.ws) as second:
                assert json.loads(second.recv(10)) == {"type": "full", "seats": 1}
            assert "glassworld_refused_total 1" in live.get("/metrics").body.decode()
        assert until(lambda: live.hall.taken == 0)
        with live.client() as third:
            third.start()


def test_four_players_each_get_their_share() -> None:
    with Live(frame_rate=12) as live:
        with ExitStack() as stack:
            clients = [stack.enter_context(live.client()) for _ in range(4)]
            for client in clients:
                client.start()
            assert [len(list(client.frames(21))) for client in clients] == [21] * 4
        assert until(lambda: live.hall.taken == 0)


def states() -> int:
    """How many sessions' states are alive in this process."""
    return sum(type(each) is SessionState for each in gc.get_objects())


def test_many_come_and_go_and_nothing_stays(live: Live) -> None:
    assert until(lambda: live.hall.taken == 0)
    before = live.tasks()
    gc.collect()
    others = states()  # what other tests still hold
    for number in range(200):
        with live.client() as client:
            if number % 20 == 0:
                client.start()
            if number % 3 == 0:
                client.socket.socket.shutdown(socket.SHUT_RDWR)  # gone without a word
    assert until(lambda: live.hall.taken == 0)
    assert until(lambda: live.hall.worker.waiting == 0)
    assert until(lambda: live.tasks() <= before)
    gc.collect()
    assert until(lambda: states() <= others)


def test_a_client_that_stops_reading_harms_nobody(live: Live) -> None:
    """For 30 seconds; nor does one that claims to see what it does not read."""
    assert until(lambda: live.hall.taken == 0)
    with Deaf(live.port) as stuck, Deaf(live.port) as liar, live.client() as client:
        stuck.say("start", version=1)
        liar.say("start", version=1)
        client.start()
        end, numbers = time.monotonic() + 30, []
        while time.monotonic() < end:
            numbers += [frame.number for frame in client.frames(RATE)]
            with suppress(OSError):
                liar.say("seen", frame=2**32 - 1)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 30 * RATE / 4  # about 30 RATE on a machine with nothing else to do
        assert until(lambda: live.hall.taken == 2, 30)  # the liar has been shown out
        client.send("pause")
        client.send("ping", id=1)
        client.wait_for("pong")
        assert until(lambda: live.hall.worker.waiting == 0)
        sent = live.hall.metrics.frames
        time.sleep(0.5)
        assert live.hall.metrics.frames == sent  # nothing is made for the one who is stuck
    assert until(lambda: live.hall.taken == 0)


def test_a_capture_and_its_report(live: Live) -> None:
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


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/server.py",
        "/files/../../etc/passwd",
        "/files/..%2f..%2fetc%2fpasswd",
        "/pictures/..%2f0",
        "/pictures/99",
        "/etc/passwd",
    ],
)
def test_no_path_reaches_the_file_system(live: Live, path: str) -> None:
    assert live.get(path).status == 404


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(["/", "/static/", "/files/", "/pictures/"]), st.text(max_size=40))
def test_no_address_harms_the_server(live: Live, folder: str, name: str) -> None:
    # The router's patterns end in `$`, which lets one last line break pass.
    pages = {page + end for page in ("", "healthz", "metrics") for end in ("", "\n")}
    known = {"/": pages, "/pictures/": {"0", "1"}}.get(folder, set())
    address = folder + quote(name, safe="")
    assert (live.get(address).status == 200) == (name in known)


def refused(url: str, **arguments: Any) -> bool:
    try:
        with connect(url, **arguments):
            return False
    except InvalidStatus as error:
        return error.response.status_code == 403


def test_other_sites_may_not_connect(live: Live) -> None:
    assert refused(live.ws, origin="http://evil.example")
    assert refused(live.ws, origin="null")
    assert refused(live.ws, origin=f"http://127.0.0.1:{live.port + 1}")
    assert not refused(live.ws, origin=f"http://127.0.0.1:{live.port}")


def test_another_name_for_this_machine_is_refused(live: Live) -> None:
    assert live.get("/", Host="evil.example").status == 403
    assert live.get("/healthz", Host=f"localhost:{live.port}").status == 200


def test_the_token() -> None:
    with Live(token="secret", frame_rate=RATE) as live:
        assert refused(live.ws)
        assert refused(live.ws + "?token=wrong")
        assert live.get("/metrics").status == 403
        assert live.get("/pictures/0").status == 403
        assert live.get("/pictures/0?token=secret").status == 200
        assert live.get("/healthz").status == 200
        with live.client("?token=secret") as client:
            client.start()
