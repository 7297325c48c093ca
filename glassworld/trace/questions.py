"""The questions people ask of a run, answered from the tag tree.

Every time is the time that counts (`Analysis.time_ns`): GPU busy where there is a GPU, else CPU.
Milliseconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analysis import Analysis, TagRow
from glassworld.trace.tables import Floats, Ints, Mask

STAGES = (
    tags.DATA_PREPARATION,
    tags.PIPELINE_INFERENCE,
    tags.VIDEO_POSTPROCESSING,
    tags.VIDEO_EXPORT,
)
OUTLIER_DEVIATIONS = 5.0  # robust standard deviations from the median of its kind
OUTLIER_SHARE = 0.15  # and at least this much longer than the median


@dataclass(frozen=True)
class Part:
    """A named part of a whole: its time, its share of the whole, how often it ran."""

    name: str
    ms: float
    share: float
    count: int
    cpu_ms: float


@dataclass(frozen=True)
class Block:
    """One block: its time and what of; `outlier` where it took unusually long."""

    block: int
    ms: float
    steps_ms: float
    update_ms: float
    decode_ms: float
    other_ms: float
    outlier: bool


@dataclass(frozen=True)
class Step:
    """A denoising step over all blocks."""

    step: int
    timestep: int
    count: int
    median_ms: float
    min_ms: float
    max_ms: float
    first_block_ms: float
    values_ms: tuple[float, ...]


@dataclass(frozen=True)
class Gap:
    """A stretch in which the GPU had nothing to do, and what the CPU did meanwhile."""

    start_ms: float
    ms: float
    tag: str
    next_op: str
    culprit: str
    culprit_ms: float


@dataclass(frozen=True)
class UpdateCost:
    """What refilling the caches costs; shares of the transformer's time and of the whole."""

    ms: float
    count: int
    share_of_transformer: float
    share_of_run: float


def duration(analysis: Analysis, pattern: str) -> Floats:
    """The time of each instance of a pattern, in order."""
    return np.asarray(analysis.time_ns(analysis.tree.where(pattern)) / 1e6, dtype=np.float64)


def stages(analysis: Analysis) -> list[Part]:
    """Which stage is the slowest? The engine's four, or the outermost tags of another program."""
    rows = analysis.patterns
    chosen = [row for row in rows if row.pattern in STAGES]
    depth = 1
    while not chosen and any(len(row.path) == depth for row in rows):
        level = [row for row in rows if len(row.path) == depth]
        chosen = level if len(level) > 1 else []
        depth += 1
    chosen = chosen or [row for row in rows if len(row.path) == 1]
    return parts(analysis, chosen)


def parts(analysis: Analysis, rows: list[TagRow]) -> list[Part]:
    """Rows as parts of their sum, in order of their time."""
    found = [(row, row.gpu_busy_ms if analysis.on_gpu else row.cpu_ms) for row in rows]
    whole = sum(ms for _, ms in found) or 1.0
    made = [Part(r.name, ms, ms / whole, r.instances, r.cpu_ms) for r, ms in found]
    return sorted(made, key=lambda part: -part.ms)


def blocks(analysis: Analysis) -> list[Block]:
    """How long does each block take, and of what?"""
    tree = analysis.tree
    found = tree.where(tags.BLOCK)
    total = duration(analysis, tags.BLOCK)
    pieces = []
    for pattern in (tags.DENOISING_STEP, tags.UPDATE_CACHE, tags.VAE_DECODE):
        inner = tree.where(pattern)
        owner = tree.ancestor(inner, tags.BLOCK)
        of = np.zeros(len(tree) + 1)
        np.add.at(of, owner, analysis.time_ns(inner) / 1e6)
        pieces.append(of[found])
    steps, update, decode = pieces
    late = outliers(total[1:])  # the first block warms up and decodes fewer frames
    return [
        Block(
            block=int(tree.dims["block"][instance]),
            ms=float(total[i]),
            steps_ms=float(steps[i]),
            update_ms=float(update[i]),
            decode_ms=float(decode[i]),
            other_ms=max(0.0, float(total[i] - steps[i] - update[i] - decode[i])),
            outlier=i > 0 and bool(late[i - 1]),
        )
        for i, instance in enumerate(found)
    ]


def drift(analysis: Analysis) -> float | None:
    """Growth of a block's steps per block, as a share of their median.

    0 where the blocks do not grow steadily, None below 8 blocks. The slope is Theil-Sen's, the
    median over all pairs, which single slow blocks do not move; "steadily" is that most pairs
    (Kendall's tau above 0.6) agree on the direction.
    """
    values = np.array([block.steps_ms for block in blocks(analysis)][1:])
    if len(values) < 7 or not np.median(values):
        return None
    i, j = np.triu_indices(len(values), 1)
    slopes = (values[j] - values[i]) / (j - i)
    if float(np.sign(slopes).mean()) < 0.6:
        return 0.0
    return float(np.median(slopes) / np.median(values))


def outliers(values: Floats) -> Mask:
    """Which values lie far above the median, by the median absolute deviation."""
    if len(values) < 4:
        return np.zeros(len(values), dtype=bool)
    middle = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - middle))
    excess = values - middle
    far: Mask = (excess > OUTLIER_DEVIATIONS * deviation) & (excess > OUTLIER_SHARE * middle)
    return far


def steps(analysis: Analysis) -> list[Step]:
    """How do the denoising steps compare?"""
    tree = analysis.tree
    found = tree.where(tags.DENOISING_STEP)
    values = analysis.time_ns(found) / 1e6
    made = []
    for step in np.unique(tree.dims["step"][found]):
        mine = tree.dims["step"][found] == step
        times = values[mine]
        made.append(
            Step(
                step=int(step),
                timestep=int(tree.dims["timestep"][found[mine][0]]),
                count=int(mine.sum()),
                median_ms=float(np.median(times)),
                min_ms=float(times.min()),
                max_ms=float(times.max()),
                first_block_ms=float(times[0]),
                values_ms=tuple(times.round(4).tolist()),
            )
        )
    return made


def inside(analysis: Analysis, *patterns: str) -> list[Part]:
    """The named patterns as parts of their sum."""
    made = []
    for pattern in patterns:
        found = analysis.tree.where(pattern)
        if len(found):
            cpu = float(analysis.tree.rows["dur"][found].sum() / 1e6)
            made.append((pattern, float(analysis.time_ns(found).sum() / 1e6), len(found), cpu))
    whole = sum(ms for _, ms, _, _ in made) or 1.0
    return [Part(name, ms, ms / whole, count, cpu) for name, ms, count, cpu in made]


def transformer(analysis: Analysis) -> list[Part]:
    """What is the diffusion model made of, by kind of layer?"""
    return inside(
        analysis,
        tags.PATCH_EMBEDDING,
        tags.TIME_EMBEDDING,
        tags.SELF_ATTENTION,
        tags.CROSS_ATTENTION,
        tags.MOUSE_ATTENTION,
        tags.KEYBOARD_ATTENTION,
        tags.FEED_FORWARD,
        tags.HEAD,
    )


def layers(analysis: Analysis) -> list[Part]:
    """Each transformer layer over all passes, in order of the layers."""
    tree = analysis.tree
    found = tree.where(tags.LAYER)
    values = analysis.time_ns(found) / 1e6
    cpu = tree.rows["dur"][found] / 1e6
    number = tree.dims["layer"][found]
    whole = float(values.sum()) or 1.0
    return [
        Part(
            tags.LAYER.format(layer=layer),
            float(values[number == layer].sum()),
            float(values[number == layer].sum()) / whole,
            int((number == layer).sum()),
            float(cpu[number == layer].sum()),
        )
        for layer in np.unique(number)
    ]


def decoder(analysis: Analysis) -> list[Part]:
    """Where does the VAE decoder spend its time?"""
    return inside(
        analysis,
        tags.DECODE_PRE,
        tags.DECODE_CONV2,
        tags.DEC_CONV1,
        tags.DEC_MIDDLE,
        tags.DEC_UPSAMPLE,
        tags.DEC_HEAD,
        tags.DECODE_POST,
    )


def update_cost(analysis: Analysis) -> UpdateCost | None:
    """What does the KV-cache update cost?"""
    update = duration(analysis, tags.UPDATE_CACHE)
    if not len(update):
        return None
    steps_ms = float(duration(analysis, tags.DENOISING_STEP).sum())
    run = float(duration(analysis, tags.PIPELINE_INFERENCE).sum()) or float("nan")
    ms = float(update.sum())
    return UpdateCost(ms, len(update), ms / (ms + steps_ms), ms / run)


def top(analysis: Analysis, most: int = 15) -> list[TagRow]:
    """The tags with the most time of their own, by pattern."""
    return sorted(analysis.patterns, key=lambda row: -_own(analysis, row))[:most]


def _own(analysis: Analysis, row: TagRow) -> float:
    return row.gpu_busy_ms if analysis.on_gpu else row.self_cpu_ms


def group_under(analysis: Analysis, pattern: str) -> Ints:
    """The pattern groups at or below any tag of `pattern`."""
    groups = analysis.tree.by_pattern
    under = np.zeros(len(groups), dtype=bool)
    for g, row in enumerate(analysis.patterns):
        under[g] = row.pattern == pattern or (groups.parent[g] >= 0 and under[groups.parent[g]])
    return np.flatnonzero(under)
