"""Streaming: the frame rate, and clients that do not read."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from glassworld.bench.play.client import NonReadingClient
from tests.support.live import RATE, LiveServer, until
from tests.support.slow_blocks import slow_blocks


def test_frames_are_never_faster_than_the_frame_rate(live: LiveServer) -> None:
    with live.client() as client:
        client.start()
        list(client.frames(9))
        started = time.monotonic()
        list(client.frames(RATE))
        assert time.monotonic() - started > 0.9  # how much slower depends on the machine


@pytest.mark.slow
def test_hidden_page_that_is_shown_again_is_no_stall(live: LiveServer) -> None:
    """Blocks are slower than real time, so the queue is empty when the server stops sending."""
    with slow_blocks(*range(20), seconds=0.4), live.client() as client:
        client.start()
        list(client.frames(8))  # so the last frame that the server sends is that of a block
        frames, end = 0, time.monotonic() + 60
        while frames < 2 * RATE + 1:  # acknowledges none of them
            assert time.monotonic() < end
            frames += isinstance(client.socket.recv(20), bytes)
        time.sleep(1.5)
        stalls = live.state.metrics.stalls
        assert stalls > 0
        client.send("seen", frame=frames + 7)
        list(client.frames(1))
        assert live.state.metrics.stalls == stalls


@pytest.mark.slow
def test_clients_whose_sockets_are_full_are_disconnected_and_slow_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("glassworld.play.client_socket.SEND_TIMEOUT", 3.0)
    with LiveServer(frame_rate=RATE, send_buffer=8192) as live:
        with NonReadingClient(live.port) as silent, live.client() as client:
            silent.send("start", version=1)
            client.start()
            numbers: list[int] = []
            end = time.monotonic() + 90
            while live.state.slots_taken > 1:
                assert time.monotonic() < end
                numbers += [frame.number for frame in client.frames(RATE // 4)]
                with suppress(OSError):
                    silent.send("seen", frame=2**32 - 1)  # claims to see what it does not read
            assert numbers == list(range(len(numbers)))
        assert until(lambda: live.state.slots_taken == 0)


@pytest.mark.slow
def test_clients_that_do_not_read_for_30_seconds_slow_nobody(live: LiveServer) -> None:
    """One client acknowledges nothing; the other claims to have seen what it does not read."""
    with (
        NonReadingClient(live.port) as silent,
        NonReadingClient(live.port) as lying,
        live.client() as client,
    ):
        silent.send("start", version=1)
        lying.send("start", version=1)
        client.start()
        end, numbers = time.monotonic() + 30, []
        while time.monotonic() < end:
            numbers += [frame.number for frame in client.frames(RATE)]
            with suppress(OSError):
                lying.send("seen", frame=2**32 - 1)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > RATE  # about 30 RATE on an idle machine
        # Neither answers a ping.
        assert until(lambda: live.state.slots_taken == 1)
        client.send("pause")
        client.send("ping", id=1)
        client.wait_for("pong")
        assert until(lambda: live.state.device_thread.waiting == 0)
        sent = live.state.metrics.frames
        time.sleep(0.5)
        assert live.state.metrics.frames == sent
    assert until(lambda: live.state.slots_taken == 0)
