"""Where each tag stands under the machine's roof: FLOP/s reached against what was possible."""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.profiling.registry import leaf_tags
from glassworld.trace.analyzers.breakdown import total_ms
from glassworld.trace.analyzers.expected_time import decodes, passes
from glassworld.trace.analyzers.flops import NOTHING, bytes_per_number
from glassworld.trace.analyzers.peak_rates import read_ceilings, run_config
from glassworld.trace.timeline.analysis import Analysis

LEFT_OUT = {tags.TIME_EMBEDDING}
"""Counted, but too small for a point: its axes would leave no room for the others."""


@dataclass(frozen=True)
class RooflinePoint:
    """A tag over all its instances. `intensity` is FLOPs per byte of weights and activations.

    `roof_gflops` is the lower of the arithmetic ceiling and intensity times the copy ceiling;
    `bound` names which. `roof_share` is what was reached of it; None without ceilings.
    """

    tag: str
    ms: float
    gflop: float
    gflops: float
    intensity: float
    roof_gflops: float | None
    roof_share: float | None
    bound: str


def roofline(analysis: Analysis) -> list[RooflinePoint]:
    """The tags whose work is counted; empty where the trace carries no configuration."""
    config = run_config(analysis.trace.metadata)
    if config is None:
        return []
    size, ceilings = bytes_per_number(config), read_ceilings(analysis.trace.metadata)
    denoise, update = passes(analysis, config)
    done = decodes(analysis, config)
    for tag in denoise | update:
        done[tag] = denoise.get(tag, NOTHING) + update.get(tag, NOTHING)
    points = []
    for tag in (*leaf_tags(tags.DIFFUSION_FORWARD), *leaf_tags(tags.VAE_DECODE)):
        ms, work = total_ms(analysis, tag), done.get(tag, NOTHING)
        if tag in LEFT_OUT or not ms or not work.flops:
            continue
        reached = work.flops / ms / 1e6
        roof, bound = ceilings.roof_gflops(work, size) if ceilings else (None, "")
        points.append(
            RooflinePoint(
                tag=tag,
                ms=ms,
                gflop=work.flops / 1e9,
                gflops=reached,
                intensity=work.flops / work.numbers / size,
                roof_gflops=roof,
                roof_share=reached / roof if roof else None,
                bound=bound,
            )
        )
    return points
