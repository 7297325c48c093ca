"""Seats: taken, shared, given back, whatever becomes of the player."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from urllib.error import URLError

from websockets.sync.client import connect

from glassworld.engine.state import SessionState
from tests.support.live import RATE, LiveServer, NonReadingClient, close_reason, until


def test_whoever_leaves_while_the_world_loads_gives_the_seat_back() -> None:
    may_load = threading.Event()
    with LiveServer(slots=1, frame_rate=RATE, may_load=may_load) as live:
        assert until(lambda: answers(live, "/healthz") == 503)
        with connect(live.ws):
            assert until(lambda: live.state.slots_taken == 1)
        assert until(lambda: live.state.slots_taken == 0)
        with connect(live.ws) as hasty:
            hasty.send('{"type": "pause"}')
            assert json.loads(hasty.recv(10)) == {
                "type": "error",
                "text": "wait for hello before you send anything",
            }
        assert until(lambda: live.state.slots_taken == 0)
        waiting = live.client()
        threading.Timer(0.5, may_load.set).start()
        with waiting as client:
            client.start()
            assert len(list(client.frames(9))) == 9
        assert live.get("/healthz").status == 200


def answers(live: LiveServer, path: str) -> int:
    """The status of a request, 0 while nobody listens."""
    try:
        return live.get(path).status
    except URLError:
        return 0


def test_a_walk_that_fails_ends_with_a_reason_and_the_others_go_on() -> None:
    with LiveServer(frame_rate=RATE) as live, live.client() as other:
        other.start()
        good = live.world.networks.vision
        with live.client() as client:
            live.world.networks = replace(live.world.networks, vision=None)
            client.send("start", version=1)
            assert close_reason(client) == (1011, "the session failed: TypeError")
        live.world.networks = replace(live.world.networks, vision=good)
        assert len(list(other.frames(24))) == 24
        assert until(lambda: live.state.slots_taken == 1)
        with live.client() as client:
            client.start()


def test_full_says_so_and_a_seat_is_free_again() -> None:
    with LiveServer(slots=1, frame_rate=RATE) as live:
        with live.client() as first:
            first.start()
            with connect(live.ws) as second:
                assert json.loads(second.recv(10)) == {"type": "full", "seats": 1}
            assert "glassworld_refused_total 1" in live.get("/metrics").body.decode()
        assert until(lambda: live.state.slots_taken == 0)
        with live.client() as third:
            third.start()


def test_four_players_each_get_their_share() -> None:
    with LiveServer(frame_rate=12) as live:
        with ExitStack() as stack:
            clients = [stack.enter_context(live.client()) for _ in range(4)]
            for client in clients:
                client.start()
            assert [len(list(client.frames(21))) for client in clients] == [21] * 4
        assert until(lambda: live.state.slots_taken == 0)


def states() -> int:
    """How many sessions' states are alive in this process."""
    return sum(type(each) is SessionState for each in gc.get_objects())


def test_many_come_and_go_and_nothing_stays(live: LiveServer) -> None:
    assert until(lambda: live.state.slots_taken == 0)
    before = live.tasks()
    gc.collect()
    others = states()  # what other tests still hold
    for number in range(200):
        with live.client() as client:
            if number % 20 == 0:
                client.start()
            if number % 3 == 0:
                client.socket.socket.shutdown(socket.SHUT_RDWR)  # gone without a word
    assert until(lambda: live.state.slots_taken == 0)
    assert until(lambda: live.state.device_thread.waiting == 0)
    assert until(lambda: live.tasks() <= before)
    gc.collect()
    assert until(lambda: states() <= others)


def test_a_client_that_stops_reading_harms_nobody(live: LiveServer) -> None:
    """For 30 seconds; nor does one that claims to see what it does not read."""
    assert until(lambda: live.state.slots_taken == 0)
    with (
        NonReadingClient(live.port) as stuck,
        NonReadingClient(live.port) as liar,
        live.client() as client,
    ):
        stuck.send("start", version=1)
        liar.send("start", version=1)
        client.start()
        end, numbers = time.monotonic() + 30, []
        while time.monotonic() < end:
            numbers += [frame.number for frame in client.frames(RATE)]
            with suppress(OSError):
                liar.send("seen", frame=2**32 - 1)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 30 * RATE / 4  # about 30 RATE on a machine with nothing else to do
        assert until(lambda: live.state.slots_taken == 2, 30)  # the liar has been shown out
        client.send("pause")
        client.send("ping", id=1)
        client.wait_for("pong")
        assert until(lambda: live.state.device_thread.waiting == 0)
        sent = live.state.metrics.frames
        time.sleep(0.5)
        assert live.state.metrics.frames == sent  # nothing is made for the one who is stuck
    assert until(lambda: live.state.slots_taken == 0)
