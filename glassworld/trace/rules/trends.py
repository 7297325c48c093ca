"""Rules about the run: slow steps and layers, drift, real time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace.analyzers import blocks
from glassworld.trace.reading.columns import Floats, Ints
from glassworld.trace.rules.rule import Evidence, rule
from glassworld.trace.timeline.analysis import Analysis
from glassworld.trace.timeline.stats import median_of_others

SLOWER = 0.9  # the quantile that stands for the slower instances
LEAST_STEPS, LEAST_LAYERS, LEAST_BLOCKS = 3, 3, 3
_DENOISING = "most of it is denoising: fewer denoising steps, a smaller local_attn_size"
_DECODING = (
    "most of it is decoding: on a GPU --accelerate kernels,graphs, else --vae_compile_mode force"
)


@rule(
    name="slow-step",
    fires_when="a step's fastest instance takes this many times the other steps'",
    threshold=1.3,
    unit="times the others'",
    change=(
        "all steps run the same network: compare the operators of this step with another's "
        "(`glassworld trace ops`)"
    ),
)
def _slow_steps(analysis: Analysis) -> Iterable[Evidence]:
    steps = blocks.steps(analysis)
    if len(steps) < LEAST_STEPS or min(step.count for step in steps) < LEAST_BLOCKS:
        return
    for step in steps:
        # The fastest instance: other load on the machine only ever adds time. It must be slower
        # than the others are at their slower ones, or load that lasted explains it as well.
        others = float(np.median([s.min_ms for s in steps if s is not step]))
        slower = np.quantile([ms for s in steps if s is not step for ms in s.values_ms], SLOWER)
        if step.min_ms <= slower:
            continue
        yield Evidence(
            f"Denoising_Step_{step.step}_t{step.timestep}",
            f"takes {step.min_ms:.1f} ms at best where the other steps take {others:.1f}",
            step.min_ms / others if others else 0.0,
            (step.min_ms - others) * step.count,
        )


@rule(
    name="slow-layer",
    fires_when=(
        "a layer takes this many times what the same parts take in other layers, each at its "
        "fastest"
    ),
    threshold=1.5,
    unit="times the others'",
    change="this layer alone is slow: look for a hook, a recompilation or a fallback in it",
)
def _slow_layers(analysis: Analysis) -> Iterable[Evidence]:
    tree = analysis.tree
    found = tree.where(tags.LAYER)
    layers, row = np.unique(tree.dims["layer"][found], return_inverse=True)
    if len(layers) < LEAST_LAYERS:
        return
    layer, part, best = _fastest_parts(analysis, found, row)
    others = median_of_others(part, best)
    known = np.isfinite(others)
    mine, usual = (
        np.bincount(layer[known], ms[known], minlength=len(layers)).tolist()
        for ms in (best, others)
    )
    count = len(found) / len(layers)
    for i, number in enumerate(layers.tolist()):
        yield Evidence(
            tags.LAYER.format(layer=number),
            f"takes {mine[i]:.2f} ms at best where the same parts take {usual[i]:.2f} in others",
            mine[i] / usual[i] if usual[i] else 0.0,
            (mine[i] - usual[i]) * count,
        )


def _fastest_parts(analysis: Analysis, found: Ints, row: Ints) -> tuple[Ints, Ints, Floats]:
    """For each layer and kind of part in it: both by number, and the fastest instance in ms.

    The time outside any part is one more kind. The fastest, because other load on the machine
    only ever adds time.
    """
    tree = analysis.tree
    row_of = np.full(len(tree) + 1, -1)
    row_of[found] = row
    parents = row_of[tree.forest.parent]
    children = np.flatnonzero(parents >= 0)
    kinds = len(tree.patterns) + 1
    inside = parents[children] * kinds + tree.pattern[children]
    keys = np.concatenate((inside, row * kinds + kinds - 1))
    both, which = np.unique(keys, return_inverse=True)
    best = np.full(len(both), np.inf)
    times = np.concatenate((analysis.time_ns(children), analysis.own_ns(found)))
    np.minimum.at(best, which, times / 1e6)
    return both // kinds, both % kinds, best


@rule(
    name="drift",
    fires_when="each block's steps take this much longer than the block's before, steadily",
    threshold=0.02,
    unit="per block",
    change="a smaller local_attn_size bounds what attention sees",
)
def _drift(analysis: Analysis) -> Iterable[Evidence]:
    slope = blocks.drift(analysis)
    found = blocks.blocks(analysis)
    if slope is not None:
        per_block = slope * float(np.median([block.steps_ms for block in found]))
        yield Evidence(
            tags.BLOCK,
            f"each block's steps take {slope:.1%} longer than the block's before",
            slope,
            per_block * len(found) * (len(found) - 1) / 2,
        )


@rule(
    name="real-time",
    fires_when="a block takes this many times as long as its frames last when played",
    threshold=1.0,
    unit="times its frames",
    change=_DENOISING,
)
def _behind_real_time(analysis: Analysis) -> Iterable[Evidence]:
    pace, found = blocks.pace(analysis), blocks.blocks(analysis)[1:]
    if pace is None:
        return
    denoising = sum(block.steps_ms for block in found) > sum(block.decode_ms for block in found)
    yield Evidence(
        tags.BLOCK,
        f"takes {pace.block_ms:.0f} ms in the median; played at {pace.rate:g} frames per second "
        f"it may take {pace.playing_ms:.0f}",
        pace.block_ms / pace.playing_ms,
        (pace.block_ms - pace.playing_ms) * len(found),
        f"{_DENOISING if denoising else _DECODING}; or a lower resolution",
    )
