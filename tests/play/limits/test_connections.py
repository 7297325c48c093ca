"""Limits of connections: with real sockets, whatever a client sends or does not read."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.frames import Frame

from glassworld.play.limits import connections
from glassworld.play.limits.connections import FRAME_BURST, FRAMES_PER_SECOND, TokenBucket
from tests.support.live import RATE, LiveServer, RawSocket, until

TEXT, BINARY, PING, PONG, CONTINUATION = 1, 2, 9, 10, 0
SMALLEST_FRAME = 6  # bytes, from a client
LARGE_PING = bytes([0x80 | PING, 0x80 | 125]) + bytes(4 + 125)


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with LiveServer(frame_rate=RATE) as running:
        yield running


@pytest.fixture
def quick_closing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refused connections be cut soon, so that the tests need not wait for it."""
    monkeypatch.setattr("glassworld.play.limits.connections.CLOSING_SECONDS", 0.3)


def test_token_bucket_refuses_more_than_its_burst() -> None:
    bucket = TokenBucket(rate=0.001, burst=3)
    assert [bucket.take(1) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(1)


@pytest.mark.parametrize(
    ("opcode", "payload", "fin"),
    [(PING, b"", True), (PONG, b"x", True), (TEXT, b"a", False), (BINARY, b"", False)],
)
def test_frames_of_any_kind_are_limited_and_slow_nobody(
    live: LiveServer,
    monkeypatch: pytest.MonkeyPatch,
    quick_closing: None,
    opcode: int,
    payload: bytes,
    fin: bool,
) -> None:
    parsed: list[Frame] = []

    def count(frame: Frame) -> float:
        parsed.append(frame)
        return 1.0

    monkeypatch.setattr(connections, "_cost", count)
    with RawSocket(live.port) as client:
        assert until(lambda: live.state.slots_taken == 1)
        client.send_frames(opcode, payload, fin=fin)
        following = opcode if fin else CONTINUATION
        began = time.monotonic()
        for _ in range(20):
            if not client.send_frames(following, payload, 5000, fin):
                break
            assert live.get("/healthz").status == 200
        assert client.ends(30)
        allowed = FRAME_BURST + FRAMES_PER_SECOND * (time.monotonic() - began)
        assert len(parsed) <= allowed + connections.PARSED_BYTES / SMALLEST_FRAME
    assert until(lambda: live.state.slots_taken == 0)


def test_upload_in_many_pieces_is_within_the_limit(live: LiveServer) -> None:
    with live.client() as client:
        piece = bytes(2048)
        client.socket.send(iter([b"GIF89a", *[piece] * 2000]))
        assert "not a PNG" in client.wait_for("notice")["text"]


def test_answers_that_nobody_reads_are_not_kept(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.play.limits.connections.FRAMES_PER_SECOND", 1e9)
    monkeypatch.setattr("glassworld.play.limits.connections.FRAME_BURST", 1e9)
    with RawSocket(live.port) as client:
        for _ in range(40):
            client.send_frames(PING, bytes(125), 2000)
        (transport,) = live.transports()
        assert until(lambda: transport.get_write_buffer_size() < 200_000)


@pytest.mark.slow
def test_client_that_sends_nothing_loses_its_slot(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glassworld.play.client_socket.SILENCE_SECONDS", 3.0)
    with live.client() as client, RawSocket(live.port) as silent:
        assert until(lambda: live.state.slots_taken == 2)
        for _ in range(5):
            silent.send_frames(PONG)  # is no message

        def pings_and_is_alone() -> bool:
            client.send("ping", id=0)
            return live.state.slots_taken == 1

        assert until(pings_and_is_alone)
        monkeypatch.undo()  # the first frame may take longer than that on a busy machine
        client.start()
        assert silent.ends(5)
        numbers = [frame.number for frame in client.frames(RATE)]
        assert numbers == list(range(RATE))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server that starts from now on wait for less than a slow upload takes."""
    monkeypatch.setattr("glassworld.play.client_socket.SILENCE_SECONDS", 2.0)
    monkeypatch.setattr("glassworld.play.limits.connections.PING_SECONDS", 0.5)
    monkeypatch.setattr("glassworld.play.limits.connections.PONG_SECONDS", 2.0)


@pytest.mark.slow
def test_slow_upload_may_take_longer_than_a_silence(impatient: None) -> None:
    size, piece = 24 * 4096, bytes(4096)
    header = bytes([0x80 | BINARY, 0x80 | 127]) + size.to_bytes(8, "big") + bytes(4)
    with LiveServer() as live, RawSocket(live.port) as client:
        client.socket.sendall(header)
        for _ in range(size // len(piece)):
            client.socket.sendall(piece)
            time.sleep(0.25)
        answer = b""
        while b"not a PNG" not in answer:
            received = client.socket.recv(4096)
            assert received
            answer += received


@pytest.mark.slow
@pytest.mark.parametrize("filler", [b"x", LARGE_PING * 4])
def test_upload_that_hardly_goes_on_loses_its_slot(impatient: None, filler: bytes) -> None:
    with LiveServer() as live, RawSocket(live.port) as client:
        client.send_frames(BINARY, b"x", fin=False)
        if len(filler) == 1:  # one long frame follows, else pings between fragments
            header = bytes([0x80 | CONTINUATION, 0x80 | 127]) + (2**20).to_bytes(8, "big")
            client.socket.sendall(header + bytes(4))
        client.socket.settimeout(0.05)
        with suppress(ConnectionError):
            for _ in range(200):
                client.socket.sendall(filler)
                with suppress(TimeoutError):
                    if not client.socket.recv(65_536):
                        break
            else:
                pytest.fail("the server still waits")
        assert until(lambda: live.state.slots_taken == 0)


@pytest.mark.slow
@pytest.mark.parametrize("sends", [False, True])
def test_client_that_reads_nothing_loses_its_slot_and_its_socket(
    monkeypatch: pytest.MonkeyPatch, sends: bool
) -> None:
    monkeypatch.setattr("glassworld.play.limits.connections.PING_SECONDS", 0.3)
    monkeypatch.setattr("glassworld.play.limits.connections.PONG_SECONDS", 0.5)
    with LiveServer(frame_rate=RATE, send_buffer=8192) as live, RawSocket(live.port) as deaf:
        deaf.send_frames(TEXT, b'{"type": "start", "version": 1}')
        assert until(lambda: live.state.metrics.players == 1)
        end = time.monotonic() + 60
        while live.state.slots_taken:
            assert time.monotonic() < end
            if sends:
                deaf.send_frames(TEXT, b'{"type": "seen", "frame": 4294967295}')
            time.sleep(0.05)
        assert until(lambda: not live.transports())  # also while the client's side stays open


@pytest.mark.parametrize("part", [b"", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"body"])
def test_request_that_does_not_end_is_cut(
    live: LiveServer, monkeypatch: pytest.MonkeyPatch, part: bytes
) -> None:
    monkeypatch.setattr("glassworld.play.limits.connections.REQUEST_SECONDS", 0.5)
    if part == b"body":
        part = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n1"
    with socket.create_connection(("127.0.0.1", live.port), 30) as slow:
        slow.sendall(part)
        assert until(lambda: len(live.transports()) == 1)

        def is_cut() -> bool:
            with suppress(OSError):  # each further byte is no reason to wait longer
                slow.sendall(b"X" if part else b"")
            return not live.transports()

        assert until(is_cut, 60)


@pytest.mark.parametrize(("size", "status"), [(9_000, b"101"), (40_000, b"101"), (0, b"431")])
def test_handshake_with_large_headers_is_answered(
    live: LiveServer, size: int, status: bytes
) -> None:
    headers = f"Cookie: {'c' * size}\r\n" if size else f"X-Other: {'c' * 9000}\r\n"
    with RawSocket(live.port, headers) as client:
        assert client.answer.startswith(b"HTTP/1.1 " + status)


INVALID = [
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET / HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
    b"\x16\x03\x01 hello",
    b"GET / HTTP/9\r\n\r\n",
]


@pytest.mark.slow
def test_bad_input_writes_no_traceback_and_few_lines(
    live: LiveServer, caplog: pytest.LogCaptureFixture, quick_closing: None
) -> None:
    logging.getLogger("uvicorn.error").setLevel("INFO")
    for _ in range(6):
        for request in INVALID:
            with socket.create_connection(("127.0.0.1", live.port), 10) as client:
                client.sendall(request)
                client.recv(4096)
                client.sendall(b"5\r\n")
        for opcode, payload, fin in ((TEXT, b"\xff\xfe", True), (3, b"", True), (PING, b"", False)):
            with RawSocket(live.port) as socket_client:
                socket_client.send_frames(TEXT, b'{"type": "start", "version": 1}')
                socket_client.send_frames(opcode, payload, fin=fin)
                assert socket_client.ends(30)
    assert until(lambda: live.state.slots_taken == 0)
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) <= 10
