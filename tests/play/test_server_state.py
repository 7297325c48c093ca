"""Slots, sessions and counters: nothing is left behind by clients that come and go."""

from __future__ import annotations

import gc
import socket

import pytest

from glassworld.engine.state import SessionState
from glassworld.play.server_state import Metrics, ServerState
from tests.support.live import LiveServer, until


def test_slot_is_refused_when_all_are_taken_and_free_afterwards() -> None:
    state = ServerState(slots=1)
    try:
        with state.slot() as first, state.slot() as second:
            assert (first, second) == (True, False)
        with state.slot() as third:
            assert third
        assert (state.slots_taken, state.metrics.players, state.metrics.refused) == (0, 2, 1)
    finally:
        state.close()


def count_states() -> int:
    """Return how many sessions' states are alive in this process."""
    return sum(type(entry) is SessionState for entry in gc.get_objects())


def connect_and_leave(live: LiveServer, times: int) -> None:
    assert until(lambda: live.state.slots_taken == 0)
    tasks = live.tasks()
    gc.collect()
    states = count_states()  # of other tests
    for number in range(times):
        with live.client() as client:
            if number % 20 == 0:
                client.start()
            if number % 3 == 0:
                client.socket.socket.shutdown(socket.SHUT_RDWR)  # leaves without a message
    assert until(lambda: live.state.slots_taken == 0)
    assert until(lambda: live.state.device_thread.waiting == 0)
    assert until(lambda: live.tasks() <= tasks)
    gc.collect()
    assert until(lambda: count_states() <= states)


@pytest.mark.slow
def test_clients_that_come_and_go_leave_nothing_behind(live: LiveServer) -> None:
    connect_and_leave(live, 40)


@pytest.mark.slow
def test_200_clients_that_come_and_go_leave_nothing_behind(live: LiveServer) -> None:
    connect_and_leave(live, 200)


def test_text_has_cumulative_buckets_and_the_gauges() -> None:
    metrics = Metrics(players=3, frames=50)
    for seconds in (0.04, 0.2, 7.0):
        metrics.count_block(seconds)
    lines = metrics.text(ready=True, slots_taken=2, waiting=1, tasks=9).splitlines()
    for line in (
        "glassworld_ready 1",
        "glassworld_sessions 2",
        "glassworld_queue 1",
        "glassworld_tasks 9",
        "glassworld_players_total 3",
        "glassworld_frames_total 50",
        'glassworld_block_seconds_bucket{le="0.05"} 1',
        'glassworld_block_seconds_bucket{le="0.2"} 2',
        'glassworld_block_seconds_bucket{le="5.0"} 2',
        'glassworld_block_seconds_bucket{le="+Inf"} 3',
        "glassworld_block_seconds_count 3",
    ):
        assert line in lines
