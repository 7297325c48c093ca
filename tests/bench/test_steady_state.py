"""The steady state of worlds whose passes are captured; on a CPU, a capture is the call itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glassworld.bench.steady_state import MIN_BLOCKS, capture_passes, steady_state, warm_session
from glassworld.engine.cuda_graphs import Call, PassGraphs
from glassworld.engine.world import World
from glassworld.profiling.tags import is_active
from tests.support import tiny


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Note of every capture whether tags are timed meanwhile."""
    noted: list[bool] = []
    capture = PassGraphs._capture

    def noting(self: PassGraphs, call: Call) -> Call:
        noted.append(is_active())
        return capture(self, call)

    monkeypatch.setattr(PassGraphs, "_capture", noting)
    return noted


def world_with_graphs(frames_per_block: int, window: int, sink: int = 0) -> World:
    dit = {"window": window, "sink": sink}
    world = tiny.world(dit=dit, frames_per_block=frames_per_block)
    return replace(world, plan=replace(world.plan, cuda_graphs=True))


@pytest.mark.slow
def test_nothing_is_captured_while_tags_are_timed(captures: list[bool]) -> None:
    """Waiting for the device, which timing a tag takes, would break the capture."""
    world = world_with_graphs(frames_per_block=1, window=6)
    plain = replace(world, plan=replace(world.plan, cuda_graphs=False))
    session, baseline = (warm_session(each, tiny.picture()) for each in (world, plain))
    captures.clear()
    figures = steady_state(session, baseline, MIN_BLOCKS)
    assert figures["blocks"] == MIN_BLOCKS
    assert captures
    assert not any(captures)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frames_per_block", "window", "sink"), [(1, 4, 0), (2, 5, 0), (3, 6, 0), (2, 6, 1)]
)
def test_all_passes_of_a_window_are_captured(
    captures: list[bool], frames_per_block: int, window: int, sink: int
) -> None:
    world = world_with_graphs(frames_per_block, window, sink)
    session = warm_session(world, tiny.picture())
    capture_passes(session)
    passes = len(captures)
    for _ in range(2 * window):
        session.step(world.space.press(()))
    assert len(captures) == passes
