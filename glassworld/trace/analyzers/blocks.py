"""Time blocks and denoising steps: how long each took, in which parts, and which stand out.

Every time is the time that counts (`Analysis.time_ns`): GPU busy where there is a GPU, else CPU.
Milliseconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers.run_config import run_config
from glassworld.trace.reading.columns import Floats, Ints
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.rows import largest_first
from glassworld.trace.timeline.stats import outlier_mask, relative_trend, robust_std

BLOCK_PARTS = (tags.DENOISING_STEP, tags.CONDITION_ENCODE, tags.UPDATE_CACHE, tags.VAE_DECODE)
REASONS = 3
FRAMES_PER_LATENT = 4
MAX_FPS = 1e6  # nothing plays that fast: a rate beyond it is a damaged one


@dataclass(frozen=True)
class BlockTime:
    """One block: its time in all and in parts; `outlier` if it took unusually long."""

    block: int
    ms: float
    steps_ms: float
    encode_ms: float
    update_ms: float
    decode_ms: float
    other_ms: float
    outlier: bool


@dataclass(frozen=True)
class StepTime:
    """A denoising step over all blocks; `values_ms` are those of `blocks`, in order of time."""

    step: int
    timestep: int
    count: int
    median_ms: float
    min_ms: float
    max_ms: float
    first_block_ms: float
    values_ms: tuple[float, ...]
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class RealTimePace:
    """A block's median wall-clock time against the time that its frames play.

    `fps` is the rate at which frames are made, `rate` the one at which they play.
    """

    block_ms: float
    playing_ms: float
    fps: float
    rate: float

    @property
    def behind(self) -> bool:
        """True if making a block takes longer than playing it."""
        return self.block_ms > self.playing_ms


@dataclass(frozen=True)
class SlowdownReason:
    """A tag with `more_ms` more self time in the slower case."""

    tag: str
    more_ms: float


@dataclass(frozen=True)
class FirstStepComparison:
    """A comparison of the first step with the others, or of the first block with later ones.

    `times` is the ratio of the medians; `significant` says whether their difference exceeds two
    robust standard deviations of the others. `reasons` are the tags that make the most of it.
    """

    what: str
    ms: float
    usual_ms: float
    times: float
    significant: bool
    reasons: tuple[SlowdownReason, ...]


def block_times(analysis: Analysis) -> list[BlockTime]:
    """Return how long each block took, in all and in its parts."""
    tree = analysis.tree
    instances = tree.where(tags.BLOCK)
    total = analysis.time_ns(instances) / 1e6
    parts = []
    for pattern in BLOCK_PARTS:
        inner = tree.where(pattern)
        by_instance = np.zeros(len(tree) + 1)
        np.add.at(by_instance, tree.ancestor(inner, tags.BLOCK), analysis.time_ns(inner) / 1e6)
        parts.append(by_instance[instances])
    late = outlier_mask(total[1:])  # the first block warms up and decodes fewer frames
    return [
        BlockTime(
            block=int(tree.dims["block"][instance]),
            ms=float(total[i]),
            steps_ms=float(parts[0][i]),
            encode_ms=float(parts[1][i]),
            update_ms=float(parts[2][i]),
            decode_ms=float(parts[3][i]),
            other_ms=max(0.0, float(total[i] - sum(part[i] for part in parts))),
            outlier=i > 0 and bool(late[i - 1]),
        )
        for i, instance in enumerate(instances)
    ]


def real_time_pace(analysis: Analysis) -> RealTimePace | None:
    """Return how fast the blocks after the first were made; None without a frame rate."""
    config = run_config(analysis.trace.metadata)
    rate = config.get("frame_rate") if config else None
    later = analysis.tree.where(tags.BLOCK)[1:]
    if config is None or not isinstance(rate, int | float) or not len(later):
        return None
    ms = float(np.median(analysis.tree.cpu_ns[later])) / 1e6
    frames = FRAMES_PER_LATENT * config["frames_per_block"]
    if not (ms > 0 and frames > 0 and 0 < rate < MAX_FPS):
        return None
    return RealTimePace(ms, 1000 * frames / rate, 1000 * frames / ms, float(rate))


def block_drift(analysis: Analysis) -> float | None:
    """Return the growth of a block's steps per block, as a share of their median.

    0 where the blocks do not grow steadily, None below 8 blocks; see `relative_trend`.
    """
    return relative_trend(np.array([block.steps_ms for block in block_times(analysis)][1:]))


def step_times(analysis: Analysis) -> list[StepTime]:
    """Return the time of each denoising step over all blocks."""
    tree = analysis.tree
    instances = tree.where(tags.DENOISING_STEP)
    values = analysis.time_ns(instances) / 1e6
    rows = []
    for step in np.unique(tree.dims["step"][instances]):
        of_step = tree.dims["step"][instances] == step
        times = values[of_step]
        rows.append(
            StepTime(
                step=int(step),
                timestep=int(tree.dims["timestep"][instances[of_step][0]]),
                count=int(of_step.sum()),
                median_ms=float(np.median(times)),
                min_ms=float(times.min()),
                max_ms=float(times.max()),
                first_block_ms=float(times[0]),
                values_ms=tuple(times.round(4).tolist()),
                blocks=tuple(tree.dims["block"][instances[of_step]].tolist()),
            )
        )
    return rows


def first_step_comparisons(analysis: Analysis) -> list[FirstStepComparison]:
    """Compare the first step with the others, and the first block's steps with later ones'.

    The first step is taken from all blocks but the first and compared with the others of the same
    blocks, so that warming up does not count as a property of the step.
    """
    tree = analysis.tree
    instances = tree.where(tags.DENOISING_STEP)
    block, step = tree.dims["block"][instances], tree.dims["step"][instances]
    first, opening = step == step.min(initial=0), block == block.min(initial=0)
    cases = (
        ("in later blocks the first step", first & ~opening, ~first & ~opening),
        ("the first block's steps", opening, ~opening),
    )
    return [
        _compare(analysis, what, instances[chosen], instances[others])
        for what, chosen, others in cases
        if chosen.any() and others.sum() >= 2
    ]


def _compare(analysis: Analysis, what: str, chosen: Ints, others: Ints) -> FirstStepComparison:
    other_ms = analysis.time_ns(others) / 1e6
    ms, usual_ms = float(np.median(analysis.time_ns(chosen) / 1e6)), float(np.median(other_ms))
    more = np.median(_self_ms_by_pattern(analysis, chosen), axis=0)
    more = more - np.median(_self_ms_by_pattern(analysis, others), axis=0)
    patterns = analysis.tree.patterns
    most = sorted(range(len(patterns)), key=lambda i: largest_first(float(more[i]), patterns[i]))
    return FirstStepComparison(
        what=what,
        ms=ms,
        usual_ms=usual_ms,
        times=ms / usual_ms if usual_ms else 1.0,
        significant=ms - usual_ms > 2 * robust_std(other_ms) and ms > 1.05 * usual_ms,
        reasons=tuple(
            SlowdownReason(patterns[i], float(more[i])) for i in most[:REASONS] if more[i] > 0
        ),
    )


def _self_ms_by_pattern(analysis: Analysis, steps: Ints) -> Floats:
    """Return milliseconds of self time per step (rows) and pattern (columns)."""
    tree = analysis.tree
    row = np.full(len(tree) + 1, -1)
    row[steps] = np.arange(len(steps))
    everything = np.arange(len(tree))
    inside = row[tree.ancestor(everything, tags.DENOISING_STEP)]
    self_ms = np.zeros((len(steps), len(tree.patterns)))
    within = everything[inside >= 0]
    np.add.at(self_ms, (inside[within], tree.pattern[within]), analysis.self_ns(within) / 1e6)
    return self_ms
