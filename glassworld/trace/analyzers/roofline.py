"""Place each tag on the machine's roofline: the FLOP/s it reached and those it could reach."""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.profiling.registry import leaf_tags
from glassworld.trace.analyzers.breakdown import total_ms
from glassworld.trace.analyzers.expected_time import decoder_costs, transformer_costs
from glassworld.trace.analyzers.flops import NO_COST, bytes_per_element
from glassworld.trace.analyzers.peak_rates import read_peak_rates
from glassworld.trace.analyzers.run_config import run_config
from glassworld.trace.timeline.analysis import Analysis

TOO_SMALL = {tags.TIME_EMBEDDING}
"""Tags with a cost that get no point: the axes would leave no room for the others."""


@dataclass(frozen=True)
class RooflinePoint:
    """A tag over all its instances. `intensity` is FLOPs per byte of weights and activations.

    `roof_gflops` is the lower of the peak arithmetic rate and intensity times the peak copy rate;
    `bound` names which. `roof_share` is the reached share of it. All three are empty or None
    without peak rates.
    """

    tag: str
    ms: float
    gflop: float
    gflops: float
    intensity: float
    roof_gflops: float | None
    roof_share: float | None
    bound: str


def roofline_by_tag(analysis: Analysis) -> list[RooflinePoint]:
    """Return the tags with a cost; none if the trace carries no configuration."""
    config = run_config(analysis.trace.metadata)
    if config is None:
        return []
    size, rates = bytes_per_element(config), read_peak_rates(analysis.trace.metadata)
    denoise, update = transformer_costs(analysis, config)
    costs = decoder_costs(analysis, config)
    for tag in denoise | update:
        costs[tag] = denoise.get(tag, NO_COST) + update.get(tag, NO_COST)
    points = []
    for tag in (*leaf_tags(tags.DIFFUSION_FORWARD), *leaf_tags(tags.VAE_DECODE)):
        ms, cost = total_ms(analysis, tag), costs.get(tag, NO_COST)
        if tag in TOO_SMALL or not ms or not cost.flops:
            continue
        reached = cost.flops / ms / 1e6
        roof, bound = rates.roof_gflops(cost, size) if rates else (None, "")
        points.append(
            RooflinePoint(
                tag=tag,
                ms=ms,
                gflop=cost.flops / 1e9,
                gflops=reached,
                intensity=cost.flops / cost.elements / size,
                roof_gflops=roof,
                roof_share=reached / roof if roof else None,
                bound=bound,
            )
        )
    return points
