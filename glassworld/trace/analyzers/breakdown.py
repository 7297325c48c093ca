"""Break a run down into named parts: stages, model, decoder, cache update, slowest tags.

Every time is the time that counts (`Analysis.time_ns`): GPU busy where there is a GPU, else CPU.
Milliseconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

from glassworld.profiling import registry as tags
from glassworld.profiling.registry import leaf_tags, root_tags
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import TagRow, largest_first
from glassworld.trace.timeline.tag_names import distinguishing_tags

DESCEND = 0.5  # descend into a lone tag if those inside cover this share of it

_STEP, _LOADER = "ProfilerStep#", "enumerate(DataLoader)"


@dataclass(frozen=True)
class TagShare:
    """A named part of a whole: its time, its share of the whole, how often it ran."""

    name: str
    ms: float
    share: float
    count: int
    cpu_ms: float


@dataclass(frozen=True)
class SlowTag(TagRow):
    """A tag and, in `within`, a tag around it that others of its name lack ("" without others)."""

    within: str


@dataclass(frozen=True)
class UpdateCost:
    """The cost of refilling the caches; shares of the transformer's time and of the whole."""

    ms: float
    count: int
    share_of_transformer: float
    share_of_run: float | None


def tag_shares(analysis: Analysis, rows: list[TagRow], whole: float, rest: str) -> list[TagShare]:
    """Return rows as parts of `whole` milliseconds, in order of their time.

    A remainder of over half a percent becomes a part called `rest`.
    """
    shares = [_part(row.name, analysis.ms(row), whole, row.instances, row.cpu_ms) for row in rows]
    remainder = whole - sum(part.ms for part in shares)
    if whole and remainder > 0.005 * whole:
        shares.append(_part(rest, remainder, whole, 0, 0.0))
    return sorted(shares, key=lambda part: largest_first(part.ms, part.name))


def _part(name: str, ms: float, whole: float, count: int, cpu_ms: float) -> TagShare:
    return TagShare(name, ms, ms / whole if whole else 0.0, count, cpu_ms)


def stage_shares(analysis: Analysis) -> list[TagShare]:
    """Return the engine's four stages, or the outermost tags of another program.

    There, those inside replace a tag that stands alone, as long as they cover most of it. What they
    leave of the outermost one is its rest.
    """
    rows = analysis.patterns
    chosen = [row for row in rows if row.pattern in root_tags()]
    if chosen:
        return tag_shares(analysis, chosen, sum(analysis.ms(row) for row in chosen), "")
    chosen = [row for row in rows if len(row.path) == 1]
    whole, rest = sum(analysis.ms(row) for row in chosen), ""
    while len(chosen) == 1:
        inside = [row for row in rows if row.path[:-1] == chosen[0].path]
        if not inside or sum(map(analysis.ms, inside)) < DESCEND * analysis.ms(chosen[0]):
            break
        rest = rest or f"(the rest of {chosen[0].name})"
        chosen = inside
    return tag_shares(analysis, chosen, whole, rest)


def total_ms(analysis: Analysis, pattern: str) -> float:
    """Return the time of all instances of a pattern."""
    return sum(analysis.ms(row) for row in analysis.patterns if row.pattern == pattern)


def instance_count(analysis: Analysis, pattern: str) -> int:
    """Return the number of instances of a pattern."""
    return sum(row.instances for row in analysis.patterns if row.pattern == pattern)


def _shares_of(analysis: Analysis, *patterns: str) -> list[TagShare]:
    """Return the named patterns as parts of their sum."""
    whole = sum(total_ms(analysis, pattern) for pattern in patterns)
    shares = []
    for pattern in patterns:
        rows = [row for row in analysis.patterns if row.pattern == pattern]
        if rows:
            ms, cpu = total_ms(analysis, pattern), sum(row.cpu_ms for row in rows)
            shares.append(_part(pattern, ms, whole, instance_count(analysis, pattern), cpu))
    return shares


def transformer_shares(analysis: Analysis) -> list[TagShare]:
    """Return the parts of the diffusion model, by kind of layer."""
    return _shares_of(analysis, *leaf_tags(tags.DIFFUSION_FORWARD))


def layer_shares(analysis: Analysis) -> list[TagShare]:
    """Return each transformer layer over all passes, in order of the layers."""
    whole = total_ms(analysis, tags.LAYER)
    return [
        _part(tags.LAYER.format(layer=number), layer.ms, whole, layer.count, layer.cpu_ms)
        for number, layer in sorted(analysis.by_index[tags.LAYER, "layer"].items())
    ]


def decoder_shares(analysis: Analysis) -> list[TagShare]:
    """Return the parts of the VAE decoder."""
    return _shares_of(analysis, *leaf_tags(tags.VAE_DECODE))


def update_cost(analysis: Analysis) -> list[UpdateCost]:
    """Return the cost of the KV-cache update; an empty list where there is none."""
    updates = instance_count(analysis, tags.UPDATE_CACHE)
    if not updates:
        return []
    ms = total_ms(analysis, tags.UPDATE_CACHE)
    passes = ms + total_ms(analysis, tags.DENOISING_STEP)
    run = total_ms(analysis, tags.PIPELINE_INFERENCE)
    return [UpdateCost(ms, updates, ms / passes if passes else 0.0, ms / run if run else None)]


def slowest_tags(analysis: Analysis) -> list[SlowTag]:
    """Return the tags by pattern, those with the most self time first."""
    rows = sorted(
        analysis.patterns, key=lambda row: largest_first(analysis.self_ms(row), row.name, row.path)
    )
    around = distinguishing_tags([row.path for row in rows])
    return [SlowTag(**vars(row), within=tag) for row, tag in zip(rows, around, strict=True)]


def training_remarks(analysis: Analysis) -> list[str]:
    """Say if the steps do not train, and how much of their forward pass is data loading."""
    steps = analysis.training_steps
    parts = [part for step in steps for part in (step.backward, step.optimizer)]
    if not any(part.cpu_ms or part.gpu_kernels for part in parts):
        return ["No backward pass and no optimizer ran: these steps do not train."]
    rows = analysis.patterns
    loading = [row for row in rows if row.name.startswith(_LOADER)]
    if any(row.name.startswith(_STEP) for row in rows):
        loading = [row for row in loading if row.path[0].startswith(_STEP)]
    if not loading:
        return []
    ms = sum(row.cpu_ms for row in loading)
    forward = sum(step.forward.cpu_ms for step in steps)
    return [
        f"Forward includes data loading: {ms:,.2f} of its {forward:,.2f} ms of CPU time are in "
        f"{_LOADER}."
    ]
