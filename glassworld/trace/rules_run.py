"""Rules about the run itself: stalls, slow steps and layers, drift."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace import questions
from glassworld.trace.analysis import Analysis
from glassworld.trace.findings import Finding, scale_ms
from glassworld.trace.tables import Floats, Ints

STALL_SHARE = 0.20
STALL_TIMES = 3.0
MATTERS = 0.02  # a finding must promise this share of the window
SLOW_STEP = 1.3
SLOW_LAYER = 1.5
DRIFT = 0.02


def stall(analysis: Analysis) -> Iterable[Finding]:
    """A tag instance with far more time of its own than its kind: something waited there."""
    tree = analysis.tree
    scale = scale_ms(analysis)
    for pattern in range(len(tree.patterns)):
        found = np.flatnonzero(tree.pattern == pattern)
        found = found[tree.dims["block"][found] != 0]  # the first block warms up
        own = tree.self_ns[found] / 1e6
        for i in np.flatnonzero(questions.outliers(own)):
            excess = float(own[i] - np.median(own))
            if excess > STALL_SHARE * scale and own[i] > STALL_TIMES * np.median(own):
                yield Finding(
                    "stall",
                    analysis.instance_name(int(found[i])),
                    f"spent {own[i]:.1f} ms outside its own parts where its kind takes "
                    f"{np.median(own):.1f}: one stall, not a slow network",
                    excess,
                    STALL_SHARE * scale,
                    "ms",
                    "look for a wait at this moment: I/O, a lock, garbage collection, another "
                    "process on the machine",
                    excess,
                )


def pause(analysis: Analysis) -> Iterable[Finding]:
    """A long pause between two tags of the same kind, in a tag that runs too rarely to compare."""
    tree = analysis.tree
    scale = scale_ms(analysis)
    for pattern in range(len(tree.patterns)):
        found = tree.where(tree.patterns[pattern])
        inside = found[tree.forest.parent[found] >= 0]
        around = tree.forest.parent[inside]
        rare = np.bincount(tree.pattern, minlength=len(tree.patterns))[tree.pattern[around]] < 4
        next_to = np.flatnonzero(rare[1:] & (around[1:] == around[:-1])) + 1
        gaps = (tree.rows["start"][inside[next_to]] - tree.forest.end[inside[next_to - 1]]) / 1e6
        for i in np.flatnonzero(questions.outliers(gaps)):
            if gaps[i] > STALL_SHARE * scale:
                yield Finding(
                    "stall",
                    analysis.instance_name(int(inside[next_to[i]])),
                    f"began {gaps[i]:.1f} ms after the one before it ended, where its kind waits "
                    f"{np.median(gaps):.1f}",
                    float(gaps[i]),
                    STALL_SHARE * scale,
                    "ms",
                    "look at what runs between the two: a callback, writing files, a lock",
                    float(gaps[i]),
                )


def slow_step(analysis: Analysis) -> Iterable[Finding]:
    """A denoising step slower than the others, though all do the same work."""
    steps = questions.steps(analysis)
    if len(steps) < 3 or min(step.count for step in steps) < 3:
        return
    for step in steps:
        # The fastest instance: other load on the machine only ever adds time.
        others = float(np.median([s.min_ms for s in steps if s is not step]))
        ratio = step.min_ms / others if others else 0.0
        gain = (step.min_ms - others) * step.count
        if ratio > SLOW_STEP and gain > MATTERS * analysis.window_ns / 1e6:
            yield Finding(
                "slow-step",
                f"Denoising_Step_{step.step}_t{step.timestep}",
                f"takes {step.min_ms:.1f} ms at best where the other steps take {others:.1f}",
                ratio,
                SLOW_STEP,
                "x",
                "all steps run the same network: compare the operators of this step with "
                "another's (`glassworld trace ops`)",
                gain,
            )


def slow_layer(analysis: Analysis) -> Iterable[Finding]:
    """A transformer layer slower than the same parts are in other layers."""
    tree = analysis.tree
    found = tree.where(tags.LAYER)
    layers, row = np.unique(tree.dims["layer"][found], return_inverse=True)
    if len(layers) < 3:
        return
    best = _fastest_parts(analysis, found, row, len(layers))
    count = len(found) / len(layers)
    for i, layer in enumerate(layers):
        others = np.delete(best, i, axis=0)
        known = np.isfinite(best[i]) & np.isfinite(others).any(axis=0)
        with_part = np.where(np.isfinite(others), others, np.nan)[:, known]
        usual = float(np.nanmedian(with_part, axis=0).sum()) if known.any() else 0.0
        mine = float(best[i, known].sum())
        gain = (mine - usual) * count
        if usual and mine > SLOW_LAYER * usual and gain > MATTERS * analysis.window_ns / 1e6:
            yield Finding(
                "slow-layer",
                tags.LAYER.format(layer=layer),
                f"takes {mine:.2f} ms at best where the same parts take {usual:.2f} in others",
                mine / usual,
                SLOW_LAYER,
                "x",
                "this layer alone is slow: look for a hook, a recompilation or a fallback in it",
                gain,
            )


def _fastest_parts(analysis: Analysis, found: Ints, row: Ints, layers: int) -> Floats:
    """Per layer (rows) and kind of part (columns), the fastest instance in ms; inf if none.

    The last column is the time outside any part. The fastest, because other load on the machine
    only ever adds time.
    """
    tree = analysis.tree
    best = np.full((layers, len(tree.patterns) + 1), np.inf)
    row_of = np.full(len(tree) + 1, -1)
    row_of[found] = row
    children = np.flatnonzero(row_of[tree.forest.parent] >= 0)
    where = (row_of[tree.forest.parent[children]], tree.pattern[children])
    np.minimum.at(best, where, analysis.time_ns(children) / 1e6)
    own = np.zeros(len(found)) if analysis.on_gpu else tree.self_ns[found] / 1e6
    np.minimum.at(best, (row, np.full(len(row), len(tree.patterns))), own)
    return best


def drifts(analysis: Analysis) -> Iterable[Finding]:
    """Blocks grow slower and slower."""
    slope = questions.drift(analysis)
    found = questions.blocks(analysis)
    if slope is not None and slope > DRIFT and len(found) >= 6:
        per_block = slope * float(np.median([block.steps_ms for block in found]))
        yield Finding(
            "drift",
            tags.BLOCK,
            f"each block's steps take {slope:.1%} longer than the block's before",
            slope,
            DRIFT,
            "share",
            "a smaller local_attn_size bounds what attention sees",
            per_block * len(found) * (len(found) - 1) / 2,
        )
