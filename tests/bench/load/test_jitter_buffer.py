"""The simulated viewer's buffer: what is late, what stalls."""

from __future__ import annotations

import pytest

from glassworld.bench.load.jitter_buffer import JitterBuffer


def shown(buffer: JitterBuffer, arrivals: list[float]) -> list[float]:
    return [buffer.add(arrival).time for arrival in arrivals]


def test_jitter_up_to_the_buffer_is_not_seen() -> None:
    buffer = JitterBuffer(10, seconds=0.1)
    assert shown(buffer, [0.0, 0.15, 0.2, 0.4]) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert (buffer.frames, buffer.on_time, buffer.stalls) == (4, 4, 0)


def test_frame_is_on_time_up_to_one_frame_time_after_it_is_due() -> None:
    buffer = JitterBuffer(10, seconds=0.1)
    assert shown(buffer, [0.0, 0.29, 0.39]) == pytest.approx([0.1, 0.29, 0.39])
    assert buffer.on_time == 3


def test_later_frame_is_a_stall_and_fills_the_buffer_again() -> None:
    buffer = JitterBuffer(10, seconds=0.1)
    assert shown(buffer, [0.0, 0.5, 0.65]) == pytest.approx([0.1, 0.6, 0.7])
    assert (buffer.on_time, buffer.stalls) == (2, 1)


def test_server_of_half_the_rate_stalls_again_and_again() -> None:
    buffer = JitterBuffer(10, seconds=0.1)
    shown(buffer, [0.19 * index for index in range(100)])
    assert buffer.stalls == pytest.approx(33, abs=2)
    assert buffer.on_time + buffer.stalls == buffer.frames == 100


def test_counts_start_again_and_the_schedule_stays() -> None:
    buffer = JitterBuffer(10, seconds=0.1)
    shown(buffer, [0.0, 0.1])
    buffer.reset_counts()
    assert buffer.add(0.2) == pytest.approx((0.3, -0.1))
    assert buffer.frames == 1
