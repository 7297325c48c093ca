"""Measured time of the run's parts against the time that their work should take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.profiling.registry import child_tags, leaf_tags
from glassworld.trace.analyzers.breakdown import instance_count, total_ms
from glassworld.trace.analyzers.flops import (
    NO_COST,
    Config,
    Cost,
    CostInputs,
    bytes_per_element,
    decode_frame,
    tag_cost,
    transformer_pass,
)
from glassworld.trace.analyzers.peak_rates import read_peak_rates
from glassworld.trace.analyzers.run_config import run_config
from glassworld.trace.timeline.analysis import Analysis

REFERENCE_STEPS = 50
"""Denoising steps of the run whose breakdown is the reference (150 latent frames)."""


@dataclass(frozen=True)
class ExpectedTime:
    """A row of the table; cost and expected time are None without a configuration.

    In a trace of a few blocks, which lacks the loop's own tag, the loop is the sum of its parts.
    `share` is of preparation, inference and post-processing together; `expected_share` is the
    same of the expected times (of the FLOPs, without peak rates); `roof_share` is how much of the
    peak rate the measured time reaches; `guide` is the share in the reference breakdown.
    """

    row: str
    tag: str
    measured_ms: float
    share: float
    gflop: float | None
    expected_ms: float | None
    expected_share: float | None
    roof_share: float | None
    guide: str


_OUTER = (tags.DATA_PREPARATION, tags.PIPELINE_INFERENCE, tags.VIDEO_POSTPROCESSING)
_REFERENCE = {
    tags.DATA_PREPARATION: "about 1%",
    tags.PIPELINE_INFERENCE: "98%",
    tags.CACHE_INIT: "< 0.1%",
    tags.CONDITION_ENCODE: "",
    tags.DENOISING_STEP: "60%",
    tags.VAE_DECODE: "38%",
    tags.UPDATE_CACHE: "2%",
    tags.VIDEO_POSTPROCESSING: "< 1%",
}
"""The reference breakdown, in shares; these tags have a row in any run of the engine."""


def expected_table(analysis: Analysis) -> list[ExpectedTime]:
    """Return the rows of the table; none for a trace that is not of the engine."""
    measured = _measured(analysis)
    if not any(measured.values()):
        return []
    config = run_config(analysis.trace.metadata)
    rates = read_peak_rates(analysis.trace.metadata)
    costs = costs_by_tag(analysis, config) if config else {}
    ideal = {tag: sum(cost.flops for cost in parts) for tag, parts in costs.items()}
    if config and rates:
        size = bytes_per_element(config)
        ideal = {t: sum(rates.ideal_ms(cost, size) for cost in parts) for t, parts in costs.items()}
    whole = sum(measured[tag] for tag in _OUTER)
    sum_ideal = sum(ideal.get(tag, 0.0) for tag in _OUTER) or 1.0
    rows = []
    for tag, ms in measured.items():
        expected = ideal[tag] if tag in ideal and rates else None
        rows.append(
            ExpectedTime(
                row=("" if tag in _OUTER else "  ") + tags.tag_label(tag),
                tag=tag,
                measured_ms=ms,
                share=ms / whole,
                gflop=sum(cost.flops for cost in costs[tag]) / 1e9 if tag in costs else None,
                expected_ms=expected,
                expected_share=ideal[tag] / sum_ideal if tag in ideal else None,
                roof_share=expected / ms if expected is not None and ms else None,
                guide=_REFERENCE.get(tag, ""),
            )
        )
    return rows


def _measured(analysis: Analysis) -> dict[str, float]:
    """Return the milliseconds of each row, by tag: the stages, and after the loop its parts."""
    in_loop = {
        tag: total_ms(analysis, tag)
        for tag in (*child_tags(tags.PIPELINE_INFERENCE), *child_tags(tags.BLOCK))
        if tag != tags.BLOCK
    }
    measured: dict[str, float] = {}
    for stage in _OUTER:
        measured[stage] = total_ms(analysis, stage)
        if stage == tags.PIPELINE_INFERENCE:
            measured[stage] = measured[stage] or sum(in_loop.values())
            measured |= {tag: ms for tag, ms in in_loop.items() if ms or tag in _REFERENCE}
    return measured


def reference_note(analysis: Analysis) -> str:
    """Return why this run's shares differ from the reference breakdown's, where they do."""
    config = run_config(analysis.trace.metadata)
    if config is None:
        return ""
    steps = len(config["denoising_steps"])
    if steps == REFERENCE_STEPS:
        return ""
    return (
        f"The reference breakdown is of a run with {REFERENCE_STEPS} steps. This run takes "
        f"{steps}, so the update pass is one of {steps + 1} passes: up to "
        f"{100 / (steps + 1):.0f}% of the transformer's time, not 2%."
    )


def frames_seen(analysis: Analysis, config: Config, pattern: str) -> dict[int, int]:
    """Return how many instances of `pattern` see each number of latent frames."""
    seen: dict[int, int] = {}
    for block, instances in analysis.by_index[pattern, "block"].items():
        frames = min(config["window"], (block + 1) * config["frames_per_block"])
        seen[frames] = seen.get(frames, 0) + instances.count
    return seen


def transformer_costs(
    analysis: Analysis, config: Config
) -> tuple[dict[str, Cost], dict[str, Cost]]:
    """Return the cost of all denoising passes in the trace and of all update passes, by tag."""
    denoise, update = (
        _sum_by_tag(
            (transformer_pass(config, frames, pattern == tags.UPDATE_CACHE), times)
            for frames, times in frames_seen(analysis, config, pattern).items()
        )
        for pattern in (tags.DENOISING_STEP, tags.UPDATE_CACHE)
    )
    return denoise, update


def decoder_costs(analysis: Analysis, config: Config) -> dict[str, Cost]:
    """Return the cost of all decoded latent frames in the trace, by tag."""
    blocks = analysis.by_index[tags.VAE_DECODE, "block"]
    clips = blocks[0].count if 0 in blocks else 0
    frames = config["frames_per_block"] * instance_count(analysis, tags.VAE_DECODE)
    first, later = decode_frame(config, first=True), decode_frame(config, first=False)
    return _sum_by_tag([(first, clips), (later, frames - clips)])


def _sum_by_tag(costs: Iterable[tuple[dict[str, Cost], int]]) -> dict[str, Cost]:
    """Return the sum of costs by tag, each so many times, without the tags that have none."""
    sums: dict[str, Cost] = {}
    for by_tag, times in costs:
        for tag, cost in by_tag.items():
            sums[tag] = sums.get(tag, NO_COST) + cost * times
    return {tag: cost for tag, cost in sums.items() if cost != NO_COST}


def costs_by_tag(analysis: Analysis, config: Config) -> dict[str, list[Cost]]:
    """Return what each tag of the table had to do, in parts that each have a peak rate."""
    denoise, update = transformer_costs(analysis, config)
    costs = {
        tags.DENOISING_STEP: list(denoise.values()),
        tags.UPDATE_CACHE: list(update.values()),
        tags.VAE_DECODE: list(decoder_costs(analysis, config).values()),
    }
    counted = {leaf for tag in (tags.DIFFUSION_FORWARD, tags.VAE_DECODE) for leaf in leaf_tags(tag)}
    for tag in tags.REGISTRY.values():
        if tag.cost and tag.pattern not in counted:
            one = tag_cost(tag.pattern, CostInputs(config))
            costs[tag.pattern] = [one * instance_count(analysis, tag.pattern)]
    for stage in (tags.DATA_PREPARATION, tags.PIPELINE_INFERENCE):
        costs[stage] = [cost for tag in _below(stage) for cost in costs.get(tag, [])]
    return costs


def _below(pattern: str) -> list[str]:
    """Return the tags inside `pattern`, at any depth, each once."""
    below: dict[str, None] = {}
    for child in child_tags(pattern):
        below |= dict.fromkeys([child, *_below(child)])
    return list(below)
