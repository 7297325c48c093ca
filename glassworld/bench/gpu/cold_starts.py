"""Cold starts in processes of their own: unaccelerated, fast, and fast from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from glassworld.bench.cold_start import cold_start
from glassworld.bench.gpu.accelerations import FAST
from glassworld.bench.gpu.context import BenchContext, error_row
from glassworld.bench.section_runner import Figures


class ColdStart(NamedTuple):
    """One kind of start; all share a compile cache, which the first with parts finds empty."""

    parts: tuple[str, ...] = ()
    from_files: bool = False


COLD_STARTS = {
    "plain": ColdStart(),
    "fast_cold_cache": ColdStart(FAST),
    "fast_warm_cache": ColdStart(FAST),
    "fast_from_checkpoint": ColdStart(FAST, from_files=True),
}


def compare_cold_starts(
    context: BenchContext, kinds: Mapping[str, ColdStart] = COLD_STARTS
) -> Figures:
    """Measure the first frames, the timeline and the memory of each kind of start."""
    picture = context.folder / "gray.png"
    context.start_image.save(picture)
    figures: Figures = {}
    for name, kind in kinds.items():
        try:
            world = context.load_arguments | (_write_files(context) if kind.from_files else {})
            request = {"world": world, "accelerate": kind.parts, "picture": str(picture)}
            figures[name] = cold_start(request, context.folder / "cache")
        except Exception as error:
            figures[name] = error_row(error)
        context.save(figures)
        context.report(f"  {name}: {_summary(figures[name])}")
    return figures


def _write_files(context: BenchContext) -> Figures:
    """Write the weights to files, and return the arguments that load them."""
    folder = context.folder / "world"
    context.build_world().save(folder)
    return {"random_weights": False, "world": str(folder)}


def _summary(row: Figures) -> str:
    if "error" in row:
        return str(row["error"])
    ends = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["timeline_s"].items())
    return f"{row['first_frames_s']:.1f} s ({ends}), {row['peak_memory_mb']:.0f} MB"
