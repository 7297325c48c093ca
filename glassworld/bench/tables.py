"""One benchmark, start to end, as one JSON object and as a table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from glassworld.bench import peak_rates as ceilings
from glassworld.bench import plots, regression
from glassworld.bench.accuracy import distance
from glassworld.bench.cold_start import cold_start, compiled_starts
from glassworld.bench.latency import key_to_frame_ms, several_sessions
from glassworld.bench.matmul import products_share
from glassworld.bench.reference.world import as_released
from glassworld.bench.roofline import fastest, roof_points
from glassworld.bench.scaling import of_sessions, over_the_run, scaling
from glassworld.bench.steady_state import FEWEST_BLOCKS, frames_per_block, steady_state, warm
from glassworld.engine.acceleration.parts import accelerate, check_parts
from glassworld.engine.acceleration.tiny_decoder import with_tiny_decoder
from glassworld.engine.checkpoint.load import load_world
from glassworld.engine.run_config import describe
from glassworld.engine.world import World
from glassworld.errors import InputError
from glassworld.files import replacing
from glassworld.profiling.metadata import machine, versions

SESSIONS = (1, 2, 4)

Say = Callable[[str], object]


@dataclass(frozen=True)
class Order:
    """What to measure: `load_world(**world)`, made faster by `accelerate` and a tiny decoder."""

    world: dict[str, Any] = field(default_factory=dict)
    accelerate: Sequence[str] = ()
    tiny_decoder: str | Path | None = None
    blocks: int = 60
    sessions: tuple[int, ...] = SESSIONS

    def __post_init__(self) -> None:
        if self.blocks < FEWEST_BLOCKS:
            raise InputError(f"blocks {self.blocks}: at least {FEWEST_BLOCKS} make a steady state")
        check_parts(self.accelerate)


def full_benchmark(order: Order, say: Say, plots_folder: Path | None = None) -> dict[str, Any]:
    """Measure a world, beside its eager baseline. `say` hears what is going on.

    With `plots_folder`, also how a block's time scales; `scaling.svg` and `roofline.svg` go there.
    """
    ceilings.store_folder()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "grey.png"
        Image.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(picture)
        world = load_world(**order.world)
        figures = _starts(order, world, picture, say)
        baseline = as_released(world)
        if order.tiny_decoder is not None:
            world = with_tiny_decoder(world, Path(order.tiny_decoder))
        accelerate(world, order.accelerate)
        say("the machine's ceilings")
        device = world.device.type
        figures["ceilings"] = ceilings.measure(device, order.world.get("dtype"))
        ceilings.store(device, figures["ceilings"])
        roofs = [roof_points(world, str(picture))]
        say(f"{order.blocks} blocks, and as many of the eager baseline")
        figures |= steady_state(world, baseline, str(picture), order.blocks)
        figures["distance"] = distance(world, baseline, str(picture))
        figures["products"] = products_share(warm(world, str(picture)))
        roofs.append(roof_points(world, str(picture)))
        say("from a key to its first frame, and several sessions")
        figures["key_to_frame_ms"] = key_to_frame_ms(world, str(picture))
        figures["sessions"] = several_sessions(world, str(picture), order.sessions)
        figures["roofline"] = fastest([*roofs, roof_points(world, str(picture))])
        if plots_folder is not None:
            figures["scaling"] = _plot(world, str(picture), figures, plots_folder, say)
    return {
        **figures,
        "accelerate": list(order.accelerate),
        "machine": machine(),
        "versions": versions(),
        "config": describe(world, None, None),
    }


def _starts(order: Order, world: World, picture: Path, say: Say) -> dict[str, Any]:
    """Cold starts in processes of their own; with an empty and a filled cache if we compile."""
    asked = {"world": order.world, "accelerate": order.accelerate, "picture": str(picture)}
    say("a cold start, in a process of its own")
    plain: dict[str, Any] = {**asked, "accelerate": []}
    figures: dict[str, Any] = {**cold_start(plain)}
    asked_for = set(order.accelerate) & {"kernels", "layers"}
    compiles = bool(asked_for) or order.world.get("vae_compile_mode") == "force"
    if compiles:
        say("cold starts that compile: minutes")
        figures |= compiled_starts(asked, picture.parent / "cache")
    return figures


def _plot(
    world: World, picture: str, figures: dict[str, Any], folder: Path, say: Say
) -> dict[str, list[plots.Point]]:
    curves = scaling(world, picture, say)
    curves["sessions at once"] = of_sessions(figures["sessions"], frames_per_block(world))
    curves["blocks of a run"] = over_the_run(figures["block_ms"])
    drawn = {
        "scaling.svg": plots.scaling_plot(curves),
        "roofline.svg": plots.roofline_plot(figures["roofline"], figures["ceilings"]),
    }
    for name, text in drawn.items():
        with replacing(folder / name) as partial:
            partial.write_text(text)
    return curves


def print_table(figures: dict[str, Any], console: Console) -> None:
    """The figures that matter, readably."""
    table = Table("", "", show_header=False)
    for rows in (_speed_rows, _start_rows, _part_rows, _session_rows):
        for name, value in rows(figures).items():
            table.add_row(name, value)
        table.add_section()
    console.print(table)


def _speed_rows(figures: dict[str, Any]) -> dict[str, str]:
    rate = figures["config"]["frame_rate"]
    return {
        "frames per second, decoding included": f"{figures['fps_median']:.1f}"
        f" (slowest tenth {figures['fps_slowest_tenth']:.1f})",
        "in live play": f"{figures['live_fps_median']:.1f}",
        "the eager baseline's": f"{figures['baseline_fps_median']:.1f}"
        f" ({figures['speedup']:.1f} times slower, {figures['live_speedup']:.1f} than live play)",
        "a block": f"{figures['block_ms_median']:.1f} ms"
        f" (middle half within {figures['block_ms_spread']:.1f} ms)",
        f"live blocks too late for {rate} frames per second": f"{figures['deadline_misses']}"
        f" of {figures['blocks']}",
        "from a key to its first frame": f"{figures['key_to_frame_ms']['median']:.0f} ms"
        f" (at worst {figures['key_to_frame_ms']['worst']:.0f})",
    }


def _start_rows(figures: dict[str, Any]) -> dict[str, str]:
    rows = {"process start to first frames": f"{figures['first_frames_s']:.1f} s"}
    for kind in ("cold", "warm"):
        if f"first_frames_{kind}_cache_s" in figures:
            seconds = figures[f"first_frames_{kind}_cache_s"]
            rows[f"  compiled, {kind} cache"] = f"{seconds:.1f} s"
    rows["memory: weights"] = f"{figures['weights_mb']:.0f} MB"
    rows["memory: a session"] = f"{figures['session_mb']:.1f} MB"
    rows["memory: the process at its peak"] = f"{figures['peak_memory_mb']:.0f} MB"
    return rows


def _part_rows(figures: dict[str, Any]) -> dict[str, str]:
    rows: dict[str, str] = {}
    for kind in ("stages_ms", "layer_kinds_ms"):
        rows |= {name: f"{ms:.1f} ms a block" for name, ms in figures[kind].items()}
    if figures["products"]:
        share = figures["products"]["share"]
        rows["products, of what they reach alone"] = f"{100 * share:.0f} %"
    rows["latents, away from the baseline's"] = (
        f"{figures['distance']['latents_in_spreads']:.1e} spreads"
    )
    rows["frames, away from the baseline's"] = f"PSNR {figures['distance']['psnr_db']:.1f} dB"
    for name, ratio in regression.ratios(figures).items():
        rows[name] = f"{ratio:.2f}"
    return rows


def _session_rows(figures: dict[str, Any]) -> dict[str, str]:
    return {
        f"{row['sessions']} session{'s' if row['sessions'] > 1 else ''}": (
            f"{row['fps_each_together']:.1f} frames per second each "
            f"together, {row['fps_each_in_turn']:.1f} in turn"
        )
        for row in figures["sessions"]
    }


def print_comparison(
    rows: list[regression.Ratio], before: dict[str, Any], console: Console
) -> None:
    """The ratios beside the committed baseline's."""
    made_on = before["machine"].get("gpu") or before["machine"]["processor"]
    table = Table("", f"baseline ({made_on})", "now", "")
    for row in rows:
        verdict = "[red]slower[/red]" if row.fell else "fine"
        table.add_row(row.name, f"{row.before:.3f}", f"{row.now:.3f}", verdict)
    console.print(table)
