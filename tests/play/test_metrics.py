"""Metrics: counters and the histogram in the Prometheus text format."""

from __future__ import annotations

from glassworld.play.metrics import Metrics


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
