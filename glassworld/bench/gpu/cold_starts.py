"""Starts in processes of their own: the plain world, the fast one, and one from real files."""

from __future__ import annotations

from typing import NamedTuple

from glassworld.bench.checkpoint import write_checkpoint
from glassworld.bench.cold_start import cold_start
from glassworld.bench.gpu.accelerations import FAST
from glassworld.bench.gpu.context import BenchContext, Figures, reason


class Start(NamedTuple):
    """One way to start. Those with parts share a cache, which the first of them finds empty."""

    parts: tuple[str, ...] = ()
    from_files: bool = False


STARTS = {
    "plain": Start(),
    "fast_cold_cache": Start(FAST),
    "fast_warm_cache": Start(FAST),
    "fast_warm_cache_again": Start(FAST),
    "fast_from_checkpoint": Start(FAST, from_files=True),
}


def starts(rig: BenchContext, ways: dict[str, Start] = STARTS) -> Figures:
    """Each way's first frames, timeline and memory."""
    picture = rig.folder / "grey.png"
    rig.picture.save(picture)
    found: Figures = {}
    for name, way in ways.items():
        try:
            world = rig.arguments | (_files(rig) if way.from_files else {})
            order = {"world": world, "accelerate": way.parts, "picture": str(picture)}
            found[name] = cold_start(order, rig.folder / "cache")
        except Exception as error:
            found[name] = reason(error)
        rig.keep(found)
        rig.say(f"  {name}: {_summary(found[name])}")
    return found


def _files(rig: BenchContext) -> Figures:
    """The rig's weights written to files; what `load_world` takes for them."""
    return {"random_weights": False, **write_checkpoint(rig.make(), rig.folder)}


def _summary(row: Figures) -> str:
    if "error" in row:
        return str(row["error"])
    ends = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["timeline_s"].items())
    return f"{row['first_frames_s']:.1f} s ({ends}), {row['peak_memory_mb']:.0f} MB"
