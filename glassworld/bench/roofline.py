"""The layers and the decoder's stages under the machine's roof, from a trace of steady blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glassworld.bench.steady_state import idle, warm
from glassworld.engine.world import Picture, World
from glassworld.profiling.capture import profile
from glassworld.trace import analyze
from glassworld.trace.analyzers.roofline import roofline

BLOCKS = 4


def roof_points(world: World, picture: Picture) -> list[dict[str, Any]]:
    """By tag: GFLOP of the blocks measured, GFLOP/s reached and possible, FLOPs per byte.

    The ceilings are those stored for this machine. On a CPU tags alone are recorded, which costs
    next to nothing; a GPU's busy time needs the kernels too.
    """
    session = warm(world, picture)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        with profile(trace, mode="tags" if world.device.type == "cpu" else "full"):
            for _ in range(BLOCKS):
                session.step(idle(world))
        return [asdict(point) for point in roofline(analyze(trace))]


def fastest(rounds: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The quickest of several rounds: what else a shared machine does can only slow one down."""
    return min(rounds, key=lambda points: float(sum(point["ms"] for point in points)))
