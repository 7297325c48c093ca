"""One benchmark, start to end, as one JSON object and as a table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from glassworld.bench.measure import (
    FEWEST_BLOCKS,
    first_frames_seconds,
    memory,
    sessions_in_turn,
    steady_state,
)
from glassworld.engine.description import describe
from glassworld.engine.loading import load_world
from glassworld.errors import InputError
from glassworld.profiling.metadata import machine, versions

SESSIONS = (1, 2, 4)


def full_benchmark(
    arguments: dict[str, Any], blocks: int, say: Callable[[str], object]
) -> dict[str, Any]:
    """Measure the world that `load_world(**arguments)` gives. `say` hears what is going on."""
    if blocks < FEWEST_BLOCKS:
        raise InputError(f"blocks {blocks}: at least {FEWEST_BLOCKS} make a steady state")
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "grey.png"
        Image.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(picture)
        world = load_world(**arguments)
        say("cold start, in a process of its own")
        first_frames = first_frames_seconds(arguments, str(picture))
        say(f"{blocks} blocks, and as many of the conv3d baseline")
        figures = steady_state(world, str(picture), blocks)
        say("several sessions in turn")
        sessions = sessions_in_turn(world, str(picture), SESSIONS)
    return {
        **figures,
        "first_frames_s": first_frames,
        "sessions": sessions,
        **memory(world),
        "machine": machine(),
        "versions": versions(),
        "config": describe(world, None, None),
    }


def print_table(figures: dict[str, Any], console: Console) -> None:
    """The figures that matter, readably."""
    rate = figures["config"]["frame_rate"]
    table = Table("", "", show_header=False)
    rows = {
        "frames per second, decoding included": f"{figures['fps_median']:.1f}"
        f" (slowest tenth {figures['fps_slowest_tenth']:.1f})",
        "the same on conv3d": f"{figures['baseline_fps_median']:.1f}"
        f" ({figures['speedup']:.1f} times slower)",
        "a block": f"{figures['block_ms_median']:.1f} ms"
        f" (middle half within {figures['block_ms_spread']:.1f} ms)",
        f"blocks too late for {rate} frames per second": f"{figures['deadline_misses']}"
        f" of {figures['blocks']}",
        "process start to first frames": f"{figures['first_frames_s']:.1f} s",
        "weights": f"{figures['weights_mb']:.0f} MB",
        "peak memory, baseline's copy included": f"{figures['peak_memory_mb']:.0f} MB",
    }
    for kind in ("stages_ms", "layer_kinds_ms"):
        rows |= {f"  {name}": f"{ms:.1f} ms a block" for name, ms in figures[kind].items()}
    for row in figures["sessions"]:
        rows[f"{row['sessions']} sessions in turn"] = (
            f"{row['fps_each']:.1f} frames per second each, {row['session_mb']:.1f} MB each"
        )
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
