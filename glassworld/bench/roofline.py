"""Roofline of the layers and the decoder's stages, from a trace of steady blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glassworld.bench.steady_state import fork, idle_action
from glassworld.engine.session import Session
from glassworld.profiling.capture import profile
from glassworld.trace import analyze
from glassworld.trace.analyzers.roofline import roofline_by_tag

BLOCKS = 4


def roofline_points(session: Session) -> list[dict[str, Any]]:
    """Return each tag's GFLOP, reached and possible GFLOP/s and FLOPs per byte.

    Uses the peak rates stored for this machine. On a CPU it records tags alone, which costs next
    to nothing; the busy time of a GPU needs its kernels too. `session` stays where it is.
    """
    session = fork(session)
    world = session.world
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(trace, mode="tags" if world.device.type == "cpu" else "full"):
            for _ in range(BLOCKS):
                session.step(idle_action(world))
        return [asdict(point) for point in roofline_by_tag(analyze(trace))]


def fastest_round(rounds: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the round that took least time: other load on a machine only ever slows one down."""
    return min(rounds, key=lambda points: float(sum(point["ms"] for point in points)))
