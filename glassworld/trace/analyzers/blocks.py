"""Blocks and denoising steps: how long each took, of what, and which stand out.

Every time is the time that counts (`Analysis.time_ns`): GPU busy where there is a GPU, else CPU.
Milliseconds throughout.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers.peak_rates import run_config
from glassworld.trace.reading.columns import Floats, Ints
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.stats import outlier_mask, relative_trend, robust_std

PARTS = (tags.DENOISING_STEP, tags.CONDITION_ENCODE, tags.UPDATE_CACHE, tags.VAE_DECODE)
REASONS = 3
FRAMES_PER_LATENT = 4
MOST_FPS = 1e6  # nothing plays that fast: a rate beyond it is a damaged one


@dataclass(frozen=True)
class Block:
    """One block: its time and what of; `outlier` where it took unusually long."""

    block: int
    ms: float
    steps_ms: float
    encode_ms: float
    update_ms: float
    decode_ms: float
    other_ms: float
    outlier: bool


@dataclass(frozen=True)
class Step:
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
class Pace:
    """A block's wall-clock time in the median, the time its frames play, and both as a rate."""

    block_ms: float
    playing_ms: float
    fps: float
    rate: float

    @property
    def behind(self) -> bool:
        """Whether making a block takes longer than playing it."""
        return self.block_ms > self.playing_ms


@dataclass(frozen=True)
class Reason:
    """A tag that takes `more_ms` more of its own in the slower case."""

    tag: str
    more_ms: float


@dataclass(frozen=True)
class FirstStep:
    """Two comparisons: the first step with the others, the first block with later ones.

    `times` is the ratio of the medians; `significant` says whether the difference is beyond the
    spread of the values compared with. `reasons` are the tags that make the most of it.
    """

    what: str
    ms: float
    usual_ms: float
    times: float
    significant: bool
    reasons: tuple[Reason, ...]


def blocks(analysis: Analysis) -> list[Block]:
    """How long does each block take, and of what?"""
    tree = analysis.tree
    found = tree.where(tags.BLOCK)
    total = analysis.time_ns(found) / 1e6
    pieces = []
    for pattern in PARTS:
        inner = tree.where(pattern)
        of = np.zeros(len(tree) + 1)
        np.add.at(of, tree.ancestor(inner, tags.BLOCK), analysis.time_ns(inner) / 1e6)
        pieces.append(of[found])
    late = outlier_mask(total[1:])  # the first block warms up and decodes fewer frames
    return [
        Block(
            block=int(tree.dims["block"][instance]),
            ms=float(total[i]),
            steps_ms=float(pieces[0][i]),
            encode_ms=float(pieces[1][i]),
            update_ms=float(pieces[2][i]),
            decode_ms=float(pieces[3][i]),
            other_ms=max(0.0, float(total[i] - sum(piece[i] for piece in pieces))),
            outlier=i > 0 and bool(late[i - 1]),
        )
        for i, instance in enumerate(found)
    ]


def pace(analysis: Analysis) -> Pace | None:
    """How fast the blocks after the first were made; None without a rate to hold it against."""
    config = run_config(analysis.trace.metadata)
    rate = config.get("frame_rate") if config else None
    later = analysis.tree.where(tags.BLOCK)[1:]
    if config is None or not isinstance(rate, int | float) or not len(later):
        return None
    ms = float(np.median(analysis.tree.cpu_ns[later])) / 1e6
    frames = FRAMES_PER_LATENT * config["frames_per_block"]
    if not (ms > 0 and frames > 0 and 0 < rate < MOST_FPS):
        return None
    return Pace(ms, 1000 * frames / rate, 1000 * frames / ms, float(rate))


def drift(analysis: Analysis) -> float | None:
    """Return the growth of a block's steps per block, as a share of their median.

    0 where the blocks do not grow steadily, None below 8 blocks; see `relative_trend`.
    """
    return relative_trend(np.array([block.steps_ms for block in blocks(analysis)][1:]))


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
                blocks=tuple(tree.dims["block"][found[mine]].tolist()),
            )
        )
    return made


def first_steps(analysis: Analysis) -> list[FirstStep]:
    """Is the first step slower, by how much, and why?

    The first step of all blocks but the first is held against the others of the same blocks, so
    that warming up does not count as a property of the step; the first block's steps are held
    against those of later blocks.
    """
    tree = analysis.tree
    found = tree.where(tags.DENOISING_STEP)
    block, step = tree.dims["block"][found], tree.dims["step"][found]
    first, opening = step == step.min(initial=0), block == block.min(initial=0)
    cases = (
        ("in later blocks the first step", first & ~opening, ~first & ~opening),
        ("the first block's steps", opening, ~opening),
    )
    return [
        _compared(analysis, what, found[mine], found[others])
        for what, mine, others in cases
        if mine.any() and others.sum() >= 2
    ]


def _compared(analysis: Analysis, what: str, mine: Ints, others: Ints) -> FirstStep:
    ms, usual = analysis.time_ns(mine) / 1e6, analysis.time_ns(others) / 1e6
    here, there = float(np.median(ms)), float(np.median(usual))
    more = np.median(_own_by_pattern(analysis, mine), axis=0)
    more = more - np.median(_own_by_pattern(analysis, others), axis=0)
    most = np.argsort(-more)[:REASONS]
    return FirstStep(
        what=what,
        ms=here,
        usual_ms=there,
        times=here / there if there else 1.0,
        significant=here - there > 2 * robust_std(usual) and here > 1.05 * there,
        reasons=tuple(
            Reason(analysis.tree.patterns[i], float(more[i])) for i in most if more[i] > 0
        ),
    )


def _own_by_pattern(analysis: Analysis, steps: Ints) -> Floats:
    """Milliseconds per step (rows) and pattern (columns), each tag's own time."""
    tree = analysis.tree
    row = np.full(len(tree) + 1, -1)
    row[steps] = np.arange(len(steps))
    everything = np.arange(len(tree))
    inside = row[tree.ancestor(everything, tags.DENOISING_STEP)]
    own = np.zeros((len(steps), len(tree.patterns)))
    within = everything[inside >= 0]
    np.add.at(own, (inside[within], tree.pattern[within]), analysis.own_ns(within) / 1e6)
    return own
