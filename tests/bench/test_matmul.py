"""Matmuls of a block are found and counted."""

from __future__ import annotations

import pytest
from torch.autograd import profiler

from glassworld.bench import matmul
from glassworld.bench.matmul import matmul_share
from glassworld.bench.steady_state import warm_session
from tests.support import tiny


@pytest.mark.slow
def test_matmuls_of_a_block_are_counted() -> None:
    world = tiny.world()
    figures = matmul_share(warm_session(world, tiny.picture()))
    assert figures is not None
    dit, tokens = world.spec.dit, 3 * world.spec.tokens_per_frame
    passes = 3 * dit.num_layers + dit.num_layers - 1
    feed_forward = 2 * tokens * dit.dim * dit.ffn_dim * 2 * passes
    assert feed_forward / 1e9 < figures["gflop"] < 20 * feed_forward / 1e9
    assert figures["in_block_ms"] > 0
    assert figures["share"] == pytest.approx(figures["alone_ms"] / figures["in_block_ms"])


def test_profiler_stops_once_the_device_of_the_world_has_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[tuple[object, bool]] = []
    monkeypatch.setattr(
        matmul,
        "synchronize",
        lambda device: waits.append((device, profiler._is_profiler_enabled)),
    )
    world = tiny.world()
    matmul._matmuls_of_block(world.start(tiny.picture()))
    assert waits == [(world.device, True)]
