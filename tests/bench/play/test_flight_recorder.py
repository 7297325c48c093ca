"""The flight recorder's cost is measured side by side, and summed up from the tags."""

from __future__ import annotations

from glassworld.bench.play.flight_recorder import (
    VARIANTS,
    summary_lines,
    tag_cost_ns,
    time_variants,
)
from glassworld.bench.steady_state import idle_action
from glassworld.profiling.tags import is_active, listen
from tests.support import tiny


def test_time_variants_measures_each_variant_as_often() -> None:
    world = tiny.world()
    session = world.start(tiny.picture())
    figures = time_variants(session, 3)
    assert [len(figures["block_ms"][variant]) for variant in VARIANTS] == [3, 3, 3]
    heard: list[str] = []
    stop = listen(lambda pattern, fields, start, end: heard.append(pattern))
    session.step(idle_action(world))
    stop()
    assert figures["tags"] == len(heard) > 50
    assert not is_active()


def test_cost_of_a_tag_is_measured_by_who_listens() -> None:
    cost = tag_cost_ns()
    assert list(cost) == ["silent", "timed", "recorded"]
    assert min(cost.values()) > 0
    assert not is_active()


def test_summary_shows_the_ratio_and_the_share_that_follows_from_the_tags() -> None:
    figures = {
        "block_ms": {"off": [100.0], "on": [102.0], "writing": [103.0]},
        "block_ms_median": {"off": 100.0, "on": 102.0, "writing": 103.0},
        "ratio": {"off": 1.0, "on": 1.02, "writing": 1.03},
        "tags": 500,
        "tag_ns": {"silent": 300.0, "timed": 1000.0, "recorded": 1600.0},
    }
    block, tag, share = summary_lines(figures)
    assert "100.0 ms off, 102.0 ms on (1.020)" in block
    assert "600 ns more" in tag
    assert "costs 0.300% of it" in share
