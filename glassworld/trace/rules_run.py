"""Rules about the run: slow steps and layers, drift, real time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glassworld.profiling import registry as tags
from glassworld.trace import blocks
from glassworld.trace.analysis import Analysis
from glassworld.trace.findings import Evidence, Rule
from glassworld.trace.tables import Floats, Ints

SLOWER = 0.9  # the quantile that stands for the slower instances
LEAST_STEPS, LEAST_LAYERS, LEAST_BLOCKS = 3, 3, 3


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


def _slow_layers(analysis: Analysis) -> Iterable[Evidence]:
    tree = analysis.tree
    found = tree.where(tags.LAYER)
    layers, row = np.unique(tree.dims["layer"][found], return_inverse=True)
    if len(layers) < LEAST_LAYERS:
        return
    best = _fastest_parts(analysis, found, row, len(layers))
    count = len(found) / len(layers)
    for i, layer in enumerate(layers):
        others = np.delete(best, i, axis=0)
        known = np.isfinite(best[i]) & np.isfinite(others).any(axis=0)
        with_part = np.where(np.isfinite(others), others, np.nan)[:, known]
        usual = float(np.nanmedian(with_part, axis=0).sum()) if known.any() else 0.0
        mine = float(best[i, known].sum())
        yield Evidence(
            tags.LAYER.format(layer=layer),
            f"takes {mine:.2f} ms at best where the same parts take {usual:.2f} in others",
            mine / usual if usual else 0.0,
            (mine - usual) * count,
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
    np.minimum.at(best, (row, np.full(len(row), len(tree.patterns))), analysis.own_ns(found) / 1e6)
    return best


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


_DENOISING = "most of it is denoising: fewer denoising steps, a smaller local_attn_size"
_DECODING = "most of it is decoding: vae_compile_mode force"


RULES = (
    Rule(
        "slow-step",
        "a step's fastest instance takes this many times the other steps'",
        1.3,
        "times the others'",
        "all steps run the same network: compare the operators of this step with another's "
        "(`glassworld trace ops`)",
        _slow_steps,
    ),
    Rule(
        "slow-layer",
        "a layer takes this many times what the same parts take in other layers, each at its "
        "fastest",
        1.5,
        "times the others'",
        "this layer alone is slow: look for a hook, a recompilation or a fallback in it",
        _slow_layers,
    ),
    Rule(
        "drift",
        "each block's steps take this much longer than the block's before, steadily",
        0.02,
        "per block",
        "a smaller local_attn_size bounds what attention sees",
        _drift,
    ),
    Rule(
        "real-time",
        "a block takes this many times as long as its frames last when played",
        1.0,
        "times its frames",
        _DENOISING,
        _behind_real_time,
    ),
)
