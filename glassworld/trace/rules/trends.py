"""Rules about the whole run: slow steps and layers, drift, real time."""

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
_DENOISING = "most of it is denoising: use fewer denoising steps or a smaller local_attn_size"
_DECODING = (
    "most of it is decoding: on a GPU use --accelerate kernels,graphs, else "
    "--vae-compile-mode force"
)


@rule(
    name="slow-step",
    fires_when="a step's fastest instance takes this many times the other steps'",
    threshold=1.3,
    unit="times the others'",
    change=(
        "all steps run the same model: compare the operators of this step with another's "
        "(`glassworld trace ops`)"
    ),
)
def slow_steps(analysis: Analysis) -> Iterable[Evidence]:
    """Yield every step whose fastest instance is slower than the slower ones of other steps."""
    steps = blocks.step_times(analysis)
    if len(steps) < LEAST_STEPS or min(step.count for step in steps) < LEAST_BLOCKS:
        return
    for step in steps:
        # Other load on the machine only adds time, so the fastest instance counts. It must be
        # slower than the slower instances of the others, or lasting load would explain it too.
        others = float(np.median([s.min_ms for s in steps if s is not step]))
        slower = np.quantile([ms for s in steps if s is not step for ms in s.values_ms], SLOWER)
        if step.min_ms <= slower:
            continue
        yield Evidence(
            f"Denoising_Step_{step.step}_t{step.timestep}",
            f"takes {step.min_ms:.1f} ms at best, the other steps {others:.1f} ms",
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
def slow_layers(analysis: Analysis) -> Iterable[Evidence]:
    """Yield how every layer compares with the others, part by part, each at its fastest."""
    tree = analysis.tree
    instances = tree.where(tags.LAYER)
    layers, row = np.unique(tree.dims["layer"][instances], return_inverse=True)
    if len(layers) < LEAST_LAYERS:
        return
    layer, part, best = _fastest_parts(analysis, instances, row)
    others = median_of_others(part, best)
    shared = np.isfinite(others)  # parts that other layers have too
    mine, usual = (
        np.bincount(layer[shared], ms[shared], minlength=len(layers)).tolist()
        for ms in (best, others)
    )
    count = len(instances) / len(layers)
    for i, number in enumerate(layers.tolist()):
        yield Evidence(
            tags.LAYER.format(layer=number),
            f"takes {mine[i]:.2f} ms at best; the same parts of others take {usual[i]:.2f} ms",
            mine[i] / usual[i] if usual[i] else 0.0,
            (mine[i] - usual[i]) * count,
        )


def _fastest_parts(analysis: Analysis, instances: Ints, row: Ints) -> tuple[Ints, Ints, Floats]:
    """Return for each layer and kind of part in it: both by number, and the fastest one's ms.

    Self time is one more kind of part. The fastest counts because other load on the machine only
    adds time.
    """
    tree = analysis.tree
    row_of = np.full(len(tree) + 1, -1)
    row_of[instances] = row
    parents = row_of[tree.forest.parent]
    children = np.flatnonzero(parents >= 0)
    kinds = len(tree.patterns) + 1
    inside = parents[children] * kinds + tree.pattern[children]
    keys = np.concatenate((inside, row * kinds + kinds - 1))
    both, which = np.unique(keys, return_inverse=True)
    best = np.full(len(both), np.inf)
    times = np.concatenate((analysis.time_ns(children), analysis.self_ns(instances)))
    np.minimum.at(best, which, times / 1e6)
    return both // kinds, both % kinds, best


@rule(
    name="drift",
    fires_when="the steps of each block steadily take this much longer than the previous block's",
    threshold=0.02,
    unit="per block",
    change="use a smaller local_attn_size: it limits how much attention sees",
)
def growing_blocks(analysis: Analysis) -> Iterable[Evidence]:
    """Yield how much longer the steps of each block take than those of the last one."""
    slope = blocks.block_drift(analysis)
    run = blocks.block_times(analysis)
    if slope is not None:
        per_block = slope * float(np.median([block.steps_ms for block in run]))
        yield Evidence(
            tags.BLOCK,
            f"has steps that take {slope:.1%} longer than the previous block's",
            slope,
            per_block * len(run) * (len(run) - 1) / 2,
        )


@rule(
    name="real-time",
    fires_when="a block takes this many times as long as its frames last when played",
    threshold=1.0,
    unit="times its playback time",
    change=_DENOISING,
)
def behind_real_time(analysis: Analysis) -> Iterable[Evidence]:
    """Yield how much longer a block takes than its frames last."""
    pace, later = blocks.real_time_pace(analysis), blocks.block_times(analysis)[1:]
    if pace is None:
        return
    denoising = sum(block.steps_ms for block in later) > sum(block.decode_ms for block in later)
    yield Evidence(
        tags.BLOCK,
        f"takes {pace.block_ms:.0f} ms (median), but its frames play in {pace.playing_ms:.0f} ms "
        f"at {pace.rate:g} frames per second",
        pace.block_ms / pace.playing_ms,
        (pace.block_ms - pace.playing_ms) * len(later),
        f"{_DENOISING if denoising else _DECODING}; or a lower resolution",
    )
