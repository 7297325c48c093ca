"""The questions people ask of a run, answered from the tag tree.

Every time is the time that counts (`Analysis.time_ns`): GPU busy where there is a GPU, else CPU.
Milliseconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.profiling.registry import leaf_tags, root_tags
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import TagRow
from glassworld.trace.timeline.tag_names import places

DESCEND = 0.5  # a lone tag is looked into where those inside cover this share of it


@dataclass(frozen=True)
class Part:
    """A named part of a whole: its time, its share of the whole, how often it ran."""

    name: str
    ms: float
    share: float
    count: int
    cpu_ms: float


@dataclass(frozen=True)
class SlowTag(TagRow):
    """`within` tells it from tags of its name in other places; "" where there are none."""

    within: str


@dataclass(frozen=True)
class UpdateCost:
    """What refilling the caches costs; shares of the transformer's time and of the whole."""

    ms: float
    count: int
    share_of_transformer: float
    share_of_run: float | None


def parts(analysis: Analysis, rows: list[TagRow], whole: float, rest: str) -> list[Part]:
    """Rows as parts of `whole` milliseconds, in order of their time.

    What they leave of it is a part called `rest`, where it is over half a percent.
    """
    made = [_part(row.name, analysis.ms(row), whole, row.instances, row.cpu_ms) for row in rows]
    left = whole - sum(part.ms for part in made)
    if whole and left > 0.005 * whole:
        made.append(_part(rest, left, whole, 0, 0.0))
    return sorted(made, key=lambda part: -part.ms)


def _part(name: str, ms: float, whole: float, count: int, cpu_ms: float) -> Part:
    return Part(name, ms, ms / whole if whole else 0.0, count, cpu_ms)


def stages(analysis: Analysis) -> list[Part]:
    """Which stage is the slowest? The engine's four, or the outermost tags of another program.

    There, a tag that stands alone gives way to those inside it, as long as they cover most of it.
    """
    rows = analysis.patterns
    chosen = [row for row in rows if row.pattern in root_tags()]
    if chosen:
        return parts(analysis, chosen, sum(analysis.ms(row) for row in chosen), "")
    chosen = [row for row in rows if len(row.path) == 1]
    whole, rest = sum(analysis.ms(row) for row in chosen), ""
    while len(chosen) == 1:
        inside = [row for row in rows if row.path[:-1] == chosen[0].path]
        if not inside or sum(map(analysis.ms, inside)) < DESCEND * analysis.ms(chosen[0]):
            break
        whole, rest = analysis.ms(chosen[0]), f"(the rest of {chosen[0].name})"
        chosen = inside
    return parts(analysis, chosen, whole, rest)


def total_ms(analysis: Analysis, pattern: str) -> float:
    """The time of all instances of a pattern."""
    return sum(analysis.ms(row) for row in analysis.patterns if row.pattern == pattern)


def count(analysis: Analysis, pattern: str) -> int:
    """How often a pattern ran."""
    return sum(row.instances for row in analysis.patterns if row.pattern == pattern)


def inside(analysis: Analysis, *patterns: str) -> list[Part]:
    """The named patterns as parts of their sum."""
    whole = sum(total_ms(analysis, pattern) for pattern in patterns)
    made = []
    for pattern in patterns:
        rows = [row for row in analysis.patterns if row.pattern == pattern]
        if rows:
            ms, cpu = total_ms(analysis, pattern), sum(row.cpu_ms for row in rows)
            made.append(_part(pattern, ms, whole, count(analysis, pattern), cpu))
    return made


def transformer(analysis: Analysis) -> list[Part]:
    """What is the diffusion model made of, by kind of layer?"""
    return inside(analysis, *leaf_tags(tags.DIFFUSION_FORWARD))


def layers(analysis: Analysis) -> list[Part]:
    """Each transformer layer over all passes, in order of the layers."""
    whole = total_ms(analysis, tags.LAYER)
    return [
        _part(tags.LAYER.format(layer=number), layer.ms, whole, layer.count, layer.cpu_ms)
        for number, layer in sorted(analysis.by_index[tags.LAYER, "layer"].items())
    ]


def decoder(analysis: Analysis) -> list[Part]:
    """Where does the VAE decoder spend its time?"""
    return inside(analysis, *leaf_tags(tags.VAE_DECODE))


def update_cost(analysis: Analysis) -> list[UpdateCost]:
    """What does the KV-cache update cost? Nothing to say where there is none."""
    number = count(analysis, tags.UPDATE_CACHE)
    if not number:
        return []
    ms = total_ms(analysis, tags.UPDATE_CACHE)
    passes = ms + total_ms(analysis, tags.DENOISING_STEP)
    run = total_ms(analysis, tags.PIPELINE_INFERENCE)
    return [UpdateCost(ms, number, ms / passes if passes else 0.0, ms / run if run else None)]


def top(analysis: Analysis) -> list[SlowTag]:
    """The tags by the time of their own, by pattern, the slowest first."""
    rows = sorted(analysis.patterns, key=lambda row: -analysis.own_ms(row))
    each = zip(rows, places([row.path for row in rows]), strict=True)
    return [SlowTag(**vars(row), within=place) for row, place in each]
